"""The long-lived process that measures one side; ``run.py`` starts it and talks JSON lines over pipes.

Requests: ``{"do": "hello"}``, ``{"do": "block", "case": name, "seconds": s}``, ``{"do": "fastest", ...}``
(the same, the fastest part of the block), ``{"do": "drop"}`` (forget the
case's data and its compiled programs), ``{"do": "memory", "case": name}``, ``{"do": "first", "case": name}`` (the
first compiled calls above an eager one), ``{"do": "equal", "case": name}`` (whether compiled results have the bits
of eager ones), ``{"do": "limits", "case": name}`` (what the steps of its program take, and at least). Every answer to a block carries the seconds of one repetition and the number of threads in use after it.
An ``error`` is ``absent`` besides when the module is not installed or does not have the case.

A module with ``STEPS`` is an adapter with steps of its own, by case; for any other the cases are made with the module.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import sys
import time
import timeit
from pathlib import Path
from typing import Any

import patterns
import suites


def main() -> None:
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--module", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--fused", action="store_true")
    parser.add_argument("--foreach", action="store_true")
    parser.add_argument("--compiled", action="store_true")
    arguments = parser.parse_args()
    module, side, failure = None, None, {}
    try:
        module = importlib.import_module(arguments.module)
        after_import = _status("VmRSS")
        module.set_num_threads(arguments.threads)
        side = Side(module, suites.Options(arguments.fused, arguments.foreach, arguments.compiled))
    except Exception as error:  # noqa: BLE001 - the parent prints it
        failure = {"error": _line(error), "absent": isinstance(error, ModuleNotFoundError)}
    for line in sys.stdin:
        request = json.loads(line)
        if module is None or side is None:
            print(json.dumps(failure), file=channel)
            continue
        try:
            if request["do"] == "hello":
                answer: dict[str, Any] = {"version": module.__version__}
            elif request["do"] == "drop":
                answer = side.drop()
            elif request["do"] == "memory":
                answer = {"bytes": side.peak(request["case"]) - after_import}
            elif request["do"] == "first":
                answer = {"seconds": side.first_calls(request["case"]), "compiling": side.compiling()}
            elif request["do"] == "equal":
                answer = {"equal": side.equal(request["case"])}
            elif request["do"] == "limits":
                answer = {"steps": side.limits(request["case"])}
            else:
                measure = side.fastest if request["do"] == "fastest" else side.block
                answer = measure(request["case"], request["seconds"])
            answer["threads"] = module.get_num_threads()
        except AbsentError as error:
            answer = {"error": str(error), "absent": True}
        except Exception as error:  # noqa: BLE001 - the parent prints it in the row
            answer = {"error": _line(error)}
        print(json.dumps(answer), file=channel)


class AbsentError(Exception):
    """A side does not have the case."""


class Side:
    """The cases of one framework, made on first use and timed by ``timeit``: a tight loop, no collector."""

    def __init__(self, module: Any, options: suites.Options):
        self._module = module
        self._options = options
        self._cases = suites.all_cases()
        self._timers: dict[str, tuple[timeit.Timer, int]] = {}

    def block(self, name: str, seconds: float) -> dict[str, Any]:
        """The seconds of one repetition, over a block of about ``seconds``."""
        if name not in self._timers:
            self._timers[name] = self._prepare(name, seconds)
        timer, repetitions = self._timers[name]
        each = timer.timeit(repetitions) / repetitions
        self._timers[name] = (
            timer,
            max(1, round(seconds / each)),
        )  # the first estimate may have met a busy machine
        return {"seconds": each, "repetitions": repetitions}

    def fastest(self, name: str, seconds: float) -> dict[str, Any]:
        """The seconds of one repetition in the fastest of the parts, of 0.2 ms or one repetition, of a block."""
        if name not in self._timers:
            self._timers[name] = self._prepare(name, seconds)
        timer, repetitions = self._timers[name]
        repetitions = max(1, round(repetitions * 2e-4 / seconds))
        best, end = math.inf, time.perf_counter() + seconds
        while time.perf_counter() < end:
            best = min(best, timer.timeit(repetitions) / repetitions)
            repetitions = max(1, round(2e-4 / best))
        self._timers[name] = (timer, max(1, round(seconds / best)))
        return {"seconds": best, "repetitions": repetitions}

    def drop(self) -> dict[str, Any]:
        self._timers.clear()
        if self._options.compiled:
            self._module.compiler.reset()  # else PyTorch's next size of a function is compiled for all sizes
        return {}

    def peak(self, name: str) -> int:
        """The peak resident size, in bytes, while the case is made and run three times."""
        Path("/proc/self/clear_refs").write_text("5")
        case = self._cases[name]
        timeit.Timer(case.statement, globals=case.make(self._module, self._options)).timeit(3)
        return _status("VmHWM")

    def first_calls(self, name: str) -> list[float]:
        """The seconds of the first three calls of a compiled case above the fastest of eager ones."""
        case = self._cases[name]
        eager = timeit.Timer(case.statement, globals=case.make(self._module, suites.Options()))
        eager.timeit(3)
        usual = min(eager.repeat(7, 1))
        compiled = timeit.Timer(case.statement, globals=case.make(self._module, self._options))
        return [seconds - usual for seconds in compiled.repeat(3, 1)]

    def compiling(self) -> float | None:
        """The seconds that making all programs of this process took; None where the module does not tell."""
        if not hasattr(self._module, "compile_report"):
            return None
        programs = self._module.compile_report(None).programs
        return sum(p["compile_nanoseconds"] for p in programs) * 1e-9

    def equal(self, name: str) -> bool:
        """Whether the results of each of four compiled calls have the bits of the eager call's."""
        case, module = self._cases[name], self._module
        eager, compiled = (
            case.make(module, o)["call"] for o in (suites.Options(), suites.Options(compiled=True))
        )

        def bits(call: Any) -> list[Any]:
            module.manual_seed(1)
            kinds = {1: module.int8, 2: module.int16, 4: module.int32, 8: module.int64}
            return [t.detach().view(kinds[t.element_size()]) for t in patterns.listed(call())]

        wanted = bits(eager)
        return all(
            all(module.equal(w, g) for w, g in zip(wanted, bits(compiled), strict=True)) for _ in range(4)
        )

    def limits(self, name: str) -> list[dict[str, Any]]:
        """The steps of a compiled case's program by name: times, seconds, least seconds (0: not known), flops, bytes."""
        case = self._cases[name]
        timer = timeit.Timer(case.statement, globals=case.make(self._module, self._options))
        timer.timeit(4)
        before = self._module._C._record_profile(True)
        try:
            timer.timeit(20)
        finally:
            self._module._C._record_profile(before)
        programs = self._module.compile_report(None).programs
        steps = max(programs, key=lambda p: sum(s["nanoseconds"] for s in p["steps"]))["steps"]
        found: dict[str, dict[str, Any]] = {}
        for step in steps:
            each = found.setdefault(
                step["name"],
                {"name": step["name"], "times": 0, "seconds": 0.0, "least": 0.0, "flops": 0, "bytes": 0},
            )
            seconds = step["nanoseconds"] * 1e-9
            each["times"] += 1
            each["seconds"] += seconds
            each["least"] += seconds * (step["share"] or 0.0)
            each["flops"] += step["flops"]
            each["bytes"] += step["bytes"]
        return sorted(found.values(), key=lambda s: -s["seconds"])

    def _make(self, case: suites.Case) -> dict[str, Any]:
        steps = getattr(self._module, "STEPS", None)
        if steps is None:
            return case.make(self._module, self._options)
        if case.name not in steps:
            raise AbsentError(f"{self._module.__name__} has no {case.name}")
        return {"step": steps[case.name]()}

    def _prepare(self, name: str, seconds: float) -> tuple[timeit.Timer, int]:
        case = self._cases[name]
        timer = timeit.Timer(case.statement, globals=self._make(case))
        timer.timeit(2)  # first calls: allocation, code generation
        repetitions, elapsed = 1, timer.timeit(1)
        while elapsed < seconds / 4 and repetitions < 1 << 24:
            repetitions *= 2
            elapsed = timer.timeit(repetitions)
        return timer, max(1, round(repetitions * seconds / elapsed))


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:160]


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


if __name__ == "__main__":
    main()
