"""Types of the Python sources that tools/gen/nn_to_cpp.py translates, and what they are in C++."""

from __future__ import annotations

import ast


class Unsupported(Exception):
    """Something that has no translation; the message says what, with its line."""


class Skipped(Exception):
    """A class or function that is not translated, with the reason."""


ANNOTATIONS = {
    "Tensor": "Tensor",
    "int": "int",
    "float": "float",
    "bool": "bool",
    "str": "str",
    "lohe.Generator": "Generator",
    "tuple[int, ...]": "ints",
    "list[int]": "ints",
    "Sequence[int]": "ints",
    "int | list[int]": "ints",
    "tuple[int, int]": "pair",
    "tuple[Tensor, Tensor]": "tensors",
    "tuple[Tensor, Tensor | None]": "tensors",
    "tuple[Tensor, Tensor, Tensor]": "triple",
    "tuple[Tensor, tuple[Tensor, Tensor]]": "nested",
    "list[Tensor]": "list",
    "list[float]": "floats",
    "Iterable[int]": "ints",
    "Module": "any_module",
    "str | Callable[[Tensor], Tensor]": "activation",
    "_size_any_opt_t": "optional_ints",
    "None": "void",
}
# Layers by the name of their class, `module:Linear`; nn_modules.py fills it.
MODULES: set[str] = set()
ANNOTATIONS |= {f"_size_{n}_t": "ints" for n in (1, 2, 3, 4, 5, 6, "any")}
# Convolutions take ints in C++; "same" and "valid" are Python's.
ANNOTATIONS |= {f"str | _size_{n}_t": "ints" for n in (1, 2, 3)} | {"str | tuple[int, ...]": "ints"}
ANNOTATIONS |= {"lohe.dtype": "dtype"}
# Type -> (parameter, field). A trailing `?` marks what may be None; an undefined Tensor, a null Generator and an empty
# module stand for None.
CPP = {
    "Tensor": ("const Tensor&", "Tensor"),
    "int": ("int64_t", "int64_t"),
    "float": ("double", "double"),
    "bool": ("bool", "bool"),
    "str": ("std::string_view", "std::string"),
    "ints": ("IntArrayRef", "IntList"),
    "Generator": ("Generator*", "Generator*"),
    "pair": ("std::pair<int64_t, int64_t>", "std::pair<int64_t, int64_t>"),
    "tensors": ("std::tuple<Tensor, Tensor>", "std::tuple<Tensor, Tensor>"),
    "triple": ("std::tuple<Tensor, Tensor, Tensor>", "std::tuple<Tensor, Tensor, Tensor>"),
    "quadruple": ("std::tuple<Tensor, Tensor, Tensor, Tensor>", "std::tuple<Tensor, Tensor, Tensor, Tensor>"),
    "nested": ("std::tuple<Tensor, std::tuple<Tensor, Tensor>>", "std::tuple<Tensor, std::tuple<Tensor, Tensor>>"),
    "list": ("const std::vector<Tensor>&", "std::vector<Tensor>"),
    "floats": ("const std::vector<double>&", "std::vector<double>"),
    "function": ("const std::function<double(int64_t)>&", "std::function<double(int64_t)>"),
    "functions": (
        "const std::vector<std::function<double(int64_t)>>&",
        "std::vector<std::function<double(int64_t)>>",
    ),
    "any_module": ("const AnyModule&", "AnyModule"),
    "activation": ("const Activation&", "Activation"),
    "optional_ints": ("const OptionalIntList&", "OptionalIntList"),
    "void": ("void", "void"),
    "dtype": ("Dtype", "Dtype"),
}
NULLABLE = ("Tensor", "Generator", "any_module")


def of_annotation(node: ast.expr | None, where: str) -> str:
    if node is None:
        raise Unsupported(f"{where} has no annotation")
    text = ast.unparse(node)
    parts = [p.strip() for p in text.split(" | ")]
    optional = "None" in parts and len(parts) > 1
    parts = [p for p in parts if p != "None"] or ["None"]
    parts = [" | ".join(parts)] if " | ".join(parts) in ANNOTATIONS else parts
    if len(parts) == 1 and parts[0] in MODULES and not optional:
        return f"module:{parts[0]}"
    if len(parts) != 1 or parts[0] not in ANNOTATIONS:
        raise Unsupported(f"{where} is annotated {text}")
    return ANNOTATIONS[parts[0]] + ("?" if optional else "")


def parameter(kind: str) -> str:
    base = kind.rstrip("?")
    if base.startswith("module:"):
        return f"const {base[7:]}&"
    return (
        CPP[base][0]
        if kind == base or base in NULLABLE
        else f"std::optional<{CPP[base][1 if base == 'ints' else 0]}>"
    )


def field(kind: str) -> str:
    base = kind.rstrip("?")
    if base.startswith("module:"):
        return base[7:]
    if base.startswith("modules:"):
        return "ModuleList"
    return CPP[base][1] if kind == base or base in NULLABLE else f"std::optional<{CPP[base][1]}>"


def option(kind: str) -> str:
    """The type of an option that a setter takes, which a braced list can be given to."""
    return "OptionalInts" if kind == "ints?" else field(kind)


def none_of(kind: str) -> str:
    return {"Tensor": "Tensor()", "Generator": "nullptr", "any_module": "AnyModule()"}.get(kind.rstrip("?"), "std::nullopt")


def coerce(code: str, have: str, want: str) -> str | None:
    """`code` of type `have` where `want` is taken; None where it is not."""
    if have == want:
        return code
    base, target = have.rstrip("?"), want.rstrip("?")
    if have == "none":
        return none_of(want) if want.endswith("?") else None
    if base == target and (want.endswith("?") or base in NULLABLE):
        return code
    if have == "int" and target == "float":
        return f"static_cast<double>({code})"
    if have in ("int", "float", "bool") and target == "Scalar":
        return f"Scalar({code})"
    if have == "ints" and want == "ints?":
        return code
    if have == "str" and want == "str":
        return code
    if have == "int" and target == "ints":
        return f"IntArrayRef(int64_t{{{code}}})"
    if have in ("int", "ints") and want == "optional_ints":
        return f"OptionalIntList({code})"
    if have.startswith("module:") and target == "any_module":
        return f"AnyModule({code})"
    if have == "str" and want == "activation":
        return f"Activation({code})"
    if have == "list" and target in ("tensors", "triple"):
        return f"detail::as_tuple<{2 if target == 'tensors' else 3}>({code})"
    return None
