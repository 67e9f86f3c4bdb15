"""``lohe run program.py``: runs a program that imports torch on this package."""

from __future__ import annotations

import argparse
import os
import runpy
import sys


def main(arguments: list[str] | None = None) -> int:
    """The command line; gives the exit status."""
    parser = argparse.ArgumentParser(prog="lohe", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run a Python program with `import torch` served by Lohe")
    run.add_argument("-m", dest="as_module", action="store_true", help="PROGRAM is the name of a module")
    run.add_argument("program")
    run.add_argument("arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args(arguments)

    import lohe

    lohe.install()
    sys.argv = [options.program, *options.arguments]
    if options.as_module:
        sys.path.insert(0, os.getcwd())
        runpy.run_module(options.program, run_name="__main__", alter_sys=True)
    else:
        if not os.path.isfile(options.program):
            parser.error(f"there is no file {options.program!r}")
        sys.path.insert(0, os.path.dirname(os.path.abspath(options.program)))
        runpy.run_path(options.program, run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main())
