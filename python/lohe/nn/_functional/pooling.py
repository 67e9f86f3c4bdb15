"""Pooling over the last 1, 2 or 3 dimensions of (N, C, ...) or (C, ...)."""

from __future__ import annotations

import math
from typing import Any

from lohe import Tensor
from lohe._C import ops
from lohe.nn.common_types import _size_any_opt_t


def _strides(stride: Any) -> Any:
    """None is the empty list, which stands for the kernel's size."""
    return [] if stride is None else stride


def _sizes(output_size: Any, input: Tensor, n: int) -> list[int]:
    """An adaptive output size of n numbers; None keeps that dimension of `input`."""
    if not isinstance(output_size, (tuple, list)):
        output_size = (output_size,) * n
    if input.dim() <= len(output_size):
        raise ValueError(f"Input dimension should be at least {len(output_size) + 1}, but got {input.dim()}")
    extents = input.size()[-len(output_size) :]
    return [extent if size is None else size for size, extent in zip(output_size, extents)]


def avg_pool1d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """Means over windows of (N, C, L)."""
    return ops.avg_pool1d(input, kernel_size, _strides(stride), padding, ceil_mode, count_include_pad)


def avg_pool2d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Means over windows of (N, C, H, W)."""
    return ops.avg_pool2d(
        input, kernel_size, _strides(stride), padding, ceil_mode, count_include_pad, divisor_override
    )


def avg_pool3d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Means over windows of (N, C, D, H, W)."""
    return ops.avg_pool3d(
        input, kernel_size, _strides(stride), padding, ceil_mode, count_include_pad, divisor_override
    )


def max_pool1d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Maxima over windows of (N, C, L); with `return_indices` also where they stand."""
    op = ops.max_pool1d_with_indices if return_indices else ops.max_pool1d
    return op(input, kernel_size, _strides(stride), padding, dilation, ceil_mode)


def max_pool2d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Maxima over windows of (N, C, H, W); with `return_indices` also where they stand, in the flat plane."""
    op = ops.max_pool2d_with_indices if return_indices else ops.max_pool2d
    return op(input, kernel_size, _strides(stride), padding, dilation, ceil_mode)


def max_pool3d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Maxima over windows of (N, C, D, H, W); with `return_indices` also where they stand, in the flat volume."""
    op = ops.max_pool3d_with_indices if return_indices else ops.max_pool3d
    return op(input, kernel_size, _strides(stride), padding, dilation, ceil_mode)


def max_pool1d_with_indices(input: Tensor, *args: Any, **kwargs: Any) -> Any:
    """``max_pool1d`` with ``return_indices=True``."""
    return max_pool1d(input, *args, **{**kwargs, "return_indices": True})


def max_pool2d_with_indices(input: Tensor, *args: Any, **kwargs: Any) -> Any:
    """``max_pool2d`` with ``return_indices=True``."""
    return max_pool2d(input, *args, **{**kwargs, "return_indices": True})


def max_pool3d_with_indices(input: Tensor, *args: Any, **kwargs: Any) -> Any:
    """``max_pool3d`` with ``return_indices=True``."""
    return max_pool3d(input, *args, **{**kwargs, "return_indices": True})


def adaptive_avg_pool1d(input: Tensor, output_size: _size_any_opt_t) -> Tensor:
    """Means over `output_size` windows that cover the length."""
    return ops.adaptive_avg_pool1d(input, _sizes(output_size, input, 1))


def adaptive_avg_pool2d(input: Tensor, output_size: _size_any_opt_t) -> Tensor:
    """Means over a grid of `output_size` windows that cover the plane."""
    return ops.adaptive_avg_pool2d(input, _sizes(output_size, input, 2))


def adaptive_avg_pool3d(input: Tensor, output_size: _size_any_opt_t) -> Tensor:
    """Means over a grid of `output_size` windows that cover the volume."""
    return ops.adaptive_avg_pool3d(input, _sizes(output_size, input, 3))


def adaptive_max_pool1d(input: Tensor, output_size: _size_any_opt_t, return_indices: bool = False) -> Any:
    """Maxima over `output_size` windows that cover the length."""
    result = ops.adaptive_max_pool1d(input, _sizes(output_size, input, 1))
    return result if return_indices else result[0]


def adaptive_max_pool2d(input: Tensor, output_size: _size_any_opt_t, return_indices: bool = False) -> Any:
    """Maxima over a grid of `output_size` windows that cover the plane."""
    result = ops.adaptive_max_pool2d(input, _sizes(output_size, input, 2))
    return result if return_indices else result[0]


def adaptive_max_pool3d(input: Tensor, output_size: _size_any_opt_t, return_indices: bool = False) -> Any:
    """Maxima over a grid of `output_size` windows that cover the volume."""
    result = ops.adaptive_max_pool3d(input, _sizes(output_size, input, 3))
    return result if return_indices else result[0]


def _window(kernel_size: Any, n: int) -> int:
    """How many elements a window of n dimensions has."""
    return kernel_size**n if isinstance(kernel_size, int) else math.prod(kernel_size)


def _p_norm(mean: Tensor, norm_type: float, count: int) -> Tensor:
    """The norms of windows of `count` elements from the means of their powers."""
    return (mean.sign() * mean.abs().relu()).mul(count).pow(1.0 / norm_type)


def lp_pool1d(
    input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Tensor:
    """``(sum of x ** norm_type over a window) ** (1 / norm_type)`` of (N, C, L)."""
    mean = ops.avg_pool1d(input.pow(norm_type), kernel_size, _strides(stride), 0, ceil_mode)
    return _p_norm(mean, norm_type, _window(kernel_size, 1))


def lp_pool2d(
    input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Tensor:
    """``(sum of x ** norm_type over a window) ** (1 / norm_type)`` of (N, C, H, W)."""
    mean = ops.avg_pool2d(input.pow(norm_type), kernel_size, _strides(stride), 0, ceil_mode)
    return _p_norm(mean, norm_type, _window(kernel_size, 2))


def lp_pool3d(
    input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Tensor:
    """``(sum of x ** norm_type over a window) ** (1 / norm_type)`` of (N, C, D, H, W)."""
    mean = ops.avg_pool3d(input.pow(norm_type), kernel_size, _strides(stride), 0, ceil_mode)
    return _p_norm(mean, norm_type, _window(kernel_size, 3))
