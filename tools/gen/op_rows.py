"""Reads the op table from src/ops/**/*.cpp as text.

A file's rows stand in `OpFamily <object>("<family>", { row, row ... });`. A row is a call of a row constructor (or
of a function of the file that wraps one) whose first argument is the signature, a string literal, followed by chained
options. Anything else in the list is an error that names file and line: what cannot be read here would be missing in the
API without a word.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path

import schema as schemas

KINDS = {
    "pointwise": "pointwise",
    "composed": "composed",
    "view": "view",
    "multi_view": "view",
    "primitive": "primitive",
    "function": "function",
}
TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*|/\*.*?\*/|^[ \t]*\#(?:[^\n]*\\\n)*[^\n]*)
      | (?P<raw>R"(?P<mark>[^(\s]*)\((?P<rawtext>.*?)\)(?P=mark)")
      | (?P<string>"(?:[^"\\\n]|\\.)*")
      | (?P<char>'(?:[^'\\\n]|\\.)+')
      | (?P<word>[A-Za-z_]\w*)
      | (?P<number>\.?\d(?:[\w.']|[eEpP][+-])*)
      | (?P<punct>::|->|.)""",
    re.S | re.X | re.M,
)
CLOSES = {"(": ")", "[": "]", "{": "}"}


class RowError(SystemExit):
    """A row that cannot be read. Ends the generator with `file:line: reason`."""


@dataclass(frozen=True)
class Token:
    kind: str
    text: str
    line: int


@dataclass
class Row:
    schema: schemas.Schema
    kind: str
    family: str
    path: str  # relative to the repository
    line: int
    options: dict[str, list[Token]] = field(default_factory=dict)
    has_function: bool = True
    has_method: bool = True
    has_inplace: bool = False
    has_out: bool = False
    differentiable: bool = True
    module: str = ""
    doc: str = ""
    takes_numbers: bool = False  # a number may stand for a tensor operand

    @property
    def name(self) -> str:
        return self.schema.name

    @property
    def base(self) -> str:
        return self.schema.base


def tokens_of(text: str) -> list[Token]:
    tokens: list[Token] = []
    line = 1
    for found in TOKEN.finditer(text):
        kind = found.lastgroup or ""
        kind = (
            "raw"
            if found["raw"]
            else next(k for k in ("space", "string", "char", "word", "number", "punct") if found[k])
        )
        if kind == "raw":
            tokens.append(Token("string", found["rawtext"], line))
        elif kind == "string":
            tokens.append(Token("string", unescaped(found["string"][1:-1]), line))
        elif kind != "space":
            tokens.append(Token(kind, found[0], line))
        line += found[0].count("\n")
    return tokens


def unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda m: {"n": "\n", "t": "\t"}.get(m[1], m[1]), text)


