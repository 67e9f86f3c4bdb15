"""Order along a dim and running values: ties, NaN, zeros, long lines, any strides, threads and second derivatives."""

from __future__ import annotations

import itertools

import lohe
import numpy as np
import pytest

torch = pytest.importorskip("torch")

REALS = ["uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64"]


def pair(array: np.ndarray, dtype: str = "", requires_grad: bool = False):
    """The same values in both systems."""
    ours, theirs = lohe.from_numpy(array.copy()), torch.from_numpy(array.copy())
    if dtype:
        ours, theirs = ours.to(getattr(lohe, dtype)), theirs.to(getattr(torch, dtype))
    return ours.requires_grad_(requires_grad), theirs.requires_grad_(requires_grad)


def numbers(*shape: int, seed: int = 0, spread: float = 3.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, spread, shape)


def with_ties(*shape: int, seed: int = 0) -> np.ndarray:
    """Few different values, signed zeros, infinities and NaN among them."""
    values = np.array([0.0, -0.0, 1.0, -1.0, 2.0, np.inf, -np.inf, np.nan])
    return values[np.random.default_rng(seed).integers(0, len(values), shape)]


def equal(got, want) -> None:
    want = want.detach()
    assert tuple(got.shape) == tuple(want.shape)
    np.testing.assert_array_equal(np.array(got.detach().double().tolist()), np.array(want.double().tolist()))


def close(got, want, rtol: float = 1e-9) -> None:
    np.testing.assert_allclose(
        np.array(got.detach().tolist()), np.array(want.detach().tolist()), rtol=rtol, atol=rtol
    )


@pytest.mark.parametrize("n", [1, 2, 47, 48, 100, 1000, 140_001])
@pytest.mark.parametrize("descending", [False, True])
def test_sort_is_stable_for_every_length(n, descending):
    ours, theirs = pair(with_ties(n))
    got = ours.sort(stable=True, descending=descending)
    want = theirs.sort(stable=True, descending=descending)
    equal(got.values, want.values)
    assert got.indices.tolist() == want.indices.tolist()
    # The sign of zeros is that of the element, not of its key.
    assert got.values.signbit().tolist() == want.values.signbit().tolist()


@pytest.mark.parametrize("dtype", [*REALS, "bool"])
def test_sort_of_every_dtype_and_stride(dtype):
    array = np.random.default_rng(1).integers(-100, 100, (7, 130, 9))
    ours, theirs = pair(array, dtype)
    for dim, descending in itertools.product([0, 1, 2], [False, True]):
        for a, b in [(ours, theirs), (ours.transpose(0, 2), theirs.transpose(0, 2)), (ours[:, ::3], theirs[:, ::3])]:
            got = a.sort(dim=dim, stable=True, descending=descending)
            want = b.sort(dim=dim, stable=True, descending=descending)
            equal(got.values, want.values)
            assert got.indices.tolist() == want.indices.tolist()
            assert got.values.stride() == want.values.stride()


@pytest.mark.parametrize("k", [0, 1, 5, 50, 1000, 2999, 3000])
@pytest.mark.parametrize("largest", [False, True])
def test_topk_keeps_the_first_of_equal_elements(k, largest):
    ours, theirs = pair(with_ties(3, 3000))
    got = ours.topk(k, largest=largest)
    want = theirs.sort(stable=True, descending=largest)
    equal(got.values, want.values[:, :k])
    assert got.indices.tolist() == want.indices[:, :k].tolist()


def test_topk_along_another_dim():
    ours, theirs = pair(numbers(3000, 5))
    got, want = ours.topk(7, dim=0), theirs.topk(7, dim=0)
    equal(got.values, want.values)
    assert got.indices.tolist() == want.indices.tolist()


def test_ranks_and_medians_with_nan():
    ours, theirs = pair(with_ties(6, 41))
    equal(ours.median(-1).values, theirs.median(-1).values)
    equal(ours.nanmedian(-1).values, theirs.nanmedian(-1).values)
    equal(ours.median(), theirs.median())
    equal(ours.nanmedian(), theirs.nanmedian())
    for k in (1, 20, 41):
        equal(ours.kthvalue(k).values, theirs.kthvalue(k).values)
    nan = lohe.full((3,), float("nan"))
    assert nan.nanmedian(0).indices.item() == 0 and nan.nanmedian().isnan().item()


