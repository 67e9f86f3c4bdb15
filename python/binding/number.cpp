#include <array>

#include "binding/ops.h"
#include "binding/tensor.h"
#include "binding/torch_function.h"

/// Operators: +, -, @, <, ~ and the like go straight to the op.
namespace lohe::python {
namespace {

/// One operator: the row it stands for, looked up when first used.
struct Operator {
  const char* base;
  const char* python_name;  ///< what __torch_function__ is told: a Tensor method
  const OverloadSet* set = nullptr;
  const Overload* only = nullptr;  ///< when there is one row

  bool ready() {
    if (set == nullptr) {
      set = find_overloads(base);
      if (set != nullptr && set->rows.size() == 1) only = &set->rows[0];
    }
    return set != nullptr;
  }
  void require() {
    if (!ready()) raise(ErrorKind::kNotImplemented, "the op '", base, "' is not implemented");
  }
  /// A method where the first operand is a tensor, else the function.
  PyObject* callable(PyObject* first) const {
    PyObject* method = is_tensor(first) ? find_method(python_name) : nullptr;
    return method == nullptr ? find_function(base) : method;
  }
};

/// A tensor or a number as an operand. False: neither, or something that takes the call over.
inline bool operand(PyObject* object, bool numbers, Arg& arg, bool& overridden) {
  if (Py_TYPE(object) == tensor_type) [[likely]] {
    arg = Arg(impl_of(object));
    return true;
  }
  if (PyFloat_CheckExact(object) && numbers) {
    arg = Arg(PyFloat_AS_DOUBLE(object));
    return true;
  }
  if (is_tensor(object)) {
    overridden |= takes_calls(object);
    arg = Arg(impl_of(object));
    return true;
  }
  return numbers && scalar_from(object, arg);
}

PyObject* run(const Overload& overload, Arg a, Arg b, dispatch::Form form) {
  Arg args[8];
  args[0] = a;
  args[1] = b;
  for (int i = 2; i < overload.count; ++i) args[i] = overload.defaults[static_cast<size_t>(i)];
  Results results = run_op(*overload.op, Args(args, static_cast<size_t>(overload.count)), form);
  return wrap(std::move(results[0]));
}

PyObject* binary(Operator& op, PyObject* a, PyObject* b, dispatch::Form form = dispatch::Form::kValue) {
  op.require();
  bool overridden = false;
  Arg x, y;
  if (op.only != nullptr && op.only->count <= 8 && op.only->count >= 2) [[likely]] {
    const bool numbers = op.only->numbers_for_tensors;
    if (operand(a, numbers, x, overridden) && operand(b, numbers, y, overridden)) {
      if (!overridden) [[likely]]
        return run(*op.only, x, y, form);
      PyObject* both[2] = {a, b};
      return call_torch_function(op.callable(a), nullptr, both, 2, nullptr);
    }
    // An object of its own kind may know the reflected operation.
    if (takes_calls(a) || takes_calls(b)) {
      PyObject* both[2] = {a, b};
      return call_torch_function(op.callable(a), nullptr, both, 2, nullptr);
    }
    PyObject* stranger = is_tensor(a) ? b : a;
    if (is_tensor(a) && PyUnicode_Check(stranger) == 0 && stranger != Py_None &&
        PyObject_HasAttrString(stranger, "__array__")) {
      PyObject* both[2] = {a, b};
      return call_overloads(op.callable(a), *op.set, form, nullptr, both, 2, nullptr);
    }
    Py_RETURN_NOTIMPLEMENTED;
  }
  PyObject* both[2] = {a, b};
  PyObject* result = nullptr;
  try {
    result = call_overloads(op.callable(a), *op.set, form, nullptr, both, 2, nullptr);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kType || (is_tensor(a) && is_tensor(b))) throw;
    Py_RETURN_NOTIMPLEMENTED;
  }
  return result;
}

PyObject* unary(Operator& op, PyObject* a) {
  op.require();
  return call_overloads(op.callable(a), *op.set, dispatch::Form::kValue, nullptr, &a, 1, nullptr);
}

#define LOHE_BINARY(slot, base, name)                                           \
  PyObject* slot(PyObject* a, PyObject* b) {                                    \
    static Operator op{base, name};                                             \
    return guarded([&] { return binary(op, a, b); });                           \
  }                                                                             \
  [[maybe_unused]] PyObject* slot##_inplace(PyObject* a, PyObject* b) {         \
    static Operator op{base, base "_"};                                         \
    return guarded([&] { return binary(op, a, b, dispatch::Form::kInPlace); }); \
  }
#define LOHE_UNARY(slot, base)                    \
  PyObject* slot(PyObject* a) {                   \
    static Operator op{base, base};               \
    return guarded([&] { return unary(op, a); }); \
  }

LOHE_BINARY(nb_add, "add", "add")
LOHE_BINARY(nb_subtract, "sub", "sub")
LOHE_BINARY(nb_multiply, "mul", "mul")
LOHE_BINARY(nb_divide, "div", "div")
LOHE_BINARY(nb_floor_divide, "floor_divide", "floor_divide")
LOHE_BINARY(nb_remainder, "remainder", "remainder")
LOHE_BINARY(nb_matmul, "matmul", "matmul")
LOHE_BINARY(nb_and, "bitwise_and", "bitwise_and")
LOHE_BINARY(nb_or, "bitwise_or", "bitwise_or")
LOHE_BINARY(nb_xor, "bitwise_xor", "bitwise_xor")
LOHE_BINARY(nb_lshift, "bitwise_left_shift", "bitwise_left_shift")
LOHE_BINARY(nb_rshift, "bitwise_right_shift", "bitwise_right_shift")
LOHE_BINARY(cmp_eq, "eq", "eq")
LOHE_BINARY(cmp_ne, "ne", "ne")
LOHE_BINARY(cmp_lt, "lt", "lt")
LOHE_BINARY(cmp_le, "le", "le")
LOHE_BINARY(cmp_gt, "gt", "gt")
LOHE_BINARY(cmp_ge, "ge", "ge")
LOHE_UNARY(nb_negative, "neg")
LOHE_UNARY(nb_absolute, "abs")
LOHE_UNARY(nb_positive, "positive")
LOHE_UNARY(nb_invert, "bitwise_not")

