"""Files of tensors and plain data in PyTorch's format: ``lohe.save`` and ``lohe.load``.

Reading never runs code: a file holds tensors, numbers, text and containers of them, and whatever else it names is
refused. That is PyTorch's ``weights_only=True``, the only way of loading here.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from typing import Any

from lohe import _C

__all__ = ["load", "save"]

_PROTOCOLS = (2, 3, 4, 5)


def save(
    obj: Any,
    f: str | os.PathLike | Any,
    pickle_module: Any = None,
    pickle_protocol: int = 2,
    _use_new_zipfile_serialization: bool = True,
) -> None:
    """Writes `obj` so that ``lohe.load`` and ``torch.load(weights_only=True)`` read it.

    `obj` is a tensor, a parameter, None, bool, int, float, complex, str, bytes, a dtype, Size or device, or a list,
    tuple, set or dict (OrderedDict, defaultdict, Counter) of such objects. Tensors that share memory share it again
    after loading; each storage is written whole, once. A file named by its path appears whole or not at all.

    Args:
        f: path of the file, or an object with ``write(bytes)``.
        pickle_module: None or the module ``pickle``.
        pickle_protocol: 2 to 5, accepted for compatibility. The file uses protocol 2, which every reader knows.

    Raises:
        TypeError: for any other type, with its name; save ``object.state_dict()`` of modules and optimizers.
        RuntimeError: if the folder does not exist, or one storage is seen as two dtypes.
        ValueError: for an object that contains itself.
    """
    if pickle_module is not None and pickle_module is not pickle:
        raise NotImplementedError(
            f"save(): pickle_module {getattr(pickle_module, '__name__', pickle_module)!r} is not supported: the file "
            "is written without a Python pickler; leave the argument out"
        )
    if pickle_protocol not in _PROTOCOLS:
        raise ValueError(f"save(): pickle_protocol must be one of {_PROTOCOLS}, got {pickle_protocol!r}")
    if not _use_new_zipfile_serialization:
        raise NotImplementedError(
            "save(): the format that PyTorch wrote before version 1.6 is not supported; leave "
            "_use_new_zipfile_serialization=True"
        )
    if isinstance(f, (str, os.PathLike)):
        path = os.fsdecode(f)
        parent = os.path.dirname(path)
        if parent and not os.path.isdir(parent):
            raise RuntimeError(f"Parent directory {parent} does not exist.")
        _C._save(obj, path)
        return
    if not callable(getattr(f, "write", None)):
        raise AttributeError(
            "expected 'f' to be string, path, or a file-like object with a 'write' attribute, got "
            f"{type(f).__name__}"
        )
    _C._save(obj, _whole_writes(f))
    if callable(getattr(f, "flush", None)):
        f.flush()


def load(
    f: str | os.PathLike | Any,
    map_location: Any = None,
    pickle_module: Any = None,
    *,
    weights_only: bool | None = True,
    mmap: bool | None = None,
) -> Any:
    """Reads what ``lohe.save`` or ``torch.save`` wrote. Tensors of every device come to the CPU.

    Args:
        f: path of the file, or an object with ``read()``, which is read from where it stands to its end.
        map_location: None, "cpu" or its device; a dict of locations; or ``function(storage, location)``, called once
            for each storage with its location in the file ("cuda:0"), which gives the storage to use or None.
        weights_only: must be true: files are read without running code that they name.
        mmap: with True the tensors' bytes stay in the file's pages and are read when used; a page becomes a copy of
            its own by the first write, and the file never changes. Checksums are not verified then.

    Raises:
        FileNotFoundError: if there is no such file, and other OSErrors if it cannot be read.
        pickle.UnpicklingError: if the file asks for other things than tensors and plain data.
        RuntimeError: if the file is damaged or has another format.
        NotImplementedError: for ``weights_only=False``, and for what only PyTorch has (sparse tensors, float8).
    """
    if weights_only is not None and not weights_only:
        raise NotImplementedError(
            "load(): weights_only=False would run code that the file names and is not supported; files are always "
            "loaded safely here. Save state_dict()s, tensors and plain data, and leave the argument out"
        )
    if pickle_module is not None:
        raise RuntimeError("Can not safely load weights when explicit pickle_module is specified")
    place = _placement(map_location)
    if isinstance(f, (str, os.PathLike)):
        path = os.fsdecode(f)
        with open(path, "rb"):
            pass  # the interpreter's own errors for files that are missing or may not be read
        return _C._load(path, bool(mmap), place)
    if mmap:
        raise ValueError("f must be a file path in order to use the mmap argument")
    if not callable(getattr(f, "read", None)):
        raise AttributeError(
            "expected 'f' to be string, path, or a file-like object with a 'read' attribute, got "
            f"{type(f).__name__}"
        )
    content = f.read()
    if not isinstance(content, (bytes, bytearray, memoryview)):
        raise TypeError(f"load(): the file gave {type(content).__name__} instead of bytes; open it in mode 'rb'")
    name = getattr(f, "name", None)
    return _C._load(bytes(content), False, place, name if isinstance(name, str) else f"<{type(f).__name__}>")


def _whole_writes(f: Any) -> Callable[[bytes], None]:
    """``f.write`` until all is written: unbuffered files may take a part at a time."""

    def write(data: bytes) -> None:
        rest = memoryview(data)
        while True:
            written = f.write(rest if len(rest) < len(data) else data)
            if not isinstance(written, int) or written >= len(rest):
                return
            rest = rest[written:]

    return write


def _require_cpu(location: Any) -> None:
    """@raises RuntimeError for the name of another device."""
    if isinstance(location, bytes):
        location = location.decode("ascii", "replace")
    if not isinstance(location, (str, _C.device)):
        raise TypeError(
            f"load(): map_location must be a device, str, dict or function, or None; got {type(location).__name__}"
        )
    if str(location) not in ("cpu", "cpu:0"):
        raise RuntimeError(f"load(): map_location names {str(location)!r}, but the only device here is 'cpu'")


def _placement(map_location: Any) -> Callable[[Any, str], Any] | None:
    """The function that ``_C._load`` calls for each storage, or None."""
    if map_location is None:
        return None
    if isinstance(map_location, dict):

        def from_dict(storage: Any, location: str) -> None:
            if location in map_location:
                _require_cpu(map_location[location])

        return from_dict
    if callable(map_location):
        return map_location
    _require_cpu(map_location)
    return None
