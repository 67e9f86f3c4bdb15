"""The op table under the names of PyTorch's operator registry: ``lohe.ops.aten.add(x, y)``.

``lohe.ops.aten.max.dim(x, 0)`` names an overload; ``default`` is the one whose signature has no name of its own. An
overload is checked for its existence and then chosen by the arguments, as by ``lohe.ops.aten.max`` itself.
"""

from __future__ import annotations

from typing import Any

from lohe import _C

__all__ = ["aten"]


class OpOverloads:
    """All overloads of one op; a call chooses among them by its arguments."""

    def __init__(self, name: str, call: Any) -> None:
        self.__name__ = name
        self._call = call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(*args, **kwargs)

    def overloads(self) -> list[str]:
        """Their names, "default" for the one without."""
        names = (row["name"] for row in _C.op_table())
        return [n.partition(".")[2] or "default" for n in names if n.partition(".")[0] == self.__name__]

    def __getattr__(self, overload: str) -> Any:
        if overload.startswith("_") or overload not in self.overloads():
            raise AttributeError(f"op {self.__name__!r} has no overload {overload!r}")
        setattr(self, overload, self._call)  # the next look-up finds it
        return self._call

    def __repr__(self) -> str:
        return f"<aten.{self.__name__}>"


class _Namespace:
    """``aten``: every op of the table."""

    def __getattr__(self, name: str) -> OpOverloads:
        found = None if name.startswith("__") else OpOverloads(name, getattr(_C.ops, name))
        if found is None or not found.overloads():
            raise AttributeError(f"no op is called {name!r}")
        setattr(self, name, found)  # the next look-up finds it
        return found

    def __dir__(self) -> list[str]:
        return sorted({row["name"].partition(".")[0] for row in _C.op_table()})


aten = _Namespace()