def test_medians_share_or_pick_their_gradient():
    ours, theirs = pair(np.array([[1.0, 2, 2, 5], [2, 2, 0, 9]]), requires_grad=True)
    for f in (lambda x: x.median(), lambda x: x.nanmedian(), lambda x: x.median(1).values.sum()):
        (got,), (want,) = lohe.autograd.grad(f(ours), ours), torch.autograd.grad(f(theirs), theirs)
        assert abs(got.sum().item() - want.sum().item()) < 1e-12
    equal(lohe.autograd.grad(ours.median(), ours)[0], torch.autograd.grad(theirs.median(), theirs)[0])


@pytest.mark.parametrize("interpolation", ["linear", "lower", "higher", "midpoint", "nearest"])
def test_quantiles(interpolation):
    ours, theirs = pair(numbers(5, 6, 7))
    qa, qb = pair(np.array([0.0, 0.1, 0.5, 0.77, 1.0]))
    for dim, keepdim in itertools.product([None, 0, 1, -1], [False, True]):
        got = ours.quantile(qa, dim, keepdim, interpolation=interpolation)
        want = theirs.quantile(qb, dim, keepdim, interpolation=interpolation)
        assert tuple(got.shape) == tuple(want.shape)
        close(got, want)
        close(
            ours.nanquantile(0.3, dim, keepdim, interpolation=interpolation),
            theirs.nanquantile(0.3, dim, keepdim, interpolation=interpolation),
        )


FLOATS = ["float16", "bfloat16", "float32", "float64"]
SCANS = itertools.product(["cumsum", "cumprod", "cummax", "cummin"], [*FLOATS, "int32", "uint8"])


@pytest.mark.parametrize(("name", "dtype"), [*SCANS, *(("logcumsumexp", d) for d in FLOATS)])
def test_scans_of_any_stride_have_the_bits_of_one_line(name, dtype):
    ours, theirs = pair(numbers(4, 70, 130, spread=1.0) * 2, dtype)
    exact = name != "logcumsumexp"
    for dim in range(3):
        for a, b in [(ours, theirs), (ours.transpose(0, 2), theirs.transpose(0, 2)), (ours[:, ::3, 1::2], theirs[:, ::3, 1::2])]:
            got, want = getattr(a, name)(dim), getattr(b, name)(dim)
            if name in ("cummax", "cummin"):
                equal(got.values, want.values)
                assert got.indices.tolist() == want.indices.tolist()
            elif exact:
                equal(got, want)
            else:
                rtol = {"float16": 2e-3, "bfloat16": 2e-2, "float32": 1e-6, "float64": 1e-12}[dtype]
                close(got, want, rtol)


def test_running_extremes_meet_nan_and_ties():
    ours, theirs = pair(with_ties(9, 50))
    for name in ("cummax", "cummin"):
        got, want = getattr(ours, name)(1), getattr(theirs, name)(1)
        equal(got.values, want.values)
        assert got.indices.tolist() == want.indices.tolist()


def test_running_log_sums_of_extreme_numbers():
    inf, nan = np.inf, np.nan
    lines = [[-inf, -inf, 1, 2], [1000, -1000, 1001, inf], [-1e30, -1e300, 0, 1e300], [inf, 1, -inf, inf], [1, nan, 2, inf]]
    ours, theirs = pair(np.array(lines))
    close(ours.logcumsumexp(1), theirs.logcumsumexp(1))
    a, b = pair(np.array([[900.0, -900, 901, 2], [-3, -2, -1, -700]]), requires_grad=True)
    close(
        lohe.autograd.grad(a.logcumsumexp(1).sum(), a)[0], torch.autograd.grad(b.logcumsumexp(1).sum(), b)[0]
    )


