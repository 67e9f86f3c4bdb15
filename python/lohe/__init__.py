"""Lohe: tensors, automatic differentiation and neural networks, under PyTorch's names."""

from __future__ import annotations

import importlib as _importlib
import math as _math
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from lohe import _C
from lohe._missing import missing_op as _missing_op

for _module in (_C.ops, _C.nn):
    setattr(_module, "__getattr__", _missing_op)  # noqa: B010 - modules of the extension

from lohe._C import (  # noqa: E402
    AcceleratorError,
    Generator,
    OutOfMemoryError,
    Size,
    UntypedStorage,
    as_tensor,
    asarray,
    can_cast,
    device,
    dtype,
    from_numpy,
    frombuffer,
    get_default_dtype,
    get_num_threads,
    is_grad_enabled,
    is_inference_mode_enabled,
    layout,
    memory_format,
    promote_types,
    set_num_threads,
    tensor,
)
from lohe._info import finfo, iinfo  # noqa: E402
from lohe._modes import enable_grad, inference_mode, no_grad, set_grad_enabled  # noqa: E402
from lohe._tensor import Tensor  # noqa: E402

e = 2.718281828459045
pi = 3.141592653589793
inf = _math.inf
nan = _math.nan
newaxis = None
__version__ = "0.1.0"

# From here on float, int, bool and others are dtypes and ops. Dtypes, layouts and memory formats by name, then every op of the table that is a function.
globals().update(
    {
        name: value
        for name, value in vars(_C).items()
        if isinstance(value, (_C.dtype, _C.layout, _C.memory_format))
    }
)
globals().update({name: value for name, value in vars(_C._functions).items() if not name.startswith("__")})
if _TYPE_CHECKING:  # the same, as type checkers read it
    from lohe._C._functions import *
    from lohe._C.dtypes import *

from lohe import autograd  # noqa: E402
from lohe._legacy import TYPES as _TYPES  # noqa: E402
from lohe._settings import *  # noqa: E402, F403
from lohe._tensor_str import get_printoptions, printoptions, set_printoptions  # noqa: E402
from lohe.functional import *  # type: ignore[assignment]  # noqa: E402, F403
from lohe.random import (  # noqa: E402
    default_generator,
    fork_rng,
    get_rng_state,
    initial_seed,
    manual_seed,
    seed,
    set_rng_state,
)

globals().update(_TYPES)

legacy_contiguous_format = _C.contiguous_format

#: Loaded when first used.
_SUBMODULES = frozenset(
    ["amp", "backends", "compiler", "cpu", "cuda", "distributed", "distributions", "fft", "func", "futures", "jit", "library", "linalg", "mps", "multiprocessing", "nn", "onnx", "ops", "optim", "overrides", "profiler", "quantization", "serialization", "sparse", "special", "testing", "types", "utils", "version"]
)
_FROM = {"save": "serialization", "load": "serialization", "compile": "compiler", "compile_report": "compiler", "lazy": "compiler", "vmap": "func"}


def __getattr__(name: str) -> _Any:
    if name in _SUBMODULES:
        try:
            return _importlib.import_module(f"lohe.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"lohe.{name}":
                raise
    elif name in _FROM:
        value = getattr(_importlib.import_module(f"lohe.{_FROM[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'lohe' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_SUBMODULES, *_FROM})


def install() -> None:
    """Lets programs that import torch get this package: registers it and its modules in ``sys.modules``."""
    from lohe import _install

    _install.install()
