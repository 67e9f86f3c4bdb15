"""scaled_dot_product_attention: one call of the library and the two products that it stands for; half dtypes."""

from __future__ import annotations

from typing import Any

import lohe
import pytest
import torch


def _mask(queries: int, keys: int, dtype: lohe.dtype) -> lohe.Tensor:
    hidden = lohe.ones(queries, keys, dtype=lohe.bool).triu(1)
    return lohe.zeros(queries, keys, dtype=dtype).masked_fill(hidden, -float("inf"))


def _exact(q: lohe.Tensor, k: lohe.Tensor, v: lohe.Tensor, causal: bool) -> lohe.Tensor:
    scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    if causal:
        scores = scores + _mask(q.shape[-2], k.shape[-2], q.dtype)
    return scores.softmax(-1) @ v


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [lohe.bfloat16, lohe.float16])
def test_large_scores_of_halves_lose_no_more_than_the_weights_rounding(
    dtype: lohe.dtype, causal: bool
) -> None:
    lohe.manual_seed(0)
    q, k, v = ((scale * lohe.randn(2, 3, 20, 16)).to(dtype).requires_grad_() for scale in (4.0, 4.0, 1.0))
    wide = [t.detach().double().requires_grad_() for t in (q, k, v)]
    cotangent = lohe.randn(2, 3, 20, 16).to(dtype)
    got = lohe.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
    want = _exact(*wide, causal)
    step = 2.0**-8 if dtype == lohe.bfloat16 else 2.0**-11
    assert (got.double() - want).abs().max().item() < 3 * step * v.abs().max().item()
    ours = lohe.autograd.grad(got, (q, k, v), cotangent)
    theirs = lohe.autograd.grad(want, wide, cotangent.double())
    for g, w in zip(ours, theirs, strict=True):
        assert g.dtype == dtype
        assert (g.double() - w).abs().max().item() < 8 * step * w.abs().max().item()


SHAPES = [
    (2, 3, 20, 20, 16, 16),
    (1, 1, 64, 64, 64, 64),
    (1, 2, 100, 300, 33, 17),
    (1, 2, 300, 100, 7, 40),
    (2, 2, 65, 129, 384, 8),
]



def every_case(test: Any) -> Any:
    wide = pytest.mark.parametrize("dtype", [lohe.float32, lohe.float64])
    return pytest.mark.parametrize("shape", SHAPES)(wide(test))


def _operands(shape: tuple[int, ...], dtype: lohe.dtype, interleaved: bool) -> list[lohe.Tensor]:
    batch, heads, queries, keys, width, value_width = shape
    lohe.manual_seed(sum(shape))

    def one(positions: int, features: int) -> lohe.Tensor:
        if interleaved:
            return lohe.randn(batch, positions, heads, features, dtype=dtype).transpose(1, 2)
        return lohe.randn(batch, heads, positions, features, dtype=dtype)

    return [one(queries, width), one(keys, width), one(keys, value_width), one(queries, value_width)]


@pytest.mark.parametrize("interleaved", [False, True])
@every_case
def test_one_call_has_the_bits_of_two_products_and_a_softmax(
    shape: tuple[int, ...], dtype: lohe.dtype, interleaved: bool
) -> None:
    q, k, v, _ = _operands(shape, dtype, interleaved)
    attention = lohe.nn.functional.scaled_dot_product_attention
    assert lohe.equal(
        attention(q, k, v, is_causal=True), attention(q, k, v, _mask(shape[2], shape[3], dtype))
    )
    zeros = lohe.zeros(shape[2], shape[3], dtype=dtype)
    assert lohe.equal(attention(q, k, v, scale=0.7), attention(q, k, v, zeros, scale=0.7))
    assert lohe.equal(attention(q[:, 0], k[:, 0], v[:, 0]), attention(q, k, v)[:, 0])


