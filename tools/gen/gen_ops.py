"""Derives the C++ API, the Python stubs and the reference pages from the op table, and C++ layers from the Python ones.

usage: gen_ops.py --source REPOSITORY (--list | --output DIRECTORY)

Reads src/ops/**/*.cpp and python/lohe/nn as text. `--list` prints the files that would be written, one path a line relative to the output
directory; `--output` writes them. A file whose contents stay the same keeps its time stamp.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import cpp_api
import nn_modules
import op_rows
import optim_options
import optim_schedules
import pages
import stubs


def generate(source: Path) -> dict[str, str]:
    """Maps each output path to its text."""
    rows = op_rows.read_rows(source)
    forms = cpp_api.all_forms(rows, source)
    return {
        **cpp_api.generate(forms, source),
        **stubs.generate(rows, source),
        **pages.generate(rows, forms),
        **nn_modules.generate(source, rows, forms),
        **optim_options.generate(source),
        **optim_schedules.generate(source, rows, forms),
    }


def write_if_changed(path: Path, text: str) -> None:
    if path.exists() and path.read_text() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text(text)
    os.replace(temporary, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    files = generate(arguments.source)
    if arguments.list:
        print("\n".join(files))
        return
    for name, text in files.items():
        write_if_changed(arguments.output / name, text)


if __name__ == "__main__":
    main()
