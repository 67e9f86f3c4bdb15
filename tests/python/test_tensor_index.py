"""Indexing reads and writes what PyTorch's does, and raises where it raises."""

import lohe
import numpy as np
import pytest

torch = pytest.importorskip("torch")

INDICES = [
    0, -1, slice(None), slice(1, None), slice(None, None, 2), slice(5, 1), None, ..., True, False, (0, 1), (..., 0), (None, 0),
    (slice(None), 1), (0, slice(1, 3), None), [0, 1], [1, 0, 1], ([0, 1], [2, 0]), (slice(None), [0, 2]), ([0, 1], slice(None), [1, 2]),
    (..., [0]), (0, [1, 2]), np.array([1, 0]), np.int64(1), (True, 0), ([[0, 1], [1, 0]],), [True, False], (slice(None), [True, False, True]),
    [], (1, 2, 3), (0, ..., 0), ((0, 1),), range(2),
]


def both():
    return lohe.from_numpy(np.arange(24).reshape(2, 3, 4)), torch.from_numpy(np.arange(24).reshape(2, 3, 4))


@pytest.mark.parametrize("index", INDICES, ids=repr)
def test_read(index):
    ours, theirs = both()
    got, want = ours[index], theirs[index]
    assert tuple(got.shape) == tuple(want.shape) and got.tolist() == want.tolist()


@pytest.mark.parametrize("index", INDICES, ids=repr)
def test_write_number(index):
    ours, theirs = both()
    ours, theirs = ours.clone(), theirs.clone()
    ours[index] = -5
    theirs[index] = -5
    assert ours.tolist() == theirs.tolist()


@pytest.mark.parametrize("index", [0, slice(1, 2), (slice(None), 0), [1, 0], (..., [0, 3])], ids=repr)
def test_write_tensor(index):
    ours, theirs = both()
    ours, theirs = ours.clone(), theirs.clone()
    value = np.arange(100, 124)[: theirs[index].numel()].reshape(tuple(theirs[index].shape))
    ours[index] = lohe.from_numpy(value)
    theirs[index] = torch.from_numpy(value)
    assert ours.tolist() == theirs.tolist()


@pytest.mark.parametrize("mask_shape", [(2,), (2, 3), (2, 3, 4)])
def test_masks(mask_shape):
    ours, theirs = both()
    mask = np.arange(np.prod(mask_shape)).reshape(mask_shape) % 2 == 0
    assert ours[lohe.from_numpy(mask)].tolist() == theirs[torch.from_numpy(mask)].tolist()
    ours, theirs = ours.clone(), theirs.clone()
    ours[lohe.from_numpy(mask)] = 0
    theirs[torch.from_numpy(mask)] = 0
    assert ours.tolist() == theirs.tolist()


def test_views_share_memory():
    x = lohe.zeros(2, 3)
    x[0][1] = 5
    x[:, 2] = 7
    assert x.tolist() == [[0, 5, 7], [0, 0, 7]]


@pytest.mark.parametrize(
    "index", [5, (0, 0, 0, 0), 1.0, slice(None, None, -1), slice("a"), (0, 7), ([0, 9],), {}], ids=repr
)
def test_errors_are_of_the_same_type(index):
    ours, theirs = both()
    with pytest.raises(Exception) as want:
        theirs[index]
    with pytest.raises(type(want.value)):
        ours[index]


def test_zero_dimensions():
    with pytest.raises(IndexError, match="invalid index of a 0-dim tensor"):
        lohe.tensor(1)[0]
    assert lohe.tensor(1)[None].shape == (1,)


def test_gradients_flow_through_reads():
    x = lohe.tensor([1.0, 2.0, 3.0], requires_grad=True)
    (x[0] * 2 + x[1:].sum(0) + x[[0, 0]].sum(0)).backward()
    assert x.grad.tolist() == [4.0, 1.0, 1.0]


@pytest.mark.parametrize("bad", [-1, 700])
@pytest.mark.parametrize("place", [(0, 0), (299, 699), (150, 3)])
@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("dtype", ["int64", "int32"])
def test_gather_names_the_index_that_is_outside(bad, place, dim, dtype):
    x, index = lohe.randn(700, 700), lohe.zeros(300, 700, dtype=getattr(lohe, dtype))
    index[place] = bad
    with pytest.raises(RuntimeError, match=f"index {bad} is out of bounds for dimension {dim} with size 700"):
        lohe.gather(x, dim, index).tolist()
    index[place] = 5
    got = lohe.gather(x, dim, index)
    assert got.tolist() == torch.gather(torch.from_numpy(x.numpy()), dim, torch.from_numpy(index.numpy()).long()).tolist()
