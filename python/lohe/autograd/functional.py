"""Products with Jacobians and Hessians of a function at given inputs, and the matrices themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lohe
from lohe import _C
from lohe._modes import enable_grad
from lohe._tensor import Tensor

__all__ = ["hessian", "hvp", "jacobian", "jvp", "vhp", "vjp"]


def _tensors(value: Any, name: str) -> tuple[tuple, bool]:
    """The tensors, and whether there was a single one without a tuple around it."""
    alone = not isinstance(value, tuple)
    items = (value,) if alone else value
    for i, x in enumerate(items):
        if not isinstance(x, Tensor):
            raise TypeError(f"The {name} must be either a Tensor or a tuple of Tensors, but the value at index {i} has type {type(x)}.")
    return items, alone


def _leaves(inputs: tuple, create_graph: bool) -> tuple:
    return tuple(x.view_as(x) if create_graph and x.requires_grad else x.detach().requires_grad_() for x in inputs)


def _gradients(outputs: tuple, inputs: tuple, weights: tuple | None, strict: bool, keep: bool = True) -> tuple:
    """Gradients of outputs by inputs, with graph; zeros where there is no path (an error if `strict`)."""
    weights = (None,) * len(outputs) if weights is None else weights
    pairs = [(y, w) for y, w in zip(outputs, weights) if y.requires_grad]
    found: Any = (None,) * len(inputs)
    if pairs:
        roots, given = zip(*pairs)
        found = _C._run_backward(roots, given, keep, True, inputs, True, False)
    if strict and any(g is None for g in found):
        raise RuntimeError(f"Output does not depend on input {list(found).index(None)}. This is not allowed in strict mode.")
    return tuple(lohe.zeros_like(x) if g is None else g for g, x in zip(found, inputs))


def _check_dependence(outputs: tuple, strict: bool) -> None:
    if strict and not all(y.requires_grad for y in outputs):
        raise RuntimeError("The output of the user-provided function does not require gradients: it is independent of the inputs. This "
                           "is not allowed in strict mode.")


def _packed(values: tuple, alone: bool, create_graph: bool) -> Any:
    if not create_graph:
        values = tuple(v.detach() for v in values)
    return values[0] if alone else values


def _vectors(v: Any, like: tuple, what: str) -> tuple:
    if v is None:
        if len(like) != 1 or like[0].numel() != 1:
            raise RuntimeError(f"The vector v can only be None if {what} is a single Tensor with a single element.")
        return (lohe.ones_like(like[0]),)
    items, _ = _tensors(v, "v")
    if len(items) != len(like):
        raise RuntimeError(f"v is a tuple of invalid length: should be {len(like)} but got {len(items)}.")
    for i, (a, b) in enumerate(zip(items, like)):
        if a.shape != b.shape:
            raise RuntimeError(f"Entry {i} in v has invalid size: should be {b.shape} but got {a.shape}.")
    return items


def vjp(func: Callable, inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False) -> tuple[Any, Any]:
    """(func(*inputs), v times the Jacobian): `v` has the outputs' shape, the product the inputs'."""
    items, alone = _tensors(inputs, "inputs")
    with enable_grad():
        leaves = _leaves(items, create_graph)
        outputs, single = _tensors(func(*leaves), "outputs of the user-provided function")
        _check_dependence(outputs, strict)
        products = _gradients(outputs, leaves, _vectors(v, outputs, "the output"), strict)
    return _packed(outputs, single, create_graph), _packed(products, alone, create_graph)


def jvp(func: Callable, inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False) -> tuple[Any, Any]:
    """(func(*inputs), the Jacobian times v): `v` has the inputs' shape, the product the outputs'."""
    items, _ = _tensors(inputs, "inputs")
    with enable_grad():
        leaves = _leaves(items, create_graph)
        vectors = _vectors(v, items, "the input")
        outputs, single = _tensors(func(*leaves), "outputs of the user-provided function")
        _check_dependence(outputs, strict)
        cotangents = tuple(lohe.zeros_like(y).requires_grad_() for y in outputs)
        linear = _gradients(outputs, leaves, cotangents, strict)
        products = _gradients(linear, cotangents, vectors, False)
    return _packed(outputs, single, create_graph), _packed(products, single, create_graph)


def jacobian(
    func: Callable,
    inputs: Any,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    strategy: str = "reverse-mode",
) -> Any:
    """The Jacobian, out.shape + in.shape: nested as outputs, then inputs, where these are tuples.

    `vectorize`: all rows in one batched pass; `strategy`: "reverse-mode", or with `vectorize` "forward-mode".
    """
    if strategy not in ("reverse-mode", "forward-mode"):
        raise ValueError('Expected strategy to be either "forward-mode" or "reverse-mode".')
    if strategy == "forward-mode" and not vectorize:
        raise NotImplementedError('torch.autograd.functional.jacobian with `strategy="forward-mode"` needs vectorize=True.')
    if strict and (vectorize or strategy == "forward-mode"):
        raise RuntimeError("torch.autograd.functional.jacobian: `strict=True` and `vectorized=True` are not supported together.")
    items, alone = _tensors(inputs, "inputs")
    with enable_grad():
        leaves = _leaves(items, create_graph)
        if vectorize:
            from lohe.func import jacfwd, jacrev

            numbers = tuple(range(len(leaves)))
            matrix = (jacrev if strategy == "reverse-mode" else jacfwd)(func, numbers)(*leaves)
            single = not (isinstance(matrix, tuple) and isinstance(matrix[0], tuple))
            rows = (matrix,) if single else matrix
        else:
            outputs, single = _tensors(func(*leaves), "outputs of the user-provided function")
            _check_dependence(outputs, strict)
            rows = []
            for y in outputs:
                flat = y.reshape(-1)
                columns = [_gradients((e,), leaves, None, strict) for e in flat]
                rows.append(
                    tuple(
                        lohe.stack([c[i] for c in columns]).view(*y.shape, *x.shape)
                        if columns
                        else lohe.zeros(*y.shape, *x.shape, dtype=x.dtype)
                        for i, x in enumerate(leaves)
                    )
                )
    blocks = tuple(_packed(tuple(row), alone, create_graph) for row in rows)
    return blocks[0] if single else blocks


def hessian(
    func: Callable,
    inputs: Any,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    outer_jacobian_strategy: str = "reverse-mode",
) -> Any:
    """The second derivatives of a scalar function: a tensor, or tuples by both inputs."""
    items, alone = _tensors(inputs, "inputs")

    def gradient(*leaves: Tensor) -> Any:
        value = func(*leaves)
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise RuntimeError("The Tensor returned by the function given to hessian should contain a single element")
        _check_dependence((value,), strict)
        tracked = tuple(x if x.requires_grad else x.detach().requires_grad_() for x in leaves)
        return _gradients((value.reshape(()),), tracked, None, strict)

    if vectorize:
        from lohe.func import grad

        numbers = tuple(range(len(items)))
        scalar = lambda *x: func(*x).reshape(())  # noqa: E731
        matrix = jacobian(grad(scalar, numbers), items, create_graph, strict, True, outer_jacobian_strategy)
    else:
        matrix = jacobian(gradient, items, create_graph, strict)
    return matrix[0][0] if alone else matrix


def vhp(func: Callable, inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False) -> tuple[Any, Any]:
    """(func(*inputs), v times the Hessian) of a scalar function."""
    items, alone = _tensors(inputs, "inputs")
    with enable_grad():
        leaves = _leaves(items, create_graph)
        value = func(*leaves)
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise RuntimeError("The Tensor returned by the function given to vhp should contain a single element")
        _check_dependence((value,), strict)
        vectors = _vectors(v, items, "the input")
        gradient = _gradients((value.reshape(()),), leaves, None, strict)
        products = _gradients(gradient, leaves, vectors, strict)
    return _packed((value,), True, create_graph), _packed(products, alone, create_graph)


def hvp(func: Callable, inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False) -> tuple[Any, Any]:
    """(func(*inputs), the Hessian times v) of a scalar function: the Hessian is symmetric, so this is vhp."""
    return vhp(func, inputs, v, create_graph, strict)
