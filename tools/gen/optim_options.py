"""Options of the C++ optimizers (lohe/optim_options.h): names and defaults from the classes of python/lohe/optim."""

from __future__ import annotations

import ast
from pathlib import Path

CLASSES = {"sgd.py": ("SGD",), "adam.py": ("Adam", "AdamW"), "rmsprop.py": ("RMSprop",)}
# How Python chooses between implementations; files name them too.
PYTHON_ONLY = ("foreach", "differentiable", "fused", "capturable", "decoupled_weight_decay")
TYPES = {
    "float": "double",
    "float | Tensor": "double",
    "bool": "bool",
    "tuple[float | Tensor, float | Tensor]": "TwoNumbers",
}


def options_of(node: ast.ClassDef, path: str) -> str:
    init = next(i for i in node.body if isinstance(i, ast.FunctionDef) and i.name == "__init__")
    arguments = init.args.args[1:]
    defaults = [None] * (len(arguments) - len(init.args.defaults)) + list(init.args.defaults)
    pairs = [*zip(arguments, defaults), *zip(init.args.kwonlyargs, init.args.kw_defaults)]
    name = f"{node.name}Options"
    lines = [
        f"class {name} : public OptimizerCloneableOptions<{name}> {{\n public:\n"
        f"  {name}() = default;\n  {name}(double lr) : lr_(lr) {{}}\n"
    ]
    fields, visited, others = [], "", ""
    for arg, default in pairs:
        if arg.arg == "params":
            continue
        if default is None:
            raise SystemExit(f"{path}:{arg.lineno}: {node.name}: the option {arg.arg} has no default")
        value = ast.literal_eval(default)
        if arg.arg in PYTHON_ONLY:
            text = "IValue()" if value is None else f"IValue({str(value).lower()})"
            others += f'    f("{arg.arg}", {text});\n'
            continue
        kind = TYPES.get(ast.unparse(arg.annotation)) if arg.annotation else None
        if kind is None:
            raise SystemExit(f"{path}:{arg.lineno}: {node.name}: no C++ type for the option {arg.arg}")
        text = "{" + ", ".join(map(repr, value)) + "}" if isinstance(value, tuple) else str(value).lower()
        visited += f'    f("{arg.arg}", {arg.arg}_);\n'
        fields.append(f"  LOHE_ARG({kind}, {arg.arg}) = {text};\n")
    lines.append(f"  template <class F>\n  void visit(const F& f) {{\n{visited}  }}\n")
    lines.append(f"  template <class F>\n  static void python_only(const F& f) {{\n{others}  }}\n")
    return "".join([*lines, *fields]) + "};\n"


def generate(source: Path) -> dict[str, str]:
    parts = []
    for name, classes in CLASSES.items():
        path = source / "python" / "lohe" / "optim" / name
        nodes = {n.name: n for n in ast.parse(path.read_text()).body if isinstance(n, ast.ClassDef)}
        parts += [options_of(nodes[c], f"python/lohe/optim/{name}") for c in classes]
    return {
        "lohe/optim_options.h": "#pragma once\n\n// Generated from python/lohe/optim by tools/gen/optim_options.py.\n\n"
        '#include "lohe/optim_base.h"\n\nnamespace lohe::optim {\n\n' + "\n".join(parts) + "\n}  // namespace lohe::optim\n"
    }
