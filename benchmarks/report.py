"""Rows of measurements, and the page docs/performance.md with one section for each processor."""

from __future__ import annotations

import dataclasses
import os
import re
import statistics
import tempfile
from pathlib import Path
from typing import Any

AS_FAST = 0.97  # "1.0x" means a ratio of at least this; other bars are what they say
# Where the limit leaves no room for a ratio, 1.0 of it and this share of the limit meet a bar of a whole model.
AT_LIMIT = 0.8


def least(bar: float) -> float:
    """The ratio that meets a bar."""
    return AS_FAST if bar == 1.0 else bar


@dataclasses.dataclass
class Row:
    """One case: values of both sides run by run (seconds or bytes: less is better), or why there are none."""

    name: str
    ours: list[float] = dataclasses.field(default_factory=list)
    theirs: list[float] = dataclasses.field(default_factory=list)
    unit: str = "s"
    bar: float | None = None
    limit: float | None = None
    note: str = ""

    @property
    def ratios(self) -> list[float]:
        """Theirs over ours, run by run: above 1 Lohe is better."""
        return [t / o for o, t in zip(self.ours, self.theirs, strict=True) if o > 0]

    def met(self) -> bool | None:
        """Whether the bar is met; None without a bar or a ratio."""
        if self.bar is None or not self.ratios:
            return None
        return statistics.median(self.ratios) >= least(self.bar)

    def markdown(self) -> str:
        ratio = "-"
        if self.ratios:
            r = self.ratios
            ratio = f"{statistics.median(r):.2f} ({min(r):.2f} to {max(r):.2f})"
        bar = "" if self.bar is None else f"{self.bar:g}"
        verdict = {True: "yes", False: "no", None: ""}[self.met()]
        if self.bar is not None and not self.ratios:
            verdict = "not measured"
        share = ""
        if self.limit is not None:
            share = quantity(self.limit, self.unit)
            if self.ours:
                share += f", {100 * self.limit / statistics.median(self.ours):.0f} %"
        cells = [
            self.name,
            _median(self.ours, self.unit),
            _median(self.theirs, self.unit),
            ratio,
            bar,
            verdict,
            share,
        ]
        return "| " + " | ".join([*cells, self.note.replace("|", "\\|")]) + " |"


def _median(values: list[float], unit: str) -> str:
    return quantity(statistics.median(values), unit) if values else "-"


def quantity(value: float, unit: str) -> str:
    """A value with three digits and the prefix that suits it; unit ``s`` or ``B``."""
    if unit == "B":
        return f"{value / 2**20:.1f} MiB"
    for factor, prefix in ((1, ""), (1e-3, "m"), (1e-6, "u")):
        if abs(value) >= factor:
            return f"{value / factor:.3g} {prefix}s"
    return f"{value / 1e-9:.3g} ns"


def block(suite: str, peer: str, heading: str, rows: list[Row]) -> str:
    """One suite against one peer, as Markdown."""
    lines = [
        f"### {suite}, PyTorch {peer}",
        "",
        heading,
        "",
        "| case | Lohe | PyTorch | ratio, median (min to max) | bar | met | limit, share reached | |",
        "|---|---|---|---|---|---|---|---|",
        *(row.markdown() for row in rows),
    ]
    return "\n".join(lines) + "\n"


