#include "base/env.h"
#include "binding/common.h"
#include "binding/types.h"
#include "record/cache.h"
#include "record/recorder.h"
#include "record/run.h"

/// Recording: what python/lohe/compiler.py is made of.
namespace lohe::python {
namespace {

thread_local std::vector<std::unique_ptr<record::Scope>> scopes;
std::atomic<bool> allowed{true};  ///< see set_stance

PyObject* begin(PyObject*, PyObject*) {
  return guarded([] {
    scopes.push_back(allowed ? std::make_unique<record::Scope>() : nullptr);
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
  const bool was = (dispatch::mode_word & dispatch::kRecording) != 0;
  dispatch::mode_word &= ~dispatch::kRecording;
  return PyBool_FromLong(was);
}
PyObject* resume(PyObject*, PyObject* was) {
  if (was == Py_True) dispatch::mode_word |= dispatch::kRecording;
  return Py_NewRef(Py_None);
}

PyObject* allow(PyObject*, PyObject* now) {
  return PyBool_FromLong(allowed.exchange(now == Py_True));
}

PyObject* reset(PyObject*, PyObject*) {
  return guarded([] {
    record::TraceCache::global().clear();
    return Py_NewRef(Py_None);
  });
}

PyObject* profile(PyObject*, PyObject* now) {
  return PyBool_FromLong(record::profiling.exchange(now == Py_True));
}

/// A step: what it is made of, what it moves, how long it took.
Ref step_report(const compile::Trace& trace, const compile::CompiledTrace& program, size_t i) {
  const compile::FusedStep& step = program.steps[i];
  int64_t bytes = 0;
  for (const compile::TraceOperand& o : step.operands) bytes += trace.storages[static_cast<size_t>(o.storage)].nbytes;
  const std::string name = step.program != nullptr
                               ? step.program->name()
                               : trace.calls[static_cast<size_t>(trace.records[static_cast<size_t>(step.call)].call)]
                                     .op->schema.name;
  const int64_t runs = std::max<int64_t>(program.times.runs, 1);
  const Ref sizes = checked(wrap_ints(step.space.sizes));
  return checked(Py_BuildValue("{s:s#,s:O,s:i,s:O,s:L,s:L}", "name", name.data(), static_cast<Py_ssize_t>(name.size()),
                               "kernel", step.program != nullptr ? Py_True : Py_False, "operations",
                               static_cast<int>(step.records.size()), "sizes", sizes.get(), "bytes",
                               static_cast<long long>(bytes), "nanoseconds",
                               static_cast<long long>(program.times.step_ns[i] / runs)));
}

PyObject* report(PyObject*, PyObject*) {
  return guarded([] {
    const Ref list = checked(PyList_New(0));
    for (const auto& known : record::TraceCache::global().known()) {
      for (const auto& program : known->programs) {
        const Ref steps = checked(PyList_New(0));
        for (size_t i = 0; i < program->steps.size(); ++i)
          check_status(PyList_Append(steps.get(), step_report(known->trace, *program, i).get()));
        const Ref entry = checked(Py_BuildValue(
            "{s:L,s:n,s:L,s:L,s:L,s:O}", "met", static_cast<long long>(known->met), "operations",
            static_cast<Py_ssize_t>(known->trace.records.size()), "arena_bytes",
            static_cast<long long>(program->arena_bytes), "compile_nanoseconds",
            static_cast<long long>(program->compile_ns), "profiled_runs",
            static_cast<long long>(program->times.runs), "steps", steps.get()));
        check_status(PyList_Append(list.get(), entry.get()));
      }
    }
    return Py_NewRef(list.get());
  });
}

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
    return Py_BuildValue("{s:L,s:L,s:L,s:L,s:L}", "traces", static_cast<long long>(c.traces), "records",
                         static_cast<long long>(c.records), "unfused", static_cast<long long>(c.unfused),
                         "compiled", static_cast<long long>(c.compiled), "compilations",
                         static_cast<long long>(c.compilations));
  });
}

PyMethodDef methods[] = {
    {"_record_begin", begin, METH_NOARGS, "Records this thread's work from here on; nests."},
    {"_record_end", end, METH_NOARGS, "Ends the innermost recording; the outermost one's work is done then."},
    {"_record_pause", pause, METH_NOARGS, "Stops recording; gives whether it was on."},
    {"_record_resume", resume, METH_O, "Records again, given what _record_pause gave."},
    {"_record_allow", allow, METH_O, "Whether _record_begin() does anything; gives what held before."},
    {"_record_profile", profile, METH_O, "Whether programs measure their steps; gives what held before."},
    {"_record_report", report, METH_NOARGS, "What is known of every compiled program, the one used last first."},
    {"_record_reset", reset, METH_NOARGS, "Forgets all compiled programs."},
    {"_record_settle", settle, METH_NOARGS, "Does the work that this thread has recorded."},
    {"_is_recording", is_recording, METH_NOARGS, "Whether this thread's work is recorded."},
    {"_record_counts", counts, METH_NOARGS, "How often this thread carried out traces, and how."},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

void init_compile(PyObject* module) {
  check_status(PyModule_AddFunctions(module, methods));
  if (env_bool("LOHE_RECORD", false)) dispatch::mode_word |= dispatch::kRecording;
}

}  // namespace lohe::python
