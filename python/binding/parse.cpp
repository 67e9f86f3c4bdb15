#include "binding/parse.h"

#include <algorithm>
#include <cmath>

#include "binding/torch_function.h"
#include "binding/types.h"

/// The parser: schema and Python arguments to Args.
namespace lohe::python {

namespace {

using ops::ArgType;
using ops::Param;

/// numpy.generic and numpy.bool_ once somebody imported NumPy, else null.
PyObject* numpy_class(const char* name, PyObject** cached) {
  if (*cached == nullptr) {
    PyObject* modules = PyImport_GetModuleDict();
    PyObject* numpy = PyDict_GetItemString(modules, "numpy");
    if (numpy == nullptr) return nullptr;
    *cached = PyObject_GetAttrString(numpy, name);
    if (*cached == nullptr) PyErr_Clear();
  }
  return *cached;
}
bool is_instance(PyObject* object, PyObject* type) {
  return type != nullptr && PyObject_TypeCheck(object, reinterpret_cast<PyTypeObject*>(type)) != 0;
}

/// A list entry or an int argument: also what NumPy and 0-dim tensors offer through __index__.
bool float_from(PyObject* object, double& value) {
  if (PyFloat_Check(object)) {
    value = PyFloat_AS_DOUBLE(object);
    return true;
  }
  if (PyLong_Check(object) || is_numpy_scalar(object)) {
    if (is_numpy_scalar(object) && PyComplex_Check(object)) return false;
    value = PyFloat_AsDouble(object);
    if (value == -1.0 && PyErr_Occurred() != nullptr) throw PythonError{};
    return true;
  }
  if (is_tensor(object) && impl_of(object)->dim() == 0 && !is_complex(impl_of(object)->dtype())) {
    value = item_of(tensor_of(object)).to_double();
    return true;
  }
  return false;
}

/// One entry of a parameter, all kinds.
class Converter {
 public:
  Converter(const Overload& overload, ParsedArgs& parsed) : overload_(overload), parsed_(parsed) {}

  /// False: of another type. @throws for a value of the right type that cannot be read.
  bool convert(const Param& param, PyObject* object, Arg& arg) {
    if (object == Py_None && (param.optional || (param.has_default && param.default_value.none()))) {
      arg = Arg();
      return true;
    }
    switch (param.type) {
      case ArgType::kTensor:
        return tensor(object, arg);
      case ArgType::kTensors:
        return tensors(object, arg);
      case ArgType::kScalar:
        // A number has no gradient; an overload that takes a tensor has one.
        if (is_tensor(object) && impl_of(object)->requires_grad) return false;
        return scalar_from(object, arg);
      case ArgType::kInt: {
        int64_t value = 0;
        if (!int_from(object, value)) return false;
        arg = Arg(value);
        return true;
      }
      case ArgType::kFloat: {
        if (PyBool_Check(object)) return false;
        double value = 0;
        if (!float_from(object, value)) return false;
        arg = Arg(value);
        return true;
      }
      case ArgType::kBool:
        if (PyBool_Check(object)) {
          arg = Arg(object == Py_True);
          return true;
        }
        if (!is_numpy_bool(object)) return false;
        arg = Arg(PyObject_IsTrue(object) == 1);
        return true;
      case ArgType::kStr:
        if (!PyUnicode_Check(object)) return false;
        arg = Arg(utf8(object));
        return true;
      case ArgType::kInts:
        return ints(param, object, arg);
      case ArgType::kFloats:
        return floats(object, arg);
      case ArgType::kDtype: {
        const Dtype dtype = dtype_from(object);
        if (dtype == Dtype::kUndefined) return false;
        arg = Arg(dtype);
        return true;
      }
      case ArgType::kDevice: {
        Device device;
        if (!device_from(object, device)) return false;
        arg = Arg(device);
        return true;
      }
      case ArgType::kLayout:
        if (!is_layout(object)) return false;
        arg = Arg(reinterpret_cast<PyEnum*>(object)->value);
        return true;
      case ArgType::kMemoryFormat:
        if (!is_memory_format(object)) return false;
        arg = Arg(reinterpret_cast<PyEnum*>(object)->value);
        return true;
      case ArgType::kGenerator: {
        Generator* generator = nullptr;
        if (!generator_from(object, generator)) return false;
        arg = Arg(generator);
        return true;
      }
    }
    return false;
  }

