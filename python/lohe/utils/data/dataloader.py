"""DataLoader: batches of a dataset, read in this process or by worker processes."""

from __future__ import annotations

import multiprocessing
import pickle
import queue
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import lohe
from lohe.utils.data._collate import default_collate, default_convert
from lohe.utils.data._worker import (
    ALIVE_CHECK_INTERVAL,
    Fetcher,
    IterableEnd,
    WorkerError,
    get_worker_info,
    worker_loop,
)
from lohe.utils.data.dataset import IterableDataset
from lohe.utils.data.sampler import BatchSampler, RandomSampler, SequentialSampler

__all__ = ["DataLoader", "default_collate", "default_convert", "get_worker_info"]


class _InfiniteSampler:
    """Stands for the keys of a stream, which has none."""

    def __iter__(self) -> Iterator[None]:
        while True:
            yield None


class DataLoader:
    """An iterable of batches.

    `batch_size` samples, chosen by `sampler` (or `shuffle`), are joined by `collate_fn`; with `batch_size` None
    samples come singly. `num_workers` processes read ahead by `prefetch_factor` batches each; batches come in order.
    `timeout` (seconds, 0 for none) bounds the wait for one. `pin_memory` has no effect on a CPU. A worker's exception
    is raised here with its traceback, a worker's death raises RuntimeError.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Any = None,
        batch_sampler: Any = None,
        num_workers: int = 0,
        collate_fn: Callable[[list], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], None] | None = None,
        multiprocessing_context: Any = None,
        generator: Any = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
    ) -> None:
        if num_workers < 0:
            raise ValueError(
                "num_workers option should be non-negative; use num_workers=0 to disable multiprocessing."
            )
        if timeout < 0:
            raise ValueError("timeout option should be non-negative")
        if num_workers == 0 and prefetch_factor is not None:
            raise ValueError(
                "prefetch_factor option could only be specified in multiprocessing."
                "let num_workers > 0 to enable multiprocessing, otherwise set prefetch_factor to None."
            )
        if num_workers > 0 and prefetch_factor is None:
            prefetch_factor = 2
        if prefetch_factor is not None and prefetch_factor < 0:
            raise ValueError("prefetch_factor option should be non-negative")
        if persistent_workers and num_workers == 0:
            raise ValueError("persistent_workers option needs num_workers > 0")
        self.dataset = dataset
        self.num_workers = num_workers
        self.prefetch_factor = prefetch_factor
        self.pin_memory = pin_memory
        self.pin_memory_device = pin_memory_device
        self.timeout = timeout
        self.worker_init_fn = worker_init_fn
        self.multiprocessing_context = _context(multiprocessing_context, num_workers)
        self.in_order = in_order
        self._iterable = isinstance(dataset, IterableDataset)
        if self._iterable:
            if shuffle:
                raise ValueError(
                    f"DataLoader with IterableDataset: expected unspecified shuffle option, but got shuffle={shuffle}"
                )
            for name, value in (("sampler", sampler), ("batch_sampler", batch_sampler)):
                if value is not None:
                    raise ValueError(
                        f"DataLoader with IterableDataset: expected unspecified {name} option, but got {name}={value}"
                    )
        shuffle = bool(shuffle)
        if sampler is not None and shuffle:
            raise ValueError("sampler option is mutually exclusive with shuffle")
        if batch_sampler is not None:
            if batch_size != 1 or shuffle or sampler is not None or drop_last:
                raise ValueError(
                    "batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, and drop_last"
                )
            batch_size = None
        elif batch_size is None and drop_last:
            raise ValueError(
                "batch_size=None option disables auto-batching and is mutually exclusive with drop_last"
            )
        if sampler is None:
            if self._iterable:
                sampler = _InfiniteSampler()
            elif shuffle:
                sampler = RandomSampler(dataset, generator=generator)
            else:
                sampler = SequentialSampler(dataset)
        if batch_size is not None and batch_sampler is None:
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.sampler = sampler
        self.batch_sampler = batch_sampler
        self.generator = generator
        if collate_fn is None:
            collate_fn = default_collate if self._auto_collation else default_convert
        self.collate_fn = collate_fn
        self.persistent_workers = persistent_workers
        self._iterator: _WorkerIterator | None = None

    @property
    def _auto_collation(self) -> bool:
        return self.batch_sampler is not None

    @property
    def _index_sampler(self) -> Any:
        return self.batch_sampler if self._auto_collation else self.sampler

    def __iter__(self) -> Iterator[Any]:
        if self.num_workers == 0:
            return _LocalIterator(self)
        if not self.persistent_workers:
            return _WorkerIterator(self)
        if self._iterator is None or self._iterator.closed:
            self._iterator = _WorkerIterator(self)
        else:
            self._iterator.restart()
        return self._iterator

    def __len__(self) -> int:
        if self._iterable:
            length = len(self.dataset)
            if self.batch_size is None:
                return length
            return length // self.batch_size if self.drop_last else -(-length // self.batch_size)
        return len(self._index_sampler)

    def _fetcher_arguments(self) -> tuple:
        return self.dataset, self._iterable, self._auto_collation, self.collate_fn, self.drop_last


def _context(context: Any, num_workers: int) -> Any:
    if context is None:
        return None
    if num_workers == 0:
        raise ValueError(
            "multiprocessing_context can only be used with multi-process loading (num_workers > 0), but got "
            f"num_workers={num_workers}"
        )
    if isinstance(context, str):
        known = multiprocessing.get_all_start_methods()
        if context not in known:
            raise ValueError(
                "multiprocessing_context option should specify a valid start method in "
                f"{known!r}, but got multiprocessing_context={context!r}"
            )
        return multiprocessing.get_context(context)
    if not isinstance(context, multiprocessing.context.BaseContext):
        raise TypeError(
            "multiprocessing_context option should be a valid context object or a string specifying the start method, "
            f"but got multiprocessing_context={context}"
        )
    return context


def _base_seed(generator: Any) -> int:
    return int(lohe.empty((), dtype=lohe.int64).random_(generator=generator).item())


class _LocalIterator:
    """Reads batches in this process."""

    def __init__(self, loader: DataLoader) -> None:
        # Drawn in any case, so that the number of workers does not change the random stream.
        self._seed = _base_seed(loader.generator)
        self._loader = loader
        self._keys = iter(loader._index_sampler)
        self._fetcher = Fetcher(*loader._fetcher_arguments())

    def __iter__(self) -> _LocalIterator:
        return self

    def __len__(self) -> int:
        return len(self._loader._index_sampler)

    def __next__(self) -> Any:
        return self._fetcher.fetch(next(self._keys))


class _WorkerIterator:
    """Hands requests to worker processes and gives their answers, in the order of the requests if wanted."""

    def __init__(self, loader: DataLoader) -> None:
        self._loader = loader
        self.closed = False
        context = loader.multiprocessing_context or multiprocessing.get_context()
        self._results = context.Queue()
        self._done = context.Event()
        self._requests = []
        self._workers = []
        self._seed = _base_seed(loader.generator)
        try:
            for worker_id in range(loader.num_workers):
                requests = context.Queue()
                requests.cancel_join_thread()
                worker = context.Process(
                    target=worker_loop,
                    args=(
                        loader._fetcher_arguments(),
                        requests,
                        self._results,
                        self._done,
                        loader.worker_init_fn,
                        worker_id,
                        loader.num_workers,
                        self._seed,
                    ),
                    daemon=True,
                )
                worker.start()
                self._requests.append(requests)
                self._workers.append(worker)
            self._start_epoch()
        except BaseException:
            self.close()
            raise

    def _start_epoch(self) -> None:
        self._keys = iter(self._loader._index_sampler)
        self._sent = 0
        self._answers: dict[int, Any] = {}
        # Request number -> worker; requests of ended streams are taken out.
        self._open: dict[int, int] = {}
        self._live = set(range(len(self._workers)))
        self._turn = 0
        for _ in range(max(1, self._loader.prefetch_factor or 0) * len(self._workers)):
            self._send()

    def restart(self) -> None:
        """Begins another epoch with the same workers."""
        while self._open.keys() - self._answers.keys():
            number, _, answer = self._receive()
            self._answers[number] = answer
        for requests in self._requests:
            requests.put(("resume", None))
        self._seed = _base_seed(self._loader.generator)
        self._start_epoch()

    def _send(self) -> None:
        """Sends the next request to the next live worker, if there are any."""
        if not self._live:
            return
        try:
            index = next(self._keys)
        except StopIteration:
            return
        while self._turn % len(self._workers) not in self._live:
            self._turn += 1
        worker_id = self._turn % len(self._workers)
        self._turn += 1
        self._open[self._sent] = worker_id
        self._requests[worker_id].put((self._sent, index))
        self._sent += 1

    def _receive(self) -> tuple[int, int, Any]:
        """The next answer of any worker; raises when the time is over or a worker has died."""
        limit = self._loader.timeout
        deadline = time.monotonic() + limit if limit > 0 else None
        while True:
            wait = (
                ALIVE_CHECK_INTERVAL
                if deadline is None
                else min(ALIVE_CHECK_INTERVAL, deadline - time.monotonic())
            )
            try:
                return pickle.loads(self._results.get(timeout=max(wait, 0.0)))
            except queue.Empty:
                dead = [worker for worker in self._workers if not worker.is_alive()]
                if dead:
                    listed = ", ".join(f"{worker.pid} (exit code {worker.exitcode})" for worker in dead)
                    self.close()
                    raise RuntimeError(f"DataLoader worker (pid(s) {listed}) exited unexpectedly") from None
                if deadline is not None and time.monotonic() >= deadline:
                    self.close()
                    raise RuntimeError(f"DataLoader timed out after {limit} seconds") from None

    def __iter__(self) -> _WorkerIterator:
        return self

    def __len__(self) -> int:
        return len(self._loader._index_sampler)

    def __next__(self) -> Any:
        if self.closed:
            raise StopIteration
        while True:
            number = self._ready_number()
            if number is None:
                if not self._open:
                    self._finish()
                    raise StopIteration
                number, _, answer = self._receive()
                self._answers[number] = answer
                continue
            answer = self._answers.pop(number)
            worker_id = self._open.pop(number)
            if isinstance(answer, IterableEnd):
                self._live.discard(worker_id)
                self._send()
                continue
            self._send()
            if isinstance(answer, WorkerError):
                if self._loader._iterable:
                    # A broken stream has no next batch; of a dataset by index it can still be asked for.
                    self.close()
                answer.reraise()
            return answer

    def _ready_number(self) -> int | None:
        """The request whose answer is due and here: the oldest open one, or any one without order."""
        if not self._open:
            return None
        if self._loader.in_order:
            oldest = min(self._open)
            return oldest if oldest in self._answers else None
        return next(iter(self._answers), None)

    def _finish(self) -> None:
        if not self._loader.persistent_workers:
            self.close()

    def close(self) -> None:
        """Ends the workers; those that do not end by themselves are terminated."""
        if self.closed:
            return
        self.closed = True
        self._done.set()
        for requests in self._requests:
            requests.put(None)
        for worker in self._workers:
            worker.join(timeout=ALIVE_CHECK_INTERVAL)
            if worker.is_alive():
                worker.terminate()
                worker.join()
        for requests in (*self._requests, self._results):
            requests.cancel_join_thread()
            requests.close()

    def __del__(self) -> None:
        try:
            self.close()
        except Exception:
            # At interpreter exit the machinery may be gone already; the workers are daemons and end on their own.
            warnings.warn("DataLoader could not end its workers", ResourceWarning, stacklevel=1)
