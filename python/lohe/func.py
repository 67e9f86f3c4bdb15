"""Transforms of functions: vectorization (vmap) and differentiation (grad, vjp, jvp, Jacobians), which nest in any order."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import lohe
from lohe import _C
from lohe._modes import enable_grad
from lohe._tensor import Tensor
from lohe._tree import Structure, broadcast_prefix, flatten, map_leaves, unflatten

__all__ = [
    "functional_call",
    "grad",
    "grad_and_value",
    "hessian",
    "jacfwd",
    "jacrev",
    "jvp",
    "linearize",
    "stack_module_state",
    "vjp",
    "vmap",
]


def _name(func: Callable) -> str:
    return getattr(func, "__name__", repr(func))


# --- vmap


def _batched_inputs(func: Callable, in_dims: Any, args: tuple) -> tuple[list, list, Structure, int]:
    """Leaves, the mapped dim of each (None: not mapped), their structure, and the batch size."""
    if not isinstance(in_dims, (int, tuple)):
        raise ValueError(
            f"vmap({_name(func)}, in_dims={in_dims}, ...)(<inputs>): expected `in_dims` to be int or a (potentially nested) "
            f"tuple matching the structure of inputs, got: {type(in_dims)}."
        )
    if not args:
        raise ValueError(
            f"vmap({_name(func)})(<inputs>): got no inputs. Maybe you forgot to add inputs, or you are trying to vmap over a "
            "function with no inputs. The latter is unsupported."
        )
    leaves, structure = flatten(args)
    dims = broadcast_prefix(in_dims, structure)
    if dims is None:
        raise ValueError(
            f"vmap({_name(func)}, in_dims={in_dims}, ...)(<inputs>): in_dims is not compatible with the structure of `inputs`."
        )
    sizes = []
    for i, (leaf, dim) in enumerate(zip(leaves, dims)):
        where = f"vmap({_name(func)}, in_dims={in_dims}, ...)(<inputs>): Got in_dim={dim} for an input"
        if dim is None:
            continue
        if not isinstance(dim, int):
            raise ValueError(f"{where} but in_dim must be either an integer dimension or None.")
        if not isinstance(leaf, Tensor):
            raise ValueError(
                f"{where} but the input is of type {type(leaf)}. We cannot vmap over non-Tensor arguments, please use None as "
                "the respective in_dim"
            )
        if not -leaf.dim() <= dim < leaf.dim():
            raise ValueError(
                f"{where}, but that input is a Tensor of dimensionality {leaf.dim()} so expected in_dim to satisfy "
                f"-{leaf.dim()} <= in_dim < {leaf.dim()}."
            )
        dims[i] = dim % leaf.dim()
        sizes.append(leaf.size(dims[i]))
    if not sizes:
        raise ValueError(
            f"vmap({_name(func)}, in_dims={in_dims}, ...)(<inputs>): at least one input must be mapped, but every in_dim is None"
        )
    if any(size != sizes[0] for size in sizes):
        raise ValueError(
            f"vmap: Expected all tensors to have the same size in the mapped dimension, got sizes {sizes} for the mapped dimension"
        )
    return leaves, dims, structure, sizes[0]


def _unbatched_output(func: Callable, value: Any, dim: Any, level: int, batch: int) -> tuple[Tensor, int | None]:
    """The tensor with its batch dim first, and where that dim goes (None: nowhere)."""
    if not isinstance(value, Tensor):
        raise ValueError(f"vmap({_name(func)}, ...): `{_name(func)}` must only return Tensors, got type {type(value)}. "
                         "Did you mean to set out_dims= to None for output?")
    physical = _C._vmap_unwrap(value, level)
    if dim is None:
        if physical is not None:
            raise ValueError(
                f"vmap({_name(func)}, ...): `{_name(func)}` can not return a BatchedTensor when out_dim is None: it differs from "
                "example to example"
            )
        return value, None
    if not isinstance(dim, int):
        raise ValueError(f"vmap({_name(func)}, ...): out_dims must be ints or None, got {dim!r}")
    return (value.expand(batch, *value.shape) if physical is None else physical), dim


def _run_vmap(
    func: Callable, out_dims: Any, randomness: str, inputs: tuple[list, list, Structure, int], kwargs: dict
) -> tuple[list, list, Structure]:
    """The leaves of the result, the dim of each that runs over the batch, and their structure."""
    leaves, dims, structure, batch = inputs
    level = _C._vmap_push(batch, randomness)
    try:
        wrapped = [leaf if dim is None else _C._vmap_wrap(leaf, dim, level) for leaf, dim in zip(leaves, dims)]
        result = func(*unflatten(wrapped, structure), **kwargs)
        outputs, shape = flatten(result)
        positions = broadcast_prefix(out_dims, shape)
        if positions is None and isinstance(out_dims, tuple) and len(out_dims) == len(outputs) == 1:
            positions = list(out_dims)
        if positions is None:
            raise ValueError(
                f"vmap({_name(func)}, ..., out_dims={out_dims}): out_dims is not compatible with the structure of the outputs"
            )
        found = [_unbatched_output(func, value, dim, level, batch) for value, dim in zip(outputs, positions)]
    finally:
        _C._vmap_pop()
    moved = []
    for value, dim in found:
        if dim is not None and not -value.dim() <= dim < value.dim():
            raise IndexError(
                f"Dimension out of range (expected to be in range of [-{value.dim()}, {value.dim() - 1}], but got {dim})"
            )
        moved.append(value.movedim(0, dim) if dim else value)
    return moved, positions, shape


def vmap(
    func: Callable,
    in_dims: Any = 0,
    out_dims: Any = 0,
    randomness: str = "error",
    *,
    chunk_size: int | None = None,
) -> Callable:
    """`func` for one example made a function of a batch of examples.

    `in_dims`: which dim of each input runs over the examples (None: all examples share the input), an int or a tuple nested as
    the inputs are. `out_dims`: where that dim stands in each result. `randomness`: whether random ops raise ("error"), give
    every example the same numbers ("same") or each its own ("different"). `chunk_size`: so many examples at a time.

    Inside, tensors lack the mapped dim. Ops whose result shape, or Python code whose course, depends on values raise
    RuntimeError; wrong dims and sizes raise ValueError.
    """
    if randomness not in ("error", "different", "same"):
        raise RuntimeError(f"Only allowed values for randomness are 'error', 'different', or 'same'. Got {randomness}")
    if chunk_size is not None and chunk_size <= 0:
        raise ValueError(f"vmap: chunk_size should be None or greater than 0. (got {chunk_size})")

    @functools.wraps(func)
    def mapped(*args: Any, **kwargs: Any) -> Any:
        inputs = _batched_inputs(func, in_dims, args)
        leaves, dims, structure, batch = inputs
        if chunk_size is None or chunk_size >= batch:
            values, _, shape = _run_vmap(func, out_dims, randomness, inputs, kwargs)
            return unflatten(values, shape)
        chunks = []
        for start in range(0, batch, chunk_size):
            size = min(chunk_size, batch - start)
            part = [x if dim is None else x.narrow(dim, start, size) for x, dim in zip(leaves, dims)]
            chunks.append(_run_vmap(func, out_dims, randomness, (part, dims, structure, size), kwargs))
        positions, shape = chunks[0][1:]
        joined = [
            column[0] if dim is None else lohe.cat(column, dim)
            for dim, column in zip(positions, zip(*(values for values, _, _ in chunks)))
        ]
        return unflatten(joined, shape)

    return mapped


# --- reverse mode


def _picked(argnums: Any, args: tuple) -> Any:
    """The arguments to differentiate by: one of them, or a tuple."""
    numbers = (argnums,) if isinstance(argnums, int) else argnums
    if not isinstance(numbers, tuple) or not all(isinstance(n, int) for n in numbers):
        raise RuntimeError(f"argnums must be int or Tuple[int, ...], got: {type(argnums)}")
    if not numbers:
        raise RuntimeError("argnums must be non-empty")
    for n in numbers:
        if not -len(args) <= n < len(args):
            raise RuntimeError(f"Got argnum={n}, but only {len(args)} positional inputs")
    if len({n % len(args) for n in numbers}) != len(numbers):
        raise RuntimeError(f"argnums elements must be unique: {argnums}")
    return args[argnums] if isinstance(argnums, int) else tuple(args[n] for n in numbers)


def _replaced(argnums: Any, args: tuple, values: Any) -> tuple:
    full = list(args)
    for n, value in [(argnums, values)] if isinstance(argnums, int) else zip(argnums, values):
        full[n] = value
    return tuple(full)


def _require_tensors(leaves: list, what: str) -> None:
    for leaf in leaves:
        if not isinstance(leaf, Tensor):
            raise RuntimeError(f"{what}: Expected all inputs to be Tensors, got {type(leaf)}. Please use argnums to pick them.")


class _Level:
    """One differentiation: its inputs, and how its results leave it."""

    def __init__(self, inputs: list, what: str) -> None:
        _require_tensors(inputs, what)
        self.recording = _C._grad_mode()
        with enable_grad():
            self.inputs = [_C._tracked_alias(x) for x in inputs]

    def out(self, value: Any) -> Any:
        """Without what was recorded for this level alone."""
        if not isinstance(value, Tensor):
            return value
        return _C._without_history(value, tuple(self.inputs), not self.recording)

    def close(self) -> None:
        """From now on history that leads to the inputs alone counts as none, for the levels around this one."""
        for x in self.inputs:
            _C._release_leaf(x)

    def backward(self, outputs: list, cotangents: list) -> list:
        """Gradients of the outputs that depend on inputs, weighted; zeros where there is no path."""
        pairs = [(y, g) for y, g in zip(outputs, cotangents) if y.requires_grad]
        found: Sequence = [None] * len(self.inputs)
        with enable_grad():
            if pairs:
                roots, weights = zip(*pairs)
                found = _C._run_backward(roots, weights, True, True, tuple(self.inputs), True, False)
            return [lohe.zeros_like(x) if g is None else g for x, g in zip(self.inputs, found)]


def _with_aux(result: Any, has_aux: bool, what: str) -> tuple[Any, Any]:
    if not has_aux:
        return result, None
    if not (isinstance(result, tuple) and len(result) == 2):
        raise RuntimeError(
            f"{what}: output of function f should be a tuple: (output, aux) if has_aux is True"
        )
    return result


def grad_and_value(func: Callable, argnums: int | tuple[int, ...] = 0, has_aux: bool = False) -> Callable:
    """A function that gives (gradient, value) of the scalar function `func`; with `has_aux` (gradient, (value, aux))."""

    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        leaves, structure = flatten(_picked(argnums, args))
        level = _Level(leaves, "grad_and_value(f)(*args)")
        with enable_grad():
            inputs = unflatten(level.inputs, structure)
            value, aux = _with_aux(func(*_replaced(argnums, args, inputs), **kwargs), has_aux, "grad_and_value(f)(*args)")
            if not isinstance(value, Tensor):
                raise RuntimeError(
                    f"Expected the value returned by the function to be a Tensor with one element, got {type(value)}"
                )
            if value.dim() != 0:
                raise RuntimeError(
                    "Expected f(*args) to return a scalar tensor, got tensor with "
                    f"{value.dim()} dims. Maybe you wanted to use the vjp or jacrev APIs instead?"
                )
            gradients = level.backward([value], [lohe.ones_like(value)])
        result = unflatten([level.out(g) for g in gradients], structure)
        value = level.out(value)
        aux = map_leaves(level.out, aux)
        level.close()
        return (result, (value, aux)) if has_aux else (result, value)

    return wrapper


def grad(func: Callable, argnums: int | tuple[int, ...] = 0, has_aux: bool = False) -> Callable:
    """A function that gives the gradient of the scalar function `func`; with `has_aux` (gradient, aux)."""
    both = grad_and_value(func, argnums, has_aux)

    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        gradient, value = both(*args, **kwargs)
        return (gradient, value[1]) if has_aux else gradient

    return wrapper


def vjp(func: Callable, *primals: Any, has_aux: bool = False) -> Any:
    """(func(*primals), vjp_fn) with vjp_fn(cotangents) the vector-Jacobian products, one for each primal; with `has_aux`
    also the second result of `func`."""
    leaves, structure = flatten(primals)
    level = _Level(leaves, "vjp(f, *primals)")
    with enable_grad():
        result, aux = _with_aux(func(*unflatten(level.inputs, structure)), has_aux, "vjp(f, *primals)")
    outputs, shape = flatten(result)
    for value in outputs:
        if not isinstance(value, Tensor):
            raise RuntimeError(f"vjp(f, *primals): Expected f(*primals) to return only tensors, got unsupported type {type(value)}")

    def vjp_fn(cotangents: Any, retain_graph: bool = True, create_graph: bool | None = None) -> Any:
        given, given_shape = flatten(cotangents)
        if given_shape != shape:
            raise RuntimeError("Expected pytree structure of cotangents to be the same as pytree structure of outputs to the function.")
        gradients = [level.out(g) for g in level.backward(outputs, given)]
        return unflatten(gradients, structure)

    value, aux = unflatten([level.out(y) for y in outputs], shape), map_leaves(level.out, aux)
    level.close()
    return (value, vjp_fn, aux) if has_aux else (value, vjp_fn)


# --- forward mode


def jvp(func: Callable, primals: Any, tangents: Any, *, strict: bool = False, has_aux: bool = False) -> Any:
    """(func(*primals), Jacobian of func times tangents); with `has_aux` also the second result of `func`.

    `strict` raises RuntimeError for an output that does not depend on the inputs.
    """
    if not isinstance(primals, tuple) or not isinstance(tangents, tuple):
        raise RuntimeError(f"jvp(f, primals, tangents): Expected primals and tangents to be tuples, got {type(primals)}, {type(tangents)}")
    leaves, structure = flatten(primals)
    directions, tangent_structure = flatten(tangents)
    if structure != tangent_structure:
        raise RuntimeError("jvp(f, primals, tangents): Expected primals and tangents to have the same python structure.")
    _require_tensors(leaves, "jvp(f, primals, tangents)")
    _require_tensors(directions, "jvp(f, primals, tangents)")
    level = _C._jvp_push()
    try:
        duals = [_C._make_dual(p, t, level) for p, t in zip(leaves, directions)]
        result, aux = _with_aux(func(*unflatten(duals, structure)), has_aux, "jvp(f, primals, tangents)")
        outputs, shape = flatten(result)
        for value in outputs:
            if not isinstance(value, Tensor):
                raise RuntimeError(f"jvp(f, primals, tangents): Expected f to return only tensors, got unsupported type {type(value)}")
        pairs = [_C._unpack_dual(y, level) for y in outputs]
        aux = map_leaves(lambda x: _C._unpack_dual(x, level)[0] if isinstance(x, Tensor) else x, aux)
    finally:
        _C._jvp_pop()
    if strict and any(t is None for _, t in pairs):
        raise RuntimeError("jvp(f, primals, tangents, strict=True): The output of f is independent of the inputs. This is not allowed "
                           "with strict=True.")
    value = unflatten([p for p, _ in pairs], shape)
    tangent = unflatten([lohe.zeros_like(p) if t is None else t for p, t in pairs], shape)
    return (value, tangent, aux) if has_aux else (value, tangent)


def linearize(func: Callable, *primals: Any) -> tuple[Any, Callable]:
    """(func(*primals), jvp_fn) with jvp_fn(*tangents) the Jacobian of `func` at `primals` times the tangents."""
    return func(*primals), lambda *tangents: jvp(func, primals, tangents)[1]


# --- Jacobians


def _basis(tensors: list) -> list:
    """For every tensor the rows of its block of an identity matrix over all elements: shape (all elements, *tensor.shape)."""
    total = sum(t.numel() for t in tensors)
    start, result = 0, []
    for t in tensors:
        rows = lohe.zeros(total, t.numel(), dtype=t.dtype)
        rows.diagonal(-start).fill_(1)
        result.append(rows.view(total, *t.shape))
        start += t.numel()
    return result


def jacrev(
    func: Callable,
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
) -> Callable:
    """A function that gives the Jacobian of `func` by reverse mode: out.shape + in.shape, nested as outputs, then inputs.

    `chunk_size`: so many rows at a time.
    """

    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        picked = _picked(argnums, args)
        leaves, structure = flatten(picked)
        _require_tensors(leaves, "jacrev(f)(*args)")
        got = vjp(lambda x: func(*_replaced(argnums, args, x), **kwargs), picked, has_aux=has_aux)
        value, vjp_fn = got[:2]
        outputs, shape = flatten(value)
        rows = _basis(outputs)
        if outputs and sum(y.numel() for y in outputs) == 0:
            products = [lohe.zeros(0, *x.shape, dtype=x.dtype) for x in leaves]
        else:
            each = vmap(lambda basis: flatten(vjp_fn(unflatten(list(basis), shape)))[0], chunk_size=chunk_size)
            products = each(tuple(rows))
        blocks, start = [], 0
        for y in outputs:
            block = [g.narrow(0, start, y.numel()).reshape(*y.shape, *x.shape) for g, x in zip(products, leaves)]
            blocks.append(unflatten(block, structure))
            start += y.numel()
        result = unflatten(blocks, shape)
        return (result, got[2]) if has_aux else result

    return wrapper


def jacfwd(
    func: Callable, argnums: int | tuple[int, ...] = 0, has_aux: bool = False, *, randomness: str = "error"
) -> Callable:
    """A function that gives the Jacobian of `func` by forward mode: out.shape + in.shape, nested as outputs, then inputs."""

    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        picked = _picked(argnums, args)
        leaves, structure = flatten(picked)
        _require_tensors(leaves, "jacfwd(f)(*args)")
        shapes: list = []

        def push(basis: tuple) -> Any:
            direction = unflatten(list(basis), structure)
            got = jvp(lambda x: func(*_replaced(argnums, args, x), **kwargs), (picked,), (direction,), has_aux=has_aux)
            outputs, shape = flatten(got[1])
            shapes.append(shape)
            return (outputs, got[2]) if has_aux else outputs

        got = vmap(push, out_dims=(-1, 0) if has_aux else -1, randomness=randomness)(tuple(_basis(leaves)))
        columns = got[0] if has_aux else got
        blocks = []
        for column in columns:
            start, block = 0, []
            for x in leaves:
                block.append(column.narrow(-1, start, x.numel()).reshape(*column.shape[:-1], *x.shape))
                start += x.numel()
            blocks.append(unflatten(block, structure))
        result = unflatten(blocks, shapes[0])
        return (result, map_leaves(lambda x: x[0], got[1])) if has_aux else result

    return wrapper


def hessian(func: Callable, argnums: int | tuple[int, ...] = 0) -> Callable:
    """A function that gives the second derivatives of `func`: forward mode over reverse mode."""
    return jacfwd(jacrev(func, argnums), argnums)


# --- modules as functions


def functional_call(
    module: Any,
    parameter_and_buffer_dicts: Any,
    args: Any = None,
    kwargs: dict[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """``module(*args, **kwargs)`` with parameters and buffers replaced, by name, for this call.

    `tie_weights`: a tensor that the module holds under several names is replaced under all of them. `strict`: every parameter
    and buffer must be given, and nothing else. Raises RuntimeError for names that do not fit, ValueError where several dicts
    give one name.
    """
    if isinstance(parameter_and_buffer_dicts, dict):
        given = dict(parameter_and_buffer_dicts)
    else:
        given = {}
        for one in parameter_and_buffer_dicts:
            repeated = given.keys() & one.keys()
            if repeated:
                raise ValueError(f"{sorted(repeated)} appeared in multiple dictionaries; behavior of functional call is ambiguous")
            given.update(one)
    slots: dict[str, tuple[dict, str]] = {}
    for prefix, child in module.named_modules(remove_duplicate=False):
        for store in (child._parameters, child._buffers):
            for name in store:
                slots[f"{prefix}.{name}" if prefix else name] = (store, name)
    present = {name: store[key] for name, (store, key) in slots.items() if store[key] is not None}
    unknown = sorted(set(given) - slots.keys())
    if tie_weights:
        names: dict[int, list[str]] = {}
        for name, tensor in present.items():
            names.setdefault(id(tensor), []).append(name)
        for group in names.values():
            chosen = {id(given[name]): given[name] for name in group if name in given}
            if len(chosen) > 1:
                raise ValueError(f"functional_call got multiple values for keys {sorted(group)}, which are tied. Consider using "
                                 "tie_weights=False")
            for value in chosen.values():
                given.update(dict.fromkeys(group, value))
    missing = sorted(set(present) - given.keys())
    if strict and (unknown or missing):
        raise RuntimeError(f"Error(s) in loading state: unexpected keys {unknown}, missing keys {missing}")
    if unknown:
        raise KeyError(f"functional_call: the module has no parameters or buffers named {unknown}")
    args = () if args is None else args if isinstance(args, tuple) else (args,)
    saved = {name: slots[name][0][slots[name][1]] for name in given}
    try:
        for name, tensor in given.items():
            store, key = slots[name]
            store[key] = tensor
        return module(*args, **(kwargs or {}))
    finally:
        for name, tensor in saved.items():
            store, key = slots[name]
            store[key] = tensor


def stack_module_state(models: Sequence) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters and buffers of models of one class, stacked by name along a new first dim: (parameters, buffers)."""
    models = list(models)
    if not models:
        raise RuntimeError("stack_module_state: Expected at least one model, got 0.")
    if not (all(m.training for m in models) or all(not m.training for m in models)):
        raise RuntimeError("stack_module_state: Expected all models to have the same training/eval mode.")
    if any(type(m) is not type(models[0]) for m in models):
        raise RuntimeError("stack_module_state: Expected all models to be of the same class.")

    def stacked(all_of: list[dict], learned: bool) -> dict[str, Any]:
        result = {}
        for name, first in all_of[0].items():
            value = lohe.stack([d[name].detach() for d in all_of])
            result[name] = value.requires_grad_(first.requires_grad) if learned else value
        return result

    return (
        stacked([dict(m.named_parameters()) for m in models], True),
        stacked([dict(m.named_buffers()) for m in models], False),
    )
