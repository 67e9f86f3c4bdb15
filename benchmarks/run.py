#!/usr/bin/env python3
"""Measures Lohe against PyTorch 2.13; ``tools/bench`` runs this. Prints tables, asserts nothing about time.

Both sides live in processes of their own and are timed in alternating blocks, Lohe, PyTorch, Lohe, PyTorch,
so that drift of the machine meets both; the suites patterns and compile have more sides, in turn, whatever
``--peers`` says, and take the fastest repetition of each block. Each answer carries the side's thread count, checked after every
block.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import re
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import machine
import report
import suites

# The ratio to reach, by "suite: case" (a regular expression) and peer.
BARS: list[tuple[str, str, float]] = [
    (r"overhead: a \+ b", "as-installed", 3.0),
    (r"overhead: a \+ b with gradient", "as-installed", 3.0),
    (r"overhead: a \* 2\.0", "as-installed", 5.0),
    (r"overhead: (a\[1:3\]|a\.view\(2, 2\)|m\.transpose\(0, 1\))", "as-installed", 2.8),
    (r"overhead: Linear\(8, 8\)\(x\)", "as-installed", 3.5),
    (r"overhead: MLP 8-8-8 forward and backward", "as-installed", 4.0),
    (r"cpp: a \+ b", "as-installed", 2.8),
    (r"kernels: .*", "as-installed", 1.0),
    (r"train: GPT 6x384, 256 tokens, batch 4", "as-installed", 1.8 if machine.is_amd() else 1.05),
    (r"train: GPT 6x384, 256 tokens, batch 4", "tuned", 1.0),
    (r"patterns: geometric mean", "compiled", 1.5),
    (r"patterns: .*;.*", "the better", 1.0),
    (r"compile: MLP 64x4, batch 32; whole step compiled", "PyTorch", 6.0),
    (r"compile: MLP 64x4, batch 32; whole step compiled", "JAX", 1.0),
    (r"compile: GPT 4x128, 64 tokens, batch 12; .*", "the best", 1.3),
    (r"compile: GPT 6x384, 256 tokens, batch 4; .*", "Lohe", 1.1),
    (r"compile: GPT 6x384, 256 tokens, batch 4; .*", "the best", 1.05),
    (r"compile: (SGD|Adam|AdamW).*; \d+ tensors? of 1000", "foreach", 1.5),
    (r"compile: (SGD|Adam|AdamW).*; \d+ tensors? of 1000", "fused", 1.5),
]

KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "268435456",
}
PEERS = ("as-installed", "tuned", "compiled")
SUITES = (
    "overhead",
    "cpp",
    "kernels",
    "matmul",
    "conv",
    "train",
    "parts",
    "patterns",
    "compile",
    "import",
    "memory",
)
# Where several sides are compared, a machine that does other things must not make PyTorch look slow: its threads
# wait for each other, asleep, and may get their processor back milliseconds later. So they spin, each on a processor
# of its own, which makes them no slower on an idle machine. A case whose ratio is so near a bar, above it or below,
# is run so many times more.
KEEP_PROCESSORS = {"OMP_PROC_BIND": "true", "OMP_WAIT_POLICY": "active"}
CLOSE, MORE_RUNS = 0.1, 10
ANSWER_SECONDS = 600.0  # a worker that has not answered by then is ended and its row says so


@dataclasses.dataclass(frozen=True)
class Settings:
    threads: int
    runs: int
    block_seconds: float
    build: Path
    only: str


# Sides of the suites that compare several at once: name: module and peer_setup's peer.
#: A compiled step's peak is at most 0.9 of PyTorch's eager one.
COMPILED_MEMORY = 1 / 0.9
SIDES = {
    "Lohe compiled": ("lohe", "compiled"),
    "Lohe": ("lohe", "as-installed"),
    "PyTorch": ("torch", "as-installed"),
    "PyTorch foreach": ("torch", "foreach"),
    "PyTorch tuned": ("torch", "tuned"),
    "PyTorch fused": ("torch", "fused"),
    "PyTorch compiled": ("torch", "compiled"),
    "JAX": ("jax_steps", "as-installed"),
}


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of several sides, the first of them judged; ``rivals`` by the name of their column.

    The cells of ``optional`` sides stay empty where they do not have the case, or are not installed.
    """

    sides: tuple[str, ...]
    rivals: dict[str, tuple[str, ...]]
    text: str
    optional: tuple[str, ...] = ()


