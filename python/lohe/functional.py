"""Functions of the package that are written in Python: shapes and type questions."""

from __future__ import annotations

from typing import Any

from lohe import _C
from lohe._tensor import Tensor

__all__ = [
    "broadcast_shapes",
    "cdist",
    "einsum",
    "from_dlpack",
    "get_default_device",
    "is_complex",
    "is_conj",
    "is_floating_point",
    "is_inference",
    "is_neg",
    "is_nonzero",
    "is_signed",
    "is_storage",
    "is_tensor",
    "is_warn_always_enabled",
    "nonzero",
    "numel",
    "set_default_device",
    "set_default_dtype",
    "set_default_tensor_type",
    "tensordot",
    "to_dlpack",
    "typename",
    "unique",
    "unique_consecutive",
]


def broadcast_shapes(*shapes: Any) -> _C.Size:
    """The shape that tensors of these shapes broadcast to; a plain int stands for a shape of one dimension."""
    result: list[int] = []
    for shape in shapes:
        sizes = [shape] if isinstance(shape, int) else list(shape)
        if any(s < 0 for s in sizes):
            raise RuntimeError(f"Trying to create tensor with negative dimension ({min(sizes)}): ({min(sizes)})")
        result = [1] * (len(sizes) - len(result)) + result
        for i in range(1, len(sizes) + 1):
            if sizes[-i] == 1 or sizes[-i] == result[-i]:
                continue
            if result[-i] != 1:
                raise RuntimeError(
                    "Shape mismatch: objects cannot be broadcast to a single shape, got "
                    + ", ".join(str(tuple(s) if not isinstance(s, int) else (s,)) for s in shapes)
                )
            result[-i] = sizes[-i]
    return _C.Size(result)


def is_tensor(obj: Any) -> bool:
    """Whether `obj` is a Tensor."""
    return isinstance(obj, Tensor)


def is_storage(obj: Any) -> bool:
    """Whether `obj` is a storage."""
    return isinstance(obj, _C.UntypedStorage)


def _question(name: str) -> Any:
    def ask(input: Tensor) -> Any:
        if not isinstance(input, Tensor):
            raise TypeError(f"{name}(): argument 'input' (position 1) must be Tensor, not {type(input).__name__}")
        return getattr(input, name)()

    ask.__name__ = ask.__qualname__ = name
    ask.__doc__ = f"``input.{name}()``"
    return ask


is_floating_point = _question("is_floating_point")
is_complex = _question("is_complex")
is_signed = _question("is_signed")
is_conj = _question("is_conj")
is_neg = _question("is_neg")
is_inference = _question("is_inference")
numel = _question("numel")


def is_nonzero(input: Tensor) -> bool:
    """Whether the only element is not zero."""
    if input.numel() == 0:
        raise RuntimeError("Boolean value of Tensor with no values is ambiguous")
    return bool(input)


def typename(obj: Any) -> str:
    """The name of an object's type, with its module."""
    if isinstance(obj, Tensor):
        return obj.type()
    module = getattr(obj, "__module__", "") or ""
    name = getattr(obj, "__qualname__", None) or type(obj).__name__
    return name if module in ("builtins", "__builtin__", "") else f"{module}.{name}"


def set_default_dtype(d: _C.dtype) -> None:
    """Sets the dtype of tensors made from Python floats."""
    _C._set_default_dtype(d)


def set_default_tensor_type(t: Any) -> None:
    """Sets the default dtype by the name of a tensor type."""
    from lohe import _legacy

    name = t.rsplit(".", 1)[-1] if isinstance(t, str) else getattr(t, "__name__", str(t))
    if name not in _legacy.TYPES:
        raise TypeError(f"invalid type object: {t!r}")
    _C._set_default_dtype(_legacy.TYPES[name].dtype)


def set_default_device(device: Any) -> None:
    """Accepts the CPU, the only device."""
    if device is not None:
        _C.device(device)


def get_default_device() -> _C.device:
    """The CPU."""
    return _C.device("cpu")


def is_warn_always_enabled() -> bool:
    """Whether every warning is given each time; Python's warning filters decide here."""
    return False


