"""Which tensors an op takes as out=: their dtype, shape, layout and memory."""

from __future__ import annotations

import lohe as torch
import pytest

FLOATS = torch.tensor([[1.5, -2.5], [0.5, float("nan")]])
INTS = torch.tensor([3, -1], dtype=torch.int32)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.complex64])
@pytest.mark.parametrize("op", ["sin", "reciprocal", "angle"])
def test_result_is_cast_to_a_dtype_that_takes_it(op, dtype):
    out = torch.zeros(2, 2, dtype=dtype)
    expected = getattr(torch, op)(FLOATS).to(dtype)
    assert getattr(torch, op)(FLOATS, out=out) is out
    assert torch.allclose(out, expected, equal_nan=True)


@pytest.mark.parametrize("op", ["sin", "floor"])
def test_float_result_does_not_go_into_integers(op):
    with pytest.raises(RuntimeError, match="int64"):
        getattr(torch, op)(FLOATS, out=torch.zeros(2, 2, dtype=torch.int64))


@pytest.mark.parametrize(
    "op", ["abs", "neg", "sign", "sgn", "ceil", "floor", "trunc", "round", "bitwise_not", "amax", "nan_to_num"]
)
def test_ops_that_keep_the_dtype_demand_it_of_out(op):
    out = torch.zeros(2, dtype=torch.int64)
    with pytest.raises(RuntimeError, match="int32"):
        getattr(torch, op)(INTS, out=out)
    assert out.tolist() == [0, 0]


def test_truth_values_go_into_bool_and_uint8_only():
    for dtype in (torch.bool, torch.uint8):
        assert torch.any(FLOATS, out=torch.zeros((), dtype=dtype)).item() == 1
    with pytest.raises(RuntimeError, match="int8"):
        torch.all(FLOATS, out=torch.zeros((), dtype=torch.int8))


def test_sums_compute_in_the_dtype_of_out():
    big = torch.full((3,), 100, dtype=torch.int8)
    assert torch.sum(big, 0, out=torch.zeros((), dtype=torch.int8)).item() == 44
    assert torch.sum(big, 0, out=torch.zeros((), dtype=torch.float64)).item() == 300.0
    assert torch.sum(big, 0, out=torch.zeros((), dtype=torch.bool)).item() is True
    assert torch.prod(INTS, 0, out=torch.zeros((), dtype=torch.int16)).item() == -3
    with pytest.raises(RuntimeError, match="does not match"):
        torch.sum(big, 0, dtype=torch.float32, out=torch.zeros((), dtype=torch.float64))
    with pytest.raises(NotImplementedError):
        torch.nansum(FLOATS, 0, out=torch.zeros(2, dtype=torch.int64))


def test_joined_tensors_that_do_not_fit_are_a_type_error():
    with pytest.raises(TypeError, match="int64"):
        torch.cat([FLOATS, FLOATS], out=torch.zeros(4, 2, dtype=torch.int64))


def test_written_memory_may_be_an_operand_but_not_a_part_of_one():
    x = torch.arange(4.0)
    assert torch.neg(x, out=x).tolist() == [-0.0, -1.0, -2.0, -3.0]
    y = torch.arange(6.0)
    with pytest.raises(RuntimeError, match="single memory location"):
        torch.neg(y[:4], out=y[1:5])
    with pytest.raises(RuntimeError, match="single memory location"):
        torch.cat([y[:2], y[2:4]], out=y[:4])
    with pytest.raises(RuntimeError, match="single memory location"):
        torch.neg(x, out=torch.zeros(1).expand(4))
    assert y.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


def test_resized_out_takes_the_layout_of_the_result():
    x = torch.zeros(2, 3, 4, 5).permute(0, 2, 3, 1)
    assert torch.sin(x, out=torch.empty(0)).stride() == torch.sin(x).stride()
    y = torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert torch.cat([y, y], 1, out=torch.empty(0)).stride() == torch.cat([y, y], 1).stride()


def test_magnitude_of_complex_numbers_is_not_written_into_them():
    z = torch.tensor([3 + 4j])
    with pytest.raises(RuntimeError, match="complex"):
        z.abs_()
    assert z.item() == 3 + 4j
    assert torch.abs(z).item() == 5.0


@pytest.mark.parametrize("op", ["std", "var", "std_mean", "var_mean", "argmax", "nanmean"])
def test_dtypes_without_the_op_raise_runtime_errors(op):
    with pytest.raises(RuntimeError) as caught:
        getattr(torch, op)(torch.tensor([True, False]))
    assert caught.type is RuntimeError


@pytest.mark.eager
def test_a_result_of_the_right_dtype_and_shape_takes_no_memory_besides():
    x, out = torch.ones(1000, 100), torch.empty(1000, 100)
    torch.cpu.reset_peak_memory_stats()
    before = torch.cpu.memory_allocated()
    torch.add(x, 1, out=out)
    torch.mul(out, x[:, :1], out=out)
    assert torch.cpu.max_memory_allocated() < before + x.nbytes
    assert out._version == 2 and out[7, 7].item() == 2
