"""The layer classes of python/lohe/nn/modules as C++ modules with options and holders, and the page that says which."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

import cpp_api
import nn_func_options
import nn_to_cpp
import py_types
from nn_to_cpp import LEGACY, Body, Library, Signature, copies, parameters_of
from op_rows import Row
from py_types import Unsupported

NOTICE = "// Generated from python/lohe/nn by tools/gen/nn_modules.py.\n"
SKIPPED_FILES = ("module.py", "container.py", "_hooks.py", "_state.py", "utils.py", "__init__.py")


class ModuleClass:
    """One public layer: its methods by name, the nearest definition along its bases first."""

    def __init__(self, node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> None:
        self.node = node
        self.chain = [node]
        self.constants: dict[str, tuple[str, str]] = {}  # fields that C++ has one value of
        while True:
            bases = [ast.unparse(b) for b in self.chain[-1].bases]
            if bases == ["Module"]:
                break
            if len(bases) != 1 or bases[0] not in classes:
                raise Unsupported(f"its bases are {', '.join(bases) or 'none'}")
            self.chain.append(classes[bases[0]])

    def method(self, name: str, above: int = -1) -> tuple[int, ast.FunctionDef] | None:
        for level, node in enumerate(self.chain):
            for item in node.body:
                if level > above and isinstance(item, ast.FunctionDef) and item.name == name:
                    return level, item
        return None


class InitBody(Body):
    """An `__init__` or a method: assignments to self are fields, Parameter and buffers are registered."""

    def __init__(
        self,
        layers: Layers,
        scope: dict[str, tuple[str, str]],
        fields: dict[str, str],
        owner: ModuleClass,
        level: int,
        notes: dict[str, str],
        result: str = "",
        helpers: dict[str, tuple[str, str]] | None = None,
    ) -> None:
        super().__init__(layers.library, scope, fields, "functional", result)
        self.layers, self.owner, self.level, self.notes = layers, owner, level, notes
        self.helpers = {} if helpers is None else helpers

    def like(self, scope: dict[str, tuple[str, str]], level: int, result: str) -> InitBody:
        """Another body of the same class."""
        return InitBody(self.layers, scope, self.fields, self.owner, level, self.notes, result, self.helpers)

    def branch(self, test: ast.expr, holds: bool) -> Body:
        return self.like({**self.scope, **self.narrowing(test).get(holds, {})}, self.level, self.result)

    def on_attribute(self, node: ast.Attribute) -> tuple[str, str]:
        text = ast.unparse(node)
        if text == "self.__class__.__name__":
            return f'"{self.owner.node.name}"', "str"
        if text == "self._flat_weights":  # of a recurrent layer: its parameters in their order
            return "parameters(false)", "list"
        if text.removeprefix("self.") in self.owner.constants:
            return self.owner.constants[text.removeprefix("self.")]
        return super().on_attribute(node)

    def on_call(self, node: ast.Call) -> tuple[str, str]:
        text = ast.unparse(node.func)
        if text == "self._get_name":
            return f'"{self.owner.node.name}"', "str"
        if text == "self.parameters":
            return "parameters()", "list"
        made = self.made_layer(node)
        if made is not None:
            return made
        called = self.called_field(node)
        if called is not None:
            return called
        if text == "_get_clones":  # of a layer, as many as the second argument says
            code, kind = self.expression(node.args[0])
            return f"detail::clones({code}, {self.as_type(node.args[1], 'int')})", f"modules:{kind[7:]}"
        if text.startswith("self.") and text.count(".") == 1 and self.owner.method(text[5:]):
            return self.call_function(node, self.helper(text[5:]))
        return super().on_call(node)

    def called_field(self, node: ast.Call) -> tuple[str, str] | None:
        """A call of a layer or function that a field or a variable holds."""
        known = isinstance(node.func, ast.Name) and node.func.id in self.scope
        if not known and not isinstance(node.func, ast.Attribute) or ast.unparse(node.func).startswith("F."):
            return None
        try:
            code, kind = self.expression(node.func)
        except Unsupported:
            return None
        if kind in ("activation", "any_module") and len(node.args) == 1:
            dot = ".forward" if kind == "any_module" else ""
            return f"{code}{dot}({self.as_type(node.args[0], 'Tensor')})", "Tensor"
        if not kind.startswith("module:"):
            return None
        forward = self.layers.need(kind[7:]).forward
        return self.call_function(
            node, Signature(f"{code}->forward", forward.params, forward.result, forward.names)
        )

    def made_layer(self, node: ast.Call) -> tuple[str, str] | None:
        """`Linear(3, 4, bias=False)` as a holder made from options."""
        name = ast.unparse(node.func)
        if name not in self.layers.classes:
            return None
        layer = self.layers.need(name)
        given = self.bound(node, layer.names)
        required = [self.as_type(given[n], k) for n, k, d in layer.params if d is None]
        options = f"{name}Options({', '.join(required)})"
        for parameter, kind, default in layer.params:
            if default is not None and parameter in given:
                options += f".{parameter}({self.as_type(given[parameter], kind)})"
        return (f"{name}({options})" if layer.params else f"{name}()"), f"module:{name}"

    def helper(self, name: str) -> Signature:
        """Another method of the class, translated as a private member."""
        found = self.owner.method(name)
        assert found is not None and self.library is not None
        level, function = found
        params, scope, _ = parameters_of(function.args, skip_self=True)
        result = py_types.of_annotation(function.returns, f"the result of {name}")
        signature = Signature(f"this->{name}", params, result, nn_to_cpp.names_of(function.args))
        if name not in self.helpers:
            self.helpers[name] = ("", "")
            text = copies(function, params, scope)
            body = self.like(scope, level, result)
            text += body.block(function.body)
            kind = py_types.field(result)
            self.helpers[name] = (
                f"{kind} {name}({signature.declared(True)});",
                f"{kind} {self.owner.node.name}Impl::{name}({signature.declared(False)}) {{\n{text}}}\n",
            )
        return signature

    def field(self, name: str, kind: str, node: ast.AST) -> None:
        have = self.fields.get(name)
        if have in (None, kind) or kind.rstrip("?") == "Tensor" == (have or "").rstrip("?"):
            self.fields[name] = "Tensor?" if "Tensor?" in (have, kind) else kind
        elif py_types.coerce("", kind, have or "") is None:
            raise self.fail(node, f"the field {name} is {have} and {kind}")

    def assignment(self, node: ast.Assign, target: ast.expr, indent: str) -> str:
        if not (
            isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == "self"
        ):
            return super().assignment(node, target, indent)
        name, value = target.attr, node.value
        if isinstance(value, ast.Name) and value.id in LEGACY and self.scope.get(value.id, ("x",))[0] in ("", "false"):
            self.owner.constants[name] = self.scope[value.id]
            return ""
        made = self.made_layer(value) if isinstance(value, ast.Call) else None
        if made is not None:
            self.field(name, made[1], node)
            return f'{indent}this->{name} = register_module("{name}", {made[0]});\n'
        if isinstance(value, ast.Call) and ast.unparse(value.func) == "Parameter":
            wanted = {k.arg: k.value for k in value.keywords}
            flag = f", {self.as_type(wanted['requires_grad'], 'bool')}" if "requires_grad" in wanted else ""
            self.field(name, "Tensor", node)
            return f'{indent}this->{name} = register_parameter("{name}", {self.as_type(value.args[0], "Tensor")}{flag});\n'
        code, kind = self.expression(value)
        declared = self.notes.get(name)
        if kind == "none" and declared is None:
            raise self.fail(node, "a field that is None")
        if declared is not None:
            text = py_types.coerce(code, kind, declared)
            if text is None:
                raise self.fail(node, f"{kind} becomes the field {name}, which is {declared}")
            code, kind = text, declared
        self.field(name, kind, node)
        if kind.startswith("modules:"):
            return f'{indent}this->{name} = register_module("{name}", {code});\n'
        if kind.rstrip("?") == "any_module":
            held = f'if (!{code}.is_empty()) register_module("{name}", {code}.ptr());'
            return f"{indent}{held}\n{indent}this->{name} = {code};\n"
        if kind == "ints":
            code = f"IntList(IntArrayRef({code}))"
        return f"{indent}this->{name} = {code};\n"

    def effect(self, call: ast.Call, indent: str) -> str:
        text = ast.unparse(call.func)
        parameter = call.args[1] if text == "self.register_parameter" else None
        if isinstance(parameter, ast.Call) and ast.unparse(parameter.func) == "Parameter":  # the name is computed
            name, tensor = self.as_type(call.args[0], "str"), self.as_type(parameter.args[0], "Tensor")
            return f"{indent}register_parameter(std::string({name}), {tensor});\n"
        if text in ("self.register_parameter", "self.register_buffer"):
            name = ast.literal_eval(call.args[0])
            code, kind = self.expression(call.args[1])
            code = "Tensor()" if kind == "none" else code
            if kind not in ("none", "Tensor", "Tensor?"):
                raise self.fail(call, f"registers {kind}")
            self.field(name, "Tensor" if kind == "Tensor" else "Tensor?", call)
            return f'{indent}this->{name} = {text.removeprefix("self.")}("{name}", {code});\n'
        if text == "super().__init__":
            return self.base_init(call, indent)
        if text == "self.reset_parameters":
            return f"{indent}reset_parameters();\n"
        return super().effect(call, indent)

    def base_init(self, call: ast.Call, indent: str) -> str:
        found = self.owner.method("__init__", self.level)
        if found is None:
            if call.args or call.keywords:
                raise self.fail(call, "arguments for Module")
            return ""
        level, function = found
        params, scope, _ = parameters_of(function.args, skip_self=True)
        names = [a.arg for a in [*function.args.args[1:], *function.args.kwonlyargs]]
        given = self.bound(call, names)
        texts = []
        for name, kind, default in params:
            if name not in given and default is None:
                raise self.fail(call, f"missing argument {name}")
            texts.append(self.as_type(given[name], kind) if name in given else str(default))
        for name in LEGACY:
            if name in given and self.expression(given[name])[1] != "none":
                raise self.fail(call, f"{name} is given")
        inner = self.like(scope, level, "").block(function.body, indent + "  ")
        declared = ", ".join(f"[[maybe_unused]] {py_types.parameter(k)} {n}" for n, k, _ in params)
        return f"{indent}[&]({declared}) {{\n{inner}{indent}}}({', '.join(texts)});\n"


@dataclass
class Layer:
    """A translated layer, as others may use it."""

    params: list[tuple[str, str, str | None]]
    names: list[str]  # of all Python parameters in order
    fields: dict[str, str]
    forward: Signature
    declared: str
    defined: str


class Layers:
    """All layers, each translated when it is first needed: a layer stands behind those that it holds."""

    def __init__(self, library: Library, classes: dict[str, ast.ClassDef]) -> None:
        self.library, self.classes = library, classes
        self.known: dict[str, Layer | Unsupported] = {}
        self.order: list[str] = []
        library.layer_fields = lambda name: self.need(name).fields

    def need(self, name: str) -> Layer:
        """@raises Unsupported"""
        if name not in self.known:
            self.known[name] = Unsupported(f"{name} holds itself")
            try:
                self.known[name] = translate(self.classes[name], self)
                self.order.append(name)
            except Unsupported as error:
                self.known[name] = Unsupported(str(error))
        found = self.known[name]
        if isinstance(found, Unsupported):
            raise Unsupported(str(found))
        return found


def takes_anything(function: ast.FunctionDef) -> bool:
    """`__init__(self, *args, **kwargs)`, which ignores them."""
    args = function.args
    return len(args.args) == 1 and args.vararg is not None and args.kwarg is not None and not args.kwonlyargs


def translate(node: ast.ClassDef, layers: Layers) -> Layer:
    """@raises Unsupported"""
    owner = ModuleClass(node, layers.classes)
    name = node.name
    fields: dict[str, str] = {}
    notes: dict[str, str] = {}
    for level in reversed(owner.chain):
        for item in level.body:
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                try:
                    notes[item.target.id] = py_types.of_annotation(item.annotation, item.target.id)
                except Unsupported:
                    notes.pop(item.target.id, None)
    init = owner.method("__init__")
    params: list[tuple[str, str, str | None]] = []
    names: list[str] = []
    text = ""
    helpers: dict[str, tuple[str, str]] = {}
    if init is not None and not takes_anything(init[1]):
        level, function = init
        params, scope, _ = parameters_of(function.args, skip_self=True)
        names = nn_to_cpp.names_of(function.args)
        text = InitBody(layers, scope, fields, owner, level, notes, "", helpers).block(function.body)
    for field in fields:
        if fields[field] == "Tensor" and notes.get(field) == "Tensor?":
            fields[field] = "Tensor?"
    definitions = [constructor(name, params, text)]
    methods = ["void pretty_print(std::ostream& stream) const override;"]
    definitions.append(pretty_print(name, owner, layers, fields, notes))
    methods.append("std::shared_ptr<Module> clone() const override;")
    made = f"std::make_shared<{name}Impl>({'options' if params else ''})"
    definitions.append(
        f"std::shared_ptr<Module> {name}Impl::clone() const {{\n"
        f"  return copied([&] {{ return {made}; }});\n}}\n"
    )
    found = owner.method("reset_parameters")
    if found is not None:
        body = InitBody(layers, {}, fields, owner, found[0], notes, "", helpers).block(found[1].body)
        methods.append("void reset_parameters() override;")
        definitions.append(f"void {name}Impl::reset_parameters() {{\n{body}}}\n")
    found = owner.method("forward")
    if found is None:
        raise Unsupported("it has no forward")
    arguments, scope, _ = parameters_of(found[1].args, skip_self=True)
    result = nn_to_cpp.result_of(found[1])
    body = copies(found[1], arguments, scope)
    body += InitBody(layers, scope, fields, owner, found[0], notes, result, helpers).block(found[1].body)
    forward = Signature("", arguments, result, nn_to_cpp.names_of(found[1].args))
    kind = py_types.field(result)
    methods.append(f"{kind} forward({forward.declared(True)});")
    definitions.append(f"{kind} {name}Impl::forward({forward.declared(False)}) {{\n{body}}}\n")
    for declared, defined in helpers.values():
        methods.append(declared)
        definitions.append(defined)
    declared = declaration(node, name, params, fields, methods)
    return Layer(params, names, fields, forward, declared, "\n".join(definitions))


def constructor(name: str, params: list[tuple[str, str, str | None]], text: str) -> str:
    if not params:
        return f'{name}Impl::{name}Impl() : Module("{name}") {{\n{text}}}\n'
    locals_ = "".join(f"  [[maybe_unused]] auto {n} = options_.{n}();\n" for n, _, _ in params)
    return (
        f'{name}Impl::{name}Impl({name}Options options_) : Module("{name}"), options(std::move(options_)) {{\n'
        f"{locals_.replace('options_.', 'options.')}{text}}}\n"
    )


def pretty_print(
    name: str, owner: ModuleClass, layers: Layers, fields: dict[str, str], notes: dict[str, str]
) -> str:
    found = owner.method("extra_repr")
    head = f"void {name}Impl::pretty_print(std::ostream& stream) const {{\n"
    if found is None:
        return head + f'  stream << "{name}()";\n}}\n'
    body = InitBody(layers, {}, fields, owner, found[0], notes, "str").block(found[1].body, "    ")
    return (
        head
        + f"  const auto extra = [&]() -> std::string {{\n{body}  }};\n  stream << \"{name}(\" << extra() << ')';\n}}\n"
    )


def declaration(
    node: ast.ClassDef,
    name: str,
    params: list[tuple[str, str, str | None]],
    fields: dict[str, str],
    methods: list[str],
) -> str:
    lines = []
    prose = (ast.get_docstring(node) or "").splitlines()
    if params:
        required = [(n, k) for n, k, d in params if d is None]
        lines.append(f"struct {name}Options {{\n")
        arguments = ", ".join(f"{py_types.field(k)} {n}" for n, k in required)
        inits = ", ".join(f"{n}_(std::move({n}))" for n, _ in required)
        lines.append(f"  {name}Options({arguments})" + (f" : {inits}" if inits else "") + " {}\n" if required else "")
        if len(required) == 1 and required[0][1] in ("ints", "optional_ints"):  # else ({3}) could be a copy, too
            only, kind = required[0]
            lines.append(f"  explicit {name}Options(int64_t {only}) : {name}Options({py_types.field(kind)}({only})) {{}}\n")
        if not required:  # the first option alone, as in Dropout(0.1)
            first, kind, _ = params[0]
            lines.append(
                f"  {name}Options() = default;\n  {name}Options({py_types.field(kind)} {first}) : {first}_(std::move({first})) {{}}\n"
            )
        for n, kind, default in params:
            value = f" = {default}" if default is not None else ""
            lines.append(f"  LOHE_ARG({py_types.option(kind)}, {n}){value};\n")
        lines.append("};\n\n")
    lines += [f"/// {line}\n".replace("/// \n", "///\n") for line in prose]
    lines.append(f"class LOHE_API {name}Impl : public Module {{\n public:\n")
    if params:
        lines.append(f"  explicit {name}Impl({name}Options options{'' if required else ' = {}'});\n")
        if required:
            arguments = ", ".join(f"{py_types.field(k)} {n}" for n, k in required)
            passed = ", ".join(f"std::move({n})" for n, _ in required)
            lines.append(
                f"  {'explicit ' if len(required) == 1 else ''}{name}Impl({arguments}) : {name}Impl({name}Options({passed})) {{}}\n"
            )
    else:
        lines.append(f"  {name}Impl();\n")
    lines += [f"  {m}\n" for m in methods]
    if params:
        lines.append(f"\n  {name}Options options;\n")
    for field, kind in fields.items():
        initial = "{}" if kind in ("int", "float", "bool", "Generator", "dtype") else ""
        initial = '{"relu"}' if kind == "activation" else initial
        initial = "{nullptr}" if kind.startswith(("module:", "modules:")) else initial
        lines.append(f"  {py_types.field(kind)} {field}{initial};\n")
    lines.append(f"}};\nLOHE_MODULE({name});\n")
    return "".join(lines)


def generate(source: Path, rows: list[Row], forms: list[cpp_api.Form]) -> dict[str, str]:
    library = Library(source, rows, forms)
    taken: list[str] = []
    skipped: list[tuple[str, str, str]] = []
    files = [p for p in sorted((source / "python/lohe/nn/modules").glob("*.py")) if p.name not in SKIPPED_FILES]
    trees = {p: ast.parse(p.read_text()) for p in files}
    classes = {n.name: n for tree in trees.values() for n in tree.body if isinstance(n, ast.ClassDef)}
    layers = Layers(library, classes)
    py_types.MODULES |= set(classes)
    for path, tree in trees.items():
        for node in tree.body:
            if not isinstance(node, ast.ClassDef) or node.name.startswith("_"):
                continue
            try:
                layers.need(node.name)
                taken.append(node.name)
            except Unsupported as error:
                skipped.append((node.name, f"{path.name}:{node.lineno}", str(error)))
    made = [layers.need(name) for name in layers.order]
    declarations, definitions = [m.declared for m in made], [m.defined for m in made]
    for space, name in sorted(library.sources):
        if not name.startswith("_"):
            try:
                library.function(space, name)
            except Unsupported:
                pass
    for (space, name), found in library.signatures.items():
        if space == "functional" and not name.startswith("_") and isinstance(found, Signature):
            library.declarations[space].append(nn_func_options.options_of(name, found, taken))
    head = f"#pragma once\n\n{NOTICE}\n"
    spaces = "".join(
        f"\nnamespace {space} {{\n\n{''.join(lines)}\n}}  // namespace {space}\n"
        for space, lines in library.declarations.items()
    )
    bodies = "\n".join(line for lines in library.bodies.values() for line in lines)
    opening = '#include "lohe/autograd.h"\n#include "lohe/operators.h"\n#include "nn/python_lists.h"\n#include "nn/python_text.h"\n'
    return {
        "lohe/nn/functional.h": f'{head}#include "lohe/functions.h"\n#include "lohe/nn/types.h"\n\nnamespace lohe::nn {{\n{spaces}\n}}  // namespace lohe::nn\n',
        "lohe/nn/modules.h": f'{head}#include "lohe/nn/container.h"\n#include "lohe/nn/types.h"\n\nnamespace lohe::nn {{\n\n'
        + "\n".join(declarations)
        + "\n}  // namespace lohe::nn\n",
        "nn/functional.cpp": f'{NOTICE}\n#include <cmath>\n\n#include "lohe/nn/functional.h"\n{opening}\nnamespace lohe::nn {{\n\n'
        f"{bodies}\n}}  // namespace lohe::nn\n",
        "nn/modules.cpp": f'{NOTICE}\n#include <cmath>\n#include <ostream>\n\n#include "lohe/nn/functional.h"\n'
        f'#include "lohe/nn/modules.h"\n{opening}\nnamespace lohe::nn {{\n\n'
        + "\n".join(definitions)
        + "\n}  // namespace lohe::nn\n",
        "docs/api/nn_cpp.md": page(taken, skipped),
    }


def page(taken: list[str], skipped: list[tuple[str, str, str]]) -> str:
    lines = [
        "# Layers in C++",
        "",
        "`lohe::nn` has what the translator (`tools/gen/nn_modules.py`) takes from "
        "`python/lohe/nn/modules`: " + ", ".join(f"`{n}`" for n in sorted(taken)) + ".",
        "",
        "Not taken, and why:",
        "",
        "| layer | source | reason |",
        "|---|---|---|",
    ]
    lines += [f"| `{n}` | `{where}` | {reason.replace('|', chr(92) + '|')} |" for n, where, reason in sorted(skipped)]
    return "\n".join(lines) + "\n"
