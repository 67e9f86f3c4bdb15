#include "record/replay.h"

#include <algorithm>
#include <unordered_set>

#include "base/env.h"
#include "base/log.h"
#include "binding/compile.h"
#include "binding/nn_module.h"
#include "binding/pattern.h"
#include "dispatch/observe.h"
#include "record/recorder.h"

/// Functions compiled with replay=True. A table has an entry for each way in which its function was called:
/// what must hold for the entry to be the call's, and what two calls in a row did.
namespace lohe::python {
namespace {

/// Entries of a table; how often what an entry does may change, and how many entries may be made without one
/// that is used, before it is given up.
constexpr size_t kMostEntries = 8;
constexpr int kMostChanges = 4, kMostUnused = 16, kMostWaits = 1000;

/// How deep containers are looked into, and the largest that are.
constexpr int kDepth = 4;
constexpr Py_ssize_t kLargest = 256;

/// Whether it is the same object, or the same number.
bool same_object(PyObject* a, PyObject* b) {
  if (a == b) return true;
  return a != nullptr && b != nullptr && (PyFloat_CheckExact(a) || PyLong_CheckExact(a)) && same_plain(a, b);
}

/// What a dict or list held.
struct Snapshot {
  explicit Snapshot(PyObject* c) : container(Ref::borrow(c)) {
    if (PyDict_Check(c)) {
      PyObject *k, *v;
      for (Py_ssize_t at = 0; PyDict_Next(c, &at, &k, &v) != 0;) {
        items.push_back(Ref::borrow(k));
        items.push_back(Ref::borrow(v));
      }
    } else {
      for (Py_ssize_t i = 0; i < PyList_GET_SIZE(c); ++i) items.push_back(Ref::borrow(PyList_GET_ITEM(c, i)));
    }
  }
  bool holds() const {
    PyObject* c = container.get();
    if (PyDict_Check(c)) {
      if (static_cast<size_t>(PyDict_GET_SIZE(c)) * 2 != items.size()) return false;
      PyObject *k, *v;
      size_t i = 0;
      for (Py_ssize_t at = 0; i < items.size() && PyDict_Next(c, &at, &k, &v) != 0; i += 2) {
        if (items[i].get() != k || !same_object(items[i + 1].get(), v)) return false;
      }
      return true;
    }
    if (static_cast<size_t>(PyList_GET_SIZE(c)) != items.size()) return false;
    for (size_t i = 0; i < items.size(); ++i) {
      if (!same_object(PyList_GET_ITEM(c, static_cast<Py_ssize_t>(i)), items[i].get())) return false;
    }
    return true;
  }
  Ref container;
  std::vector<Ref> items;  ///< of a dict: keys and values
};

/// Whether it is an object with attributes of its own, and none of the language's own kinds.
bool has_attributes(PyObject* o) {
  return Py_TYPE(o)->tp_dictoffset != 0 && !PyType_Check(o) && !PyModule_Check(o) && !PyFunction_Check(o) &&
         !is_tensor(o);
}

/// What the host's code depends on as far as it can be seen: attributes of the modules that it calls, and of
/// objects that it knows (optimizers, schedules, the object that a method belongs to), the variables of the
/// function itself, and containers in them.
class HostState {
 public:
  HostState() = default;
  HostState(PyObject* function, const std::vector<Ref>& modules) {
    for (const Ref& m : modules) add_attributes(m.get(), 0);
    if (PyMethod_Check(function)) {
      add_attributes(PyMethod_GET_SELF(function), 0);
      function = PyMethod_GET_FUNCTION(function);
    }
    if (PyFunction_Check(function)) {
      add_cells(function);
      add_globals(function);
    }
    known_.clear();
  }
  bool holds() const {
    if (!no_global_hooks()) return false;
    for (const Variable& v : cells_) {
      if (!same_object(PyCell_GET(v.where.get()), v.value.get())) return false;
    }
    for (const Variable& v : globals_) {
      if (!same_object(PyDict_GetItemWithError(v.where.get(), v.name.get()), v.value.get())) return false;
    }
    return std::all_of(containers_.begin(), containers_.end(), [](const Snapshot& s) { return s.holds(); });
  }
  int visit(visitproc visit, void* arg) const {
    for (const std::vector<Variable>* list : {&cells_, &globals_}) {
      for (const Variable& v : *list) {
        Py_VISIT(v.where.get());
        Py_VISIT(v.value.get());
      }
    }
    for (const Snapshot& s : containers_) {
      Py_VISIT(s.container.get());
      for (const Ref& item : s.items) Py_VISIT(item.get());
    }
    return 0;
  }

