"""Runs the code that the documentation shows.

usage: docs_examples.py [--build build/release] [FILE...]

Every ```python block of README.md, CONTRIBUTING.md and docs/**/*.md runs; the blocks of one file share one fresh
interpreter, in order. A ```cpp block with an `int main` is compiled against the build and run. A block whose first
line holds `not run` (in a comment, with the reason) is left out.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```(python|cpp)\n(.*?)^```", re.M | re.S)


def line_of(text: str, match: re.Match[str]) -> int:
    return text.count("\n", 0, match.start()) + 1


def left_out(code: str) -> bool:
    return "not run" in code.splitlines()[0]


def python_of(text: str) -> str:
    """A page's Python blocks as one program, padded so that a traceback has the page's own line numbers."""
    program = ""
    for match in BLOCK.finditer(text):
        language, code = match.groups()
        if language == "python" and not left_out(code):
            program += "\n" * (line_of(text, match) - program.count("\n")) + code
    return program


def run_python(source: str, environment: dict[str, str], folder: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=folder, env=environment, capture_output=True, text=True, timeout=300,
        stdin=subprocess.DEVNULL,
    )
    return done.returncode, done.stdout + done.stderr


def run_cpp(source: str, build: Path, environment: dict[str, str], folder: str) -> tuple[int, str]:
    program = Path(folder, "example")
    Path(folder, "example.cpp").write_text(source)
    library = build / "lib"
    done = subprocess.run(
        ["g++", "-std=c++20", "-O1", f"-I{ROOT / 'include'}", f"-I{build / 'gen'}", "example.cpp", "-o", "example",
         f"-L{library}", "-llohe", f"-Wl,-rpath,{library}", f"-Wl,-rpath-link,{library}"],
        cwd=folder, capture_output=True, text=True, timeout=300,
    )
    if done.returncode:
        return done.returncode, done.stderr
    done = subprocess.run([program], cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout + done.stderr


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "release")
    parser.add_argument("files", nargs="*", type=Path)
    arguments = parser.parse_args()
    build = arguments.build.resolve()
    environment = {**os.environ, "PYTHONPATH": str(build / "python")}
    files = arguments.files or [
        ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(p for p in (ROOT / "docs").rglob("*.md"))
    ]
    passed = failed = skipped = 0
    for file in files:
        text = file.read_text()
        results: list[tuple[str, int, str]] = []
        for match in BLOCK.finditer(text):
            language, code = match.groups()
            if left_out(code) or (language == "cpp" and "int main" not in code):
                skipped += 1
            elif language == "cpp":
                name = f"{file.name}:{line_of(text, match)}"
                with tempfile.TemporaryDirectory() as folder:
                    results.append((name, *run_cpp(code, build, environment, folder)))
        if program := python_of(text):
            with tempfile.TemporaryDirectory() as folder:
                results.append((f"{file.name} (python)", *run_python(program, environment, folder)))
        for name, status, output in results:
            if status:
                failed += 1
                print(f"{name}: failed\n{output}")
            else:
                passed += 1
    print(f"docs: {passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
