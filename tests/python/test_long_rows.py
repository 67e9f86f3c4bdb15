"""Reductions over rows that are so long that they are made in blocks: every op that reduces, in every layout, against PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lohe
import numpy as np
import pytest

torch = pytest.importorskip("torch")

LONG = 40_001  # more than two blocks of 16,384, and a rest

# The shape, the reduced dim, and what makes it of a dense tensor: kept dims that merge, that do not, and none.
LAYOUTS: dict[str, tuple[tuple[int, ...], int, Callable[[Any], Any]]] = {
    "flat": ((LONG,), 0, lambda x: x),
    "rows": ((3, LONG), 1, lambda x: x),
    "columns": ((LONG, 3), 0, lambda x: x),
    "between": ((2, LONG, 3), 1, lambda x: x),
    "kept dims that do not merge": ((3, 2, LONG), 2, lambda x: x.transpose(0, 1)),
    "expanded": ((3, 1, LONG), 2, lambda x: x.expand(3, 2, LONG)),
    "every other": ((4, 2, LONG), 2, lambda x: x[::2].transpose(0, 1)),
}

REDUCTIONS: dict[str, Callable[[Any, int], Any]] = {
    name: (lambda x, d, name=name: getattr(x, name)(d))
    for name in (
        "sum", "mean", "prod", "amax", "amin", "argmax", "argmin", "max", "min", "any", "all", "logsumexp", "std", "var",
        "nansum", "nanmean", "cumsum", "cumprod", "cummax", "cummin", "logcumsumexp", "softmax", "log_softmax", "count_nonzero",
    )
} | {
    "norm": lambda x, d: x.norm(dim=d),
    "aminmax": lambda x, d: x.aminmax(dim=d),
    "two results of one row": lambda x, d: (x.max(d).values, x.argmin(d), x.argmax(d), x.sum(d)),
}  # fmt: skip
DIFFERENTIABLE = ("sum", "mean", "amax", "max", "min", "logsumexp", "std", "var", "softmax", "log_softmax", "norm", "cumsum")


def _array(shape: tuple[int, ...], dtype: str, kind: str) -> np.ndarray:
    a = np.random.default_rng(0).standard_normal(shape)
    if kind == "ties":
        a = np.round(a)
    if kind == "nan":
        a[tuple(s // 2 for s in shape)] = a[tuple(s // 3 for s in shape)] = np.nan
    return a > 1.5 if dtype == "bool" else (a * 5).astype(dtype) if dtype == "int64" else a.astype(dtype)


def _results(function: Callable[[], Any]) -> list[Any]:
    try:
        found = function()
    except (RuntimeError, TypeError, NotImplementedError) as error:
        return [type(error).__name__]
    return list(found) if isinstance(found, (tuple, list)) else [found]


def _check(got: list[Any], want: list[Any]) -> None:
    assert len(got) == len(want)
    for g, w in zip(got, want, strict=True):
        if isinstance(w, str):
            assert isinstance(g, str), "PyTorch refuses it"
            continue
        assert not isinstance(g, str), g
        a, b = g.detach().numpy(), w.detach().numpy()
        assert a.shape == b.shape and a.dtype == b.dtype
        if a.dtype.kind == "f":
            np.testing.assert_allclose(a, b, rtol=1e-3 if a.dtype == np.float32 else 1e-9, atol=2e-3 if a.dtype == np.float32 else 1e-9)
        else:
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", REDUCTIONS)
def test_a_reduction_of_long_rows_is_pytorchs(name: str, layout: str) -> None:
    shape, dim, view = LAYOUTS[layout]
    for dtype, kind in (("float32", ""), ("float32", "nan"), ("float64", "ties"), ("int64", "ties"), ("bool", "")):
        a = _array(shape, dtype, kind)
        ours, theirs = lohe.from_numpy(a.copy()).clone(), torch.from_numpy(a.copy())
        reduce = REDUCTIONS[name]
        _check(_results(lambda: reduce(view(ours), dim)), _results(lambda: reduce(view(theirs), dim)))  # noqa: B023


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_its_gradient_is_pytorchs(name: str, layout: str) -> None:
    shape, dim, view = LAYOUTS[layout]
    a = _array(shape, "float64", "")
    gradients = []
    for module in (lohe, torch):
        x = module.from_numpy(a.copy()).clone().requires_grad_()
        y = _results(lambda: REDUCTIONS[name](view(x), dim))[0]  # noqa: B023
        weight = module.linspace(0.5, 1.5, y.numel(), dtype=module.float64).view(y.shape)
        gradients.append(module.autograd.grad((y * weight).sum(), x)[0])
    _check(gradients[:1], gradients[1:])


def test_the_whole_of_a_long_tensor() -> None:
    a = _array((3, LONG), "float32", "")
    ours, theirs = lohe.from_numpy(a).clone(), torch.from_numpy(a)
    for name in ("sum", "mean", "amax", "argmax", "argmin", "max", "min", "any", "std", "norm", "logsumexp"):
        call = (lambda x: x.logsumexp((0, 1))) if name == "logsumexp" else (lambda x, name=name: getattr(x, name)())
        _check([call(ours)], [call(theirs)])


def test_the_largest_of_a_large_vocabulary() -> None:
    logits = _array((4, 50_257), "float32", "")
    x, y = lohe.from_numpy(logits).clone(), torch.from_numpy(logits)
    assert x.argmax(-1).tolist() == y.argmax(-1).tolist()
    assert x.softmax(-1).argmax(-1).tolist() == y.argmax(-1).tolist()
    assert x.topk(3).indices.tolist() == y.topk(3).indices.tolist()
