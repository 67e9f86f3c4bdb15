#pragma once

/// The ops whose kernels the library carries.
namespace lohe::gen {

/// Calls each of them, forward and backward, on small tensors of the dtypes and stride classes that programs
/// usually meet. A kernel does not depend on sizes, so that small ones ask for the same.
void run_usual_ops();

}  // namespace lohe::gen