def from_dlpack(ext_tensor: Any, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """A tensor over the memory of an object with ``__dlpack__``, or of a DLPack capsule."""
    if device is not None:
        _C.device(device)
    if not hasattr(ext_tensor, "__dlpack__"):
        return _C._from_dlpack(ext_tensor)
    try:
        capsule = ext_tensor.__dlpack__(max_version=(1, 0))
    except TypeError:
        capsule = ext_tensor.__dlpack__()
    made = _C._from_dlpack(capsule)
    return made.clone() if copy else made


def to_dlpack(tensor: Tensor) -> Any:
    """A DLPack capsule over the tensor's memory."""
    return tensor.__dlpack__()


def nonzero(input: Tensor, *, out: Tensor | None = None, as_tuple: bool = False) -> Any:
    """Indices of the elements that are not zero: one row each, or with `as_tuple` one tensor a dimension."""
    if not as_tuple:
        return _C._functions.nonzero(input) if out is None else _C._functions.nonzero(input, out=out)
    if out is not None:
        raise TypeError("nonzero(): out= takes one tensor, the result with as_tuple=True is several")
    return tuple(_C._functions.nonzero_numpy(input))


_CDIST_MODES = ("use_mm_for_euclid_dist_if_necessary", "use_mm_for_euclid_dist", "donot_use_mm_for_euclid_dist")


def cdist(
    x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str = "use_mm_for_euclid_dist_if_necessary"
) -> Tensor:
    """The p-norm of the difference of every row of `x1` and every row of `x2`.

    `compute_mode` is accepted for compatibility: distances are always computed from the differences.
    """
    if compute_mode not in _CDIST_MODES:
        raise ValueError(f"{compute_mode} is not a valid value for compute_mode, expected one of {_CDIST_MODES}")
    return _C.ops.cdist(x1, x2, p, None)


def unique(
    input: Tensor,
    sorted: bool = True,
    return_inverse: bool = False,
    return_counts: bool = False,
    dim: int | None = None,
) -> Any:
    """The distinct elements in order (with `dim` the distinct slices), then if asked for where each element
    went and how often each comes."""
    if dim is None:
        found = _C._functions._unique2(input, sorted, return_inverse, return_counts)
    else:
        found = _C._functions.unique_dim(input, dim, sorted, return_inverse, return_counts)
    return _chosen(found, return_inverse, return_counts)


def unique_consecutive(
    input: Tensor, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Any:
    """One of each run of equal neighbours, then if asked for where each element went and how long each run is."""
    found = _C._functions.unique_consecutive(input, return_inverse, return_counts, dim)
    return _chosen(found, return_inverse, return_counts)


def _chosen(found: Any, inverse: bool, counts: bool) -> Any:
    chosen = (found[0], *([found[1]] if inverse else []), *([found[2]] if counts else []))
    return chosen if len(chosen) > 1 else found[0]


def tensordot(a: Tensor, b: Tensor, dims: Any = 2, out: Tensor | None = None) -> Tensor:
    """The sum of products over pairs of dimensions: the last `dims` of `a` and the first of `b`, or those in
    two lists of the same length."""
    if isinstance(dims, Tensor):
        dims = dims.tolist()
    if isinstance(dims, (tuple, list)):
        if len(dims) != 2:
            raise RuntimeError(f"tensordot(): dims must be an int or two lists of dimensions, got {dims!r}")
        over = [[d] if isinstance(d, int) else list(d) for d in dims]
    else:
        count = int(dims)
        if count < 0:
            raise RuntimeError(f"tensordot expects dims >= 0, but got dims={count}")
        if count > min(a.dim(), b.dim()):
            raise RuntimeError(
                f"tensordot expects dims <= the number of dimensions of a and b ({a.dim()}, {b.dim()}), but got dims={count}"
            )
        over = [list(range(-count, 0)), list(range(count))]
    if out is None:
        return _C._functions.tensordot(a, b, *over)
    return _C._functions.tensordot(a, b, *over, out=out)


def einsum(*args: Any) -> Tensor:
    """The sum of products that an equation such as ``"ij,jk->ik"`` names, or operands and lists of subscripts
    in turn: ``einsum(a, [0, 1], b, [1, 2], [0, 2])``. The operands are combined from the left to the right."""
    if len(args) < 2:
        raise ValueError(
            "einsum(): must specify the equation string and at least one operand, "
            "or at least one operand and its subscripts list"
        )
    if isinstance(args[0], Tensor):
        # Numbers 0 to 51 stand for letters, an Ellipsis for "...".
        def term(subscripts: Any) -> str:
            return "".join(map(_subscript, subscripts))

        equation = ",".join(map(term, args[1::2][: len(args) // 2]))
        if len(args) % 2 == 1:
            equation += "->" + term(args[-1])
        operands = list(args[: len(args) // 2 * 2 : 2])
    else:
        equation, operands = args[0], list(args[1:])
        if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
            operands = list(operands[0])
    return _C._functions.einsum(equation, operands)


def _subscript(s: Any) -> str:
    if s is Ellipsis:
        return "..."
    if 0 <= s < 26:
        return chr(ord("A") + s)
    if 26 <= s < 52:
        return chr(ord("a") + s - 26)
    raise ValueError("einsum(): subscript in subscript list is not within the valid range [0, 52)")
