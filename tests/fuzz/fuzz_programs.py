#!/usr/bin/env python3
"""Random programs over the ops of the table: against PyTorch, and Lohe against itself under other settings.

Each program mixes views, in-place writes, reductions, indexing, dtype promotion and whatever else the op table has, then
takes gradients. Compared with PyTorch: values, dtypes, shapes, strides, shared memory, gradients, and the types of
errors. After an error every tensor must be as it was. With 2 and 3 threads, at lower CPU levels and in the kernel
interpreter the results must have the same bits. A program that fails is shrunk, then printed with its seed.

Exit status: 0 when nothing was found, 1 otherwise.
"""

from __future__ import annotations

import argparse
import collections
import os
import pickle
import random
import select
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import numpy as np
from generate import Generator, forms
from program import Call, Leaf, Machine, Program, Trace, Value, as_python, references, widened
from seeds import add_options, seeds

ANSWER_SECONDS = 60.0
# Settings that must not change a bit: environment and number of threads.
SETTINGS: dict[str, tuple[dict[str, str], int]] = {
    "2 threads": ({"LOHE_DEBUG_WAKE": "1"}, 2),
    "3 threads": ({"LOHE_DEBUG_WAKE": "1"}, 3),
    "avx2": ({"LOHE_CPU_LEVEL": "avx2"}, 1),
    "x86-64-v2": ({"LOHE_CPU_LEVEL": "x86-64-v2"}, 1),
    "interpreter": ({"LOHE_KERNELS": "interpreter"}, 1),
    "guard pages": ({"LOHE_DEBUG_GUARD": "1"}, 1),
}
# Settings under which a program is recorded, with random points where it is settled.
AT_ONCE = {"LOHE_COMPILE_AT": "1", "LOHE_COMPILE_STRICT": "1", "LOHE_COMPILE_RECOMPUTE_FROM": "0", "LOHE_DEBUG_FILL": "1"}
RECORDED: dict[str, tuple[dict[str, str], int]] = {
    "recorded": ({"LOHE_COMPILE_AT": "1000000"}, 1),
    "compiled": (AT_ONCE, 1),
    "compiled, 3 threads": ({**AT_ONCE, "LOHE_DEBUG_WAKE": "1"}, 3),
    "compiled, unfused": ({**AT_ONCE, "LOHE_COMPILE_FUSE": "0"}, 1),
    "compiled, unplanned": ({**AT_ONCE, "LOHE_COMPILE_PLAN_MEMORY": "0"}, 2),
    "compiled, interpreter": ({**AT_ONCE, "LOHE_KERNELS": "interpreter"}, 1),
    "compiled, guard pages": ({**AT_ONCE, "LOHE_DEBUG_GUARD": "1"}, 1),
}
RELATIVE = {"float32": 2e-5, "float64": 1e-8, "bfloat16": 2e-2, "float16": 3e-3, "complex64": 2e-5, "complex128": 1e-8}


@dataclass(frozen=True)
class Finding:
    kind: str
    step: int
    text: str


