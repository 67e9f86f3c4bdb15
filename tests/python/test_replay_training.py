"""compile(replay=True) of whole training steps: forward, backward and update, without running the step again."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import lohe
import pytest
from lohe import nn
from lohe.nn import functional as F

pytestmark = pytest.mark.eager  # these tests record by themselves


@pytest.fixture(autouse=True)
def fresh_compiler() -> Any:
    lohe.compiler.reset()
    lohe.manual_seed(0)
    yield
    assert not lohe.compiler.is_compiling()


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 12), nn.LayerNorm(12), nn.GELU(), nn.Linear(12, 4))


class Training:
    """A model, its optimizer, and a step that is compiled or not."""

    def __init__(self, optimizer: Callable[..., Any], how: str, *, set_to_none: bool = True, model: Any = None) -> None:
        lohe.manual_seed(3)
        self.model = (model or _mlp)()
        self.optimizer = optimizer(self.model.parameters())
        self.runs = 0

        def step(x: lohe.Tensor, y: lohe.Tensor) -> lohe.Tensor:
            self.runs += 1
            optimizer.zero_grad(set_to_none=set_to_none)
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss.detach()

        model, optimizer = self.model, self.optimizer
        self.step = step if how == "plain" else lohe.compile(step, replay=how == "replayed")

    def run(self, steps: int, first: int = 0) -> list[Any]:
        losses = []
        for i in range(first, first + steps):
            g = lohe.Generator().manual_seed(i)
            losses.append(self.step(lohe.randn(8, 16, generator=g), lohe.randint(0, 4, (8,), generator=g)))
        return losses

    def everything(self) -> list[lohe.Tensor]:
        found = []
        for p in self.model.parameters():
            found += [p.detach()] + ([] if p.grad is None else [p.grad])
            found += [v for v in self.optimizer.state[p].values() if isinstance(v, lohe.Tensor)]
        return found

    def replayed(self) -> int:
        return int(lohe.compile_report(self.step).replay["replayed"])


def _same(a: Training, b: Training) -> None:
    for x, y in zip(a.everything(), b.everything(), strict=True):
        assert lohe.equal(x, y) and x._version == y._version and x.stride() == y.stride()
    for p, q in zip(a.model.parameters(), b.model.parameters(), strict=True):
        assert p._version == q._version and p.is_leaf and p.requires_grad
        assert (p.grad is None) == (q.grad is None)
        assert p.grad is None or (p.grad is p.grad and p.grad.is_leaf and not p.grad.requires_grad)


OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "sgd": lambda p: lohe.optim.SGD(p, lr=0.1),
    "momentum": lambda p: lohe.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda p: lohe.optim.Adam(p, lr=0.01, weight_decay=0.1),
    "adamw": lambda p: lohe.optim.AdamW(p, lr=0.01),
    "amsgrad": lambda p: lohe.optim.AdamW(p, lr=0.01, amsgrad=True),
    "rate in a tensor": lambda p: lohe.optim.AdamW(p, lr=lohe.tensor(0.01)),
}


@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_training_step_is_replayed_bit_for_bit(name: str, set_to_none: bool) -> None:
    plain, replayed = (Training(OPTIMIZERS[name], how, set_to_none=set_to_none) for how in ("plain", "replayed"))
    for a, b in zip(plain.run(12), replayed.run(12), strict=True):
        assert lohe.equal(a, b)
    _same(plain, replayed)
    # The first call makes the optimizer's state; with set_to_none=False the first gradients are made there, too.
    assert replayed.replayed() >= 8, lohe.compile_report(replayed.step)
    assert replayed.runs + replayed.replayed() == 12


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
        _same(*pair)
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
    plain, replayed = (Training(OPTIMIZERS["adam"], how) for how in ("plain", "replayed"))
    for i in range(14):
        for t in (plain, replayed):
            t.run(1, first=i)
            if i % 3 == 2:
                t.optimizer.zero_grad()
            if i == 10:
                next(t.model.parameters()).grad = lohe.ones(12, 16)
    _same(plain, replayed)
    assert replayed.replayed() > 2


def test_gradients_accumulate_over_replays() -> None:
    def made(how: str) -> Any:
        lohe.manual_seed(1)
        model = _mlp()

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
        model = _mlp()
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


def _reasons(function: Callable[..., Any], *args: Any) -> str:
    compiled = lohe.compile(function, replay=True)
    for _ in range(8):
        compiled(*args)
    found = lohe.compile_report(compiled).replay
    assert found["replayed"] == 0
    return "; ".join(found["reasons"])


def test_what_a_replayed_step_may_not_do() -> None:
    model = _mlp()
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
    plain, replayed = (Training(OPTIMIZERS["sgd"], how) for how in ("plain", "replayed"))
    for i in range(12):
        for t in (plain, replayed):
            t.model[0].weight.requires_grad_(not 5 <= i < 8)
            t.run(1, first=i)
    assert all(lohe.equal(p, q) for p, q in zip(plain.model.parameters(), replayed.model.parameters(), strict=True))
    assert replayed.replayed() > 2


def test_a_loaded_checkpoint_is_used() -> None:
    plain, replayed = (Training(OPTIMIZERS["adamw"], how) for how in ("plain", "replayed"))
    for t in (plain, replayed):
        t.run(5)
        saved = (t.model.state_dict(), t.optimizer.state_dict())
        saved = tuple({k: v.clone() if isinstance(v, lohe.Tensor) else v for k, v in d.items()} for d in saved)
        t.run(3, first=5)
        t.model.load_state_dict(saved[0])
        t.optimizer.load_state_dict(saved[1])
        t.run(8, first=8)
    _same(plain, replayed)
    assert replayed.replayed() > 4


def test_an_audit_of_a_training_step_is_silent(monkeypatch: Any) -> None:
    monkeypatch.setenv("LOHE_REPLAY_AUDIT", "2")
    plain, replayed = (Training(OPTIMIZERS["adamw"], how) for how in ("plain", "replayed"))
    for t in (plain, replayed):
        t.run(12)
    _same(plain, replayed)
    assert replayed.runs > 5


def test_replayed_steps_hold_no_more_memory() -> None:
    t = Training(OPTIMIZERS["adamw"], "replayed")
    t.run(6)
    before = lohe.cpu.memory_allocated()
    t.run(50)
    assert lohe.cpu.memory_allocated() <= before


def _random_training(seed: int) -> tuple[Callable[[], nn.Module], Callable[..., Any]]:
    draw = random.Random(seed)
    widths = [draw.choice([4, 8, 12]) for _ in range(draw.randrange(1, 4))]
    kinds = [draw.choice(["relu", "gelu", "norm", "tanh", "residual", "twice"]) for _ in widths]

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            sizes = [16, *widths, 4]
            self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:], strict=False))
            self.scale = nn.Parameter(lohe.ones(1))
            self.unused = nn.Parameter(lohe.ones(3))

        def forward(self, x: lohe.Tensor) -> lohe.Tensor:
            for layer, kind in zip(self.layers, [*kinds, "none"], strict=True):
                x = layer(x)
                if kind == "relu":
                    x = F.relu(x, inplace=draw_in_place)
                elif kind == "gelu":
                    x = F.gelu(x)
                elif kind == "norm":
                    x = F.layer_norm(x, x.shape[-1:])
                elif kind == "tanh":
                    x = x.tanh() * self.scale
                elif kind == "residual":
                    x = x + x.sigmoid() * x.mean(-1, keepdim=True)
                elif kind == "twice":
                    x = x @ (self.layers[0].weight[: x.shape[-1], : x.shape[-1]].mean() * lohe.eye(x.shape[-1]))
            return x

    draw_in_place = draw.random() < 0.5
    return Model, OPTIMIZERS[draw.choice(list(OPTIMIZERS))]


@pytest.mark.parametrize("chunk", range(4))
def test_random_training_gives_the_same_bits(chunk: int) -> None:
    count = 0
    for seed in range(chunk * 15, chunk * 15 + 15):
        model, optimizer = _random_training(seed)
        set_to_none = seed % 3 != 0
        plain, replayed = (
            Training(optimizer, how, set_to_none=set_to_none, model=model) for how in ("plain", "replayed")
        )
        for a, b in zip(plain.run(8), replayed.run(8), strict=True):
            assert lohe.equal(a, b), seed
        _same(plain, replayed)
        count += replayed.replayed()
    assert count > 40
