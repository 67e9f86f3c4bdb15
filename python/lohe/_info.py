"""What a dtype can represent: finfo and iinfo."""

from __future__ import annotations

from lohe import _C

__all__ = ["finfo", "iinfo"]

# Bits of the significand (with the hidden one) and the greatest exponent, by IEEE 754 and bfloat16.
_FLOATS = {
    _C.float16: (11, 15),
    _C.bfloat16: (8, 127),
    _C.float32: (24, 127),
    _C.float64: (53, 1023),
}
_INTEGERS = {_C.uint8: False, _C.int8: True, _C.int16: True, _C.int32: True, _C.int64: True}


class finfo:  # noqa: N801
    """Limits of a floating-point dtype (the default one if none is given)."""

    def __init__(self, type: _C.dtype | None = None) -> None:
        dtype = _C.get_default_dtype() if type is None else type
        if not isinstance(dtype, _C.dtype):
            raise TypeError(f"finfo(): argument 'type' must be torch.dtype, not {dtype.__class__.__name__}")
        real = dtype.to_real()
        if real not in _FLOATS:
            raise TypeError(f"torch.finfo() requires a floating point input type. Use torch.iinfo to handle '{dtype}'")
        digits, exponent = _FLOATS[real]
        self.bits = real.itemsize * 8
        self.eps = 2.0 ** (1 - digits)
        self.max = (2.0 - self.eps) * 2.0**exponent
        self.min = -self.max
        self.tiny = self.smallest_normal = 2.0 ** (1 - exponent)
        self.resolution = 10.0 ** -int((digits - 1) * 0.30103)
        self.dtype = str(real)[6:]

    def __repr__(self) -> str:
        return (
            f"finfo(resolution={self.resolution:g}, min={self.min:g}, max={self.max:g}, eps={self.eps:g}, "
            f"smallest_normal={self.smallest_normal:g}, tiny={self.tiny:g}, dtype={self.dtype})"
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, finfo) and other.dtype == self.dtype

    def __hash__(self) -> int:
        return hash(("finfo", self.dtype))


class iinfo:  # noqa: N801
    """Limits of an integer dtype."""

    def __init__(self, type: _C.dtype) -> None:
        if not isinstance(type, _C.dtype):
            raise TypeError(f"iinfo(): argument 'type' must be torch.dtype, not {type.__class__.__name__}")
        if type is _C.bool:
            raise TypeError("torch.bool is not supported by torch.iinfo")
        if type not in _INTEGERS:
            raise TypeError(f"torch.iinfo() requires an integer input type. Use torch.finfo to handle '{type}'")
        self.bits = type.itemsize * 8
        signed = _INTEGERS[type]
        self.max = 2 ** (self.bits - signed) - 1
        self.min = -self.max - 1 if signed else 0
        self.dtype = str(type)[6:]

    def __repr__(self) -> str:
        return f"iinfo(min={self.min:g}, max={self.max:g}, dtype={self.dtype})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, iinfo) and other.dtype == self.dtype

    def __hash__(self) -> int:
        return hash(("iinfo", self.dtype))
