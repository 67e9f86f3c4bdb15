"""When a benchmark waits for the machine's processors to come close to one another."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

_PATH = Path(__file__).resolve().parents[2] / "benchmarks" / "machine.py"
_SPEC = importlib.util.spec_from_file_location("benchmark_machine", _PATH)
assert _SPEC is not None and _SPEC.loader is not None
machine = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = machine
_SPEC.loader.exec_module(machine)


def _placement(trips: Iterator[float | None], waits: list[float]) -> machine.Placement:
    return machine.Placement(lambda: next(trips), waits.append)


def test_a_round_waits_while_processors_are_far_apart() -> None:
    waits: list[float] = []
    placement = _placement(iter([500e-9, 490e-9, 95e-9]), waits)
    assert placement.settle()
    assert len(waits) == 2
    assert placement.seconds == 95e-9


def test_it_does_not_wait_where_they_are_near_or_nothing_is_known() -> None:
    waits: list[float] = []
    assert _placement(iter([40e-9]), waits).settle()
    assert _placement(iter([None]), waits).settle()
    assert waits == []


def test_it_gives_up_and_says_so_on_a_machine_whose_processors_stay_far_apart() -> None:
    waits: list[float] = []
    placement = _placement(iter([500e-9] * 1000), waits)
    assert not placement.settle()
    assert sum(waits) == machine.Placement.PATIENCE
    assert not placement.settle()
    assert sum(waits) == machine.Placement.PATIENCE
