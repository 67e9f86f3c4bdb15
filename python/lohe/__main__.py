"""``lohe run program.py`` runs a program that imports torch on this package; ``lohe cache`` shows the kernels on disk."""

from __future__ import annotations

import argparse
import os
import runpy
import sys


def show_cache(clear: bool) -> int:
    """Prints where compiled kernels are kept, how many and how large; removes them if asked to."""
    from lohe import _C

    folder, bound, _ = _C._kernel_cache()
    if not folder:
        print("no folder: neither LOHE_CACHE_DIR nor XDG_CACHE_HOME nor HOME names one")
        return 0
    count = size = 0
    if os.path.isdir(folder):
        for entry in os.scandir(folder):
            if not entry.name.endswith((".kernel", ".tmp")):
                continue
            try:
                bytes_there = entry.stat().st_size
                if clear:
                    os.unlink(entry.path)
            except FileNotFoundError:  # another process was faster
                continue
            count, size = count + 1, size + bytes_there
    print(f"{folder}: {count} kernels, {size / 2**20:.1f} MiB" + (", removed" if clear else f" of at most {bound >> 20} MiB"))
    return 0


def main(arguments: list[str] | None = None) -> int:
    """The command line; gives the exit status."""
    parser = argparse.ArgumentParser(prog="lohe", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run a Python program with `import torch` served by Lohe")
    run.add_argument("-m", dest="as_module", action="store_true", help="PROGRAM is the name of a module")
    run.add_argument("program")
    run.add_argument("arguments", nargs=argparse.REMAINDER)
    cache = commands.add_parser("cache", help="show the folder of compiled kernels, or clear it")
    cache.add_argument("--clear", action="store_true", help="remove all kernels; programs that run keep theirs")
    options = parser.parse_args(arguments)

    import lohe

    if options.command == "cache":
        return show_cache(options.clear)
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
