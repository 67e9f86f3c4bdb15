"""The public C++ API of the op table: lohe/functions.h, lohe/tensor_methods.h and the calls behind them.

A row with a method is a member of Tensor, defined once; its free function is an inline call of it. In-place forms and
mutating rows are const members that give `*this` back, since a Tensor is a handle.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cpp_types
from cpp_types import Slot
from op_rows import Row, op_files

NAMESPACES = {"": "", "nn": "nn::ops", "special": "special", "linalg": "linalg", "fft": "fft", "_C": "detail::rows"}
NOTICE = "// Generated from src/ops by tools/gen/gen_ops.py.\n"


@dataclass(frozen=True)
class Form:
    """One C++ overload of a row."""

    row: Row
    kind: str  # "value", "inplace", "out"
    name: str
    slots: tuple[Slot, ...]
    method: bool
    function: bool

    @property
    def namespace(self) -> str:
        return NAMESPACES.get(self.row.module, self.row.module)

    @property
    def writes_self(self) -> bool:
        return self.kind == "inplace" or self.row.schema.mutates

    @property
    def result(self) -> str:
        if self.kind == "inplace":
            return "Tensor&"
        returns = self.row.schema.returns
        if self.kind == "out":
            return "Tensor&" if len(returns) == 1 else f"std::tuple<{', '.join(['Tensor&'] * len(returns))}>"
        if self.row.schema.mutates:
            return (
                "Tensor&"
                if returns and self.self_at == 0
                else "void"
                if not returns
                else cpp_types.result_type(self.row)
            )
        return cpp_types.result_type(self.row)

    @property
    def self_at(self) -> int:
        """Position of the parameter `self` that a method takes from its object; -1 if there is none."""
        for i, slot in enumerate(self.slots):
            if slot.name == "self" and slot.type == "const Tensor&":
                return i
        return -1

    def free_slots(self) -> list[Slot]:
        """The free function's parameters; a default may not stand before a parameter without one."""
        return self.ordered(list(self.slots))

    def method_slots(self) -> list[Slot]:
        return self.ordered([s for i, s in enumerate(self.slots) if i != self.self_at])

    @staticmethod
    def ordered(slots: list[Slot]) -> list[Slot]:
        last = max((i for i, s in enumerate(slots) if s.default is None), default=-1)
        return [Slot(s.type, s.name, s.default if i > last else None, s.pack, s.setup) for i, s in enumerate(slots)]

    def key(self, method: bool) -> tuple[object, ...]:
        slots = self.method_slots() if method else self.free_slots()
        return (
            self.namespace,
            self.name,
            method,
            tuple(s.type.replace("const std::optional<Scalar>&", "opt Scalar") for s in slots),
        )


def public_name(row: Row, base: str) -> str:
    """`linalg_norm` stands in namespace linalg as `norm`."""
    return base.removeprefix(row.module + "_") if row.module else base


def out_params(row: Row) -> list[str]:
    returns = row.schema.returns
    return ["out"] if len(returns) == 1 else [r.name or f"out{i}" for i, r in enumerate(returns)]


def returns_tensors_only(row: Row) -> bool:
    return bool(row.schema.returns) and all(
        r.type.base == "Tensor" and not r.type.is_list for r in row.schema.returns
    )


def forms_of(row: Row, bases: set[str]) -> Iterator[Form]:
    name = public_name(row, row.base)
    for slots in cpp_types.variants(row):
        has_self = any(s.name == "self" and s.type == "const Tensor&" for s in slots)
        method = row.has_method and not row.module and has_self
        yield Form(row, "value", name, tuple(slots), method, row.has_function or not method)
        if row.has_inplace and has_self and row.base + "_" not in bases:
            yield Form(row, "inplace", name + "_", tuple(slots), not row.module, True)
        starts_with_number = bool(slots) and slots[0].name == "self" and not has_self
        if (
            row.has_out
            and row.has_function
            and not starts_with_number
            and not row.schema.mutates
            and returns_tensors_only(row)
        ):
            yield Form(row, "out", name + "_out", tuple(slots), False, True)


def handwritten_methods(source: Path) -> set[str]:
    """Names that include/lohe/tensor.h declares itself; they may call rows of the same name."""
    text = (source / "include" / "lohe" / "tensor.h").read_text()
    body = text[text.index("class LOHE_API Tensor {") :]
    return set(re.findall(r"^  (?:\w[\w:<>,&* ]*[ *&])(\w+)\(", body, re.M))


