"""Type names of the days before dtypes: lohe.FloatTensor, tensor.type("torch.FloatTensor")."""

from __future__ import annotations

from typing import Any

from lohe import _C

_NAMES = {
    "FloatTensor": _C.float32,
    "DoubleTensor": _C.float64,
    "HalfTensor": _C.float16,
    "BFloat16Tensor": _C.bfloat16,
    "LongTensor": _C.int64,
    "IntTensor": _C.int32,
    "ShortTensor": _C.int16,
    "CharTensor": _C.int8,
    "ByteTensor": _C.uint8,
    "BoolTensor": _C.bool,
    "ComplexFloatTensor": _C.complex64,
    "ComplexDoubleTensor": _C.complex128,
}
_TEXTS = {dtype: f"torch.{name}" for name, dtype in _NAMES.items()}


class _TypeMeta(type):
    dtype: _C.dtype

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, _C.TensorBase) and instance.dtype is cls.dtype

    def __call__(cls, *args: Any) -> Any:
        if args and not isinstance(args[0], (int, _C.Size)):
            if len(args) != 1:
                raise TypeError(f"{cls.__name__}(): takes sizes or one sequence, got {len(args)} arguments")
            data = args[0]
            if isinstance(data, _C.TensorBase) and data.dtype is not cls.dtype:
                raise TypeError(f"expected a tensor of dtype {cls.dtype} in {cls.__name__}(), got {data.dtype}")
            return _C.tensor(data, dtype=cls.dtype) if not isinstance(data, _C.TensorBase) else data
        sizes = args[0] if args and isinstance(args[0], _C.Size) else args or (0,)
        return _C.ops.empty(sizes, dtype=cls.dtype)


#: lohe.FloatTensor and its kin: callable like classes, and isinstance() asks for the dtype.
TYPES = {name: _TypeMeta(name, (), {"dtype": dtype, "__module__": "lohe"}) for name, dtype in _NAMES.items()}


def tensor_type(tensor: Any, wanted: Any) -> Any:
    """``tensor.type()`` and ``tensor.type(wanted)``."""
    if wanted is None:
        return _TEXTS[tensor.dtype]
    if isinstance(wanted, str):
        name = wanted.rsplit(".", 1)[-1]
        if name not in _NAMES or wanted not in (name, f"torch.{name}", f"lohe.{name}"):
            raise ValueError(f"invalid type: '{wanted}'")
        wanted = _NAMES[name]
    elif isinstance(wanted, _TypeMeta):
        wanted = wanted.dtype
    return tensor.to(wanted)
