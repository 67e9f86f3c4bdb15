"""Automatic differentiation: backward, grad, custom functions and their checks."""

from __future__ import annotations

import warnings
from typing import Any

from lohe import _C
from lohe._modes import enable_grad, inference_mode, no_grad, set_grad_enabled, set_multithreading_enabled
from lohe._tensor import Tensor
from lohe.autograd.function import Function

__all__ = [
    "Function",
    "Variable",
    "backward",
    "enable_grad",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "inference_mode",
    "no_grad",
    "set_grad_enabled",
    "set_multithreading_enabled",
]


def _as_tuple(value: Any) -> tuple:
    if isinstance(value, Tensor):
        return (value,)
    return () if value is None else tuple(value)


def _cotangents(gradients: Any, outputs: tuple) -> tuple:
    if gradients is None:
        return (None,) * len(outputs)
    given = _as_tuple(gradients)
    if len(given) != len(outputs):
        raise RuntimeError(f"got {len(outputs)} tensors and {len(given)} gradients")
    return given


def backward(
    tensors: Any,
    grad_tensors: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    grad_variables: Any = None,
    inputs: Any = None,
) -> None:
    """Adds the gradients of `tensors`, weighted by `grad_tensors`, to ``.grad`` of the leaves (or of `inputs`)."""
    if grad_variables is not None:
        warnings.warn("`grad_variables` is deprecated. Use `grad_tensors` instead.", FutureWarning, stacklevel=2)
        if grad_tensors is not None:
            raise RuntimeError("`grad_tensors` and `grad_variables` mean the same; give one of them")
        grad_tensors = grad_variables
    _C._run_backward(tensors, grad_tensors, retain_graph, create_graph, inputs, True, True)


def grad(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Tensor, ...]:
    """The gradients of `outputs`, weighted by `grad_outputs`, with respect to `inputs`; no ``.grad`` changes.

    A gradient is None where an input was not used, if `allow_unused`, or zeros with `materialize_grads`.
    """
    if not only_inputs:
        warnings.warn("only_inputs argument is deprecated and is ignored now.", FutureWarning, stacklevel=2)
    if materialize_grads and allow_unused is False:
        raise ValueError("Expected allow_unused to be True or not passed when materialize_grads=True, but got: allow_unused=False.")
    if allow_unused is None:
        allow_unused = materialize_grads
    roots, wanted = _as_tuple(outputs), _as_tuple(inputs)
    if not wanted:
        raise ValueError("grad requires non-empty inputs.")
    keep = create_graph if retain_graph is None else retain_graph
    weights = _cotangents(grad_outputs, roots)
    if is_grads_batched:
        given = [w for w in weights if w is not None]
        rows = []
        for i in range(given[0].size(0) if given else 1):
            one = tuple(None if w is None else w[i] for w in weights)
            rows.append(_C._run_backward(roots, one, True, create_graph, wanted, allow_unused, False))
        results: Any = tuple(
            None if any(g is None for g in column) else _C.ops.stack(column) for column in zip(*rows)
        )
    else:
        results = _C._run_backward(roots, weights, keep, create_graph, wanted, allow_unused, False)
    if materialize_grads:
        return tuple(_C.ops.zeros_like(x) if g is None else g for g, x in zip(results, wanted))
    return results


class _VariableMeta(type):
    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, Tensor)


class Variable(metaclass=_VariableMeta):
    """The name that tensors with history once had; calling it gives a tensor."""

    def __new__(cls, data: Tensor, requires_grad: bool = False, volatile: bool = False) -> Tensor:  # type: ignore[misc]
        return data.detach().requires_grad_() if requires_grad else data


def __getattr__(name: str) -> Any:
    import importlib

    if name in ("gradcheck", "gradgradcheck"):
        return getattr(importlib.import_module("lohe.autograd._gradcheck"), name)
    if name in ("grad_mode", "functional", "graph", "forward_ad", "profiler"):
        try:
            return importlib.import_module(f"lohe.autograd.{name}")
        except ModuleNotFoundError:
            pass
    raise AttributeError(f"module 'lohe.autograd' has no attribute {name!r}")

