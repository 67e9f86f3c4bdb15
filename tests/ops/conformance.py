#!/usr/bin/env python3
"""Compares Lohe with PyTorch over PyTorch's operator database; ``tools/conformance`` runs this.

Exit code 0: every failure is an accepted difference (``known_differences.toml``); 1: there are others.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import json
import os
import re
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from conformance_bridge import Missing, Translator, dtype_name
from conformance_cases import DTYPES, Enumeration, database
from conformance_report import Entry, KnownDifferences, markdown, table, write_json, write_whole
from conformance_worker import import_product

CASE_SECONDS = 30.0  # a case takes milliseconds; the limit is for those that never end
START_SECONDS = 120.0
CRASHES_PER_ENTRY = 8
CI_SHARE = 0.02

# Settings that must not change a bit of any result: environment of the worker, and number of threads.
MODES: dict[str, tuple[dict[str, str], int]] = {
    "threads_2": ({"LOHE_DEBUG_WAKE": "1"}, 2),
    "threads_3": ({"LOHE_DEBUG_WAKE": "1"}, 3),
    "interpreter": ({"LOHE_KERNELS": "interpreter"}, 1),
    "cpu_avx2": ({"LOHE_CPU_LEVEL": "avx2"}, 1),
    "cpu_x86-64-v2": ({"LOHE_CPU_LEVEL": "x86-64-v2"}, 1),
    "guard": ({"LOHE_DEBUG_GUARD": "1"}, 1),
}


@dataclasses.dataclass
class Settings:
    """What to run and how; the fields are the options of the command line."""

    dtypes: tuple[str, ...] = tuple(dtype_name(d) for d in DTYPES)
    limit: int = 0
    fraction: float = 1.0
    seed: int = 0
    jobs: int = 1
    case_seconds: float = CASE_SECONDS
    threads: int = 1
    digest: bool = False
    environment: dict[str, str] = dataclasses.field(default_factory=dict)


class Worker:
    """One worker process and the lines it sends."""

    def __init__(self, environment: dict[str, str]):
        kept = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "conformance_worker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**kept, **environment},
        )
        self._buffer = b""
        self._lines: collections.deque[bytes] = collections.deque()

    def send(self, request: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write((json.dumps(request) + "\n").encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the process died; the next receive says so

    def receive(self, seconds: float) -> list[Any] | None:
        """The next message; None when the process ended. Raises ``TimeoutError``."""
        assert self._process.stdout is not None
        end = time.monotonic() + seconds
        while not self._lines:
            ready, _, _ = select.select([self._process.stdout], [], [], max(end - time.monotonic(), 0))
            if not ready:
                raise TimeoutError
            data = os.read(self._process.stdout.fileno(), 1 << 16)
            if not data:
                return None
            *lines, self._buffer = (self._buffer + data).split(b"\n")
            self._lines.extend(lines)
        return json.loads(self._lines.popleft())

    def stop(self) -> int:
        """Ends the process; returns its exit status, negative for a signal."""
        if self._process.poll() is None and not self._lines:
            try:
                self._process.stdin.close()  # type: ignore[union-attr]
                self._process.wait(timeout=2)
            except (subprocess.TimeoutExpired, BrokenPipeError):
                self._process.kill()
        return self._reap()

    def kill(self) -> None:
        self._process.kill()
        self._reap()

    def _reap(self) -> int:
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()  # type: ignore[union-attr]
        return self._process.wait()


class Run:
    """Runs entries in worker processes and gathers what they find."""

    def __init__(self, settings: Settings, progress: Callable[[str], None] = lambda _: None):
        self.settings = settings
        self.entries: dict[str, Entry] = {}
        self.digests: dict[str, str] = {}
        self._progress = progress
        self._lock = threading.Lock()

    def run(self, names: list[str]) -> dict[str, Entry]:
        queue = collections.deque(names)
        threads = [threading.Thread(target=self._serve, args=(queue,)) for _ in range(self.settings.jobs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return self.entries

    def _serve(self, queue: collections.deque[str]) -> None:
        worker: Worker | None = None
        while True:
            try:
                name = queue.popleft()
            except IndexError:
                break
            entry = Entry()
            worker = self._entry(worker, name, entry)
            with self._lock:
                self.entries[name] = entry
            self._progress(f"{name}: {entry.passed} of {entry.total}" if not self.settings.digest else name)
        if worker is not None:
            worker.stop()

    def _entry(self, worker: Worker | None, name: str, entry: Entry) -> Worker | None:
        """All cases of one entry, in a new process after each crash. Returns the process that is left."""
        after: str | None = None
        for _ in range(CRASHES_PER_ENTRY):
            worker = worker or Worker({"OMP_NUM_THREADS": "1", **self.settings.environment})
            s = self.settings
            request = {
                "entry": name,
                "dtypes": s.dtypes,
                "limit": s.limit,
                "fraction": s.fraction,
                "seed": s.seed,
            }
            worker.send({**request, "threads": s.threads, "digest": s.digest, "after": after})
            running, seconds, oracle = after, START_SECONDS, False
            while True:
                try:
                    message = worker.receive(seconds)
                except TimeoutError:
                    worker.kill()
                    worker = None
                    self._file(
                        entry, name, running, after, oracle, "timeout", f"no answer in {seconds:.0f} s"
                    )
                    break
                if message is None:
                    status = worker.stop()
                    worker = None
                    self._file(
                        entry, name, running, after, oracle, "crash", f"the process ended: status {status}"
                    )
                    break
                kind, case_id, *rest = message
                if kind == "end":
                    return worker
                if kind == "run":
                    running, seconds, oracle = case_id, s.case_seconds, not s.digest
                elif kind == "turn":
                    oracle = False
                elif kind == "ok":
                    entry.passed += 1
                elif kind == "digest":
                    with self._lock:
                        self.digests[case_id] = rest[0]
                elif kind == "skip":
                    entry.skipped[case_id] = rest[0]
                elif kind == "fail":
                    entry.failures[case_id] = [(c, m) for c, m in rest[0]]
                elif kind == "broken":
                    entry.broken = rest[0]
            if running == after:  # died before the first case: nothing to resume at
                return worker
            after = running
        entry.broken = f"given up after {CRASHES_PER_ENTRY} crashes"
        return worker

    def _file(
        self,
        entry: Entry,
        name: str,
        running: str | None,
        after: str | None,
        oracle: bool,
        kind: str,
        why: str,
    ) -> None:
        case_id = running if running is not None and running != after else f"{name}/start/any/0"
        if oracle:
            entry.skipped[case_id] = f"PyTorch: {kind}, {why}"
            return
        entry.failures[case_id] = [(kind, why)]
        if self.settings.digest:
            with self._lock:
                self.digests[case_id] = kind


def split_entries(module: Any, pattern: str) -> tuple[list[str], list[str]]:
    """The entries whose name matches, in two lists: those that ``module`` has, and those it lacks."""
    present, absent = [], []
    translator = Translator(module)
    for name, op in database().items():
        if not re.search(pattern, name):
            continue
        try:
            translator.callable(op.op)
            translator.named(op.name)
            present.append(name)
        except (Missing, AttributeError):
            absent.append(name)
    return present, absent


def compare_modes(
    settings: Settings, names: list[str], progress: Callable[[str], None]
) -> dict[str, dict[str, str]]:
    """For each mode, the cases whose bits differ from the base run's, with both digests."""
    base = Run(dataclasses.replace(settings, digest=True), progress)
    base.run(names)
    found = {}
    for mode, (environment, threads) in MODES.items():
        progress(f"mode {mode}")
        other = Run(
            dataclasses.replace(settings, digest=True, environment=environment, threads=threads), progress
        )
        other.run(names)
        found[mode] = {
            case_id: f"{base.digests.get(case_id)} became {other.digests.get(case_id)}"
            for case_id in sorted(base.digests.keys() | other.digests.keys())
            if base.digests.get(case_id) != other.digests.get(case_id)
        }
    return found


