"""The search that the programs of this folder share: which seeds they run, and for how long."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator


def add_options(parser: argparse.ArgumentParser, case: str) -> None:
    parser.add_argument("--seed", type=int, default=None, help=f"run this one {case} only")
    parser.add_argument("--first", type=int, default=None, help="first seed of the search (default: by the clock)")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the search (default 60)")
    parser.add_argument("--most", type=int, default=10, help="stop after this many findings (default 10)")


def seeds(options: argparse.Namespace) -> Iterator[int]:
    """The one seed that was asked for, or one after another until the time is over."""
    if options.seed is not None:
        yield options.seed
        return
    seed = options.first if options.first is not None else int(time.time()) * 1000
    end = time.monotonic() + options.seconds
    while time.monotonic() < end:
        yield seed
        seed += 1
