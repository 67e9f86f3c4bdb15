"""scaled_dot_product_attention in half dtypes: how near it comes to the same numbers in float64."""

from __future__ import annotations

import lohe
import pytest


def _exact(q: lohe.Tensor, k: lohe.Tensor, v: lohe.Tensor, causal: bool) -> lohe.Tensor:
    scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    if causal:
        scores = scores.masked_fill(lohe.ones(q.shape[-2], k.shape[-2], dtype=lohe.bool).triu(1), -float("inf"))
    return scores.softmax(-1) @ v


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [lohe.bfloat16, lohe.float16])
def test_large_scores_of_halves_lose_no_more_than_the_weights_rounding(dtype: lohe.dtype, causal: bool) -> None:
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
