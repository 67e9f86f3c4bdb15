#include "binding/index.h"

#include <algorithm>

#include "base/inline_vector.h"
#include "binding/export.h"
#include "binding/ops.h"
#include "binding/tensor.h"
#include "binding/torch_function.h"
#include "binding/types.h"

/// Indexing. Ints, slices, None and Ellipsis become views; tensors, lists and masks are gathered by one op,
/// `index`, and written by `index_put_`.
namespace lohe::python {
namespace {

// The rows behind basic indexing.
const ops::OpRef slice_row("slice.Tensor"), select_row("select.int"), unsqueeze_row("unsqueeze"),
    alias_row("alias");

bool is_mask(const TensorImpl& t) { return t.dtype() == kBool || t.dtype() == kUInt8; }

/// What an index came to: a view of the tensor, and what is left to gather from it.
struct Indexed {
  TensorPtr view;
  std::vector<TensorPtr> indices;  ///< null: the whole dimension
  bool gathers = false;
};

class Indexer {
 public:
  explicit Indexer(TensorPtr tensor) { result_.view = std::move(tensor); }

  Indexed apply(PyObject* index) {
    if (!PyTuple_Check(index)) return apply_all({&index, 1});
    return apply_all({PySequence_Fast_ITEMS(index), static_cast<size_t>(PyTuple_GET_SIZE(index))});
  }

 private:
  Indexed apply_all(std::span<PyObject* const> items) {
    int64_t specified = 0;
    InlineVector<Ref, 6> kept;
    for (PyObject* item : items) {
      kept.push_back(prepared(item));
      specified += dims_of(kept.back().get());
    }
    const int64_t rank = result_.view->dim();
    if (rank == 0 && kept.size() == 1 && specified == 1 && PyLong_Check(kept[0].get()))
      step(kept[0].get());  // says what to do
    LOHE_CHECK_INDEX(specified <= rank, "too many indices for tensor of dimension ", rank);
    bool ellipsis = false;
    for (const Ref& item : kept) {
      if (item.get() == Py_Ellipsis) {
        if (ellipsis) continue;  // a second one stands for no dimension
        ellipsis = true;
        dim_ += rank - specified;
      } else {
        step(item.get());
      }
    }
    return std::move(result_);
  }

  /// Lists, arrays and ranges become tensors; everything else stays.
  static Ref prepared(PyObject* item) {
    if (item == Py_None || item == Py_Ellipsis || PyBool_Check(item) || PySlice_Check(item) ||
        PyLong_Check(item) || is_tensor(item)) {
      return Ref::borrow(item);
    }
    if (PyUnicode_Check(item) || PyFloat_Check(item) ||
        (PyIndex_Check(item) == 0 && PySequence_Check(item) == 0)) {
      raise(
          ErrorKind::kIndex,
          "only integers, slices (`:`), ellipsis (`...`), None and long or byte Variables are valid indices (got ",
          type_name(item), ")");
    }
    if (PyIndex_Check(item) != 0 && !PySequence_Check(item)) return checked(PyNumber_Index(item));
    static PyObject* make = nullptr;
    if (make == nullptr) {
      const Ref module = checked(PyImport_ImportModule("lohe._C"));
      make = checked(PyObject_GetAttrString(module.get(), "as_tensor")).release();
    }
    const Ref tuple = PyList_Check(item) || PyObject_HasAttrString(item, "__array_struct__")
                          ? Ref::borrow(item)
                          : checked(PySequence_List(item));
    Ref tensor = checked(PyObject_CallOneArg(make, tuple.get()));
    if (impl_of(tensor.get())->numel() == 0 && !is_mask(*impl_of(tensor.get()))) {
      return Ref::steal(wrap(cast(tensor_of(tensor.get()), kInt64)));  // [] is an empty list of ints
    }
    return tensor;
  }

  static int64_t dims_of(PyObject* item) {
    if (is_tensor(item)) {
      const TensorImpl* t = impl_of(item);
      return is_mask(*t) ? t->dim() : 1;
    }
    return item == Py_None || item == Py_Ellipsis || PyBool_Check(item) ? 0 : 1;
  }

