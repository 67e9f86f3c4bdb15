"""Op signatures in the field's schema notation: `name.overload(Tensor self, *, Scalar alpha=1) -> Tensor`.

The notation is that of src/ops/schema.h, which reads the same literals when the library starts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

TYPES = frozenset(
    [
        "Tensor",
        "Scalar",
        "int",
        "float",
        "bool",
        "str",
        "ScalarType",
        "dtype",
        "Device",
        "Layout",
        "MemoryFormat",
        "Generator",
    ]
)


class SchemaError(ValueError):
    """A signature that cannot be read; the message says where in it."""


@dataclass(frozen=True)
class Type:
    base: str  # one of TYPES; "ScalarType" also for "dtype"
    is_list: bool = False
    list_size: int = 0  # int[2]: one int stands for two
    optional: bool = False  # may be None
    optional_elements: bool = False  # Tensor?[]
    alias: str = ""  # "a" of (a) and (a!)
    written: bool = False  # (a!)

    def __str__(self) -> str:
        text = self.base + ("?" if self.optional_elements else "")
        if self.is_list:
            text += f"[{self.list_size or ''}]"
        return text + ("?" if self.optional else "")


@dataclass(frozen=True)
class Param:
    name: str
    type: Type
    default: str | None  # as written; None where there is none
    keyword_only: bool


@dataclass(frozen=True)
class Return:
    name: str
    type: Type


@dataclass(frozen=True)
class Schema:
    text: str
    name: str  # "max.dim"
    params: tuple[Param, ...]
    returns: tuple[Return, ...]

    @property
    def base(self) -> str:
        return self.name.partition(".")[0]

    @property
    def overload(self) -> str:
        return self.name.partition(".")[2]

    @property
    def mutates(self) -> bool:
        return any(p.type.written for p in self.params)


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def fail(self, expected: str) -> SchemaError:
        return SchemaError(
            f"expected {expected} at {self.text[self.at : self.at + 20]!r} of the signature {self.text!r}"
        )

    def match(self, pattern: str) -> re.Match[str] | None:
        found = re.compile(r"\s*(?:" + pattern + ")").match(self.text, self.at)
        if found:
            self.at = found.end()
        return found

    def need(self, pattern: str, expected: str) -> re.Match[str]:
        found = self.match(pattern)
        if not found:
            raise self.fail(expected)
        return found

    def type(self) -> Type:
        base = self.need(r"(\w+)", "a type")[1]
        if base not in TYPES:
            raise SchemaError(
                f"unknown type {base!r} in the signature {self.text!r}; known: {', '.join(sorted(TYPES))}"
            )
        base = "ScalarType" if base == "dtype" else base
        alias = self.match(r"\((\w)(!?)\)")
        before = bool(self.match(r"\?(?=\[)"))
        size = self.match(r"\[(\d*)\]")
        if before and not size:
            raise self.fail("[]")
        after = bool(self.match(r"\?"))
        return Type(
            base,
            is_list=bool(size),
            list_size=int(size[1] or 0) if size else 0,
            optional=after,
            optional_elements=before,
            alias=alias[1] if alias else "",
            written=bool(alias and alias[2]),
        )

    def default(self) -> str:
        return self.need(r"('[^']*'|\[[^\]]*\]|[-+\w.]+)", "a default value")[1]

    def read(self) -> Schema:
        name = self.need(r"([A-Za-z_]\w*(?:\.\w+)?)\(", "name(")[1]
        params: list[Param] = []
        keyword_only = False
        while not self.match(r"\)"):
            if self.match(r"\*"):
                keyword_only = True
            else:
                kind = self.type()
                param = self.need(r"(\w+)", "a parameter's name")[1]
                default = self.default() if self.match("=") else None
                params.append(Param(param, kind, default, keyword_only))
            if not self.match(r",") and not re.match(r"\s*\)", self.text[self.at :]):
                raise self.fail("',' or ')'")
        self.need("->", "'->'")
        returns: list[Return] = []
        if self.match(r"\("):
            while not self.match(r"\)"):
                returns.append(self.result())
                if not self.match(",") and not re.match(r"\s*\)", self.text[self.at :]):
                    raise self.fail("',' or ')'")
        else:
            returns.append(self.result())
        if self.text[self.at :].strip():
            raise self.fail("the end")
        return Schema(self.text, name, tuple(params), tuple(returns))

    def result(self) -> Return:
        kind = self.type()
        name = self.match(r"(\w+)")
        return Return(name[1] if name else "", kind)


def parse(text: str) -> Schema:
    """Raises SchemaError for a signature that is not in the notation."""
    return _Reader(text).read()