  /// f(x, y) for f((x, y)).
  bool tensor_varargs(PyObject* const* args, Py_ssize_t n, Arg& arg) {
    const Ref tuple = checked(PyTuple_New(n));
    for (Py_ssize_t i = 0; i < n; ++i) PyTuple_SET_ITEM(tuple.get(), i, Py_NewRef(args[i]));
    return tensors(tuple.get(), arg);  // the caller's arguments keep the tensors
  }

  /// f(2, 3) for f((2, 3)): the rest of the arguments are the entries.
  bool varargs(PyObject* const* args, Py_ssize_t n, Arg& arg) {
    int64_t* values = parsed_.new_ints(static_cast<size_t>(n));
    for (Py_ssize_t i = 0; i < n; ++i) {
      if (!int_from(args[i], values[i])) return false;
    }
    arg = Arg(std::span<const int64_t>(values, static_cast<size_t>(n)));
    return true;
  }

 private:
  bool tensor(PyObject* object, Arg& arg) {
    if (Py_TYPE(object) == tensor_type) {
      arg = Arg(impl_of(object));
      return true;
    }
    if (is_tensor(object)) {
      parsed_.overridden |= takes_calls(object);
      arg = Arg(impl_of(object));
      return true;
    }
    if (overload_.numbers_for_tensors && scalar_from(object, arg)) return true;
    if (takes_calls(object)) {
      parsed_.overridden = true;
      arg = Arg();
      return true;
    }
    return false;
  }

  bool tensors(PyObject* object, Arg& arg) {
    if (!PyTuple_Check(object) && !PyList_Check(object)) {
      if (!is_tensor(object) || impl_of(object)->dim() == 0) {
        if (!takes_calls(object)) return false;
        parsed_.overridden = true;
        return true;
      }
      return false;
    }
    const auto n = static_cast<size_t>(PySequence_Fast_GET_SIZE(object));
    TensorImpl** list = parsed_.new_tensors(n);
    for (size_t i = 0; i < n; ++i) {
      PyObject* item = PySequence_Fast_GET_ITEM(object, static_cast<Py_ssize_t>(i));
      if (is_tensor(item)) {
        if (Py_TYPE(item) != tensor_type) parsed_.overridden |= takes_calls(item);
        list[i] = impl_of(item);
      } else if (item == Py_None) {
        list[i] = nullptr;
      } else if (takes_calls(item)) {
        parsed_.overridden = true;
        list[i] = nullptr;
      } else {
        return false;
      }
    }
    arg = Arg(std::span<TensorImpl* const>(list, n));
    return true;
  }

  bool ints(const Param& param, PyObject* object, Arg& arg) {
    int64_t value = 0;
    if (param.list_size > 0 && int_from(object, value)) {
      const auto n = static_cast<size_t>(param.list_size);
      int64_t* values = parsed_.new_ints(n);
      std::fill_n(values, n, value);
      arg = Arg(std::span<const int64_t>(values, n));
      return true;
    }
    if (PyTuple_Check(object) || PyList_Check(object)) {
      const Py_ssize_t n = PySequence_Fast_GET_SIZE(object);
      return varargs(PySequence_Fast_ITEMS(object), n, arg);
    }
    if (PyUnicode_Check(object) || !PySequence_Check(object)) return false;
    if (is_tensor(object) && impl_of(object)->dim() != 1) return false;
    Ref list = Ref::steal(PySequence_Tuple(object));
    if (!list) throw PythonError{};
    return varargs(PySequence_Fast_ITEMS(list.get()), PyTuple_GET_SIZE(list.get()), arg);
  }

  bool floats(PyObject* object, Arg& arg) {
    if (!PyTuple_Check(object) && !PyList_Check(object)) return false;
    const auto n = static_cast<size_t>(PySequence_Fast_GET_SIZE(object));
    double* values = parsed_.new_floats(n);
    for (size_t i = 0; i < n; ++i) {
      if (!float_from(PySequence_Fast_GET_ITEM(object, static_cast<Py_ssize_t>(i)), values[i])) return false;
    }
    arg = Arg(std::span<const double>(values, n));
    return true;
  }