 private:
  struct Variable {
    Ref where, name, value;
  };

  void add(PyObject* o, int depth) {
    if (o == nullptr || depth > kDepth) return;
    if (PyObject_TypeCheck(o, &module_base_type)) return add_attributes(o, 0);
    if (PyTuple_Check(o)) {
      for (Py_ssize_t i = 0; i < std::min(PyTuple_GET_SIZE(o), kLargest); ++i)
        add(PyTuple_GET_ITEM(o, i), depth + 1);
      return;
    }
    if (!PyDict_Check(o) && !PyList_CheckExact(o) && has_attributes(o)) return add_attributes(o, depth + 1);
    if (PyDict_Check(o) ? PyDict_GET_SIZE(o) > kLargest
                        : !PyList_CheckExact(o) || PyList_GET_SIZE(o) > kLargest)
      return;
    if (!known_.insert(o).second) return;
    containers_.emplace_back(o);
    // By value: the vector grows on the way.
    const std::vector<Ref> items = containers_.back().items;
    for (const Ref& item : items) add(item.get(), depth + 1);
  }
  void add_attributes(PyObject* o, int depth) {
    if (const Ref dict = Ref::steal(PyObject_GenericGetDict(o, nullptr)))
      add(dict.get(), depth);
    else
      PyErr_Clear();
  }
  void add_cells(PyObject* function) {
    PyObject* cells = PyFunction_GET_CLOSURE(function);
    for (Py_ssize_t i = 0; cells != nullptr && i < PyTuple_GET_SIZE(cells); ++i) {
      PyObject* cell = PyTuple_GET_ITEM(cells, i);
      cells_.push_back({Ref::borrow(cell), {}, Ref::borrow(PyCell_GET(cell))});
      add(PyCell_GET(cell), 1);
    }
  }
  void add_globals(PyObject* function) {
    const Ref names = checked(PyObject_GetAttrString(PyFunction_GET_CODE(function), "co_names"));
    PyObject* globals = PyFunction_GET_GLOBALS(function);
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names.get()); ++i) {
      PyObject* name = PyTuple_GET_ITEM(names.get(), i);
      PyObject* value = PyDict_GetItemWithError(globals, name);
      if (value == nullptr || PyModule_Check(value) || PyType_Check(value)) continue;
      globals_.push_back({Ref::borrow(globals), Ref::borrow(name), Ref::borrow(value)});
      add(value, 1);
    }
  }

  std::vector<Variable> cells_, globals_;
  std::vector<Snapshot> containers_;
  std::unordered_set<const PyObject*> known_;
};

/// A way in which the function was called.
struct Entry {
  Entry(Pattern p, const std::vector<TensorImpl*>& tensors) : arguments(std::move(p)), signature(tensors) {}
  /// @param tensors takes those of the arguments
  bool fits(PyObject* call, std::vector<TensorImpl*>& tensors) const {
    tensors.clear();
    return arguments.matches(call, tensors) && signature.holds_for(tensors) && host.holds() &&
           (!replay || replay->fits(tensors));
  }
  int visit(visitproc visit, void* arg) const {
    if (const int status = arguments.visit(visit, arg); status != 0) return status;
    if (result.use_count() == 1) {
      if (const int status = result->visit(visit, arg); status != 0) return status;
    }
    return host.visit(visit, arg);
  }

  Pattern arguments;
  record::Signature signature;
  HostState host;
  std::shared_ptr<const record::Replay> replay;  ///< of the last call that ran; null: refused
  std::shared_ptr<const Pattern> result;
  bool ready = false;   ///< the last two calls were alike
  std::string refused;  ///< why it is not replayed; empty: it is, or may be
  int changes = 0;      ///< calls unlike those before them
  int waits = 0;        ///< calls like those before them, without a program
  int64_t replayed = 0;
  uint64_t used = 0;  ///< the table's clock
};
using EntryPtr = std::shared_ptr<Entry>;

struct Table {
  Ref function;
  std::string name;
  uint64_t site = 0;
  bool exact = true;
  int64_t audit = 0;
  std::vector<EntryPtr> entries;
  bool warm = false;     ///< the function has run
  int unused = 0;        ///< entries made since one was replayed
  std::string given_up;  ///< why nothing is observed any more
  std::string last_reason;
  int64_t replayed = 0, ran = 0;
  uint64_t clock = 0;
};

