"""C++ layers from the Python sources: python/lohe/nn/modules, nn/_functional and nn/init.py by way of `ast`.

The sources are written in a restrained style; what has no translation here (or calls an op that has no row) is left out
whole, and the generated page docs/api/nn_cpp.md names it with its reason.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import cpp_api
import cpp_types
import nn_helpers
import py_types
from nn_lists import ELEMENT, WHOLE, ListBody
from op_rows import Row
from py_types import Unsupported

ERRORS = {
    "ValueError": "kValue",
    "TypeError": "kType",
    "RuntimeError": "kRuntime",
    "NotImplementedError": "kNotImplemented",
    "AssertionError": "kRuntime",
}
MATH = {"cos": "std::cos", "sqrt": "std::sqrt", "erf": "std::erf", "log": "std::log", "exp": "std::exp"}
BINARY = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*"}
COMPARE = {ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
SIZES = (
    "kernel_size",
    "stride",
    "padding",
    "dilation",
    "output_size",
    "pad",
)  # typed Any where one int or several serve
LEGACY = (
    "size_average",
    "reduce",
    "device",
    "dtype",
    "return_indices",
    "custom_encoder",
    "custom_decoder",
    "out",  # C++ has no such form of a layer's function
)  # parameters that C++ does not have: always None, or False
DTYPES = {"bool": "Bool", "float32": "Float32", "float64": "Float64", "int64": "Int64", "long": "Int64"}
TYPE_OF_CPP = {
    "const Tensor&": "Tensor",
    "int64_t": "int",
    "double": "float",
    "bool": "bool",
    "std::string_view": "str",
    "IntArrayRef": "ints",
    "Generator*": "Generator?",
    "const Scalar&": "Scalar",
    "OptionalIntArrayRef": "ints?",
    "Dtype": "dtype",
    "TensorList": "list",
}
RESULTS = {
    "Tensor": "Tensor",
    "Tensor&": "Tensor",
    "std::vector<Tensor>": "list",
    "std::tuple<Tensor, Tensor>": "tensors",
    "std::tuple<Tensor, Tensor, Tensor>": "triple",
    "std::tuple<Tensor, Tensor, Tensor, Tensor>": "quadruple",
}
# Methods of tensors that are no ops, with what they give.
QUERIES = {
    "dim": "int",
    "ndimension": "int",
    "numel": "int",
    "is_floating_point": "bool",
    "is_complex": "bool",
}


def slot_type(slot: cpp_types.Slot) -> str:
    text = slot.type
    if text.startswith("std::optional<"):
        return TYPE_OF_CPP.get(text[14:-1], text) + "?"
    kind = TYPE_OF_CPP.get(text, text)
    return kind + "?" if kind == "Tensor" and slot.default is not None else kind


class Signature:
    """A translated function: its C++ name and parameters (name, type, C++ default)."""

    def __init__(self, cpp: str, params: list[tuple[str, str, str | None]], result: str, names: list[str]) -> None:
        self.cpp, self.params, self.result = cpp, params, result
        self.names = names  # of all Python parameters in order, those that C++ does not have included

    def declared(self, defaults: bool) -> str:
        return ", ".join(
            ("" if defaults else "[[maybe_unused]] ")
            + f"{py_types.parameter(t)} {cpp_types.cpp_name(n)}"
            + (f" = {d}" if defaults and d is not None else "")
            for n, t, d in self.params
        )


class Library:
    """Everything that calls may name: rows, functions of nn.functional and of nn.init, translated when first needed."""

    def __init__(self, source: Path, rows: list[Row], forms: list[cpp_api.Form]) -> None:
        self.forms: dict[str, list[cpp_api.Form]] = {}
        for form in forms:
            if form.kind != "out":
                self.forms.setdefault(form.name if form.kind == "inplace" else form.row.base, []).append(form)
        self.sources: dict[tuple[str, str], ast.stmt] = {}
        self.constants: dict[str, ast.Tuple] = {}  # tuples of constants, by name
        folder = source / "python" / "lohe" / "nn"
        for space, paths in (
            ("functional", sorted((folder / "_functional").glob("*.py"))),
            ("init", [folder / "init.py"]),
        ):
            for path in paths:
                for node in ast.parse(path.read_text()).body:
                    if isinstance(node, ast.FunctionDef):
                        self.sources[space, node.name] = node
                    elif (
                        isinstance(node, ast.Assign)
                        and isinstance(node.value, ast.Tuple)
                        and isinstance(node.targets[0], ast.Name)
                    ):
                        self.constants[node.targets[0].id] = node.value
                    elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                        self.sources[space, node.targets[0].id] = node
        for path in sorted((folder / "modules").glob("*.py")):
            for node in ast.parse(path.read_text()).body:
                if (
                    isinstance(node, ast.Assign)
                    and isinstance(node.value, ast.Tuple)
                    and isinstance(node.targets[0], ast.Name)
                ):
                    self.constants.setdefault(node.targets[0].id, node.value)
                if isinstance(node, ast.FunctionDef) and node.name.startswith("_"):
                    self.sources.setdefault(("functional", node.name), node)
        self.layer_fields: Callable[[str], dict[str, str]] = {}.__getitem__  # of a layer by its name; nn_modules.py knows
        self.signatures: dict[tuple[str, str], Signature | Unsupported] = {}
        self.declarations: dict[str, list[str]] = {"functional": [], "init": []}
        self.bodies: dict[str, list[str]] = {"functional": [], "init": []}

    def function(self, space: str, name: str) -> Signature | str:
        """The signature of a translated function, or the row that the name stands for. @raises Unsupported."""
        node = self.sources.get((space, name))
        if node is None:
            raise Unsupported(f"nn.{space} has no {name}")
        if isinstance(node, ast.Assign):
            value = node.value
            if isinstance(value, ast.Attribute) and ast.unparse(value.value) in ("ops", "lohe"):
                return value.attr
            raise Unsupported(f"nn.{space}.{name} is {ast.unparse(value)}")
        assert isinstance(node, ast.FunctionDef)
        if (space, name) not in self.signatures:
            try:
                self.signatures[space, name] = Unsupported(f"nn.{space}.{name} calls itself")
                self.signatures[space, name] = self.translate(space, node)
            except Unsupported as error:
                self.signatures[space, name] = Unsupported(f"nn.{space}.{name}, line {node.lineno}: {error}")
        found = self.signatures[space, name]
        if isinstance(found, Unsupported):
            raise found
        return found

    def translate(self, space: str, node: ast.FunctionDef) -> Signature:
        params, scope, _ = parameters_of(node.args, skip_self=False)
        result = result_of(node)
        signature = Signature(f"nn::{space}::{node.name}", params, result, names_of(node.args))
        prologue = copies(node, params, scope)
        body = Body(self, scope, {}, space, result)
        guards = [ast.unparse(d) for d in node.decorator_list]
        if any(g != "lohe.no_grad()" for g in guards):
            raise Unsupported(f"decorator {guards}")
        text = ("  const NoGradGuard no_grad;\n" if guards else "") + prologue + body.block(node.body)
        kind = py_types.field(result)
        doc = (ast.get_docstring(node) or "").splitlines()
        self.declarations[space].append(
            (f"/// {doc[0]}\n" if doc else "") + f"LOHE_API {kind} {node.name}({signature.declared(True)});\n"
        )
        self.bodies[space].append(f"{kind} {space}::{node.name}({signature.declared(False)}) {{\n{text}}}\n")
        return signature


def copies(
    node: ast.FunctionDef, params: list[tuple[str, str, str | None]], scope: dict[str, tuple[str, str]]
) -> str:
    """Parameters that are borrowed but assigned to become variables."""
    assigned = {
        ast.unparse(e)
        for s in ast.walk(node)
        if isinstance(s, ast.Assign)
        for t in s.targets
        for e in (t.elts if isinstance(t, ast.Tuple) else [t])
    }
    text = ""
    for name, kind, _ in params:
        if name in assigned and kind.rstrip("?") in ("Tensor", "str", "ints"):
            text += f"  {py_types.field(kind)} {name}_value({scope[name][0]});\n"
            scope[name] = (f"{name}_value", kind)
    return text


def result_of(node: ast.FunctionDef) -> str:
    """What a function gives; Any stands for a tensor where indices are left out."""
    if ast.unparse(node.returns or ast.Constant(0)) == "Any":
        return "Tensor"
    return py_types.of_annotation(node.returns, f"the result of {node.name}")


def names_of(args: ast.arguments) -> list[str]:
    return [a.arg for a in [*args.posonlyargs, *args.args, *args.kwonlyargs] if a.arg != "self"]


def parameters_of(
    args: ast.arguments, skip_self: bool
) -> tuple[list[tuple[str, str, str | None]], dict[str, tuple[str, str]], set[str]]:
    """Parameters, the scope that they make, and the names that are always None."""
    if args.vararg or args.kwarg:
        raise Unsupported("takes *args or **kwargs")
    positional = (args.posonlyargs + args.args)[1 if skip_self else 0 :]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(args.defaults)) + list(args.defaults)
    pairs = [*zip(positional, defaults), *zip(args.kwonlyargs, args.kw_defaults)]
    params: list[tuple[str, str, str | None]] = []
    scope: dict[str, tuple[str, str]] = {}
    absent = set()
    for arg, default in pairs:
        chosen = arg.arg == "dtype" and "lohe.dtype" in ast.unparse(arg.annotation or ast.Constant(0))
        if (arg.arg in LEGACY or arg.arg.startswith("_")) and not chosen:
            if default is None and arg.annotation is not None:
                scope[arg.arg] = ("", "none")
            else:
                scope[arg.arg] = Body(None, {}, {}, "").expression(default) if default is not None else ("", "none")
            absent.add(arg.arg)
            continue
        if ast.unparse(arg.annotation or ast.Constant(0)) == "Any" and arg.arg in SIZES:
            kind = "ints?" if isinstance(default, ast.Constant) and default.value is None else "ints"
        else:
            kind = py_types.of_annotation(arg.annotation, f"parameter {arg.arg}")
        text = None
        if default is not None:
            code, have = Body(None, {}, {}, "").expression(default)
            text = py_types.coerce(code, have, kind)
            if text is None:
                raise Unsupported(f"default {ast.unparse(default)} of {arg.arg}")
        params.append((arg.arg, kind, text))
        scope[arg.arg] = (cpp_types.cpp_name(arg.arg), kind)
    return params, scope, absent


class Body(ListBody):
    """Statements and expressions in one scope: names -> (C++ text, type)."""

    def __init__(
        self,
        library: Library | None,
        scope: dict[str, tuple[str, str]],
        fields: dict[str, str],
        space: str,
        result: str = "",
    ) -> None:
        self.library, self.scope, self.fields, self.space, self.result = library, dict(scope), fields, space, result

    def fail(self, node: ast.AST, what: str) -> Unsupported:
        return Unsupported(f"{what}: {ast.unparse(node).splitlines()[0]} (line {getattr(node, 'lineno', 0)})")

    # --- expressions

    def expression(self, node: ast.expr) -> tuple[str, str]:
        handler = getattr(self, "on_" + type(node).__name__.lower(), None)
        if handler is None:
            raise self.fail(node, type(node).__name__)
        return handler(node)

    def as_type(self, node: ast.expr, want: str) -> str:
        literal = self.list_literal(node, want)
        if literal is not None:
            return literal
        code, have = self.expression(node)
        text = py_types.coerce(code, have, want)
        if text is None:
            raise self.fail(node, f"{have} where {want} is taken")
        return text

    def on_constant(self, node: ast.Constant) -> tuple[str, str]:
        value = node.value
        if value is None:
            return "", "none"
        if isinstance(value, bool):
            return str(value).lower(), "bool"
        if isinstance(value, int):
            return f"int64_t{{{value}}}", "int"
        if isinstance(value, float):
            return repr(value), "float"
        if isinstance(value, str):
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"', "str"
        raise self.fail(node, "constant")

    def on_name(self, node: ast.Name) -> tuple[str, str]:
        if node.id not in self.scope:
            raise self.fail(node, "unknown name")
        return self.scope[node.id]

    def on_attribute(self, node: ast.Attribute) -> tuple[str, str]:
        text = ast.unparse(node)
        if text in self.scope:
            return self.scope[text]
        if text.startswith("ops."):
            return node.attr, "op"
        if text == "math.pi":
            return "3.141592653589793", "float"
        if text in ("F.relu", "F.gelu"):
            return f'Activation("{text[2:]}")', "activation"
        if text.startswith("lohe.") and node.attr in DTYPES:
            return f"k{DTYPES[node.attr]}", "dtype"
        if text == "self.training":
            return "is_training()", "bool"
        if isinstance(node.value, ast.Name) and node.value.id == "self" and node.attr in self.fields:
            return f"this->{node.attr}", self.fields[node.attr]
        if not text.startswith(("self.", "lohe.", "F.", "init.", "math.")) or text.count(".") > 1:
            code, kind = self.expression(node.value)
            if kind.rstrip("?") == "Tensor" and node.attr == "shape":
                return f"IntList({code}.sizes())", "ints"
            if kind.rstrip("?") == "Tensor" and node.attr == "dtype":
                return f"{code}.dtype()", "dtype"
            if kind.rstrip("?") == "Tensor" and node.attr == "device":
                return "", "none"  # there is one
            if kind.startswith("module:"):
                assert self.library is not None
                return f"{code}->{node.attr}", self.library.layer_fields(kind[7:])[node.attr]
        raise self.fail(node, "unknown attribute")

    def on_unaryop(self, node: ast.UnaryOp) -> tuple[str, str]:
        code, kind = self.expression(node.operand)
        if isinstance(node.op, ast.Not) and kind == "bool":
            return ({"true": "false", "false": "true"}.get(code) or f"!({code})"), "bool"
        if isinstance(node.op, ast.USub) and kind in ("int", "float", "Tensor"):
            return f"-{code}", kind
        raise self.fail(node, "operator")

    def on_binop(self, node: ast.BinOp) -> tuple[str, str]:
        if isinstance(node.op, ast.Mult) and isinstance(node.left, ast.Tuple) and len(node.left.elts) == 1:
            return f"detail::repeated({self.as_type(node.left, 'ints')}, {self.as_type(node.right, 'int')})", "ints"
        (a, left), (b, right) = self.expression(node.left), self.expression(node.right)
        numbers = {left, right} <= {"int", "float"}
        if left == right == "str" and isinstance(node.op, ast.Add):
            return f"lohe::detail::concat({a}, {b})", "str"
        symbol = BINARY.get(type(node.op))
        if "Tensor" in (left, right) and {left, right} <= {"Tensor", "int", "float"}:
            symbol = symbol or ("/" if isinstance(node.op, ast.Div) else None)
            if symbol:
                return f"({a} {symbol} {b})", "Tensor"
        if numbers and symbol:
            return f"({a} {symbol} {b})", "int" if left == right == "int" else "float"
        if numbers and isinstance(node.op, ast.Div):
            return f"(static_cast<double>({a}) / static_cast<double>({b}))", "float"
        if numbers and isinstance(node.op, ast.Pow):
            return f"std::pow(static_cast<double>({a}), static_cast<double>({b}))", "float"
        if left == right == "int" and isinstance(node.op, ast.FloorDiv | ast.Mod):
            return f"detail::{'floor_div' if isinstance(node.op, ast.FloorDiv) else 'floor_mod'}({a}, {b})", "int"
        raise self.fail(node, f"operator on {left} and {right}")

    def on_boolop(self, node: ast.BoolOp) -> tuple[str, str]:
        stop, symbol = ("true", " || ") if isinstance(node.op, ast.Or) else ("false", " && ")
        parts = []
        outer, self.scope = self.scope, dict(self.scope)  # what one operand says holds for those behind it
        try:
            for value in node.values:
                code = self.as_type(value, "bool")
                if code == stop and not parts:
                    return stop, "bool"
                if code not in ("true", "false") or code == stop:
                    parts.append(code)
                for name, narrowed in self.narrowing(value).get(isinstance(node.op, ast.And), {}).items():
                    self.scope[name] = narrowed
        finally:
            self.scope = outer
        return (f"({symbol.join(parts)})" if parts else "false" if stop == "true" else "true"), "bool"

    def on_compare(self, node: ast.Compare) -> tuple[str, str]:
        terms = [node.left, *node.comparators]
        parts = []
        for op, x, y in zip(node.ops, terms, terms[1:]):
            if isinstance(y, ast.Name) and self.library is not None and y.id in self.library.constants:
                y = self.library.constants[y.id]
            if isinstance(op, ast.Is | ast.IsNot) and isinstance(y, ast.Constant) and y.value is None:
                code, kind = self.expression(x)
                there = (
                    "false"
                    if kind == "none"
                    else (
                        f"{code}.defined()"
                        if kind.startswith("Tensor")
                        else f"({code} != nullptr)"
                        if kind == "Generator?"
                        else f"!{code}.is_empty()"
                        if kind == "any_module?"
                        else f"{code}.has_value()"
                        if kind.endswith("?")
                        else "true"
                    )
                )
                flipped = {"true": "false", "false": "true"}.get(there) or f"!{there}".removeprefix("!!")
                parts.append(there if isinstance(op, ast.IsNot) else flipped)
            elif isinstance(op, ast.Is | ast.IsNot) and isinstance(y, ast.Constant) and isinstance(y.value, bool):
                code = self.as_type(x, "bool")
                parts.append(code if y.value == isinstance(op, ast.Is) else f"!{code}")
            elif isinstance(op, ast.Is | ast.IsNot) and self.expression(y)[1] == "Tensor":
                code = f"{self.as_type(x, 'Tensor')}.is_same({self.as_type(y, 'Tensor')})"
                parts.append(code if isinstance(op, ast.Is) else f"!{code}")
            elif (
                isinstance(op, ast.In)
                and ast.unparse(y).endswith(".shape")
                and isinstance(x, ast.Constant)
                and x.value == 0
            ):
                parts.append(f"({self.as_type(y.value, 'Tensor')}.numel() == 0)")  # type: ignore[attr-defined]
            elif isinstance(op, ast.In | ast.NotIn) and isinstance(y, ast.Tuple | ast.List):
                code, kind = self.expression(x)
                tests = " || ".join(f"{code} == {self.as_type(e, kind)}" for e in y.elts)
                parts.append(f"({tests})" if isinstance(op, ast.In) else f"!({tests})")
            elif type(op) in COMPARE:
                (a, left), (b, right) = self.expression(x), self.expression(y)
                if left == right == "ints":
                    a, b = f"IntList({a})", f"IntList({b})"
                elif left == right == "Tensor" and isinstance(op, ast.Eq) and len(terms) == 2:
                    return f"lohe::eq({a}, {b})", "Tensor"
                elif left.rstrip("?") == right.rstrip("?") == "dtype":
                    pass
                elif not ({left, right} <= {"int", "float"} or left == right and left in ("str", "bool")):
                    raise self.fail(node, f"comparison of {left} and {right}")
                parts.append(f"{a} {COMPARE[type(op)]} {b}")
            else:
                raise self.fail(node, "comparison")
        return (parts[0] if len(parts) == 1 else "(" + " && ".join(parts) + ")"), "bool"

    def narrowing(self, test: ast.expr) -> dict[bool, dict[str, tuple[str, str]]]:
        """What a name is where `test` holds (True) or does not (False), after a comparison with None."""
        if isinstance(test, ast.BoolOp):
            holds = isinstance(test.op, ast.And)
            return {holds: {k: v for part in test.values for k, v in self.narrowing(part).get(holds, {}).items()}}
        if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Is | ast.IsNot):
            name = ast.unparse(test.left)
            try:
                code, kind = self.expression(test.left)
            except Unsupported:
                return {}
            if kind.endswith("?"):
                inner = kind[:-1]
                return {
                    isinstance(test.ops[0], ast.IsNot): {
                        name: (code if inner in py_types.NULLABLE else f"(*{code})", inner)
                    }
                }
        return {}

    def branch(self, test: ast.expr, holds: bool) -> Body:
        return Body(
            self.library, {**self.scope, **self.narrowing(test).get(holds, {})}, self.fields, self.space, self.result
        )

    def on_ifexp(self, node: ast.IfExp) -> tuple[str, str]:
        several = self.list_ifexp(node)
        if several is not None:
            return several
        test = self.as_type(node.test, "bool")
        if test in ("true", "false"):
            return self.expression(node.body if test == "true" else node.orelse)
        if isinstance(node.orelse, ast.Constant) and node.orelse.value is None:
            code, kind = self.branch(node.test, True).expression(node.body)
            if kind.rstrip("?") == "Tensor":
                return f"({test} ? {code} : Tensor())", "Tensor?"
        a, left = self.branch(node.test, True).expression(node.body)
        b, right = self.branch(node.test, False).expression(node.orelse)
        if "none" in (left, right) and left != right:
            kind = (right if left == "none" else left).rstrip("?") + "?"
            texts = [py_types.coerce(c, k, kind) for c, k in ((a, left), (b, right))]
            if kind.rstrip("?") not in py_types.NULLABLE:
                texts = [f"{py_types.field(kind)}({t})" for t in texts]
            return f"({test} ? {texts[0]} : {texts[1]})", kind
        if {left, right} == {"Tensor", "Tensor?"}:
            left = right = "Tensor?"
        kind = left if left == right else "float" if {left, right} == {"int", "float"} else ""
        if not kind:
            raise self.fail(node, f"branches of {left} and {right}")
        if kind == "ints":
            a, b = f"IntList({a})", f"IntList({b})"
        if kind == "float":
            a, b = py_types.coerce(a, left, "float") or a, py_types.coerce(b, right, "float") or b
        if kind == "str":
            a, b = f"std::string({a})", f"std::string({b})"
        return f"({test} ? {a} : {b})", kind

    def on_tuple(self, node: ast.Tuple | ast.List) -> tuple[str, str]:
        if any(isinstance(e, ast.Starred) for e in node.elts):
            parts = [
                f"IntList({self.as_type(e.value, 'ints')})"
                if isinstance(e, ast.Starred)
                else f"IntList({self.as_type(e, 'int')})"
                for e in node.elts
            ]
            return f"detail::joined({{{', '.join(parts)}}})", "ints"
        return f"IntList{{{', '.join(self.as_type(e, 'int') for e in node.elts)}}}", "ints"

    on_list = on_tuple

    def on_subscript(self, node: ast.Subscript) -> tuple[str, str]:
        if self.expression(node.value)[1].rstrip("?") == "Tensor" and not isinstance(node.slice, ast.Slice):
            return f"{self.expression(node.value)[0]}[{self.as_type(node.slice, 'int')}]", "Tensor"
        found = self.element(node)
        if found is None:
            raise self.fail(node, "subscript")
        return found

    def on_joinedstr(self, node: ast.JoinedStr) -> tuple[str, str]:
        parts = []
        for value in node.values:
            if isinstance(value, ast.Constant):
                parts.append(self.on_constant(value)[0])
            elif (
                isinstance(value, ast.FormattedValue) and value.conversion in (-1, 114) and value.format_spec is None
            ):
                code, kind = self.expression(value.value)
                quoted = value.conversion == 114 and kind == "str"
                parts.append(f"detail::python_{'repr' if quoted else 'text'}({code})")
            else:
                raise self.fail(node, "formatting")
        return f"lohe::detail::concat({', '.join(parts)})", "str"

    # --- calls

    def on_call(self, node: ast.Call) -> tuple[str, str]:
        if (
            self.library is None
            or any(k.arg is None for k in node.keywords)
            or any(isinstance(a, ast.Starred) for a in node.args)
        ):
            raise self.fail(node, "call")
        text = ast.unparse(node.func)
        head, _, name = text.rpartition(".")
        if text == "isinstance" and len(node.args) == 2:
            return self.is_instance(node)
        if text in WHOLE and len(node.args) == 1 and not node.keywords:
            return self.whole_list(text, node.args[0])
        helped = nn_helpers.call(self, text, node)
        if helped is not None:
            return helped
        if text in self.scope and self.scope[text][1] == "op":
            return self.call_row(node, self.scope[text][0], None)
        if text in ("float", "int") and len(node.args) == 1:
            code, kind = self.expression(node.args[0])
            if kind == "Tensor":
                return f"{code}.item<{'double' if text == 'float' else 'int64_t'}>()", text
            if kind in ("int", "float", "bool"):
                return f"static_cast<{'double' if text == 'float' else 'int64_t'}>({code})", text
        if head == "math" and name in MATH:
            return f"{MATH[name]}({self.as_type(node.args[0], 'float')})", "float"
        if head in ("F", "init") or not head:
            space = {"F": "functional", "init": "init"}.get(head, self.space)
            if (space, name) not in self.library.sources and ("init", name) in self.library.sources:
                space = "init"
            found = self.library.function(space, name)
            return self.call_row(node, found, None) if isinstance(found, str) else self.call_function(node, found)
        if head in ("ops", "lohe"):
            return self.call_row(node, name, None)
        code, kind = self.expression(node.func.value) if isinstance(node.func, ast.Attribute) else ("", "")
        if kind == "str" and name == "lower" and not node.args:
            return f"detail::lower({code})", "str"
        if kind.rstrip("?") == "Tensor":
            if name in QUERIES:
                return f"{code}.{name}()", QUERIES[name]
            if name == "size" and not node.args:
                return f"IntList({code}.sizes())", "ints"
            if name == "size" and len(node.args) == 1:
                return f"{code}.size({self.as_type(node.args[0], 'int')})", "int"
            return self.call_row(node, name, code)
        raise self.fail(node, "call")

    def is_instance(self, node: ast.Call) -> tuple[str, str]:
        """Types are known, so the answer is too."""
        kind = self.expression(node.args[0])[1]
        asked = node.args[1]
        names = [ast.unparse(e) for e in (asked.elts if isinstance(asked, ast.Tuple) else [asked])]
        python = {"ints": {"tuple", "list"}, "Tensor": {"Tensor", "lohe.Tensor"}}.get(kind, {kind})
        known = {"int", "float", "bool", "str", "tuple", "list", "Tensor", "lohe.Tensor", "numbers.Integral"}
        if kind.endswith("?") or kind == "none" or not set(names) <= known:
            raise self.fail(node, f"isinstance of {kind}")
        return ("true" if python & set(names) else "false"), "bool"

    def call_function(self, node: ast.Call, callee: Signature) -> tuple[str, str]:
        given = self.bound(node, callee.names)
        for name in set(given) - {n for n, _, _ in callee.params}:
            code, kind = self.expression(given[name])
            if not name.startswith("_") and kind != "none" and code != "false":
                raise self.fail(node, f"{name} is given")
        texts = []
        for name, kind, default in callee.params:
            if name in given:
                texts.append(self.as_type(given.pop(name), kind))
            elif default is not None:
                texts.append(default)
            else:
                raise self.fail(node, f"missing argument {name}")
        return f"{callee.cpp}({', '.join(texts)})", callee.result

    def bound(self, node: ast.Call, names: list[str]) -> dict[str, ast.expr]:
        given = dict(zip(names, node.args))
        if len(node.args) > len(names):
            raise self.fail(node, "too many arguments")
        for keyword in node.keywords:
            assert keyword.arg is not None
            if keyword.arg not in names or keyword.arg in given:
                if self.expression(keyword.value)[1] == "none":
                    continue
                raise self.fail(node, f"no parameter {keyword.arg}")
            given[keyword.arg] = keyword.value
        return {n: e for n, e in given.items()}

    def call_row(self, node: ast.Call, name: str, object_text: str | None) -> tuple[str, str]:
        assert self.library is not None
        forms = self.library.forms.get(name, [])
        if not forms:
            raise Unsupported(f"the op {name} has no row (line {node.lineno})")
        reasons = []
        for form in forms:
            try:
                if (object_text is not None) == form.method or (object_text is None and form.function):
                    return self.call_form(node, form, object_text)
            except Unsupported as error:
                reasons.append(str(error))
        raise Unsupported(reasons[0] if reasons else f"the op {name} has no such form (line {node.lineno})")

    def call_form(self, node: ast.Call, form: cpp_api.Form, object_text: str | None) -> tuple[str, str]:
        slots = form.method_slots() if object_text is not None else form.free_slots()
        names = [s.name for s in slots if s.name != "options"]
        options = {}
        if len(names) < len(slots):
            options = {k.arg: self.expression(k.value) for k in node.keywords if k.arg in ("dtype", "device")}
            node = ast.copy_location(
                ast.Call(node.func, node.args, [k for k in node.keywords if k.arg not in options]), node
            )
        several = object_text is not None and len(node.args) > 1 and slots and slots[0].type == "IntArrayRef"
        if several and not any(self.expression(a)[1] != "int" for a in node.args):  # x.view(2, 3)
            sizes = ast.copy_location(ast.Tuple(node.args, ast.Load()), node)
            node = ast.copy_location(ast.Call(node.func, [sizes], node.keywords), node)
        given = self.bound(node, names)
        texts: list[str] = []
        for slot in slots:
            if slot.name == "options" and options.get("dtype", ("", "none"))[1] != "none":
                code, kind = options["dtype"]
                texts.append(f"TensorOptions().dtype({py_types.coerce(code, kind, 'dtype?')})")
            elif slot.name in given:
                texts.append(self.as_type(given[slot.name], slot_type(slot)))
            elif slot.default is not None:
                texts.append(
                    f"{py_types.CPP['ints'][0]}{{}}"
                    if slot.default == "{}" and "IntArrayRef" in slot.type
                    else f"{slot.type.removeprefix('const ').rstrip('&')}{{}}"
                    if slot.default == "{}"
                    else slot.default
                )
            else:
                raise self.fail(node, f"missing argument {slot.name}")
        while texts and slots[len(texts) - 1].name not in given and not texts[-1].startswith("TensorOptions().") and slots[len(texts) - 1].default is not None:
            texts.pop()
        kind = RESULTS.get(form.result)
        if kind is None:
            raise self.fail(node, f"a call that gives {form.result}")
        scope = f"lohe::{form.namespace + '::' if form.namespace else ''}"
        if object_text is None and form.writes_self:
            texts[0] = f"detail::written({texts[0]})"
        return (f"{object_text}." if object_text is not None else scope) + f"{form.name}({', '.join(texts)})", kind

    # --- statements

    def block(self, body: list[ast.stmt], indent: str = "  ") -> str:
        return "".join(self.statement(s, indent) for s in body)

    def statement(self, node: ast.stmt, indent: str) -> str:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return ""
        if isinstance(node, ast.Return):
            if node.value is None:
                return f"{indent}return;\n"
            if self.result == "pair" and isinstance(node.value, ast.Tuple):
                return f"{indent}return {{{', '.join(self.as_type(e, 'int') for e in node.value.elts)}}};\n"
            return f"{indent}return {self.as_type(node.value, self.result) if self.result else self.expression(node.value)[0]};\n"
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            kind = ERRORS.get(ast.unparse(node.exc.func))
            if kind and len(node.exc.args) == 1:
                return f"{indent}raise(ErrorKind::{kind}, {self.as_type(node.exc.args[0], 'str')});\n"
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            value = ast.BinOp(ast.Name(node.target.id), node.op, node.value)
            return self.assignment(
                ast.copy_location(ast.Assign([node.target], ast.copy_location(value, node)), node),
                node.target,
                indent,
            )
        if isinstance(node, ast.For):
            return self.on_for(node, indent)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            kind = py_types.of_annotation(node.annotation, node.target.id)
            self.scope[node.target.id] = (cpp_types.cpp_name(node.target.id), kind)
            empty = isinstance(node.value, ast.List) and not node.value.elts
            value = f"{py_types.field(kind)}()" if empty else self.as_type(node.value, kind)
            return f"{indent}{py_types.field(kind)} {cpp_types.cpp_name(node.target.id)} = {value};\n"
        if (
            isinstance(node, ast.With)
            and ast.unparse(node.items[0].context_expr) == "lohe.no_grad()"
            and len(node.items) == 1
        ):
            inner = self.branch(ast.Constant(True), True).block(node.body, indent + "  ")
            return f"{indent}{{\n{indent}  const NoGradGuard no_grad;\n{inner}{indent}}}\n"
        if isinstance(node, ast.If):
            return self.conditional(node, indent)
        if isinstance(node, ast.Assign):
            text = self.assignment(node, node.targets[-1], indent)
            value = node.targets[-1]
            for target in reversed(node.targets[:-1]):  # a = b = value
                again = ast.copy_location(ast.Assign([target], ast.Name(ast.unparse(value), ast.Load())), node)
                text += self.assignment(again, target, indent)
            return text
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            return self.effect(node.value, indent)
        raise self.fail(node, type(node).__name__)

    def effect(self, call: ast.Call, indent: str) -> str:
        if ast.unparse(call.func) == "warnings.warn":
            return f"{indent}detail::warn({self.as_type(call.args[0], 'str')});\n"
        if isinstance(call.func, ast.Attribute) and call.func.attr == "append" and len(call.args) == 1:
            code, kind = self.expression(call.func.value)
            if kind in ELEMENT:
                return f"{indent}{code}.push_back({self.as_type(call.args[0], ELEMENT[kind])});\n"
        return f"{indent}{self.expression(call)[0]};\n"

    def conditional(self, node: ast.If, indent: str) -> str:
        test = self.as_type(node.test, "bool")
        if test in ("true", "false"):
            return self.block(node.body if test == "true" else node.orelse, indent)
        head = ""
        if node.orelse:
            # A name that both branches assign first is declared before them.
            ends = [self.branch(node.test, True), self.branch(node.test, False)]
            ends[0].block(node.body)
            ends[1].block(node.orelse)
            for name in sorted(ends[0].scope.keys() & ends[1].scope.keys() - self.scope.keys()):
                kinds = {ends[0].scope[name][1], ends[1].scope[name][1]}
                if len(kinds) == 1:
                    kind = kinds.pop()
                    head += f"{indent}{py_types.field(kind)} {cpp_types.cpp_name(name)}{{}};\n"
                    self.scope[name] = (cpp_types.cpp_name(name), kind)
        text = (
            f"{head}{indent}if ({test}) {{\n{self.branch(node.test, True).block(node.body, indent + '  ')}{indent}}}"
        )
        if node.orelse:
            text += f" else {{\n{self.branch(node.test, False).block(node.orelse, indent + '  ')}{indent}}}"
        last = node.body[-1]
        settled = isinstance(last, ast.Assign) and any(
            ast.unparse(t) in self.narrowing(node.test).get(False, {}) for t in last.targets
        )
        if node.orelse and isinstance(node.orelse[-1], ast.Assign):
            known = self.narrowing(node.test).get(True, {})
            self.scope.update({n: v for n, v in known.items() if n in map(ast.unparse, node.orelse[-1].targets)})
        if isinstance(last, ast.Return | ast.Raise) or settled:
            self.scope.update(self.narrowing(node.test).get(False, {}))
        return text + "\n"

    def assignment(self, node: ast.Assign, target: ast.expr, indent: str) -> str:
        if isinstance(target, ast.Tuple):
            text = self.unpacked(node, target, indent)
            if text is not None:
                return text
        code, kind = self.expression(node.value)
        if isinstance(target, ast.Tuple) and kind == "pair":
            names = [ast.unparse(e) for e in target.elts]
            for name in names:
                self.scope[name] = (name, "int")
            shown = ", ".join(n if n != "_" else "unused" for n in names)
            return f"{indent}[[maybe_unused]] const auto [{shown}] = {code};\n"
        if isinstance(target, ast.Name) and kind == "op":
            self.scope[target.id] = (code, kind)
            return ""
        if not isinstance(target, ast.Name) or kind == "none" and target.id not in self.scope:
            raise self.fail(node, "assignment")
        return self.put(node, target.id, (code, kind), indent)
