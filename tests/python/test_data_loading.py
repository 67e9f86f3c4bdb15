"""Datasets, samplers, collation and the DataLoader, in this process and with workers."""

import collections
import os

import lohe
import pytest
from lohe.utils import data
from torch.utils import data as torch_data

Point = collections.namedtuple("Point", ["x", "y"])


class Squares(data.Dataset):
    def __init__(self, n=10, fail_at=None, die_at=None):
        self.n, self.fail_at, self.die_at = n, fail_at, die_at

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        if i == self.fail_at:
            raise ValueError("bad sample")
        if i == self.die_at:
            os._exit(3)
        return lohe.tensor([float(i)]), i * i


class Stream(data.IterableDataset):
    def __init__(self, n):
        self.n = n

    def __iter__(self):
        info = data.get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        return iter(range(first, self.n, step))


def _batches(loader):
    return [(x.flatten().tolist(), y.tolist()) for x, y in loader]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("drop_last", [False, True])
def test_batches_come_in_order_for_any_number_of_workers(workers, drop_last):
    loader = data.DataLoader(Squares(), batch_size=3, num_workers=workers, drop_last=drop_last)
    expected = [list(range(i, min(i + 3, 10))) for i in range(0, 10, 3)]
    expected = expected[:-1] if drop_last else expected
    assert len(loader) == len(expected)
    assert _batches(loader) == [([float(i) for i in batch], [i * i for i in batch]) for batch in expected]


def test_spawned_workers_give_the_same_batches():
    dataset = data.TensorDataset(lohe.arange(4.0), lohe.arange(4) * 2)
    loader = data.DataLoader(dataset, batch_size=2, num_workers=1, multiprocessing_context="spawn")
    assert _batches(loader) == _batches(data.DataLoader(dataset, batch_size=2))


@pytest.mark.parametrize("workers", [0, 2, 3])
def test_stream_is_shared_by_workers(workers):
    loader = data.DataLoader(Stream(11), batch_size=2, num_workers=workers)
    assert sorted(value for batch in loader for value in batch.tolist()) == list(range(11))


def test_persistent_workers_serve_several_epochs_and_a_broken_off_one():
    loader = data.DataLoader(Squares(8), batch_size=2, num_workers=2, persistent_workers=True)
    first = _batches(loader)
    pids = [worker.pid for worker in loader._iterator._workers]
    next(iter(loader))
    assert _batches(loader) == first
    assert [worker.pid for worker in loader._iterator._workers] == pids


def test_worker_exception_is_raised_with_its_traceback():
    loader = data.DataLoader(Squares(fail_at=4), batch_size=2, num_workers=2)
    with pytest.raises(
        ValueError, match=r"Caught ValueError in DataLoader worker process 0(.|\n)*bad sample"
    ):
        list(loader)


def test_worker_death_is_detected():
    loader = data.DataLoader(Squares(die_at=4), batch_size=2, num_workers=1)
    with pytest.raises(RuntimeError, match="exited unexpectedly"):
        list(loader)


def test_shuffle_is_a_permutation_given_by_the_generator():
    def order(seed):
        loader = data.DataLoader(Squares(), shuffle=True, generator=lohe.Generator().manual_seed(seed))
        return [y.item() for _, y in loader]

    assert order(1) == order(1) != order(2)
    assert sorted(order(1)) == [i * i for i in range(10)]


def test_collate_enters_containers():
    batch = data.default_collate([{"a": (1, 2.0), "p": Point(1, "s")}, {"a": (3, 4.0), "p": Point(2, "t")}])
    assert batch["a"][0].tolist() == [1, 3]
    assert batch["a"][1].dtype == lohe.float64
    assert batch["p"].x.tolist() == [1, 2]
    assert batch["p"].y == ("s", "t")
    with pytest.raises(TypeError):
        data.default_collate([object()])
    with pytest.raises(RuntimeError):
        data.default_collate([[1, 2], [1]])


@pytest.mark.parametrize(
    "options",
    [
        {"num_workers": -1},
        {"timeout": -1},
        {"prefetch_factor": 2},
        {"persistent_workers": True},
        {"batch_size": None, "drop_last": True},
        {"batch_size": 0},
        {"sampler": [0], "shuffle": True},
        {"batch_sampler": [[0]], "batch_size": 2},
        {"multiprocessing_context": "spawn"},
    ],
)
def test_wrong_options_raise_the_same_type(options):
    with pytest.raises(Exception) as expected:
        torch_data.DataLoader([0, 1], **options)
    with pytest.raises(type(expected.value)):
        data.DataLoader([0, 1], **options)


@pytest.mark.parametrize("lengths", [[3, 7], [0.5, 0.5], [0.25, 0.25, 0.5], [0.33, 0.33, 0.34]])
def test_random_split_has_the_lengths_of_torch(lengths):
    parts = data.random_split(range(10), lengths, generator=lohe.Generator().manual_seed(0))
    assert [len(p) for p in parts] == [len(p) for p in torch_data.random_split(range(10), lengths)]
    assert sorted(i for part in parts for i in part) == list(range(10))


@pytest.mark.parametrize("drop_last", [False, True])
def test_distributed_sampler_shares_all_keys(drop_last):
    ours = [
        list(data.DistributedSampler(range(10), 3, r, shuffle=False, drop_last=drop_last)) for r in range(3)
    ]
    theirs = [
        list(torch_data.DistributedSampler(range(10), 3, r, shuffle=False, drop_last=drop_last))
        for r in range(3)
    ]
    assert ours == theirs


def test_datasets_join_and_stack():
    joined = data.ConcatDataset([range(3), range(10, 12)])
    assert [joined[i] for i in range(len(joined))] == [0, 1, 2, 10, 11]
    assert joined[-1] == 11
    assert data.Subset(joined, [4, 0])[0] == 11
    tensors = data.TensorDataset(lohe.arange(4), lohe.arange(4) * 2)
    assert [value.item() for value in tensors[3]] == [3, 6]
    with pytest.raises(AssertionError):
        data.TensorDataset(lohe.arange(4), lohe.arange(3))