  void step(PyObject* item) {
    if (PySlice_Check(item)) {
      slice(item);
    } else if (item == Py_None) {
      result_.view = unsqueeze_row(result_.view, dim_);
      ++dim_;
    } else if (PyBool_Check(item)) {
      mask_of_one(item == Py_True);
    } else if (is_tensor(item)) {
      tensor(tensor_of(item));
    } else {
      const int64_t position = PyLong_AsLongLong(item);
      if (position == -1 && PyErr_Occurred() != nullptr) throw PythonError{};
      select(position);
    }
  }

  void select(int64_t position) {
    const int64_t rank = result_.view->dim();
    LOHE_CHECK_INDEX(
        rank > 0,
        "invalid index of a 0-dim tensor. Use `tensor.item()` in Python or `tensor.item<T>()` in C++ "
        "to convert a 0-dim tensor to a number");
    const int64_t size = result_.view->sizes()[static_cast<size_t>(dim_)];
    LOHE_CHECK_INDEX(position >= -size && position < size, "index ", position,
                     " is out of bounds for dimension ", dim_, " with size ", size);
    result_.view = select_row(result_.view, dim_, position);
  }

  static bool bound(PyObject* object, int64_t& value) {
    if (object == Py_None) return false;
    if (PyLong_CheckExact(object)) {
      value = PyLong_AsSsize_t(object);
      if (value != -1 || PyErr_Occurred() == nullptr) return true;
      PyErr_Clear();  // too large: clipped below
    }
    if (is_tensor(object)) {
      LOHE_CHECK_TYPE(int_from(object, value),
                      "slice indices must be integers or None or have an __index__ method");
      return true;
    }
    LOHE_CHECK_TYPE(PyIndex_Check(object) != 0,
                    "slice indices must be integers or None or have an __index__ method");
    value = PyNumber_AsSsize_t(object, nullptr);
    if (value == -1 && PyErr_Occurred() != nullptr) throw PythonError{};
    return true;
  }

  void slice(PyObject* item) {
    auto* s = reinterpret_cast<PySliceObject*>(item);
    LOHE_CHECK_INDEX(result_.view->dim() > 0, "slice() cannot be applied to a 0-dim tensor.");
    int64_t start = 0, stop = 0, step = 1;
    const bool has_start = bound(s->start, start), has_stop = bound(s->stop, stop);
    bound(s->step, step);
    LOHE_CHECK_VALUE(step > 0, "step must be greater than zero");
    if (has_start || has_stop || step != 1) {
      result_.view =
          slice_row(result_.view, dim_, has_start ? Arg(start) : Arg(), has_stop ? Arg(stop) : Arg(), step);
    }
    ++dim_;
  }

  /// x[True] adds a dimension of one, x[False] of none.
  void mask_of_one(bool value) {
    result_.view = unsqueeze_row(result_.view, dim_);
    const int64_t sizes[1] = {1};
    TensorPtr mask = TensorImpl::make_contiguous(Storage::allocate(1), kBool, sizes);
    *mask->data() = value ? 1 : 0;
    record(std::move(mask), 1);
  }

  void tensor(const TensorPtr& t) {
    LOHE_CHECK_INDEX(is_integral(t->dtype(), true),
                     "tensors used as indices must be long, int, byte or bool tensors");
    if (t->dim() == 0) {
      if (is_mask(*t)) {
        mask_of_one(item_of(t).to_bool());
      } else {
        select(item_of(t).to_int());
      }
      return;
    }
    record(t, is_mask(*t) ? t->dim() : 1);
  }

  void record(TensorPtr t, int64_t dims) {
    for (; covered_ < dim_; ++covered_) result_.indices.emplace_back();
    result_.indices.push_back(std::move(t));
    result_.gathers = true;
    covered_ += dims;
    dim_ += dims;
  }

