#pragma once

#include <functional>

#include "binding/common.h"
#include "io/value.h"

/// Between Python objects and what files can hold (src/io/value.h): tensors, numbers, text and containers of
/// them.
namespace lohe::python {

/// Describes `object`. Objects that occur twice are described once; only the exact types that a reader
/// without code knows are accepted, so nothing of the object's own code runs.
/// @throws TypeError naming any other type and what to do, ValueError for an object that contains itself or
/// nests deeper than io::kMaxNesting.
io::Value to_value(PyObject* object);

/// Called once for each storage that was read: gives the storage to use instead, or null to use it as it is.
using PlaceStorage =
    std::function<Intrusive<Storage>(const Intrusive<Storage>& storage, const std::string& location)>;

/// The objects that a loaded value describes. New reference. @param place may be null
/// @throws NotImplementedError for what has no counterpart here: typed storages, devices other than the CPU.
PyObject* from_value(const io::Value& value, const PlaceStorage& place);

}  // namespace lohe::python
