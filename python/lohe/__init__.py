"""Lohe: tensors, automatic differentiation and neural networks, under PyTorch's names."""

from __future__ import annotations

import importlib as _importlib
from typing import Any as _Any

from lohe import _C
from lohe._missing import missing_op as _missing_op

_C.ops.__getattr__ = _missing_op
_C.nn.__getattr__ = _missing_op

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
inf = float("inf")
nan = float("nan")
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

from lohe import autograd  # noqa: E402
from lohe._legacy import TYPES as _TYPES  # noqa: E402
from lohe._tensor_str import get_printoptions, printoptions, set_printoptions  # noqa: E402
from lohe.functional import *  # noqa: E402, F403
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
    ["amp", "backends", "compiler", "cpu", "cuda", "distributed", "distributions", "fft", "func", "futures", "jit", "library", "linalg", "mps", "multiprocessing", "nn", "onnx", "optim", "overrides", "profiler", "quantization", "serialization", "sparse", "special", "testing", "types", "utils", "version"]
)
_FROM = {"save": "serialization", "load": "serialization", "compile": "compiler", "vmap": "func"}


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


def is_deterministic_algorithms_warn_only_enabled() -> bool:
    """Whether an op without a deterministic form only warns; every op here is deterministic."""
    return False


def are_deterministic_algorithms_enabled() -> bool:
    """Always: results depend on neither threads nor timing."""
    return True


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Accepted for compatibility: every op is deterministic."""


def set_float32_matmul_precision(precision: str) -> None:
    """Accepts "highest", "high" and "medium"; products of float32 are always computed in float32."""
    if precision not in ("highest", "high", "medium"):
        raise RuntimeError(f"{precision} is not one of 'highest', 'high', and 'medium'; current precision is: highest")


def get_float32_matmul_precision() -> str:
    """Always "highest"."""
    return "highest"


def set_num_interop_threads(count: int) -> None:
    """Accepted for compatibility: there is one pool, see set_num_threads."""


def get_num_interop_threads() -> int:
    """One: calls run one after the other."""
    return 1


def install() -> None:
    """Lets programs that import torch get this package: registers it and its modules in ``sys.modules``."""
    from lohe import _install

    _install.install()