struct PyTable {
  PyObject_HEAD Table* table;
};
Table& table_of(PyObject* self) { return *reinterpret_cast<PyTable*>(self)->table; }

/// Adds the modules that a thread calls to a list.
class CollectModules {
 public:
  explicit CollectModules(std::vector<Ref>* list) : outer_(std::exchange(called_modules, list)) {}
  ~CollectModules() { called_modules = outer_; }
  CollectModules(const CollectModules&) = delete;
  CollectModules& operator=(const CollectModules&) = delete;

 private:
  std::vector<Ref>* outer_;
};

Ref run_recorded(Table& t, PyObject* args, PyObject* kwargs) {
  ++t.ran;
  const Ref function = t.function;
  record::Scope scope(t.site, t.exact);
  Ref result = checked(PyObject_Call(function.get(), args, kwargs));
  scope.end();
  return result;
}

/// What an observed call did.
struct Observed {
  std::shared_ptr<const record::Replay> replay;
  std::string reason;      ///< where there is none
  bool disturbed = false;  ///< by another thread: the call tells nothing
  HostState host;
  std::shared_ptr<const Pattern> result;
};

/// Whether the caller is the only one who has what the function made.
std::string kept_elsewhere(PyObject* result, const std::vector<TensorImpl*>& arguments) {
  std::vector<PyObject*> parts;
  mutable_parts(result, parts);
  for (PyObject* part : parts) {
    const auto times = std::count(parts.begin(), parts.end(), part);
    if (is_tensor(part)) {
      TensorImpl* impl = impl_of(part);
      if (std::find(arguments.begin(), arguments.end(), impl) != arguments.end()) continue;
      if (Py_TYPE(part) != tensor_type) return "it gives back a tensor of class " + type_name(part);
      const auto* object = reinterpret_cast<PyTensor*>(part);
      if (object->dict != nullptr || object->weakrefs != nullptr || object->hooks != nullptr)
        return "a result has attributes, hooks or weak references";
    } else if (times != 1) {
      return "a container occurs twice in its results";
    }
    if (Py_REFCNT(part) != times) return "a result is also kept elsewhere";
  }
  return {};
}

/// Calls the function and looks on. @param call (args, kwargs)
Ref run_observed(Table& t, const Pattern& arguments, PyObject* call, const std::vector<TensorImpl*>& tensors,
                 Observed& seen) {
  ++t.ran;
  const Ref function = t.function;
  std::vector<Ref> modules;
  dispatch::Observation observation(tensors);
  record::Observer& observer = observation.observer;
  Ref result;
  {
    record::Scope scope(t.site, t.exact);
    {
      const CollectModules collect(&modules);
      PyObject* kwargs = PyTuple_GET_ITEM(call, 1);
      result = checked(
          PyObject_Call(function.get(), PyTuple_GET_ITEM(call, 0), kwargs == Py_None ? nullptr : kwargs));
    }
    observation.stop();
    scope.end();
  }
  seen.host = HostState(function.get(), modules);
  if (std::vector<TensorImpl*> after; !arguments.matches(call, after) || after != tensors)
    observer.refuse("it changes its arguments");
  std::string foreign;
  std::vector<PyObject*> objects;
  seen.result = std::make_shared<Pattern>(Pattern::of(result.get(), objects, foreign));
  if (!foreign.empty()) observer.refuse("it gives back an object of type " + foreign);
  if (std::string kept = kept_elsewhere(result.get(), tensors); !kept.empty())
    observer.refuse(std::move(kept));
  std::vector<TensorImpl*> results;
  for (PyObject* o : objects) results.push_back(impl_of(o));
  seen.replay = record::Replay::make(observer, results);
  seen.reason = observer.reason();
  seen.disturbed = observer.disturbed();
  return result;
}

void refuse(Table& t, Entry& e, std::string reason) {
  log(LogLevel::kInfo, t.name, " is not replayed for some arguments: ", reason);
  e.refused = std::move(reason);
  e.replay = nullptr;
  e.ready = false;
}