class FileReader:
    """The rows of one file."""

    def __init__(self, path: Path, source: Path) -> None:
        self.path = path.relative_to(source).as_posix()
        self.tokens = tokens_of(path.read_text())

    def fail(self, at: int, reason: str) -> RowError:
        line = self.tokens[min(at, len(self.tokens) - 1)].line
        return RowError(f"{self.path}:{line}: {reason}")

    def text(self, at: int) -> str:
        return self.tokens[at].text if at < len(self.tokens) and self.tokens[at].kind != "string" else ""

    def closing(self, at: int) -> int:
        """The position of the bracket that closes the one at `at`."""
        stack: list[str] = []
        for i in range(at, len(self.tokens)):
            text = self.text(i)
            if text in CLOSES and self.tokens[i].kind == "punct":
                stack.append(CLOSES[text])
            elif stack and text == stack[-1]:
                stack.pop()
                if not stack:
                    return i
        raise self.fail(at, "a bracket is not closed")

    def string_at(self, at: int) -> tuple[str, int]:
        """Adjacent literals from `at` as one string, and the position behind them."""
        parts = []
        while at < len(self.tokens) and self.tokens[at].kind == "string":
            parts.append(self.tokens[at].text)
            at += 1
        return "".join(parts), at

    def rows(self) -> list[Row]:
        rows: list[Row] = []
        for i in range(len(self.tokens)):
            # `OpFamily name(` or `OpFamily name{`; in op_def.h's own words it is a struct.
            if self.text(i) != "OpFamily" or self.text(i + 2) not in ("(", "{") or self.tokens[i + 1].kind != "word":
                continue
            family, at = self.string_at(i + 3)
            if not family or self.text(at) != "," or self.text(at + 1) != "{":
                raise self.fail(i, 'an OpFamily is written OpFamily <object>("<family>", { rows });')
            end = self.closing(at + 1)
            at += 2
            in_family: list[Row] = []
            lent: list[tuple[str, str, Row, int]] = []
            while at < end:
                if self.text(at) == "alias":
                    entry, at = self.alias(at, family)
                    lent.append(entry)
                else:
                    row, at = self.row(at, end, family)
                    in_family.append(row)
                if self.text(at) == ",":
                    at += 1
            rows += in_family
            for name, base, options, where in lent:
                named = [self.renamed(row, name, options) for row in in_family if row.base == base]
                if not named:
                    raise self.fail(where, f"{name!r} is an alias of {base!r}, which is no row of family {family!r}")
                rows += named
        return rows

    def alias(self, at: int, family: str) -> tuple[tuple[str, str, Row, int], int]:
        """alias("name", "base").option()...: the two names, a row that holds the options, the position; then what follows."""
        close = self.closing(at + 1)
        name, behind = self.string_at(at + 2)
        base, last = self.string_at(behind + 1)
        if not name or not base or last != close:
            raise self.fail(at, 'an alias is written alias("<name>", "<base name of a row>")')
        options = Row(schemas.parse(f"{name}() -> Tensor"), "function", family, self.path, self.tokens[at].line)
        where, at = at, close + 1
        while self.text(at) == ".":
            close = self.closing(at + 2)
            self.apply(options, self.text(at + 1), at + 3, close)
            at = close + 1
        return (name, base, options, where), at

    @staticmethod
    def renamed(row: Row, name: str, options: Row) -> Row:
        """As `renamed` in src/ops/op_def.cpp."""
        rest = row.schema.text[len(row.base) :]
        schema = dataclasses.replace(row.schema, text=name + rest, name=name + row.name[len(row.base) :])
        return dataclasses.replace(
            row,
            schema=schema,
            line=options.line,
            module=options.module or row.module,
            has_function=row.has_function and options.has_function,
            has_method=row.has_method and options.has_method,
            has_inplace=row.has_inplace and not options.module,
        )

    def local_constructor(self, name: str) -> tuple[str, list[tuple[str, int, int]]] | None:
        """What a file's own `OpDef name(std::string_view schema, ...) { return pointwise(schema, ...).option()...; }` stands
        for: the constructor behind it, and the options that it chains."""
        for i in range(len(self.tokens)):
            if self.text(i) != "OpDef" or self.text(i + 1) != name or self.text(i + 2) != "(":
                continue
            body = self.closing(i + 2) + 1
            if self.text(body) != "{":
                continue
            for at in range(body, self.closing(body)):
                if self.text(at) in KINDS and self.text(at + 1) == "(" and self.text(at - 1) == "=":
                    return self.text(at), self.assignments(at, self.closing(body))
                if self.text(at) == "return" and self.text(at + 2) == "(":
                    kind = self.text(at + 1)
                    inner = None if kind in KINDS else self.local_constructor(kind)
                    if kind not in KINDS and inner is None:
                        return None
                    kind, options = (kind, []) if inner is None else inner
                    at = self.closing(at + 2) + 1
                    while self.text(at) == ".":
                        close = self.closing(at + 2)
                        options.append((self.text(at + 1), at + 3, close))
                        at = close + 1
                    return kind, options
        return None

    def assignments(self, at: int, end: int) -> list[tuple[str, int, int]]:
        """`op.has_out = op.has_method = false;` and the like, each as an option `=field` whose argument is the value."""
        options = []
        names: list[str] = []
        for i in range(at, end):
            if self.text(i) == "." and self.text(i + 2) == "=" and self.tokens[i + 1].kind == "word":
                names.append(self.text(i + 1))
                if self.text(i + 4) != ".":
                    options += [("=" + name, i + 3, i + 4) for name in names]
                    names = []
        return options

    def row(self, at: int, end: int, family: str) -> tuple[Row, int]:
        constructor = self.text(at)
        start = at
        chained: list[tuple[str, int, int]] = []
        if constructor not in KINDS and (local := self.local_constructor(constructor)) is not None:
            constructor, chained = local
        if constructor not in KINDS or self.text(at + 1) != "(":
            raise self.fail(
                at, f"a row of family {family!r} begins with one of {', '.join(KINDS)}, not with {constructor!r}"
            )
        close = self.closing(at + 1)
        text, behind = self.string_at(at + 2)
        # A constructor of the file may need nothing but the signature.
        if not text or (self.text(behind) != "," and not (constructor != self.text(start) and behind == close)):
            raise self.fail(at, f"the first argument of {constructor}(...) is the signature, a string literal")
        try:
            schema = schemas.parse(text)
        except schemas.SchemaError as error:
            raise self.fail(at, str(error)) from None
        row = Row(schema, KINDS[constructor], family, self.path, self.tokens[start].line)
        row.has_inplace = constructor == "pointwise"
        row.has_out = constructor in ("pointwise", "composed")
        for option, first, last in chained:
            self.apply(row, option, first, last)
        at = self.chain(row, close + 1)
        if at < end and self.text(at) != ",":
            raise self.fail(at, f"row {row.name}: expected ',' or an option, not {self.tokens[at].text!r}")
        return row, at

    def chain(self, row: Row, at: int) -> int:
        """Applies the options `.name(...)` from `at`; gives the position behind them."""
        while self.text(at) == ".":
            option = self.text(at + 1)
            if self.text(at + 2) != "(":
                raise self.fail(at, f"row {row.name}: .{option} is not a call")
            close = self.closing(at + 2)
            self.apply(row, option, at + 3, close)
            at = close + 1
        return at

    def apply(self, row: Row, option: str, first: int, close: int) -> None:
        """What src/ops/op_def.h's builder of that name does to the row's forms."""
        row.options[option] = self.tokens[first:close]
        if option == "no_inplace":
            row.has_inplace = False
        elif option == "inplace":
            row.has_inplace = True
        elif option in ("out", "out_apart", "exact_out"):
            row.has_out = True
        elif option == "function_only":
            row.has_method = row.has_inplace = False
        elif option == "method_only":
            row.has_function = False
        elif option == "not_differentiable":
            row.differentiable = False
        elif option in ("=has_function", "=has_method", "=has_inplace", "=has_out", "=differentiable"):
            setattr(row, option[1:], self.text(first) == "true")
        elif option == "=module":
            row.module = self.tokens[first].text
        elif option in ("in", "describe"):
            text, behind = self.string_at(first)
            if behind != close:
                raise self.fail(first, f"row {row.name}: .{option}(...) takes one string literal")
            if option == "in":
                row.module = text
                row.has_method = row.has_inplace = False
            else:
                row.doc = text


