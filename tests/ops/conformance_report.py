"""What a conformance run found, as a table, Markdown and JSON, and the list of accepted differences."""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import re
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from conformance_compare import CLASSES


@dataclasses.dataclass
class Entry:
    """The cases of one entry: how many passed, which failed and why, which lie outside the comparison."""

    passed: int = 0
    failures: dict[str, list[tuple[str, str]]] = dataclasses.field(default_factory=dict)
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)
    broken: str = ""

    @property
    def total(self) -> int:
        return self.passed + len(self.failures)

    def classes(self) -> dict[str, int]:
        """Failing cases by their most severe class."""
        count = collections.Counter(found[0][0] for found in self.failures.values())
        return {c: count[c] for c in CLASSES if count[c]}


class KnownDifferences:
    """Accepted differences, each with its reason; see ``known_differences.toml`` for the fields."""

    FIELDS = {"op", "dtype", "class", "variant", "reason"}

    def __init__(self, path: Path):
        rows = tomllib.loads(path.read_text()).get("difference", []) if path.exists() else []
        for row in rows:
            unknown = set(row) - self.FIELDS
            if unknown or not row.get("reason") or not row.get("op") or not row.get("class"):
                raise ValueError(f"{path.name}: a difference needs op, class and reason; got {row}")
        self._rows = rows

    def reason(self, case_id: str, kind: str) -> str | None:
        """Why this difference is accepted, or None."""
        entry, variant, dtype, _ = case_id.split("/")
        have = {"op": entry, "variant": variant, "dtype": dtype, "class": kind}
        for row in self._rows:
            if all(re.fullmatch(row[key], value) for key, value in have.items() if key in row):
                return row["reason"]
        return None

    def unexpected(self, entries: dict[str, Entry]) -> dict[str, list[tuple[str, str]]]:
        """The failing cases, with those of their differences that nobody has accepted."""
        out = {}
        for entry in entries.values():
            for case_id, found in entry.failures.items():
                left = [(kind, message) for kind, message in found if self.reason(case_id, kind) is None]
                if left:
                    out[case_id] = left
        return out


def percentage(passed: int, total: int) -> str:
    return f"{100 * passed / total:.2f} %" if total else "-"


def markdown(
    entries: dict[str, Entry], known: KnownDifferences, missing: list[str], total_entries: int, settings: str
) -> str:
    """The page docs/conformance.md."""
    passed = sum(e.passed for e in entries.values())
    total = sum(e.total for e in entries.values())
    clean = sum(1 for e in entries.values() if e.total and not e.failures)
    lines = [
        "# Conformance with PyTorch's operator database",
        "",
        "Every entry of `torch.testing._internal.common_methods_invocations.op_db` (PyTorch 2.13.0, CPU) that Lohe",
        "has is run on both systems: value, dtype, shape, strides, aliasing, changed arguments, gradients of a",
        "random cotangent, and the type of raised errors. `tools/conformance --write` writes this page.",
        "",
        f"Settings: {settings}.",
        "",
        "| | |",
        "|---|---|",
        f"| cases passed | {passed} of {total} ({percentage(passed, total)}) |",
        f"| entries without a failure | {clean} of {len(entries)} |",
        f"| entries of the database that Lohe has | {len(entries)} of {total_entries} |",
        f"| failing cases that are accepted differences | {_accepted(entries, known)} |",
        "",
        "Values are compared exactly for bool and integers and for operators that move, select or change signs;",
        "other floating results by the default tolerances of `torch.testing.assert_close`, widened by the",
        "database's own overrides. A float result outside of these passes when its largest error against PyTorch",
        "in 64 bits is at most twice PyTorch's own. Random and uninitialised results are compared in dtype, shape",
        "and strides only. Accepted differences count as failures.",
        "",
        "| class | cases |",
        "|---|---|",
    ]
    classes: collections.Counter[str] = collections.Counter()
    for entry in entries.values():
        classes.update(entry.classes())
    lines += [f"| {c} | {classes[c]} |" for c in CLASSES if classes[c]]
    lines += [
        "",
        "## Entries",
        "",
        "| entry | cases | passed | | failures by class |",
        "|---|---|---|---|---|",
    ]
    for name, e in sorted(entries.items()):
        why = ", ".join(f"{c} {n}" for c, n in e.classes().items())
        if e.broken:
            why = f"{why} (samples: {e.broken})".strip().replace("|", "\\|")
        lines.append(f"| `{name}` | {e.total} | {e.passed} | {percentage(e.passed, e.total)} | {why} |")
    lines += _failing(entries, known)
    if missing:
        lines += ["", "## Entries that Lohe does not have", "", ", ".join(f"`{m}`" for m in missing)]
    return "\n".join(lines) + "\n"


def _failing(entries: dict[str, Entry], known: KnownDifferences) -> list[str]:
    """Accepted differences by reason, then the others by what the first case says."""
    accepted: dict[str, collections.Counter[str]] = {}
    rest: dict[tuple[str, str, str], list[str]] = {}
    unexpected = known.unexpected(entries)
    for name, entry in sorted(entries.items()):
        for case_id, found in entry.failures.items():
            kind, message = unexpected.get(case_id, found)[0]
            if case_id in unexpected:
                rest.setdefault((name, case_id.split("/")[1], kind), []).append(message)
            else:
                reason = known.reason(case_id, kind) or ""
                accepted.setdefault(reason, collections.Counter())[name] += 1
    lines = ["", "## Accepted differences", "", "| entries | cases | why Lohe differs |", "|---|---|---|"]
    for reason, count in accepted.items():
        names = ", ".join(f"`{n}`" for n in count)
        lines.append(f"| {names} | {sum(count.values())} | {reason} |")
    lines += ["", "## Other failing cases", "", "| entry | form | class | cases | first |", "|---|---|---|---|---|"]
    for (name, variant, kind), messages in rest.items():
        first = messages[0].replace("|", "\\|")
        lines.append(f"| `{name}` | {variant} | {kind} | {len(messages)} | {first:.160} |")
    return lines


def _accepted(entries: dict[str, Entry], known: KnownDifferences) -> int:
    unexpected = known.unexpected(entries)
    return sum(1 for e in entries.values() for case_id in e.failures if case_id not in unexpected)


def table(entries: dict[str, Entry]) -> str:
    """One line for each entry with a failure, and the total."""
    lines = []
    for name, e in sorted(entries.items()):
        if e.failures or e.broken:
            why = ", ".join(f"{c} {n}" for c, n in e.classes().items())
            lines.append(f"{name:44} {e.passed:6} of {e.total:6}  {why} {e.broken}".rstrip())
    passed, total = sum(e.passed for e in entries.values()), sum(e.total for e in entries.values())
    skipped = sum(len(e.skipped) for e in entries.values())
    lines.append(
        f"{len(entries)} entries, {passed} of {total} cases passed ({percentage(passed, total)}), "
        f"{skipped} outside the comparison"
    )
    return "\n".join(lines)


def as_json(entries: dict[str, Entry]) -> dict[str, Any]:
    return {
        name: {
            "passed": e.passed,
            "total": e.total,
            "broken": e.broken,
            "failures": e.failures,
            "skipped": e.skipped,
        }
        for name, e in sorted(entries.items())
    }


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


def write_json(path: Path, entries: dict[str, Entry]) -> None:
    write_whole(path, json.dumps(as_json(entries), indent=1) + "\n")
