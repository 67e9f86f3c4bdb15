#pragma once

#include <memory>
#include <new>
#include <string>
#include <vector>

#include "binding/common.h"
#include "ops/op_def.h"

/// From Python's arguments to Args, for every op by its schema.
namespace lohe::python {

inline constexpr int kMaxParams = 64;

/// One row and what parsing needs to know about it, worked out once.
struct Overload {
  explicit Overload(const ops::OpDef& row);

  const ops::OpDef* op;
  int count = 0;                   ///< parameters
  int positional = 0;              ///< of these, before `*`
  int self_at = 0;                 ///< the parameter that a method call binds: the one named self
  std::vector<PyObject*> names;    ///< interned
  std::vector<PyObject*> aliases;  ///< a second name each ("axis" for "dim"), or null
  std::vector<Arg> defaults;
  uint64_t required = 0;  ///< bit set
  int outputs = 0;
  bool numbers_for_tensors = false;  ///< pointwise with two or more tensor parameters
  bool single_tensor = false;        ///< one Tensor and no list of tensors in the parameters
  bool factory = false;              ///< takes dtype and device, hence requires_grad
  std::string signature;             ///< for error messages
};

/// All rows of one base name, in table order.
struct OverloadSet {
  std::string base;
  std::vector<Overload> rows;
};

/// The arguments of one call. Lists and temporary tensors live here.
class ParsedArgs {
 public:
  ParsedArgs() {}
  ParsedArgs(const ParsedArgs&) = delete;
  ParsedArgs& operator=(const ParsedArgs&) = delete;

  const Overload* overload = nullptr;
  bool overridden = false;     ///< an argument takes the call over (__torch_function__)
  bool requires_grad = false;  ///< of a factory
  SmallVector<TensorImpl*, 4> out;

  Args args() const { return {data(), static_cast<size_t>(overload->count)}; }
  Arg* data() { return reinterpret_cast<Arg*>(raw_); }
  const Arg* data() const { return reinterpret_cast<const Arg*>(raw_); }

  int64_t* new_ints(size_t n);
  double* new_floats(size_t n) { return reinterpret_cast<double*>(new_ints(n)); }
  TensorImpl** new_tensors(size_t n) { return reinterpret_cast<TensorImpl**>(new_ints(n)); }
  void keep(TensorPtr tensor) { kept_.push_back(std::move(tensor)); }
  void keep(Ref object) { objects_.push_back(std::move(object)); }
  void reset();  ///< before the next overload is tried

 private:
  alignas(Arg) unsigned char raw_[kMaxParams * sizeof(Arg)];
  int64_t ints_[32];
  size_t ints_used_ = 0;
  std::vector<std::unique_ptr<int64_t[]>> more_ints_;
  std::vector<TensorPtr> kept_;
  std::vector<Ref> objects_;
};

/// Fills `parsed` from a vectorcall's arguments; `self` (may be null) is the first parameter of a method
/// call.
/// @throws PythonError with a TypeError that lists the signatures when no row fits.
void parse(const OverloadSet& set, PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* kwnames,
           ParsedArgs& parsed);

// Single values, for the methods that are written by hand.

/// An int, an integer scalar of NumPy or an integer 0-dim tensor; not a bool.
bool int_from(PyObject* object, int64_t& value);
/// A Python or NumPy number, or a 0-dim tensor.
bool scalar_from(PyObject* object, Arg& value);
/// A sequence of ints.
bool ints_from(PyObject* object, Dims& values);
/// Any number class of NumPy's, without importing it.
bool is_numpy_scalar(PyObject* object);
bool is_numpy_bool(PyObject* object);
/// The value of a 0-dim tensor (or of one element).
Scalar item_of(const TensorPtr& tensor);
/// The Generator behind a Python object; false if it is none.
bool generator_from(PyObject* object, Generator*& generator);
/// "Tensor", "tuple of ints": a parameter's type in messages.
std::string python_type_of(const ops::Param& param);

}  // namespace lohe::python
