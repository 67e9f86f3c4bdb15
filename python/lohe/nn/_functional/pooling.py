"""Pooling over the last 1, 2 or 3 dimensions of (N, C, ...) or (C, ...)."""

from __future__ import annotations

from typing import Any

import lohe
from lohe import Tensor
from lohe._C import ops


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
    *,
    out: Tensor | None = None,
) -> Tensor:
    """Means over windows of (N, C, H, W)."""
    return ops.avg_pool2d(
        input, kernel_size, _strides(stride), padding, ceil_mode, count_include_pad, divisor_override, out=out
    )


def avg_pool3d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    out: Tensor | None = None,
) -> Tensor:
    """Means over windows of (N, C, D, H, W)."""
    return ops.avg_pool3d(
        input, kernel_size, _strides(stride), padding, ceil_mode, count_include_pad, divisor_override, out=out
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


def adaptive_avg_pool1d(input: Tensor, output_size: Any) -> Tensor:
    """Means over `output_size` windows that cover the length."""
    return ops.adaptive_avg_pool1d(input, _sizes(output_size, input, 1))


def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """Means over a grid of `output_size` windows that cover the plane."""
    return ops.adaptive_avg_pool2d(input, _sizes(output_size, input, 2))


def adaptive_avg_pool3d(input: Tensor, output_size: Any) -> Tensor:
    """Means over a grid of `output_size` windows that cover the volume."""
    return ops.adaptive_avg_pool3d(input, _sizes(output_size, input, 3))


def adaptive_max_pool1d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Maxima over `output_size` windows that cover the length."""
    result = ops.adaptive_max_pool1d(input, _sizes(output_size, input, 1))
    return result if return_indices else result[0]


def adaptive_max_pool2d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Maxima over a grid of `output_size` windows that cover the plane."""
    result = ops.adaptive_max_pool2d(input, _sizes(output_size, input, 2))
    return result if return_indices else result[0]


def adaptive_max_pool3d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Maxima over a grid of `output_size` windows that cover the volume."""
    result = ops.adaptive_max_pool3d(input, _sizes(output_size, input, 3))
    return result if return_indices else result[0]


def _lp_pool(
    input: Tensor, norm_type: float, kernel_size: Any, stride: Any, ceil_mode: bool, n: int
) -> Tensor:
    kernel = [kernel_size] * n if isinstance(kernel_size, int) else list(kernel_size)
    count = 1
    for extent in kernel:
        count *= extent
    pool = (ops.avg_pool1d, ops.avg_pool2d, ops.avg_pool3d)[n - 1]
    mean = pool(input.pow(norm_type), kernel, _strides(stride), 0, ceil_mode)
    return (mean.sign() * mean.abs().relu()).mul(count).pow(1.0 / norm_type)


def lp_pool1d(
    input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Tensor:
    """``(sum of x ** norm_type over a window) ** (1 / norm_type)`` of (N, C, L)."""
    return _lp_pool(input, norm_type, kernel_size, stride, ceil_mode, 1)


def lp_pool2d(
    input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Tensor:
    """``(sum of x ** norm_type over a window) ** (1 / norm_type)`` of (N, C, H, W)."""
    return _lp_pool(input, norm_type, kernel_size, stride, ceil_mode, 2)


def lp_pool3d(
    input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Tensor:
    """``(sum of x ** norm_type over a window) ** (1 / norm_type)`` of (N, C, D, H, W)."""
    return _lp_pool(input, norm_type, kernel_size, stride, ceil_mode, 3)


def _unpooled_size(
    input: Tensor, kernel_size: Any, stride: Any, padding: Any, output_size: Any, n: int
) -> tuple[list[int], list[int], list[int]]:
    """The spatial output size of unpooling, with stride and padding of n numbers."""
    kernel = _numbers(kernel_size, n)
    strides = kernel if stride is None or stride == [] else _numbers(stride, n)
    paddings = _numbers(padding, n)
    extents = input.size()[-n:]
    default = [(e - 1) * s + k - 2 * p for e, s, k, p in zip(extents, strides, kernel, paddings)]
    if output_size is None:
        return default, strides, paddings
    size = _numbers(output_size, n) if isinstance(output_size, int) else list(output_size)
    if len(size) == n + 2:
        size = size[2:]
    if len(size) != n:
        raise ValueError(
            f"output_size should be a sequence containing {n} or {n + 2} elements, but it has a length of '{len(size)}'"
        )
    for d, (extent, usual, step) in enumerate(zip(size, default, strides)):
        if not usual - step < extent < usual + step:
            raise ValueError(
                f'invalid output_size "{output_size}" (dim {d} must be between {usual - step} and {usual + step})'
            )
    return size, strides, paddings


def _numbers(value: Any, n: int) -> list[int]:
    return [value] * n if isinstance(value, int) else list(value)


def max_unpool1d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    output_size: Any = None,
) -> Tensor:
    """The maxima of (N, C, L) at the places that ``max_pool1d`` found them, zero elsewhere."""
    size, _, _ = _unpooled_size(input, kernel_size, stride, padding, output_size, 1)
    return ops.max_unpool2d(input.unsqueeze(-1), indices.unsqueeze(-1), [*size, 1]).squeeze(-1)


def max_unpool2d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    output_size: Any = None,
) -> Tensor:
    """The maxima of (N, C, H, W) at the places that ``max_pool2d`` found them, zero elsewhere."""
    size, _, _ = _unpooled_size(input, kernel_size, stride, padding, output_size, 2)
    return ops.max_unpool2d(input, indices, size)


def max_unpool3d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    output_size: Any = None,
) -> Tensor:
    """The maxima of (N, C, D, H, W) at the places that ``max_pool3d`` found them, zero elsewhere."""
    size, strides, paddings = _unpooled_size(input, kernel_size, stride, padding, output_size, 3)
    return ops.max_unpool3d(input, indices, size, strides, paddings)


def _fractional_pool(
    name: str, input: Tensor, kernel_size: Any, output_size: Any, output_ratio: Any, samples: Tensor | None, n: int
) -> tuple[Tensor, Tensor]:
    if output_size is None:
        if output_ratio is None:
            raise ValueError(f"{name} requires specifying either an output_size or an output_ratio")
        if len(output_ratio) > n:
            raise ValueError(f"{name} requires output_ratio to have at most {n} numbers")
        output_size = [int(extent * ratio) for extent, ratio in zip(input.size()[-n:], output_ratio)]
    if samples is None:
        batch = 1 if input.dim() == n + 1 else input.size(0)
        samples = lohe.rand(batch, input.size(-n - 1), n, dtype=input.dtype, device=input.device)
    pool = ops.fractional_max_pool2d if n == 2 else ops.fractional_max_pool3d
    return pool(input, kernel_size, output_size, samples)


def fractional_max_pool2d_with_indices(
    input: Tensor,
    kernel_size: Any,
    output_size: Any = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """``fractional_max_pool2d`` with ``return_indices=True``."""
    return _fractional_pool(
        "fractional_max_pool2d", input, kernel_size, output_size, output_ratio, _random_samples, 2
    )


def fractional_max_pool3d_with_indices(
    input: Tensor,
    kernel_size: Any,
    output_size: Any = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """``fractional_max_pool3d`` with ``return_indices=True``."""
    return _fractional_pool(
        "fractional_max_pool3d", input, kernel_size, output_size, output_ratio, _random_samples, 3
    )


def fractional_max_pool2d(
    input: Tensor,
    kernel_size: Any,
    output_size: Any = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> Any:
    """Maxima over windows at pseudo-random steps (Graham, 2014); `output_ratio` gives the size by the input's."""
    result = fractional_max_pool2d_with_indices(
        input, kernel_size, output_size, output_ratio, True, _random_samples
    )
    return result if return_indices else result[0]


def fractional_max_pool3d(
    input: Tensor,
    kernel_size: Any,
    output_size: Any = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> Any:
    """Maxima over windows at pseudo-random steps (Graham, 2014); `output_ratio` gives the size by the input's."""
    result = fractional_max_pool3d_with_indices(
        input, kernel_size, output_size, output_ratio, True, _random_samples
    )
    return result if return_indices else result[0]
