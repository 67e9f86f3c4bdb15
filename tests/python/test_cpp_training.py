"""Optimizers, schedules and checkpoints of C++ against those of Python: equal bits, and files that go both ways.

build/<preset>/bin/tests/train_tool trains in C++.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import lohe
import pytest
from lohe import nn, optim

OPTIMIZERS = {
    "SGD": lambda groups: optim.SGD(groups, 0.1, momentum=0.9, nesterov=True),
    "Adam": lambda groups: optim.Adam(groups, 0.05, amsgrad=True),
    "AdamW": lambda groups: optim.AdamW(groups, 0.05, betas=(0.8, 0.95)),
    "RMSprop": lambda groups: optim.RMSprop(groups, 0.05, centered=True, momentum=0.5),
}
SCHEDULES = {
    "StepLR": lambda o: optim.lr_scheduler.StepLR(o, 3, 0.5),
    "MultiStepLR": lambda o: optim.lr_scheduler.MultiStepLR(o, [2, 5, 5], 0.3),
    "ConstantLR": lambda o: optim.lr_scheduler.ConstantLR(o, 0.25, 4),
    "LinearLR": lambda o: optim.lr_scheduler.LinearLR(o, 0.3, 0.9, 6),
    "ExponentialLR": lambda o: optim.lr_scheduler.ExponentialLR(o, 0.93),
    "PolynomialLR": lambda o: optim.lr_scheduler.PolynomialLR(o, 7, 1.7),
    "CosineAnnealingLR": lambda o: optim.lr_scheduler.CosineAnnealingLR(o, 4, 0.001),
    "LambdaLR": lambda o: optim.lr_scheduler.LambdaLR(o, lambda epoch: 1.0 / (1.0 + epoch)),
    "MultiplicativeLR": lambda o: optim.lr_scheduler.MultiplicativeLR(o, lambda epoch: 0.9),
}
TOOL = Path(lohe.__file__).parents[2] / "bin" / "tests" / "train_tool"
pytestmark = pytest.mark.skipif(not TOOL.exists(), reason="train_tool is not built")


def cpp(optimizer: str, schedule: str, steps: int, folder: Path, start: Path | None = None) -> Path:
    path = folder / f"cpp{steps}.pt"
    words = [TOOL, optimizer, schedule, str(steps), path, *([start] if start else [])]
    subprocess.run(words, check=True, timeout=60)
    return path


def python(
    optimizer_name: str, schedule_name: str, steps: int, start: dict[str, Any] | None = None
) -> dict[str, Any]:
    lohe.manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
    weights = list(model.parameters())
    optimizer = OPTIMIZERS[optimizer_name]([{"params": weights[:2]}, {"params": weights[2:]}])
    optimizer.param_groups[1]["lr"] = 0.02
    x, y = lohe.randn(8, 4), lohe.randn(8, 2)
    if start is not None:
        model.load_state_dict(start["model"])
        optimizer.load_state_dict(start["optimizer"])
    schedule = SCHEDULES[schedule_name](optimizer)
    rates = []
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
        schedule.step()
        rates += schedule.get_last_lr()
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "rates": rates}


def assert_same(got: Any, expected: Any) -> None:
    if isinstance(expected, lohe.Tensor):
        assert got.dtype == expected.dtype
        assert got.numpy().tobytes() == expected.numpy().tobytes()
    elif isinstance(expected, dict):
        assert expected.keys() <= got.keys()
        for key, value in expected.items():
            assert_same(got[key], value)
    elif isinstance(expected, (list, tuple)):
        assert len(got) == len(expected)
        for a, b in zip(got, expected):
            assert_same(a, b)
    else:
        assert got == expected


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("schedule", ["StepLR", "CosineAnnealingLR"])
def test_training_gives_the_same_bits(optimizer: str, schedule: str, tmp_path: Path) -> None:
    loaded = lohe.load(cpp(optimizer, schedule, 9, tmp_path))
    expected = python(optimizer, schedule, 9)
    assert_same(loaded["model"], expected["model"])
    assert_same(loaded["rates"], expected["rates"])
    assert_same(loaded["optimizer"]["state"], expected["optimizer"]["state"])
    for got, group in zip(loaded["optimizer"]["param_groups"], expected["optimizer"]["param_groups"]):
        assert_same({**group, **got}, group)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_give_the_same_rates(schedule: str, tmp_path: Path) -> None:
    loaded = lohe.load(cpp("SGD", schedule, 10, tmp_path))
    assert loaded["rates"] == python("SGD", schedule, 10)["rates"]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_run_of_one_language_goes_on_in_the_other(optimizer: str, tmp_path: Path) -> None:
    first = python(optimizer, "ExponentialLR", 4)
    lohe.save(first, tmp_path / "python.pt")
    both = lohe.load(cpp(optimizer, "ExponentialLR", 5, tmp_path, tmp_path / "python.pt"))
    expected = python(optimizer, "ExponentialLR", 5, first)
    assert_same(both["model"], expected["model"])
    assert_same(both["optimizer"]["state"], expected["optimizer"]["state"])
    start = lohe.load(cpp(optimizer, "ExponentialLR", 4, tmp_path))
    assert_same(python(optimizer, "ExponentialLR", 5, start)["model"], expected["model"])


def test_torch_reads_what_cpp_saved(oracle: Any, tmp_path: Path) -> None:
    loaded = oracle.load(cpp("AdamW", "StepLR", 3, tmp_path), weights_only=True)
    model = oracle.nn.Sequential(oracle.nn.Linear(4, 6), oracle.nn.Tanh(), oracle.nn.Linear(6, 2))
    model.load_state_dict(loaded["model"])
    optimizer = oracle.optim.AdamW(
        [{"params": list(model[0].parameters())}, {"params": list(model[2].parameters())}]
    )
    optimizer.load_state_dict(loaded["optimizer"])
    model(oracle.ones(1, 4)).sum().backward()
    optimizer.step()