def all_forms(rows: list[Row], source: Path) -> list[Form]:
    """Every overload once: where two rows give one C++ signature, the row that writes it itself wins, then the first."""
    bases = {row.base for row in rows}
    written = handwritten_methods(source)
    candidates: list[tuple[int, Form]] = []
    for row in rows:
        seen: dict[str, int] = {}
        for form in forms_of(row, bases):
            seen[form.kind] = seen.get(form.kind, -1) + 1
            candidates.append((min(seen[form.kind], 1), form))
    taken: set[tuple[object, ...]] = set()
    forms: list[Form] = []
    for wanted in (0, 1):
        for rank, form in candidates:
            if rank != wanted:
                continue
            method = form.method and form.name not in written and form.key(True) not in taken
            function = form.function and form.key(False) not in taken
            if method:
                taken.add(form.key(True))
            if function:
                taken.add(form.key(False))
            if method or function:
                forms.append(Form(form.row, form.kind, form.name, form.slots, method, function))
    return sorted(told_apart(forms), key=lambda f: (f.row.family, f.row.line, f.name))


def required_types(form: Form) -> tuple[str, ...]:
    return tuple(s.type for s in form.free_slots() if s.default is None)


def told_apart(forms: list[Form]) -> list[Form]:
    """Where two overloads could be called with the same arguments because the rest has defaults (`any(x)`), the one with
    fewer parameters keeps its defaults and the other loses the first of its own."""
    taken: set[tuple[object, ...]] = set()
    result: list[Form] = []
    for form in sorted(forms, key=lambda f: len(f.slots)):
        slots = list(form.slots)
        while (form.namespace, form.name, required_types(form)) in taken:
            first = next((i for i, s in enumerate(slots) if s.default is not None), None)
            if first is None:
                break
            slots[first] = dataclasses.replace(slots[first], default=None)
            form = dataclasses.replace(form, slots=tuple(slots))
        taken.add((form.namespace, form.name, required_types(form)))
        result.append(form)
    return result


# --- declarations


def arguments(slots: list[Slot], defaults: bool) -> str:
    return ", ".join(s.declared(defaults) for s in slots)


def free_parameters(form: Form, defaults: bool) -> str:
    text = arguments(form.free_slots(), defaults)
    if form.kind == "out":
        outs = ", ".join(f"Tensor& {name}" for name in out_params(form.row))
        return f"{outs}, {text}" if text else outs
    if form.writes_self and form.result == "Tensor&":
        return text.replace("const Tensor& self", "Tensor& self", 1)
    return text


def prose(form: Form, indent: str) -> str:
    return f"{indent}/// {form.row.doc.splitlines()[0]}\n" if form.row.doc else ""


def methods_header(forms: list[Form]) -> str:
    lines = [NOTICE, "// Included inside class Tensor (lohe/tensor.h).\n"]
    previous = ""
    for form in forms:
        if not form.method:
            continue
        if form.row.name != previous:
            lines.append(prose(form, ""))
        previous = form.row.name
        lines.append(f"{form.result} {form.name}({arguments(form.method_slots(), True)}) const;\n")
    return "".join(lines)


def inline_body(form: Form) -> str:
    passed = ", ".join(s.name for s in form.method_slots())
    return f"self.{form.name}({passed})" if form.result == "void" else f"return self.{form.name}({passed})"


def functions_header(forms: list[Form]) -> str:
    lines = ["#pragma once\n\n", NOTICE, "\n", '#include "lohe/tensor.h"\n\n', "namespace lohe {\n"]
    for namespace in sorted({f.namespace for f in forms if f.function}):
        if namespace:
            lines.append(f"\nnamespace {namespace} {{\n")
        lines.append("\n")
        previous = ""
        for form in forms:
            if not form.function or form.namespace != namespace:
                continue
            if form.row.name != previous:
                lines.append(prose(form, ""))
            previous = form.row.name
            head = f"{form.result} {form.name}({free_parameters(form, True)})"
            if form.method:
                lines.append(f"inline {head} {{ {inline_body(form)}; }}\n")
            else:
                lines.append(f"LOHE_API {head};\n")
        if namespace:
            lines.append(f"\n}}  // namespace {namespace}\n")
    lines.append("\n}  // namespace lohe\n")
    return "".join(lines)


OPERATORS = {
    "+": "add",
    "-": "sub",
    "*": "mul",
    "/": "div",
    "%": "remainder",
    "&": "bitwise_and",
    "|": "bitwise_or",
    "^": "bitwise_xor",
    "<<": "bitwise_left_shift",
    ">>": "bitwise_right_shift",
    "==": "eq",
    "!=": "ne",
    "<": "lt",
    "<=": "le",
    ">": "gt",
    ">=": "ge",
}