def renamed(row: Row, lent: Row) -> Row:
    """`row` under the name that an alias lends, as OpFamily's constructor makes it."""
    schema = row.schema
    name = lent.name + schema.name[len(schema.base) :]
    schema = dataclasses.replace(schema, name=name, text=name + schema.text[len(row.name) :])
    return dataclasses.replace(
        row,
        schema=schema,
        line=lent.line,
        module=lent.module or row.module,
        has_function=row.has_function and lent.has_function,
        has_method=row.has_method and lent.has_method,
        has_inplace=row.has_inplace and not lent.module,
    )


def op_files(source: Path) -> list[Path]:
    """Every file that may hold rows."""
    return sorted((source / "src" / "ops").rglob("*.cpp"))


def read_rows(source: Path) -> list[Row]:
    """All rows, sorted by name as src/ops keeps them. @raises RowError."""
    rows: dict[str, Row] = {}
    for path in op_files(source):
        for row in FileReader(path, source).rows():
            if row.name in rows:
                other = rows[row.name]
                raise RowError(f"{row.path}:{row.line}: row {row.name} stands already at {other.path}:{other.line}")
            rows[row.name] = row
    pointwise = {row.base for row in rows.values() if row.kind == "pointwise"}
    for row in rows.values():
        row.takes_numbers = row.kind == "pointwise" or row.kind == "function" and row.base in pointwise
    return [rows[name] for name in sorted(rows)]
