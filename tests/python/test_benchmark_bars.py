"""When a benchmark's table says that a bar is met."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

_PATH = Path(__file__).resolve().parents[2] / "benchmarks" / "report.py"
_SPEC = importlib.util.spec_from_file_location("benchmark_report", _PATH)
assert _SPEC is not None and _SPEC.loader is not None
report = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = report  # dataclasses ask for it
_SPEC.loader.exec_module(report)


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
