#pragma once

#include "autograd/tape.h"
#include "binding/common.h"

/// Nodes of the tape as Python objects.
namespace lohe::python {

/// The one Python object of a node; None for null. New reference.
PyObject* wrap_node(Intrusive<autograd::GradNode> node);
/// The node behind an object of wrap_node. @throws TypeError.
autograd::GradNode* node_of(PyObject* object);

/// A node whose backward is Python's; see python/lohe/autograd/function.py.
class FunctionNode;
/// The context object of a custom function's node, borrowed; null for other nodes.
PyObject* function_context(autograd::GradNode* node);
/// An attribute of that context. New reference; null with an error set.
PyObject* function_attribute(autograd::GradNode* node, PyObject* name);

}  // namespace lohe::python
