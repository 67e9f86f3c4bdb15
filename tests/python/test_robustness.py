"""Threads, forks, interrupts, exhausted memory and long chains: what a program meets outside of single ops."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import lohe
import pytest
from lohe import nn


def _run_in_threads(count: int, work: Callable[[int], Any]) -> list[Any]:
    """work(0), work(1), ... at once, each in a thread; their results, or the first exception."""
    results: list[Any] = [None] * count
    errors: list[BaseException] = []
    start = threading.Barrier(count)

    def run(i: int) -> None:
        try:
            start.wait()
            results[i] = work(i)
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


def _train(seed: int, steps: int = 12) -> list[float]:
    """Losses of a small model; the same for a seed, whatever else runs."""
    generator = lohe.Generator().manual_seed(seed)
    x = lohe.randn(64, 16, generator=generator)
    weights = [lohe.randn(16, 32, generator=generator) * 0.2, lohe.randn(32, 4, generator=generator) * 0.2]
    for w in weights:
        w.requires_grad_(True)
    optimizer = lohe.optim.AdamW(weights, lr=0.01)
    losses = []
    for _ in range(steps):
        y = lohe.softmax((x @ weights[0]).tanh() @ weights[1], -1)
        loss = -(y[:, seed % 4] + 1e-6).log().mean() + y.var(0).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_training_in_many_threads_at_once_gives_what_each_gives_alone() -> None:
    alone = [_train(seed) for seed in range(6)]
    for _ in range(3):
        assert _run_in_threads(6, _train) == alone


def test_threads_share_a_graph_and_its_leaves() -> None:
    x = lohe.ones(1000, requires_grad=True)
    y = x * 2

    def work(i: int) -> None:
        for _ in range(20):
            (y * float(i)).sum().backward(retain_graph=True)

    _run_in_threads(4, work)
    assert x.grad is not None and x.grad.tolist() == [2.0 * 20 * (0 + 1 + 2 + 3)] * 1000


def test_the_gradient_mode_belongs_to_its_thread() -> None:
    def work(i: int) -> bool:
        with lohe.set_grad_enabled(i % 2 == 0):
            time.sleep(0.02)
            return (lohe.ones(2, requires_grad=True) * 2).requires_grad

    assert _run_in_threads(4, work) == [True, False, True, False]


def test_large_ops_and_allocations_from_many_threads() -> None:
    lohe.set_num_threads(2)

    def work(i: int) -> list[float]:
        totals = []
        for n in range(20):
            t = lohe.full((100_000 + 1000 * i,), float(i + 1))
            totals.append((t * n).sum().item())
        return totals

    for i, totals in enumerate(_run_in_threads(5, work)):
        assert totals == [float((100_000 + 1000 * i) * (i + 1) * n) for n in range(20)]


def test_tensors_cross_threads_and_die_elsewhere() -> None:
    lock, pool = threading.Lock(), []

    def work(i: int) -> None:
        for n in range(200):
            t = lohe.full((50 + n,), float(i), requires_grad=True) * 2
            with lock:
                pool.append(t)
                other = pool.pop(0) if len(pool) > 8 else None
            if other is not None:
                other.sum().backward()

    _run_in_threads(4, work)
    assert all(t.requires_grad for t in pool)


# ---- fork


def _in_child(work: Callable[[], bool], seconds: int = 60) -> None:
    """work() in a forked child must return True before the time is up."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(seconds)
            status = 0 if work() else 2
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_a_child_works_after_a_fork_while_the_pool_is_busy() -> None:
    losses = _train(1)
    lohe.set_num_threads(2)
    x = lohe.ones(400_000)
    stop = threading.Event()

    def keep_busy() -> None:
        while not stop.is_set():
            (x * 2 + 1).sum()

    thread = threading.Thread(target=keep_busy)
    thread.start()
    try:
        for _ in range(8):
            _in_child(lambda: (x * 3).sum().item() == 1_200_000.0 and _train(1) == losses)
    finally:
        stop.set()
        thread.join()


