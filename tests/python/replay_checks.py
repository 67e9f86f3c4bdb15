"""What the tests of compile(replay=True) share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lohe
import pytest


@pytest.fixture(autouse=True)
def fresh_compiler() -> Any:
    lohe.compiler.reset()
    lohe.manual_seed(0)
    yield
    assert not lohe.compiler.is_compiling()


class Runs:
    """A count in a place that replay does not look at."""

    count = 0


def counted(function: Callable[..., Any]) -> tuple[Callable[..., Any], type[Runs]]:
    runs = type("Counted", (Runs,), {})  # classes are not looked into

    def call(*args: Any, **kwargs: Any) -> Any:
        runs.count += 1
        return function(*args, **kwargs)

    return lohe.compile(call, replay=True), runs


def ready(function: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[Callable[..., Any], type[Runs]]:
    """The compiled function after calls that make the next one like them a replay, and the count of its runs."""
    compiled, runs = counted(function)
    for _ in range(4):
        compiled(*args, **kwargs)
    assert runs.count == 3, lohe.compile_report(compiled)
    return compiled, runs


def refused(function: Callable[..., Any], *args: Any, calls: int = 6) -> str:
    """Why a function is never replayed."""
    compiled, runs = counted(function)
    for _ in range(calls):
        compiled(*args)
    assert runs.count == calls
    replay = lohe.compile_report(compiled).replay
    assert replay is not None and replay["replayed"] == 0 and replay["reasons"]
    return "; ".join(replay["reasons"])
