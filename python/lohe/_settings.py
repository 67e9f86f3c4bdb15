"""Switches that PyTorch programs set and that have nothing to switch here: the only choice is the exact one."""

from __future__ import annotations

__all__ = [
    "are_deterministic_algorithms_enabled",
    "get_float32_matmul_precision",
    "get_num_interop_threads",
    "is_deterministic_algorithms_warn_only_enabled",
    "set_float32_matmul_precision",
    "set_num_interop_threads",
    "use_deterministic_algorithms",
]


def is_deterministic_algorithms_warn_only_enabled() -> bool:
    """Whether an op without a deterministic form only warns; every op here is deterministic."""
    return False


def are_deterministic_algorithms_enabled() -> bool:
    """Always: results depend on neither threads nor timing."""
    return True


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Accepted for compatibility: every op is deterministic."""


def set_float32_matmul_precision(precision: str) -> None:
    """Accepts "highest", "high" and "medium"; products of float32 are always computed in float32."""
    if precision not in ("highest", "high", "medium"):
        raise RuntimeError(f"{precision} is not one of 'highest', 'high', and 'medium'; current precision is: highest")


def get_float32_matmul_precision() -> str:
    """Always "highest"."""
    return "highest"


def set_num_interop_threads(count: int) -> None:
    """Accepted for compatibility: there is one pool, see set_num_threads."""


def get_num_interop_threads() -> int:
    """One: calls run one after the other."""
    return 1
