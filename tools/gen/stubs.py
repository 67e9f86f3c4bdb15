"""Type stubs (PEP 561) of the extension module `lohe._C`: what the op table puts there, behind what python/binding/_C.pyi
says of the names that are written by hand.
"""

from __future__ import annotations

import keyword
import re
from pathlib import Path

from op_rows import Row
from schema import Param, Return, Type

HEADER = """# Generated from src/ops and python/binding/_C.pyi by tools/gen/gen_ops.py.
# mypy: disable-error-code="overload-overlap, overload-cannot-match, misc, override, assignment"
from builtins import bool as _bool, complex as _complex, float as _float, int as _int
from collections.abc import Sequence
from typing import Any, overload

import lohe
from lohe import Generator, Tensor
from lohe._C import return_types

_Number = _bool | _int | _float | _complex
_Device = lohe.device | str | _int
"""
HANDWRITTEN = "python/binding/_C.pyi"
MEMBERS = "    # The methods of the op table.\n"
MODULES = {"": "_functions", "nn": "nn", "special": "special", "linalg": "linalg", "fft": "fft", "_C": "_internal"}
PLAIN = {
    "Tensor": "Tensor",
    "Scalar": "_Number",
    "int": "_int",
    "float": "_float",
    "bool": "_bool",
    "str": "str",
    "ScalarType": "lohe.dtype",
    "Device": "_Device",
    "Layout": "lohe.layout",
    "MemoryFormat": "lohe.memory_format",
    "Generator": "Generator",
}


def python_name(name: str) -> str:
    return name + "_" if keyword.iskeyword(name) else name


def type_text(kind: Type, number_too: bool = False) -> str:
    text = PLAIN[kind.base]
    if kind.is_list:
        text = f"Sequence[{text}{' | None' if kind.optional_elements else ''}]"
        if kind.list_size:
            text = f"{PLAIN[kind.base]} | {text}"
    elif number_too:
        text += " | _Number"
    return f"{text} | None" if kind.optional else text


def param_text(row: Row, param: Param) -> str:
    number_too = row.kind == "pointwise" and param.type.base == "Tensor" and param.name != "self"
    text = f"{python_name(param.name)}: {type_text(param.type, number_too)}"
    return text + (" = ..." if param.default is not None else "")


def result_text(row: Row, returns: tuple[Return, ...]) -> str:
    if not returns:
        return "None"
    if len(returns) == 1:
        kind = returns[0].type
        return "tuple[Tensor, ...]" if kind.is_list else type_text(kind)
    if all(r.name for r in returns):
        return f"return_types.{type_name(row)}"
    return f"tuple[{', '.join(type_text(r.type) for r in returns)}]"


def type_name(row: Row) -> str:
    return row.name.replace(".", "_")


def signatures(row: Row, method: bool, inplace: bool) -> list[str]:
    """Parameter lists: the row's own, and for a method whose last positional parameter is `int[]` its ints one by one."""
    params = list(row.schema.params)
    if method:
        params = [p for p in params if p.name != "self"]
    head = ["self"] if method else []
    positional = [p for p in params if not p.keyword_only]
    keywords = [param_text(row, p) for p in params if p.keyword_only]
    if row.has_out and not inplace and not method and not row.schema.mutates:
        out = "Tensor" if len(row.schema.returns) == 1 else "Sequence[Tensor]"
        keywords.append(f"out: {out} | None = ...")
    tail = ["*", *keywords] if keywords else []
    result = [", ".join([*head, *(param_text(row, p) for p in positional), *tail])]
    spread = [p for p in positional if p.type.is_list and p.type.base == "int" and not p.type.list_size]
    if len(positional) == 1 and spread:
        result.append(", ".join([*head, f"*{python_name(spread[0].name)}: _int", *keywords]))
    return result


def definitions(name: str, rows: list[Row], method: bool, inplace: bool, indent: str) -> str:
    texts = []
    for row in rows:
        result = "Tensor" if inplace else result_text(row, row.schema.returns)
        for parameters in signatures(row, method, inplace):
            text = f"{indent}def {name}({parameters}) -> {result}: ...\n"
            if text not in texts:
                texts.append(text)
    decorator = f"{indent}@overload\n" if len(texts) > 1 else ""
    return "".join(decorator + text for text in texts)


