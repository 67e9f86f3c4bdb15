"""Gradients of rows with reductions whose operands are broadcast: each is summed to its operand's shape.

The oracle computes the same formula from broadcast operands, so that PyTorch's own gradient of ``expand`` does the sums.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lohe
import pytest
from lohe._C import ops

SHAPES = [
    ((3, 4), (4,)),
    ((4,), (3, 4)),
    ((3, 4), ()),
    ((), (3, 4)),
    ((3, 1), (1, 4)),
    ((2, 1, 4), (3, 1)),
    ((1,), (2, 3)),
    ((3, 4), (1, 1)),
]


def _reduced(loss: Any, reduction: int) -> Any:
    return loss if reduction == 0 else loss.mean() if reduction == 1 else loss.sum()


# Each: the row of two operands and a reduction, and PyTorch's form of it.
ROWS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "mse_loss": (ops.mse_loss, lambda F, x, y: F.mse_loss(x, y, reduction="none")),
    "l1_loss": (ops.l1_loss, lambda F, x, y: F.l1_loss(x, y, reduction="none")),
    "smooth_l1_loss": (ops.smooth_l1_loss, lambda F, x, y: F.smooth_l1_loss(x, y, reduction="none")),
    "huber_loss": (ops.huber_loss, lambda F, x, y: F.huber_loss(x, y, reduction="none")),
    "kl_div": (ops.kl_div, lambda F, x, y: F.kl_div(x, y, reduction="none")),
    "kl_div of logs": (lambda x, y, r: ops.kl_div(x, y, r, log_target=True), lambda F, x, y: F.kl_div(x, y, reduction="none", log_target=True)),
    "soft_margin_loss": (ops.soft_margin_loss, lambda F, x, y: (-(x * y)).exp().log1p()),
    "poisson_nll_loss": (
        lambda x, y, r: ops.poisson_nll_loss(x, y, True, False, 1e-8, r),
        lambda F, x, y: F.poisson_nll_loss(x, y, reduction="none"),
    ),
    "binary_cross_entropy": (
        lambda x, y, r: ops.binary_cross_entropy(x, y, None, r),
        lambda F, x, y: F.binary_cross_entropy(x, y, reduction="none"),
    ),
    "binary_cross_entropy_with_logits": (
        lambda x, y, r: ops.binary_cross_entropy_with_logits(x, y, None, None, r),
        lambda F, x, y: F.binary_cross_entropy_with_logits(x, y, reduction="none"),
    ),
    "margin_ranking_loss": (
        lambda x, y, r: ops.margin_ranking_loss(x, y, x.detach() * 0 + 1, 0.2, r),
        lambda F, x, y: (y - x + 0.2).relu(),
    ),
    "hinge_embedding_loss": (
        lambda x, y, r: ops.hinge_embedding_loss(x * y, lohe.ones(()), 1.0, r),
        lambda F, x, y: F.hinge_embedding_loss(x * y, x.new_ones(()), reduction="none"),
    ),
}


def _numbers(framework: Any, shape: tuple[int, ...], first: float) -> Any:
    count = 1
    for n in shape:
        count *= n
    values = [(first + 0.137 * i) % 0.8 + 0.1 for i in range(count)]
    return framework.tensor(values, dtype=framework.float64).reshape(shape).requires_grad_(True)


def _gradients(framework: Any, result: Any, operands: list[Any]) -> list[Any]:
    """The gradients of a function of the result, and those of a function of these."""
    cotangent = framework.arange(result.numel(), dtype=framework.float64).reshape(result.shape) * 0.3 + 0.5
    first = framework.autograd.grad((result * cotangent).sum(), operands, create_graph=True)
    total = sum((g * (g + 1)).sum() for g in first)
    second = framework.autograd.grad(total, operands, allow_unused=True) if total.requires_grad else []
    return [*first, *second]


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("reduction", [0, 1, 2], ids=["none", "mean", "sum"])
@pytest.mark.parametrize("name", ROWS)
def test_a_loss_of_operands_that_broadcast(
    name: str, reduction: int, shapes: tuple[tuple[int, ...], tuple[int, ...]], oracle: Any
) -> None:
    row, form = ROWS[name]
    x, y = (_numbers(lohe, s, 0.2 + i) for i, s in enumerate(shapes))
    p, q = (_numbers(oracle, s, 0.2 + i) for i, s in enumerate(shapes))
    got, expected = row(x, y, reduction), _reduced(form(oracle.nn.functional, *oracle.broadcast_tensors(p, q)), reduction)
    _compare(oracle, got, expected, [x, y], [p, q])


def _compare(oracle: Any, got: Any, expected: Any, operands: list[Any], others: list[Any]) -> None:
    oracle.testing.assert_close(oracle.from_dlpack(got.detach()), expected.detach())
    found, wanted = _gradients(lohe, got, operands), _gradients(oracle, expected, others)
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        if b is None:
            assert a is None or not a.any()
            continue
        assert a is not None and tuple(a.shape) == tuple(b.shape)
        oracle.testing.assert_close(oracle.from_dlpack(a.detach()), b.detach())


@pytest.mark.parametrize("mask", [(5, 6), (6,), (3, 1, 5, 6), (1, 4, 1, 6), (4, 5, 1), (1, 1, 1, 1)], ids=str)
def test_a_mask_of_attention_that_broadcasts(mask: tuple[int, ...], oracle: Any) -> None:
    shapes = [(3, 4, 5, 2), (3, 4, 6, 2), (3, 4, 6, 2), mask]
    ours = [_numbers(lohe, s, 0.3 * i) for i, s in enumerate(shapes)]
    theirs = [_numbers(oracle, s, 0.3 * i) for i, s in enumerate(shapes)]
    q, k, v, bias = theirs
    expected = (q @ k.transpose(-2, -1) / 2**0.5 + bias).softmax(-1) @ v
    _compare(oracle, lohe.nn.functional.scaled_dot_product_attention(*ours), expected, ours, theirs)


@pytest.mark.parametrize("weight", [(2, 3), (3,), (1,), (2, 1)], ids=str)
def test_weights_of_a_loss_that_broadcast(weight: tuple[int, ...], oracle: Any) -> None:
    shapes = [(2, 3), (2, 3)]
    ours = [_numbers(lohe, s, 0.3 * i) for i, s in enumerate(shapes)]
    theirs = [_numbers(oracle, s, 0.3 * i) for i, s in enumerate(shapes)]
    w, u = _numbers(lohe, weight, 0.9).detach(), _numbers(oracle, weight, 0.9).detach()
    F, G = lohe.nn.functional, oracle.nn.functional
    _compare(
        oracle,
        F.binary_cross_entropy_with_logits(*ours, weight=w, pos_weight=w + 1),
        G.binary_cross_entropy_with_logits(*theirs, weight=u, pos_weight=u + 1),
        ours,
        theirs,
    )
