#include "lohe/compile.h"

#include "base/env.h"
#include "binding/common.h"
#include "binding/compile.h"
#include "binding/types.h"
#include "record/recorder.h"

/// Recording: what python/lohe/compiler.py is made of.
namespace lohe::python {
namespace {

thread_local std::vector<std::unique_ptr<record::Scope>> scopes;
std::atomic<bool> allowed{true};  ///< see set_stance

/// _record_begin(site=0, exact=True)
PyObject* begin(PyObject*, PyObject* const* args, Py_ssize_t count) {
  return guarded([&] {
    const uint64_t site = count > 0 ? PyLong_AsUnsignedLongLong(args[0]) : 0;
    const bool exact = count < 2 || args[1] == Py_True;
    scopes.push_back(allowed ? std::make_unique<record::Scope>(site, exact) : nullptr);
    return Py_NewRef(Py_None);
  });
}

PyObject* end(PyObject*, PyObject*) {
  return guarded([] {
    LOHE_CHECK(!scopes.empty(), "no recording is open on this thread");
    const std::unique_ptr<record::Scope> scope = std::move(scopes.back());
    scopes.pop_back();
    if (scope) scope->end();
    return Py_NewRef(Py_None);
  });
}

/// For a function that must not be recorded; what it reads settles by itself.
PyObject* pause(PyObject*, PyObject*) {
  constexpr uint32_t kModes = dispatch::kRecording | dispatch::kInexact;
  const uint32_t were = dispatch::mode_word & kModes;
  dispatch::mode_word &= ~kModes;
  return PyLong_FromUnsignedLong(were);
}
PyObject* resume(PyObject*, PyObject* were) {
  return guarded([&] {
    dispatch::mode_word |= static_cast<uint32_t>(PyLong_AsUnsignedLong(were));
    return Py_NewRef(Py_None);
  });
}

PyObject* allow(PyObject*, PyObject* now) { return PyBool_FromLong(allowed.exchange(now == Py_True)); }

PyObject* reset(PyObject*, PyObject*) {
  return guarded([] {
    reset_compiler();
    return Py_NewRef(Py_None);
  });
}

PyObject* profile(PyObject*, PyObject* now) { return PyBool_FromLong(profile_programs(now == Py_True)); }

/// None for 0, which says that it is not known.
Ref share_or_none(double share) {
  return share > 0 ? checked(PyFloat_FromDouble(share)) : Ref::borrow(Py_None);
}

Ref step_dict(const ProgramReport::Step& s) {
  const Ref sizes = checked(wrap_ints(s.sizes)), share = share_or_none(s.share);
  const long long read = s.read, written = s.written;
  return checked(Py_BuildValue(
      "{s:s#,s:O,s:i,s:O,s:L,s:L,s:L,s:L,s:L,s:L,s:O,s:{s:i,s:i,s:i}}", "name", s.name.data(),
      static_cast<Py_ssize_t>(s.name.size()), "kernel", s.kernel ? Py_True : Py_False, "operations",
      s.operations, "sizes", sizes.get(), "bytes", read + written, "read", read, "written", written, "far",
      static_cast<long long>(s.far), "flops", static_cast<long long>(s.flops), "nanoseconds",
      static_cast<long long>(s.nanoseconds), "share", share.get(), "rewrites", "reciprocals",
      s.rewrites.reciprocals, "fmas", s.rewrites.fmas, "roundings", s.rewrites.roundings));
}

/// _record_report(site): the text, then a list of programs.
PyObject* report(PyObject*, PyObject* site) {
  return guarded([&] {
    const std::vector<ProgramReport> programs = compile_report(PyLong_AsUnsignedLongLong(site));
    const Ref list = checked(PyList_New(0));
    for (const ProgramReport& p : programs) {
      const Ref steps = checked(PyList_New(0)), buffers = checked(PyList_New(0));
      for (const ProgramReport::Step& s : p.steps)
        check_status(PyList_Append(steps.get(), step_dict(s).get()));
      for (const ProgramReport::Buffer& b : p.buffers) {
        const Ref entry = checked(Py_BuildValue("(LLii)", static_cast<long long>(b.offset),
                                                static_cast<long long>(b.bytes), b.first_step, b.last_step));
        check_status(PyList_Append(buffers.get(), entry.get()));
      }
      const Ref entry = checked(Py_BuildValue(
          "{s:s#,s:O,s:L,s:L,s:L,s:L,s:L,s:L,s:O,s:O,s:O}", "reason", p.reason.data(),
          static_cast<Py_ssize_t>(p.reason.size()), "exact", p.exact ? Py_True : Py_False, "met",
          static_cast<long long>(p.met), "operations", static_cast<long long>(p.operations), "arena_bytes",
          static_cast<long long>(p.arena_bytes), "block_bytes", static_cast<long long>(p.block_bytes),
          "compile_nanoseconds", static_cast<long long>(p.compile_nanoseconds), "profiled_runs",
          static_cast<long long>(p.profiled_runs), "share", share_or_none(p.share).get(), "steps",
          steps.get(), "buffers", buffers.get()));
      check_status(PyList_Append(list.get(), entry.get()));
    }
    const std::string text = to_string(programs);
    return Py_BuildValue("(s#O)", text.data(), static_cast<Py_ssize_t>(text.size()), list.get());
  });
}

PyObject* new_site(PyObject*, PyObject*) { return PyLong_FromUnsignedLongLong(new_compile_site()); }

PyObject* settle(PyObject*, PyObject*) {
  return guarded([] {
    record::Recorder::of_this_thread().settle();
    return Py_NewRef(Py_None);
  });
}

PyObject* is_recording(PyObject*, PyObject*) {
  return PyBool_FromLong((dispatch::mode_word & dispatch::kRecording) != 0);
}

PyObject* counts(PyObject*, PyObject*) {
  return guarded([] {
    const record::Recorder::Counts c = record::Recorder::of_this_thread().counts();
    return Py_BuildValue("{s:L,s:L,s:L,s:L,s:L,s:L}", "traces", static_cast<long long>(c.traces), "records",
                         static_cast<long long>(c.records), "unfused", static_cast<long long>(c.unfused),
                         "compiled", static_cast<long long>(c.compiled), "compilations",
                         static_cast<long long>(c.compilations), "instances",
                         static_cast<long long>(c.instances));
  });
}

PyMethodDef methods[] = {
    {"_record_begin", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(begin)), METH_FASTCALL,
     "Records this thread's work from here on, as that of a site, exactly or not; nests."},
    {"_record_end", end, METH_NOARGS, "Ends the innermost recording; the outermost one's work is done then."},
    {"_record_pause", pause, METH_NOARGS, "Stops recording; gives what was on."},
    {"_record_resume", resume, METH_O, "Records again, given what _record_pause gave."},
    {"_record_allow", allow, METH_O, "Whether _record_begin() does anything; gives what held before."},
    {"_record_profile", profile, METH_O, "Whether programs measure their steps; gives what held before."},
    {"_record_report", report, METH_O,
     "Compiled programs of a site (0: of all), the one used last first: text, list."},
    {"_record_site", new_site, METH_NOARGS, "A number for a compiled function."},
    {"_record_reset", reset, METH_NOARGS, "Forgets all compiled programs."},
    {"_record_settle", settle, METH_NOARGS, "Does the work that this thread has recorded."},
    {"_is_recording", is_recording, METH_NOARGS, "Whether this thread's work is recorded."},
    {"_record_counts", counts, METH_NOARGS, "How often this thread carried out traces, and how."},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

bool recording_allowed() { return allowed; }

void init_compile(PyObject* module) {
  check_status(PyModule_AddFunctions(module, methods));
  if (env_bool("LOHE_RECORD", false)) dispatch::mode_word |= dispatch::kRecording;
}

}  // namespace lohe::python
