"""Unpacks the FFT headers of ducc0 into a directory.

usage: fetch_ducc0.py DIRECTORY

Downloads the source distribution of the version below with pip, compares its SHA-256, and unpacks `ducc0/fft`,
`ducc0/infra` and `ducc0/math`. The directory appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VERSION = "0.42.0"
SHA256 = "4e11c59b53a43355b053aebb2a62ee16eebeed026575f7d216cf09d437ce52ef"
PARTS = ("ducc0/fft/", "ducc0/infra/", "ducc0/math/")


def download(directory: Path) -> Path:
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
         "--no-binary", "ducc0", "--dest", str(directory), f"ducc0=={VERSION}"],
        check=True,
        stdout=sys.stderr,
    )
    archives = list(directory.glob("ducc0-*.tar.gz"))
    if len(archives) != 1:
        raise SystemExit(f"fetch_ducc0: expected one source archive, got {[a.name for a in archives]}")
    return archives[0]


def unpack(archive: Path, directory: Path) -> None:
    """Writes the regular files of PARTS; the archive's own paths are never used beyond those prefixes."""
    with tarfile.open(archive) as tar:
        for member in tar:
            _, _, name = member.name.partition("/src/")
            if not member.isfile() or not name.startswith(PARTS) or ".." in Path(name).parts:
                continue
            content = tar.extractfile(member)
            assert content is not None
            place = directory / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content.read())


def main() -> None:
    if len(sys.argv) != 2 or sys.argv[1] in ("-h", "--help"):
        raise SystemExit(__doc__)
    destination = Path(sys.argv[1])
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination.parent) as temporary:
        archive = download(Path(temporary))
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        if digest != SHA256:
            raise SystemExit(f"fetch_ducc0: {archive.name} has SHA-256 {digest}, expected {SHA256}")
        whole = Path(temporary) / "whole"
        unpack(archive, whole)
        os.replace(whole, destination)


if __name__ == "__main__":
    main()
