"""Discrete Fourier transforms: the rows of the op table that stand in ``fft``."""

from lohe._C import fft as _rows

__all__ = [name for name in vars(_rows) if not name.startswith("_")]
globals().update({name: getattr(_rows, name) for name in __all__})