TABLES = {
    "patterns": Table(
        ("Lohe compiled", "Lohe", "PyTorch", "PyTorch compiled"),
        {"the better": ("PyTorch", "PyTorch compiled"), "compiled": ("PyTorch compiled",)},
        "*The better* is the faster of PyTorch as installed and compiled.",
    ),
    "training steps": Table(
        ("Lohe compiled", "Lohe", "PyTorch", "PyTorch tuned", "PyTorch compiled", "JAX"),
        {
            "Lohe": ("Lohe",),
            "PyTorch": ("PyTorch",),
            "the best": ("PyTorch", "PyTorch tuned", "PyTorch compiled"),
            "compiled": ("PyTorch compiled",),
            "JAX": ("JAX",),
        },
        "*The best* is PyTorch's fastest form; JAX has the steps that benchmarks/jax_steps.py has.",
        optional=("JAX",),
    ),
    "optimizers": Table(
        ("Lohe compiled", "Lohe", "PyTorch", "PyTorch foreach", "PyTorch fused", "PyTorch compiled"),
        {
            "Lohe": ("Lohe",),
            "foreach": ("PyTorch foreach",),
            "fused": ("PyTorch fused",),
            "compiled": ("PyTorch compiled",),
        },
        "One step of the optimizer alone.",
    ),
}
LIMIT_TRIALS = 3
LIMITS_TEXT = (
    "The program of the whole step, step by step, as compile_report() gives it; the mean of 20 runs, and of "
    f"{LIMIT_TRIALS} processes the least of both times. *At least* is the larger of "
    "flops over the machine's measured rate and bytes over that of a plain loop; it counts no arithmetic of elementwise kernels, "
    "a step with *-* counts nothing, and one that was faster counts with its time."
)
FIRST_CALLS = Table(
    ("Lohe compiled", "PyTorch compiled"),
    {},
    "Calls of a step made anew, in a fresh process, less the time of an eager step: the median of three for Lohe, "
    "one for PyTorch. They also touch memory for the first time, which making the programs does not.",
)


def peer_setup(peer: str, build: Path) -> tuple[dict[str, str], list[str]]:
    """The environment and the worker's options of a peer."""
    environment = machine.clean_environment()
    if peer == "as-installed":
        return environment, []
    if peer in ("compiled", "foreach", "fused"):
        return environment, [f"--{peer}"]
    environment.update(KEEP_MEMORY)
    if machine.is_amd():  # MKL asks this function before it uses AVX-512
        source = build / "mkl_amd.c"
        build.mkdir(parents=True, exist_ok=True)
        if not source.exists():
            source.write_text("int mkl_serv_intel_cpu_true(void) { return 1; }\n")
        flags = ("-shared", "-fPIC")
        environment["LD_PRELOAD"] = str(
            machine.compile_program(source, build / "mkl_amd.so", *flags, compiler="gcc")
        )
    return environment, ["--fused"]


class Side:
    """One worker process, started anew when it has died; with ``pauses`` it is stopped between requests."""

    def __init__(
        self,
        module: str,
        threads: int,
        environment: dict[str, str],
        options: list[str],
        pauses: bool = False,
    ):
        self._command = [
            sys.executable,
            str(HERE / "worker.py"),
            "--module",
            module,
            "--threads",
            str(threads),
        ]
        self._command += options
        self._environment = environment
        self._threads = threads
        self._pauses = pauses
        self._process: subprocess.Popen[str] | None = None

    def ask(self, **request: Any) -> dict[str, Any]:
        """The worker's answer, ``{"error": text}`` when it has none; raises when its threads have changed."""
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=self._environment,
            )
        assert self._process.stdin is not None and self._process.stdout is not None
        watchdog = threading.Timer(ANSWER_SECONDS, self._process.kill)
        watchdog.start()
        try:
            self._process.send_signal(signal.SIGCONT)
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            watchdog.cancel()
        if not line:
            return {"error": f"the process ended with status {self._process.wait()}"}
        if self._pauses:
            self._process.send_signal(signal.SIGSTOP)
        answer = json.loads(line)
        if "error" not in answer and answer["threads"] != self._threads:
            raise RuntimeError(
                f"{self._command[3]}: {answer['threads']} threads in use, {self._threads} asked for"
            )
        return answer

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            assert self._process.stdin is not None
            self._process.send_signal(signal.SIGCONT)
            self._process.stdin.close()
            self._process.wait(timeout=60)


