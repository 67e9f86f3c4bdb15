"""Forward and backward hooks of modules: the slow path of ``Module.__call__`` and the hooks of all modules."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import lohe
from lohe import _C
from lohe.utils.hooks import RemovableHandle

# Hooks that every module runs, keyed like a module's own.
global_forward_pre_hooks: OrderedDict = OrderedDict()
global_forward_hooks: OrderedDict = OrderedDict()
global_forward_hooks_with_kwargs: OrderedDict = OrderedDict()
global_forward_hooks_always_called: OrderedDict = OrderedDict()
global_backward_pre_hooks: OrderedDict = OrderedDict()
global_backward_hooks: OrderedDict = OrderedDict()
global_parameter_registration_hooks: OrderedDict = OrderedDict()
global_buffer_registration_hooks: OrderedDict = OrderedDict()
global_module_registration_hooks: OrderedDict = OrderedDict()


def _register(
    hooks: OrderedDict, hook: Callable, extra: dict[str, OrderedDict] | None = None
) -> RemovableHandle:
    handle = RemovableHandle(hooks, extra_dict=list((extra or {}).values()))
    hooks[handle.id] = hook
    for flags in (extra or {}).values():
        flags[handle.id] = True
    return handle


def register_module_forward_pre_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Runs ``hook(module, args)`` before the forward of every module; a result replaces the arguments."""
    return _register(global_forward_pre_hooks, hook)


def register_module_forward_hook(
    hook: Callable[..., Any], *, with_kwargs: bool = False, always_call: bool = False
) -> RemovableHandle:
    """Runs ``hook(module, args, output)`` after the forward of every module; a result replaces the output."""
    extra = {}
    if with_kwargs:
        extra["kwargs"] = global_forward_hooks_with_kwargs
    if always_call:
        extra["always"] = global_forward_hooks_always_called
    return _register(global_forward_hooks, hook, extra)


def register_module_full_backward_pre_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Runs ``hook(module, grad_output)`` when the gradients of any module's outputs are known."""
    return _register(global_backward_pre_hooks, hook)


def register_module_full_backward_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Runs ``hook(module, grad_input, grad_output)`` when the gradients of any module's inputs are known."""
    return _register(global_backward_hooks, hook)


def register_module_parameter_registration_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Runs ``hook(module, name, parameter)`` when a module registers a parameter; a result replaces it."""
    return _register(global_parameter_registration_hooks, hook)


def register_module_buffer_registration_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Runs ``hook(module, name, buffer)`` when a module registers a buffer; a result replaces it."""
    return _register(global_buffer_registration_hooks, hook)


