"""Functions whose backward the user writes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from lohe import _C
from lohe._modes import no_grad
from lohe._tensor import Tensor

__all__ = ["Function", "FunctionCtx", "once_differentiable"]


class FunctionCtx:
    """What forward leaves for backward."""

    def __init__(self) -> None:
        self.needs_input_grad: tuple[bool, ...] = ()
        self.materialize_grads = True
        self._to_save: tuple = ()
        self._saved: list | None = None
        self._node: Any = None  # set by the extension while it runs backward or looks up an attribute
        self._dirty: tuple = ()
        self._not_differentiable: tuple = ()
        self._output_shapes: list = []

    def save_for_backward(self, *tensors: Any) -> None:
        """Keeps inputs and outputs of forward (or None); writes to them in between are found in backward."""
        for tensor in tensors:
            if tensor is not None and not isinstance(tensor, Tensor):
                raise TypeError(f"save_for_backward can only save variables, but argument is of type {type(tensor).__name__}")
        self._to_save = tensors

    def save_for_forward(self, *tensors: Any) -> None:
        """Accepted for functions that also define ``jvp``."""

    @property
    def saved_tensors(self) -> tuple:
        """The tensors of save_for_backward."""
        if self._saved is None:
            if self._to_save is _RELEASED:
                raise RuntimeError(
                    "Trying to backward through the graph a second time (or directly access saved tensors after they have "
                    "already been freed). Saved intermediate values of the graph are freed when you call .backward() or "
                    "autograd.grad(). Specify retain_graph=True if you need to backward through the graph a second time or "
                    "if you need to access saved tensors after calling backward."
                )
            return tuple(self._to_save)
        return tuple(None if s is None else s.unpack(self._node) for s in self._saved)

    @property
    def saved_variables(self) -> tuple:
        """An old name of ``saved_tensors``."""
        return self.saved_tensors

    def mark_dirty(self, *tensors: Tensor) -> None:
        """Names inputs that forward wrote in place; they must be returned."""
        self._dirty = tensors

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """Names outputs that have no gradient."""
        self._not_differentiable = tensors

    def set_materialize_grads(self, value: bool) -> None:
        """Whether backward gets zeros (the default) or None for outputs that nothing flows into."""
        self.materialize_grads = value

    def _release(self) -> None:
        self._saved = None
        if self._to_save:
            self._to_save = _RELEASED


class _Released(tuple):
    pass


_RELEASED = _Released(("released",))


def _keep(ctx: FunctionCtx, outputs: tuple) -> None:
    """Turns what forward saved into values that are checked when backward reads them."""
    own = {id(t) for t in outputs if isinstance(t, Tensor)}
    ctx._saved = [None if t is None else _C.SavedTensor(t, id(t) in own) for t in ctx._to_save]
    ctx._to_save = ("kept",) if ctx._to_save else ()


def _run_backward(cls: type, ctx: FunctionCtx, grads: tuple) -> tuple:
    """One gradient or None for each argument of forward."""
    if ctx.materialize_grads:
        grads = tuple(
            _C.ops.zeros(shape, dtype=dtype) if g is None and shape is not None else g
            for g, (shape, dtype) in zip(grads, ctx._output_shapes)
        )
    if cls.vjp is not Function.vjp:  # type: ignore[attr-defined]
        if cls.backward is not Function.backward:  # type: ignore[attr-defined]
            raise RuntimeError("Implementing both 'backward' and 'vjp' for a custom Function is not allowed.")
        result = cls.vjp(ctx, *grads)  # type: ignore[attr-defined]
    else:
        result = cls.backward(ctx, *grads)  # type: ignore[attr-defined]
    if not isinstance(result, tuple):
        result = (result,)
    wanted = len(ctx.needs_input_grad)
    if len(result) > wanted and all(g is None for g in result[wanted:]):
        result = result[:wanted]
    if len(result) != wanted:
        raise RuntimeError(
            f"function {cls.__name__}Backward returned an incorrect number of gradients (expected {wanted}, got {len(result)})"
        )
    for i, (gradient, needed) in enumerate(zip(result, ctx.needs_input_grad)):
        if gradient is not None and not isinstance(gradient, Tensor):
            raise RuntimeError(
                f"function {cls.__name__}Backward returned an invalid gradient at index {i}: expected a Tensor or None, "
                f"got {type(gradient).__name__}"
            )
        if gradient is not None and not needed and not ctx._input_is_tensor[i]:  # type: ignore[attr-defined]
            raise RuntimeError(
                f"function {cls.__name__}Backward returned a gradient different than None at position {i + 1}, but the "
                "corresponding forward input was not a Variable"
            )
    return result


class Function:
    """Base of custom functions: static ``forward`` and ``backward``, called by ``apply``.

    ``forward(ctx, *args)`` may do both jobs, or ``forward(*args)`` computes and ``setup_context(ctx, inputs, output)``
    saves what backward needs.
    """

    generate_vmap_rule = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError(
            f"{type(self)} should not be instantiated. Methods on autograd functions are all static, so you should invoke "
            "them on the class itself. Instantiating an autograd function will raise an error in a future version of PyTorch."
        )

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """Computes the outputs."""
        raise NotImplementedError("You must implement the forward function for custom autograd.Function.")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Any) -> None:
        """Saves what backward needs."""
        raise NotImplementedError("setup_context is not implemented.")

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """One gradient or None for each argument of forward."""
        raise NotImplementedError(
            "You must implement either the backward or vjp method for your custom autograd.Function to use it with backward "
            "mode AD."
        )

    @staticmethod
    def vjp(ctx: Any, *grad_outputs: Any) -> Any:
        """Another name of backward."""
        raise NotImplementedError("vjp is not implemented")

    @staticmethod
    def jvp(ctx: Any, *grad_inputs: Any) -> Any:
        """The derivative in forward mode."""
        raise NotImplementedError("You must implement the jvp function for custom autograd.Function to use it with forward mode AD.")

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *args: Any) -> Any:
        """The function over a batch."""
        raise NotImplementedError("To use autograd.Function with vmap, you must either override the vmap staticmethod or set generate_vmap_rule=True.")

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Runs forward, recorded when an argument needs a gradient."""
        separate = cls.setup_context is not Function.setup_context
        if kwargs:
            if not separate:
                raise TypeError(f"{cls.__name__}.apply() takes no keyword arguments")
            import inspect

            bound = inspect.signature(cls.forward).bind(*args, **kwargs)
            bound.apply_defaults()
            args = bound.args
        ctx = type(f"{cls.__name__}Backward", (FunctionCtx,), {"_function": cls})()
        ctx._input_is_tensor = tuple(isinstance(a, Tensor) for a in args)
        needs = tuple(isinstance(a, Tensor) and a.requires_grad for a in args)
        recorded = _C.is_grad_enabled() and any(needs)
        ctx.needs_input_grad = needs
        node = None
        if recorded:
            node = _C._function_node(ctx, functools.partial(_run_backward, cls), args, f"{cls.__name__}Backward")
        with no_grad():
            if separate:
                output = cls.forward(*args)
                cls.setup_context(ctx, args, output)
            else:
                output = cls.forward(ctx, *args)
        return _attach(ctx, node, args, output)