def bar(name: str, peer: str) -> float | None:
    return next((b for pattern, p, b in BARS if p == peer and re.fullmatch(pattern, name)), None)


def timed_rows(suite: str, peer: str, settings: Settings, limits: machine.Limits) -> list[report.Row]:
    """Every case of a suite that runs in the long-lived workers."""
    environment, options = peer_setup(peer, settings.build)
    sides = (
        Side("lohe", settings.threads, machine.clean_environment(), []),
        Side("torch", settings.threads, environment, options),
    )
    rows = []
    for key, case in suites.all_cases().items():
        if case.suite != suite or not re.search(settings.only, key):
            continue
        limit = limits.seconds(case.read, case.written, case.flops)
        row = report.Row(case.name, bar=bar(key, peer), limit=limit)
        for run in range(-1, settings.runs):  # the first round prepares both and is not counted
            values = []
            for side, label in zip(sides, ("Lohe", "PyTorch"), strict=True):
                answer = side.ask(do="block", case=key, seconds=settings.block_seconds)
                if "error" in answer:
                    row.note = f"{label}: {answer['error']}"
                    break
                values.append(answer["seconds"])
            if len(values) < 2:
                row.ours, row.theirs = [], []
                break
            if run >= 0:
                row.ours.append(values[0])
                row.theirs.append(values[1])
        for side in sides:
            side.ask(do="drop")
        rows.append(row)
        print(row.markdown(), flush=True)
    for side in sides:
        side.stop()
    return rows


def steps_and_limits(settings: Settings) -> dict[str, list[dict[str, Any]]]:
    """What the compiled whole steps of the training benchmarks consist of, by model."""
    found = {}
    placement = machine.Placement.of_this_machine(settings.build)
    for key, case in suites.all_cases().items():
        model, _, how = case.name.partition("; ")
        if how != "whole step compiled" or not re.search(settings.only, key):
            continue
        module, peer = SIDES["Lohe compiled"]
        trials = []
        # In a slow moment a machine measures a low peak, and limits that are easy to reach.
        for _ in range(LIMIT_TRIALS):
            placement.settle()
            side = Side(module, settings.threads, machine.clean_environment(), peer_setup(peer, settings.build)[1])
            trials.append(side.ask(do="limits", case=key))
            side.stop()
        errors = [answer["error"] for answer in trials if "error" in answer]
        if errors:
            print(f"limits of {model}: not measured: {errors[0]}", flush=True)
        else:
            found[model] = report.least_times([answer["steps"] for answer in trials])
    return found