@pytest.mark.parametrize("causal", [False, True])
@every_case
def test_gradients_are_those_of_pytorch_and_keep_their_layout(
    shape: tuple[int, ...], dtype: lohe.dtype, causal: bool
) -> None:
    operands = _operands(shape, dtype, True)
    theirs = [torch.from_numpy(t.numpy().copy()) for t in operands]
    for t in operands[:3] + theirs[:3]:
        t.requires_grad_()
    out = lohe.nn.functional.scaled_dot_product_attention(*operands[:3], is_causal=causal)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        want = torch.nn.functional.scaled_dot_product_attention(*theirs[:3], is_causal=causal)
    assert out.transpose(1, 2).is_contiguous()
    grads = lohe.autograd.grad(out, operands[:3], operands[3])
    wanted = torch.autograd.grad(want, theirs[:3], theirs[3])
    tolerance = 2e-5 if dtype == lohe.float32 else 1e-12
    for got, exact in zip((out.detach(), *grads), (want.detach(), *wanted), strict=True):
        torch.testing.assert_close(
            torch.from_numpy(got.numpy().copy()), exact, atol=tolerance, rtol=tolerance
        )
    for got, operand in zip(grads, operands, strict=False):
        assert got.shape == operand.shape and got.transpose(1, 2).is_contiguous()


@pytest.mark.parametrize("causal", [False, True])
def test_the_gradient_has_a_gradient(causal: bool) -> None:
    q, k, v = (lohe.randn(1, 2, 5, 4, dtype=lohe.float64).requires_grad_() for _ in range(3))

    def attend(*operands: lohe.Tensor) -> lohe.Tensor:
        return lohe.nn.functional.scaled_dot_product_attention(*operands, is_causal=causal)

    assert lohe.autograd.gradcheck(attend, (q, k, v))
    assert lohe.autograd.gradgradcheck(attend, (q, k, v))


def test_only_some_gradients_and_features_apart() -> None:
    q, k, v, g = _operands(SHAPES[0], lohe.float32, False)
    apart = k.transpose(-2, -1).contiguous().transpose(-2, -1).requires_grad_()
    assert apart.stride(-1) != 1
    out = lohe.nn.functional.scaled_dot_product_attention(q, apart, v)
    (grad,) = lohe.autograd.grad(out, (apart,), g)
    kk = k.detach().requires_grad_()
    (want,) = lohe.autograd.grad(lohe.nn.functional.scaled_dot_product_attention(q, kk, v), (kk,), g)
    assert lohe.equal(grad, want)


def test_the_one_call_refuses_what_it_does_not_serve() -> None:
    q = lohe.randn(1, 2, 5, 4)
    with pytest.raises(RuntimeError, match="call scaled_dot_product_attention"):
        lohe._C.ops._attention(q, q, q.double(), 1.0, False)
    with pytest.raises(RuntimeError, match="call scaled_dot_product_attention"):
        lohe._C.ops._attention(q[0], q[0], q[0], 1.0, False)


@pytest.mark.parametrize("dtype", [lohe.float32, lohe.float64])
def test_a_query_whose_scores_overflow_touches_no_key_that_it_does_not_see(dtype: lohe.dtype) -> None:
    lohe.manual_seed(0)
    q, k, v = (lohe.randn(1, 1, 100, 16, dtype=dtype) for _ in range(3))
    q[..., 20, :] = lohe.finfo(dtype).max
    k[..., 5, :] = 10
    q, k, v = (t.requires_grad_() for t in (q, k, v))
    result = lohe.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    gq, gk, gv = lohe.autograd.grad(result, (q, k, v), lohe.ones_like(result))
    for rows in (result, gq):
        finite = rows.isfinite().all(-1).flatten()
        assert finite.nonzero().flatten().tolist() == [i for i in range(100) if i != 20]
    for columns in (gk, gv):
        assert columns[..., 21:, :].isfinite().all()
        assert not columns[..., :21, :].isfinite().any()
