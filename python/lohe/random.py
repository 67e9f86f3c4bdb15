"""The random stream that ops draw from when they are given no generator."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from lohe import _C

__all__ = ["default_generator", "fork_rng", "get_rng_state", "initial_seed", "manual_seed", "seed", "set_rng_state"]

default_generator: _C.Generator = _C.default_generator


def manual_seed(seed: int) -> _C.Generator:
    """Starts the default stream of `seed` and gives its generator."""
    return default_generator.manual_seed(int(seed))


def seed() -> int:
    """Takes a new seed from the operating system and gives it."""
    return default_generator.seed()


def initial_seed() -> int:
    """The seed that the default stream began with."""
    return default_generator.initial_seed()


def get_rng_state() -> Any:
    """The state of the default stream, as a tensor of bytes."""
    return default_generator.get_state()


def set_rng_state(new_state: Any) -> None:
    """Puts the default stream where `get_rng_state` was called."""
    default_generator.set_state(new_state)


@contextlib.contextmanager
def fork_rng(devices: Any = None, enabled: bool = True, device_type: str = "cpu") -> Iterator[None]:
    """The block's draws do not move the default stream."""
    if not enabled:
        yield
        return
    saved = get_rng_state()
    try:
        yield
    finally:
        set_rng_state(saved)
