"""CUDA, which this build does not have: questions are answered, use raises."""

from __future__ import annotations

from typing import Any, NoReturn

__all__ = [
    "current_device",
    "device_count",
    "empty_cache",
    "get_device_name",
    "is_available",
    "is_bf16_supported",
    "manual_seed",
    "manual_seed_all",
    "max_memory_allocated",
    "memory_allocated",
    "synchronize",
]


def is_available() -> bool:
    """False."""
    return False


def is_initialized() -> bool:
    """False."""
    return False


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """False."""
    return False


def device_count() -> int:
    """Zero."""
    return 0


def manual_seed(seed: int) -> None:
    """Does nothing: there is no device to seed."""


def manual_seed_all(seed: int) -> None:
    """Does nothing: there is no device to seed."""


def empty_cache() -> None:
    """Does nothing: there is no device memory."""


def memory_allocated(device: Any = None) -> int:
    """Zero."""
    return 0


def max_memory_allocated(device: Any = None) -> int:
    """Zero."""
    return 0


def reset_peak_memory_stats(device: Any = None) -> None:
    """Does nothing: there is no device memory."""


def _unavailable(*args: Any, **kwargs: Any) -> NoReturn:
    raise RuntimeError("Lohe has no CUDA device here: this build computes on the CPU")


current_device = get_device_name = get_device_properties = get_device_capability = set_device = synchronize = _unavailable
Stream = Event = _unavailable
