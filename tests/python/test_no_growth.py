"""Training does not grow: after a warm-up, memory and objects stay where they are however many steps follow.

The long version, 10,000 steps, is marked slow (`tools/test --slow`); a short one runs always.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from typing import Any

import lohe
import pytest
from lohe import nn

PAGE = os.sysconf("SC_PAGE_SIZE")


def _resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * PAGE


class Net(nn.Module):
    """A bit of everything: embedding, convolution, normalization, attention, dropout, a buffer, a hook."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 16)
        self.convolution = nn.Conv1d(16, 16, 3, padding=1)
        self.attention = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.norm = nn.BatchNorm1d(16)
        self.drop = nn.Dropout(0.1)
        self.out = nn.Linear(16, 20)
        self.register_buffer("seen", lohe.zeros(1))

    def forward(self, tokens: Any) -> Any:
        x = self.embedding(tokens)
        x = self.convolution(x.transpose(1, 2))
        x = self.drop(self.norm(x)).transpose(1, 2)
        self.seen += 1
        return self.out(self.attention(x))


class Words(lohe.utils.data.Dataset):
    def __len__(self) -> int:
        return 64

    def __getitem__(self, i: int) -> tuple[Any, Any]:
        words = (lohe.arange(9) * (i + 3)) % 20
        return words[:-1], words[1:]


def _steps(count: int) -> Iterator[int]:
    """Trains; yields the number of each finished step."""
    model = Net()
    parameters = list(model.parameters())
    optimizer = lohe.optim.AdamW([{"params": parameters[:4], "lr": 1e-3}, {"params": parameters[4:]}], lr=2e-3)
    schedule = lohe.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=count)
    handle = model.out.register_forward_hook(lambda module, args, result: None)
    loader = lohe.utils.data.DataLoader(Words(), batch_size=8, shuffle=True)
    step, data = 0, iter(loader)
    while step < count:
        try:
            tokens, targets = next(data)
        except StopIteration:
            data = iter(loader)
            continue
        optimizer.zero_grad()
        logits = model(tokens)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0:  # what programs do besides
            with lohe.no_grad():
                model.eval()
                model(tokens).argmax(-1)
                model.train()
            try:
                lohe.ones(3) + lohe.ones(4)
            except RuntimeError:
                pass
            assert loss.item() == loss.item()
        step += 1
        yield step
    handle.remove()


def _check(warm_up: int, count: int) -> None:
    states = []
    for step in _steps(warm_up + count):
        if step in (warm_up, warm_up + count):
            gc.collect()
            stats = lohe.cpu.memory_stats()
            states.append((_resident_bytes(), stats["allocated_bytes"], stats["reserved_bytes"], len(gc.get_objects())))
    (rss, allocated, reserved, objects), (rss_after, allocated_after, reserved_after, objects_after) = states
    print(f"{count} steps: RSS {rss} -> {rss_after}, allocated {allocated} -> {allocated_after}, "
          f"reserved {reserved} -> {reserved_after}, objects {objects} -> {objects_after}")  # fmt: skip
    # A batch of another length lives at one of the two moments; a leak of one small tensor a step would show tenfold.
    assert allocated_after - allocated < 64 * count
    assert allocated_after - allocated < 32 << 10
    assert reserved_after - reserved <= 4 << 20
    assert objects_after - objects < 50 + count // 200
    if "asan" not in os.environ.get("LD_PRELOAD", ""):  # which holds freed blocks back
        assert rss_after - rss < (4 << 20) + 200 * count


@pytest.mark.eager
def test_training_does_not_grow() -> None:
    _check(warm_up=150, count=400)


@pytest.mark.slow
def test_ten_thousand_training_steps_do_not_grow() -> None:
    _check(warm_up=500, count=10_000)
