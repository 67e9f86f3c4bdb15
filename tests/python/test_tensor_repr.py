"""The text of a tensor is PyTorch's, character by character."""

import random

import lohe
import pytest

torch = pytest.importorskip("torch")

DTYPES = ["float32", "float64", "float16", "bfloat16", "int64", "int32", "uint8", "bool", "complex64", "complex128"]


def same(data, dtype, shape=None, **options):
    ours = lohe.tensor(data, dtype=getattr(lohe, dtype))
    theirs = torch.tensor(data, dtype=getattr(torch, dtype))
    if shape is not None:
        ours, theirs = ours.reshape(shape), theirs.reshape(shape)
    assert repr(ours) == repr(theirs)


def values(rng, dtype, n):
    kind = rng.randrange(6)
    if dtype == "bool":
        return [rng.random() < 0.5 for _ in range(n)]
    if dtype in ("int64", "int32", "uint8"):
        return [rng.randrange(0, 10 ** rng.randrange(1, 3)) * (1 if dtype == "uint8" else rng.choice([-1, 1])) for _ in range(n)]

    def one():
        if kind == 0:
            return rng.gauss(0, 1)
        if kind == 1:
            return float(rng.randrange(-50, 50))
        if kind == 2:
            return rng.gauss(0, 1) * 10 ** rng.randrange(-6, 4)
        if kind == 3:
            return rng.choice([0.0, -0.0, float("nan"), float("inf"), float("-inf"), 1.5])
        if kind == 4:
            return rng.random() * 1e-5
        return rng.gauss(0, 100)

    return [complex(one(), one()) if dtype.startswith("complex") else one() for _ in range(n)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (7,), (30,), (2, 3), (3, 1, 4), (2, 2, 2, 2), (1001,), (40, 30), (3, 20, 30)])
def test_random_values(dtype, shape):
    rng = random.Random(f"{dtype}{shape}")
    count = 1
    for s in shape:
        count *= s
    for _ in range(8):
        same(values(rng, dtype, count) if shape else values(rng, dtype, 1)[0], dtype, shape or None)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0)])
@pytest.mark.parametrize("dtype", ["float32", "int64", "bool"])
def test_empty(dtype, shape):
    assert repr(lohe.empty(shape, dtype=getattr(lohe, dtype))) == repr(torch.empty(shape, dtype=getattr(torch, dtype)))


def test_gradient_suffixes():
    ours, theirs = lohe.tensor([1.0, 2.0], requires_grad=True), torch.tensor([1.0, 2.0], requires_grad=True)
    assert repr(ours) == repr(theirs)
    assert repr(ours + ours) == repr(theirs + theirs)


@pytest.mark.parametrize("options", [{"precision": 2}, {"sci_mode": True}, {"sci_mode": False}, {"linewidth": 40}, {"threshold": 5, "edgeitems": 1}])
def test_print_options(options):
    data = [0.5, 100.25, -3e-3, 12.0, 1e6, 7.0, 8.0]
    lohe.set_printoptions(**options)
    torch.set_printoptions(**options)
    try:
        same(data, "float64")
        same(data[:2], "float32")
    finally:
        lohe.set_printoptions(profile="default")
        torch.set_printoptions(profile="default")


def test_format_of_one_element():
    assert f"{lohe.tensor(3.14159):.2f}" == "3.14"
