"""The CPU as a device: its memory."""

from __future__ import annotations

from typing import Any

from lohe import _C

__all__ = [
    "current_device",
    "device_count",
    "empty_cache",
    "is_available",
    "max_memory_allocated",
    "memory_allocated",
    "memory_stats",
    "reset_peak_memory_stats",
    "synchronize",
]


def is_available() -> bool:
    """True."""
    return True


def device_count() -> int:
    """One."""
    return 1


def current_device() -> str:
    """ "cpu"."""
    return "cpu"


def synchronize(device: Any = None) -> None:
    """Does nothing: a call returns when its result is there."""


def memory_stats() -> dict[str, int]:
    """Bytes in use, held and cached by the allocator, their peaks, and how often it was called."""
    return _C._memory_stats()


def memory_allocated() -> int:
    """Bytes of tensors in use."""
    return _C._memory_stats()["allocated_bytes"]


def max_memory_allocated() -> int:
    """The most bytes in use since the start or the last reset."""
    return _C._memory_stats()["peak_allocated_bytes"]


def reset_peak_memory_stats() -> None:
    """Starts the peaks anew from the present values."""
    _C._reset_peak_memory_stats()


def empty_cache() -> None:
    """Gives cached memory back to the system."""
    _C._empty_cache()
