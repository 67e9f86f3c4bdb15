"""compile(replay=True): what is refused, side effects, errors, threads, and the audit."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import Callable
from typing import Any

import lohe
import pytest
from lohe import nn
from lohe.nn import functional as F
from replay_checks import counted, fresh_compiler, ready, refused  # noqa: F401

pytestmark = pytest.mark.eager  # these tests record by themselves


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))


# --- what is refused


_KEPT: list[Any] = []


def _keeps(x: lohe.Tensor) -> lohe.Tensor:
    y = x * 2
    _KEPT[:] = [y]
    return y + 1


def _keeps_its_result(x: lohe.Tensor) -> lohe.Tensor:
    _KEPT[:] = [x * 2]
    return _KEPT[0]


def _changes_its_argument(x: list[Any]) -> lohe.Tensor:
    x[0] = x[0] + 1
    return x[0] * 2


def _swaps_data(x: lohe.Tensor) -> lohe.Tensor:
    _KEPT[0].data = x * 2
    return x + 1


class _Double(lohe.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: lohe.Tensor) -> lohe.Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, g: lohe.Tensor) -> lohe.Tensor:
        return g * 2


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: x + lohe.randn(3, generator=lohe.Generator().manual_seed(3)), "generator of its own"),
        (lambda x: (lohe.manual_seed(1), x + lohe.randn(3)), "sets a generator's state"),
        (lambda x: x[lohe.randperm(3)], "memory"),
        (lambda x: lohe.multinomial(x, 2), "memory"),
        (lambda x: x + x.sum().item(), "memory"),
        (lambda x: x[: int(x[0].item())], "memory"),
        (lambda x: x + 1 if x.sum() > 0 else x, "memory"),
        (lambda x: x + lohe.tensor([1.0, 2.0, 3.0]), "memory"),
        (lambda x: x[x > 0], "memory"),
        (lambda x: x + lohe.from_numpy(x.numpy()), "memory"),
        (lambda x: (x + 1, object())[0:2], "object of type object"),
        (lambda x: (x * 2).requires_grad_(), "requires_grad"),
        (lambda x: x * _WEIGHT, "detach"),
        (lambda x: _Double.apply(_WEIGHT), "custom"),
        (lambda x: lohe.vmap(lambda v: v * 2)(x), "transform"),
        (_keeps, "keeps a tensor"),
        (_keeps_its_result, "kept elsewhere"),
        (lambda x: _WEIGHT, "kept elsewhere"),
        (_swaps_data, "in place"),
    ],
)
def test_what_cannot_be_done_again_runs_each_time(function: Callable[..., Any], reason: str) -> None:
    _KEPT[:] = [lohe.zeros(3)]
    x = lohe.ones(3)
    assert reason in refused(function, x)
    state = lohe.get_rng_state()
    got = lohe.compile(function, replay=True)(x)
    lohe.set_rng_state(state)
    want = function(x)
    for g, w in zip(got, want, strict=True):
        if isinstance(w, lohe.Tensor):
            assert lohe.equal(g, w)


_WEIGHT = lohe.ones(3, requires_grad=True)


class _Holder:
    def __init__(self, weight: Any) -> None:
        self.weight = weight


def test_a_changed_argument_list_is_refused() -> None:
    assert "changes its arguments" in refused(_changes_its_argument, [lohe.ones(3)])


class _Taking(lohe.Tensor):
    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return super().__torch_function__(func, types, args, kwargs or {})


def test_a_class_that_takes_calls_is_refused() -> None:
    x = lohe.ones(3).as_subclass(_Taking)
    assert "takes calls" in refused(lambda x: x * 2, x)
    assert "class" in refused(lambda y: (x * y).sum(), lohe.ones(3))


def test_an_argument_that_cannot_be_compared_is_refused() -> None:
    assert "object of type _Holder" in refused(lambda h, x: x + h.weight, _Holder(1.0), lohe.ones(2))


def test_a_backward_pass_of_another_call_is_refused() -> None:
    model = _mlp()

    def backward() -> None:
        losses.pop().backward()

    losses = []
    compiled = lohe.compile(backward, replay=True)
    for i in range(6):
        losses.append(model(lohe.ones(2, 16)).sum())
        compiled()
        assert model[0].weight.grad is not None, i
        model.zero_grad()
    assert lohe.compile_report(compiled).replay["replayed"] == 0


def test_numbers_that_change_from_call_to_call_are_refused() -> None:
    counter = iter(range(100))
    reason = refused(lambda x: x * next(counter), lohe.ones(3), calls=12)
    assert "number" in reason


def test_a_counter_of_a_module_is_seen() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls = 0

        def forward(self, x: lohe.Tensor) -> lohe.Tensor:
            self.calls += 1
            return x * 2

    model = Counting()
    compiled = lohe.compile(model, replay=True)
    for i in range(1, 25):
        compiled(lohe.ones(3))
        assert model.calls == i
    assert lohe.compile_report(compiled).replay["reasons"]


def test_a_cache_that_grows_is_refused() -> None:
    class Cache(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("keys", lohe.zeros(1, 3))

        def forward(self, x: lohe.Tensor) -> lohe.Tensor:
            self.keys = lohe.cat([self.keys, x])[-1:]
            return self.keys * 2

    model = Cache()
    compiled = lohe.compile(model, replay=True)
    for i in range(25):
        assert compiled(lohe.full((1, 3), float(i))).tolist() == [[2.0 * i] * 3]


def test_ever_new_shapes_give_up() -> None:
    compiled, _ = counted(lambda x: x * 2)
    for i in range(40):
        compiled(lohe.ones(i + 1))
    replay = lohe.compile_report(compiled).replay
    assert replay["ready"] == 0 and "differ from call to call" in replay["reasons"][0]
    assert "not replayed" in repr(lohe.compile_report(compiled))


# --- side effects, errors, threads


def test_side_effects_are_left_out_of_a_replay(capsys: Any) -> None:
    def f(x: lohe.Tensor) -> lohe.Tensor:
        print("runs")
        return x * 2

    compiled = lohe.compile(f, replay=True)
    for _ in range(6):
        compiled(lohe.ones(3))
    assert capsys.readouterr().out == "runs\n" * 3


def test_an_error_in_a_replay_is_that_of_the_function() -> None:
    table = lohe.randn(10, 4)
    log = lohe.zeros(3)

    def f(i: lohe.Tensor) -> lohe.Tensor:
        log.add_(1)
        return F.embedding(i, table)

    compiled, runs = ready(f, lohe.tensor([1, 2]))
    before = log[0].item()
    with pytest.raises(IndexError, match="index out of range|out of range"):
        compiled(lohe.tensor([1, 20]))
    assert runs.count == 3 and log[0].item() == before + 1
    assert lohe.equal(compiled(lohe.tensor([3, 4])), F.embedding(lohe.tensor([3, 4]), table))
    assert runs.count == 3


def test_an_exception_of_the_function_leaves_nothing_behind() -> None:
    def f(x: lohe.Tensor, fail: bool) -> lohe.Tensor:
        y = x + 1
        if fail:
            raise KeyError("asked for")
        return y

    compiled = lohe.compile(f, replay=True)
    for _ in range(3):
        with pytest.raises(KeyError, match="asked for"):
            compiled(lohe.ones(3), True)
        compiled(lohe.ones(3), False)
    for _ in range(4):
        compiled(lohe.ones(3), False)
    assert lohe.compile_report(compiled).replay["replayed"] == 5  # the first call was one that failed


def test_threads_replay_side_by_side() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64), nn.Softmax(-1)).eval()
    compiled = lohe.compile(model, replay=True)
    failures: list[Any] = []

    def work(seed: int) -> None:
        try:
            generator = lohe.Generator().manual_seed(seed)
            with lohe.no_grad():
                for _ in range(100):
                    x = lohe.randn(8, 64, generator=generator)
                    if not lohe.equal(compiled(x), model(x)):
                        failures.append(seed)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures
    assert lohe.compile_report(compiled).replay["replayed"] > 300


def test_what_other_threads_settle_is_not_held_against_a_call() -> None:
    weight = lohe.ones(64, 64)
    entered, go = threading.Event(), threading.Event()

    def halting(x: lohe.Tensor) -> lohe.Tensor:
        y = x @ weight
        entered.set()
        assert go.wait(60)
        return y.relu()

    halts = lohe.compile(halting, replay=True)
    goes = lohe.compile(lambda x: (x @ weight).tanh(), replay=True)
    x = lohe.ones(2, 64)

    def call_while_halted(other: Callable[[], Any]) -> None:
        go.clear()
        entered.clear()
        thread = threading.Thread(target=halts, args=(x,))
        thread.start()
        assert entered.wait(60)
        other()
        go.set()
        thread.join()

    go.set()
    halts(x)
    goes(x)
    call_while_halted(lambda: weight.sum().item())  # has the halted call's work done
    call_while_halted(lambda: goes(x))  # the same, in a call that is looked at itself
    for _ in range(6):
        halts(x)
        goes(x)
    for compiled in (halts, goes):
        report = lohe.compile_report(compiled)
        assert report.replay is not None and report.replay["replayed"] >= 3, report


def test_a_compiled_function_and_its_module_are_freed() -> None:
    def made() -> list[Any]:
        model = _mlp().eval()
        other = _mlp().eval()
        other.compile(replay=True)
        compiled = lohe.compile(model, replay=True)
        with lohe.no_grad():
            for _ in range(5):
                compiled(lohe.ones(2, 16))
                other(lohe.ones(2, 16))
        return [weakref.ref(model), weakref.ref(other), weakref.ref(model[0].weight)]

    gone = made()
    gc.collect()
    assert [g() for g in gone] == [None, None, None]


def test_replays_hold_no_memory() -> None:
    compiled, _ = ready(lambda x: (x * 2).tanh(), lohe.ones(100_000))
    x = lohe.ones(100_000)
    compiled(x)
    before = lohe._C._memory_stats()["allocated_bytes"]
    for _ in range(10):
        compiled(x)
    assert lohe._C._memory_stats()["allocated_bytes"] <= before


# --- audit


def _run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_an_audit_finds_what_replay_cannot_see() -> None:
    code = """
        import lohe as torch
        class Settings:
            scale = 2.0
        @torch.compile(replay=True)
        def scaled(x):
            return x * Settings.scale
        x = torch.ones(3)
        for _ in range(9):
            assert scaled(x)[0] == 2
        Settings.scale = 3.0
        print([scaled(x)[0].item() for _ in range(2)])
        for _ in range(4):
            scaled(x)
    """
    plain = _run(code)
    assert plain.returncode == 0 and plain.stdout == "[2.0, 2.0]\n", plain.stderr
    audited = _run(code, LOHE_REPLAY_AUDIT="4")
    assert audited.returncode != 0
    assert "replay audit: scaled no longer does what is replayed for it: a number" in audited.stderr, (
        audited.stderr
    )


def test_an_audit_of_a_pure_function_is_silent() -> None:
    done = _run(
        """
        import lohe as torch
        model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4))
        plain = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4))
        plain.load_state_dict(model.state_dict())
        compiled = torch.compile(model, replay=True)
        with torch.no_grad():
            for i in range(20):
                x = torch.randn(8, 4)
                assert torch.equal(compiled(x), plain(x))
        assert torch.equal(model[1].running_mean, plain[1].running_mean)
        print(torch.compile_report(compiled).replay)
        """,
        LOHE_REPLAY_AUDIT="3",
    )
    assert done.returncode == 0 and "'reasons': []" in done.stdout, done.stderr
