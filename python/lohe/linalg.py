"""Linear algebra: the rows of the op table that stand in ``linalg``."""

from lohe._C import LinAlgError
from lohe._C import linalg as _rows

__all__ = ["LinAlgError", *(name for name in vars(_rows) if not name.startswith("_"))]
globals().update({name: getattr(_rows, name) for name in __all__ if name != "LinAlgError"})