@dataclasses.dataclass
class Comparison:
    """One case on several sides, the first of them judged: seconds by side, run by run, or why there are none.

    ``bars`` has the ratio to reach by the name of a rival, as in ``ratio``; ``limit`` is the least time of the first
    side's kernels together, where it is known.
    """

    name: str
    seconds: dict[str, list[float]]
    bars: dict[str, float] = dataclasses.field(default_factory=dict)
    note: str = ""
    means: dict[str, float] = dataclasses.field(default_factory=dict)  # instead of seconds: ratios by rival
    limit: float | None = None

    def share(self) -> float | None:
        """What the first side reaches of the limit."""
        ours = next(iter(self.seconds.values()), [])
        return self.limit / statistics.median(ours) if self.limit is not None and ours else None

    def ratio(self, rivals: tuple[str, ...]) -> float | None:
        """The median over the runs of a rival's time over the first side's, the least of all rivals' medians.

        None where not measured.
        """
        ours = next(iter(self.seconds.values()), [])
        theirs = [self.seconds[r] for r in rivals if self.seconds.get(r)]
        if not ours or not theirs:
            return None
        return min(statistics.median(t / o for o, t in zip(ours, times, strict=True)) for times in theirs)

    def _ratios(self, rivals: dict[str, tuple[str, ...]]) -> dict[str, float | None]:
        return {name: self.means.get(name, self.ratio(sides)) for name, sides in rivals.items()}

    def reached(self, rivals: dict[str, tuple[str, ...]]) -> bool | None:
        """Whether all bars are met; None without a bar or a ratio."""
        found = self._ratios(rivals)
        if not self.bars or any(found[name] is None for name in self.bars):
            return None
        at_limit = (self.share() or 0.0) >= AT_LIMIT
        return all((found[name] or 0.0) >= least(1.0 if at_limit else b) for name, b in self.bars.items())

    def close(self, rivals: dict[str, tuple[str, ...]], room: float) -> bool:
        """Whether a ratio is no further from its bar than this part of the bar."""
        found = self._ratios(rivals)
        return any(abs((found[name] or 0.0) / least(b) - 1.0) <= room for name, b in self.bars.items())

    def markdown(self, rivals: dict[str, tuple[str, ...]]) -> str:
        """The row; ``rivals`` names groups of sides, each with a column for the ratio over its best one."""
        found = self._ratios(rivals)
        cells = [self.name, *(_median(v, "s") for v in self.seconds.values())]
        cells += ["-" if r is None else f"{r:.2f}" for r in found.values()]
        cells.append(", ".join(f"{b:g} over {name}" for name, b in self.bars.items()))
        verdict = {True: "yes", False: "no", None: "not measured" if self.bars else ""}[self.reached(rivals)]
        note = self.note.replace("|", "\\|")
        if (share := self.share()) is not None:
            limit = f"limit {quantity(self.limit or 0.0, 's')}, {100 * share:.0f} % reached"
            note = f"{limit}; {note}" if note else limit
        return "| " + " | ".join([*cells, verdict, note]) + " |"


def geometric_mean(name: str, rows: list[Comparison], rivals: dict[str, tuple[str, ...]]) -> Comparison:
    """The geometric means of the ratios of those rows that have one."""
    mean = Comparison(name, {side: [] for side in rows[0].seconds} if rows else {})
    for rival, sides in rivals.items():
        ratios = [r for row in rows if (r := row.ratio(sides)) is not None]
        if ratios:
            mean.means[rival] = statistics.geometric_mean(ratios)
    mean.note = f"of {len(rows)} cases"
    return mean


def counted(step: dict[str, Any]) -> float:
    """The least seconds of a step as they count for the whole: a plain loop may be slower than the step was."""
    return min(step["least"], step["seconds"])


