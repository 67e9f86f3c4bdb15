"""Switches of computing libraries, where programs look for them."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

__all__ = ["cpu", "cuda", "cudnn", "mkl", "mkldnn", "mps", "openmp"]


class _Absent(ModuleType):
    """A library that this build does not use: settings are kept, nothing reads them."""

    def is_available(self) -> bool:
        return False

    def is_built(self) -> bool:
        return False


def _absent(name: str, **settings: object) -> _Absent:
    module = _Absent(f"{__name__}.{name}")
    vars(module).update(settings)
    sys.modules[module.__name__] = module
    return module


cudnn = _absent("cudnn", enabled=False, benchmark=False, deterministic=True, allow_tf32=False)
mps = _absent("mps")
mkl = _absent("mkl")
mkldnn = _absent("mkldnn", enabled=False)
openmp = _absent("openmp")
cuda = _absent("cuda", matmul=SimpleNamespace(allow_tf32=False, allow_fp16_reduced_precision_reduction=False))
cpu = _absent("cpu", get_cpu_capability=lambda: "DEFAULT")
