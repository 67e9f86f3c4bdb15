"""Parameters as one flat vector."""

from __future__ import annotations

from collections.abc import Iterable

import lohe
from lohe import Tensor

__all__ = ["parameters_to_vector", "vector_to_parameters"]


def _check_device(parameters: list[Tensor]) -> None:
    devices = {str(parameter.device) for parameter in parameters}
    if len(devices) > 1:
        raise TypeError(
            f"Found two parameters on different devices, this is currently not supported: {devices}"
        )


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All parameters flattened and joined; differentiable."""
    parameters = list(parameters)
    _check_device(parameters)
    return lohe.cat([parameter.view(-1) for parameter in parameters])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Makes the parameters' data views of successive parts of `vec`."""
    if not isinstance(vec, lohe.Tensor):
        raise TypeError(f"expected a Tensor, got {type(vec).__name__}")
    parameters = list(parameters)
    _check_device(parameters)
    start = 0
    for parameter in parameters:
        count = parameter.numel()
        parameter.data = vec[start : start + count].view_as(parameter).data
        start += count
