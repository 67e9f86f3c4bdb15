"""Lists, loops and several values at once, for the translator of nn_to_cpp.py.

A loop over lists counts one index over copies of them, as `zip` and `enumerate` do; a comprehension is such a loop in
a lambda. A loop over a tuple that is written out is unrolled.
"""

from __future__ import annotations

import ast
import itertools
from typing import TYPE_CHECKING

import cpp_types
import py_types

if TYPE_CHECKING:
    from nn_to_cpp import Body

# Type of a list -> type of its elements.
ELEMENT = {"ints": "int", "list": "Tensor", "floats": "float", "functions": "function"}
LIST_OF = {element: kind for kind, element in ELEMENT.items()}
COUNTS = {"tensors": 2, "triple": 3, "quadruple": 4}  # tuples of tensors
# Functions of one list that keep its type.
WHOLE = {"list", "tuple", "reversed"}


class ListBody:
    """The part of Body that knows lists."""

    numbers = itertools.count()

    def unique(self, name: str) -> str:
        return f"{name}_{next(self.numbers)}"

    # --- expressions

    def list_literal(self: Body, node: ast.expr, want: str) -> str | None:
        """A list or tuple that is written out, where one of `want` is taken."""
        if want == "nested" and isinstance(node, ast.Tuple) and len(node.elts) == 2:
            return f"{py_types.field(want)}({self.as_type(node.elts[0], 'Tensor')}, {self.as_type(node.elts[1], 'tensors')})"
        if want not in ("list", "floats", *COUNTS) or not isinstance(node, ast.Tuple | ast.List):
            return None
        element = ELEMENT.get(want, "Tensor")
        if any(isinstance(e, ast.Starred) for e in node.elts):
            parts = [
                self.as_type(e.value, "list")
                if isinstance(e, ast.Starred)
                else f"std::vector<Tensor>{{{self.as_type(e, 'Tensor')}}}"
                for e in node.elts
            ]
            return py_types.coerce(f"detail::joined_tensors({{{', '.join(parts)}}})", "list", want)
        items = ", ".join(self.as_type(e, "Tensor?" if element == "Tensor" else element) for e in node.elts)
        return f"{py_types.field(want)}{{{items}}}" if want not in COUNTS else f"{py_types.field(want)}({items})"

    def list_ifexp(self: Body, node: ast.IfExp) -> tuple[str, str] | None:
        """`(None, None) if b is None else b.chunk(2)`: as many undefined tensors."""
        body = node.body
        if not (isinstance(body, ast.Tuple) and body.elts):
            return None
        if not all(isinstance(e, ast.Constant) and e.value is None for e in body.elts):
            return None
        test = self.as_type(node.test, "bool")
        code, kind = self.branch(node.test, False).expression(node.orelse)
        if kind != "list":
            raise self.fail(node, f"branches of None and {kind}")
        return f"({test} ? std::vector<Tensor>({len(body.elts)}) : {code})", "list"

    def on_listcomp(self: Body, node: ast.ListComp) -> tuple[str, str]:
        if len(node.generators) != 1 or node.generators[0].ifs:
            raise self.fail(node, "comprehension")
        generator = node.generators[0]
        inner = self.branch(ast.Constant(True), True)
        before, head = inner.loop(generator.target, generator.iter, "")
        code, kind = inner.expression(node.elt)
        if kind not in LIST_OF:
            raise self.fail(node, f"list of {kind}")
        kind = LIST_OF[kind]
        before, head = before.replace("\n", " "), head.replace("\n", " ")
        return (
            f"[&] {{ {py_types.field(kind)} made; {before}{head}made.push_back({code}); }} return made; }}()",
            kind,
        )

    on_generatorexp = on_listcomp

    def whole_list(self: Body, name: str, argument: ast.expr) -> tuple[str, str]:
        """list(x), tuple(x), reversed(x)."""
        code, kind = self.expression(argument)
        if kind not in ELEMENT:
            code, kind = self.as_type(argument, "ints"), "ints"
        return (f"detail::reversed({code})" if name == "reversed" else code), kind

    def element(self: Body, node: ast.Subscript) -> tuple[str, str] | None:
        """An item or a part of a list or of a tuple of tensors."""
        code, kind = self.expression(node.value)
        part = node.slice
        if kind in COUNTS and isinstance(part, ast.Constant):
            return f"std::get<{part.value}>({code})", "Tensor"
        if kind.startswith("modules:"):
            layer = kind[8:]
            return f"detail::item<{layer}>({code}, {self.as_type(part, 'int')})", f"module:{layer}"
        if kind not in ELEMENT:
            return None
        if isinstance(part, ast.Slice):
            step = ast.unparse(part.step) if part.step is not None else ""
            if part.lower is None and part.upper is None and step == "-1":
                return f"detail::reversed({code})", kind
            if part.lower is None and part.upper is not None and not step:
                return f"detail::until({code}, {self.as_type(part.upper, 'int')})", kind
            if part.lower is not None and part.upper is None and not step:
                return f"detail::from({code}, {self.as_type(part.lower, 'int')})", kind
            raise self.fail(node, "slice")
        return f"detail::at({code}, {self.as_type(part, 'int')})", ELEMENT[kind]

    # --- statements

    def loop(self: Body, target: ast.expr, source: ast.expr, indent: str) -> tuple[str, str]:
        """(statements before, head with the names bound) of a loop; its names go into the scope."""
        targets = list(target.elts) if isinstance(target, ast.Tuple) else [target]
        call = ast.unparse(source.func) if isinstance(source, ast.Call) else ""
        arguments = source.args if isinstance(source, ast.Call) else []
        if call == "range":
            first, last = ("int64_t{0}", arguments[0]) if len(arguments) == 1 else ("", arguments[1])
            first = first or self.as_type(arguments[0], "int")
            if len(arguments) > 2 or len(targets) != 1 or not isinstance(target, ast.Name):
                raise self.fail(source, "range")
            name, end = cpp_types.cpp_name(target.id), self.as_type(last, "int")
            self.scope[target.id] = (name, "int")
            return "", f"{indent}for (int64_t {name} = {first}; {name} < {end}; ++{name}) {{\n"
        index, before, bound = self.unique("i"), "", ""
        parts, names = [source], targets
        if call == "enumerate":
            number, names = targets[0], targets[1:]
            bound += f"{indent}  [[maybe_unused]] const auto {self.bind(number, 'int')} = static_cast<int64_t>({index});\n"
            parts = [arguments[0]]
            if isinstance(names[0], ast.Tuple):
                names = list(names[0].elts)
        if isinstance(parts[0], ast.Call) and ast.unparse(parts[0].func) == "zip":
            parts = list(parts[0].args)
        if len(parts) != len(names):
            raise self.fail(source, "loop")
        sizes = []
        for name, part in zip(names, parts, strict=True):
            code, kind = self.expression(part)
            if kind.startswith("modules:"):
                element = f"module:{kind[8:]}"
                sizes.append(f"{code}->size()")
                taken = f"detail::item<{kind[8:]}>({code}, static_cast<int64_t>({index}))"
            else:
                if kind not in ELEMENT:
                    code, kind = self.as_type(part, "ints"), "ints"
                element, items = ELEMENT[kind], self.unique("items")
                before += f"{indent}const {py_types.field(kind)} {items}({code});\n"
                sizes.append(f"{items}.size()")
                taken = f"{items}[{index}]"
            bound += f"{indent}  [[maybe_unused]] const {py_types.field(element)} {self.bind(name, element)} = {taken};\n"
        end = sizes[0] if len(sizes) == 1 else f"std::min({{{', '.join(sizes)}}})"
        return before, f"{indent}for (size_t {index} = 0; {index} < {end}; ++{index}) {{\n{bound}"

    def bind(self: Body, target: ast.expr, kind: str) -> str:
        if not isinstance(target, ast.Name):
            raise self.fail(target, "loop target")
        name = self.unique("unused") if target.id == "_" else cpp_types.cpp_name(target.id)
        self.scope[target.id] = (name, kind)
        return name

    def on_for(self: Body, node: ast.For, indent: str) -> str:
        if node.orelse:
            raise self.fail(node, "For with else")
        if isinstance(node.iter, ast.Tuple) and isinstance(node.target, ast.Tuple):
            text = ""
            for item in node.iter.elts:
                if not isinstance(item, ast.Tuple) or len(item.elts) != len(node.target.elts):
                    raise self.fail(node, "For")
                inner = self.branch(ast.Constant(True), True)
                for name, value in zip(node.target.elts, item.elts, strict=True):
                    inner.scope[ast.unparse(name)] = self.expression(value)
                text += inner.block(node.body, indent)
            return text
        inner = self.branch(ast.Constant(True), True)
        before, head = inner.loop(node.target, node.iter, indent)
        return f"{before}{head}{inner.block(node.body, indent + '  ')}{indent}}}\n"

    def unpacked(self: Body, node: ast.Assign, target: ast.Tuple, indent: str) -> str | None:
        """`a, b = ...` of values side by side, of a list, or of a tuple of tensors."""
        names = [ast.unparse(e) for e in target.elts]
        if not all(isinstance(e, ast.Name) for e in target.elts):
            return None
        if isinstance(node.value, ast.Tuple):
            if len(node.value.elts) != len(names):
                raise self.fail(node, "assignment")
            values = [self.expression(v) for v in node.value.elts]
        else:
            code, kind = self.expression(node.value)
            if kind not in (*ELEMENT, *COUNTS):
                return None
            held = self.unique("parts")
            text = f"{indent}const {py_types.field(kind)} {held}({code});\n"
            if kind in COUNTS:
                values = [(f"std::get<{i}>({held})", "Tensor") for i in range(COUNTS[kind])]
            else:
                values = [(f"detail::at({held}, {i})", ELEMENT[kind]) for i in range(len(names))]
            if len(values) != len(names):
                raise self.fail(node, "assignment")
            return text + "".join(
                self.put(node, n, v, indent) for n, v in zip(names, values, strict=True) if n != "_"
            )
        # All values are there before the first name changes.
        text, kept = "", []
        for code, kind in values:
            held = self.unique("value")
            text += f"{indent}{py_types.field(kind)} {held} = {code};\n"
            kept.append((held, kind))
        return text + "".join(self.put(node, n, v, indent) for n, v in zip(names, kept, strict=True) if n != "_")

    def put(self: Body, node: ast.AST, name: str, value: tuple[str, str], indent: str) -> str:
        """Assigns to a name, which is declared where it is new."""
        code, kind = value
        if name in self.scope:
            there, have = self.scope[name]
            text = py_types.coerce(code, kind, have)
            if text is None or not there.removeprefix("(*").removesuffix(")").isidentifier():
                raise self.fail(node, f"{name}, {have}, becomes {kind}")
            if "Tensor?" in (kind, have):
                self.scope[name] = (there, "Tensor?")
            elif have == f"{kind}?" and kind not in py_types.NULLABLE:  # None no longer
                self.scope[name] = (f"(*{there})", kind)
            return f"{indent}{there} = {text};\n"
        self.scope[name] = (cpp_types.cpp_name(name), kind)
        return f"{indent}{py_types.field(kind)} {cpp_types.cpp_name(name)} = {code};\n"
