"""Cross entropy, whose gradient makes the softmax from the highest score of each sample and the sum of exponentials."""

from __future__ import annotations

import itertools
from typing import Any

import lohe
import pytest

CLASSES = 7


def _gradients(m: Any, dtype: str, scores: Any, target: Any, weight: Any, **options: Any) -> list[Any]:
    """The loss, its gradients, and those of a function of the gradients."""
    x = m.tensor(scores, dtype=getattr(m, dtype), requires_grad=True)
    inputs = [x]
    if options.pop("probabilities"):
        t = m.tensor(target, dtype=getattr(m, dtype), requires_grad=True)
        inputs.append(t)
    else:
        t = m.tensor(target)
        options["ignore_index"] = 3
    if weight is not None:
        weight = m.tensor(weight, dtype=getattr(m, dtype))
    loss = m.nn.functional.cross_entropy(x, t, weight=weight, **options)
    first = m.autograd.grad((loss * (loss + 1)).sum(), inputs, create_graph=True)
    second = m.autograd.grad(sum((g * g * (g + 1)).sum() for g in first), inputs)
    return [loss, *first, *second]


@pytest.mark.parametrize("shape", [(CLASSES,), (1, CLASSES), (5, CLASSES), (3, CLASSES, 4), (2, CLASSES, 3, 2)])
@pytest.mark.parametrize("probabilities", [False, True])
def test_first_and_second_gradients(shape: tuple[int, ...], probabilities: bool, oracle: Any) -> None:
    generator = lohe.Generator().manual_seed(7)
    scores = (lohe.randn(shape, generator=generator) * 3).tolist()
    outer = shape[:0] if len(shape) == 1 else (shape[0], *shape[2:])
    target = (
        lohe.rand(shape, generator=generator) if probabilities else lohe.randint(0, CLASSES, outer, generator=generator)
    ).tolist()
    weights = lohe.rand(CLASSES, generator=generator).tolist()
    for weight, reduction, smoothing in itertools.product((None, weights), ("none", "mean", "sum"), (0.0, 0.1)):
        options = {"reduction": reduction, "label_smoothing": smoothing, "probabilities": probabilities}
        ours = _gradients(lohe, "float64", scores, target, weight, **options)
        theirs = _gradients(oracle, "float64", scores, target, weight, **options)
        for got, expected in zip(ours, theirs, strict=True):
            oracle.testing.assert_close(
                oracle.tensor(got.tolist(), dtype=oracle.float64), expected.detach(), equal_nan=True
            )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_gradient_of_a_sure_answer_in_a_half_dtype(dtype: str) -> None:
    # The sum of exponentials is 1.0009: rounded to a half dtype it would be 1, and the gradient 0.
    x = lohe.tensor([[7.0, 0.0]], dtype=getattr(lohe, dtype), requires_grad=True)
    lohe.nn.functional.cross_entropy(x, lohe.tensor([0])).backward()
    expected = lohe.softmax(lohe.tensor([[7.0, 0.0]]), -1)[0, 1].item()
    assert x.grad is not None
    assert x.grad[0, 0].item() == pytest.approx(-expected, rel=0.01)
    assert x.grad[0, 1].item() == pytest.approx(expected, rel=0.01)


def test_a_target_of_another_shape_is_named_by_the_public_name() -> None:
    with pytest.raises(RuntimeError, match="^cross_entropy_loss: expected target of shape"):
        lohe.nn.functional.cross_entropy(lohe.zeros(4, 3, 2), lohe.zeros(4, 3, dtype=lohe.int64))


def test_a_dtype_that_is_not_served_is_told_by_the_public_name() -> None:
    with pytest.raises(NotImplementedError, match='^"cross_entropy_loss" not implemented for .Long.'):
        lohe.nn.functional.cross_entropy(lohe.zeros(3, 4, dtype=lohe.int64), lohe.tensor([0, 1, 2]))