def compared_rows(
    suite: str, table: str, settings: Settings, limits: dict[str, float]
) -> list[report.Comparison]:
    """The cases of one of TABLES, and for patterns their geometric means before them."""
    about = TABLES[table]
    placement = machine.Placement.of_this_machine(settings.build)
    sides = {}
    for label in about.sides:
        module, peer = SIDES[label]
        environment, options = peer_setup(peer, settings.build)
        environment = environment | KEEP_PROCESSORS if module == "torch" else machine.clean_environment()
        sides[label] = Side(module, settings.threads, environment, options, pauses=True)
    rows: list[report.Comparison] = []
    for key, case in suites.all_cases().items():
        if case.suite != suite or case.table not in ("", table) or not re.search(settings.only, key):
            continue
        bars = {peer: b for peer in about.rivals if (b := bar(key, peer)) is not None}
        limit = limits.get(case.name.partition("; ")[0])
        row = report.Comparison(case.name, {label: [] for label in sides}, bars, limit=limit)
        asked = dict(sides)
        far_rounds = 0
        if suite == "patterns":
            answer = sides[about.sides[0]].ask(do="equal", case=key)
            if not answer.get("equal"):
                row.note = answer.get("error", "compiled and eager results differ")
        for run in range(-1, settings.runs + MORE_RUNS):  # the first round prepares all and is not counted
            if run == settings.runs and not row.close(about.rivals, CLOSE):
                break
            far_rounds += not placement.settle()
            for label, side in list(asked.items()):
                answer = side.ask(do="fastest", case=key, seconds=settings.block_seconds)
                if label in about.optional and "error" in answer:
                    del asked[label]
                    row.note = "" if answer.get("absent") else f"{label}: {answer['error']}"
                    row.seconds[label] = []
                    continue
                if "error" in answer:
                    row.note = f"{label}: {answer['error']}"
                    break
                if run >= 0:
                    row.seconds[label].append(answer["seconds"])
            if row.note.startswith(tuple(asked)):
                row.seconds = {label: [] for label in sides}
                break
        for side in sides.values():
            side.ask(do="drop")
        if far_rounds:
            row.note += f"{'; ' if row.note else ''}{far_rounds} rounds with processors far apart"
        rows.append(row)
        print(row.markdown(about.rivals), flush=True)
    for side in sides.values():
        side.stop()
    if suite != "patterns":
        return rows
    groups: dict[str, list[report.Comparison]] = {"geometric mean": rows}
    for row in rows:
        groups.setdefault(f"geometric mean, {row.name.split('; ')[1]}", []).append(row)
    means = [report.geometric_mean(name, group, about.rivals) for name, group in groups.items()]
    for mean in means:
        mean.bars = {
            peer: b for peer in about.rivals if (b := bar(f"{suite}: {mean.name}", peer)) is not None
        }
        print(mean.markdown(about.rivals), flush=True)
    return means + rows


def first_call_rows(settings: Settings) -> list[report.Comparison]:
    """The first calls of compiled steps, with the caches on disk empty and filled."""
    rows = []
    cases = {k: c for k, c in suites.all_cases().items() if k.endswith("; whole step compiled")}
    for key, case in cases.items():
        if not re.search(settings.only, f"first calls, {key}"):
            continue
        found: dict[str, dict[str, list[float]]] = {}
        note = ""
        for label in FIRST_CALLS.sides:
            module, peer = SIDES[label]
            environment, options = peer_setup(peer, settings.build)
            for _ in range(3 if module == "lohe" else 1):  # PyTorch's take a minute
                with tempfile.TemporaryDirectory() as folder:
                    environment |= {"LOHE_CACHE_DIR": folder, "TORCHINDUCTOR_CACHE_DIR": folder}
                    for caches in ("caches empty", "caches filled"):
                        side = Side(module, settings.threads, environment, options)
                        answer = side.ask(do="first", case=key)
                        side.stop()
                        note = f"{label}: {answer['error']}" if "error" in answer else note
                        for number, seconds in zip(("1st", "2nd", "3rd"), answer.get("seconds", [])):
                            name = f"{case.name}; {number} call, {caches}"
                            found.setdefault(name, {}).setdefault(label, []).append(seconds)
                        if (compiling := answer.get("compiling")) is not None:
                            name = f"{case.name}; making the programs of these calls, {caches}"
                            found.setdefault(name, {}).setdefault(label, []).append(compiling)
        for name, seconds in sorted(found.items(), key=lambda item: "filled" in item[0]):
            row = report.Comparison(
                name, {label: seconds.get(label, []) for label in FIRST_CALLS.sides}, note=note
            )
            rows.append(row)
            print(row.markdown({}), flush=True)
    return rows


# Seconds of a row of the table "recording", on either side.
RECORDING_AIMS = {
    "record an operation": {"C++": 100e-9, "Python": 300e-9},
    "call a compiled function of three operations": {"C++": 3e-6, "Python": 3e-6},
}


