"""Random functions and training steps, for compile(replay=True): each is called some times, replayed where it can be, and
must leave every bit, version and view as the plain function does.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import lohe
from lohe import nn
from lohe.nn import functional as F


def random_function(seed: int) -> tuple[Callable[..., Any], list[lohe.Tensor]]:
    """A function of three tensors and two closures: views, writes in place, reductions, results that share memory,
    random numbers, indexing.
    """
    draw = random.Random(seed)
    state = [lohe.randn(4, 6), lohe.randn(6)]
    steps = [
        (draw.randrange(17), draw.randrange(100), draw.randrange(100)) for _ in range(draw.randrange(3, 12))
    ]
    count = draw.randrange(1, 4)

    def function(*arguments: lohe.Tensor) -> Any:
        values = [*arguments, *state]
        for op, i, j in steps:
            a, b = values[i % len(values)], values[j % len(values)]
            if op == 0:
                values.append(a.t() if a.dim() == 2 else a.unsqueeze(0))
            elif op == 1:
                values.append(a[..., 1:] if a.dim() else a)
            elif op in (2, 3):
                try:
                    _ = a.mul_(0.5) if op == 2 else a.copy_(b)
                except RuntimeError:  # elements of an expanded view, other shapes
                    pass
            elif op == 4:
                values.append(a.sum(-1) if a.dim() else a)
            elif op == 5:
                values.append(a.reshape(-1))
            elif op == 6:
                values.append(a.tanh())
            elif op == 7 and a.shape == b.shape:
                values.append(a * b + 1)
            elif op == 8:
                values.append(a.amax(0) if a.dim() and a.numel() else a)
            elif op == 9:
                values.append((a > 0).to(lohe.float64))
            elif op == 10 and a.dim() == 2:
                values.append(a.softmax(-1))
            elif op == 11:
                values.append(a.detach().expand(2, *a.shape))
            elif op == 12 and a.is_floating_point():
                values.append(F.dropout(a, 0.3))
            elif op == 13:
                values.append(a + lohe.rand_like(a))
            elif op == 14:
                try:
                    a.uniform_(-1, 1)
                except RuntimeError:  # elements of an expanded view
                    pass
            elif op == 15 and a.dim() and a.numel():
                at = lohe.arange(3) % a.shape[0]
                values.append(a[at])
                values.append(lohe.zeros_like(a).index_add_(0, at, a[at], alpha=2))
            elif op == 16 and a.dim() and a.numel():
                at = lohe.zeros(a.shape, dtype=lohe.int64)
                values.append(lohe.zeros_like(a).scatter_add_(0, at, a))
        made = values[len(arguments) + len(state) :]
        return tuple(made[-count:]), arguments[0]

    return function, state


def same(a: lohe.Tensor, b: lohe.Tensor) -> bool:
    """Equal bits, layout and count of writes."""
    alike = (
        a.shape == b.shape and a.dtype == b.dtype and a.stride() == b.stride() and a._version == b._version
    )
    return (
        alike
        and lohe.equal(a.isnan() if a.is_floating_point() else a, b.isnan() if b.is_floating_point() else b)
        and (not a.is_floating_point() or lohe.equal(a.nan_to_num(7.5), b.nan_to_num(7.5)))
    )


def check_function(seed: int) -> int:
    """Calls the function of a seed, replayed and plain. Gives how many calls were replayed; AssertionError: they differ."""
    plain, plain_state = random_function(seed)
    function, state = random_function(seed)
    compiled = lohe.compile(function, replay=True)
    for a, b in zip(state, plain_state, strict=True):
        a.data.copy_(b)
    for call in range(7):
        lohe.manual_seed(1000 * seed + call)
        base = lohe.randn(4, 8)
        arguments = [lohe.randn(4, 6), base[:, 1:7], lohe.randn(6)]
        copies = [arguments[0].clone(), base.clone()[:, 1:7], arguments[2].clone()]
        if call >= 5 and seed % 4 == 0:
            arguments[2], copies[2] = arguments[0][0], copies[0][0]
        with lohe.no_grad():
            before = lohe.get_rng_state()
            got = compiled(*arguments)
            after = lohe.get_rng_state()
            lohe.set_rng_state(before)
            want = plain(*copies)
        assert lohe.equal(after, lohe.get_rng_state()), seed
        assert got[1] is arguments[0], seed
        pairs = [
            *zip([*arguments, *state], [*copies, *plain_state], strict=True),
            *zip(got[0], want[0], strict=True),
        ]
        assert all(same(g, w) for g, w in pairs), seed
        assert all(g._is_view() == w._is_view() for g, w in zip(got[0], want[0], strict=True)), seed
    return int(lohe.compile_report(compiled).replay["replayed"])


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 12), nn.LayerNorm(12), nn.GELU(), nn.Linear(12, 4))


class Training:
    """A model, its optimizer, and a step that is compiled or not."""

    def __init__(
        self, optimizer: Callable[..., Any], how: str, *, set_to_none: bool = True, model: Any = None
    ) -> None:
        lohe.manual_seed(3)
        self.model = (model or mlp)()
        self.optimizer = optimizer(self.model.parameters())
        counted = type("Counted", (), {"runs": 0})  # replay does not look into classes
        self.counted = counted

        def step(x: lohe.Tensor, y: lohe.Tensor) -> lohe.Tensor:
            counted.runs += 1
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
            lohe.manual_seed(i + 1000)
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


def check_same(a: Training, b: Training) -> None:
    """AssertionError where parameters, gradients and states differ, or what can be seen of them."""
    for x, y in zip(a.everything(), b.everything(), strict=True):
        assert same(x, y) and x._version == y._version and x.stride() == y.stride()
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


def random_training(seed: int) -> tuple[Callable[[], nn.Module], Callable[..., Any]]:
    draw = random.Random(seed)
    widths = [draw.choice([4, 8, 12]) for _ in range(draw.randrange(1, 4))]
    kinds = [
        draw.choice(["relu", "gelu", "norm", "tanh", "residual", "twice", "dropout", "noise", "picked"])
        for _ in widths
    ]

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
                elif kind == "dropout":
                    x = F.dropout(F.dropout(x, 0.2), 0.5) * 2
                elif kind == "noise":
                    x = x + lohe.randn_like(x) * 0.1 + lohe.zeros_like(x).bernoulli_(0.5)
                elif kind == "picked":
                    x = x[:, lohe.arange(x.shape[1] + 2) % x.shape[1]][:, 1 : x.shape[1] + 1]
                elif kind == "twice":
                    x = x @ (
                        self.layers[0].weight[: x.shape[-1], : x.shape[-1]].mean() * lohe.eye(x.shape[-1])
                    )
            return x

    draw_in_place = draw.random() < 0.5
    return Model, OPTIMIZERS[draw.choice(list(OPTIMIZERS))]


def check_training(seed: int) -> int:
    """Trains the model of a seed, replayed and plain. Gives how many steps were replayed; AssertionError: they differ."""
    model, optimizer = random_training(seed)
    plain, replayed = (
        Training(optimizer, how, set_to_none=seed % 3 != 0, model=model) for how in ("plain", "replayed")
    )
    want, state = plain.run(8), lohe.get_rng_state()
    for a, b in zip(want, replayed.run(8), strict=True):
        assert same(a, b), seed
    assert lohe.equal(state, lohe.get_rng_state()), seed
    check_same(plain, replayed)
    return replayed.replayed()