def replay(module: Any, case_id: str) -> int:
    """Runs one case in this process and prints everything about it."""
    import torch
    from conformance_compare import Comparison

    torch.set_num_threads(1)
    op, case = Enumeration().find(case_id)
    print(f"{case_id}\n{case.sample}\ngradients: {case.gradients}")
    comparison = Comparison(module)
    for name, target in (("PyTorch", torch), ("Lohe", module)):
        try:
            outcome = comparison.outcome(target, op, case)
        except Missing as missing:
            print(f"{name}: has no {missing}")
            continue
        print(f"\n{name}:\n{outcome.trace}")
        for path, leaf in outcome.leaves:
            strides = f" strides {leaf.stride()}" if hasattr(leaf, "stride") else ""
            print(f"  result{path}{strides}: {leaf}")
        for i, gradient in enumerate(outcome.gradients or ()):
            print(f"  gradient {i}: {gradient}")
    found = comparison.compare(op, case)
    print("\n" + ("\n".join(f"{d.kind}: {d.message}" for d in found) or "no difference"))
    return 1 if found else 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="conformance", description=__doc__)
    parser.add_argument(
        "--ops", default="", metavar="REGEX", help="entries whose name matches (default: all)"
    )
    parser.add_argument("--dtypes", default="", help="comma-separated dtypes (default: all twelve)")
    parser.add_argument(
        "--floor", type=float, metavar="PERCENT",
        help="exit with 0 where at least this share of the cases passes, accepted differences counting as failures",
    )
    parser.add_argument(
        "--sample",
        type=float,
        nargs="?",
        default=1.0,
        const=CI_SHARE,
        metavar="FRACTION",
        help=f"share of the cases to run (without a number {CI_SHARE})",
    )
    parser.add_argument("--seed", type=int, default=0, help="chooses the share")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--max-samples-per-op-dtype", type=int, default=0, metavar="N", help="0: all")
    parser.add_argument("--case-seconds", type=float, default=CASE_SECONDS, help="time limit of a case")
    parser.add_argument(
        "--replay", metavar="CASE", help="run just this case, in this process, and print everything"
    )
    parser.add_argument("--list-missing", action="store_true", help="print the entries that Lohe lacks")
    parser.add_argument("--modes", action="store_true", help="compare bits under " + ", ".join(MODES))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results")
    parser.add_argument("--write", action="store_true", help="write docs/conformance.md")
    parser.add_argument(
        "--show", type=int, default=40, metavar="N", help="failing cases to print (default 40)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress on standard error")
    options = parser.parse_args(arguments)
    known = {dtype_name(d) for d in DTYPES}
    wanted = {d for d in options.dtypes.split(",") if d}
    if wanted - known:
        parser.error(f"unknown dtypes {sorted(wanted - known)}; known: {sorted(known)}")
    options.dtypes = tuple(d for d in map(dtype_name, DTYPES) if not wanted or d in wanted)
    return options


