"""Forward-mode differentiation of tensors: inside ``with dual_level():``, make_dual gives a tensor a tangent, ops carry it
along, unpack_dual reads it."""

from __future__ import annotations

from typing import Any, NamedTuple

from lohe import _C
from lohe._tensor import Tensor

__all__ = ["UnpackedDualTensor", "dual_level", "enter_dual_level", "exit_dual_level", "make_dual", "unpack_dual"]

_levels: list[int] = []


class UnpackedDualTensor(NamedTuple):
    """What unpack_dual gives; `tangent` is None where there is none."""

    primal: Tensor
    tangent: Tensor | None


def enter_dual_level() -> int:
    """Begins a level; there is one at a time."""
    if _levels:
        raise RuntimeError("Nested forward mode AD is not supported at the moment; use func.jvp, which nests")
    _levels.append(_C._jvp_push())
    return 0


def exit_dual_level(*, level: int | None = None) -> None:
    """Ends the level; tangents are gone with it."""
    if not _levels:
        raise RuntimeError("Trying to exit a forward AD level but no level is active")
    _levels.pop()
    _C._jvp_pop()


class dual_level:
    """A ``with`` block in which tensors may have tangents."""

    def __enter__(self) -> int:
        return enter_dual_level()

    def __exit__(self, *error: object) -> None:
        exit_dual_level()


def make_dual(tensor: Tensor, tangent: Tensor, *, level: int | None = None) -> Any:
    """`tensor` with the direction `tangent`, of the same shape and dtype."""
    if not _levels:
        raise RuntimeError("Trying to create a dual Tensor for forward AD but no level exists, make sure to enter_dual_level() first.")
    if not (tensor.is_floating_point() or tensor.is_complex()):
        raise ValueError(f"Expected primal to be floating point or complex, but got: {tensor.dtype}")
    if not (tangent.is_floating_point() or tangent.is_complex()):
        raise ValueError(f"Expected tangent to be floating point or complex, but got: {tangent.dtype}")
    return _C._make_dual(tensor, tangent, _levels[-1])


def unpack_dual(tensor: Tensor, *, level: int | None = None) -> UnpackedDualTensor:
    """The value and the tangent of `tensor`."""
    return UnpackedDualTensor(*(_C._unpack_dual(tensor, _levels[-1]) if _levels else (tensor, None)))
