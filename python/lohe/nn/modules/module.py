"""Module: what every layer and model is made of."""

from __future__ import annotations

import difflib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import lohe
from lohe import _C
from lohe.nn.modules import _hooks
from lohe.nn.modules._hooks import (
    register_module_buffer_registration_hook,
    register_module_forward_hook,
    register_module_forward_pre_hook,
    register_module_full_backward_hook,
    register_module_full_backward_pre_hook,
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)
from lohe.nn.modules._state import ModuleState, _IncompatibleKeys  # noqa: F401 (a public place of the name)
from lohe.nn.parameter import Buffer, Parameter
from lohe.utils.hooks import RemovableHandle

__all__ = [
    "Module",
    "register_module_buffer_registration_hook",
    "register_module_forward_hook",
    "register_module_forward_pre_hook",
    "register_module_full_backward_hook",
    "register_module_full_backward_pre_hook",
    "register_module_module_registration_hook",
    "register_module_parameter_registration_hook",
]

_global_forward_pre_hooks = _hooks.global_forward_pre_hooks
_global_forward_hooks = _hooks.global_forward_hooks
_global_backward_pre_hooks = _hooks.global_backward_pre_hooks
_global_backward_hooks = _hooks.global_backward_hooks


def _typename(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _add_indent(text: str, spaces: int) -> str:
    first, *rest = text.split("\n")
    return "\n".join([first, *(" " * spaces + line for line in rest)])


def _did_you_mean(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, [str(k) for k in known], n=1)
    return f"; did you mean `{near[0]}`?" if near else ""


def _forward_unimplemented(self: Any, *input: Any) -> None:
    """Defines the computation of a call; every subclass overrides it."""
    raise NotImplementedError(f'Module [{type(self).__name__}] is missing the required "forward" function')


class Module(ModuleState, _C.ModuleBase):
    """Base class of all layers and models.

    Parameters, buffers and submodules that are assigned as attributes are registered: they move with ``to()``, are
    listed by ``named_parameters()`` and its like, and are saved by ``state_dict()``. A subclass calls
    ``super().__init__()`` before it assigns any of them and defines ``forward``.
    """

    dump_patches: bool = False
    _version: int = 1
    training: bool
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, lohe.Tensor | None]
    _non_persistent_buffers_set: set[str]
    _modules: dict[str, Module | None]
    call_super_init: bool = False
    _compiled_call_impl: Callable | None = None

    forward: Callable[..., Any] = _forward_unimplemented

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if not self.call_super_init and kwargs:
            raise TypeError(
                f"{type(self).__name__}.__init__() got an unexpected keyword argument '{next(iter(kwargs))}'"
            )
        if not self.call_super_init and args:
            raise TypeError(
                f"{type(self).__name__}.__init__() takes 1 positional argument but {len(args) + 1} were given"
            )
        # Past __setattr__, which needs these attributes itself.
        self.__dict__.update(
            training=True,
            _parameters={},
            _buffers={},
            _non_persistent_buffers_set=set(),
            _backward_pre_hooks=OrderedDict(),
            _backward_hooks=OrderedDict(),
            _is_full_backward_hook=None,
            _forward_hooks=OrderedDict(),
            _forward_hooks_with_kwargs=OrderedDict(),
            _forward_hooks_always_called=OrderedDict(),
            _forward_pre_hooks=OrderedDict(),
            _forward_pre_hooks_with_kwargs=OrderedDict(),
            _state_dict_hooks=OrderedDict(),
            _state_dict_pre_hooks=OrderedDict(),
            _load_state_dict_pre_hooks=OrderedDict(),
            _load_state_dict_post_hooks=OrderedDict(),
            _modules={},
        )
        if self.call_super_init:
            super().__init__(*args, **kwargs)

    # ---- calling: __call__ and _call_impl are ModuleBase's ----

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compiles this module's calls in place; the arguments are those of ``lohe.compile``."""
        self._compiled_call_impl = lohe.compile(self._call_impl, *args, **kwargs)

    # ---- registration ----

    def _check_new_name(self, what: str, name: Any, registry: dict, dotted: str) -> None:
        if "_parameters" not in self.__dict__:
            raise AttributeError(f"cannot assign {what} before Module.__init__() call")
        if not isinstance(name, str):
            raise TypeError(f"{what} name should be a string. Got {_typename(name)}")
        if "." in name:
            raise KeyError(dotted)
        if name == "":
            raise KeyError(f'{what} name can\'t be empty string ""')
        if name not in registry and hasattr(self, name):
            raise KeyError(f"attribute '{name}' already exists")

    def register_buffer(self, name: str, tensor: lohe.Tensor | None, persistent: bool = True) -> None:
        """Adds a tensor that is state but no parameter; only a `persistent` one is part of ``state_dict``."""
        self._check_new_name(
            "buffer", name, self.__dict__.get("_buffers", {}), 'buffer name can\'t contain "."'
        )
        if tensor is not None and not isinstance(tensor, lohe.Tensor):
            raise TypeError(
                f"cannot assign '{_typename(tensor)}' object to buffer '{name}' (lohe.Tensor or None required)"
            )
        for hook in _hooks.global_buffer_registration_hooks.values():
            tensor = tensor if (replaced := hook(self, name, tensor)) is None else replaced
        self._buffers[name] = tensor
        if persistent:
            self._non_persistent_buffers_set.discard(name)
        else:
            self._non_persistent_buffers_set.add(name)

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Adds a parameter; None keeps the name for a parameter that this instance does not have."""
        self._check_new_name(
            "parameter", name, self.__dict__.get("_parameters", {}), 'parameter name can\'t contain "."'
        )
        if param is not None:
            if not isinstance(param, Parameter):
                raise TypeError(
                    f"cannot assign '{_typename(param)}' object to parameter '{name}' "
                    "(lohe.nn.Parameter or None required)"
                )
            if param.grad_fn is not None:
                raise ValueError(
                    f"Cannot assign non-leaf Tensor to parameter '{name}'. Model parameters must be created explicitly. "
                    f"To express '{name}' as a function of another Tensor, compute the value in the forward() method."
                )
        for hook in _hooks.global_parameter_registration_hooks.values():
            param = param if (replaced := hook(self, name, param)) is None else replaced
        self._parameters[name] = param

    def add_module(self, name: str, module: Module | None) -> None:
        """Adds a submodule, which is then also an attribute `name`."""
        if not isinstance(module, Module) and module is not None:
            raise TypeError(f"{_typename(module)} is not a Module subclass")
        if not isinstance(name, str):
            raise TypeError(f"module name should be a string. Got {_typename(name)}")
        if hasattr(self, name) and name not in self._modules:
            raise KeyError(f"attribute '{name}' already exists")
        if "." in name:
            raise KeyError(f'module name can\'t contain ".", got: {name}')
        if name == "":
            raise KeyError('module name can\'t be empty string ""')
        self._modules[name] = self._shown_to_registration_hooks(name, module)

    def register_module(self, name: str, module: Module | None) -> None:
        """Same as ``add_module``."""
        self.add_module(name, module)

    def _shown_to_registration_hooks(self, name: str, module: Module | None) -> Module | None:
        for hook in _hooks.global_module_registration_hooks.values():
            module = module if (replaced := hook(self, name, module)) is None else replaced
        return module

    # ---- attributes: reading is ModuleBase's ----

    def __setattr__(self, name: str, value: Any) -> None:
        own = self.__dict__
        params = own.get("_parameters")
        if isinstance(value, Parameter):
            if params is None:
                raise AttributeError("cannot assign parameters before Module.__init__() call")
            self._forget(name, own, self._buffers, self._modules)
            self.register_parameter(name, value)
            return
        if params is not None and name in params:
            if value is not None:
                raise TypeError(
                    f"cannot assign '{_typename(value)}' as parameter '{name}' (lohe.nn.Parameter or None expected)"
                )
            self.register_parameter(name, value)
            return
        modules = own.get("_modules")
        if isinstance(value, Module):
            if modules is None:
                raise AttributeError("cannot assign module before Module.__init__() call")
            self._forget(name, own, self._parameters, self._buffers)
            modules[name] = self._shown_to_registration_hooks(name, value)
            return
        if modules is not None and name in modules:
            if value is not None:
                raise TypeError(
                    f"cannot assign '{_typename(value)}' as child module '{name}' (lohe.nn.Module or None expected)"
                )
            modules[name] = self._shown_to_registration_hooks(name, value)
            return
        buffers = own.get("_buffers")
        if isinstance(value, Buffer) or (buffers is not None and name in buffers):
            if buffers is None:
                raise AttributeError("cannot assign buffer before Module.__init__() call")
            if value is not None and not isinstance(value, lohe.Tensor):
                raise TypeError(
                    f"cannot assign '{_typename(value)}' as buffer '{name}' "
                    "(lohe.nn.Buffer, lohe.Tensor or None expected)"
                )
            if isinstance(value, Buffer):
                persistent = value.persistent
            else:
                persistent = name not in self._non_persistent_buffers_set
            if name not in buffers:
                self._forget(name, own, self._parameters, self._modules)
            self.register_buffer(name, value, persistent)
            return
        super().__setattr__(name, value)

    def _forget(self, name: str, *registries: dict) -> None:
        for registry in registries:
            registry.pop(name, None)
        self._non_persistent_buffers_set.discard(name)

    def __delattr__(self, name: str) -> None:
        if name in self._parameters:
            del self._parameters[name]
        elif name in self._buffers:
            del self._buffers[name]
            self._non_persistent_buffers_set.discard(name)
        elif name in self._modules:
            del self._modules[name]
        else:
            super().__delattr__(name)

    def __dir__(self) -> list[str]:
        keys = [*dir(type(self)), *self.__dict__, *self._parameters, *self._modules, *self._buffers]
        return sorted(key for key in set(keys) if not key[:1].isdigit())

    def __getstate__(self) -> dict:
        state = self.__dict__.copy()
        state.pop("_compiled_call_impl", None)
        return state

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        # Pickles of older versions lack the registries that came later.
        for name in (
            "_forward_pre_hooks",
            "_forward_pre_hooks_with_kwargs",
            "_forward_hooks_with_kwargs",
            "_forward_hooks_always_called",
            "_state_dict_hooks",
            "_state_dict_pre_hooks",
            "_load_state_dict_pre_hooks",
            "_load_state_dict_post_hooks",
            "_backward_pre_hooks",
        ):
            self.__dict__.setdefault(name, OrderedDict())
        self.__dict__.setdefault("_non_persistent_buffers_set", set())
        self.__dict__.setdefault("_is_full_backward_hook", None)

    # ---- lookup by dotted name ----

    def get_submodule(self, target: str) -> Module:
        """The submodule at a dotted path such as ``"encoder.layers.0"``; ``""`` is this module."""
        module: Any = self
        for name in target.split(".") if target else ():
            if not hasattr(module, name):
                known = module._modules
                raise AttributeError(
                    f"{module._get_name()} has no attribute `{name}`{_did_you_mean(name, known)}"
                )
            module = getattr(module, name)
            if not isinstance(module, Module):
                raise AttributeError(f"`{name}` is not an nn.Module")
        return module

    def set_submodule(self, target: str, module: Module, strict: bool = False) -> None:
        """Replaces the submodule at a dotted path; unless `strict`, a new last name is added."""
        if target == "":
            raise ValueError("Cannot set the submodule without a target name!")
        if not isinstance(module, Module):
            raise ValueError(f"`module` is not an nn.Module, found {type(module)}")
        path, _, name = target.rpartition(".")
        if strict and path == "" and not hasattr(self, name):
            raise AttributeError(f"{self._get_name()} has no attribute `{name}`")
        parent = self.get_submodule(path)
        if strict and not hasattr(parent, name):
            raise AttributeError(f"{parent._get_name()} has no attribute `{name}`")
        if hasattr(parent, name) and not isinstance(getattr(parent, name), Module):
            raise AttributeError(f"`{name}` is not an nn.Module")
        setattr(parent, name, module)

    def get_parameter(self, target: str) -> Parameter:
        """The parameter at a dotted path."""
        return self._get_member(target, "parameter")

    def get_buffer(self, target: str) -> lohe.Tensor:
        """The buffer at a dotted path."""
        return self._get_member(target, "buffer")

    def _get_member(self, target: str, kind: str) -> Any:
        path, _, name = target.rpartition(".")
        module = self.get_submodule(path)
        if not hasattr(module, name):
            known = module._parameters if kind == "parameter" else module._buffers
            raise AttributeError(
                f"{module._get_name()} has no attribute `{name}`{_did_you_mean(name, known)}"
            )
        member = getattr(module, name)
        if kind == "parameter" and not isinstance(member, Parameter):
            raise AttributeError(f"`{name}` is not an nn.Parameter")
        if kind == "buffer" and name not in module._buffers:
            raise AttributeError(f"`{name}` is not a buffer")
        return member

    # ---- listing ----

    def _named_members(
        self, get_members_fn: Callable, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Any]]:
        seen = set()
        modules = (
            self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate)
            if recurse
            else [(prefix, self)]
        )
        for module_prefix, module in modules:
            for name, member in get_members_fn(module):
                if member is None or member in seen:
                    continue
                if remove_duplicate:
                    seen.add(member)
                yield f"{module_prefix}.{name}" if module_prefix else name, member

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """This module's parameters and, with `recurse`, its submodules', each once."""
        for _, param in self.named_parameters(recurse=recurse):
            yield param

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Pairs of dotted name and parameter."""
        yield from self._named_members(lambda m: m._parameters.items(), prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[lohe.Tensor]:
        """This module's buffers and, with `recurse`, its submodules', each once."""
        for _, buffer in self.named_buffers(recurse=recurse):
            yield buffer

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, lohe.Tensor]]:
        """Pairs of dotted name and buffer."""
        yield from self._named_members(lambda m: m._buffers.items(), prefix, recurse, remove_duplicate)

    def children(self) -> Iterator[Module]:
        """The direct submodules, each once."""
        for _, module in self.named_children():
            yield module

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Pairs of name and direct submodule."""
        seen = set()
        for name, module in self._modules.items():
            if module is not None and module not in seen:
                seen.add(module)
                yield name, module

    def modules(self, remove_duplicate: bool = True) -> Iterator[Module]:
        """This module and all below it, parents first."""
        for _, module in self.named_modules(remove_duplicate=remove_duplicate):
            yield module

    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """Pairs of dotted name and module, this one first, named `prefix`."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                below = f"{prefix}.{name}" if prefix else name
                yield from module.named_modules(memo, below, remove_duplicate)

    # ---- changing all tensors ----

    def apply(self, fn: Callable[[Module], None]) -> Module:
        """Calls ``fn`` on every submodule, then on this one."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    def _apply(self, fn: Callable[[lohe.Tensor], lohe.Tensor], recurse: bool = True) -> Module:
        if recurse:
            for module in self.children():
                module._apply(fn)
        for name, param in self._parameters.items():
            if param is None:
                continue
            with lohe.no_grad():
                applied = fn(param)
                grad = param.grad
                applied_grad = None if grad is None else fn(grad)
            if _can_hold(param, applied):
                # Optimizers and tied weights hold this very object.
                param.data = applied
                if grad is not None and applied_grad is not None:
                    grad.data = applied_grad
            else:
                param = self._parameters[name] = Parameter(applied, param.requires_grad)
                if grad is not None and applied_grad is not None:
                    param.grad = applied_grad.requires_grad_(grad.requires_grad)
        for name, buffer in self._buffers.items():
            if buffer is not None:
                self._buffers[name] = fn(buffer)
        return self

    def to(self, *args: Any, **kwargs: Any) -> Module:
        """Moves and casts parameters and buffers in place: ``to(device)``, ``to(dtype)``, ``to(tensor)``.

        A dtype must be floating point or complex and changes only floating-point and complex members.
        """
        device, dtype, non_blocking, memory_format = _parse_to(*args, **kwargs)
        if dtype is not None and not (dtype.is_floating_point or dtype.is_complex):
            raise TypeError(
                f"nn.Module.to only accepts floating point or complex dtypes, but got desired dtype={dtype}"
            )

        def convert(t: lohe.Tensor) -> lohe.Tensor:
            new_dtype = dtype if t.is_floating_point() or t.is_complex() else None
            if memory_format is not None and t.dim() in (4, 5):
                return t.to(device, new_dtype, non_blocking, memory_format=memory_format)
            return t.to(device, new_dtype, non_blocking)

        return self._apply(convert)

    def to_empty(self, *, device: Any, recurse: bool = True) -> Module:
        """Moves parameters and buffers to `device` without their values."""
        return self._apply(lambda t: lohe.empty_like(t, device=device), recurse=recurse)

    def cpu(self) -> Module:
        """Moves parameters and buffers to the CPU."""
        return self._apply(lambda t: t.cpu())

    def cuda(self, device: Any = None) -> Module:
        """Moves parameters and buffers to a CUDA device."""
        return self._apply(lambda t: t.cuda(device))

    def type(self, dst_type: Any) -> Module:
        """Casts all parameters and buffers to `dst_type`."""
        return self._apply(lambda t: t.type(dst_type))

    def _cast(self, dtype: Any) -> Module:
        return self._apply(lambda t: t.to(dtype) if t.is_floating_point() else t)

    def float(self) -> Module:
        """Casts floating-point parameters and buffers to float32."""
        return self._cast(lohe.float32)

    def double(self) -> Module:
        """Casts floating-point parameters and buffers to float64."""
        return self._cast(lohe.float64)

    def half(self) -> Module:
        """Casts floating-point parameters and buffers to float16."""
        return self._cast(lohe.float16)

    def bfloat16(self) -> Module:
        """Casts floating-point parameters and buffers to bfloat16."""
        return self._cast(lohe.bfloat16)

    def share_memory(self) -> Module:
        """Moves parameters and buffers to shared memory, so that other processes see writes to them."""
        return self._apply(lambda t: t.share_memory_())

    def train(self, mode: bool = True) -> Module:
        """Sets training mode here and below; it matters to layers such as Dropout and BatchNorm."""
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        self.training = mode
        for module in self.children():
            module.train(mode)
        return self

    def eval(self) -> Module:
        """Sets evaluation mode; same as ``train(False)``."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Module:
        """Says for all parameters whether they get gradients."""
        for param in self.parameters():
            param.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops the gradients of all parameters, or zeroes them."""
        for param in self.parameters():
            if param.grad is None:
                continue
            if set_to_none:
                param.grad = None
            else:
                if param.grad.grad_fn is not None:
                    param.grad.detach_()
                else:
                    param.grad.requires_grad_(False)
                param.grad.zero_()

    # ---- hooks ----

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Runs ``hook(module, args)`` before ``forward``; a result replaces the arguments.

        With `with_kwargs` the hook is ``hook(module, args, kwargs)`` and returns None or ``(args, kwargs)``.
        """
        flags = self._forward_pre_hooks_with_kwargs
        return _add_hook(
            self._forward_pre_hooks, hook, prepend, {id(flags): flags} if with_kwargs else {}, [flags]
        )

    def register_forward_hook(
        self,
        hook: Callable[..., Any],
        *,
        prepend: bool = False,
        with_kwargs: bool = False,
        always_call: bool = False,
    ) -> RemovableHandle:
        """Runs ``hook(module, args, output)`` after ``forward``; a result replaces the output.

        With `with_kwargs` the hook is ``hook(module, args, kwargs, output)``. With `always_call` it also runs when
        ``forward`` or another hook raises.
        """
        marks = {}
        if with_kwargs:
            marks[id(self._forward_hooks_with_kwargs)] = self._forward_hooks_with_kwargs
        if always_call:
            marks[id(self._forward_hooks_always_called)] = self._forward_hooks_always_called
        extra = [self._forward_hooks_with_kwargs, self._forward_hooks_always_called]
        return _add_hook(self._forward_hooks, hook, prepend, marks, extra)

    def register_full_backward_pre_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> RemovableHandle:
        """Runs ``hook(module, grad_output)`` in backward; a result replaces the outputs' gradients."""
        return _add_hook(self._backward_pre_hooks, hook, prepend)

    def register_full_backward_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Runs ``hook(module, grad_input, grad_output)`` in backward; a result replaces the inputs' gradients."""
        self._is_full_backward_hook = True
        return _add_hook(self._backward_hooks, hook, prepend)

    def register_backward_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Not supported: it reports the gradients of a single autograd node. Use ``register_full_backward_hook``."""
        raise NotImplementedError(
            "register_backward_hook() is not supported; use register_full_backward_hook()"
        )

    # ---- printing ----

    def _get_name(self) -> str:
        return type(self).__name__

    def extra_repr(self) -> str:
        """What stands between the parentheses of ``repr``, before the submodules."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        extra_lines = extra.split("\n") if extra else []
        child_lines = [f"({name}): {_add_indent(repr(module), 2)}" for name, module in self._modules.items()]
        lines = extra_lines + child_lines
        if not lines:
            return self._get_name() + "()"
        if len(extra_lines) == 1 and not child_lines:
            return f"{self._get_name()}({extra_lines[0]})"
        return f"{self._get_name()}(\n  " + "\n  ".join(lines) + "\n)"


