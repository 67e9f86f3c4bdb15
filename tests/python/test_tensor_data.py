"""Tensors from Python data and back."""

import array

import lohe
import numpy as np
import pytest

torch = pytest.importorskip("torch")

CASES = [
    1, 1.5, True, 1 + 2j, [], [[]], [1, 2], [1, 2.5], [True, 2], [True, 1j], [[1, 2], [3, 4]], (1, 2), range(3),
    np.float64(1), np.float32(1), np.int8(3), np.bool_(True), np.arange(6).reshape(2, 3), np.float16([1, 2]),
    [np.float32(1), np.float32(2)], [np.arange(2), np.arange(2)], [[1.5], [2]], [[], []],
]


@pytest.mark.parametrize("data", CASES, ids=repr)
def test_dtype_shape_and_values(data):
    ours, theirs = lohe.tensor(data), torch.tensor(data)
    assert str(ours.dtype) == str(theirs.dtype) and tuple(ours.shape) == tuple(theirs.shape)
    assert ours.tolist() == theirs.tolist()


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64", "bool", "complex64"])
def test_conversion_while_reading(dtype):
    data = [0, 1, 2.75, 100]
    ours = lohe.tensor(data, dtype=getattr(lohe, dtype)).tolist()
    assert ours == torch.tensor(data, dtype=getattr(torch, dtype)).tolist()


def test_halves_round_to_nearest_even():
    data = [1 / 3, 65519.0, 65520.0, 6e-8, 2.9e-8, 3.1e-8, 1e-5, -0.0, 2049.0, 2051.0]
    for dtype in ("float16", "bfloat16"):
        ours = lohe.tensor(data, dtype=getattr(lohe, dtype)).tolist()
        assert ours == torch.tensor(data, dtype=getattr(torch, dtype)).tolist()


@pytest.mark.parametrize("data", [[[1, 2], [3]], "a", ["a"], [1, "a"], None, [None], {}, object(), [[1], 2], [1, [2]]], ids=lambda data: type(data).__name__ if type(data) is object else repr(data))
def test_errors_are_of_the_same_type(data):
    with pytest.raises(Exception) as theirs:
        torch.tensor(data)
    with pytest.raises(type(theirs.value)):
        lohe.tensor(data)


@pytest.mark.parametrize(("value", "dtype"), [(300, "uint8"), (2**40, "int32"), (1j, "float32"), (-300, "uint8")])
def test_overflow_raises(value, dtype):
    with pytest.raises(RuntimeError, match="without overflow"):
        lohe.tensor(value, dtype=getattr(lohe, dtype))


@pytest.mark.parametrize("code", ["?", "u1", "i1", "i2", "i4", "i8", "f2", "f4", "f8", "c8", "c16"])
def test_numpy_shares_memory_both_ways(code):
    a = np.zeros((2, 3), dtype=code)
    t = lohe.from_numpy(a)
    b = t.numpy()
    assert b.dtype == a.dtype and b.ctypes.data == a.ctypes.data and b.shape == a.shape
    assert lohe.from_numpy(a.T).stride() == (1, 3)


def test_array_outlives_the_tensor_and_the_reverse():
    a = lohe.ones(1000).numpy()
    assert a.sum() == 1000
    t = lohe.from_numpy(np.ones(1000))
    assert sum(t.tolist()) == 1000


def test_what_numpy_cannot_hold():
    with pytest.raises(TypeError, match="BFloat16"):
        lohe.ones(1, dtype=lohe.bfloat16).numpy()
    with pytest.raises(RuntimeError, match="requires grad"):
        lohe.ones(1, requires_grad=True).numpy()
    with pytest.raises(ValueError, match="negative"):
        lohe.from_numpy(np.arange(3)[::-1])
    with pytest.raises(TypeError, match="uint32"):
        lohe.from_numpy(np.zeros(1, dtype="u4"))
    with pytest.raises(TypeError, match="expected np.ndarray"):
        lohe.from_numpy([1])


def test_dlpack_round_trips():
    t = lohe.ones(2, 3)
    assert np.from_dlpack(t).ctypes.data == t.data_ptr() == lohe.from_dlpack(t).data_ptr()
    assert torch.from_dlpack(t).data_ptr() == t.data_ptr()
    assert lohe.from_dlpack(torch.arange(4).view(2, 2).T).tolist() == [[0, 2], [1, 3]]
    with pytest.raises(RuntimeError, match="consumed only once"):
        capsule = t.__dlpack__()
        lohe.from_dlpack(capsule)
        lohe.from_dlpack(capsule)


def test_frombuffer():
    t = lohe.frombuffer(bytearray(b"\x01\x00\x02\x00\x03\x00"), dtype=lohe.int16, offset=2)
    assert t.tolist() == [2, 3]
    with pytest.raises(ValueError, match="must not be greater"):
        lohe.frombuffer(bytearray(4), dtype=lohe.int32, count=2)


def test_as_tensor_and_asarray_share_where_they_can():
    a = np.zeros(3)
    assert lohe.as_tensor(a).data_ptr() == a.ctypes.data == lohe.asarray(a).data_ptr()
    assert lohe.asarray(a, copy=True).data_ptr() != a.ctypes.data
    assert lohe.as_tensor(a, dtype=lohe.float32).dtype is lohe.float32
    assert lohe.asarray(array.array("d", [1.0])).dtype is lohe.float64


def test_numbers_from_one_element():
    assert int(lohe.tensor(2.7)) == 2 and float(lohe.tensor(2)) == 2.0 and [10, 20][lohe.tensor(1)] == 20
    with pytest.raises(RuntimeError, match="ambiguous"):
        bool(lohe.ones(2))
    with pytest.raises(RuntimeError):
        lohe.ones(2).item()


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "float64", "complex64"])
def test_finfo(name):
    ours, theirs = lohe.finfo(getattr(lohe, name)), torch.finfo(getattr(torch, name))
    for field in ("bits", "eps", "max", "min", "tiny", "smallest_normal", "resolution", "dtype"):
        assert getattr(ours, field) == getattr(theirs, field), field


@pytest.mark.parametrize("name", ["uint8", "int8", "int16", "int32", "int64"])
def test_iinfo(name):
    ours, theirs = lohe.iinfo(getattr(lohe, name)), torch.iinfo(getattr(torch, name))
    assert (ours.bits, ours.min, ours.max) == (theirs.bits, theirs.min, theirs.max)
