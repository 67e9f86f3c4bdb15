#include "binding/parse.h"

namespace lohe::python {

bool generator_from(PyObject*, Generator*&) { return false; }

void init_generator(PyObject*) {}

}  // namespace lohe::python
