"""Checks the order of the rooms, file sizes, and words that do not belong into the repository.

usage: lint_rooms.py [--root DIRECTORY]

- A file of src/<room>/ includes from its own room and rooms before it in LOHE_ROOMS (cmake/LoheRooms.cmake), and from
  include/. Public headers include the standard library and each other. The larger systems (quant, llm, serve, dist)
  use the public API alone. LLVM is included in src/codegen/llvm only, math libraries in src/backend only.
- A file has at most 800 lines, a header of the product about 200 (at most 230).
- No absolute path of a development machine, and no work left for later, stands in a tracked file.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

INCLUDE = re.compile(r'^\s*#\s*include\s+(["<])([^">]+)[">]')
MAX_LINES, MAX_HEADER_LINES = 800, 230
# Longer than the rule, each for a reason.
LONG_FILES = {
    "tests/cpp/codegen_fixture.h": "one fixture for all tests of the code generator",
    "tests/cpp/random_kernel.h": "one generator of kernels",
}
PUBLIC_API_ONLY = {"quant", "llm", "serve", "dist"}
# Library headers -> the only folder that may include them.
OWNED_HEADERS = {
    r"llvm(-c)?/": "src/codegen/llvm/",
    r"Python\.h": "python/binding/",
}
# Written in pieces, so that this file does not match itself.
FORBIDDEN = {
    "path of a development machine": re.compile(r"(?<![\w.$}])/" + r"(work|home/\w+|root)/\w"),
    "work left for later": re.compile(r"\b(" + "TO" + "DO|FIX" + "ME|XX" + r"X)\b"),
}
TEXT = {".cpp", ".h", ".py", ".md", ".txt", ".toml", ".json", ".cmake", ".in", ".sh", ".pyi", ""}


def rooms(root: Path) -> list[str]:
    text = (root / "cmake" / "LoheRooms.cmake").read_text()
    found = re.search(r"set\(LOHE_ROOMS ([^)]*)\)", text)
    if not found:
        raise SystemExit("lint_rooms: cmake/LoheRooms.cmake sets no LOHE_ROOMS")
    return found.group(1).split()


def check_includes(path: str, text: str, order: list[str]) -> list[str]:
    problems = []
    parts = path.split("/")
    room = parts[1] if parts[0] == "src" else ""
    for number, line in enumerate(text.splitlines(), 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        quoted, name = match.group(1) == '"', match.group(2)
        where = f"{path}:{number}"
        for pattern, owner in OWNED_HEADERS.items():
            if re.match(pattern, name) and not path.startswith((owner, "tests/", "benchmarks/")):
                problems.append(f"{where}: <{name}> may only be included in {owner}")
        target = name.split("/")[0]
        if parts[0] == "include" and quoted and target != "lohe":
            problems.append(f'{where}: a public header may include lohe/ and the standard library, not "{name}"')
        if not room or not quoted or target == "lohe":
            continue
        if target not in order:
            if not (Path(path).parent / name).exists() and "/" in name:
                problems.append(f'{where}: "{name}" names no room; write the path from src/ or include/')
        elif room in PUBLIC_API_ONLY and target != room:
            problems.append(f'{where}: src/{room} uses the public API only, not "{name}"')
        elif order.index(target) > order.index(room):
            problems.append(f'{where}: room {room} stands before {target} and may not include "{name}"')
    return problems


def check_size(path: str, text: str) -> list[str]:
    lines = text.count("\n")
    if path in LONG_FILES:
        return []
    limit = MAX_HEADER_LINES if path.endswith(".h") and not path.startswith("tests/") else MAX_LINES
    return [f"{path}: {lines} lines, at most {limit}"] if lines > limit else []


def check_words(path: str, text: str) -> list[str]:
    problems = []
    for number, line in enumerate(text.splitlines(), 1):
        for what, pattern in FORBIDDEN.items():
            found = pattern.search(line)
            if found:
                problems.append(f"{path}:{number}: {what}: '{found.group(0)}'")
    return problems


def tracked(root: Path) -> list[str]:
    output = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=root, text=True,
        capture_output=True, check=True,
    ).stdout
    return sorted(name for name in set(output.splitlines()) if (root / name).is_file())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parent.parent)
    root = parser.parse_args().root
    order = rooms(root)
    problems: list[str] = []
    code = 0
    for name in tracked(root):
        path = Path(name)
        if path.suffix not in TEXT or name == "LICENSE":
            continue
        try:
            text = (root / name).read_text()
        except UnicodeDecodeError:
            continue
        problems += check_words(name, text)
        if path.suffix in {".cpp", ".h", ".py"}:
            problems += check_size(name, text)
        if path.suffix in {".cpp", ".h"}:
            code += 1
            problems += check_includes(name, text, order)
    for folder in sorted((root / "src").iterdir()):
        if folder.is_dir() and folder.name not in order:
            problems.append(f"src/{folder.name}: not in LOHE_ROOMS, so it is not built")
    print("\n".join(problems))
    print(f"{code} C++ files checked, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
