"""How parameters of the op table look in C++: declarations, and the Arg that a call packs."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from op_rows import Row
from schema import Param, Type

# Names that C++ keeps for itself.
RESERVED = {
    "self": "self",
    "default": "default_",
    "register": "register_",
    "operator": "operator_",
    "float": "float_",
    "int": "int_",
    "bool": "bool_",
    "double": "double_",
    "long": "long_",
    "char": "char_",
    "signed": "signed_",
}
PLAIN = {
    "int": "int64_t",
    "float": "double",
    "bool": "bool",
    "str": "std::string_view",
    "ScalarType": "Dtype",
    "Device": "Device",
    "Layout": "Layout",
    "MemoryFormat": "MemoryFormat",
}
MEMORY_FORMATS = ("kContiguous", "kPreserve", "kChannelsLast", "kChannelsLast3d")


@dataclass(frozen=True)
class Slot:
    """One C++ parameter. `pack` maps positions of the row's own parameters to the expression of their Arg."""

    type: str
    name: str
    default: str | None
    pack: tuple[tuple[int, str], ...]
    setup: str = ""  # a statement before the call

    def declared(self, with_default: bool) -> str:
        text = f"{self.type} {self.name}"
        return f"{text} = {self.default}" if with_default and self.default is not None else text


def cpp_name(name: str) -> str:
    return RESERVED.get(name, name)


def default_of(param: Param) -> str | None:
    text, kind = param.default, param.type
    if text is None:
        return None
    if text == "None":
        return "nullptr" if kind.base == "Generator" else "{}" if kind.base == "Tensor" else "std::nullopt"
    if text in ("True", "False"):
        return text.lower()
    if text.startswith("'"):
        return '"' + text[1:-1] + '"'
    if text.startswith("["):
        return "{" + text[1:-1] + "}"
    if kind.base == "MemoryFormat":
        return f"MemoryFormat::{MEMORY_FORMATS[int(text)]}"
    if text in ("inf", "-inf"):
        return text.replace("inf", "std::numeric_limits<double>::infinity()")
    return text


def cpp_type(kind: Type) -> str:
    if kind.is_list:
        if kind.base == "Tensor":
            return "ArrayRef<std::optional<Tensor>>" if kind.optional_elements else "TensorList"
        element = PLAIN[kind.base]
        plain = "IntArrayRef" if kind.base == "int" else f"ArrayRef<{element}>"
        optional = "OptionalIntArrayRef" if kind.base == "int" else f"OptionalArrayRef<{element}>"
        return optional if kind.optional else plain
    if kind.base == "Tensor":
        return "const Tensor&"
    if kind.base == "Scalar":
        return "const std::optional<Scalar>&" if kind.optional else "const Scalar&"
    if kind.base == "Generator":
        return "Generator*"
    plain = PLAIN[kind.base]
    return f"std::optional<{plain}>" if kind.optional else plain


def packed(op: str, param: Param) -> tuple[str, str]:
    """(statement before the call, expression of the Arg)."""
    name, kind = cpp_name(param.name), param.type
    if kind.is_list and kind.base == "Tensor":
        return f"const detail::TensorArgs {name}_args({name});", f"Arg({name}_args.span())"
    if kind.is_list and kind.list_size > 1:
        return f"const detail::Expanded<{kind.list_size}> {name}_args({name});", f"{name}_args.arg()"
    if kind.base == "Tensor" and not kind.optional:
        return "", f'detail::required({name}, "{op}", "{param.name}")'
    return "", f"detail::to_arg({name})"


def single(op: str, index: int, param: Param) -> Slot:
    setup, expression = packed(op, param)
    return Slot(cpp_type(param.type), cpp_name(param.name), default_of(param), ((index, expression),), setup)


OPTION_FIELDS = {
    "dtype": "detail::to_arg(options.dtype_opt())",
    "layout": "Arg()",
    "device": "detail::to_arg(options.device_opt())",
    "pin_memory": "Arg()",
    "requires_grad": "detail::to_arg(options.requires_grad_opt())",
}


def takes_options(row: Row) -> bool:
    names = {p.name for p in row.schema.params}
    return {"dtype", "device"} <= names


