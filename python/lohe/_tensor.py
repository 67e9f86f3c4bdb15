"""The class Tensor: what Python adds to the type of the extension."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from lohe import _C

__all__ = ["Tensor"]


def _same_class(value: Any, cls: type) -> Any:
    """Results of a subclass's calls have its class."""
    if isinstance(value, Tensor):
        return value if cls is Tensor or isinstance(value, cls) else value.as_subclass(cls)
    if isinstance(value, (tuple, list)):
        return type(value)([_same_class(v, cls) for v in value])
    return value


class Tensor(_C.TensorBase):
    """A multi-dimensional array of one dtype that can record how it was computed."""

    __module__ = "lohe"
    __array_priority__ = 1000  # NumPy leaves binary operations to this class

    # --- gradients

    def backward(
        self,
        gradient: Tensor | None = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: Any = None,
    ) -> None:
        """Adds the gradient of this tensor to ``.grad`` of the leaves (or of `inputs`)."""
        from lohe import autograd

        autograd.backward(self, gradient, retain_graph, create_graph, inputs=inputs)

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> Any:
        """Calls ``hook(grad)`` whenever a gradient of this tensor is computed; a result replaces the gradient."""
        from lohe.utils.hooks import RemovableHandle

        if not self.requires_grad:
            raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
        if self._backward_hooks is None:
            hooks: OrderedDict = OrderedDict()
            self._backward_hooks = hooks
            _C._install_tensor_hooks(self, hooks)
        handle = RemovableHandle(self._backward_hooks)
        self._backward_hooks[handle.id] = hook
        return handle

    def register_post_accumulate_grad_hook(self, hook: Callable[[Tensor], None]) -> Any:
        """Calls ``hook(self)`` after a gradient was added to ``.grad`` of this leaf."""
        from lohe.utils.hooks import RemovableHandle

        if not self.requires_grad:
            raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
        if self.grad_fn is not None:
            raise RuntimeError("post accumulate grad hooks cannot be registered on non-leaf tensors")
        hooks = self.__dict__.get("_post_accumulate_grad_hooks")
        if hooks is None:
            hooks = self._post_accumulate_grad_hooks = OrderedDict()
            _C._install_post_accumulate_hooks(self, hooks)
        handle = RemovableHandle(hooks)
        hooks[handle.id] = hook
        return handle

    def retain_grad(self) -> None:
        """Keeps the gradient of this tensor in ``.grad`` although it is no leaf."""
        _C._retain_grad(self)

    # --- text

    def __repr__(self, *, tensor_contents: str | None = None) -> str:
        from lohe._tensor_str import tensor_text

        return tensor_text(self)

    def __str__(self) -> str:
        return self.__repr__()

    def __format__(self, spec: str) -> str:
        if self.dim() == 0 and type(self) is Tensor:
            return self.item().__format__(spec)
        return object.__format__(self, spec)

    # --- sequences

    def __iter__(self) -> Iterator[Tensor]:
        if self.dim() == 0:
            raise TypeError("iteration over a 0-d tensor")
        return iter(self.unbind(0))

    def __reversed__(self) -> Tensor:
        return self if self.dim() == 0 else self.flip(0)

    def __contains__(self, element: Any) -> bool:
        if isinstance(element, (Tensor, int, float, complex)):
            return bool((self == element).any().item())
        raise RuntimeError(
            f"Tensor.__contains__ only supports Tensor or scalar, but you passed in a {type(element)}."
        )

    def __complex__(self) -> complex:
        return complex(self.item())

    def __dir__(self) -> list[str]:
        return sorted({*dir(type(self)), *self.__dict__})

    # --- NumPy and DLPack

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        array = self.numpy()
        if dtype is None and copy is not True:
            return array
        return array.astype(dtype or array.dtype, copy=bool(copy))

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Tensor:
        if array.dtype == bool:
            array = array.astype("uint8")
        return _C.from_numpy(array)

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        if stream is not None and stream != -1:
            raise BufferError("__dlpack__: a CPU tensor has no stream; pass stream=None")
        if dl_device is not None and tuple(dl_device) != (1, 0):
            raise BufferError(f"__dlpack__: cannot export to device {tuple(dl_device)}, only to the CPU, (1, 0)")
        if self.requires_grad:
            raise BufferError("Can't export tensors that require gradient, use tensor.detach()")
        if self.is_conj():
            raise BufferError("Can't export tensors with the conjugate bit set")
        source = self.clone() if copy else self
        return source._dlpack(max_version is not None and max_version[0] >= 1, bool(copy))

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0

    # --- copies and pickles

    def __deepcopy__(self, memo: dict) -> Tensor:
        if id(self) in memo:
            return memo[id(self)]
        if not self.is_leaf:
            raise RuntimeError(
                "Only Tensors created explicitly by the user (graph leaves) support the deepcopy protocol at the moment.  "
                "If you were attempting to deepcopy a module, this may be because of a torch.nn.utils.weight_norm usage, "
                "see https://github.com/pytorch/pytorch/pull/103001"
            )
        with _C.DisableTorchFunctionSubclass():
            # Tensors that share a storage share the copy of it, too.
            storage = copy.deepcopy(self.untyped_storage(), memo)
            made = _C._tensor_with_storage(storage, self.dtype, self.storage_offset(), self.shape, self.stride())
            if self.is_conj():
                made = made.conj()
            if type(self) is not Tensor:
                made = made.as_subclass(type(self))
            if self.requires_grad:
                made.requires_grad_()
        memo[id(self)] = made
        if self.grad is not None:
            made.grad = copy.deepcopy(self.grad, memo)
        for name, value in self.__dict__.items():
            if name != "_post_accumulate_grad_hooks":
                made.__dict__[name] = copy.deepcopy(value, memo)
        return made

    def __reduce_ex__(self, protocol: Any) -> tuple:
        if self.requires_grad and not self.is_leaf:
            raise RuntimeError(
                "Only leaf tensors can be pickled: this one is the result of a recorded computation; detach() it first"
            )
        state = {k: v for k, v in self.__dict__.items() if k != "_post_accumulate_grad_hooks"}
        source = self.resolve_conj().resolve_neg() if self.is_conj() or self.is_neg() else self
        return _rebuild, (
            type(self),
            source.untyped_storage(),
            self.dtype,
            source.storage_offset(),
            tuple(source.shape),
            source.stride(),
            self.requires_grad,
            state,
        )

    # --- types and places

    def type(self, dtype: Any = None, non_blocking: bool = False, **kwargs: Any) -> Any:
        """The name of the tensor's type, or the tensor in another type (a dtype or such a name)."""
        from lohe import _legacy

        return _legacy.tensor_type(self, dtype)

    def cuda(self, device: Any = None, non_blocking: bool = False, memory_format: Any = None) -> Tensor:
        raise RuntimeError("Lohe has no CUDA device here: this build computes on the CPU")

    def xpu(self, *args: Any, **kwargs: Any) -> Tensor:
        raise RuntimeError("Lohe has no XPU device here: this build computes on the CPU")

    def new_tensor(self, data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
        """``lohe.tensor(data)`` in this tensor's dtype."""
        return _C.tensor(data, dtype=dtype or self.dtype, requires_grad=requires_grad)

    def new(self, *args: Any) -> Tensor:
        """A tensor of this dtype by sizes or from a sequence."""
        if len(args) == 1 and isinstance(args[0], (list, tuple)) and not isinstance(args[0], _C.Size):
            return _C.tensor(args[0], dtype=self.dtype)
        return self.new_empty(*args) if args else self.new_empty(0)

    def nonzero(self, *, as_tuple: bool = False) -> Any:
        """Indices of the elements that are not zero: one row each, or with `as_tuple` one tensor a dimension."""
        from lohe import functional

        return functional.nonzero(self, as_tuple=as_tuple)

    def unique(
        self, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
    ) -> Any:
        """``lohe.unique(self)``"""
        from lohe import functional

        return functional.unique(self, sorted, return_inverse, return_counts, dim)

    def unique_consecutive(
        self, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
    ) -> Any:
        """``lohe.unique_consecutive(self)``"""
        from lohe import functional

        return functional.unique_consecutive(self, return_inverse, return_counts, dim)

    def pin_memory(self, device: Any = None) -> Tensor:
        """This tensor: without an accelerator there is nothing to pin memory for."""
        return self

    def share_memory_(self) -> Tensor:
        raise NotImplementedError(
            "share_memory_: tensors in shared memory are not supported; processes exchange tensors by pickling"
        )

    def apply_(self, function: Callable) -> Tensor:
        """Replaces each element by ``function(element)``; slow, for data preparation."""
        if self.requires_grad:
            raise TypeError("apply_() is only supported on CPU tensors that do not require grad")
        flat = [function(v) for v in self.reshape(-1).tolist()]
        return self.copy_(_C.tensor(flat, dtype=self.dtype).reshape(self.shape))

    def map_(self, other: Tensor, function: Callable) -> Tensor:
        """Replaces each element by ``function(element, other's element)``."""
        pairs = zip(self.reshape(-1).tolist(), other.expand_as(self).reshape(-1).tolist())
        return self.copy_(_C.tensor([function(a, b) for a, b in pairs], dtype=self.dtype).reshape(self.shape))

    def storage(self) -> Any:
        """The bytes behind this tensor."""
        return self.untyped_storage()

    def dim_order(self) -> tuple[int, ...]:
        """The dimensions from the largest stride to the smallest."""
        strides = self.stride()
        return tuple(sorted(range(self.dim()), key=lambda d: -strides[d]))

    def module_load(self, other: Tensor, assign: bool = False) -> Tensor:
        """What ``load_state_dict`` puts in the place of this parameter."""
        return other.detach() if assign else self.detach().copy_(other)

    @classmethod
    def __torch_function__(cls, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Runs `func` on plain tensors and gives its results the subclass's class."""
        if not all(issubclass(cls, t) for t in types):
            return NotImplemented
        with _C.DisableTorchFunctionSubclass():
            return _same_class(func(*args, **(kwargs or {})), cls)


def _rebuild(
    cls: type,
    storage: Any,
    dtype: _C.dtype,
    offset: int,
    sizes: tuple,
    strides: tuple,
    requires_grad: bool,
    state: dict,
) -> Tensor:
    """Makes a tensor out of its pickled parts."""
    made = _C._tensor_with_storage(storage, dtype, offset, sizes, strides)
    if cls is not Tensor:
        made = made.as_subclass(cls)
    if requires_grad:
        made.requires_grad_()
    if state:
        made.__dict__.update(state)
    return made


_C._set_tensor_class(Tensor)