def _attach(ctx: FunctionCtx, node: Any, args: tuple, output: Any) -> Any:
    """Makes `node` the history of what forward returned."""
    outputs = output if isinstance(output, tuple) else (output,)
    for tensor in ctx._dirty:
        _C._bump_version(tensor)
    if node is None:
        return output
    excluded = {id(t) for t in ctx._not_differentiable}
    inputs = {id(a) for a in args if isinstance(a, Tensor)}
    dirty = {id(t) for t in ctx._dirty}
    results = []
    for i, tensor in enumerate(outputs):
        if not isinstance(tensor, Tensor):
            ctx._output_shapes.append((None, None))
            results.append(tensor)
            continue
        ctx._output_shapes.append((tuple(tensor.shape), tensor.dtype))
        if id(tensor) in excluded or not (tensor.is_floating_point() or tensor.is_complex()):
            results.append(tensor.detach() if tensor.requires_grad and id(tensor) in inputs else tensor)
            continue
        is_dirty = id(tensor) in dirty
        results.append(_C._function_set_history(node, tensor, i, is_dirty, id(tensor) in inputs and not is_dirty))
    for tensor in ctx._dirty:
        if not any(tensor is o for o in outputs):
            raise RuntimeError("A tensor that was marked dirty in a custom function must be one of its outputs")
    _keep(ctx, tuple(r for r in results if isinstance(r, Tensor)))
    return tuple(results) if isinstance(output, tuple) else results[0]


def once_differentiable(backward: Callable) -> Callable:
    """Decorator of a backward that cannot be differentiated again: a second backward through it raises."""

    @functools.wraps(backward)
    def wrapper(ctx: Any, *grads: Any) -> Any:
        with no_grad():
            outputs = backward(ctx, *grads)
        if not _C.is_grad_enabled() or not any(isinstance(g, Tensor) and g.requires_grad for g in grads):
            return outputs
        values = outputs if isinstance(outputs, tuple) else (outputs,)
        result = tuple(_Twice.apply(v, *[g for g in grads if isinstance(g, Tensor)]) if isinstance(v, Tensor) else v for v in values)
        return result if isinstance(outputs, tuple) else result[0]

    return wrapper


class _Twice(Function):
    """The identity whose backward raises."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, *grads: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise RuntimeError("trying to differentiate twice a function that was marked with @once_differentiable")


class InplaceFunction(Function):
    """Base class of older programs' functions that may work in place."""


class NestedIOFunction(Function):
    """Not supported; use Function, whose forward may return tuples."""

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("NestedIOFunction is not supported; use autograd.Function")