def register_module_module_registration_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Runs ``hook(module, name, submodule)`` when a module registers a submodule; a result replaces it."""
    return _register(global_module_registration_hooks, hook)


class _ObserveGradient(lohe.autograd.Function):
    """Identity whose backward shows the gradients to `observe`, which may return others."""

    @staticmethod
    def forward(ctx: Any, observe: Callable[[tuple], tuple], *tensors: lohe.Tensor) -> tuple:
        ctx.observe = observe
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*[t for t in tensors if not t.requires_grad])
        return tuple(t.view_as(t) for t in tensors)

    @staticmethod
    def backward(ctx: Any, *grads: lohe.Tensor | None) -> tuple:
        return None, *ctx.observe(grads)


def _observe(values: tuple, observe: Callable[[tuple], tuple]) -> tuple[tuple, bool]:
    """Passes the tensors among `values` through an observed identity; also says whether one needs a gradient."""
    places = [i for i, value in enumerate(values) if isinstance(value, lohe.Tensor)]
    tensors = [values[i] for i in places]
    if not lohe.is_grad_enabled() or not any(t.requires_grad for t in tensors):
        return values, False

    def observe_all(grads: tuple) -> tuple:
        shown: list = [None] * len(values)
        for i, grad in zip(places, grads):
            shown[i] = grad
        result = observe(tuple(shown))
        return tuple(result[i] for i in places)

    outputs = list(values)
    for i, tensor in zip(places, _ObserveGradient.apply(observe_all, *tensors)):
        outputs[i] = tensor
    return tuple(outputs), True


class _BackwardHooks:
    """The backward hooks of one call of a module: its inputs' and outputs' gradients meet here."""

    def __init__(self, module: Any, hooks: list[Callable], pre_hooks: list[Callable]) -> None:
        self.module = module
        self.hooks = hooks
        self.pre_hooks = pre_hooks
        self.grad_outputs: tuple | None = None
        self.input_count = 0
        self.inputs_need_gradient = False

    def wrap_inputs(self, args: tuple) -> tuple:
        self.input_count = len(args)
        args, self.inputs_need_gradient = _observe(args, self._on_grad_inputs)
        return args

    def wrap_outputs(self, output: Any) -> Any:
        values = output if isinstance(output, tuple) else (output,)
        values, _ = _observe(values, self._on_grad_outputs)
        if not isinstance(output, tuple):
            return values[0]
        return type(output)(*values) if hasattr(output, "_fields") else values

    def _on_grad_outputs(self, grads: tuple) -> tuple:
        for hook in self.pre_hooks:
            result = hook(self.module, grads)
            if result is not None:
                grads = self._checked(result, grads, "backward pre hook", "grad_output")
        self.grad_outputs = grads
        if not self.inputs_need_gradient:
            for hook in self.hooks:
                if hook(self.module, (None,) * self.input_count, grads) is not None:
                    raise RuntimeError(
                        "backward hook for Modules where no input requires gradient should always return None or None "
                        "for all gradients."
                    )
        return grads

    def _on_grad_inputs(self, grads: tuple) -> tuple:
        if self.grad_outputs is None:
            raise RuntimeError(
                f"full backward hook of {type(self.module).__name__}: the gradient reached the module's inputs but "
                "not its outputs; the module must be called, and its outputs used, in the same graph"
            )
        for hook in self.hooks:
            result = hook(self.module, grads, self.grad_outputs)
            if result is not None:
                grads = self._checked(result, grads, "backward hook", "grad_input")
        self.grad_outputs = None
        return grads

    def _checked(self, result: Any, grads: tuple, kind: str, name: str) -> tuple:
        result = result if isinstance(result, tuple) else (result,)
        if len(result) != len(grads):
            raise RuntimeError(
                f"{kind} of {type(self.module).__name__} returned {len(result)} values for {name}, expected {len(grads)}"
            )
        return result


def call_with_hooks(module: Any, args: tuple, kwargs: dict) -> Any:
    """``module(*args, **kwargs)`` with every hook in force."""
    called_always: set[int] = set()
    output = None

    def run_always_called() -> None:
        """After an exception: the always_call hooks that have not run yet; their own errors are only warned of."""
        for hooks, flags, kwarg_flags in (
            (global_forward_hooks, global_forward_hooks_always_called, global_forward_hooks_with_kwargs),
            (module._forward_hooks, module._forward_hooks_always_called, module._forward_hooks_with_kwargs),
        ):
            for hook_id, hook in tuple(hooks.items()):
                if hook_id not in flags or hook_id in called_always:
                    continue
                try:
                    if hook_id in kwarg_flags:
                        hook(module, args, kwargs, output)
                    else:
                        hook(module, args, output)
                except Exception as error:
                    warnings.warn(
                        f"forward hook with ``always_call=True`` raised an exception: {error}", stacklevel=2
                    )

    try:
        for hooks, kwarg_flags in (
            (global_forward_pre_hooks, ()),
            (module._forward_pre_hooks, module._forward_pre_hooks_with_kwargs),
        ):
            for hook_id, hook in tuple(hooks.items()):
                if hook_id in kwarg_flags:
                    result = hook(module, args, kwargs)
                    if result is None:
                        continue
                    if not (isinstance(result, tuple) and len(result) == 2):
                        raise RuntimeError(
                            "forward pre-hook must return None or a tuple of (new_args, new_kwargs), "
                            f"but got {result}."
                        )
                    args, kwargs = result
                else:
                    result = hook(module, args)
                    if result is not None:
                        args = result if isinstance(result, tuple) else (result,)

        backward = None
        pre_hooks = [*global_backward_pre_hooks.values(), *module._backward_pre_hooks.values()]
        hooks = [*global_backward_hooks.values(), *module._backward_hooks.values()]
        if hooks or pre_hooks:
            backward = _BackwardHooks(module, hooks, pre_hooks)
            args = backward.wrap_inputs(args)

        output = module.forward(*args, **kwargs)

        for hooks, flags, kwarg_flags in (
            (global_forward_hooks, global_forward_hooks_always_called, global_forward_hooks_with_kwargs),
            (module._forward_hooks, module._forward_hooks_always_called, module._forward_hooks_with_kwargs),
        ):
            for hook_id, hook in tuple(hooks.items()):
                if hook_id in flags:
                    called_always.add(hook_id)
                if hook_id in kwarg_flags:
                    result = hook(module, args, kwargs, output)
                else:
                    result = hook(module, args, output)
                if result is not None:
                    output = result
    except Exception:
        run_always_called()
        raise

    if backward is not None:
        if not isinstance(output, (lohe.Tensor, tuple)):
            warnings.warn(
                "For backward hooks to be called, module output should be a Tensor or a tuple of Tensors but received "
                f"{type(output)}",
                stacklevel=2,
            )
        output = backward.wrap_outputs(output)
    return output


_C._set_module_hooks(
    call_with_hooks,
    (global_forward_hooks, global_forward_pre_hooks, global_backward_hooks, global_backward_pre_hooks),
)
