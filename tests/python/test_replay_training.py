"""compile(replay=True) of whole training steps: forward, backward and update, without running the step again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lohe
import pytest
import replayed
from lohe import nn
from replay_checks import fresh_compiler  # noqa: F401
from replayed import OPTIMIZERS, Training, check_same, mlp

pytestmark = pytest.mark.eager  # these tests record by themselves


@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_training_step_is_replayed_bit_for_bit(name: str, set_to_none: bool) -> None:
    plain, again = (Training(OPTIMIZERS[name], how, set_to_none=set_to_none) for how in ("plain", "replayed"))
    for a, b in zip(plain.run(12), again.run(12), strict=True):
        assert lohe.equal(a, b)
    check_same(plain, again)
    # The first call makes the optimizer's state; with set_to_none=False the first gradients are made there, too.
    assert again.replayed() >= 8, lohe.compile_report(again.step)
    assert again.counted.runs + again.replayed() == 12


def test_a_learning_rate_is_followed() -> None:
    for name, change in (
        ("adamw", lambda o, i: o.param_groups[0].update(lr=0.01 / (1 + i // 5))),
        ("rate in a tensor", lambda o, i: o.param_groups[0]["lr"].mul_(0.9)),
        ("sgd", lambda o, i: o.param_groups[0].update(lr=0.1 / (1 + i // 5))),
    ):
        pair = [Training(OPTIMIZERS[name], how) for how in ("plain", "replayed")]
        for i in range(15):
            for t in pair:
                change(t.optimizer, i)
                t.run(1, first=i)
        check_same(*pair)
        assert pair[1].replayed() >= 3, name


def test_the_count_of_steps_goes_on() -> None:
    t = Training(OPTIMIZERS["adam"], "replayed")
    for i in range(1, 10):
        t.run(1)
        assert [s["step"].item() for s in t.optimizer.state.values()] == [float(i)] * 6
    assert t.replayed() > 3


def test_gradients_are_new_tensors_each_time() -> None:
    t = Training(OPTIMIZERS["sgd"], "replayed")
    t.run(6)
    weight = next(t.model.parameters())
    held = weight.grad
    copy = held.clone()
    t.run(1, first=7)
    assert t.replayed() > 2
    assert weight.grad is not held and lohe.equal(held, copy) and not lohe.equal(weight.grad, copy)


def test_gradients_that_are_there_or_not_are_told_apart() -> None:
    plain, again = (Training(OPTIMIZERS["adam"], how) for how in ("plain", "replayed"))
    for i in range(14):
        for t in (plain, again):
            t.run(1, first=i)
            if i % 3 == 2:
                t.optimizer.zero_grad()
            if i == 10:
                next(t.model.parameters()).grad = lohe.ones(12, 16)
    check_same(plain, again)
    assert again.replayed() > 2


def test_gradients_accumulate_over_replays() -> None:
    def made(how: str) -> Any:
        lohe.manual_seed(1)
        model = mlp()

        def accumulate(x: lohe.Tensor) -> lohe.Tensor:
            loss = model(x).square().sum()
            loss.backward()
            return loss.detach()

        return model, accumulate if how == "plain" else lohe.compile(accumulate, replay=True)

    (plain, plain_step), (model, step) = made("plain"), made("replayed")
    for i in range(12):
        x = lohe.randn(4, 16)
        assert lohe.equal(plain_step(x), step(x))
        for p, q in zip(plain.parameters(), model.parameters(), strict=True):
            assert lohe.equal(p.grad, q.grad) and p.grad._version == q.grad._version
            if i % 6 == 5:
                p.grad = q.grad = None
    assert lohe.compile_report(step).replay["replayed"] > 0


def test_a_clipped_step_is_replayed() -> None:
    def made(how: str) -> Any:
        lohe.manual_seed(1)
        model = mlp()
        optimizer = lohe.optim.AdamW(model.parameters(), lr=0.1)

        def step(x: lohe.Tensor) -> Any:
            model.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            return {"loss": loss.detach(), "norm": norm}

        return model, step if how == "plain" else lohe.compile(step, replay=True)

    (plain, plain_step), (model, step) = made("plain"), made("replayed")
    for _ in range(8):
        x = lohe.randn(4, 16)
        want, got = plain_step(x), step(x)
        assert lohe.equal(want["loss"], got["loss"]) and lohe.equal(want["norm"], got["norm"])
    for p, q in zip(plain.parameters(), model.parameters(), strict=True):
        assert lohe.equal(p, q) and lohe.equal(p.grad, q.grad)
    assert lohe.compile_report(step).replay["replayed"] == 5, lohe.compile_report(step)


def test_gradients_by_autograd_grad_are_replayed() -> None:
    weight = lohe.randn(3, requires_grad=True)

    def penalty(x: lohe.Tensor) -> lohe.Tensor:
        y = (weight * x).tanh().sum()
        (g,) = lohe.autograd.grad(y, weight, create_graph=True)
        (h,) = lohe.autograd.grad(g.square().sum(), weight)
        return h

    compiled = lohe.compile(penalty, replay=True)
    for _ in range(6):
        x = lohe.randn(3)
        assert lohe.equal(compiled(x), penalty(x))
    assert weight.grad is None
    assert lohe.compile_report(compiled).replay["replayed"] == 3


def test_two_updates_in_one_call() -> None:
    def made(how: str) -> Any:
        lohe.manual_seed(1)
        model = mlp()
        optimizer = lohe.optim.AdamW(model.parameters(), lr=0.1)

        def twice(x: lohe.Tensor) -> lohe.Tensor:
            for part in x.chunk(2):
                optimizer.zero_grad()
                loss = model(part).square().mean()
                loss.backward()
                optimizer.step()
            return loss.detach()

        return model, optimizer, twice if how == "plain" else lohe.compile(twice, replay=True)

    (plain, _, plain_step), (model, optimizer, step) = made("plain"), made("replayed")
    for _ in range(8):
        x = lohe.randn(8, 16)
        assert lohe.equal(plain_step(x), step(x))
    for p, q in zip(plain.parameters(), model.parameters(), strict=True):
        assert lohe.equal(p, q) and lohe.equal(p.grad, q.grad)
    assert {s["step"].item() for s in optimizer.state.values()} == {16.0}
    assert lohe.compile_report(step).replay["replayed"] == 5


def test_a_schedule_inside_of_the_step_goes_on() -> None:
    model = mlp()
    optimizer = lohe.optim.SGD(model.parameters(), lr=1.0)
    schedule = lohe.optim.lr_scheduler.StepLR(optimizer, step_size=10, gamma=0.5)

    def step(x: lohe.Tensor) -> None:
        optimizer.zero_grad()
        model(x).mean().backward()
        optimizer.step()
        schedule.step()

    compiled = lohe.compile(step, replay=True)
    for i in range(1, 25):
        compiled(lohe.randn(4, 16))
        assert optimizer.param_groups[0]["lr"] == 0.5 ** (i // 10)
    assert lohe.compile_report(compiled).replay["replayed"] == 0


def test_a_count_in_an_object_of_the_function_goes_on() -> None:
    class Count:
        calls = 0

        def __init__(self) -> None:
            self.seen = 0

    count = Count()

    def step(x: lohe.Tensor) -> lohe.Tensor:
        count.seen += 1
        return x * 2

    compiled = lohe.compile(step, replay=True)
    for i in range(1, 10):
        compiled(lohe.ones(3))
        assert count.seen == i


def test_a_step_that_fails_leaves_the_count_of_steps() -> None:
    table = nn.Embedding(10, 4)
    optimizer = lohe.optim.Adam(table.parameters())

    def step(ids: lohe.Tensor) -> lohe.Tensor:
        optimizer.zero_grad()
        loss = table(ids).square().mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    compiled = lohe.compile(step, replay=True)
    good, bad = lohe.tensor([1, 2, 3]), lohe.tensor([1, 2, 99])
    for _ in range(5):
        compiled(good)
    assert lohe.compile_report(compiled).replay["replayed"] == 2
    before = table.weight.detach().clone()
    with pytest.raises(IndexError):
        compiled(bad)
    assert lohe.compile_report(compiled).replay["replayed"] == 3
    assert next(iter(optimizer.state.values()))["step"].item() == 5 and table.weight.grad is None
    assert lohe.equal(table.weight, before)
    compiled(good)
    assert next(iter(optimizer.state.values()))["step"].item() == 6


def _reasons(function: Callable[..., Any], *args: Any) -> str:
    compiled = lohe.compile(function, replay=True)
    for _ in range(8):
        compiled(*args)
    found = lohe.compile_report(compiled).replay
    assert found["replayed"] == 0
    return "; ".join(found["reasons"])


def test_what_a_replayed_step_may_not_do() -> None:
    model = mlp()
    weight = model[0].weight
    x = lohe.randn(4, 16)

    def loss() -> lohe.Tensor:
        model.zero_grad()
        value = model(x).sum()
        value.backward()
        return value

    assert "detach" in _reasons(loss)
    assert "memory" in _reasons(lambda: loss().item())

    kept = []

    def keeps() -> None:
        loss()
        kept[:] = [weight.grad]

    assert "kept elsewhere" in _reasons(keeps)

    def second_order() -> None:
        model.zero_grad()
        model(x).square().sum().backward(create_graph=True)

    assert "gradient" in _reasons(second_order)

    calls: list[int] = []
    handle = weight.register_hook(lambda g: calls.append(1))
    assert "hooks" in _reasons(lambda: loss().detach()) and len(calls) == 8
    handle.remove()
    handle = weight.register_post_accumulate_grad_hook(lambda p: calls.append(1))
    assert "hooks" in _reasons(lambda: loss().detach()) and len(calls) == 16
    handle.remove()

    def retains() -> lohe.Tensor:
        model.zero_grad()
        y = model(x)
        y.retain_grad()
        y.sum().backward()
        return y.detach()

    assert "hooks" in _reasons(retains)


def test_a_hook_that_comes_later_runs() -> None:
    t = Training(OPTIMIZERS["sgd"], "replayed")
    t.run(6)
    calls: list[int] = []
    next(t.model.parameters()).register_hook(lambda g: calls.append(1))
    t.run(3, first=6)
    assert len(calls) == 3


def test_a_backward_pass_into_calls_before_is_not_replayed() -> None:
    weight = lohe.ones(3, requires_grad=True)
    compiled = lohe.compile(lambda y: y.sum().backward(), replay=True)
    for i in range(8):
        weight.grad = None
        compiled(weight * float(i))
        assert weight.grad.tolist() == [float(i)] * 3
    assert "before" in str(lohe.compile_report(compiled).replay["reasons"])


def test_frozen_parameters_are_seen() -> None:
    plain, again = (Training(OPTIMIZERS["sgd"], how) for how in ("plain", "replayed"))
    for i in range(12):
        for t in (plain, again):
            t.model[0].weight.requires_grad_(not 5 <= i < 8)
            t.run(1, first=i)
    assert all(lohe.equal(p, q) for p, q in zip(plain.model.parameters(), again.model.parameters(), strict=True))
    assert again.replayed() > 2


def test_a_loaded_checkpoint_is_used() -> None:
    plain, again = (Training(OPTIMIZERS["adamw"], how) for how in ("plain", "replayed"))
    for t in (plain, again):
        t.run(5)
        saved = (t.model.state_dict(), t.optimizer.state_dict())
        saved = tuple({k: v.clone() if isinstance(v, lohe.Tensor) else v for k, v in d.items()} for d in saved)
        t.run(3, first=5)
        t.model.load_state_dict(saved[0])
        t.optimizer.load_state_dict(saved[1])
        t.run(8, first=8)
    check_same(plain, again)
    assert again.replayed() > 4


def test_an_audit_of_a_training_step_is_silent(monkeypatch: Any) -> None:
    monkeypatch.setenv("LOHE_REPLAY_AUDIT", "2")
    plain, again = (Training(OPTIMIZERS["adamw"], how) for how in ("plain", "replayed"))
    for t in (plain, again):
        t.run(12)
    check_same(plain, again)
    assert again.counted.runs > 5


def test_replayed_steps_hold_no_more_memory() -> None:
    t = Training(OPTIMIZERS["adamw"], "replayed")
    t.run(6)
    before = lohe.cpu.memory_allocated()
    t.run(50)
    assert lohe.cpu.memory_allocated() <= before


@pytest.mark.parametrize("chunk", range(4))
def test_random_training_gives_the_same_bits(chunk: int) -> None:
    assert sum(replayed.check_training(seed) for seed in range(chunk * 15, chunk * 15 + 15)) > 40