class Worker:
    """A process that runs programs in Lohe; started again after it died."""

    def __init__(self, environment: dict[str, str]):
        self._environment = {**os.environ, **environment}
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, request: Any) -> Any:
        """The answer, or a string that says how the process ended."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, str(HERE / "worker.py")],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=self._environment,
            )  # fmt: skip
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        data = pickle.dumps(request)
        try:
            process.stdin.write(len(data).to_bytes(8, "little") + data)
            process.stdin.flush()
            size = int.from_bytes(self._read(8), "little")
            return pickle.loads(self._read(size))
        except TimeoutError:
            self.close()
            return f"no answer in {ANSWER_SECONDS:.0f} s"
        except (EOFError, BrokenPipeError):
            status = process.wait()
            self._process = None
            return f"the process ended with status {status}"

    def _read(self, count: int) -> bytes:
        assert self._process is not None and self._process.stdout is not None
        end, parts = time.monotonic() + ANSWER_SECONDS, []
        descriptor = self._process.stdout.fileno()
        while count:
            if not select.select([descriptor], [], [], max(end - time.monotonic(), 0))[0]:
                raise TimeoutError
            data = os.read(descriptor, min(count, 1 << 20))
            if not data:
                raise EOFError
            parts.append(data)
            count -= len(data)
        return b"".join(parts)

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


# Where Lohe decides otherwise, or PyTorch fails inside, by the error's text: such a program says nothing.
PASSED_OVER = (
    "more than one element of the written-to tensor",  # Lohe refuses every write through overlapping memory
    "Could this error message be improved",  # an assertion inside PyTorch
    "inplace version of",  # a derivative that PyTorch has only for the form that is not in place
    "derivative for aten::floor_divide",  # Lohe's is zero, as div's with rounding
    "was created in no_grad mode",  # PyTorch refuses views of tensors that began to need gradients later;
    "and its base or another view of its base has been modified",  # Lohe rebuilds their history
)

# ---- comparing


def close(got: np.ndarray, want: np.ndarray, dtype: str, factor: float = 1.0, gradient: bool = False) -> bool:
    if got.dtype.kind not in "fc":
        return bool(np.array_equal(got, want))
    if got.size == 0:
        return True
    for a, b in ((got.real, want.real), (got.imag, want.imag)) if got.dtype.kind == "c" else ((got, want),):
        finite = np.isfinite(b)
        if gradient:  # at a singular point a formula's NaN or infinity is nobody's promise
            finite &= np.isfinite(a)
        elif not np.array_equal(np.isnan(a), np.isnan(b)) or not np.array_equal(a[~finite & ~np.isnan(b)], b[~finite & ~np.isnan(b)]):
            return False
        scale = np.abs(want[np.isfinite(want)]).max(initial=0.0)
        limit = factor * RELATIVE[dtype] * (np.abs(b[finite]) + 0.05 * scale + 1e-3)
        if np.any(np.abs(a[finite] - b[finite]) > limit):
            return False
    return True


def describe(v: Value) -> str:
    if not v.dtype:
        return repr(v.plain)
    with np.printoptions(threshold=24, edgeitems=4):
        return f"{v.dtype}{list(v.shape)} stride {v.stride} {v.array()!s}"


def compare_value(got: Value, want: Value) -> str | None:
    """What kind of difference there is."""
    if (got.dtype == "") != (want.dtype == ""):
        return "structure"
    if not want.dtype:
        if isinstance(want.plain, float) and isinstance(got.plain, float):
            return None if close(np.array(got.plain), np.array(want.plain), "float32") else "value"
        if isinstance(want.plain, complex) and isinstance(got.plain, complex):
            return None if close(np.array(got.plain), np.array(want.plain), "complex64") else "value"
        return None if got.plain == want.plain and type(got.plain) is type(want.plain) else "structure"
    if got.dtype != want.dtype:
        return "dtype"
    if got.shape != want.shape:
        return "shape"
    if not close(got.array(), want.array(), got.dtype):
        return "value"
    long = [i for i, n in enumerate(want.shape) if n > 1]
    if 0 not in want.shape and [got.stride[i] for i in long] != [want.stride[i] for i in long]:
        return "stride"
    if got.lazy != want.lazy:
        return "lazy bit"
    if got.requires_grad != want.requires_grad:
        return "requires_grad"
    return None


def compare(program: Program, got: Trace, want: Trace) -> Finding | None:
    """The first difference between Lohe's run and PyTorch's, or None."""
    said = [text for trace in (got, want) for _, text in (*trace.errors.values(), trace.backward_error or ("", ""))]
    if any(phrase in text for phrase in PASSED_OVER for text in said):
        return None
    for step in program:
        n = step.step
        if n in got.changed_by_error:
            return Finding("changed by an error", n, f"{got.errors[n]} changed {got.changed_by_error[n]}")
        ours, theirs = got.errors.get(n), want.errors.get(n)
        if ours and not theirs and n in want.results:
            return Finding("raised", n, f"{ours[0]}: {ours[1]}")
        if theirs and not ours and n in got.results:
            return Finding("not raised", n, f"{theirs[0]}: {theirs[1]}")
        if ours and theirs and ours[0] != theirs[0]:
            return Finding("error type", n, f"Lohe {ours[0]}: {ours[1]}\nPyTorch {theirs[0]}: {theirs[1]}")
        a, b = got.results.get(n), want.results.get(n)
        if a is None or b is None:
            continue
        if len(a) != len(b):
            return Finding("structure", n, f"{len(a)} results instead of {len(b)}")
        for x, y in zip(a, b, strict=True):
            if kind := compare_value(x, y):
                return Finding(kind, n, f"Lohe    {describe(x)}\nPyTorch {describe(y)}")
    for ref, want_value in want.final.items():
        got_value = got.final.get(ref)
        if got_value is None:
            continue
        if kind := compare_value(got_value, want_value):
            return Finding(f"final {kind}", ref.step, f"{ref}\nLohe    {describe(got_value)}\nPyTorch {describe(want_value)}")
        if got_value.storage != want_value.storage:
            return Finding("alias", ref.step, f"{ref} shares memory with value {got_value.storage} instead of {want_value.storage}")
        if None not in (got_value.is_leaf, want_value.is_leaf) and got_value.is_leaf != want_value.is_leaf:
            return Finding("is_leaf", ref.step, f"{ref}: {got_value.is_leaf} instead of {want_value.is_leaf}")
    if (got.backward_error is None) != (want.backward_error is None):
        return Finding("backward error", -1, f"Lohe {got.backward_error}\nPyTorch {want.backward_error}")
    if got.backward_error and want.backward_error:
        if got.backward_error[0] != want.backward_error[0]:
            return Finding("backward error", -1, f"Lohe {got.backward_error}\nPyTorch {want.backward_error}")
        return None
    for n, want_gradient in want.gradients.items():
        gradient = got.gradients.get(n)
        if (gradient is None) != (want_gradient is None):
            return Finding("gradient", n, f"Lohe {gradient and describe(gradient)}\nPyTorch {want_gradient and describe(want_gradient)}")
        if gradient and want_gradient and (gradient.dtype != want_gradient.dtype or not close(gradient.array(), want_gradient.array(), gradient.dtype, 4, True)):
            return Finding("gradient", n, f"Lohe    {describe(gradient)}\nPyTorch {describe(want_gradient)}")
    return None


def compare_bits(got: Trace, base: Trace) -> Finding | None:
    """The first difference in any bit or error type between two runs of Lohe."""
    for n in sorted(base.results.keys() | base.errors.keys()):
        if (base.errors.get(n) or ("",))[0] != (got.errors.get(n) or ("",))[0]:
            return Finding("errors", n, f"{base.errors.get(n)} became {got.errors.get(n)}")
        for x, y in zip(got.results.get(n, []), base.results.get(n, []), strict=True):
            if x.bits() != y.bits():
                return Finding("bits", n, f"{describe(y)}\nbecame {describe(x)}")
    for ref, value in base.final.items():
        if got.final[ref].bits() != value.bits():
            return Finding("final bits", ref.step, f"{ref}: {describe(value)}\nbecame {describe(got.final[ref])}")
    if (base.backward_error or ("",))[0] != (got.backward_error or ("",))[0]:
        return Finding("backward error", -1, f"{base.backward_error} became {got.backward_error}")
    for n, gradient in base.gradients.items():
        other = got.gradients[n]
        if (gradient is None) != (other is None) or (gradient and other and gradient.bits() != other.bits()):
            return Finding("gradient bits", n, f"{gradient and describe(gradient)}\nbecame {other and describe(other)}")
    return None


# ---- the search


class Search:
    def __init__(self, options: argparse.Namespace):
        import torch

        torch.set_num_threads(1)
        self.torch = torch
        self.options = options
        self.compared = 0  # runs of recorded programs that were
        self.base = Worker({})
        settings = SETTINGS | RECORDED
        wanted = [name for name in settings if not options.settings or name in options.settings.split(";")]
        self.settings = {name: Worker(settings[name][0]) if settings[name][0] else self.base for name in wanted}
        self.forms = forms(self.base.ask("rows"), torch, options.ops)

    def against_pytorch(self, program: Program) -> Finding | None:
        got = self.base.ask((program, 1, True))
        if isinstance(got, str):
            return Finding("crash", -1, got)
        found = compare(program, got, Machine(self.torch).run(program))
        if found is None or found.kind not in ("value", "final value", "gradient"):
            return found
        # Rounding, or a jump where rounding differs? Then the same program in float64 agrees.
        wide = widened(program)
        got = self.base.ask((wide, 1, True))
        if isinstance(got, str):
            return Finding("crash", -1, got)
        again = compare(wide, got, Machine(self.torch).run(wide))
        if again is not None and again.kind == found.kind:
            return found
        return None

    def under_settings(self, program: Program, small: bool, rng: random.Random) -> tuple[str, Finding] | None:
        base = self.base.ask((program, 1, True))
        if isinstance(base, str):
            return "", Finding("crash", -1, base)
        names = [n for n in self.settings if small or n != "interpreter"]
        for name in names if self.options.all_settings else rng.sample(names, min(2, len(names))):
            found = self.differs_under(name, program, base)
            if found is not None:
                return name, found
        return None

    def differs_under(self, name: str, program: Program, base: Trace) -> Finding | None:
        """What differs from `base`, the plain run."""
        if name not in RECORDED:
            got = self.settings[name].ask((program, SETTINGS[name][1], True))
            return Finding("crash", -1, got) if isinstance(got, str) else compare_bits(got, base)
        plain = self.base.ask((program, 1, (False, 0)))
        got = self.settings[name].ask((program, RECORDED[name][1], (True, len(repr(program)))))
        for trace in (plain, got):
            if isinstance(trace, str):
                return Finding("crash", -1, trace)
        # A check inside a kernel raises where the work is done, and such a program goes on differently; all other
        # errors come at their own step.
        if any(step < 0 for step in got.errors):
            return None if plain.errors or plain.backward_error else Finding("errors", -1, f"nothing became {got.errors}")
        if got.errors.keys() != plain.errors.keys():
            return Finding("errors", -1, f"{plain.errors} became {got.errors}")
        self.compared += 1
        return compare_bits(got, plain)

    def shrink(self, program: Program, fails: Callable[[Program], bool]) -> Program:
        """A smallest set of steps, by leaving some out, that still fails in the same way."""
        end = time.monotonic() + self.options.shrink_seconds
        size = max(len(program) // 2, 1)
        while time.monotonic() < end:
            start, smaller = 0, False
            while start < len(program) and time.monotonic() < end:
                rest = program[:start] + program[start + size :]
                rest = without_orphans(rest)
                if len(rest) < len(program) and fails(rest):
                    program, smaller = rest, True
                else:
                    start += size
            if size > 1:
                size = max(size // 2, 1)
            elif not smaller:
                break
        return program

    def one(self, seed: int) -> tuple[str, Finding, Program] | None:
        rng = random.Random(seed)
        large = rng.random() < 0.15
        generator = Generator(seed, self.forms, self.torch, large)
        program = generator.make(rng.randint(4, 8 if large else 16))
        found = None if self.options.no_pytorch else self.against_pytorch(program)
        if found is not None and found.kind not in self.options.ignore:
            def fails(p: Program) -> bool:
                again = self.against_pytorch(p)
                return again is not None and again.kind == found.kind

            program = self.shrink(program, fails)
            return "PyTorch", self.against_pytorch(program) or found, program
        other = self.under_settings(program, not large, rng)
        if other is None:
            return None
        name, finding = other

        def differs(p: Program) -> bool:
            base = self.base.ask((p, 1, True))
            if isinstance(base, str) or not name:
                return isinstance(base, str)
            return self.differs_under(name, p, base) is not None

        return name or "Lohe", finding, self.shrink(program, differs)

    def close(self) -> None:
        for worker in (self.base, *self.settings.values()):
            worker.close()


def without_orphans(program: Program) -> Program:
    """Leaves nobody uses and steps whose operands are gone are left out, so that a shrunk program is short."""
    known: set[int] = set()
    kept: Program = []
    for step in program:
        if isinstance(step, Leaf) or all(ref.step in known for ref in references(step)):
            kept.append(step)
            known.add(step.step)
    return kept


def summary(step_of: dict[int, Any], finding: Finding) -> str:
    step = step_of.get(finding.step)
    return f"{finding.kind}: {step.name or step.place}" if isinstance(step, Call) else finding.kind


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tools/fuzz programs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, "program")
    parser.add_argument("--ops", default="", metavar="REGEX", help="only ops whose name matches")
    parser.add_argument("--ignore", default="", help="comma-separated kinds of difference from PyTorch to pass over")
    parser.add_argument("--settings", default="", help=f"separated by semicolons, of: {'; '.join(SETTINGS | RECORDED)} (default: all)")
    parser.add_argument("--no-pytorch", action="store_true", help="compare Lohe with itself only")
    parser.add_argument("--all-settings", action="store_true", help="every program under every setting, not under two of them")
    parser.add_argument("--shrink-seconds", type=float, default=20.0)
    options = parser.parse_args(arguments)
    options.ignore = set(filter(None, options.ignore.split(",")))
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    search = Search(options)
    done, counts = 0, collections.Counter[str]()
    for seed in seeds(options):
        found = search.one(seed)
        done += 1
        if found is None:
            continue
        name, finding, program = found
        what = summary({s.step: s for s in program}, finding)
        counts[what] += 1
        print(f"\n=== seed {seed}: {what}, against {name}\n{as_python(program)}\n--- step {finding.step}: {finding.text}", flush=True)
        if sum(counts.values()) == options.most:
            break
    search.close()
    print(f"{done} programs, {search.compared} recorded runs compared, {sum(counts.values())} findings {dict(counts)}")
    return 1 if counts else 0


if __name__ == "__main__":
    sys.exit(main())
