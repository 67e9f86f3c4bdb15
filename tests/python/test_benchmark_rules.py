"""When a benchmark's table says that a bar is met, and when a round waits for the machine."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def _load(name: str) -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses ask for it
    spec.loader.exec_module(module)
    return module


report, machine = _load("report"), _load("machine")


@pytest.mark.parametrize(
    ("bar", "ratio", "met"), [(1.0, 0.98, True), (1.0, 0.96, False), (1.3, 1.28, False), (1.3, 1.31, True)]
)
def test_only_a_bar_of_one_has_room_below_it(bar: float, ratio: float, met: bool) -> None:
    assert report.Row("case", ours=[1.0] * 7, theirs=[ratio] * 7, bar=bar).met() is met
    row = report.Comparison("case", {"ours": [1.0], "theirs": [ratio]}, {"theirs": bar})
    assert row.reached({"theirs": ("theirs",)}) is met


@pytest.mark.parametrize(("limit", "ratio", "met"), [(0.85, 1.01, True), (0.85, 0.9, False), (0.75, 1.01, False)])
def test_near_the_limit_as_fast_as_the_rival_is_enough(limit: float, ratio: float, met: bool) -> None:
    row = report.Comparison("case", {"ours": [1.0], "theirs": [ratio]}, {"theirs": 1.3}, limit=limit)
    assert row.reached({"theirs": ("theirs",)}) is met


def test_the_median_of_alternating_runs_is_judged_against_the_best_rival() -> None:
    # Runs 2 and 3 met a machine half as fast: the ratio of a run does not change, one of the fastest runs would.
    seconds = {"ours": [1.0, 2.0, 2.0], "first": [1.5, 3.0, 2.8], "second": [1.4, 2.4, 2.4]}
    row = report.Comparison("case", seconds, {"best": 1.3}, limit=1.0)
    assert row.ratio(("first", "second")) == pytest.approx(1.2)
    assert row.ratio(("first",)) == pytest.approx(1.5)
    assert row.share() == pytest.approx(0.5)
    assert row.reached({"best": ("first", "second")}) is False


@pytest.mark.parametrize(("ratio", "close"), [(1.17, False), (1.19, True), (1.42, True), (1.44, False)])
def test_ratios_on_either_side_of_a_bar_are_close_to_it(ratio: float, close: bool) -> None:
    row = report.Comparison("case", {"ours": [1.0], "theirs": [ratio]}, {"theirs": 1.3})
    assert row.close({"theirs": ("theirs",)}, 0.1) is close


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


def test_the_limit_of_a_step_is_the_hardest_that_several_processes_measured() -> None:
    def steps(**times: tuple[float, float]) -> list[dict[str, Any]]:
        return [{"name": n, "times": 2, "seconds": s, "least": at_least} for n, (s, at_least) in times.items()]

    # The second process met a slow moment: its peak, and so its limit, is easier to reach.
    merged = report.least_times([steps(mm=(3.0, 2.0), gelu=(1.0, 0.1)), steps(gelu=(4.5, 0.2), mm=(4.0, 2.5))])
    assert merged == steps(mm=(3.0, 2.0), gelu=(1.0, 0.1))