def slots_of(row: Row) -> list[Slot]:
    """The C++ parameters of a row: as in the signature, but dtype, layout, device, ... are one TensorOptions."""
    params = row.schema.params
    if not takes_options(row):
        return [single(row.base, i, p) for i, p in enumerate(params)]
    slots: list[Slot] = []
    options: list[tuple[int, str]] = []
    place = -1
    for i, p in enumerate(params):
        if p.name in OPTION_FIELDS and p.keyword_only or p.name in ("dtype", "layout", "device"):
            if place < 0:
                place = len(slots)
            expression = OPTION_FIELDS[p.name]
            if p.name == "requires_grad":
                expression = "Arg(options.requires_grad())"
            if p.name == "dtype" and not p.type.optional:
                expression = "Arg(options.dtype())"
            options.append((i, expression))
        elif p.name == "memory_format":
            options_format = f"detail::to_arg({p.name}.has_value() ? {p.name} : options.memory_format_opt())"
            slots.append(Slot("std::optional<MemoryFormat>", p.name, "std::nullopt", ((i, options_format),)))
        else:
            slots.append(single(row.base, i, p))
    required = any(params[i].default is None for i, _ in options)
    slots.insert(place, Slot("const TensorOptions&", "options", None if required else "{}", tuple(options)))
    return slots


def number_slot(op: str, index: int, param: Param) -> Slot:
    name = cpp_name(param.name)
    return Slot("const Scalar&", name, None, ((index, f"Arg({name})"),))


def variants(row: Row) -> list[list[Slot]]:
    """The parameter lists under which a row can be called, the signature's own first.

    In a pointwise row, and in other overloads of its name, a number may stand for a tensor operand. A generator before the options may be left out.
    """
    slots = slots_of(row)
    result = [slots]
    params = row.schema.params
    names = [s.name for s in slots]
    if takes_options(row) and "generator" in names and names.index("generator") < names.index("options"):
        at = names.index("generator")
        generator = params[slots[at].pack[0][0]]
        without = [Slot(s.type, s.name, s.default, s.pack) for s in slots]
        missing = (slots[at].pack[0][0], "Arg()")
        options = names.index("options")
        without[options] = Slot(
            slots[options].type, "options", slots[options].default, (*slots[options].pack, missing)
        )
        del without[at]
        required = Slot(slots[at].type, slots[at].name, None, slots[at].pack)
        return [without, [*slots[:at], required, *slots[at + 1 :]]] if generator.default is not None else result
    if not row.takes_numbers or row.schema.mutates:
        return result
    bounds = [i for i, p in enumerate(params) if p.type.base == "Tensor" and p.type.optional and not p.type.is_list]
    if bounds and bounds == list(range(1, len(params))) and len(slots) == len(params):
        # clamp(x, -1, 1): all numbers; the first has no default, so that a call without any has one meaning.
        numbers = [
            Slot("const std::optional<Scalar>&", cpp_name(params[i].name), None if i == 1 else "std::nullopt",
                 ((i, f"detail::to_arg({cpp_name(params[i].name)})"),))
            for i in bounds
        ]  # fmt: skip
        result.append([slots[0], *numbers])
    operands = [
        i for i, p in enumerate(params) if p.type.base == "Tensor" and not p.type.is_list and not p.type.optional
    ]
    if not 2 <= len(operands) <= 3 or len(slots) != len(params):
        return result
    if any(params[i].default is not None for i in operands):
        return result
    free = operands if len(operands) == 2 else operands[1:]
    for choice in product((False, True), repeat=len(free)):
        numbers = {i for i, is_number in zip(free, choice) if is_number}
        if numbers and len(numbers) < len(operands):
            result.append([number_slot(row.base, i, params[i]) if i in numbers else s for i, s in enumerate(slots)])
    return result


def result_type(row: Row) -> str:
    returns = row.schema.returns
    names = [return_type(r.type) for r in returns]
    if not names:
        return "void"
    return names[0] if len(names) == 1 else f"std::tuple<{', '.join(names)}>"


def return_type(kind: Type) -> str:
    if kind.is_list:
        return "std::vector<Tensor>"
    return {"Tensor": "Tensor", "Scalar": "Scalar"}.get(kind.base) or PLAIN[kind.base]
