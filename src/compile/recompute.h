#pragma once

#include <vector>

#include "compile/trace.h"

/// What backward keeps of a trace and can as well compute again: elementwise results of what is in memory
/// anyway.
namespace lohe::compiler {

/// What a record costs, in simple instructions an element, where it may be done again, elementwise; else -1.
/// Divisions and roots, which a processor does not start every cycle, cost more than any repetition is worth.
int cost_of_repeating(const TraceRecord& record);

struct Recipe {
  int32_t storage;
  std::vector<int32_t> records;  ///< that make it, in order, from storages that stay as they are
};

/// Of storages that only the tape keeps, those that are cheaper made again, in the kernel that reads them,
/// than written and read back (the rematerialisation of Chen et al., "Training Deep Nets with Sublinear
/// Memory Cost", 2016, restricted to what costs no more than memory). @param least_bytes nothing is put off
/// for less than that
std::vector<Recipe> find_recipes(const Trace& trace, int64_t least_bytes);

}  // namespace lohe::compiler
