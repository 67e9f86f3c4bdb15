"""What a run shows: a progress bar, its peak memory, a loss curve, a table."""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path
from typing import Any

from support.files import write_whole


def _status(field: str) -> int:
    """A size of this process in bytes from the kernel's own account (proc_pid_status(5): VmRSS, VmHWM)."""
    with open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


class Memory:
    """Peak resident memory above what was resident when this object was made: make it after the imports."""

    def __init__(self) -> None:
        self.base = _status("VmRSS")

    def peak(self) -> int:
        """Bytes."""
        return max(0, _status("VmHWM") - self.base)


class Progress:
    """A progress bar on the standard error stream: tqdm's where it is installed, else a line now and then."""

    def __init__(self, name: str, done: int, total: int) -> None:
        self.name, self.done, self.total = name, done, total
        self.began = self.said = time.monotonic()
        self.first = done
        try:
            from tqdm import tqdm
        except ImportError:
            self.bar = None
        else:
            self.bar = tqdm(initial=done, total=total, desc=name, unit="step", mininterval=0.5, dynamic_ncols=True)

    def step(self, loss: float) -> None:
        """One more step is done, with this loss."""
        self.done += 1
        if self.bar is not None:
            self.bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            self.bar.update()
            return
        now = time.monotonic()
        if now - self.said >= 5 or self.done == self.total:
            self.said = now
            speed = (self.done - self.first) / max(now - self.began, 1e-9)
            print(f"{self.name}: {self.done}/{self.total}, {speed:.1f} steps/s, loss {loss:.3f}", file=sys.stderr)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()


def smooth(values: list[float], window: int) -> list[float]:
    """Means of the last `window` values."""
    means, total = [], 0.0
    for i, value in enumerate(values):
        total += value - (values[i - window] if i >= window else 0.0)
        means.append(total / min(i + 1, window))
    return means


def draw_losses(file: Path, results: list[dict[str, Any]]) -> bool:
    """Draws the losses of one program's results into a PNG; False where Matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5), dpi=120)
    for result, colour in zip(results, ("#d6451b", "#3b6ea5", "#4f8a4c"), strict=False):
        name, losses = result["framework"], result["losses"]
        steps = range(1, len(losses) + 1)
        axes.plot(steps, losses, color=colour, alpha=0.2, linewidth=0.6)
        axes.plot(steps, smooth(losses, max(1, len(losses) // 50)), color=colour, label=f"{name}, training")
        if result["validation"]:
            axes.plot(*zip(*result["validation"], strict=True), color=colour, marker="o", markersize=3,
                      linestyle="--", label=f"{name}, validation")
    axes.set(title=results[0]["program"], xlabel="step", ylabel="cross-entropy, nats")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    pyplot.close(figure)
    write_whole(file, lambda out: out.write(buffer.getvalue()))
    return True


def table(header: list[str], rows: list[list[str]]) -> str:
    """Columns under their headings; all but the first two are aligned at the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(f"{cell:{'<' if i < 2 else '>'}{width}}" for i, (cell, width) in enumerate(zip(line, widths)))
        for line in lines
    )