  const Overload& overload_;
  ParsedArgs& parsed_;
};

/// Interned names that are handled beside the schema.
struct Names {
  PyObject* out = intern("out");
  PyObject* requires_grad = intern("requires_grad");
  PyObject* pin_memory = intern("pin_memory");
  PyObject* layout = intern("layout");
  PyObject* device = intern("device");
  PyObject* names = intern("names");
};
const Names& names() {
  static const Names table;
  return table;
}

bool same_name(PyObject* keyword, PyObject* name) {
  return keyword == name || (name != nullptr && PyUnicode_Compare(keyword, name) == 0);
}

/// Why a row did not fit. Texts are made only when no row fits.
struct Misfit {
  enum Kind {
    kNone,
    kTooMany,
    kWrongType,
    kWrongListItem,
    kUnknownKeyword,
    kTwice,
    kMissing,
    kNoOut,
    kTooFew
  } kind = kNone;
  int param = -1;
  Py_ssize_t position = -1;  ///< among positional arguments, -1 for keywords
  PyObject* keyword = nullptr;
  PyObject* value = nullptr;
};

struct Call {
  PyObject* self;
  PyObject* const* args;
  Py_ssize_t nargs;
  PyObject* kwnames;
};

bool parse_out(const Overload& overload, PyObject* object, ParsedArgs& parsed) {
  if (object == Py_None) return true;
  if (is_tensor(object)) {
    if (Py_TYPE(object) != tensor_type) parsed.overridden |= takes_calls(object);
    parsed.out.push_back(impl_of(object));
    return overload.outputs == 1;
  }
  if (!PyTuple_Check(object) && !PyList_Check(object)) return false;
  for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(object); ++i) {
    PyObject* item = PySequence_Fast_GET_ITEM(object, i);
    if (!is_tensor(item)) return false;
    parsed.out.push_back(impl_of(item));
  }
  return static_cast<int>(parsed.out.size()) == overload.outputs;
}

/// Options of factories that change nothing on this device; checked all the same.
bool inert_option(PyObject* keyword, PyObject* value) {
  const Names& n = names();
  if (same_name(keyword, n.pin_memory)) return PyBool_Check(value) || value == Py_None;
  if (same_name(keyword, n.layout)) return value == Py_None || value == strided_layout();
  if (same_name(keyword, n.names)) return value == Py_None;
  return false;
}

bool parse_keyword(const Overload& overload, PyObject* keyword, PyObject* value, Converter& converter,
                   ParsedArgs& parsed, uint64_t& given, Misfit& misfit) {
  misfit.keyword = keyword;
  misfit.value = value;
  misfit.position = -1;
  int found = -1;
  for (int i = 0; i < overload.count && found < 0; ++i) {
    if (keyword == overload.names[static_cast<size_t>(i)]) found = i;
  }
  for (int i = 0; i < overload.count && found < 0; ++i) {
    if (same_name(keyword, overload.names[static_cast<size_t>(i)]) ||
        same_name(keyword, overload.aliases[static_cast<size_t>(i)])) {
      found = i;
    }
  }
  if (found >= 0) {
    misfit.param = found;
    if ((given >> found & 1) != 0) {
      misfit.kind = Misfit::kTwice;
      return false;
    }
    if (!converter.convert(overload.op->schema.params[static_cast<size_t>(found)], value,
                           parsed.data()[found])) {
      misfit.kind = Misfit::kWrongType;
      return false;
    }
    given |= uint64_t{1} << found;
    return true;
  }
  if (same_name(keyword, names().out) && overload.op->has_out) {
    misfit.kind = Misfit::kNoOut;
    return parse_out(overload, value, parsed);
  }
  if (overload.factory) {
    if (same_name(keyword, names().requires_grad) && (PyBool_Check(value) || value == Py_None)) {
      parsed.requires_grad = value == Py_True;
      return true;
    }
    if (inert_option(keyword, value)) return true;
  }
  misfit.kind = Misfit::kUnknownKeyword;
  return false;
}

/// Tries one row. False with `misfit` filled in.
bool parse_row(const Overload& overload, const Call& call, ParsedArgs& parsed, Misfit& misfit) {
  Arg* args = parsed.data();
  Converter converter(overload, parsed);
  const auto& params = overload.op->schema.params;
  uint64_t given = 0;
  int next = 0;
  if (call.self != nullptr) {
    const int at = overload.self_at;
    if (overload.count == 0 || !converter.convert(params[static_cast<size_t>(at)], call.self, args[at])) {
      misfit = {Misfit::kWrongType, at, -1, nullptr, call.self};
      return false;
    }
    given = uint64_t{1} << at;
    next = at == 0 ? 1 : 0;
  }
  const bool may_spread =
      overload.positional - next == 1 && params[static_cast<size_t>(next)].type == ArgType::kInts;
  Py_ssize_t position = 0;
  if (may_spread && call.nargs > 0 && (call.nargs > 1 || PyIndex_Check(call.args[0]) != 0) &&
      (call.nargs > 1 || params[static_cast<size_t>(next)].list_size == 0) && !PyTuple_Check(call.args[0]) &&
      !PyList_Check(call.args[0])) {
    if (!converter.varargs(call.args, call.nargs, args[next])) {
      misfit = {Misfit::kWrongListItem, next, 0, nullptr, call.args[0]};
      return false;
    }
    given |= uint64_t{1} << next;
    position = call.nargs;
  }
  // Functions of nothing but tensors take them one by one as well.
  if (overload.positional == 1 && next == 0 && params[0].type == ArgType::kTensors && !overload.op->has_out &&
      call.nargs > 0 && is_tensor(call.args[0])) {
    if (!converter.tensor_varargs(call.args, call.nargs, args[0])) {
      misfit = {Misfit::kWrongListItem, 0, 0, nullptr, call.args[0]};
      return false;
    }
    given = 1;
    position = call.nargs;
    next = 1;
  }
  for (; position < call.nargs; ++position, ++next) {
    if (call.self != nullptr && next == overload.self_at) ++next;
    if (next >= overload.positional) {
      misfit = {Misfit::kTooMany, -1, position, nullptr, nullptr};
      return false;
    }
    if (!converter.convert(params[static_cast<size_t>(next)], call.args[position], args[next])) {
      misfit = {Misfit::kWrongType, next, position, nullptr, call.args[position]};
      return false;
    }
    given |= uint64_t{1} << next;
  }
  const Py_ssize_t keywords = call.kwnames == nullptr ? 0 : PyTuple_GET_SIZE(call.kwnames);
  for (Py_ssize_t k = 0; k < keywords; ++k) {
    if (!parse_keyword(overload, PyTuple_GET_ITEM(call.kwnames, k), call.args[call.nargs + k], converter,
                       parsed, given, misfit)) {
      return false;
    }
  }
  if (const uint64_t missing = overload.required & ~given; missing != 0) {
    const int first = __builtin_ctzll(missing);
    // sum() over no dims and the like: f() for f(*sizes)
    if (may_spread && first == overload.positional - 1 && call.nargs == 0 &&
        missing == uint64_t{1} << first && params[static_cast<size_t>(first)].list_size == 0 &&
        overload.factory && call.self != nullptr) {
      args[first] = Arg(std::span<const int64_t>());
      given |= missing;
    } else {
      misfit = {Misfit::kMissing, first, -1, nullptr, nullptr};
      return false;
    }
  }
  for (int i = 0; i < overload.count; ++i) {
    if ((given >> i & 1) == 0) args[i] = overload.defaults[static_cast<size_t>(i)];
  }
  if (overload.numbers_for_tensors && !parsed.overridden) {
    // A call on numbers alone is no tensor call.
    bool any = false;
    for (int i = 0; i < overload.count; ++i) any |= args[i].kind == Arg::kTensor;
    if (!any) {
      misfit = {Misfit::kWrongType, 0, call.self == nullptr && call.nargs > 0 ? 0 : -1, nullptr,
                call.self != nullptr ? call.self
                : call.nargs > 0     ? call.args[0]
                                     : Py_None};
      return false;
    }
  }
  parsed.overload = &overload;
  return true;
}

/// Edits (insert, delete, replace) between two names, for suggestions.
size_t distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1])});
      diagonal = above;
    }
  }
  return row[b.size()];
}

