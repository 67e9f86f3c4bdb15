"""Types of layer arguments: a number for all dimensions, or one number for each."""

from __future__ import annotations

from typing import Any

_scalar_or_tuple_any_t = int | tuple[int, ...]
_size_any_t = int | tuple[int, ...]
_size_any_opt_t = int | None | tuple[int | None, ...]
_size_1_t = int | tuple[int]
_size_2_t = int | tuple[int, int]
_size_3_t = int | tuple[int, int, int]
_size_2_opt_t = int | None | tuple[int | None, int | None]
_size_3_opt_t = int | None | tuple[int | None, int | None, int | None]
_size_4_t = int | tuple[int, int, int, int]
_size_6_t = int | tuple[int, int, int, int, int, int]
_ratio_2_t = float | tuple[float, float]
_ratio_any_t = float | tuple[float, ...]
_maybe_indices_t = Any