/// Adds what a call did to an entry that it fits.
void confirm(Table& t, Entry& e, Observed seen) {
  if (seen.disturbed && ++e.waits < kMostWaits) return;
  if (!seen.replay) return refuse(t, e, std::move(seen.reason));
  std::string change;
  if (!e.host.holds())
    change = "attributes of a module, or variables of the function, change while it runs";
  else if (e.replay)
    change = e.replay->difference(*seen.replay);
  if (change.empty() && !e.result->same_as(*seen.result)) change = "what it returns besides tensors changes";
  e.replay = std::move(seen.replay);
  e.result = std::move(seen.result);
  e.host = std::move(seen.host);
  e.ready = change.empty() && e.replay->ready();
  if (change.empty()) {
    if (!e.ready && ++e.waits >= kMostWaits) refuse(t, e, "there is no program of it");
    return;
  }
  t.last_reason = change;
  if (++e.changes >= kMostChanges) refuse(t, e, std::move(change));
}

/// @throws the error of an audit that found a difference.
void audit(const Table& t, const Entry& e, const Observed& seen) {
  if (seen.disturbed) return;
  std::string found = seen.reason;
  if (seen.replay) found = e.replay->difference(*seen.replay);
  if (found.empty() && !e.host.holds()) found = "attributes of a module, or variables, change while it runs";
  if (found.empty() && !e.result->same_as(*seen.result)) found = "what it returns besides tensors changes";
  if (found.empty()) return;
  raise(ErrorKind::kInternal, "replay audit: ", t.name, " no longer does what is replayed for it: ", found,
        "; it depends on something that replay=True cannot see (docs/compile.md), compile it without");
}

Ref run_replay(Table& t, Entry& e, const std::vector<TensorImpl*>& tensors) {
  ++t.replayed;
  ++e.replayed;
  t.unused = 0;
  // Another thread may find that the function changed while this one works.
  const std::shared_ptr<const record::Replay> replay = e.replay;
  const std::shared_ptr<const Pattern> result = e.result;
  std::vector<Ref> results;
  if (const std::vector<TensorPtr> made = replay->run(tensors); !made.empty()) {
    for (const TensorPtr& r : made) results.push_back(checked(wrap(r)));
  }
  return result->make(results);
}

/// A call that fits no entry.
Ref run_new(Table& t, PyObject* call) {
  std::string foreign;
  std::vector<PyObject*> objects;
  Pattern arguments = Pattern::of(call, objects, foreign);
  std::vector<TensorImpl*> tensors;
  for (PyObject* o : objects) tensors.push_back(impl_of(o));
  PyObject* kwargs = PyTuple_GET_ITEM(call, 1);
  if (!foreign.empty() || !t.warm) {
    t.warm = true;
    if (!foreign.empty()) t.last_reason = "an argument is, or contains, an object of type " + foreign;
    return run_recorded(t, PyTuple_GET_ITEM(call, 0), kwargs == Py_None ? nullptr : kwargs);
  }
  auto entry = std::make_shared<Entry>(std::move(arguments), tensors);
  Observed seen;
  Ref result = run_observed(t, entry->arguments, call, tensors, seen);
  if (seen.disturbed) return result;
  entry->used = ++t.clock;
  entry->host = std::move(seen.host);
  entry->result = std::move(seen.result);
  entry->replay = std::move(seen.replay);
  if (!entry->replay) refuse(t, *entry, std::move(seen.reason));
  std::erase_if(t.entries, [](const EntryPtr& e) { return e->replay && e->replay->stale(); });
  if (t.entries.size() >= kMostEntries) {
    t.entries.erase(std::min_element(t.entries.begin(), t.entries.end(),
                                     [](const EntryPtr& a, const EntryPtr& b) { return a->used < b->used; }));
  }
  t.entries.push_back(std::move(entry));
  if (++t.unused < kMostUnused) return result;
  t.given_up = "arguments, modes, or what it uses from outside differ from call to call";
  if (!t.last_reason.empty()) t.given_up += "; last: " + t.last_reason;
  log(LogLevel::kInfo, t.name, " is not replayed: ", t.given_up);
  t.entries.clear();
  return result;
}

/// Modes in which every call runs.
constexpr uint32_t kAlwaysRuns = dispatch::kRecording | dispatch::kIntercepted | dispatch::kProfiling;