def recording_rows(settings: Settings, lohe_flags: str) -> list[report.Comparison]:
    """programs/recording.cpp and recording.py, run in turn."""
    programs = HERE / "programs"
    if not re.search(settings.only, "compile: recording"):
        return []
    try:
        flags = ("-std=c++20", *shlex.split(lohe_flags))
        built = machine.compile_program(programs / "recording.cpp", settings.build / "recording", *flags)
    except (RuntimeError, OSError) as error:
        print(f"recording: not measured: {str(error)[:160]}", flush=True)
        return []
    commands = {"C++": [str(built)], "Python": [sys.executable, str(programs / "recording.py")]}
    found: dict[str, dict[str, list[float]]] = {}
    for _ in range(settings.runs):
        for side, command in commands.items():
            done = subprocess.run(
                command, capture_output=True, text=True, env=machine.clean_environment(), check=True
            )
            for line in done.stdout.splitlines():
                name, nanoseconds = line.split("\t")
                found.setdefault(name, {}).setdefault(side, []).append(float(nanoseconds) * 1e-9)
    rows = [report.Comparison(name, {side: v.get(side, []) for side in commands}) for name, v in found.items()]
    for row in rows:
        missed = [s for s, aim in RECORDING_AIMS.get(row.name, {}).items() if statistics.median(row.seconds[s]) > aim]
        if row.name in RECORDING_AIMS:
            row.note = f"missed: {', '.join(missed)}" if missed else "aims met"
    for row in rows:
        print(row.markdown({}), flush=True)
    return rows


def compared_blocks(suite: str, heading: str, settings: Settings, lohe_flags: str) -> dict[str, str]:
    """The tables of the suites that compare several sides at once, by title."""
    blocks = {}
    names = [suite] if suite in TABLES else [name for name in TABLES if name != "patterns"]
    for name in names:
        print(f"\n{name}: {heading}", flush=True)
        about = TABLES[name]
        text = (
            f"{heading} Times are medians; a ratio within {CLOSE:.0%} of its bar is the median of {MORE_RUNS} runs more; "
            f"PyTorch's threads are bound and spin; rounds wait while a store takes {machine.Placement.FAR * 1e9:.0f} ns or more "
            f"to another processor and back. {about.text}"
        )
        title = name if suite == name else f"{suite}, {name}"
        steps = steps_and_limits(settings) if name == "training steps" else {}
        for model, found in steps.items():
            blocks[f"compile, limit of {model}"] = report.limits(f"compile, limit of {model}", LIMITS_TEXT, found)
        limits = {model: sum(map(report.counted, found)) for model, found in steps.items()}
        rows = compared_rows(suite, name, settings, limits)
        blocks[title] = report.comparison(title, text, list(about.sides), about.rivals, rows)
    if suite == "compile":
        print("\nfirst calls", flush=True)
        rows, about = first_call_rows(settings), FIRST_CALLS
        if rows:
            blocks["compile, first calls"] = report.comparison(
                "compile, first calls", about.text, list(about.sides), {}, rows
            )
        print("\nrecording", flush=True)
        if recorded := recording_rows(settings, lohe_flags):
            text = "One thread, tensors of 64 elements; medians of all runs. Aims: 100 ns and 300 ns an operation, 3 us a call."
            blocks["compile, recording"] = report.comparison(
                "compile, recording", text, ["C++", "Python"], {}, recorded
            )
    return blocks


def import_rows(peer: str, settings: Settings) -> list[report.Row]:
    """Seconds from process start to the module imported, less those of a bare interpreter."""
    environments = (machine.clean_environment(), peer_setup(peer, settings.build)[0])

    def seconds(statement: str, environment: dict[str, str]) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], check=True, env=environment, capture_output=True)
        return time.perf_counter() - start

    row = report.Row("import", note="less a bare interpreter")
    try:
        for run in range(-1, settings.runs):
            bare = seconds("pass", environments[0])
            values = [
                seconds(f"import {module}", environment) - bare
                for module, environment in zip(("lohe", "torch"), environments, strict=True)
            ]
            if run >= 0:
                row.ours.append(max(values[0], 1e-9))
                row.theirs.append(values[1])
    except subprocess.CalledProcessError as error:
        row = report.Row("import", note=error.stderr.decode(errors="replace").strip().splitlines()[-1][:160])
    print(row.markdown(), flush=True)
    return [row]


