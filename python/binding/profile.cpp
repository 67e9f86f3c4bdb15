#include <sys/syscall.h>
#include <unistd.h>

#include "binding/common.h"
#include "ops/call.h"
#include "profile/session.h"

/// Sessions of the profiler: what python/lohe/profiler.py is made of.
namespace lohe::python {
namespace {

thread_local std::unique_ptr<profile::Session> session;

/// _profile_begin(shapes, memory)
PyObject* begin(PyObject*, PyObject* const* args, Py_ssize_t count) {
  return guarded([&] {
    LOHE_CHECK(count == 2, "_profile_begin(shapes, memory) takes two arguments, got ", count);
    LOHE_CHECK(!session, "a profiler is already active on this thread");
    session = std::make_unique<profile::Session>(args[0] == Py_True, args[1] == Py_True);
    profile::set_current(session.get());
    dispatch::mode_word |= dispatch::kProfiling;
    return Py_NewRef(Py_None);
  });
}

Ref shapes_list(const profile::Event& e) {
  const Ref list = checked(PyList_New(0));
  for (const std::vector<int64_t>& shape : e.shapes) {
    const Ref sizes = checked(PyList_New(0));
    for (const int64_t size : shape) {
      const Ref number = checked(PyLong_FromLongLong(size));
      check_status(PyList_Append(sizes.get(), number.get()));
    }
    check_status(PyList_Append(list.get(), sizes.get()));
  }
  return list;
}

/// _profile_end(): the thread's number and its events, (name, kind, parent, begin, end, bytes, shapes) each.
PyObject* end(PyObject*, PyObject*) {
  return guarded([] {
    LOHE_CHECK(session != nullptr, "no profiler is active on this thread");
    dispatch::mode_word &= ~dispatch::kProfiling;
    profile::set_current(nullptr);
    const std::unique_ptr<profile::Session> ended = std::move(session);
    const std::vector<profile::Event> events = ended->take();
    const Ref list = checked(PyList_New(0));
    for (const profile::Event& e : events) {
      const Ref shapes = shapes_list(e);
      const Ref entry = checked(
          Py_BuildValue("(s#iiLLLO)", e.name.data(), static_cast<Py_ssize_t>(e.name.size()),
                        static_cast<int>(e.kind), e.parent, static_cast<long long>(e.begin),
                        static_cast<long long>(e.end), static_cast<long long>(e.bytes), shapes.get()));
      check_status(PyList_Append(list.get(), entry.get()));
    }
    return Py_BuildValue("(LO)", static_cast<long long>(::syscall(SYS_gettid)), list.get());
  });
}

/// _profile_enter(name): the number of a range that begins, -1 while nothing is profiled.
PyObject* enter(PyObject*, PyObject* name) {
  return guarded([&] {
    if (!session) return PyLong_FromLong(-1);
    Py_ssize_t size = 0;
    const char* text = PyUnicode_AsUTF8AndSize(name, &size);
    if (text == nullptr) throw PythonError();
    return PyLong_FromLong(
        session->open(std::string(text, static_cast<size_t>(size)), profile::Event::kRange));
  });
}

PyObject* leave(PyObject*, PyObject* number) {
  return guarded([&] {
    const long at = PyLong_AsLong(number);
    if (session && at >= 0) session->close(static_cast<int32_t>(at));
    return Py_NewRef(Py_None);
  });
}

PyMethodDef methods[] = {
    {"_profile_begin", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(begin)), METH_FASTCALL,
     "Measures this thread's work from here on: with shapes of arguments, with memory."},
    {"_profile_end", end, METH_NOARGS, "Ends it; gives the thread's number and the events."},
    {"_profile_enter", enter, METH_O, "Begins a named range; gives its number."},
    {"_profile_leave", leave, METH_O, "Ends the range of this number."},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

void init_profile(PyObject* module) { check_status(PyModule_AddFunctions(module, methods)); }

}  // namespace lohe::python