PyObject* call(PyObject* self, PyObject* args, PyObject* kwargs) {
  return guarded([&] {
    Table& t = table_of(self);
    const Ref alive = Ref::borrow(self);
    if (!recording_allowed()) return checked(PyObject_Call(t.function.get(), args, kwargs)).release();
    if (!t.given_up.empty() || (dispatch::mode_word & kAlwaysRuns) != 0)
      return run_recorded(t, args, kwargs).release();
    const Ref both = checked(PyTuple_Pack(2, args, kwargs == nullptr ? Py_None : kwargs));
    std::vector<TensorImpl*> tensors;
    EntryPtr entry;
    for (size_t i = 0; i < t.entries.size() && !entry; ++i) {
      EntryPtr e = t.entries[i];  // comparing may let other threads in
      if (e->fits(both.get(), tensors)) entry = std::move(e);
    }
    if (!entry) return run_new(t, both.get()).release();
    entry->used = ++t.clock;
    if (!entry->refused.empty()) return run_recorded(t, args, kwargs).release();
    const bool audited = entry->ready && t.audit > 0 && (entry->replayed + 1) % t.audit == 0;
    if (entry->ready && !audited) return run_replay(t, *entry, tensors).release();
    Observed seen;
    Ref result = run_observed(t, entry->arguments, both.get(), tensors, seen);
    if (audited) {
      ++entry->replayed;
      audit(t, *entry, seen);
    } else {
      confirm(t, *entry, std::move(seen));
    }
    return result.release();
  });
}

/// _report(): calls that were replayed, calls that ran, entries that are replayed, reasons why others are
/// not.
PyObject* report(PyObject* self, PyObject*) {
  return guarded([&] {
    const Table& t = table_of(self);
    long long ready = 0;
    const Ref reasons = checked(PyList_New(0));
    const auto add = [&](const std::string& reason) {
      if (!reason.empty()) check_status(PyList_Append(reasons.get(), checked(unicode(reason)).get()));
    };
    add(t.given_up);
    for (const EntryPtr& e : t.entries) {
      ready += e->ready ? 1 : 0;
      add(e->refused);
    }
    if (ready == 0 && PyList_GET_SIZE(reasons.get()) == 0) add(t.last_reason);
    return Py_BuildValue("{s:L,s:L,s:L,s:O}", "replayed", static_cast<long long>(t.replayed), "ran",
                         static_cast<long long>(t.ran), "ready", ready, "reasons", reasons.get());
  });
}

PyObject* new_table(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  return guarded([&] {
    static const char* names[] = {"function", "name", "site", "exact", nullptr};
    PyObject* function;
    const char* name;
    unsigned long long site;
    int exact;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OsKp:ReplayTable", const_cast<char**>(names), &function,
                                     &name, &site, &exact))
      throw PythonError{};
    auto table = std::make_unique<Table>();
    table->function = Ref::borrow(function);
    table->name = name;
    table->site = site;
    table->exact = exact != 0;
    table->audit = env_int("LOHE_REPLAY_AUDIT", 0, 0, 1'000'000'000);
    PyObject* self = type->tp_alloc(type, 0);
    if (self == nullptr) throw PythonError{};
    reinterpret_cast<PyTable*>(self)->table = table.release();
    return self;
  });
}

int traverse(PyObject* self, visitproc visit, void* arg) {
  const Table& t = table_of(self);
  Py_VISIT(t.function.get());
  for (const EntryPtr& e : t.entries) {
    // One that a call uses as well is not this table's alone.
    if (e.use_count() > 1) continue;
    if (const int status = e->visit(visit, arg); status != 0) return status;
  }
  return 0;
}

int clear(PyObject* self) {
  Table& t = table_of(self);
  const std::vector<EntryPtr> entries = std::exchange(t.entries, {});
  const Ref function = std::exchange(t.function, Ref::borrow(Py_None));
  return 0;
}

void dealloc(PyObject* self) {
  PyObject_GC_UnTrack(self);
  const std::unique_ptr<Table> table(reinterpret_cast<PyTable*>(self)->table);
  Py_TYPE(self)->tp_free(self);
}

PyMethodDef methods[] = {
    {"_report", report, METH_NOARGS, "How often it was replayed, how often it ran, and why."},
    {nullptr, nullptr, 0, nullptr}};

PyTypeObject table_type = [] {
  PyTypeObject type = static_type("lohe._C.ReplayTable", sizeof(PyTable));
  type.tp_flags |= Py_TPFLAGS_HAVE_GC;
  type.tp_doc = "ReplayTable(function, name, site, exact): calls the function, or replays what it did.";
  type.tp_new = new_table;
  type.tp_call = call;
  type.tp_traverse = traverse;
  type.tp_clear = clear;
  type.tp_dealloc = dealloc;
  type.tp_methods = methods;
  return type;
}();

}  // namespace

void init_replay(PyObject* module) {
  check_status(PyType_Ready(&table_type));
  check_status(PyModule_AddObjectRef(module, "ReplayTable", reinterpret_cast<PyObject*>(&table_type)));
}

}  // namespace lohe::python