std::string param_name(const Overload& overload, int i) {
  const std::string& name = overload.op->schema.params[static_cast<size_t>(i)].name;
  return name == "self" ? "input" : name;
}

std::string describe(const OverloadSet& set, const Overload& overload, const Call& call, const Misfit& m) {
  const std::string op = set.base + "()";
  switch (m.kind) {
    case Misfit::kTooMany: {
      const int self = call.self != nullptr ? 1 : 0;
      return detail::concat(op, " takes ", overload.positional - self, " positional argument",
                            overload.positional - self == 1 ? "" : "s", " but ", call.nargs,
                            call.nargs == 1 ? " was" : " were", " given");
    }
    case Misfit::kWrongType: {
      const auto& param = overload.op->schema.params[static_cast<size_t>(m.param)];
      std::string position;
      if (m.position >= 0) position = detail::concat(" (position ", m.position + 1, ")");
      return detail::concat(op, ": argument '", param_name(overload, m.param), "'", position, " must be ",
                            python_type_of(param), ", not ", type_name(m.value));
    }
    case Misfit::kWrongListItem: {
      const auto& param = overload.op->schema.params[static_cast<size_t>(m.param)];
      std::string got = "(";
      for (Py_ssize_t i = 0; i < call.nargs; ++i) got += (i != 0 ? ", " : "") + type_name(call.args[i]);
      return detail::concat(op, ": argument '", param_name(overload, m.param), "' (position 1) must be ",
                            python_type_of(param), ", but got ", got, ")");
    }
    case Misfit::kUnknownKeyword: {
      const std::string_view word = utf8(m.keyword);
      std::string best;
      size_t nearest = 3;
      for (int i = 0; i < overload.count; ++i) {
        const std::string name = param_name(overload, i);
        if (const size_t d = distance(word, name); d < nearest) {
          nearest = d;
          best = name;
        }
      }
      return detail::concat(op, " got an unexpected keyword argument '", word, "'",
                            best.empty() ? "" : "; did you mean '" + best + "'?");
    }
    case Misfit::kTwice:
      return detail::concat(op, " got multiple values for argument '", param_name(overload, m.param), "'");
    case Misfit::kNoOut:
      return detail::concat(op, ": argument 'out' must be ",
                            overload.outputs == 1 ? "Tensor" : "tuple of Tensors", ", not ",
                            type_name(m.value));
    case Misfit::kMissing:
      return detail::concat(op, " missing 1 required positional arguments: \"", param_name(overload, m.param),
                            "\"");
    default:
      return op + ": the arguments do not fit";
  }
}

