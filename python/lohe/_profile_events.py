"""Events of a profile, their averages, and the table of them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

__all__ = ["EventList", "FunctionEvent", "FunctionEventAvg", "Interval"]

#: By lohe::profile::Event::Kind: the category in exported traces.
_CATEGORIES = ("cpu_op", "autograd_node", "user_annotation", "kernel", "library_call")


class Interval:
    """Microseconds since the first event."""

    def __init__(self, start: float, end: float) -> None:
        self.start, self.end = start, end

    def elapsed_us(self) -> float:
        return self.end - self.start


class FunctionEvent:
    """One call: ``name``, ``time_range``, ``cpu_children``, ``cpu_parent``, ``input_shapes``; times in microseconds."""

    def __init__(
        self,
        id: int,
        name: str,
        category: str,
        thread: int,
        start: float,
        end: float,
        memory: int,
        shapes: list[list[int]],
    ) -> None:
        self.id, self.name, self.category, self.thread = id, name, category, thread
        self.time_range = Interval(start, end)
        self.cpu_memory_usage = memory
        self.input_shapes = shapes
        self.cpu_children: list[FunctionEvent] = []
        self.cpu_parent: FunctionEvent | None = None

    @property
    def key(self) -> str:
        return self.name

    @property
    def cpu_time_total(self) -> float:
        return self.time_range.elapsed_us()

    cpu_time = cpu_time_total

    @property
    def self_cpu_time_total(self) -> float:
        return self.cpu_time_total - sum(child.cpu_time_total for child in self.cpu_children)

    @property
    def self_cpu_memory_usage(self) -> int:
        return self.cpu_memory_usage - sum(child.cpu_memory_usage for child in self.cpu_children)

    def __repr__(self) -> str:
        return (
            f"<FunctionEvent id={self.id} name={self.name} thread={self.thread} cpu_time={time_text(self.cpu_time_total)} "
            f"self_cpu_time={time_text(self.self_cpu_time_total)} input_shapes={self.input_shapes}>"
        )


class FunctionEventAvg:
    """Calls of one name: ``count``, total and average times in microseconds, memory in bytes."""

    def __init__(self, key: str, input_shapes: list[list[int]] | None) -> None:
        self.key, self.input_shapes = key, input_shapes
        self.count = 0
        self.cpu_time_total = self.self_cpu_time_total = 0.0
        self.cpu_memory_usage = self.self_cpu_memory_usage = 0
        self.device_time_total = self.self_device_time_total = 0.0

    def add(self, event: FunctionEvent) -> None:
        self.count += 1
        self.self_cpu_time_total += event.self_cpu_time_total
        self.self_cpu_memory_usage += event.self_cpu_memory_usage
        # What a call of the same name contains is counted already.
        around = event.cpu_parent
        while around is not None and around.name != event.name:
            around = around.cpu_parent
        if around is None:
            self.cpu_time_total += event.cpu_time_total
            self.cpu_memory_usage += event.cpu_memory_usage

    @property
    def cpu_time(self) -> float:
        return self.cpu_time_total / self.count if self.count else 0.0

    def __repr__(self) -> str:
        return (
            f"<FunctionEventAvg key={self.key} count={self.count} self_cpu_time={time_text(self.self_cpu_time_total)} "
            f"cpu_time={time_text(self.cpu_time)} input_shapes={self.input_shapes or ''}>"
        )


def time_text(microseconds: float) -> str:
    """Seconds, milliseconds or microseconds, with three decimals."""
    if microseconds >= 1e6:
        return f"{microseconds / 1e6:.3f}s"
    return f"{microseconds / 1e3:.3f}ms" if microseconds >= 1e3 else f"{microseconds:.3f}us"


def memory_text(size: int) -> str:
    """Bytes with a binary unit."""
    for power, unit in ((30, "GB"), (20, "MB"), (10, "KB")):
        if abs(size) >= 1 << power:
            return f"{size / (1 << power):.2f} {unit}"
    return f"{size} B"


_SORTABLE = (
    "cpu_time",
    "cpu_time_total",
    "self_cpu_time_total",
    "cpu_memory_usage",
    "self_cpu_memory_usage",
    "count",
)


class EventList(list):
    """Events or averages of events, with a table."""

    @classmethod
    def from_rows(cls, thread: int, rows: list[tuple]) -> EventList:
        """From what ``_C._profile_end`` gives: (name, kind, parent, begin, end, bytes, shapes), times in nanoseconds."""
        origin = rows[0][3] if rows else 0
        events = cls()
        for number, (name, kind, parent, begin, end, size, shapes) in enumerate(rows):
            event = FunctionEvent(
                number,
                name,
                _CATEGORIES[kind],
                thread,
                (begin - origin) / 1e3,
                (end - origin) / 1e3,
                size,
                shapes,
            )
            if parent >= 0:
                event.cpu_parent = events[parent]
                events[parent].cpu_children.append(event)
            events.append(event)
        return events

    @property
    def self_cpu_time_total(self) -> float:
        return sum(event.self_cpu_time_total for event in self)

    def key_averages(self, group_by_input_shapes: bool = False, group_by_stack_n: int = 0) -> EventList:
        """Events of one name (and one set of input shapes) together."""
        groups: dict[tuple, FunctionEventAvg] = {}
        for event in self:
            shapes = event.input_shapes if group_by_input_shapes else None
            group = (event.name, str(shapes))
            if group not in groups:
                groups[group] = FunctionEventAvg(event.name, shapes)
            groups[group].add(event)
        return EventList(groups.values())

    def total_average(self) -> FunctionEventAvg:
        """All events as one."""
        total = FunctionEventAvg("Total", None)
        for event in self:
            total.count += getattr(event, "count", 1)
            total.self_cpu_time_total += event.self_cpu_time_total
            total.self_cpu_memory_usage += event.self_cpu_memory_usage
        total.cpu_time_total = total.self_cpu_time_total
        return total

    def table(
        self,
        sort_by: str | None = None,
        row_limit: int = 100,
        max_src_column_width: int = 75,
        max_name_column_width: int = 55,
        max_shapes_column_width: int = 80,
        header: str | None = None,
        top_level_events_only: bool = False,
        time_unit: str | None = None,
    ) -> str:
        """The rows as text, the largest first by ``sort_by``: one of cpu_time, cpu_time_total, self_cpu_time_total,
        cpu_memory_usage, self_cpu_memory_usage, count. Raises AttributeError for another."""
        rows: Iterable[Any] = self
        if top_level_events_only:
            rows = [row for row in rows if getattr(row, "cpu_parent", None) is None]
        if sort_by is not None:
            if sort_by not in _SORTABLE:
                raise AttributeError(
                    f"table: expected sort_by to be one of {', '.join(_SORTABLE)}, got {sort_by!r}"
                )
            rows = sorted(rows, key=lambda row: getattr(row, sort_by, 1), reverse=True)
        rows = list(rows)[: row_limit if row_limit >= 0 else None]
        whole = self.self_cpu_time_total or 1.0
        with_memory = any(row.cpu_memory_usage for row in rows)
        with_shapes = any(row.input_shapes for row in rows)
        titles = ["Name", "Self CPU %", "Self CPU", "CPU total %", "CPU total", "CPU time avg"]
        titles += ["CPU Mem", "Self CPU Mem"] if with_memory else []
        titles += ["# of Calls"] + (["Input Shapes"] if with_shapes else [])
        lines = []
        for row in rows:
            name = (
                row.key
                if len(row.key) <= max_name_column_width
                else row.key[: max_name_column_width - 3] + "..."
            )
            line = [
                name,
                f"{row.self_cpu_time_total / whole * 100:.2f}%",
                time_text(row.self_cpu_time_total),
                f"{row.cpu_time_total / whole * 100:.2f}%",
                time_text(row.cpu_time_total),
                time_text(row.cpu_time),
            ]
            line += (
                [memory_text(row.cpu_memory_usage), memory_text(row.self_cpu_memory_usage)]
                if with_memory
                else []
            )
            line.append(str(getattr(row, "count", 1)))
            if with_shapes:
                line.append(str(row.input_shapes or "[]")[:max_shapes_column_width])
            lines.append(line)
        widths = [max(map(len, column)) for column in zip(titles, *lines, strict=True)]
        rule = "  ".join("-" * width for width in widths)
        text = [header] if header else []
        text += [rule, _line(titles, widths), rule, *(_line(line, widths) for line in lines), rule]
        return "\n".join([*text, f"Self CPU time total: {time_text(self.self_cpu_time_total)}", ""])

    def __str__(self) -> str:
        return self.table()

    def chrome_trace(self, metadata: dict[str, Any]) -> dict[str, Any]:
        """The events in the trace event format (Google, "Trace Event Format"), complete events, microseconds."""
        process = os.getpid()
        events: list[dict[str, Any]] = [
            {"ph": "M", "name": "process_name", "pid": process, "tid": 0, "args": {"name": "python"}}
        ]
        for event in self:
            arguments: dict[str, Any] = {"External id": event.id}
            if event.input_shapes:
                arguments["Input Dims"] = event.input_shapes
            if event.cpu_memory_usage:
                arguments["Bytes"] = event.cpu_memory_usage
            events.append(
                {
                    "ph": "X",
                    "cat": event.category,
                    "name": event.name,
                    "pid": process,
                    "tid": event.thread,
                    "ts": event.time_range.start,
                    "dur": event.time_range.elapsed_us(),
                    "args": arguments,
                }
            )
        return {"schemaVersion": 1, "displayTimeUnit": "ms", **metadata, "traceEvents": events}


def _line(cells: list[str], widths: list[int]) -> str:
    """The first cell to the left, the others to the right."""
    return "  ".join(
        [cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))]
    )
