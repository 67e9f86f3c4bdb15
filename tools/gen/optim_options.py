"""Options of the C++ optimizers (lohe/optim_options.h): names and defaults from the classes of python/lohe/optim."""

from __future__ import annotations

import ast
from pathlib import Path

CLASSES = {"sgd.py": ("SGD",), "adam.py": ("Adam", "AdamW")}
# How Python chooses between implementations; C++ always calls the fused op.
PYTHON_ONLY = ("params", "foreach", "differentiable", "fused", "capturable", "decoupled_weight_decay")
TYPES = {
    "float": "double",
    "float | Tensor": "double",
    "bool": "bool",
    "tuple[float | Tensor, float | Tensor]": "std::tuple<double, double>",
}


def options_of(node: ast.ClassDef, path: str) -> str:
    init = next(i for i in node.body if isinstance(i, ast.FunctionDef) and i.name == "__init__")
    arguments = init.args.args[1:]
    defaults = [None] * (len(arguments) - len(init.args.defaults)) + list(init.args.defaults)
    pairs = [*zip(arguments, defaults), *zip(init.args.kwonlyargs, init.args.kw_defaults)]
    lines = [
        f"struct {node.name}Options {{\n  {node.name}Options() = default;\n  {node.name}Options(double lr) : lr_(lr) {{}}\n"
    ]
    for arg, default in pairs:
        if arg.arg in PYTHON_ONLY:
            continue
        kind = TYPES.get(ast.unparse(arg.annotation)) if arg.annotation else None
        if kind is None or default is None:
            raise SystemExit(f"{path}:{arg.lineno}: {node.name}: no C++ type for the option {arg.arg}")
        value = ast.literal_eval(default)
        text = "{" + ", ".join(map(repr, value)) + "}" if isinstance(value, tuple) else str(value).lower()
        kind = "TwoNumbers" if kind.startswith("std::tuple") else kind
        lines.append(f"  LOHE_ARG({kind}, {arg.arg}) = {text};\n")
    return "".join(lines) + "};\n"


def generate(source: Path) -> dict[str, str]:
    parts = []
    for name, classes in CLASSES.items():
        path = source / "python" / "lohe" / "optim" / name
        nodes = {n.name: n for n in ast.parse(path.read_text()).body if isinstance(n, ast.ClassDef)}
        parts += [options_of(nodes[c], f"python/lohe/optim/{name}") for c in classes]
    return {
        "lohe/optim_options.h": "#pragma once\n\n// Generated from python/lohe/optim by tools/gen/optim_options.py.\n\n"
        '#include <tuple>\n\n#include "lohe/nn/module.h"\n\nnamespace lohe::optim {\n\n'
        "using TwoNumbers = std::tuple<double, double>;\n\n" + "\n".join(parts) + "\n}  // namespace lohe::optim\n"
    }
