"""What the machine is and can do: the processor's name and level, and measured limits."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent

_LEVELS = {
    "x86-64-v4": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
    "x86-64-v3": {"avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"},
    "x86-64-v2": {"sse4_1", "sse4_2", "ssse3", "popcnt"},
}
_EXTRAS = ("avx512_bf16", "avx512_vnni", "avx512_fp16", "amx_bf16", "amx_int8")


@functools.cache
def _cpuinfo() -> dict[str, str]:
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return {}
    return {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in first.splitlines())}


def is_amd() -> bool:
    return _cpuinfo().get("vendor_id") == "AuthenticAMD"


def cpu_name() -> str:
    """The model's name, with family, model number and AMX, since names of virtual machines say little."""
    info = _cpuinfo()
    if not info:
        return platform.processor() or platform.machine()
    amx = ", AMX" if "amx_tile" in info.get("flags", "").split() else ""
    name = info.get("model name", platform.machine())
    return f"{name} (family {info.get('cpu family', '?')} model {info.get('model', '?')}{amx})"


def cpu_level() -> str:
    flags = set(_cpuinfo().get("flags", "").split())
    level = next((name for name, needed in _LEVELS.items() if needed <= flags), platform.machine())
    return " ".join([level, *(extra for extra in _EXTRAS if extra in flags)])


def governor() -> str:
    path = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return path.read_text().strip() if path.exists() else "not exposed"


def clean_environment() -> dict[str, str]:
    """This process's environment without the variables that halve OpenBLAS or retune either side."""
    dropped = (
        "OPENBLAS_",
        "MALLOC_",
        "OMP_",
        "MKL_",
        "KMP_",
        "LD_PRELOAD",
        "XLA_",
        "JAX_",
        "NPROC",
        "LOHE_CPU",
        "LOHE_KERNELS",
        "LOHE_DEBUG",
    )
    return {k: v for k, v in os.environ.items() if not k.startswith(dropped)}


def compile_program(source: Path, target: Path, *flags: str, compiler: str = "g++") -> Path:
    """Compiles ``source`` unless ``target`` is newer; raises ``RuntimeError`` with the compiler's words."""
    if target.exists() and target.stat().st_mtime > source.stat().st_mtime:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    command = [compiler, "-O3", str(source), "-o", str(target), *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{source.name}: {done.stderr.strip()[-800:]}")
    return target


class Placement:
    """Where a virtual machine's processors lie at the moment, by the round trip of a store between two of them.

    A host may move them while it runs: cores that share a third-level cache answer within some 100 ns, others take
    several times as long, and programs of several threads with them, each in its own measure. What is compared is
    compared in the first placement.
    """

    FAR = 250e-9  # seconds
    PATIENCE = 120.0  # seconds for a phase to end; a machine whose processors stay far apart is measured as it is

    def __init__(self, measure: Callable[[], float | None], sleep: Callable[[float], None] = time.sleep):
        self._measure = measure
        self._sleep = sleep
        self._left = self.PATIENCE
        self.seconds: float | None = None  # the last round trip; None: not known

    @classmethod
    def of_this_machine(cls, build: Path) -> Placement:
        try:
            source = HERE / "programs" / "round_trip.cpp"
            program = compile_program(source, build / "round_trip", "-std=c++20", "-pthread")
        except (RuntimeError, OSError):
            return cls(lambda: None)

        def measure() -> float | None:
            done = subprocess.run([str(program)], capture_output=True, text=True, check=True, timeout=60)
            return float(done.stdout) * 1e-9 if done.stdout.strip() else None

        return cls(measure)

    def settle(self) -> bool:
        """Waits while the processors are far apart and patience lasts. Returns whether they are near, or not known."""
        while True:
            self.seconds = self._measure()
            if self.seconds is None or self.seconds < self.FAR:
                self._left = self.PATIENCE
                return True
            if self._left <= 0:
                return False
            self._left -= 1.0
            self._sleep(1.0)


class Limits:
    """Measured peaks of this machine, cached for the run; None where they cannot be measured."""

    def __init__(self, build: Path, threads: int):
        self._threads = threads
        try:
            flags = ("-std=c++20", "-march=native", "-pthread")
            self._program: Path | None = compile_program(
                HERE / "programs" / "machine_limits.cpp", build / "machine_limits", *flags
            )
        except (RuntimeError, OSError):
            self._program = None
        self._times: dict[tuple[int, int], float | None] = {}

    @functools.cached_property
    def flops(self) -> float | None:
        """Float32 FMA rate in FLOP/s."""
        return self._measure("flops", str(self._threads))

    def traffic(self, read: int, written: int) -> float | None:
        """Seconds of a loop that moves as much over the same working set; one thread below 256 KiB."""
        if (read, written) not in self._times:
            threads = self._threads if read + written >= 1 << 18 else 1
            self._times[read, written] = self._measure("traffic", str(read), str(written), str(threads))
        return self._times[read, written]

    def seconds(self, read: int, written: int, flops: int) -> float | None:
        """The least time of a kernel that moves so many bytes and does ``flops`` float32 operations."""
        times = []
        if read + written and (moving := self.traffic(read, written)):
            times.append(moving)
        if flops and self.flops:
            times.append(flops / self.flops)
        return max(times) if times else None

    def _measure(self, *arguments: str) -> float | None:
        if self._program is None:
            return None
        done = subprocess.run([str(self._program), *arguments], capture_output=True, text=True, check=False)
        return float(done.stdout) if done.returncode == 0 else None
