"""Sums of products over named dims, and the functions that choose between forms of a result."""

from __future__ import annotations

import lohe as torch
import numpy
import pytest

EQUATIONS = [
    ("i->", [(3,)]),
    ("i,j->ij", [(3,), (4,)]),
    ("ij->ji", [(2, 3)]),
    ("ij->i", [(2, 3)]),
    ("ii->i", [(3, 3)]),
    ("ii", [(3, 3)]),
    ("iji->j", [(3, 2, 3)]),
    ("ij,jk", [(2, 3), (3, 4)]),
    ("ij,kj->ik", [(2, 3), (1, 3)]),
    ("bij,bjk->bik", [(5, 2, 3), (5, 3, 4)]),
    ("bij,jk->bik", [(5, 2, 3), (3, 4)]),
    ("ij,ij->", [(2, 3), (2, 3)]),
    ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)]),
    ("ij,ij,jk->ik", [(2, 3), (2, 3), (3, 4)]),
    ("...ij,...jk->...ik", [(5, 1, 2, 3), (6, 3, 4)]),
    ("i...->...", [(2, 3, 4)]),
    ("...i,...i", [(2, 3), (3,)]),
    ("bhid,bhjd->bhij", [(2, 3, 4, 5), (2, 3, 6, 5)]),
    ("aB,Bc->ca", [(2, 3), (3, 4)]),
]


@pytest.mark.parametrize(("equation", "shapes"), EQUATIONS, ids=[e for e, _ in EQUATIONS])
@pytest.mark.parametrize("dtype", ["float64", "complex128", "int64"])
def test_einsum_sums_what_numpy_sums(equation, shapes, dtype):
    random = numpy.random.default_rng(0)
    arrays = [random.integers(-9, 9, shape).astype(dtype) for shape in shapes]
    result = torch.einsum(equation, *map(torch.from_numpy, arrays))
    assert numpy.array_equal(result.numpy(), numpy.einsum(equation, *arrays))


def test_einsum_gradient_is_the_product_of_the_others():
    a, b = torch.randn(4, 3, requires_grad=True), torch.randn(3, 5, requires_grad=True)
    torch.einsum("ij,jk->ki", a, b).sum().backward()
    assert torch.allclose(a.grad, b.detach().sum(1).expand(4, 3))
    assert torch.allclose(b.grad, a.detach().sum(0).unsqueeze(1).expand(3, 5))


def test_einsum_takes_lists_of_subscripts():
    a, b = torch.randn(2, 3), torch.randn(3, 4)
    assert torch.equal(torch.einsum(a, [0, 1], b, [1, 2], [0, 2]), torch.einsum("ij,jk->ik", a, b))
    assert torch.equal(torch.einsum(a, [..., 1], b, [1, 2]), torch.einsum("...B,BC", a, b))


def test_einsum_of_one_operand_without_a_sum_is_a_view():
    a = torch.zeros(3, 3)
    torch.einsum("ii->i", a).fill_(2)
    assert torch.equal(a, 2 * torch.eye(3))


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("i,j->ij", [(3,)]),
        ("i->i", [(3,), (3,)]),
        ("ij->i", [(3,)]),
        ("i->ii", [(3,)]),
        ("i->j", [(3,)]),
        ("i,i->", [(3,), (4,)]),
        ("ii->i", [(3, 4)]),
        ("i.j->i", [(3, 4)]),
        ("i1->i", [(3, 4)]),
    ],
)
def test_einsum_refuses_equations_that_do_not_fit(equation, shapes):
    with pytest.raises(RuntimeError, match="einsum"):
        torch.einsum(equation, *(torch.zeros(s) for s in shapes))


def test_tensordot_takes_a_number_or_lists_of_dims():
    a, b = torch.arange(24.0).view(2, 3, 4), torch.arange(24.0).view(3, 4, 2)
    assert torch.equal(torch.tensordot(a, b), torch.einsum("ijk,jkl->il", a, b))
    assert torch.equal(torch.tensordot(a, b, dims=0), torch.einsum("ijk,lmn->ijklmn", a, b))
    assert torch.equal(torch.tensordot(a, b, ([0, 2], [2, 1])), torch.einsum("ijk,lki->jl", a, b))
    assert torch.tensordot(a[:, :, :1], b, ([2], [1])).shape == (2, 3, 3, 2)
    with pytest.raises(RuntimeError, match="match"):
        torch.tensordot(a, b, ([0], [1]))
    with pytest.raises(RuntimeError, match="dims"):
        torch.tensordot(a, b, dims=4)


def test_distinct_values_come_with_what_is_asked_for():
    x = torch.tensor([2, 2, 1, 2])
    assert torch.unique(x).tolist() == [1, 2]
    values, inverse, counts = x.unique(return_inverse=True, return_counts=True)
    assert (values[inverse].tolist(), counts.tolist()) == (x.tolist(), [1, 3])
    assert torch.unique_consecutive(x).tolist() == [2, 1, 2]
    values, counts = x.unique_consecutive(return_counts=True)
    assert (values.tolist(), counts.tolist()) == ([2, 1, 2], [2, 1, 1])
    assert torch.unique(x.view(2, 2), dim=0).tolist() == [[1, 2], [2, 2]]


def test_positions_come_as_rows_or_as_a_tuple():
    x = torch.tensor([[0, 1], [2, 0]])
    assert torch.nonzero(x).tolist() == [[0, 1], [1, 0]]
    assert [t.tolist() for t in x.nonzero(as_tuple=True)] == [[0, 1], [1, 0]]
    out = torch.empty(0, dtype=torch.int64)
    assert torch.nonzero(x, out=out) is out and out.tolist() == [[0, 1], [1, 0]]


def test_extreme_of_two_tensors_where_one_has_no_dims():
    x = torch.tensor([1, 5])
    assert torch.max(x, torch.tensor(3)).tolist() == [3, 5]
    assert x.min(torch.tensor(3)).tolist() == [1, 3]
    assert torch.max(x, 0).indices.item() == 1


def test_filled_slices_count_once_in_the_gradient_of_the_number():
    value = torch.tensor(2.0, requires_grad=True)
    torch.zeros(4, 3).index_fill(0, torch.tensor([1, 3, 1]), value).sum().backward()
    assert value.grad.item() == 6.0


def test_norm_takes_a_name_or_an_order():
    x = torch.tensor([[3.0, 4.0], [0.0, 12.0]])
    assert x.norm().item() == torch.norm(x, "fro").item() == torch.norm(x, 2).item() == 13.0
    assert torch.norm(x, dim=1).tolist() == [5.0, 12.0]
    assert torch.norm(x, 1, 0, keepdim=True, out=torch.empty(0)).tolist() == [[3.0, 16.0]]
    assert torch.norm(x, float("inf"), dtype=torch.float64).dtype == torch.float64
    with pytest.raises(RuntimeError, match="float32"):
        torch.norm(x, 2, out=torch.zeros((), dtype=torch.float64))
    with pytest.raises(RuntimeError):
        torch.norm(torch.tensor([1]))