[[noreturn]] void raise_misfit(const OverloadSet& set, const Call& call, const std::vector<Misfit>& misfits) {
  std::string text;
  if (misfits.size() == 1) {
    text = describe(set, set.rows[0], call, misfits[0]);
  } else {
    text = set.base + "() received an invalid combination of arguments - got (";
    for (Py_ssize_t i = 0; i < call.nargs; ++i) text += (i != 0 ? ", " : "") + type_name(call.args[i]);
    const Py_ssize_t keywords = call.kwnames == nullptr ? 0 : PyTuple_GET_SIZE(call.kwnames);
    for (Py_ssize_t k = 0; k < keywords; ++k) {
      if (call.nargs + k != 0) text += ", ";
      text +=
          std::string(utf8(PyTuple_GET_ITEM(call.kwnames, k))) + "=" + type_name(call.args[call.nargs + k]);
    }
    text += "), but expected one of:\n";
    for (size_t i = 0; i < misfits.size(); ++i) {
      text += " * " + set.rows[i].signature +
              "\n      didn't match because: " + describe(set, set.rows[i], call, misfits[i]) + "\n";
    }
  }
  raise(ErrorKind::kType, text);
}

}  // namespace

bool is_numpy_scalar(PyObject* object) {
  static PyObject* generic = nullptr;
  return is_instance(object, numpy_class("generic", &generic));
}
bool is_numpy_bool(PyObject* object) {
  static PyObject* boolean = nullptr;
  return is_instance(object, numpy_class("bool_", &boolean));
}