def least_times(trials: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The steps of one program, of several measurements the least times, the longest first."""
    by_name = [{step["name"]: step for step in steps} for steps in trials]
    merged = [
        step | {field: min(steps[name][field] for steps in by_name) for field in ("seconds", "least")}
        for name, step in by_name[0].items()
    ]
    return sorted(merged, key=lambda step: -step["seconds"])


def limits(title: str, heading: str, steps: list[dict[str, Any]]) -> str:
    """The steps of a program as a worker gives them, with what they take at least, as Markdown."""
    lines = [
        f"### {title}",
        "",
        heading,
        "",
        "| step | times | time | at least | share | GFLOP | MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    total = {"name": "together", "times": 0, "seconds": 0.0, "least": 0.0, "flops": 0, "bytes": 0}
    for step in steps:
        for field in ("times", "seconds", "flops", "bytes"):
            total[field] += step[field]
        total["least"] += counted(step)
    for step in [*steps, total]:
        known = step["least"] > 0
        cells = [
            step["name"],
            str(step["times"]),
            quantity(step["seconds"], "s"),
            quantity(step["least"], "s") if known else "-",
            f"{100 * step['least'] / step['seconds']:.0f} %" if known and step["seconds"] else "-",
            f"{step['flops'] * 1e-9:.2f}" if step["flops"] else "",
            f"{step['bytes'] / 2**20:.1f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def comparison(
    title: str, heading: str, labels: list[str], rivals: dict[str, tuple[str, ...]], rows: list[Comparison]
) -> str:
    """A table of several sides, as Markdown."""
    columns = ["case", *labels, *(f"over {name}" for name in rivals), "bar", "met", ""]
    lines = [f"### {title}", "", heading, "", "| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    return "\n".join([*lines, *(row.markdown(rivals) for row in rows)]) + "\n"


PREAMBLE = """# Performance

Lohe and PyTorch 2.13 run in two long-lived processes, in alternating blocks; a ratio is PyTorch's time over
Lohe's in one run (for memory, bytes over bytes), so above 1 Lohe is better, and its median over the runs is
judged; where a column has several rivals, the one with the least median. In the tables that compare several sides at
once (compiled steps, patterns, optimizers) a run of a side is the fastest repetition of its block. A bar of 1.0 is met from 0.97; where the limit leaves no room for a ratio, a whole model meets its bar with
1.0 and 80 % of the limit. *As installed* is PyTorch as a user gets it; *tuned* has fused
optimizers, glibc told to keep its memory, and on AMD the full instruction set for its MKL; *compiled* is
`torch.compile`. The limit is the least time that this machine's measured float32 FMA rate, or a plain loop
that reads and writes as many bytes over the same working set, allows; a cell stays empty where that is not
simple. *JAX*, in the table of training steps, is `jax.jit` of the whole step, parameters and optimizer's state
donated and the loss read back: asynchronous dispatch off, no `XLA_FLAGS`; the MLP with one vector of parameters and
`xla_cpu_multi_thread_eigen=false`, the fastest of the forms tried. The head of a section names its version.
`tools/bench --write` replaces the tables of the processor it runs on, `--with-jax` installs JAX first.
"""

# Processors that the bars name; a section says "not measured" until a run on such a machine replaces it.
EXPECTED = ("AMD Zen 5", "Intel with AMX", "Intel without AMX")


def family(cpu: str) -> str:
    """The class of processor that a section counts for."""
    if "AMD" in cpu:
        return "AMD Zen 5" if "family 26" in cpu else "AMD"
    return ("Intel with AMX" if cpu.endswith("AMX)") else "Intel without AMX") if "Intel" in cpu else cpu


def merge(page: str, cpu: str, header: str, blocks: dict[str, str]) -> str:
    """The page with this processor's blocks replaced or added; everything else stays as it was."""
    sections = dict(re.findall(r"<!-- begin cpu (.*?) -->\n(.*?)<!-- end cpu -->", page, re.DOTALL))
    kept = dict(
        re.findall(r"<!-- begin table (.*?) -->\n(.*?)<!-- end table -->", sections.get(cpu, ""), re.DOTALL)
    )
    kept.update(blocks)
    body = "".join(
        f"<!-- begin table {key} -->\n{text}<!-- end table -->\n\n" for key, text in sorted(kept.items())
    )
    sections[cpu] = f"## {cpu}\n\n{header}\n\n{body}"
    text = PREAMBLE
    for name, section in sorted(sections.items()):
        text += f"\n<!-- begin cpu {name} -->\n{section}<!-- end cpu -->\n"
    absent = [name for name in EXPECTED if name not in {family(n) for n in sections}]
    for name in absent:
        text += f"\n## {name}\n\nNot measured.\n"
    return text


def write_whole(path: Path, text: str) -> None:
    """Writes the file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(descriptor, "w") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
