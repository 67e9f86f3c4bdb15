"""What compile() made of a function: as text, as data, and drawn."""

from __future__ import annotations

import os
from collections.abc import Callable
from html import escape
from typing import Any

from lohe import _C
from lohe._files import write_whole

__all__ = ["CompileReport", "compile_report"]

_ROW, _WIDTH, _LEFT = 18, 420, 380
_COLOURS = ("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#76b7b2", "#edc948", "#9c755f")


class CompileReport:
    """Programs of a compiled function, the one used last first.

    ``programs`` is a list of dicts: ``reason`` (why it was compiled), ``met``, ``operations``, ``arena_bytes``,
    ``block_bytes``, ``compile_nanoseconds``, ``profiled_runs``, ``exact``, ``share``, ``steps`` (dicts with ``name``,
    ``kernel``, ``operations``, ``sizes``, ``read`` and ``written`` bytes and their sum ``bytes``, ``far`` bytes, ``flops`` of
    matrix products and convolutions, ``nanoseconds``, ``share``, ``rewrites``) and ``buffers`` (offset, bytes, first step, last
    step). Small buffers lie in one arena; large ones are blocks of the heap, which need ``block_bytes`` at a time: their offsets
    are those of a plan behind the arena. ``far`` of a call counts what the steps up to the next call read and no step has
    used for long: a matrix product fetches it into near caches, up to 1 MiB for each thread.

    ``share`` of a step is what it reaches of the machine's limit: the least time of a plain loop that reads and writes as many
    bytes over a working set of the same size, or of the fused multiply-adds of a matrix product or convolution in a floating
    dtype, over its measured time. A program's is that of its steps together. Limits are measured once a process, when a report
    with times first needs them. None where there is no time, and for calls of other kinds.

    ``replay``, of a function compiled with replay=True, is a dict: ``replayed`` and ``ran`` (calls without and with the
    function's Python), ``ready`` (kinds of calls that are replayed), ``reasons`` (why others are not). Else None.
    """

    def __init__(self, text: str, programs: list[dict[str, Any]], replay: dict[str, Any] | None = None) -> None:
        self._text = text if replay is None else f"{text}{_told(replay)}\n"
        self.programs = programs
        self.replay = replay

    def __repr__(self) -> str:
        return self._text

    def draw(self, path: str | os.PathLike[str], program: int = 0) -> None:
        """Writes one program's steps, with their time, and its memory plan as an SVG picture.

        Raises IndexError where there is no such program, OSError where the file cannot be written.
        """
        write_whole(path, _svg(self.programs[program]).encode())


def _told(replay: dict[str, Any]) -> str:
    told = f"replay: {replay['replayed']} calls replayed, {replay['ran']} ran"
    return told + "".join(f"\n  not replayed: {reason}" for reason in replay["reasons"])


def _svg(program: dict[str, Any]) -> str:
    steps, buffers = program["steps"], program["buffers"]
    longest = max([s["nanoseconds"] for s in steps], default=0) or 1
    height = _ROW * (len(steps) + 3)
    memory = program["arena_bytes"] + program["block_bytes"] or 1
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + 2 * _WIDTH + 60}" height="{height}" '
        'font-family="sans-serif" font-size="11">',
        f'<text x="8" y="14">{program["operations"]} operations in {len(steps)} steps; time of each, then the memory plan '
        f"({memory / 1024:.0f} KiB, left to right)</text>",
    ]
    for i, step in enumerate(steps):
        y = _ROW * (i + 1) + 8
        name = f"{step['name']} {list(step['sizes'])}"
        parts.append(f'<text x="8" y="{y + 12}">{escape(name if len(name) < 62 else name[:59] + "...")}</text>')
        width = max(step["nanoseconds"] / longest * (_WIDTH - 60), 1)
        colour = _COLOURS[0] if step["kernel"] else _COLOURS[1]
        parts.append(f'<rect x="{_LEFT}" y="{y + 2}" width="{width:.1f}" height="{_ROW - 4}" fill="{colour}"/>')
        parts.append(f'<text x="{_LEFT + width + 4:.1f}" y="{y + 12}">{step["nanoseconds"] / 1000:.1f} us</text>')
    for i, (offset, size, first, last) in enumerate(buffers):
        x, width = _LEFT + _WIDTH + 20 + offset / memory * _WIDTH, max(size / memory * _WIDTH, 0.5)
        y = _ROW * (first + 1) + 8
        parts.append(
            f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_ROW * (last - first + 1) - 1}" '
            f'fill="{_COLOURS[i % len(_COLOURS)]}" fill-opacity="0.7"><title>{size} bytes, steps {first} to {last}</title></rect>'
        )
    return "\n".join([*parts, "</svg>\n"])


def compile_report(function: Callable[..., Any] | None = None, *args: Any, **kwargs: Any) -> CompileReport:
    """What was compiled for ``function``, a result of compile(); for every function without one.

    With arguments the function is called with them until it runs as a program, then five times more to measure its steps;
    without, times are those of earlier measurements. Raises TypeError for what compile() did not make.
    """
    site = 0
    table = None
    if function is not None:
        compiled = getattr(function, "_compiled_call_impl", None) or function  # of model.compile()
        found = getattr(compiled, "_lohe_site", None)
        if found is None:
            raise TypeError(f"compile_report: expected what compile() gave, got {type(function).__name__}")
        site = found
        table = getattr(compiled, "_lohe_replay", None)
        if args or kwargs:
            for _ in range(3):
                function(*args, **kwargs)
            before = _C._record_profile(True)
            try:
                for _ in range(5):
                    function(*args, **kwargs)
            finally:
                _C._record_profile(before)
    return CompileReport(*_C._record_report(site), None if table is None else table._report())
