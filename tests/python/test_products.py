"""Products of matrices: what their operands' layout may and may not change."""

import lohe
import pytest
import torch


@pytest.mark.parametrize("layouts", range(4))
def test_results_and_gradients_of_batched_products_do_not_depend_on_layouts(layouts):
    lohe.manual_seed(0)
    a, b, g = lohe.randn(6, 33, 20), lohe.randn(6, 20, 17), lohe.randn(6, 33, 17)

    def gradients(by_columns_a, by_columns_b):
        x = (a.mT.contiguous().mT if by_columns_a else a).detach().requires_grad_()
        y = (b.mT.contiguous().mT if by_columns_b else b).detach().requires_grad_()
        result = lohe.bmm(x, y)
        return [result.detach(), *lohe.autograd.grad(result, (x, y), g)]

    plain = gradients(False, False)
    for got, expected in zip(gradients(layouts & 1, layouts & 2), plain, strict=True):
        assert lohe.equal(got, expected)


def test_heads_against_transposed_heads():
    """The products of attention written out: heads are views whose dims do not merge."""
    lohe.manual_seed(0)
    data = lohe.randn(2, 9, 3 * 4 * 5)

    def scores(module, values):
        x = values.requires_grad_()
        q, k, v = (t.view(2, 9, 4, 5).transpose(1, 2) for t in x.split(20, dim=2))
        y = module.matmul(module.softmax(module.matmul(q, k.transpose(-2, -1)), -1), v)
        return y, module.autograd.grad(y.square().sum(), x)[0]

    ours = scores(lohe, data.detach())
    theirs = scores(torch, torch.tensor(data.tolist()))
    for got, expected in zip(ours, theirs, strict=True):
        assert tuple(got.shape) == tuple(expected.shape)
        torch.testing.assert_close(torch.tensor(got.tolist()), expected.detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "complex64", "int64"])
@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((3, 2, 4, 5), (3, 2, 5, 6)),
        ((3, 1, 4, 5), (1, 2, 5, 6)),
        ((2, 3, 2, 4, 5), (3, 1, 5, 6)),
        ((2, 0, 4, 5), (2, 1, 5, 6)),
        ((2, 3, 4, 0), (2, 3, 0, 6)),
    ],
)
def test_batches_in_dims_that_do_not_merge_give_the_bits_of_merged_ones(dtype, left, right):
    lohe.manual_seed(0)

    def turned(shape):
        order = [1, 0, *range(2, len(shape))]
        t = (lohe.randn([shape[i] for i in order]) * 4).to(getattr(lohe, dtype))
        return t.permute(order)

    x, y = turned(left), turned(right)
    result = lohe.matmul(x, y)
    assert result.is_contiguous()
    batch = lohe.broadcast_shapes(left[:-2], right[:-2])
    count = batch.numel()
    flat = lohe.bmm(
        x.expand(*batch, *left[-2:]).reshape(count, *left[-2:]),
        y.expand(*batch, *right[-2:]).reshape(count, *right[-2:]),
    )
    assert lohe.equal(result, flat.view(result.shape))


@pytest.mark.parametrize("query_turned", [False, True])
def test_attention_lies_in_memory_as_its_query_does(query_turned):
    def run(module):
        turned = module.arange(2 * 5 * 3 * 4).reshape(2, 5, 3, 4).float().div(50).transpose(1, 2)
        q = (turned if query_turned else turned.contiguous()).requires_grad_()
        k = turned.contiguous().requires_grad_()
        y = module.nn.functional.scaled_dot_product_attention(q, k, turned, is_causal=True)
        return y, *module.autograd.grad(y.square().sum(), (q, k))

    for got, expected in zip(run(lohe), run(torch), strict=True):
        torch.testing.assert_close(torch.tensor(got.tolist()), expected.detach(), rtol=1e-4, atol=1e-4)
    assert run(lohe)[0].stride() == run(torch)[0].stride()


def test_gradients_of_unmerged_batches_under_vmap():
    x = lohe.randn(4, 3, 2, 5).transpose(0, 1).requires_grad_()
    y = lohe.randn(4, 3, 5, 6).transpose(0, 1)
    result = x @ y
    g = lohe.randn(7, *result.shape)
    at_once = lohe.autograd.grad(result, x, g, retain_graph=True, is_grads_batched=True)[0]
    for i in range(7):
        assert lohe.allclose(at_once[i], lohe.autograd.grad(result, x, g[i], retain_graph=True)[0], rtol=1e-5, atol=1e-6)