def memory_rows(peer: str, settings: Settings) -> list[report.Row]:
    """Peak resident bytes above those after import, each in a fresh process; compiled steps against PyTorch's eager."""
    environment, options = peer_setup(peer, settings.build)
    rows = []
    for key, case in suites.all_cases().items():
        compiled = case.suite == "compile" and case.table == "training steps"
        if not (compiled or case.suite == "train") or not re.search(settings.only, key):
            continue
        note = "peak above import, fresh process" + (", PyTorch eager" if compiled else "")
        row = report.Row(case.name, unit="B", bar=COMPILED_MEMORY if compiled else None, note=note)
        for _ in range(settings.runs):
            values = []
            ours = ["--compiled"] if compiled else []
            sides = (("lohe", machine.clean_environment(), ours), ("torch", environment, options))
            for module, env, opts in sides:
                side = Side(module, settings.threads, env, opts)
                answer = side.ask(do="memory", case=key)
                side.stop()
                if "error" in answer:
                    row.note = f"{module}: {answer['error']}"
                    break
                values.append(float(answer["bytes"]))
            if len(values) < 2:
                row.ours, row.theirs = [], []
                break
            row.ours.append(values[0])
            row.theirs.append(values[1])
        rows.append(row)
        print(row.markdown(), flush=True)
    return rows


def cpp_rows(peer: str, settings: Settings, lohe_flags: str) -> list[report.Row]:
    """programs/cpp_overhead.cpp built against both, the programs run in turn."""
    source, build = HERE / "programs" / "cpp_overhead.cpp", settings.build
    names = re.findall(r'measure\("(.*?)"', source.read_text())
    try:
        flags = ("-std=c++20", "-DLOHE_BENCHMARK", *shlex.split(lohe_flags))
        ours = machine.compile_program(source, build / "cpp_overhead_lohe", *flags)
        theirs = machine.compile_program(
            source, build / "cpp_overhead_torch", "-std=c++20", *_libtorch_flags()
        )
    except (RuntimeError, OSError) as error:
        reason = next((line for line in str(error).splitlines() if "error" in line), str(error))[:160]
        print(f"cpp: not measured: {reason}", flush=True)
        return [report.Row(name, bar=bar(f"cpp: {name}", peer), note=reason) for name in names]
    environments = (machine.clean_environment(), peer_setup(peer, build)[0])
    rows = {name: report.Row(name, bar=bar(f"cpp: {name}", peer)) for name in names}
    for _ in range(settings.runs):
        for program, environment, field in zip((ours, theirs), environments, ("ours", "theirs"), strict=True):
            done = subprocess.run([str(program)], capture_output=True, text=True, env=environment, check=True)
            for line in done.stdout.splitlines():
                name, nanoseconds = line.split("\t")
                getattr(rows[name], field).append(float(nanoseconds) * 1e-9)
    for row in rows.values():
        print(row.markdown(), flush=True)
    return list(rows.values())


def lohe_flags() -> str:
    """``LOHE_CPP_FLAGS``, or what the build folder of ``LOHE_PRESET`` (default release) needs."""
    build = HERE.parent / "build" / os.environ.get("LOHE_PRESET", "release")
    found = f"-I{HERE.parent}/include -I{build}/gen -L{build}/lib -Wl,-rpath,{build}/lib -llohe"
    return os.environ.get("LOHE_CPP_FLAGS", found)


def _libtorch_flags() -> list[str]:
    import torch

    root = Path(torch.__file__).parent
    headers = [f"-I{root}/include", f"-I{root}/include/torch/csrc/api/include"]
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}"
    return [*headers, abi, f"-L{root}/lib", f"-Wl,-rpath,{root}/lib", "-ltorch", "-ltorch_cpu", "-lc10"]


