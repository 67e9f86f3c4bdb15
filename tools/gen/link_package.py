"""Makes a build's own Python package directory out of links.

usage: link_package.py --source python/lohe --generated GEN/python/lohe --build BUILD/python/lohe [--inplace]

BUILD/python/lohe gets one link for every entry of the source package and every generated file; the extension module
is already there. With --inplace the extension and the generated files are linked into the source package as well, so
that `PYTHONPATH=python` imports this build; a .gitignore there, which names itself too, keeps them out of commits.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def link(target: Path, place: Path) -> None:
    """Makes `place` a link to `target`, replacing whatever link or built file stood there."""
    if place.is_symlink() and os.readlink(place) == str(target):
        return
    if place.exists() and not place.is_symlink():
        raise SystemExit(f"link_package: {place} is a file of its own; remove it to link {target}")
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(f".{place.name}.{os.getpid()}")
    temporary.symlink_to(target)
    os.replace(temporary, place)


def mirror(source: Path, build: Path) -> None:
    """Recreates the folders of `source` under `build`, with a link for each file; drops links that lead nowhere."""
    for folder, names, files in os.walk(source):
        names[:] = [name for name in names if name != "__pycache__"]
        place = build / Path(folder).relative_to(source)
        place.mkdir(parents=True, exist_ok=True)
        for name in files:
            if name == ".gitignore" or (Path(folder) / name).is_symlink():
                continue
            if not name.startswith("_C.") or name.endswith(".pyi"):
                link(Path(folder) / name, place / name)
        for entry in place.iterdir():
            if entry.is_symlink() and not entry.exists():
                entry.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--generated", type=Path, required=True)
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--inplace", action="store_true")
    arguments = parser.parse_args()
    mirror(arguments.source, arguments.build)
    if arguments.generated.is_dir():
        mirror(arguments.generated, arguments.build)
    if arguments.inplace:
        built = {path.name: path for path in arguments.build.glob("_C.*.so")}
        for path in arguments.generated.rglob("*"):
            if path.is_file():
                built[path.relative_to(arguments.generated).as_posix()] = path
        for name, path in built.items():
            link(path, arguments.source / name)
        ignored = "".join(f"/{name}\n" for name in [".gitignore", *sorted(built)])
        note = arguments.source / ".gitignore"
        if not note.exists() or note.read_text() != ignored:
            note.write_text(ignored)


if __name__ == "__main__":
    main()