def test_a_child_works_after_a_fork_while_another_thread_records() -> None:
    x = lohe.ones(2_000)
    stop = threading.Event()
    compile = lohe.compile  # imported before the fork: a module's lock does not survive it

    def keep_recording() -> None:
        step = compile(lambda: (x * 2 + 1).sum())
        while not stop.is_set():
            step()

    def child() -> bool:
        double = compile(lambda: (x * 2).sum())
        return x.sum().item() == 2_000.0 and all(double().item() == 4_000.0 for _ in range(3))

    threads = [threading.Thread(target=keep_recording) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            _in_child(child)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_work_that_another_thread_recorded_is_done_in_a_child() -> None:
    recorded, stop = threading.Event(), threading.Event()
    results = []

    def record() -> None:
        with lohe.compiler.lazy():
            results.append(lohe.ones(100) * 2)
            recorded.set()
            stop.wait()

    thread = threading.Thread(target=record)
    thread.start()
    recorded.wait()
    try:
        _in_child(lambda: results[0].sum().item() == 200.0)
    finally:
        stop.set()
        thread.join()
    assert results[0].sum().item() == 200.0


def test_a_child_of_a_child_and_its_parent_go_on() -> None:
    lohe.set_num_threads(3)
    before = (lohe.arange(300_000.0) * 0.5).sum().item()

    def child() -> bool:
        if (lohe.arange(300_000.0) * 0.5).sum().item() != before:
            return False
        _in_child(lambda: (lohe.arange(300_000.0) * 0.5).sum().item() == before)
        return True

    _in_child(child)
    assert (lohe.arange(300_000.0) * 0.5).sum().item() == before


# ---- Ctrl-C


def _interrupt(program: str, after: str) -> tuple[int, str]:
    """Runs a program, sends SIGINT once it has printed `after`; its exit status and output."""
    with subprocess.Popen(
        [sys.executable, "-u", "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ.copy(),
        # A shell may have had its background jobs ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    ) as process:
        assert process.stdout is not None
        try:
            seen = ""
            for line in process.stdout:
                seen += line
                if after in line:
                    break
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            rest, _ = process.communicate(timeout=60)
            return process.returncode, seen + rest
        finally:
            process.kill()


@pytest.mark.parametrize(
    "body",
    [
        "while True:\n            y = x * 2 + 1",  # many short ops
        "while True:\n            y = w @ w",  # long ops
        "while True:\n            (l(x).sum() * 2).backward()",  # the engine
        "for _ in lohe.utils.data.DataLoader(Endless()):\n            pass",
    ],
)
@pytest.mark.eager
def test_an_interrupt_arrives_and_the_program_can_go_on(body: str) -> None:
    program = f"""
import lohe
class Endless(lohe.utils.data.IterableDataset):
    def __iter__(self):
        while True:
            yield lohe.ones(3)
x, w, l = lohe.ones(4, 8), lohe.ones(600, 600), lohe.nn.Linear(8, 3)
def main():
    try:
        print("started")
        {body}
    except KeyboardInterrupt:
        print("interrupted", (x * 2).sum().item(), (w @ w)[0, 0].item())
main()
"""
    status, output = _interrupt(program, "started")
    assert status == 0 and "interrupted 64.0 600.0" in output, output


def test_an_interrupt_inside_a_backward_hook_leaves_the_graph_usable() -> None:
    x = lohe.ones(3, requires_grad=True)
    y = x * 2
    pressed = []

    def hook(g: Any) -> None:
        if not pressed:
            pressed.append(1)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)

    y.register_hook(hook)
    # A shell may have had its background jobs ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            y.sum().backward(retain_graph=True)
    finally:
        signal.signal(signal.SIGINT, before)
    y.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [2.0] * 3


# ---- memory


@pytest.mark.parametrize(
    "make",
    [lambda n: lohe.empty(n), lambda n: lohe.zeros(n), lambda n: lohe.ones(2).expand(n // 2, 2).clone()],
)
@pytest.mark.eager
def test_running_out_of_memory_names_the_request_and_breaks_nothing(make: Callable[[int], Any]) -> None:
    model, x = nn.Linear(4, 4), lohe.ones(2, 4)
    held = lohe.cpu.memory_stats()["allocated_bytes"]
    with pytest.raises(RuntimeError, match=r"tried to allocate 70368744177664 bytes"):
        make(1 << 44)
    assert lohe.cpu.memory_stats()["allocated_bytes"] == held
    model(x).sum().backward()
    assert model.weight.grad is not None
    assert lohe.zeros(1000).sum().item() == 0


@pytest.mark.eager
def test_running_out_of_memory_inside_an_op_changes_no_tensor() -> None:
    a, b = lohe.ones(1 << 20, 1), lohe.ones(1, 1 << 22)
    before = a._version, b._version
    with pytest.raises(RuntimeError, match="tried to allocate"):
        a + b
    with pytest.raises(RuntimeError, match="tried to allocate"):
        a @ b
    with pytest.raises(RuntimeError):
        a.add_(b)
    assert (a._version, b._version) == before and a.sum().item() == 1 << 20


@pytest.mark.eager
def test_running_out_of_memory_in_backward_leaves_leaves_as_they_were() -> None:
    x = lohe.ones(3, requires_grad=True)

    class Greedy(lohe.autograd.Function):
        @staticmethod
        def forward(ctx: Any, t: Any) -> Any:
            return t * 1

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return lohe.empty(1 << 50)

    with pytest.raises(RuntimeError, match="tried to allocate"):
        Greedy.apply(x).sum().backward()
    assert x.grad is None
    (x * 2).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [2.0] * 3


# ---- long chains


def test_a_chain_of_a_million_ops_backpropagates_and_is_freed() -> None:
    x = lohe.ones(2, requires_grad=True)
    y = x
    for _ in range(1_000_000):
        y = y * 1.0
    y.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [1.0, 1.0]
    y = x
    for _ in range(1_000_000):
        y = y + 1
    del y  # a graph that nothing ran through


def test_a_long_chain_of_writes_and_of_views_backpropagates() -> None:
    x = lohe.ones(4, requires_grad=True)
    y = x * 1
    for _ in range(30_000):
        y.add_(1)
    y.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [1.0] * 4
    z = x * 1
    for _ in range(30_000):
        z = z.view(2, 2).t()
        z = z.reshape(4)
    z.sum().backward()
    assert x.grad.tolist() == [2.0] * 4


# ---- bad input


@pytest.mark.parametrize(
    "call",
    [
        lambda t, i: t.add_(lohe.ones(5)),
        lambda t, i: t.copy_(lohe.ones(7, 7)),
        lambda t, i: t.index_add_(0, i, lohe.ones(2, 3)),
        lambda t, i: t.index_copy_(0, i, lohe.ones(2, 3)),
        lambda t, i: t.index_fill_(0, i, 1.0),
        lambda t, i: t.scatter_(0, i.expand(2, 2), 1.0),
        lambda t, i: t.scatter_add_(0, i.expand(2, 2), lohe.ones(2, 2)),
        lambda t, i: t.put_(i * 10, lohe.ones(2)),
        lambda t, i: t.__setitem__(i, 1.0),
        lambda t, i: t.__setitem__((0, 5), 1.0),
        lambda t, i: t.masked_scatter_(t > -1, lohe.ones(2)),
        lambda t, i: lohe.add(t, lohe.ones(5), out=t),
        lambda t, i: lohe.mm(t, t, out=t),
        lambda t, i: lohe.cat([t, lohe.ones(2)], out=t),
        lambda t, i: t.lerp_(lohe.ones(4), 0.5),
        lambda t, i: t.addmm_(lohe.ones(2, 2), lohe.ones(4, 3)),
        lambda t, i: t.mul_(1j),
        lambda t, i: t.clamp_(),
        lambda t, i: t.view(4),
        lambda t, i: lohe.nn.functional.embedding(i, t),
        lambda t, i: lohe.nn.functional.cross_entropy(t, lohe.tensor([0, 9])),
    ],
)
@pytest.mark.eager
def test_a_refused_call_changes_no_tensor(call: Callable[[Any, Any], Any]) -> None:
    t, index = lohe.arange(6.0).reshape(2, 3), lohe.tensor([0, 9])
    version = t._version
    with pytest.raises((RuntimeError, IndexError, ValueError)):
        call(t, index)
    assert t.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]] and t.shape == (2, 3)
    assert index.tolist() == [0, 9]
    assert t._version == version


def test_work_is_settled_elsewhere_while_its_thread_ends() -> None:
    for _ in range(300):
        made: list[lohe.Tensor] = []

        def record(made: list[lohe.Tensor] = made) -> None:
            with lohe.compiler.lazy():
                made.extend(lohe.ones(50) * n for n in range(3))

        thread = threading.Thread(target=record)
        thread.start()
        while thread.is_alive():
            for t in list(made):
                assert t.sum().item() >= 0
        thread.join()
        assert [t.sum().item() for t in made] == [0.0, 50.0, 100.0]