def _add_hook(
    hooks: OrderedDict,
    hook: Callable,
    prepend: bool,
    marks: Mapping[int, OrderedDict] | None = None,
    extra: list[OrderedDict] | None = None,
) -> RemovableHandle:
    handle = RemovableHandle(hooks, extra_dict=extra)
    hooks[handle.id] = hook
    if prepend:
        hooks.move_to_end(handle.id, last=False)
    for flags in (marks or {}).values():
        flags[handle.id] = True
    return handle


def _can_hold(param: lohe.Tensor, applied: lohe.Tensor) -> bool:
    """Whether ``param.data = applied`` is possible: a tensor without memory cannot turn into one that has some."""
    return (param.device.type == "meta") == (applied.device.type == "meta")


def _parse_to(*args: Any, **kwargs: Any) -> tuple:
    """Reads the arguments of ``to``: (device, dtype, non_blocking), (dtype, non_blocking) or (tensor, ...)."""
    known = ("device", "dtype", "non_blocking", "copy", "tensor", "memory_format")
    for name in kwargs:
        if name not in known:
            raise TypeError(f"to() received an invalid keyword argument '{name}'{_did_you_mean(name, known)}")
    if kwargs.get("copy"):
        raise RuntimeError(".to() does not accept copy argument")
    memory_format = kwargs.pop("memory_format", None)
    rest = list(args)
    device, dtype = kwargs.pop("device", None), kwargs.pop("dtype", None)
    tensor = kwargs.pop("tensor", None)
    if rest and isinstance(rest[0], lohe.Tensor):
        tensor = rest.pop(0)
    elif rest and isinstance(rest[0], lohe.dtype):
        dtype = rest.pop(0)
    elif rest:
        device = rest.pop(0)
        if rest and (rest[0] is None or isinstance(rest[0], lohe.dtype)):
            dtype = rest.pop(0) or dtype
    elif device is None and dtype is None and tensor is None and memory_format is None:
        raise TypeError(
            "to() received an invalid combination of arguments: expected a device, a dtype or a Tensor"
        )
    if tensor is not None:
        device, dtype = tensor.device, tensor.dtype
    if device is not None and not isinstance(device, (str, int, lohe.device)):
        raise TypeError(f"to(): expected a device, a dtype or a Tensor, got {type(device).__name__}")
    non_blocking = bool(rest.pop(0)) if rest else bool(kwargs.pop("non_blocking", False))
    device = None if device is None else lohe.device(device)
    return device, dtype, non_blocking, memory_format
