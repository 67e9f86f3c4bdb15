#pragma once

#include <vector>

#include "binding/common.h"

namespace lohe::python {

/// A value made of tensors, plain values (numbers, text, None, dtypes ...) and containers of them, taken
/// apart: to tell whether another value is equal to it but for its tensors, and to make such a value.
class Pattern {
 public:
  /// @param tensors takes the value's tensors, in order
  /// @param foreign set to a part that is neither tensor nor plain nor a container; else left alone
  static Pattern of(PyObject* value, std::vector<PyObject*>& tensors, std::string& foreign);

  /// Whether `value` is equal to the pattern's but for its tensors, which are added to `tensors`.
  bool matches(PyObject* value, std::vector<TensorImpl*>& tensors) const;
  /// A value with these tensors. New reference.
  Ref make(const std::vector<Ref>& tensors) const;
  /// Whether the same values would be made.
  bool same_as(const Pattern& other) const;
  int visit(visitproc visit, void* arg) const;

 private:
  enum Kind : uint8_t { kTensor, kPlain, kTuple, kList, kDict, kOther };
  static Pattern part(PyObject* value, std::vector<PyObject*>& tensors, std::string& foreign);

  Kind kind_ = kPlain;
  Ref type_;               ///< of the value
  Ref value_;              ///< plain; of other containers: a function that makes one of a list
  size_t tensor_ = 0;      ///< number
  std::vector<Ref> keys_;  ///< plain
  std::vector<Pattern> children_;
};

/// Whether two plain values are of one type and equal, numbers by their bits.
bool same_plain(PyObject* a, PyObject* b);

/// The lists, dicts and other containers in `value` that may be changed, and its tensors: each as often as it
/// occurs. Borrowed.
void mutable_parts(PyObject* value, std::vector<PyObject*>& parts);

}  // namespace lohe::python