def operators_header(forms: list[Form]) -> str:
    """The symbols that Python gives to two-operand rows."""
    lines = ["#pragma once\n\n", NOTICE, "\n", '#include "lohe/functions.h"\n\n', "namespace lohe {\n\n"]
    operands = {"const Tensor&": "T", "const Scalar&": "S"}
    for symbol, name in OPERATORS.items():
        pairs = set()
        for form in forms:
            needed = [s for s in form.free_slots() if s.default is None]
            if (
                form.kind == "value"
                and form.function
                and form.name == name
                and not form.namespace
                and len(needed) == 2
            ):
                pairs.add("".join(operands.get(s.type, "?") for s in needed))
        for pair in ("TT", "TS", "ST"):
            if pair in pairs:
                a, b = ("const Tensor&" if letter == "T" else "const Scalar&" for letter in pair)
                lines.append(f"inline Tensor operator{symbol}({a} a, {b} b) {{ return lohe::{name}(a, b); }}\n")
    lines.append("\n}  // namespace lohe\n")
    return "".join(lines)


# --- definitions


def row_object(row: Row) -> str:
    return "op_" + re.sub(r"\W", "_", row.name)


def call_text(form: Form) -> str:
    row = form.row
    count = len(row.schema.params)
    args = [""] * count
    setups = []
    for slot in form.slots:
        if slot.setup:
            setups.append(f"  {slot.setup}\n")
        for position, expression in slot.pack:
            if form.method and slot.name == "self":
                expression = expression.replace("(self,", "(*this,", 1)
            args[position] = expression
    text = "".join(setups)
    packed = ", ".join(args)
    text += f"  const Arg args[] = {{{packed}}};\n" if count else ""
    span = f"Args(args, {count})" if count else "Args()"
    call = f"dispatch::call({row_object(row)}.op(), {span}"
    if form.kind == "inplace":
        return (
            text
            + f"  {call}, dispatch::Form::kInPlace);\n  return const_cast<Tensor&>({'*this' if form.method else 'self'});\n"
        )
    if form.kind == "out":
        outs = out_params(row)
        required = ", ".join(f'detail::required({o}, "{row.base}", "{o}").tensor' for o in outs)
        text += f"  TensorImpl* const outs[] = {{{required}}};\n"
        text += f"  {call}, dispatch::Form::kOut, std::span<TensorImpl* const>(outs));\n"
        return text + (f"  return {outs[0]};\n" if len(outs) == 1 else f"  return {{{', '.join(outs)}}};\n")
    if form.result == "Tensor&":
        return text + f"  {call});\n  return const_cast<Tensor&>({'*this' if form.method else 'self'});\n"
    if form.result == "void":
        return text + f"  {call});\n"
    return text + f"  return detail::results_to<{form.result}>({call}));\n"


def definition(form: Form) -> str:
    if form.method:
        head = f"{form.result} Tensor::{form.name}({arguments(form.method_slots(), False)}) const"
    else:
        scope = f"{form.namespace}::" if form.namespace else ""
        head = f"{form.result} {scope}{form.name}({free_parameters(form, False)})"
    return f"{head} {{\n{call_text(form)}}}\n"


def calls_source(forms: list[Form]) -> str:
    rows = sorted({f.row.name: f.row for f in forms}.values(), key=lambda r: r.name)
    objects = "".join(f'constinit const ops::OpRef {row_object(r)}("{r.name}");\n' for r in rows)
    lines = [
        NOTICE,
        "\n",
        '#include "dispatch/public_call.h"\n',
        '#include "lohe/functions.h"\n\n',
        "namespace lohe {\n",
    ]
    if objects:
        lines += ["namespace {\n\n", objects, "\n}  // namespace\n\n"]
    lines += [definition(form) for form in forms]
    lines.append("\n}  // namespace lohe\n")
    return "".join(lines)


def generate(forms: list[Form], source: Path) -> dict[str, str]:
    """One translation unit for each file of src/ops, whether it holds rows or not: the list of outputs then only changes
    when a file comes or goes."""
    files = {
        "lohe/functions.h": functions_header(forms),
        "lohe/tensor_methods.h": methods_header(forms),
        "lohe/operators.h": operators_header(forms),
    }
    for path in op_files(source):
        relative = path.relative_to(source / "src" / "ops")
        own = [f for f in forms if f.row.path == path.relative_to(source).as_posix()]
        files[f"calls/{relative.as_posix()}"] = calls_source(own)
    return files
