#pragma once

#include "binding/common.h"

namespace lohe::python {

/// The one UntypedStorage object of a storage. New reference.
PyObject* wrap_storage(const Intrusive<Storage>& storage);
bool is_storage(PyObject* object);
Storage* storage_of(PyObject* object);

}  // namespace lohe::python
