"""Ops that the table does not have: the name exists, so that modules can bind it, and the call says what is missing."""

from __future__ import annotations

import difflib
from typing import Any, NoReturn

from lohe import _C


class MissingOp:
    """Stands for an op that is not implemented; calling it raises NotImplementedError."""

    def __init__(self, name: str) -> None:
        self.__name__ = self.__qualname__ = name

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        near = difflib.get_close_matches(self.__name__, [row["base"] for row in _C.op_table()], n=1)
        hint = f"; the nearest name is {near[0]!r}" if near else ""
        raise NotImplementedError(f"the op {self.__name__!r} is not implemented{hint}")

    def __repr__(self) -> str:
        return f"<missing op {self.__name__}>"


def missing_op(name: str) -> MissingOp:
    """What ``lohe._C.ops.<name>`` gives for an unknown name."""
    if name.startswith("__"):
        raise AttributeError(name)
    return MissingOp(name)
