"""Tensors that a Module recognises: Parameter and Buffer."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import lohe

__all__ = ["Buffer", "Parameter", "UninitializedBuffer", "UninitializedParameter", "is_lazy"]


class _MarkedTensorMeta(lohe._C._TensorMeta):
    """Lets ``isinstance`` also accept a tensor of another subclass that carries the class's marker attribute."""

    def __instancecheck__(cls, instance: Any) -> bool:
        if type.__instancecheck__(cls, instance):
            return True
        marker = cls.__dict__.get("_marker")
        return marker is not None and isinstance(instance, lohe.Tensor) and getattr(instance, marker, False)


class Parameter(lohe.Tensor, metaclass=_MarkedTensorMeta):
    """A tensor that registers itself in ``Module.parameters()`` when it is assigned as an attribute of a Module.

    ``data`` is shared, not copied; without it the parameter is an empty tensor. Operations on a parameter give
    plain tensors.
    """

    _marker = "_is_param"
    __torch_function__: Any = lohe._C._disabled_torch_function_impl

    def __new__(cls, data: Any = None, requires_grad: bool = True) -> Any:
        if data is None:
            data = lohe.empty(0)
        elif not isinstance(data, lohe.Tensor):
            raise TypeError(
                f"Parameter(): data must be a Tensor, got {type(data).__name__}; use lohe.tensor(data)"
            )
        if type(data) is lohe.Tensor or type(data) is Parameter:
            return lohe.Tensor._make_subclass(cls, data, requires_grad)
        # A tensor subclass stays what it is and is only marked.
        marked = data.detach().requires_grad_(requires_grad)
        if type(marked) is not type(data):
            raise RuntimeError(
                f"Parameter(): detach() of a {type(data).__name__} gave a {type(marked).__name__}; a tensor subclass "
                "must keep its type under detach() to be used as a parameter"
            )
        marked._is_param = True
        return marked

    def __deepcopy__(self, memo: dict) -> Parameter:
        known = memo.get(id(self))
        if known is not None:
            return known
        copied = type(self)(self.data.clone(memory_format=lohe.preserve_format), self.requires_grad)
        memo[id(self)] = copied
        return copied

    def __repr__(self) -> str:  # type: ignore[override]  # as in PyTorch
        return "Parameter containing:\n" + super().__repr__()

    def __reduce_ex__(self, protocol: Any) -> tuple:
        # Hooks belong to a process, so they are left behind, as an empty OrderedDict.
        return _rebuild_parameter, (self.data, self.requires_grad, OrderedDict())


def _rebuild_parameter(data: lohe.Tensor, requires_grad: bool, backward_hooks: dict) -> Parameter:
    """Makes a parameter out of its pickled parts; the name and arguments are those of the checkpoint format."""
    parameter = Parameter(data, requires_grad)
    parameter._backward_hooks = backward_hooks
    return parameter


class Buffer(lohe.Tensor, metaclass=_MarkedTensorMeta):
    """A tensor that registers itself as a buffer when it is assigned as an attribute of a Module.

    ``persistent`` says whether it is part of the module's ``state_dict``.
    """

    _marker = "_is_buffer"
    __torch_function__: Any = lohe._C._disabled_torch_function_impl

    persistent: bool

    def __new__(cls, data: Any = None, *, persistent: bool = True) -> Any:
        if data is None:
            data = lohe.empty(0)
        marked = data.detach().requires_grad_(data.requires_grad)
        marked.persistent = persistent
        marked._is_buffer = True
        return marked


class _Uninitialized:
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(
            f"{type(self).__name__}: parameters without a shape are not supported; give the layer its input size"
        )


class UninitializedParameter(_Uninitialized):
    """Parameters whose shape is found at the first call are not supported; the constructor raises."""


class UninitializedBuffer(_Uninitialized):
    """Buffers whose shape is found at the first call are not supported; the constructor raises."""


def is_lazy(param: Any) -> bool:
    """Says whether `param` still waits for its shape; always False, because no such parameter can exist."""
    return False
