"""Normalization of activations, and of vectors by their norm."""

from __future__ import annotations

from collections.abc import Sequence

import lohe
from lohe import Tensor
from lohe._C import ops


def _verify_batch_size(size: Sequence[int]) -> None:
    values = size[0]
    for extent in size[2:]:
        values *= extent
    if values == 1:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {size}")


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalizes each channel of (N, C, *) over the batch and positions (Ioffe and Szegedy, 2015).

    In training the batch's statistics are used, and the running ones, if given, move towards them by `momentum`.
    """
    if training:
        _verify_batch_size(input.size())
    return ops.batch_norm(input, weight, bias, running_mean, running_var, training, momentum, eps, False)


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalizes each channel of each sample of (N, C, *) over its positions."""
    if use_input_stats:
        size = input.size()
        positions = 1
        for extent in size[2:]:
            positions *= extent
        if positions == 1:
            raise ValueError(f"Expected more than 1 spatial element when training, got input size {size}")
    return ops.instance_norm(
        input, weight, bias, running_mean, running_var, use_input_stats, momentum, eps, False
    )


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalizes over the last dimensions, which must equal `normalized_shape` (Ba et al., 2016)."""
    return ops.layer_norm(input, normalized_shape, weight, bias, eps)


def rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """Divides by the root mean square over the last dimensions; `eps` None is the dtype's epsilon."""
    return ops.rms_norm(input, normalized_shape, weight, eps)


def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalizes groups of channels of each sample of (N, C, *) (Wu and He, 2018)."""
    if input.dim() < 2:
        raise RuntimeError(f"Expected at least 2 dimensions for input tensor but received {input.dim()}")
    size = input.size()
    _verify_batch_size([size[0] * size[1] // num_groups, num_groups, *size[2:]])
    return ops.group_norm(input, num_groups, weight, bias, eps)


def local_response_norm(
    input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """Divides by ``(k + alpha * mean of squares over `size` neighbouring channels) ** beta``."""
    dim = input.dim()
    if dim < 3:
        raise ValueError(f"Expected 3D or higher dimensionality input (got {dim} dimensions)")
    if input.numel() == 0:
        return input
    # The window runs over channels, so they are made the spatial dimension of a pooling.
    squares = input.mul(input).unsqueeze(1)
    if dim == 3:
        squares = ops.pad(squares, [0, 0, size // 2, (size - 1) // 2], "constant", None)
        mean = ops.avg_pool2d(squares, [size, 1], [1, 1]).squeeze(1)
    else:
        shape = input.size()
        squares = squares.view(shape[0], 1, shape[1], shape[2], -1)
        squares = ops.pad(squares, [0, 0, 0, 0, size // 2, (size - 1) // 2], "constant", None)
        mean = ops.avg_pool3d(squares, [size, 1, 1], [1, 1, 1]).squeeze(1).view(shape)
    return input / mean.mul(alpha).add(k).pow(beta)


def normalize(
    input: Tensor, p: float = 2.0, dim: int | tuple = 1, eps: float = 1e-12, out: Tensor | None = None
) -> Tensor:
    """``input / max(norm_p(input, dim), eps)``."""
    denominator = input.norm(p, dim, keepdim=True).clamp_min(eps).expand_as(input)
    return input / denominator if out is None else lohe.div(input, denominator, out=out)
