"""A sampler that gives each of several processes its share."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import lohe
from lohe.utils.data.sampler import Sampler

__all__ = ["DistributedSampler"]


class DistributedSampler(Sampler):
    """Every `num_replicas`-th key from `rank` on, of an order that all processes derive from `seed` and the epoch.

    The keys are repeated, or with `drop_last` cut, to a multiple of `num_replicas`.
    """

    def __init__(
        self,
        dataset: Any,
        num_replicas: int | None = None,
        rank: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        if num_replicas is None or rank is None:
            if not lohe.distributed.is_available():
                raise RuntimeError("Requires distributed package to be available")
            num_replicas = lohe.distributed.get_world_size() if num_replicas is None else num_replicas
            rank = lohe.distributed.get_rank() if rank is None else rank
        if rank >= num_replicas or rank < 0:
            raise ValueError(f"Invalid rank {rank}, rank should be in the interval [0, {num_replicas - 1}]")
        self.dataset = dataset
        self.num_replicas = num_replicas
        self.rank = rank
        self.epoch = 0
        self.drop_last = drop_last
        count = len(dataset)
        self.num_samples = count // num_replicas if drop_last else math.ceil(count / num_replicas)
        self.total_size = self.num_samples * num_replicas
        self.shuffle = shuffle
        self.seed = seed

    def __iter__(self) -> Iterator:
        count = len(self.dataset)
        if self.shuffle:
            generator = lohe.Generator().manual_seed(self.seed + self.epoch)
            keys = lohe.randperm(count, generator=generator).tolist()
        else:
            keys = list(range(count))
        while len(keys) < self.total_size:
            keys += keys[: self.total_size - len(keys)]
        return iter(keys[self.rank : self.total_size : self.num_replicas])

    def __len__(self) -> int:
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration use the order of `epoch`."""
        self.epoch = epoch
