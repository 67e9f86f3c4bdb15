"""The protocol by which classes take over calls: ``__torch_function__``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from lohe import _C

__all__ = ["handle_torch_function", "has_torch_function", "is_tensor_like"]


def has_torch_function(relevant_args: Iterable[Any]) -> bool:
    """Whether one of the arguments takes calls over."""
    return _C._has_torch_function(tuple(relevant_args))


def is_tensor_like(value: Any) -> bool:
    """Whether `value` is a tensor or takes calls over."""
    return isinstance(value, _C.TensorBase) or hasattr(value, "__torch_function__")


def handle_torch_function(public_api: Callable, relevant_args: Iterable[Any], *args: Any, **kwargs: Any) -> Any:
    """Gives the call to the first argument whose ``__torch_function__`` takes it, subclasses first."""
    takers: list[Any] = []
    for value in relevant_args:
        if not _C._has_torch_function((value,)) or any(type(value) is type(t) for t in takers):
            continue
        place = next((i for i, t in enumerate(takers) if isinstance(value, type(t))), len(takers))
        takers.insert(place, value)
    types = tuple(type(t) for t in takers)
    for taker in takers:
        result = taker.__torch_function__(public_api, types, args, kwargs)
        if result is not NotImplemented:
            return result
    raise TypeError(f"no implementation found for {public_api!r} on types that implement __torch_function__: {types}")
