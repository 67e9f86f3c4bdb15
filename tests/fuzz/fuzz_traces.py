#!/usr/bin/env python3
"""Random C++ programs under recording: views, in-place writes, dtypes, reductions, random numbers, reads of values,
gradients. What they leave must have the bits of the plain run, unfused and compiled, wherever they are settled, for
one thread and several. tests/cpp/random_trace.h makes them.

Exit status: 0 when nothing was found, 1 otherwise.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import lohe
from seeds import add_options

WAYS: dict[str, tuple[list[str], dict[str, str]]] = {
    "unfused": ([], {}),
    "unfused, 3 threads": (["--large", "--threads", "3"], {"LOHE_DEBUG_WAKE": "1"}),
    "compiled": (["--compiled"], {"LOHE_DEBUG_FILL": "1", "LOHE_COMPILE_STRICT": "1"}),
    "compiled, long rows, 3 threads": (
        ["--compiled", "--large", "--threads", "3"],
        {"LOHE_DEBUG_FILL": "1", "LOHE_DEBUG_WAKE": "1", "LOHE_COMPILE_STRICT": "1"},
    ),
    "compiled, interpreter": (["--compiled"], {"LOHE_KERNELS": "interpreter"}),
    "compiled, guard pages": (["--compiled"], {"LOHE_DEBUG_GUARD": "1"}),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/fuzz traces", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, "program")
    parser.add_argument("--block", type=int, default=500, help="programs between looks at the clock (default 500)")
    parser.add_argument("--ways", default="", help=f"separated by semicolons, of: {'; '.join(WAYS)} (default: all)")
    options = parser.parse_args()
    package = Path(lohe.__file__).absolute().parent
    tool = next((p / "bin/tests/trace_fuzz_tool" for p in package.parents if (p / "bin/tests/trace_fuzz_tool").exists()), None)
    if tool is None:
        raise SystemExit("trace_fuzz_tool was not built; run tools/build")
    names = options.ways.split(";") if options.ways else list(WAYS)
    seed = options.seed if options.seed is not None else options.first if options.first is not None else int(time.time())
    count = 1 if options.seed is not None else options.block
    end, done, failed = time.monotonic() + options.seconds, dict.fromkeys(names, 0), 0
    while failed < options.most:
        for name in names:
            words, environment = WAYS[name]
            result = subprocess.run(
                [str(tool), "--first", str(seed), "--count", str(count), *words],
                env={**os.environ, **environment}, capture_output=True, text=True,
            )  # fmt: skip
            done[name] += count
            if result.returncode != 0:
                failed += 1
                print(f"=== {name}: status {result.returncode}\n{result.stdout}{result.stderr}", flush=True)
        seed += count
        if options.seed is not None or time.monotonic() > end:
            break
    print(f"programs: {done}; {failed} blocks with differences")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
