"""Files that appear under their names whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets

__all__ = ["write_whole"]


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a temporary file beside `path`, makes it durable and renames it. Raises OSError; then nothing is left."""
    path = os.fspath(path)
    temporary = f"{path}.{secrets.token_hex(8)}.tmp"
    # Not tempfile: the file gets the permissions that any new file gets.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
