"""Calls that the translator of nn_to_cpp.py knows by name: Python's own functions, and helpers of python/lohe/nn whose
C++ counterparts are written by hand in src/nn/python_text.h and src/nn/python_lists.h, since they look at types.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import TYPE_CHECKING

from nn_lists import ELEMENT

if TYPE_CHECKING:
    from nn_to_cpp import Body

REPEATED = {"_single": 1, "_pair": 2, "_triple": 3, "_quadruple": 4, "_ntuple(6, '_sextuple')": 6}


def product(body: Body, node: ast.Call) -> tuple[str, str]:
    return f"detail::product({body.as_type(node.args[0], 'ints')})", "int"


def window(body: Body, node: ast.Call) -> tuple[str, str]:
    size, count = body.as_type(node.args[0], "ints"), body.as_type(node.args[1], "int")
    return f"detail::product(detail::repeated({size}, {count}))", "int"


def total(body: Body, node: ast.Call) -> tuple[str, str] | None:
    code, kind = body.expression(node.args[0])
    return (f"detail::sum({code})", "int") if kind == "pair" else None


def length(body: Body, node: ast.Call) -> tuple[str, str]:
    code, kind = body.expression(node.args[0])
    if kind not in ELEMENT:
        code = body.as_type(node.args[0], "ints")
    return f"static_cast<int64_t>({code}.size())", "int"


def written_set(body: Body, node: ast.Call) -> tuple[str, str] | None:
    assert body.library is not None
    found = body.library.constants.get(ast.unparse(node.args[0]))
    if found is None:
        return None
    return '"{' + ", ".join(repr(ast.literal_eval(e)) for e in found.elts) + '}"', "str"


def text_of(body: Body, node: ast.Call) -> tuple[str, str]:
    return f"detail::python_text({body.expression(node.args[0])[0]})", "str"


def class_of(body: Body, node: ast.Call) -> tuple[str, str] | None:
    kind = body.expression(node.args[0])[1]
    return ("\"<class 'lohe.Tensor'>\"", "str") if kind.rstrip("?") == "Tensor" else None


def number(body: Body, node: ast.Call) -> tuple[str, str] | None:
    """float("inf"); numbers are Body's."""
    if isinstance(node.args[0], ast.Constant) and node.args[0].value in ("inf", "-inf"):
        sign = "-" if node.args[0].value == "-inf" else ""
        return f"{sign}std::numeric_limits<double>::infinity()", "float"
    return None


def truth(body: Body, node: ast.Call) -> tuple[str, str] | None:
    code, kind = body.expression(node.args[0])
    return (f"{code}.item<bool>()", "bool") if kind == "Tensor" else None


def reduction_number(body: Body, node: ast.Call) -> tuple[str, str]:
    return f"detail::reduction_number({body.as_type(node.args[0], 'str')})", "int?"


def broadcast_tensors(body: Body, node: ast.Call) -> tuple[str, str] | None:
    assert body.library is not None
    if len(node.args) != 2 or "broadcast_tensors" not in body.library.forms:
        return None
    return f"detail::broadcast({', '.join(body.as_type(a, 'Tensor') for a in node.args)})", "tensors"


def broadcast_shapes(body: Body, node: ast.Call) -> tuple[str, str]:
    return f"detail::broadcast_shapes({', '.join(body.as_type(a, 'ints') for a in node.args)})", "ints"


def padding_for_pad(body: Body, node: ast.Call) -> tuple[str, str]:
    """Of ints: each of them twice, the last dim first."""
    return f"detail::reversed_twice({body.as_type(node.args[0], 'ints')})", "ints"


def strides(body: Body, node: ast.Call) -> tuple[str, str]:
    code, kind = body.expression(node.args[0])
    return (f"detail::or_empty({code})" if kind == "ints?" else body.as_type(node.args[0], "ints")), "ints"


def adaptive_sizes(body: Body, node: ast.Call) -> tuple[str, str]:
    sizes, tensor, count = (
        body.as_type(a, k) for a, k in zip(node.args, ("optional_ints", "Tensor", "int"), strict=True)
    )
    return f"detail::adaptive_sizes({sizes}, {tensor}, {count})", "ints"


def scalar_tensor(body: Body, node: ast.Call) -> tuple[str, str] | None:
    dtypes = {k.arg: ast.unparse(k.value) for k in node.keywords}
    if len(node.args) == 1 and dtypes.get("dtype") == "lohe.long":
        return f"lohe::tensor({body.as_type(node.args[0], 'int')}, kInt64)", "Tensor"
    return None


def activation(body: Body, node: ast.Call) -> tuple[str, str]:
    return body.as_type(node.args[0], "activation"), "activation"


CALLS: dict[str, Callable[[Body, ast.Call], tuple[str, str] | None]] = {
    "math.prod": product,
    "_window": window,
    "sum": total,
    "len": length,
    "set": written_set,
    "str": text_of,
    "type": class_of,
    "float": number,
    "bool": truth,
    "_REDUCTIONS.get": reduction_number,
    "lohe.broadcast_tensors": broadcast_tensors,
    "lohe.broadcast_shapes": broadcast_shapes,
    "_padding_for_pad": padding_for_pad,
    "_strides": strides,
    "_sizes": adaptive_sizes,
    "lohe.tensor": scalar_tensor,
    "_get_activation_fn": activation,
}


def call(body: Body, text: str, node: ast.Call) -> tuple[str, str] | None:
    """The call of the function called `text`, or None where it is none of these."""
    if text in REPEATED and len(node.args) == 1:
        return f"detail::repeated({body.as_type(node.args[0], 'ints')}, {REPEATED[text]})", "ints"
    found = CALLS.get(text)
    return None if found is None or not node.args else found(body, node)