def header(threads: int, versions: dict[str, str]) -> str:
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"{machine.cpu_level()}; governor {machine.governor()}; {os.cpu_count()} processors, "
        f"{threads} threads unless the table says otherwise; {named}; load average at the start "
        f"{os.getloadavg()[0]:.2f}; {datetime.date.today().isoformat()}."
    )


def versions() -> dict[str, str]:
    found = {}
    for module in ("lohe", "torch", "jax_steps"):
        side = Side(module, 1, machine.clean_environment(), [])
        answer = side.ask(do="hello")
        side.stop()
        if module == "jax_steps" and "error" in answer:
            continue  # optional, and its column says what failed
        if "error" in answer:
            raise SystemExit(
                f"{module} cannot be measured: {answer['error']}; is it built and on PYTHONPATH?"
            )
        found[module.removesuffix("_steps")] = answer["version"]
    return found


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join(SUITES)} (default: all)")
    parser.add_argument("--peers", default="as-installed", help=f"comma-separated, of {', '.join(PEERS)}")
    parser.add_argument("--runs", type=int, default=7, help="counted alternating runs (default 7)")
    parser.add_argument("--block-seconds", type=float, default=0.1, help="length of a block (default 0.1)")
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count() or 1, help="overhead suites always use 1"
    )
    parser.add_argument("--only", default="", metavar="REGEX", help="cases whose 'suite: name' matches")
    parser.add_argument(
        "--build", type=Path, default=HERE.parent / "build" / "bench", help="folder for programs"
    )
    parser.add_argument("--lohe-cpp-flags", default=lohe_flags(), help="to build against Lohe")
    parser.add_argument("--list", action="store_true", help="print the cases and their bars")
    parser.add_argument(
        "--write", action="store_true", help="write this processor's section of docs/performance.md"
    )
    options = parser.parse_args(arguments)
    options.suites = options.suites or list(SUITES)
    options.peers = options.peers.split(",")
    for given, known in ((options.suites, SUITES), (options.peers, PEERS)):
        unknown = [name for name in given if name not in known]
        if unknown:
            parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    if options.write and (options.only or options.runs < 7):
        parser.error("--write needs whole suites and at least 7 runs")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    if options.list:
        for key in suites.all_cases():
            peers = dict.fromkeys(peer for _, peer, _ in BARS)
            bars = ", ".join(f"{b:g}x {p}" for p in peers if (b := bar(key, p)) is not None)
            print(f"{key}{'  (' + bars + ')' if bars else ''}")
        return 0
    cpu, found = machine.cpu_name(), versions()
    print(f"{cpu}: {header(options.threads, found)}\n")
    blocks = {}
    for suite in options.suites:
        usual = 1 if suite in ("overhead", "cpp") else os.cpu_count()
        threads = 1 if suite in ("overhead", "cpp") else options.threads
        settings = Settings(threads, options.runs, options.block_seconds, options.build, options.only)
        used = f"{threads} thread{'s' if threads > 1 else ''}"
        heading = f"{used}, {options.runs} alternating runs."
        if suite in ("patterns", "compile"):
            suffix = "" if threads == usual else f" ({used})"
            found_blocks = compared_blocks(suite, heading, settings, options.lohe_cpp_flags)
            blocks |= {f"{title}{suffix}": text for title, text in found_blocks.items()}
            continue
        limits = machine.Limits(options.build, threads)
        for peer in options.peers:
            print(f"\n{suite}, PyTorch {peer}: {heading}", flush=True)
            if suite == "import":
                rows = import_rows(peer, settings)
            elif suite == "memory":
                rows = memory_rows(peer, settings)
            elif suite == "cpp":
                rows = cpp_rows(peer, settings, options.lohe_cpp_flags)
            else:
                rows = timed_rows(suite, peer, settings, limits)
            # A number of threads of the user's choice makes a table of its own.
            name = suite if threads == usual else f"{suite} ({used})"
            blocks[f"{name} {peer}"] = report.block(name, peer, heading, rows)
    if options.write:
        path = HERE.parent / "docs" / "performance.md"
        page = path.read_text() if path.exists() else ""
        report.write_whole(path, report.merge(page, cpu, header(options.threads, found), blocks))
        print(f"\nwrote docs/{path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