  Indexed result_;
  int64_t dim_ = 0;      ///< of the view
  int64_t covered_ = 0;  ///< dimensions that `indices` speak of
};

std::vector<TensorImpl*> pointers(const std::vector<TensorPtr>& list) {
  std::vector<TensorImpl*> raw;
  for (const TensorPtr& t : list) raw.push_back(t.get());
  return raw;
}

/// A value's leading dimensions of size one beyond the target's rank go.
TensorPtr without_leading_ones(TensorPtr value, int64_t rank) {
  Dims sizes(value->sizes());
  const size_t before = sizes.size();
  while (static_cast<int64_t>(sizes.size()) > rank && sizes.front() == 1) sizes.erase(sizes.begin());
  if (sizes.size() == before) return value;
  return call_row("reshape", {Arg(value.get()), Arg(std::span<const int64_t>(sizes))});
}

void assign(TensorPtr target, PyObject* value) {
  if (is_tensor(value)) {
    const TensorPtr source = without_leading_ones(tensor_of(value), target->dim());
    call_row_all("copy_", {Arg(target.get()), Arg(source.get())});
    return;
  }
  const OverloadSet* fill = find_overloads("fill_");
  if (fill == nullptr) raise(ErrorKind::kNotImplemented, "the op 'fill_' is not implemented");
  const Ref object = Ref::steal(wrap(std::move(target)));
  const Ref done =
      checked(call_overloads(Py_None, *fill, dispatch::Form::kValue, object.get(), &value, 1, nullptr));
}

TensorPtr value_tensor(PyObject* value, const TensorImpl& target) {
  if (is_tensor(value)) return tensor_of(value);
  Arg number;
  LOHE_CHECK_TYPE(scalar_from(value, number), "can't assign a ", type_name(value), " to a torch.",
                  info(target.dtype()).tensor_type);
  TensorPtr t = TensorImpl::make_contiguous(Storage::allocate(target.itemsize()), target.dtype(), {});
  store_element(t->data(), target.dtype(), number.scalar());
  return t;
}

}  // namespace

Py_ssize_t tensor_length(PyObject* self) {
  Py_ssize_t n = -1;
  guarded_status([&] {
    const TensorImpl* t = impl_of(self);
    LOHE_CHECK_TYPE(t->dim() > 0, "len() of a 0-d tensor");
    n = t->sizes()[0];
  });
  return n;
}

PyObject* tensor_getitem(PyObject* self, PyObject* index) {
  return guarded([&]() -> PyObject* {
    if (takes_calls(self) || takes_calls(index)) {
      const Ref callable =
          checked(PyObject_GetAttrString(reinterpret_cast<PyObject*>(tensor_type), "__getitem__"));
      return call_torch_function(callable.get(), self, &index, 1, nullptr);
    }
    const TensorPtr t = tensor_of(self);
    Indexed found = Indexer(t).apply(index);
    if (!found.gathers) {
      return wrap(found.view == t ? alias_row(t) : std::move(found.view));
    }
    const std::vector<TensorImpl*> raw = pointers(found.indices);
    return wrap(call_row("index.Tensor", {Arg(found.view.get()), Arg(std::span<TensorImpl* const>(raw))}));
  });
}

int tensor_setitem(PyObject* self, PyObject* index, PyObject* value) {
  return guarded_status([&] {
    LOHE_CHECK_TYPE(value != nullptr, "Tensor does not support deleting items");
    if (takes_calls(self) || takes_calls(value)) {
      const Ref callable =
          checked(PyObject_GetAttrString(reinterpret_cast<PyObject*>(tensor_type), "__setitem__"));
      PyObject* both[2] = {index, value};
      const Ref done = checked(call_torch_function(callable.get(), self, both, 2, nullptr));
      return;
    }
    const TensorPtr t = tensor_of(self);
    Indexed found = Indexer(t).apply(index);
    if (!is_tensor(value)) {
      Arg number;
      LOHE_CHECK_TYPE(scalar_from(value, number), "can't assign a ", type_name(value), " to a torch.",
                      info(t->dtype()).tensor_type);
    }
    if (!found.gathers) {
      assign(std::move(found.view), value);
      return;
    }
    const std::vector<TensorImpl*> raw = pointers(found.indices);
    TensorPtr values = value_tensor(value, *t);
    if (values->dim() > 1) values = without_leading_ones(values, std::max<int64_t>(found.view->dim(), 1));
    const bool own_row = ops::find_op_or_null("index_put_") != nullptr;
    call_row_all(own_row ? "index_put_" : "index_put",
                 {Arg(found.view.get()), Arg(std::span<TensorImpl* const>(raw)), Arg(values.get())},
                 own_row ? dispatch::Form::kValue : dispatch::Form::kInPlace);
  });
}

}  // namespace lohe::python
