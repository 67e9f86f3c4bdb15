"""Files in the safetensors format: names and dense tensors, nothing else.

The functions have the names and arguments of ``safetensors.torch``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from lohe import _C
from lohe._C import SafetensorError

__all__ = ["SafetensorError", "load", "load_file", "safe_open", "save", "save_file"]


def _require_cpu(device: Any) -> None:
    if str(device) not in ("cpu", "cpu:0"):
        raise RuntimeError(f"safetensors: device {str(device)!r} was asked for, but the only one here is 'cpu'")


def _readable(filename: str | os.PathLike) -> str:
    path = os.fsdecode(filename)
    with open(path, "rb"):
        pass  # the interpreter's own errors for files that are missing or may not be read
    return path


def load_file(filename: str | os.PathLike, device: Any = "cpu") -> dict[str, Any]:
    """The tensors of a file by name.

    Their bytes stay in the file's pages and are read when used; a page becomes a copy of its own by the first write.

    Raises:
        FileNotFoundError: if there is no such file.
        SafetensorError: if the file breaks the format's rules.
    """
    _require_cpu(device)
    return _C._load_safetensors(_readable(filename))[0]


def save_file(
    tensors: dict[str, Any], filename: str | os.PathLike, metadata: dict[str, str] | None = None
) -> None:
    """Writes tensors, and texts about them; the file appears whole or not at all.

    Raises:
        SafetensorError: for tensors that are not contiguous, share memory, or have a dtype that the format lacks.
    """
    _C._save_safetensors(tensors, metadata, os.fsdecode(filename))


def load(data: bytes) -> dict[str, Any]:
    """The tensors of a file's content by name."""
    return _C._load_safetensors(bytes(data), True)[0]


def save(tensors: dict[str, Any], metadata: dict[str, str] | None = None) -> bytes:
    """The content of a file with these tensors."""
    return _C._save_safetensors(tensors, metadata)


class safe_open:  # noqa: N801 - the field's name
    """A file whose tensors are taken one by one: ``with safe_open(path, framework="pt") as f: f.get_tensor(name)``."""

    def __init__(self, filename: str | os.PathLike, framework: str = "pt", device: Any = "cpu") -> None:
        if framework not in ("pt", "torch", "pytorch", "lohe"):
            raise SafetensorError(f"safe_open(): framework must be 'pt', got {framework!r}")
        _require_cpu(device)
        self._tensors, self._metadata = _C._load_safetensors(_readable(filename))

    def __enter__(self) -> safe_open:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._tensors = {}

    def keys(self) -> list[str]:
        """The names, sorted."""
        return sorted(self._tensors)

    def offset_keys(self) -> list[str]:
        """The names in the order of their bytes."""
        return list(self._tensors)

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self._tensors)

    def metadata(self) -> dict[str, str] | None:
        """The texts that were saved with the tensors, or None."""
        return self._metadata or None

    def get_tensor(self, name: str) -> Any:
        """@raises SafetensorError for an unknown name."""
        if name not in self._tensors:
            raise SafetensorError(f"File does not contain tensor {name}; it has {self.keys()[:20]}")
        return self._tensors[name]

    def get_slice(self, name: str) -> _Slice:
        """The tensor's shape and dtype, and parts of it by indexing."""
        return _Slice(self.get_tensor(name))


class _Slice:
    def __init__(self, tensor: Any) -> None:
        self._tensor = tensor

    def get_shape(self) -> list[int]:
        return list(self._tensor.shape)

    def __getitem__(self, index: Any) -> Any:
        return self._tensor[index]
