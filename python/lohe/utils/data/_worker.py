"""What runs in a worker process of a DataLoader, and how its results travel."""

from __future__ import annotations

import os
import pickle
import queue
import random
import signal
import sys
import traceback
from dataclasses import dataclass
from typing import Any

import lohe

# How often a waiting process looks whether its counterpart still lives, in seconds.
ALIVE_CHECK_INTERVAL = 5.0


@dataclass
class WorkerInfo:
    """What a dataset may ask about the worker that it runs in."""

    id: int
    num_workers: int
    seed: int
    dataset: Any


_worker_info: WorkerInfo | None = None


def get_worker_info() -> WorkerInfo | None:
    """The worker that this process is, or None in the main process."""
    return _worker_info


@dataclass
class IterableEnd:
    """A worker's message that its stream has ended."""

    worker_id: int


class WorkerError:
    """An exception of a worker, with its traceback as text."""

    def __init__(self, where: str) -> None:
        kind, value, _ = sys.exc_info()
        self.where = where
        self.text = "".join(traceback.format_exception(*sys.exc_info()))
        self.kind: Any = kind
        self.key = value.args[0] if isinstance(value, KeyError) and value.args else None

    def reraise(self) -> None:
        """Raises the exception's type again, its message holding the worker's traceback."""
        message = f"Caught {self.kind.__name__} {self.where}.\nOriginal {self.text}"
        if self.kind is KeyError:
            raise _KeyErrorWithText(message)
        try:
            error = self.kind(message)
        except Exception:
            # The type wants other arguments than a message.
            raise RuntimeError(message) from None
        raise error


class _KeyErrorWithText(KeyError):
    """A KeyError that prints its text instead of the text's repr."""

    def __str__(self) -> str:
        return str(self.args[0])


class Fetcher:
    """Reads the samples of one batch."""

    def __init__(
        self, dataset: Any, iterable: bool, auto_collation: bool, collate_fn: Any, drop_last: bool
    ) -> None:
        self.dataset = dataset
        self.stream = iter(dataset) if iterable else None
        self.auto_collation = auto_collation
        self.collate_fn = collate_fn
        self.drop_last = drop_last
        self.ended = False

    def fetch(self, index: Any) -> Any:
        """The batch of these indices; of a stream the next ones, or StopIteration."""
        if self.stream is None:
            return self.collate_fn(self._read(index))
        if self.ended:
            raise StopIteration
        if not self.auto_collation:
            return self.collate_fn(next(self.stream))
        samples = []
        for _ in index:
            try:
                samples.append(next(self.stream))
            except StopIteration:
                self.ended = True
                break
        if not samples or (self.drop_last and len(samples) < len(index)):
            raise StopIteration
        return self.collate_fn(samples)

    def _read(self, index: Any) -> Any:
        if not self.auto_collation:
            return self.dataset[index]
        batched = getattr(self.dataset, "__getitems__", None)
        return batched(index) if callable(batched) else [self.dataset[i] for i in index]


def dumps(value: Any) -> bytes:
    """Pickles a message; done by the sender itself, so that an error is raised where it belongs."""
    return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)


class _Watchdog:
    """Tells a worker whether the process that started it still lives."""

    def __init__(self) -> None:
        self.parent = os.getppid()

    def alive(self) -> bool:
        return os.getppid() == self.parent


def worker_loop(
    make_fetcher: tuple,
    index_queue: Any,
    result_queue: Any,
    done: Any,
    init_fn: Any,
    worker_id: int,
    num_workers: int,
    base_seed: int,
) -> None:
    """Answers requests ``(number, index)`` with ``(number, batch)`` until None comes or the parent dies."""
    global _worker_info
    # Ctrl-C reaches the whole process group: the main process handles it and ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(lohe, "set_num_threads"):
        lohe.set_num_threads(1)
    seed = base_seed + worker_id
    random.seed(seed)
    lohe.manual_seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed % 2**32)
    _worker_info = WorkerInfo(worker_id, num_workers, seed, make_fetcher[0])
    start_error: WorkerError | None = None
    fetcher: Any = None
    try:
        if init_fn is not None:
            init_fn(worker_id)
        fetcher = Fetcher(*make_fetcher)
    except Exception:
        start_error = WorkerError(f"in DataLoader worker process {worker_id}")
    watchdog = _Watchdog()
    while watchdog.alive():
        try:
            request = index_queue.get(timeout=ALIVE_CHECK_INTERVAL)
        except queue.Empty:
            continue
        if request is None or done.is_set():
            break
        number, index = request
        if number == "resume":
            try:
                fetcher, start_error = Fetcher(*make_fetcher), None
            except Exception:
                start_error = WorkerError(f"in DataLoader worker process {worker_id}")
            continue
        if start_error is not None:
            answer: Any = start_error
        else:
            try:
                answer = fetcher.fetch(index)
            except StopIteration:
                answer = IterableEnd(worker_id)
            except Exception:
                answer = WorkerError(f"in DataLoader worker process {worker_id}")
        try:
            message = dumps((number, worker_id, answer))
        except Exception:
            message = dumps((number, worker_id, WorkerError(f"in DataLoader worker process {worker_id}")))
        del answer
        result_queue.put(message)
    # Unread results must not keep this process alive.
    result_queue.cancel_join_thread()
    result_queue.close()
