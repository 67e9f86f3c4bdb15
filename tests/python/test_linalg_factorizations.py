"""QR and triangular systems: PyTorch's factors and strides, any shape and batch, derivatives, threads."""

from __future__ import annotations

import itertools

import lohe
import numpy as np
import pytest

torch = pytest.importorskip("torch")

SHAPES = [(5, 5), (7, 3), (3, 7), (1, 1), (2, 3, 4, 4), (2, 6, 2), (3, 0), (0, 3), (0, 4, 2), (70, 65)]


def pair(array: np.ndarray, requires_grad: bool = False):
    return (
        lohe.from_numpy(array.copy()).requires_grad_(requires_grad),
        torch.from_numpy(array.copy()).requires_grad_(requires_grad),
    )


def numbers(shape: tuple[int, ...], dtype: str = "float64", seed: int = 0) -> np.ndarray:
    g = np.random.default_rng(seed)
    values = g.normal(size=shape)
    return (values + 1j * g.normal(size=shape) if dtype.startswith("complex") else values).astype(dtype)


def close(got, want, limit: float = 1e-10) -> None:
    assert tuple(got.shape) == tuple(want.shape)
    np.testing.assert_allclose(
        np.array(got.detach().tolist()), np.array(want.detach().tolist()), rtol=limit, atol=limit
    )


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("mode", ["reduced", "complete", "r"])
def test_qr_has_pytorchs_signs_and_strides(dtype, mode):
    for shape in SHAPES:
        ours, theirs = pair(numbers(shape, dtype))
        for got, want in zip(lohe.linalg.qr(ours, mode), torch.linalg.qr(theirs, mode)):
            close(got, want, 1e-4 if dtype in ("float32", "complex64") else 1e-10)
            assert got.stride() == want.stride()


def test_qr_of_columns_without_length():
    for array in (np.zeros((3, 3)), np.array([[2.0, 1], [0, 0], [0, 0]]), np.ones((4, 3)) * 1e200):
        ours, theirs = pair(array)
        for got, want in zip(lohe.linalg.qr(ours), torch.linalg.qr(theirs)):
            scale = max(1.0, float(np.abs(array).max()))
            close(got / scale, want / scale)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (3, 5), (2, 4, 3)])
def test_qr_gradients(dtype, shape):
    ours, theirs = pair(numbers(shape, dtype), requires_grad=True)

    def first(module, x):
        q, r = module.linalg.qr(x)
        if x.is_complex():
            value = (q.real**3 + q.real * q.imag**2).sum() + (r.real.sin() * 2 + r.imag.cos()).sum()
        else:
            value = (q**3).sum() + r.sin().sum()
        return module.autograd.grad(value, x, create_graph=True)[0]

    got, want = first(lohe, ours), first(torch, theirs)
    close(got, want, 1e-8)
    got, want = ((g.real * g.imag).sum() if g.is_complex() else g.abs().sum() for g in (got, want))
    close(lohe.autograd.grad(got, ours)[0], torch.autograd.grad(want, theirs)[0], 1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
def test_triangular_systems(dtype):
    for upper, left, unit in itertools.product([False, True], repeat=3):
        a, b = pair(numbers((2, 1, 4, 4), dtype) + 4 * np.eye(4, dtype=dtype), requires_grad=True)
        c, d = pair(numbers((3, 4, 5) if left else (3, 5, 4), dtype, seed=1), requires_grad=True)
        options = {"upper": upper, "left": left, "unitriangular": unit}
        got, want = lohe.linalg.solve_triangular(a, c, **options), torch.linalg.solve_triangular(b, d, **options)
        limit = 1e-4 if dtype == "float32" else 1e-9
        close(got, want, limit)
        assert got.stride() == want.stride()
        ours = lohe.autograd.grad(got.abs().sum(), (a, c))
        theirs = torch.autograd.grad(want.abs().sum(), (b, d))
        for g, w in zip(ours, theirs):
            close(g, w, limit * 10)


def test_bits_do_not_depend_on_threads():
    x = lohe.from_numpy(numbers((3, 200, 150))).float()
    b = lohe.from_numpy(numbers((3, 150, 200), seed=1)).float()
    results = []
    for threads in (1, 3):
        lohe.set_num_threads(threads)
        q, r = lohe.linalg.qr(x)
        results.append([q.tolist(), r.tolist(), lohe.linalg.solve_triangular(r, b, upper=True).tolist()])
    assert results[0] == results[1]


def test_misuse():
    for call in (
        lambda m: m.linalg.qr(m.zeros(3)),
        lambda m: m.linalg.qr(m.zeros(3, 3), "other"),
        lambda m: m.linalg.qr(m.zeros(3, 3, dtype=m.int64)),
        lambda m: m.linalg.qr(m.zeros(3, 3, dtype=m.float16)),
        lambda m: m.linalg.solve_triangular(m.zeros(2, 3), m.zeros(3, 1), upper=True),
        lambda m: m.linalg.solve_triangular(m.zeros(3, 3), m.zeros(4, 1), upper=True),
        lambda m: m.linalg.qr(m.ones(4, 2, requires_grad=True), "complete")[1].sum().backward(),
        lambda m: m.linalg.qr(m.ones(4, 2, requires_grad=True), "r")[1].sum().backward(),
    ):
        with pytest.raises(Exception) as theirs:
            call(torch)
        with pytest.raises(type(theirs.value)):
            call(lohe)
