#include "binding/common.h"
#include "binding/nn_module.h"

/// lohe._C: the extension module.

PyMODINIT_FUNC PyInit__C() {
  using namespace lohe::python;
  static PyModuleDef definition{PyModuleDef_HEAD_INIT,
                                "lohe._C",
                                "What the package lohe gets from C++.",
                                -1,
                                nullptr,
                                nullptr,
                                nullptr,
                                nullptr,
                                nullptr};
  return guarded([] {
    Ref module = checked(PyModule_Create(&definition));
    init_errors(module.get());
    init_types(module.get());
    init_tensor(module.get());
    init_torch_function(module.get());
    init_ops(module.get());
    init_data(module.get());
    init_storage(module.get());
    init_autograd(module.get());
    init_function(module.get());
    init_runtime(module.get());
    init_generator(module.get());
    init_transforms(module.get());
    init_compile(module.get());
    init_replay(module.get());
    init_profile(module.get());
    init_serialization(module.get());
    init_nn_module(module.get());
    return module.release();
  });
}
