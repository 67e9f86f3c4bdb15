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
