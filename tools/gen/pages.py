"""Reference pages docs/api/ops/<family>.md: every public row with its signature, meaning, dtypes, gradient and forms."""

from __future__ import annotations

import cpp_api
from op_rows import Row

PROMOTIONS = {
    "kSame": "the operands' promoted dtype",
    "kFloat": "the promoted dtype; integers give the default dtype",
    "kBool": "bool",
    "kReal": "the promoted dtype; complex gives its real dtype",
    "kSum": "the operand's dtype; bool and small integers give int64",
    "kIndex": "int64",
    "kFirst": "the first operand's dtype",
}
SETS = {
    "kBools": "bool",
    "kInts": "integers",
    "kHalfs": "float16, bfloat16",
    "kFloats": "float32, float64",
    "kComplexes": "complex",
    "kFloating": "floating point",
    "kReals": "integers, floating point",
    "kNumbers": "integers, floating point, complex",
    "kFloatingOrComplex": "floating point, complex",
    "kAllReals": "bool, integers, floating point",
    "kAll": "all",
    "kIntegral": "bool, integers",
}


def words(row: Row, option: str) -> list[str]:
    return [t.text for t in row.options.get(option, []) if t.kind == "word"]


def dtypes(row: Row) -> str:
    sets = [SETS[w] for w in words(row, "dtypes_are") if w in SETS]
    return ", ".join(sets) if sets else "all" if row.kind in ("pointwise", "composed", "view") else ""


def result(row: Row) -> str:
    names = [PROMOTIONS[w] for w in words(row, "promote") if w in PROMOTIONS]
    return names[0] if names else PROMOTIONS["kSame"] if row.kind == "pointwise" else ""


def gradient(row: Row) -> str:
    if not row.differentiable:
        return "none"
    if row.kind == "function":
        return "of the ops that it calls"
    if "grad" in row.options or "derivative" in row.options:
        return "given by the row, and differentiable again"
    if row.kind == "primitive":
        return "none"
    return "derived, and differentiable again"


def forms(row: Row, bases: set[str]) -> list[str]:
    module = f"lohe.{ {'nn': '_C.nn', '_C': '_C._internal'}.get(row.module, row.module) }." if row.module else "lohe."
    name = cpp_api.public_name(row, row.base)
    shown = [f"`{module}{name}`"] if row.has_function else []
    if row.has_method and not row.module:
        shown.append(f"`Tensor.{row.base}`")
    if row.has_inplace and row.base + "_" not in bases:
        shown.append(f"`Tensor.{row.base}_`")
    if row.has_out and not row.schema.mutates:
        shown.append("`out=`")
    return shown


def section(row: Row, bases: set[str], cpp: list[str]) -> str:
    lines = [f"## `{row.name}`\n", f"```text\n{row.schema.text}\n```\n"]
    if row.doc:
        lines.append(row.doc + "\n")
    facts = {
        "Forms": ", ".join(forms(row, bases)),
        "Dtypes": dtypes(row),
        "Result dtype": result(row),
        "Gradient": gradient(row),
    }
    lines.append("".join(f"- {title}: {text}\n" for title, text in facts.items() if text))
    if cpp:
        lines.append("```text\n" + "\n".join(cpp) + "\n```\n")
    return "\n".join(lines)


def generate(rows: list[Row], cpp_forms: list[cpp_api.Form]) -> dict[str, str]:
    bases = {row.base for row in rows}
    pages: dict[str, list[str]] = {}
    for row in sorted(rows, key=lambda r: (r.family, r.line)):
        if row.base.startswith("_"):
            continue
        declared = [
            f"{f.result} lohe::{f.namespace + '::' if f.namespace else ''}{f.name}({cpp_api.free_parameters(f, True)})"
            for f in cpp_forms
            if f.row is row and f.function and f.kind == "value"
        ]
        pages.setdefault(row.family, []).append(section(row, bases, declared))
    return {
        f"docs/api/ops/{family}.md": f"# Ops: {family.replace('_', ' ')}\n\n" + "\n".join(sections)
        for family, sections in sorted(pages.items())
    }
