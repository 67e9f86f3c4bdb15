"""Finite differences against backward, in double precision."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from lohe import _C
from lohe._modes import enable_grad, no_grad
from lohe._tensor import Tensor

__all__ = ["GradcheckError", "gradcheck", "gradgradcheck"]


class GradcheckError(RuntimeError):
    """Backward and finite differences disagree."""


def _tuple(value: Any) -> tuple:
    return (value,) if isinstance(value, Tensor) or not isinstance(value, (tuple, list)) else tuple(value)


def _differentiable(values: Any) -> list[Tensor]:
    return [v for v in _tuple(values) if isinstance(v, Tensor) and v.requires_grad]


def _positions(t: Tensor) -> Any:
    return itertools.product(*map(range, t.shape))


def _numeric(function: Callable, inputs: tuple, x: Tensor, eps: float) -> list[list[list[complex]]]:
    """By output, then element of x: the change of every output element along the real (and imaginary) direction."""
    data = x.data  # its writes are no news to what func saved
    rows: list = []
    steps = (eps, eps * 1j) if x.is_complex() else (eps,)
    for place in _positions(x):
        for step in steps:
            kept = data[place].item()
            with no_grad():
                data[place] = kept + step
                above = [o.detach().clone() for o in _tuple(function(*inputs)) if isinstance(o, Tensor)]
                data[place] = kept - step
                below = [o.detach().clone() for o in _tuple(function(*inputs)) if isinstance(o, Tensor)]
                data[place] = kept
            rows.append([((a - b) / (2 * eps)).reshape(-1).tolist() for a, b in zip(above, below)])
    return rows


def _check_one(
    function: Callable, inputs: tuple, xs: list[Tensor], eps: float, atol: float, rtol: float
) -> None:
    all_outputs = [o for o in _tuple(function(*inputs)) if isinstance(o, Tensor)]
    for index, x in enumerate(xs):
        numeric = _numeric(function, inputs, x, eps)
        per_element = 2 if x.is_complex() else 1
        for number, output in enumerate(all_outputs):
            if not output.requires_grad:
                continue
            directions = (1, 1j) if output.is_complex() else (1,)
            for flat, place in enumerate(_positions(output)):
                for direction in directions:
                    weight = _C.ops.zeros_like(output).detach()
                    weight[place] = direction
                    (gradient,) = _C._run_backward((output,), (weight,), True, False, (x,), True, False)
                    values = [0] * x.numel() if gradient is None else gradient.reshape(-1).tolist()
                    for element, value in enumerate(values):
                        changes = [
                            complex(numeric[element * per_element + k][number][flat]) for k in range(per_element)
                        ]
                        # The real inner product of the weight with the change, along each real direction of x.
                        expected = [(complex(direction).conjugate() * c).real for c in changes]
                        got = [complex(value).real, complex(value).imag][:per_element]
                        for a, n in zip(got, expected):
                            if not abs(a - n) <= atol + rtol * abs(n):
                                raise GradcheckError(
                                    f"Jacobian mismatch for output {number} with respect to input {index}, at output "
                                    f"element {place}, input element {element}:\nnumerical: {n}\nanalytical: {a}"
                                )


def gradcheck(
    func: Callable,
    inputs: Any,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_batched_forward_grad: bool = False,
    check_forward_ad: bool = False,
    check_backward_ad: bool = True,
    fast_mode: bool = False,
    masked: bool | None = None,
) -> bool:
    """Checks gradients of ``func(*inputs)`` by central differences with step `eps`; inputs should be float64."""
    given = _tuple(inputs)
    xs = _differentiable(given)
    if not xs:
        raise ValueError(
            "gradcheck expects at least one input tensor to require gradient, but none of the them have requires_grad=True."
        )
    try:
        if check_backward_ad:
            _check_one(func, given, xs, eps, atol, rtol)
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def gradgradcheck(
    func: Callable,
    inputs: Any,
    grad_outputs: Any = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    **options: Any,
) -> bool:
    """Checks second derivatives: `gradcheck` of the function that gives func's gradients."""
    given = _tuple(inputs)
    outputs = _differentiable(func(*given))
    if grad_outputs is None:
        weights = [
            _C.ops.randn_like(o).detach().requires_grad_()
            for o in outputs
        ]
    else:
        weights = list(_tuple(grad_outputs))
    count = len(given)

    def first(*args: Any) -> tuple:
        inner, cotangents = args[:count], args[count:]
        with enable_grad():  # finite differences are taken without
            roots = tuple(_differentiable(func(*inner)))
        wanted = tuple(a for a in inner if isinstance(a, Tensor) and a.requires_grad)
        gradients = _C._run_backward(roots, tuple(cotangents), True, True, wanted, True, False)
        return tuple(g for g in gradients if g is not None)

    return gradcheck(first, (*given, *weights), eps=eps, atol=atol, rtol=rtol, raise_exception=raise_exception)
