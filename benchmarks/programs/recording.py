"""What compile() costs beside its kernels, from Python: recording.cpp's measurements. Prints "name<TAB>nanoseconds"."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import lohe

OPERATIONS, ROUNDS, CALLS = 300, 400, 200


def record_an_operation(x: Any, y: Any) -> float:
    """A step's worth of operations is written down; doing them is not measured."""
    best = float("inf")
    for _ in range(ROUNDS):
        with lohe.compiler.lazy():
            value = x
            start = time.perf_counter_ns()
            for _ in range(OPERATIONS):
                value = value + y
            best = min(best, (time.perf_counter_ns() - start) / OPERATIONS)
    return best


def call(f: Callable[[Any], Any], x: Any) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter_ns()
        for _ in range(CALLS):
            f(x)
        best = min(best, (time.perf_counter_ns() - start) / CALLS)
    return best


def main() -> None:
    lohe.set_num_threads(1)
    x, y, z = (lohe.randn(64) for _ in range(3))

    def three(t: Any) -> Any:
        return lohe.relu(t * y + z)

    with lohe.no_grad():
        print(f"record an operation\t{record_an_operation(x, y):.3f}")
        print(f"call a compiled function of three operations\t{call(lohe.compile(three), x):.3f}")
        print(f"the same function, eager\t{call(three, x):.3f}")


if __name__ == "__main__":
    main()
