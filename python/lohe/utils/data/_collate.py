"""Samples into batches."""

from __future__ import annotations

import collections.abc
import copy
import re
import sys
from typing import Any

import lohe

__all__ = ["default_collate", "default_convert"]

_STRING_DTYPE = re.compile(r"[SaUO]")
_UNSUPPORTED = "default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; found {}"


def _is_numpy(value: Any) -> bool:
    """Asked without importing NumPy: if nobody has imported it, `value` is none of its objects."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic))


def _rebuilt(original: Any, values: list) -> Any:
    """`values` in a sequence of `original`'s type, or a list where that type cannot be made from one."""
    if isinstance(original, tuple) and hasattr(original, "_fields"):
        return type(original)(*values)
    try:
        if isinstance(original, collections.abc.MutableSequence):
            result = copy.copy(original)
            for i, value in enumerate(values):
                result[i] = value
            return result
        return type(original)(values)
    except TypeError:
        return values


def _rebuilt_mapping(original: Any, values: dict) -> Any:
    try:
        if isinstance(original, collections.abc.MutableMapping):
            result = copy.copy(original)
            result.update(values)
            return result
        return type(original)(values)
    except TypeError:
        return values


def default_convert(data: Any) -> Any:
    """NumPy arrays and numbers inside `data` as tensors; everything else as it is."""
    if isinstance(data, lohe.Tensor):
        return data
    if _is_numpy(data):
        return data if _STRING_DTYPE.search(data.dtype.str) else lohe.as_tensor(data)
    if isinstance(data, collections.abc.Mapping):
        return _rebuilt_mapping(data, {key: default_convert(value) for key, value in data.items()})
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(default_convert(value) for value in data))
    if isinstance(data, tuple):
        return [default_convert(value) for value in data]
    if isinstance(data, collections.abc.Sequence) and not isinstance(data, (str, bytes)):
        return _rebuilt(data, [default_convert(value) for value in data])
    return data


def default_collate(batch: Any) -> Any:
    """A list of samples as one batch: tensors are stacked, numbers become tensors, containers are entered.

    Raises TypeError for samples of other types and RuntimeError for sequences of unequal length.
    """
    first = batch[0]
    if isinstance(first, lohe.Tensor):
        return lohe.stack(list(batch), 0)
    if _is_numpy(first):
        if first.shape == ():
            return lohe.as_tensor([value.item() for value in batch], dtype=lohe.as_tensor(first).dtype)
        if _STRING_DTYPE.search(first.dtype.str):
            raise TypeError(_UNSUPPORTED.format(first.dtype))
        return lohe.stack([lohe.as_tensor(value) for value in batch], 0)
    if isinstance(first, float):
        return lohe.tensor(batch, dtype=lohe.float64)
    if isinstance(first, int):
        return lohe.tensor(batch)
    if isinstance(first, (str, bytes)):
        return batch
    if isinstance(first, collections.abc.Mapping):
        return _rebuilt_mapping(
            first, {key: default_collate([sample[key] for sample in batch]) for key in first}
        )
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        return type(first)(*(default_collate(values) for values in zip(*batch)))
    if isinstance(first, collections.abc.Sequence):
        if any(len(sample) != len(first) for sample in batch):
            raise RuntimeError("each element in list of batch should be of equal size")
        columns = [default_collate(values) for values in zip(*batch)]
        return columns if isinstance(first, tuple) else _rebuilt(first, columns)
    raise TypeError(_UNSUPPORTED.format(type(first)))
