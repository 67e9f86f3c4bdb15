"""Options of functions of lohe::nn::functional, as `F::max_pool2d(x, F::MaxPool2dFuncOptions(2).stride(1))` takes them."""

from __future__ import annotations

from collections.abc import Iterable

import cpp_types
import py_types
from nn_to_cpp import Signature


def options_name(function: str, layers: Iterable[str]) -> str:
    """After the layer of the function, `MSELoss` for mse_loss; `CrossEntropy` for cross_entropy."""
    plain = function.replace("_", "")
    for layer in layers:
        if layer.lower() == plain:
            return f"{layer}FuncOptions"
        if layer.lower() == plain + "loss":
            return f"{layer.removesuffix('Loss')}FuncOptions"
    return "".join(word[:1].upper() + word[1:] for word in function.split("_")) + "FuncOptions"


def options_of(function: str, signature: Signature, layers: Iterable[str]) -> str:
    """The options and the overload that takes them; empty for a function of tensors alone."""
    tensors = 0
    for _, kind, default in signature.params:
        if kind != "Tensor" or default is not None:
            break
        tensors += 1
    options = signature.params[tensors:]
    if not options or tensors == 0:
        return ""
    name = options_name(function, layers)
    required = [(cpp_types.cpp_name(n), py_types.field(k)) for n, k, d in options if d is None]
    lines = [f"/// Options of {function}.\nclass {name} {{\n public:\n"]
    if required:
        arguments = ", ".join(f"{kind} {n}" for n, kind in required)
        inits = ", ".join(f"{n}_(std::move({n}))" for n, _ in required)
        lines.append(f"  explicit {name}({arguments}) : {inits} {{}}\n")
        if len(required) == 1 and required[0][1] in ("IntList", "OptionalIntList"):  # else ({3}) could be a copy, too
            only, kind = required[0]
            lines.append(f"  explicit {name}(int64_t {only}) : {name}({kind}({only})) {{}}\n")
    else:
        first, kind, _ = options[0]
        first = cpp_types.cpp_name(first)
        lines.append(f"  {name}() = default;\n")
        lines.append(f"  explicit {name}({py_types.field(kind)} {first}) : {first}_(std::move({first})) {{}}\n")
    for n, kind, default in options:
        value = f" = {default}" if default is not None else ""
        lines.append(f"  LOHE_ARG({py_types.option(kind)}, {cpp_types.cpp_name(n)}){value};\n")
    given = [(cpp_types.cpp_name(n), py_types.parameter(k)) for n, k, _ in signature.params[:tensors]]
    arguments = ", ".join(f"{kind} {n}" for n, kind in given)
    passed = [n for n, _ in given] + [f"options.{cpp_types.cpp_name(n)}()" for n, _, _ in options]
    lines.append(
        f"}};\ninline {py_types.field(signature.result)} {function}({arguments}, const {name}& options) {{\n"
        f"  return functional::{function}({', '.join(passed)});\n}}\n"
    )
    return "".join(lines)
