#include "base/env.h"
#include "binding/common.h"
#include "record/cache.h"
#include "record/recorder.h"

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