def list_missing(module: Any, pattern: str) -> None:
    """Prints the entries that ``module`` lacks and the operators of its table that no entry covers."""
    present, absent = split_entries(module, pattern)
    total = len(present) + len(absent)
    print(f"{len(absent)} of {total} entries are missing:", *absent, sep="\n  ")
    covered = {name.split("@")[0].rsplit(".", 1)[-1] for name in present}
    own = {row["name"].rsplit(".", 1)[-1] for row in module._C.op_table()}
    rest = sorted(name for name in own if name.rstrip("_") not in covered and name not in covered)
    print(f"{len(rest)} operators of the table have no entry:", *rest, sep="\n  ")


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    module = import_product()
    if options.replay:
        return replay(module, options.replay)
    if options.list_missing:
        list_missing(module, options.ops)
        return 0
    present, absent = split_entries(module, options.ops)
    started = time.monotonic()
    done = 0

    def progress(text: str) -> None:
        nonlocal done
        done += 1
        if not options.quiet:
            print(f"[{done}/{len(present)}] {time.monotonic() - started:.0f} s {text}", file=sys.stderr)

    settings = Settings(
        dtypes=options.dtypes,
        limit=options.max_samples_per_op_dtype,
        fraction=options.sample,
        seed=options.seed,
        jobs=max(options.jobs, 1),
        case_seconds=options.case_seconds,
    )
    known = KnownDifferences(HERE / "known_differences.toml")
    if options.modes:
        return report_modes(compare_modes(settings, present, progress), known, options)
    run = Run(settings, progress)
    entries = run.run(present)
    unexpected = known.unexpected(entries)
    for case_id, found in list(unexpected.items())[: options.show]:
        print(f"{case_id}: " + "; ".join(f"{kind}: {message}" for kind, message in found))
    if len(unexpected) > options.show:
        print(f"... and {len(unexpected) - options.show} more failing cases (--show, --json)")
    print(table(entries))
    passed, skipped = sum(e.passed for e in entries.values()), sum(len(e.skipped) for e in entries.values())
    accepted = sum(len(e.failures) for e in entries.values()) - len(unexpected)
    print(f"{passed} passed, {len(unexpected)} failed, {skipped} skipped; {accepted} accepted differences")
    if options.json:
        write_json(options.json, entries)
    if options.write:
        share = (
            "all cases"
            if settings.fraction >= 1
            else f"{settings.fraction:.0%} of the cases, seed {settings.seed}"
        )
        per = f", at most {settings.limit} samples per entry and dtype" if settings.limit else ""
        text = f"{share}{per}; dtypes {', '.join(settings.dtypes)}" + (
            f"; entries `{options.ops}`" if options.ops else ""
        )
        page = markdown(entries, known, absent, len(present) + len(absent), text)
        write_whole(HERE.parents[1] / "docs" / "conformance.md", page)
    if options.floor is not None:
        share = 100 * passed / max(passed + len(unexpected) + accepted, 1)
        verdict = "at least" if share >= options.floor else "BELOW"
        print(f"{share:.2f} % of the cases pass: {verdict} the floor of {options.floor} %")
        return 0 if share >= options.floor else 1
    return 1 if unexpected else 0


def report_modes(
    found: dict[str, dict[str, str]], known: KnownDifferences, options: argparse.Namespace
) -> int:
    unexpected = 0
    for mode, cases in found.items():
        new = {c: text for c, text in cases.items() if known.reason(c, f"mode:{mode}") is None}
        unexpected += len(new)
        print(f"{mode}: {len(cases)} cases differ, {len(new)} of them unexpected")
        for case_id, text in list(new.items())[: options.show]:
            print(f"  {case_id}: {text}")
    if options.json:
        write_whole(options.json, json.dumps(found, indent=1) + "\n")
    return 1 if unexpected else 0


if __name__ == "__main__":
    sys.exit(main())