PyObject* nb_power(PyObject* a, PyObject* b, PyObject* modulus) {
  static Operator op{"pow", "pow"};
  if (modulus != Py_None) Py_RETURN_NOTIMPLEMENTED;
  return guarded([&] { return binary(op, a, b); });
}
PyObject* nb_power_inplace(PyObject* a, PyObject* b, PyObject*) {
  static Operator op{"pow", "pow_"};
  return guarded([&] { return binary(op, a, b, dispatch::Form::kInPlace); });
}
PyObject* nb_divmod(PyObject*, PyObject*) { Py_RETURN_NOTIMPLEMENTED; }

/// The one element of a tensor, for int(), float(), bool() and indexing with it.
Scalar single(PyObject* self, const char* what) {
  const TensorPtr t = tensor_of(self);
  LOHE_CHECK(t->numel() == 1, what);
  return item_of(t);
}

int nb_bool(PyObject* self) {
  int truth = 0;
  const int status = guarded_status([&] {
    const TensorPtr t = tensor_of(self);
    LOHE_CHECK(t->numel() != 0, "Boolean value of Tensor with no values is ambiguous");
    LOHE_CHECK(t->numel() == 1, "Boolean value of Tensor with more than one value is ambiguous");
    truth = item_of(t).to_bool() ? 1 : 0;
  });
  return status < 0 ? -1 : truth;
}

constexpr const char* kOnlyOne = "a Tensor with more or fewer than one element cannot be converted to Scalar";

PyObject* nb_int(PyObject* self) {
  return guarded([&]() -> PyObject* {
    const TensorPtr t = tensor_of(self);
    LOHE_CHECK(t->numel() == 1, "a Tensor with ", t->numel(), " elements cannot be converted to Scalar");
    const Scalar s = item_of(t);
    if (s.is_floating()) return PyLong_FromDouble(s.to_double());
    LOHE_CHECK(!s.is_complex(), "value cannot be converted to type int64_t without overflow");
    return PyLong_FromLongLong(s.to_int());
  });
}
PyObject* nb_float(PyObject* self) {
  return guarded([&]() -> PyObject* {
    const TensorPtr t = tensor_of(self);
    LOHE_CHECK(t->numel() == 1, "a Tensor with ", t->numel(), " elements cannot be converted to Scalar");
    const Scalar s = item_of(t);
    LOHE_CHECK(!s.is_complex() || s.imag() == 0, "value cannot be converted to type double without overflow");
    return PyFloat_FromDouble(s.to_double());
  });
}
PyObject* nb_index(PyObject* self) {
  return guarded([&] {
    const TensorPtr t = tensor_of(self);
    LOHE_CHECK_TYPE(t->numel() == 1 && is_integral(t->dtype(), true),
                    "only integer tensors of a single element can be converted to an index");
    return PyLong_FromLongLong(single(self, kOnlyOne).to_int());
  });
}

PyNumberMethods methods = [] {
  PyNumberMethods m{};
  m.nb_add = nb_add;
  m.nb_subtract = nb_subtract;
  m.nb_multiply = nb_multiply;
  m.nb_true_divide = nb_divide;
  m.nb_floor_divide = nb_floor_divide;
  m.nb_remainder = nb_remainder;
  m.nb_divmod = nb_divmod;
  m.nb_power = nb_power;
  m.nb_matrix_multiply = nb_matmul;
  m.nb_and = nb_and;
  m.nb_or = nb_or;
  m.nb_xor = nb_xor;
  m.nb_lshift = nb_lshift;
  m.nb_rshift = nb_rshift;
  m.nb_inplace_add = nb_add_inplace;
  m.nb_inplace_subtract = nb_subtract_inplace;
  m.nb_inplace_multiply = nb_multiply_inplace;
  m.nb_inplace_true_divide = nb_divide_inplace;
  m.nb_inplace_floor_divide = nb_floor_divide_inplace;
  m.nb_inplace_remainder = nb_remainder_inplace;
  m.nb_inplace_power = nb_power_inplace;
  m.nb_inplace_and = nb_and_inplace;
  m.nb_inplace_or = nb_or_inplace;
  m.nb_inplace_xor = nb_xor_inplace;
  m.nb_inplace_lshift = nb_lshift_inplace;
  m.nb_inplace_rshift = nb_rshift_inplace;
  m.nb_negative = nb_negative;
  m.nb_positive = nb_positive;
  m.nb_absolute = nb_absolute;
  m.nb_invert = nb_invert;
  m.nb_bool = nb_bool;
  m.nb_int = nb_int;
  m.nb_float = nb_float;
  m.nb_index = nb_index;
  return m;
}();

}  // namespace

PyNumberMethods* number_methods() { return &methods; }

PyObject* tensor_compare(PyObject* a, PyObject* b, int op) {
  // `x == None` and comparisons with other strangers are Python's business.
  switch (op) {
    case Py_EQ:
      return cmp_eq(a, b);
    case Py_NE:
      return cmp_ne(a, b);
    case Py_LT:
      return cmp_lt(a, b);
    case Py_LE:
      return cmp_le(a, b);
    case Py_GT:
      return cmp_gt(a, b);
    default:
      return cmp_ge(a, b);
  }
}

}  // namespace lohe::python
