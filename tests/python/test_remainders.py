"""Quotients and remainders are exact: those of integers, and fmod and remainder of floats, as NumPy's are."""

from __future__ import annotations

import lohe as torch
import numpy as np
import pytest


def integers(dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Of all sizes; small ones; extremes; and around 2^52, where doubles end to count by ones."""
    limits, random = np.iinfo(dtype), np.random.default_rng(0)
    low = max(limits.min, -100)

    def some(least: int, most: int, count: int) -> np.ndarray:
        return random.integers(least, most, count, dtype=dtype, endpoint=True)

    edge = np.array([limits.min, limits.max, 0, 1, 7] * 20).astype(dtype)
    near = (2**52 + np.arange(-50, 50)).astype(dtype)
    x = np.concatenate([some(limits.min, limits.max, 4000), some(low, 100, 4000), edge, near])
    y = np.concatenate(
        [some(limits.min, limits.max, 4000), some(low, 100, 4000), np.sort(edge), some(1, 50, 100)]
    )
    y[y == 0] = 3
    if limits.min < 0:
        y[(x == limits.min) & (y == -1)] = 5  # NumPy has a value of its own for that
    return x, y


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "int64"])
def test_integers_are_divided_exactly(dtype: str) -> None:
    x, y = integers(dtype)
    a, b = torch.tensor(x), torch.tensor(y)
    assert (torch.remainder(a, b).numpy() == np.remainder(x, y)).all()
    assert (torch.fmod(a, b).numpy() == np.fmod(x, y)).all()
    assert (torch.floor_divide(a, b).numpy() == np.floor_divide(x, y)).all()
    assert (torch.div(a, b, rounding_mode="floor").numpy() == np.floor_divide(x, y)).all()
    quotient = torch.div(a, b, rounding_mode="trunc").numpy()
    assert (quotient == (x - np.fmod(x, y)) // y).all()


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64"])
def test_the_least_integer_over_minus_one_is_itself(dtype: str) -> None:
    least = torch.tensor([np.iinfo(dtype).min] * 3, dtype=getattr(torch, dtype))
    minus_one = torch.full((3,), -1, dtype=getattr(torch, dtype))
    assert torch.equal(torch.div(least, minus_one, rounding_mode="trunc"), least)
    assert torch.equal(torch.remainder(least, minus_one), torch.zeros_like(least))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_remainders_of_floats_are_exact(dtype: str) -> None:
    random = np.random.default_rng(1)
    info = np.finfo(dtype)
    digits = info.nmant
    exponents = [0, 1, digits - 1, digits, digits + 1, digits + 2, 60, 100]
    with np.errstate(all="ignore"):
        x = np.concatenate([random.standard_normal(1000) * 2.0**e for e in exponents]).astype(dtype)
        y = random.standard_normal(x.size).astype(dtype)
        whole = np.round(random.standard_normal(2000) * 1000).astype(dtype)  # quotients that are integral
        special = np.array(
            [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, info.tiny, info.max, info.smallest_subnormal]
        )
        sx, sy = np.meshgrid(special.astype(dtype), special.astype(dtype))
        x = np.concatenate([x, whole * np.array(0.3, dtype), whole, sx.ravel()])
        y = np.concatenate([y, np.full(2000, 0.3, dtype), np.full(2000, 7, dtype), sy.ravel()])
        expected = np.fmod(x, y)
        got = torch.fmod(torch.tensor(x), torch.tensor(y)).numpy()
        assert (np.isnan(expected) == np.isnan(got)).all()
        there = ~np.isnan(expected)
        assert (expected[there] == got[there]).all()
        assert (np.signbit(expected[there]) == np.signbit(got[there])).all()