def second_derivative(module, f, x):
    (first,) = module.autograd.grad(f(x).sin().sum(), x, create_graph=True)
    (second,) = module.autograd.grad(first.cos().sum(), x)
    return first, second


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x.cumsum(1),
        lambda x: x.cumprod(1),
        lambda x: x.cumprod(0),
        lambda x: x.logcumsumexp(1),
        lambda x: x.cummax(1).values,
        lambda x: x.sort(1).values,
        lambda x: x.topk(3).values,
        lambda x: x.kthvalue(2, 0).values,
        lambda x: x.quantile(0.3, 1),
        lambda x: x.diff(2, 1),
        lambda x: x.renorm(2, 0, 1.5),
    ],
    ids=["cumsum", "cumprod", "cumprod_rows", "logcumsumexp", "cummax", "sort", "topk", "kthvalue", "quantile", "diff", "renorm"],
)
def test_second_derivatives(f):
    array = numbers(4, 6, spread=1.0)
    array[1, 2] = array[3, 0] = array[3, 4] = 0.0  # a product's gradient must not divide
    ours, theirs = pair(array, requires_grad=True)
    for got, want in zip(second_derivative(lohe, f, ours), second_derivative(torch, f, theirs)):
        close(got, want)


def test_gradient_of_a_complex_product():
    array = numbers(3, 5) + 1j * numbers(3, 5, seed=1)
    array[1, 1] = 0
    ours, theirs = pair(array, requires_grad=True)
    got = lohe.autograd.grad(ours.cumprod(1).abs().sum(), ours)[0]
    want = torch.autograd.grad(theirs.cumprod(1).abs().sum(), theirs)[0]
    close(lohe.view_as_real(got), torch.view_as_real(want))


@pytest.mark.parametrize("p", [0, 0.5, 1, 1.5, 2, 3, float("inf")])
def test_distances_and_their_gradients(p):
    a, b = pair(numbers(2, 1, 5, 4), requires_grad=True)
    c, d = pair(numbers(3, 6, 4, seed=1), requires_grad=True)
    with lohe.no_grad(), torch.no_grad():
        c[0, 0].copy_(a[0, 0, 0])
        d[0, 0].copy_(b[0, 0, 0])
    got, want = lohe.cdist(a, c, p), torch.cdist(b, d, p)
    close(got, want)
    weights = numbers(2, 3, 5, 6, seed=2)
    ours = lohe.autograd.grad((got * lohe.from_numpy(weights)).sum(), (a, c))
    theirs = torch.autograd.grad((want * torch.from_numpy(weights)).sum(), (b, d))
    for g, w in zip(ours, theirs):
        close(g, w, 1e-8)


def test_results_do_not_depend_on_threads():
    x = lohe.from_numpy(numbers(3, 200_000)).float()
    results = []
    for threads in (1, 2, 3):
        lohe.set_num_threads(threads)
        made = [*x.sort(), *x.topk(50), x.cumsum(1), x.t().cumsum(0), x.cumprod(0), x.median(), x.histc(100)]
        results.append([t.tolist() for t in made])
    assert results[0] == results[1] == results[2]


def test_in_place_and_out_compute_in_the_written_dtype():
    x = lohe.tensor([100, 100, 100], dtype=lohe.int8)
    assert x.cumsum(0).dtype == lohe.int64
    assert x.cumsum_(0).tolist() == [100, -56, 44] and x.dtype == lohe.int8
    out = lohe.zeros(3, dtype=lohe.int64)
    assert lohe.cumsum(lohe.tensor([0.9, 1.9, 2.9]), 0, out=out).tolist() == [0, 1, 3]
    with pytest.raises(RuntimeError):
        lohe.cumsum(lohe.zeros(3), 0, dtype=lohe.float64, out=lohe.zeros(3))


def test_unique_gives_what_was_asked_for():
    array = np.array([[3, 1, 1], [2, 3, 3], [3, 1, 1]])
    ours, theirs = pair(array)
    for inverse, counts, dim in itertools.product([False, True], [False, True], [None, 0, 1]):
        for name in ("unique", "unique_consecutive"):
            options = {"return_inverse": inverse, "return_counts": counts, "dim": dim}
            got, want = getattr(lohe, name)(ours, **options), getattr(torch, name)(theirs, **options)
            method = getattr(ours, name)(**options)
            if not (inverse or counts):
                got, want, method = (got,), (want,), (method,)
            assert [t.tolist() for t in got] == [t.tolist() for t in want] == [t.tolist() for t in method]


def test_batched_lines():
    x = lohe.from_numpy(numbers(3, 4, 5))
    for f in (lambda t: t.sort(0).values, lambda t: t.cumsum(-1), lambda t: t.topk(2).indices, lambda t: t.median(0).values):
        assert lohe.vmap(f)(x).tolist() == lohe.stack([f(t) for t in x]).tolist()
