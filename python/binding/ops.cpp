#include "binding/ops.h"

#include <algorithm>
#include <deque>
#include <map>

#include "autograd/tape.h"
#include "binding/tensor.h"
#include "binding/torch_function.h"
#include "binding/types.h"

/// The op table as Python functions and methods.
namespace lohe::python {
namespace {

std::map<std::string, OverloadSet, std::less<>>& overload_sets() {
  static std::map<std::string, OverloadSet, std::less<>> sets;
  return sets;
}
std::map<std::string, PyObject*, std::less<>>& methods() {
  static std::map<std::string, PyObject*, std::less<>> table;
  return table;
}
std::map<std::string, PyObject*, std::less<>>& functions() {
  static std::map<std::string, PyObject*, std::less<>> table;
  return table;
}

// --- results

/// The named tuple of a row, made when its first result is.
PyTypeObject* return_type(const Overload& overload) {
  static std::map<const ops::OpDef*, PyTypeObject*> types;
  auto& type = types[overload.op];
  if (type == nullptr) {
    static std::deque<std::string> texts;
    auto* fields = new PyStructSequence_Field[overload.op->schema.returns.size() + 1]{};
    size_t i = 0;
    for (const ops::Return& r : overload.op->schema.returns)
      fields[i++].name = texts.emplace_back(r.name).c_str();
    PyStructSequence_Desc description{};
    description.name = texts.emplace_back("torch.return_types." + overload.op->schema.base).c_str();
    description.fields = fields;
    description.n_in_sequence = static_cast<int>(i);
    type = PyStructSequence_NewType(&description);
    if (type == nullptr) throw PythonError{};
  }
  return type;
}

bool returns_are_named(const Overload& overload) {
  for (const ops::Return& r : overload.op->schema.returns) {
    if (r.name.empty()) return false;
  }
  return true;
}

// --- calls

PyObject* op_vectorcall(PyObject* callable, PyObject* const* args, size_t nargsf, PyObject* kwnames) {
  auto* op = reinterpret_cast<PyOp*>(callable);
  Py_ssize_t nargs = PyVectorcall_NARGS(nargsf);
  return guarded([&]() -> PyObject* {
    PyObject* self = nullptr;
    if (op->method) {
      LOHE_CHECK_TYPE(nargs > 0 && is_tensor(args[0]), "descriptor '", utf8(op->name),
                      "' for 'torch.Tensor' objects needs a ", "Tensor as its first argument, got ",
                      nargs > 0 ? type_name(args[0]) : "none");
      self = args[0];
      ++args;
      --nargs;
    }
    return call_overloads(callable, *op->set, op->form, self, args, nargs, kwnames);
  });
}

PyObject* op_repr(PyObject* self) {
  auto* op = reinterpret_cast<PyOp*>(self);
  if (op->method) return PyUnicode_FromFormat("<method '%U' of 'torch.Tensor' objects>", op->name);
  return PyUnicode_FromFormat("<built-in function %U>", op->name);
}
PyObject* op_name(PyObject* self, void*) { return Py_NewRef(reinterpret_cast<PyOp*>(self)->name); }
PyObject* op_module(PyObject* self, void*) { return Py_NewRef(reinterpret_cast<PyOp*>(self)->module); }
PyObject* op_qualname(PyObject* self, void*) {
  auto* op = reinterpret_cast<PyOp*>(self);
  return op->method ? PyUnicode_FromFormat("Tensor.%U", op->name) : Py_NewRef(op->name);
}
PyObject* op_doc(PyObject* self, void*) {
  return guarded([&] {
    auto* op = reinterpret_cast<PyOp*>(self);
    std::string text;
    for (const Overload& row : op->set->rows) {
      text += std::string(utf8(op->name)) + row.signature + "\n";
      if (!row.op->doc.empty()) text += "\n" + std::string(row.op->doc) + "\n";
    }
    return unicode(text);
  });
}
PyObject* op_reduce(PyObject* self, PyObject*) { return op_qualname(self, nullptr); }
PyObject* op_copy(PyObject* self, PyObject*) { return Py_NewRef(self); }
PyObject* op_bind(PyObject* self, PyObject* object, PyObject*) {
  return object == nullptr || object == Py_None ? Py_NewRef(self) : PyMethod_New(self, object);
}

PyGetSetDef op_properties[] = {{"__name__", op_name, nullptr, nullptr, nullptr},
                               {"__qualname__", op_qualname, nullptr, nullptr, nullptr},
                               {"__module__", op_module, nullptr, nullptr, nullptr},
                               {"__doc__", op_doc, nullptr, nullptr, nullptr},
                               {nullptr, nullptr, nullptr, nullptr, nullptr}};
PyMethodDef op_methods[] = {{"__reduce__", op_reduce, METH_NOARGS, nullptr},
                            {"__copy__", op_copy, METH_NOARGS, nullptr},
                            {"__deepcopy__", op_copy, METH_O, nullptr},
                            {nullptr, nullptr, 0, nullptr}};

PyTypeObject op_type(const char* name, bool method) {
  PyTypeObject type = static_type(name, sizeof(PyOp));
  type.tp_flags |= Py_TPFLAGS_HAVE_VECTORCALL;
  type.tp_vectorcall_offset = offsetof(PyOp, vectorcall);
  type.tp_call = PyVectorcall_Call;
  type.tp_repr = op_repr;
  type.tp_getset = op_properties;
  type.tp_methods = op_methods;
  if (method) {
    type.tp_flags |= Py_TPFLAGS_METHOD_DESCRIPTOR;
    type.tp_descr_get = op_bind;
  }
  return type;
}
PyTypeObject function_type = op_type("lohe._C.op_function", false);
PyTypeObject method_type = op_type("lohe._C.op_method", true);

Ref new_op(const OverloadSet& set, const std::string& name, const char* module, dispatch::Form form,
           bool method) {
  auto* op = PyObject_New(PyOp, method ? &method_type : &function_type);
  if (op == nullptr) throw PythonError{};
  op->vectorcall = op_vectorcall;
  op->set = &set;
  op->name = intern(name.c_str());
  op->module = intern(module);
  op->form = form;
  op->method = method;
  return Ref::steal(reinterpret_cast<PyObject*>(op));
}

// --- where names go

struct Places {
  PyObject* ops;
  std::map<std::string_view, PyObject*> modules;  ///< "", "nn", "special", "linalg", "_C", "fft"
};

const char* public_module(std::string_view module) {
  if (module.empty()) return "lohe";
  if (module == "nn") return "lohe._C.nn";
  if (module == "special") return "lohe.special";
  if (module == "linalg") return "lohe.linalg";
  if (module == "fft") return "lohe.fft";
  return "lohe._C";
}

/// "linalg_norm" stands in lohe.linalg as "norm".
std::string name_in(std::string_view module, const std::string& base) {
  const std::string prefix = std::string(module) + "_";
  return !module.empty() && base.starts_with(prefix) ? base.substr(prefix.size()) : base;
}

void add_to_type(const std::string& name, PyObject* method) {
  methods()[name] = method;
  PyObject* dict = tensor_base_type.tp_dict;
  if (PyDict_GetItemString(dict, name.c_str()) != nullptr) return;  // written by hand
  check_status(PyDict_SetItemString(dict, name.c_str(), method));
}

void place(const OverloadSet& set, const std::string& name, dispatch::Form form, const Places& places) {
  bool as_function = false, as_method = false;
  std::string_view module;
  for (const Overload& row : set.rows) {
    as_function |= row.op->has_function;
    as_method |= row.op->has_method && row.op->module.empty();
    module = row.op->module;
  }
  const Ref function = new_op(set, name_in(module, name), public_module(module), form, false);
  check_status(PyObject_SetAttrString(places.ops, name.c_str(), function.get()));
  functions()[name] = Py_NewRef(function.get());
  if (as_function) {
    const auto found = places.modules.find(module);
    PyObject* target = found == places.modules.end() ? places.modules.at("_C") : found->second;
    check_status(PyObject_SetAttrString(target, name_in(module, name).c_str(), function.get()));
  }
  if (as_method) {
    Ref method = new_op(set, name, "lohe", form, true);
    add_to_type(name, method.get());
    method.release();  // methods() keeps it
  }
}

PyObject* op_table(PyObject*, PyObject*) {
  return guarded([&] {
    Ref list = checked(PyList_New(0));
    static const char* const kinds[] = {"pointwise", "composed", "view", "primitive", "function"};
    for (const ops::OpDef* op : ops::op_table()) {
      const std::string module(op->module), doc(op->doc), family(op->family);
      const Ref row = checked(Py_BuildValue(
          "{s:s,s:s,s:s,s:s,s:s,s:s,s:N,s:N,s:N,s:N,s:N,s:s}", "name", op->schema.name.c_str(), "base",
          op->schema.base.c_str(), "schema", op->schema.text.c_str(), "kind",
          kinds[static_cast<int>(op->kind)], "module", module.c_str(), "family", family.c_str(), "has_method",
          PyBool_FromLong(op->has_method), "has_function", PyBool_FromLong(op->has_function), "has_inplace",
          PyBool_FromLong(op->has_inplace), "has_out", PyBool_FromLong(op->has_out), "differentiable",
          PyBool_FromLong(op->differentiable), "doc", doc.c_str()));
      check_status(PyList_Append(list.get(), row.get()));
    }
    return list.release();
  });
}

PyMethodDef module_functions[] = {{"op_table", op_table, METH_NOARGS, "Every row of the op table as a dict."},
                                  {nullptr, nullptr, 0, nullptr}};

Ref new_module(PyObject* parent, const char* name) {
  const std::string full = std::string("lohe._C.") + name;
  Ref module = checked(PyModule_New(full.c_str()));
  check_status(PyModule_AddObjectRef(parent, name, module.get()));
  return module;
}

}  // namespace

const OverloadSet* find_overloads(std::string_view base) {
  const auto found = overload_sets().find(base);
  return found == overload_sets().end() ? nullptr : &found->second;
}

PyObject* find_method(std::string_view name) {
  const auto found = methods().find(name);
  return found == methods().end() ? nullptr : found->second;
}

PyObject* find_function(std::string_view name) {
  const auto found = functions().find(name);
  return found == functions().end() ? nullptr : found->second;
}

PyObject* wrap_results(const Overload& overload, Results&& results) {
  if (results.is_number()) return wrap_scalar(results.number());
  const auto& returns = overload.op->schema.returns;
  if (returns.size() == 1 && returns[0].type != ops::ArgType::kTensors) [[likely]]
    return wrap(std::move(results[0]));
  const int n = results.size();
  if (returns.empty() || (n == 0 && returns[0].type != ops::ArgType::kTensors)) Py_RETURN_NONE;
  if (returns.size() > 1 && static_cast<size_t>(n) == returns.size() && returns_are_named(overload)) {
    Ref named = checked(PyStructSequence_New(return_type(overload)));
    for (int i = 0; i < n; ++i) PyStructSequence_SET_ITEM(named.get(), i, wrap(std::move(results[i])));
    return named.release();
  }
  Ref tuple = checked(PyTuple_New(n));
  for (int i = 0; i < n; ++i) PyTuple_SET_ITEM(tuple.get(), i, wrap(std::move(results[i])));
  return tuple.release();
}

PyObject* call_overloads(PyObject* callable, const OverloadSet& set, dispatch::Form form, PyObject* self,
                         PyObject* const* args, Py_ssize_t nargs, PyObject* kwnames) {
  ParsedArgs parsed;
  parse(set, self, args, nargs, kwnames, parsed);
  if (parsed.overridden) [[unlikely]]
    return call_torch_function(callable, self, args, nargs, kwnames);
  const Overload& overload = *parsed.overload;
  if (form == dispatch::Form::kInPlace) {
    LOHE_CHECK_TYPE(parsed.args()[0].kind == Arg::kTensor, set.base,
                    "_(): the first argument must be a Tensor");
  }
  if (!parsed.out.empty()) [[unlikely]] {
    Results results = run_op(*overload.op, parsed.args(), dispatch::Form::kOut, parsed.out);
    return wrap_results(overload, std::move(results));
  }
  Results results = run_op(*overload.op, parsed.args(), form);
  if (parsed.requires_grad) [[unlikely]]
    autograd::set_requires_grad(*results[0], true);
  return wrap_results(overload, std::move(results));
}

namespace {

/// Orders by which of the positional parameters are tensors, from the left, then by which of those by name
/// are where the other row has a number: a tensor of one element would do for that, too, but only when it is
/// read.
bool takes_tensor_first(const Overload& a, const Overload& b) {
  const auto is_tensor = [](const Overload& row, size_t i) {
    return row.op->schema.params[i].type == ops::ArgType::kTensor;
  };
  const auto is_number = [&](const Overload& row, int i) {
    return i >= row.positional || !is_tensor(row, static_cast<size_t>(i));
  };
  for (int i = 0; i < std::max(a.positional, b.positional); ++i) {
    if (is_number(a, i) != is_number(b, i)) return is_number(b, i);
  }
  const auto &p = a.op->schema.params, &q = b.op->schema.params;
  for (size_t i = static_cast<size_t>(a.positional); a.positional == b.positional && i < p.size(); ++i) {
    if (i < q.size() && p[i].name == q[i].name && is_tensor(a, i) != is_tensor(b, i)) return is_tensor(a, i);
  }
  return false;
}

}  // namespace

void init_ops(PyObject* module) {
  check_status(PyType_Ready(&function_type));
  check_status(PyType_Ready(&method_type));
  // Every base name, then its in-place form unless a row of that name exists.
  auto& sets = overload_sets();
  for (const ops::OpDef* op : ops::op_table()) {
    OverloadSet& set = sets[op->schema.base];
    set.base = op->schema.base;
    set.rows.emplace_back(*op);
    if (op->has_inplace && ops::find_op_or_null(op->schema.base + "_") == nullptr) {
      OverloadSet& inplace = sets[op->schema.base + "_"];
      inplace.base = op->schema.base + "_";
      inplace.rows.emplace_back(*op);
    }
  }
  // A 0-dim tensor could also be read as a number: the row that takes a tensor there is tried first.
  for (auto& [name, set] : sets) std::stable_sort(set.rows.begin(), set.rows.end(), takes_tensor_first);
  Places places;
  const Ref ops = new_module(module, "ops"), nn = new_module(module, "nn"),
            special = new_module(module, "special"), linalg = new_module(module, "linalg"),
            fft = new_module(module, "fft"), functions = new_module(module, "_functions"),
            own = new_module(module, "_internal");
  places.ops = ops.get();
  places.modules = {{"", functions.get()},    {"nn", nn.get()},   {"special", special.get()},
                    {"linalg", linalg.get()}, {"fft", fft.get()}, {"_C", own.get()}};
  for (const auto& [name, set] : sets) {
    const bool derived = set.rows[0].op->schema.base != name;
    place(set, name, derived ? dispatch::Form::kInPlace : dispatch::Form::kValue, places);
  }
  PyType_Modified(&tensor_base_type);
  check_status(PyModule_AddFunctions(module, module_functions));
}

}  // namespace lohe::python