def by_name(rows: list[Row], method: bool, module: str | None) -> dict[str, tuple[list[Row], bool]]:
    """Public name -> (rows, whether it is the derived in-place form)."""
    bases = {row.base for row in rows}
    names: dict[str, tuple[list[Row], bool]] = {}
    for row in rows:
        if module is not None and row.module != module:
            continue
        shown = (row.has_method and not row.module) if method else row.has_function
        name = row.base.removeprefix(row.module + "_") if module else row.base
        if shown:
            names.setdefault(name, ([], False))[0].append(row)
        if row.has_inplace and row.base + "_" not in bases and (not method or not row.module):
            names.setdefault(name + "_", ([], True))[0].append(row)
    return dict(sorted((n, r) for n, r in names.items() if n.isidentifier() and not keyword.iskeyword(n)))


def handwritten(source: Path, members: str) -> str:
    """python/binding/_C.pyi with the table's methods in the class of tensors, and the dtypes by name."""
    text = (source / HANDWRITTEN).read_text()
    if MEMBERS not in text:
        raise SystemExit(f"{HANDWRITTEN}: the line {MEMBERS.strip()!r} is missing")
    table = (source / "src/tensor/dtype.cpp").read_text()
    names = [name for row in re.findall(r'DtypeInfo\{k\w+, "(\w+)", "(\w*)"', table) for name in row if name]
    dtypes = "".join(f"{name}: dtype\n" for name in names)
    body = "\n" + text[text.index("# --- types") :]
    return body.replace("# --- layouts", f"# --- dtypes\n\n{dtypes}\n# --- layouts").replace(MEMBERS, members)


def generate(rows: list[Row], source: Path) -> dict[str, str]:
    files: dict[str, str] = {}
    modules = {row.module for row in rows} | set(MODULES)
    for module in sorted(modules):
        text = HEADER + "".join(
            "\n" + definitions(name, own, False, inplace, "")
            for name, (own, inplace) in by_name(rows, False, module).items()
        )
        files[f"python/lohe/_C/{MODULES.get(module, module)}.pyi"] = (
            text + "\ndef __getattr__(name: str) -> Any: ...\n"
        )
    files["python/lohe/_C/ops.pyi"] = (
        HEADER
        + "".join(
            "\n" + definitions(n, own, False, inplace, "") for n, (own, inplace) in by_name(rows, False, None).items()
        )
        + "\ndef __getattr__(name: str) -> Any: ...\n"
    )
    # What python/binding writes by hand hides the row of the same name.
    tensor_class = (source / HANDWRITTEN).read_text().partition("class TensorBase")[2]
    by_hand = set(re.findall(r"^    def (\w+)\(", tensor_class, re.M))
    members = "".join(
        definitions(name, own, True, inplace, "    ")
        for name, (own, inplace) in by_name(rows, True, None).items()
        if name not in by_hand
    )
    shown = ", ".join(f"{name} as {name}" for name in sorted({*MODULES.values(), "ops"}))
    files["python/lohe/_C/__init__.pyi"] = HEADER.replace(
        "from lohe import Generator, Tensor\nfrom lohe._C import return_types\n",
        f"from lohe import Tensor\nfrom lohe._C import return_types, {shown}\n",
    ) + handwritten(source, members)
    named = [
        "# Generated from src/ops by tools/gen/gen_ops.py.\nfrom typing import NamedTuple\n\nfrom lohe import Tensor\n"
    ]
    for row in rows:
        returns = row.schema.returns
        if len(returns) > 1 and all(r.name for r in returns):
            fields = "".join(f"    {python_name(r.name)}: {type_text(r.type)}\n" for r in returns)
            named.append(f"\nclass {type_name(row)}(NamedTuple):\n{fields}")
    files["python/lohe/_C/return_types.pyi"] = "".join(named)
    constants = re.findall(r"^(\w+): (?:dtype|layout|memory_format)$", files["python/lohe/_C/__init__.pyi"], re.M)
    files["python/lohe/_C/dtypes.pyi"] = "# Dtypes, layouts and memory formats, as `import lohe` shows them.\n" + "".join(
        f"from lohe._C import {name} as {name}\n" for name in constants
    )
    files["python/lohe/py.typed"] = ""
    return files