bool int_from(PyObject* object, int64_t& value) {
  if (PyLong_CheckExact(object)) {
    value = PyLong_AsLongLong(object);
    if (value == -1 && PyErr_Occurred() != nullptr) {
      PyErr_Clear();
      raise(ErrorKind::kOverflow, "Overflow when unpacking long long: an int argument must fit 64 bits");
    }
    return true;
  }
  if (PyBool_Check(object)) return false;
  if (is_tensor(object)) {
    TensorImpl* t = impl_of(object);
    if (t->numel() != 1 || t->dim() != 0 || !is_integral(t->dtype(), false)) return false;
    value = item_of(TensorPtr(t)).to_int();
    return true;
  }
  if (PyFloat_Check(object) || !PyIndex_Check(object) || is_numpy_bool(object)) return false;
  const Ref index = Ref::steal(PyNumber_Index(object));
  if (!index) {
    PyErr_Clear();  // an array of more than one element
    return false;
  }
  value = PyLong_AsLongLong(index.get());
  if (value == -1 && PyErr_Occurred() != nullptr) throw PythonError{};
  return true;
}

bool scalar_from(PyObject* object, Arg& value) {
  if (PyFloat_Check(object)) {
    value = Arg(PyFloat_AS_DOUBLE(object));
    return true;
  }
  if (PyBool_Check(object)) {
    value = Arg(object == Py_True);
    return true;
  }
  if (PyLong_Check(object)) {
    int overflow = 0;
    const long long number = PyLong_AsLongLongAndOverflow(object, &overflow);
    if (overflow != 0)
      raise(ErrorKind::kOverflow, "Overflow when unpacking long long: a number argument must fit 64 bits");
    value = Arg(static_cast<int64_t>(number));
    return true;
  }
  if (PyComplex_Check(object)) {
    const Py_complex c = PyComplex_AsCComplex(object);
    value = Arg(Scalar(std::complex<double>(c.real, c.imag)));
    return true;
  }
  if (is_tensor(object)) {
    TensorImpl* t = impl_of(object);
    if (t->dim() != 0 || Py_TYPE(object) != tensor_type) return false;
    value = Arg(item_of(TensorPtr(t)));
    return true;
  }
  if (is_numpy_bool(object)) {
    value = Arg(PyObject_IsTrue(object) == 1);
    return true;
  }
  if (!is_numpy_scalar(object)) return false;
  int64_t integer = 0;
  if (PyIndex_Check(object) && int_from(object, integer)) {
    value = Arg(integer);
    return true;
  }
  const Py_complex c = PyComplex_AsCComplex(object);
  if (PyErr_Occurred() != nullptr) {
    PyErr_Clear();
    return false;
  }
  const Ref complex_class = Ref::steal(PyObject_GetAttrString(object, "dtype"));
  const Ref kind = complex_class ? Ref::steal(PyObject_GetAttrString(complex_class.get(), "kind")) : Ref();
  PyErr_Clear();
  if (kind && PyUnicode_Check(kind.get()) && utf8(kind.get()) == "c") {
    value = Arg(Scalar(std::complex<double>(c.real, c.imag)));
  } else {
    value = Arg(c.real);
  }
  return true;
}

bool ints_from(PyObject* object, Dims& values) {
  const Ref fast = Ref::steal(PySequence_Tuple(object));
  if (!fast) {
    PyErr_Clear();
    return false;
  }
  values.clear();
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(fast.get()); ++i) {
    int64_t value = 0;
    if (!int_from(PyTuple_GET_ITEM(fast.get(), i), value)) return false;
    values.push_back(value);
  }
  return true;
}

void parse(const OverloadSet& set, PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* kwnames,
           ParsedArgs& parsed) {
  const Call call{self, args, nargs, kwnames};
  Misfit misfit;
  if (set.rows.size() == 1) {
    if (!parse_row(set.rows[0], call, parsed, misfit)) raise_misfit(set, call, {misfit});
    return;
  }
  std::vector<Misfit> misfits;
  for (const Overload& row : set.rows) {
    if (parse_row(row, call, parsed, misfit)) return;
    misfits.push_back(misfit);
    misfit = {};
    parsed.reset();
  }
  raise_misfit(set, call, misfits);
}

}  // namespace lohe::python
