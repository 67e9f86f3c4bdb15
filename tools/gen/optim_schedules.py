"""Learning-rate schedules in C++ (lohe/optim_schedules.h) from the classes of python/lohe/optim/lr_scheduler.py."""

from __future__ import annotations

import ast
from pathlib import Path

import cpp_api
import cpp_types
import py_types
from nn_to_cpp import Body, Library, parameters_of
from op_rows import Row
from py_types import Unsupported

CLASSES = (
    "LambdaLR",
    "MultiplicativeLR",
    "StepLR",
    "MultiStepLR",
    "ConstantLR",
    "LinearLR",
    "ExponentialLR",
    "PolynomialLR",
    "CosineAnnealingLR",
)
# What the hand-written bases of lohe/lr_scheduler.h have.
BASE_FIELDS = {
    "base_lrs": "floats",
    "last_epoch": "int",
    "_is_initial": "bool",
    "_step_count": "int",
    "lr_lambdas": "functions",
}
BASES = {"LRScheduler": "LRScheduler", "_LambdaScheduler": "LambdaScheduler"}


class ScheduleBody(Body):
    """A method of a schedule: fields are members, the optimizer's rates are `rates()`."""

    def __init__(self, library: Library, scope: dict[str, tuple[str, str]], fields: dict[str, str], result: str) -> None:
        super().__init__(library, scope, fields, "functional", result)

    def branch(self, test: ast.expr, holds: bool) -> Body:
        assert self.library is not None
        scope = {**self.scope, **self.narrowing(test).get(holds, {})}
        return ScheduleBody(self.library, scope, self.fields, self.result)

    def on_call(self, node: ast.Call) -> tuple[str, str]:
        text = ast.unparse(node.func)
        if text == "self._rates":
            return "rates()", "floats"
        if text == "self._get_closed_form_lr":
            return "closed_form()", "floats"
        if text == "Counter":
            return f"IntList({self.as_type(node.args[0], 'ints')})", "counter"
        if self.scope.get(text, ("", ""))[1] == "function":
            return f"{text}({self.as_type(node.args[0], 'int')})", "float"
        return super().on_call(node)

    def on_compare(self, node: ast.Compare) -> tuple[str, str]:
        if isinstance(node.ops[0], ast.In | ast.NotIn) and isinstance(node.comparators[0], ast.Attribute):
            code, kind = self.expression(node.comparators[0])
            if kind == "counter":
                count = f"count_of({code}, {self.as_type(node.left, 'int')})"
                return f"{count} {'>' if isinstance(node.ops[0], ast.In) else '=='} 0", "bool"
        return super().on_compare(node)

    def on_subscript(self, node: ast.Subscript) -> tuple[str, str]:
        code, kind = self.expression(node.value)
        if kind == "counter":
            return f"count_of({code}, {self.as_type(node.slice, 'int')})", "int"
        return super().on_subscript(node)

    def effect(self, call: ast.Call, indent: str) -> str:
        text = ast.unparse(call.func)
        if text == "self._warn_outside_step":  # get_lrs is no public member
            return ""
        if text == "super().__init__":
            return f"{indent}start({self.as_type(call.args[-1], 'int')});\n"
        return super().effect(call, indent)

    def assignment(self, node: ast.Assign, target: ast.expr, indent: str) -> str:
        if isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self":
            code, kind = self.expression(node.value)
            self.fields[target.attr] = kind
            return f"{indent}this->{target.attr} = {code};\n"
        return super().assignment(node, target, indent)


def methods_of(node: ast.ClassDef) -> dict[str, ast.FunctionDef]:
    return {i.name: i for i in node.body if isinstance(i, ast.FunctionDef)}


def translate(node: ast.ClassDef, library: Library) -> tuple[str, str]:
    """(declaration, definition). @raises Unsupported"""
    name, base = node.name, BASES[ast.unparse(node.bases[0])]
    methods = methods_of(node)
    fields = dict(BASE_FIELDS)
    declared, defined = [], []
    prose = "".join(f"/// {line}\n".replace("/// \n", "///\n") for line in (ast.get_docstring(node) or "").splitlines())
    if "__init__" in methods:
        args = methods["__init__"].args
        args.args = [args.args[0], *args.args[2:]]  # without the optimizer
        params, scope, _ = parameters_of(args, skip_self=True)
        body = ScheduleBody(library, scope, fields, "").block(methods["__init__"].body)
        texts = [f"{py_types.parameter(k)} {cpp_types.cpp_name(n)}" for n, k, _ in params]
        with_defaults = [t + (f" = {d}" if d is not None else "") for t, (_, _, d) in zip(texts, params, strict=True)]
        declared.append(f"explicit {name}(Optimizer& optimizer, {', '.join(with_defaults)});")
        defined.append(f"{name}::{name}(Optimizer& optimizer, {', '.join(texts)}) : {base}(optimizer) {{\n{body}}}\n")
    else:
        declared.append(
            f"template <class Functions>\n  explicit {name}(Optimizer& optimizer, Functions lr_lambda, int64_t last_epoch = -1)\n"
            f"      : {base}(optimizer, std::move(lr_lambda)) {{\n    start(last_epoch);\n  }}"
        )
    private = ["std::vector<double> get_lrs() override;"]
    for method, text in (("get_lr", "get_lrs"), ("_get_closed_form_lr", "closed_form")):
        used = method == "get_lr" or "self._get_closed_form_lr" in ast.unparse(methods["get_lr"])
        if not used:
            continue
        body = ScheduleBody(library, {}, fields, "floats").block(methods[method].body)
        defined.append(f"std::vector<double> {name}::{text}() {{\n{body}}}\n")
        if text != "get_lrs":
            private.append(f"std::vector<double> {text}();")
    for field, kind in fields.items():
        if field not in BASE_FIELDS:
            private.append(f"{'IntList' if kind == 'counter' else py_types.field(kind)} {field};")
    lines = "".join(f"  {d}\n" for d in declared) + "\n private:\n" + "".join(f"  {p}\n" for p in private)
    return f"{prose}class LOHE_API {name} : public {base} {{\n public:\n{lines}}};\n", "\n".join(defined)


def generate(source: Path, rows: list[Row], forms: list[cpp_api.Form]) -> dict[str, str]:
    library = Library(source, rows, forms)
    path = source / "python" / "lohe" / "optim" / "lr_scheduler.py"
    nodes = {n.name: n for n in ast.parse(path.read_text()).body if isinstance(n, ast.ClassDef)}
    parts = []
    for name in CLASSES:
        try:
            parts.append(translate(nodes[name], library))
        except Unsupported as error:
            raise SystemExit(f"{path.name}: {name}: {error}") from error
    notice = "// Generated from python/lohe/optim by tools/gen/optim_schedules.py.\n\n"
    return {
        "lohe/optim_schedules.h": f'#pragma once\n\n{notice}#include "lohe/lr_scheduler.h"\n\nnamespace lohe::optim {{\n\n'
        + "\n".join(declared for declared, _ in parts)
        + "\n}  // namespace lohe::optim\n",
        "optim/schedules.cpp": f'{notice}#include <cmath>\n\n#include "lohe/optim_schedules.h"\n#include "nn/python_lists.h"\n\n'
        "namespace lohe::optim {\n\nnamespace detail {\nusing namespace nn::detail;  // NOLINT\n}\n\n"
        + "\n".join(defined for _, defined in parts)
        + "\n}  // namespace lohe::optim\n",
    }
