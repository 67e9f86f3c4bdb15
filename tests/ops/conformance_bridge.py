"""Carries values between PyTorch, the oracle, and the module under test.

A :class:`Bridge` rebuilds the tensors of one sample in a target module so that everything an operator can
observe is kept: sizes, strides, storage offset, which tensors share a storage, lazy conjugate and negative
bits, ``requires_grad``, and which arguments are one and the same object. :class:`Translator` finds, for a
callable of the operator database, the callable of the same dotted name in the target module.
"""

from __future__ import annotations

import dataclasses
import functools
import types
from typing import Any

import torch


class Missing(Exception):
    """The module under test has no attribute of this dotted name."""


class Unsupported(Exception):
    """The sample holds something that is outside the comparison, such as a sparse tensor."""


_WIDER = {
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.float32: torch.float64,
    torch.complex64: torch.complex128,
}


def dtype_name(dtype: Any) -> str:
    """``'float32'`` for the dtype object of either module."""
    return str(dtype).rsplit(".", 1)[-1]


class Bridge:
    """Rebuilds one sample's values in ``module``; use a fresh one for every call, since it owns the memory.

    ``widen`` replaces every floating dtype by its 64-bit counterpart, for a reference of higher precision.
    ``tensors`` holds the rebuilt tensors in the order in which the sample names them.
    """

    def __init__(self, module: Any, *, widen: bool = False, gradients: bool = True):
        self.module = module
        self.widen = widen
        self.gradients = gradients
        self.tensors: list[Any] = []
        self.sources: list[torch.Tensor] = []
        self._storages: dict[tuple[int, torch.dtype], Any] = {}
        self._whole: set[tuple[int, torch.dtype]] = set()
        self._objects: dict[int, Any] = {}

    def value(self, v: Any) -> Any:
        """The counterpart of ``v``; containers are rebuilt, plain Python and NumPy values pass through."""
        if isinstance(v, torch.Tensor):
            return self._tensor(v)
        if isinstance(v, torch.Size):
            return self.module.Size(v) if hasattr(self.module, "Size") else tuple(v)
        if isinstance(v, tuple):
            items = [self.value(x) for x in v]
            return type(v)(*items) if hasattr(v, "_fields") else tuple(items)
        if isinstance(v, list):
            return [self.value(x) for x in v]
        if isinstance(v, dict):
            return {k: self.value(x) for k, x in v.items()}
        if isinstance(v, slice):
            return slice(self.value(v.start), self.value(v.stop), self.value(v.step))
        return self.constant(v)

    def constant(self, v: Any) -> Any:
        if isinstance(v, torch.dtype):
            return _attribute(self.module, dtype_name(_WIDER.get(v, v) if self.widen else v))
        if isinstance(v, (torch.memory_format, torch.layout)):
            return _attribute(self.module, dtype_name(v))
        if isinstance(v, torch.device):
            return self.module.device(str(v))
        if isinstance(v, torch.Generator):
            return self.module.Generator().manual_seed(v.initial_seed() & 0x7FFFFFFF)
        if isinstance(v, torch.nn.Module):
            if self.module is torch:
                return v
            if any(True for _ in v.parameters()):
                raise Unsupported("a module with parameters as an argument")
            return _attribute(self.module, "nn." + type(v).__name__)()
        if dataclasses.is_dataclass(v) and type(v).__module__.startswith("torch.nn.") and self.module is not torch:
            fields = {f.name: self.value(getattr(v, f.name)) for f in dataclasses.fields(v)}
            return _attribute(self.module, "nn." + type(v).__name__)(**fields)
        if callable(v) and not isinstance(v, type) and self.module is not torch:
            return Translator(self.module).callable(v)
        return v

    def _tensor(self, t: torch.Tensor) -> Any:
        if id(t) in self._objects:
            return self._objects[id(t)]
        if (
            t.layout is not torch.strided
            or t.is_quantized
            or t.device.type != "cpu"
            or type(t)
            not in (
                torch.Tensor,
                torch.nn.Parameter,
            )
        ):
            raise Unsupported(f"a tensor of layout {t.layout}, type {type(t).__name__}, on {t.device}")
        with torch.no_grad():
            raw = t.detach()
            if raw.is_neg():
                raw = torch._neg_view(raw)
            conj = raw.is_conj()
            if conj:
                raw = torch.conj(raw)
            out = self._strided(raw)
        if conj:
            out = self.module.conj(out)
        if t.is_neg():
            out = self.module._neg_view(out)
        if t.requires_grad and self.gradients:
            out = out.detach().requires_grad_(True) if conj or t.is_neg() else out.requires_grad_(True)
        self._objects[id(t)] = out
        self.tensors.append(out)
        self.sources.append(t)
        return out

    def _strided(self, raw: torch.Tensor) -> Any:
        """``raw`` (no lazy bits) over this bridge's copy of its storage."""
        dtype = _WIDER.get(raw.dtype, raw.dtype) if self.widen else raw.dtype
        storage = raw.untyped_storage()
        key = (storage._cdata, raw.dtype)
        count = storage.nbytes() // raw.element_size()
        if key not in self._storages:
            other = next((d for c, d in self._storages if c == key[0]), None)
            if other is not None:
                if self.widen:
                    raise Unsupported("a storage read as two dtypes cannot be widened")
                self._storages[key] = self._storages[(key[0], other)].view(
                    _attribute(self.module, dtype_name(dtype))
                )
            else:
                flat = torch.empty(0, dtype=raw.dtype).set_(storage, 0, (count,), (1,)).clone().to(dtype)
                self._storages[key] = flat if self.module is torch else self.module.from_dlpack(flat).clone()
        base = self._storages[key]
        whole = (
            raw.storage_offset() == 0 and raw.dim() == 1 and raw.shape[0] == count and raw.stride() == (1,)
        )
        if whole and key not in self._whole:
            self._whole.add(key)
            return base
        return self.module.as_strided(base, tuple(raw.shape), raw.stride(), raw.storage_offset())


def to_torch(tensor: Any) -> torch.Tensor:
    """A detached PyTorch tensor over the values of ``tensor``, with its sizes and strides."""
    if isinstance(tensor, torch.Tensor):
        return tensor.detach().resolve_conj().resolve_neg()
    plain = tensor.detach()
    if hasattr(plain, "resolve_conj") and dtype_name(plain.dtype).startswith("complex"):
        plain = plain.resolve_conj()
    if hasattr(plain, "is_neg") and plain.is_neg():
        plain = plain.resolve_neg()
    return torch.from_dlpack(plain)


def _attribute(module: Any, path: str) -> Any:
    for part in path.split("."):
        try:
            module = getattr(module, part)
        except AttributeError:
            raise Missing(path) from None
    return module


@functools.cache
def _torch_paths() -> dict[int, tuple[Any, str]]:
    """The dotted name, relative to ``torch``, of every public callable of PyTorch, by identity."""
    spaces = [
        ("", torch),
        ("nn.functional", torch.nn.functional),
        ("linalg", torch.linalg),
        ("fft", torch.fft),
        ("special", torch.special),
        ("signal.windows", torch.signal.windows),
        ("masked", torch.masked),
        ("Tensor", torch.Tensor),
        ("sparse", torch.sparse),
        ("nn.functional", torch._C._nn),
        ("", torch._VF),
    ]
    paths: dict[int, tuple[Any, str]] = {}  # with the member, which keeps its identity from being reused
    for prefix, space in spaces:
        for name in sorted(dir(space), key=lambda name: name.startswith("_")):  # a public name before a private one
            try:
                member = getattr(space, name)
            except (AttributeError, RuntimeError):
                continue
            if callable(member):
                paths.setdefault(id(member), (member, f"{prefix}.{name}" if prefix else name))
    return paths


class Translator:
    """Maps callables that use PyTorch to callables that use ``module``."""

    def __init__(self, module: Any):
        self.module = module
        self._rebuilt: dict[int, tuple[Any, types.FunctionType]] = {}

    def callable(self, f: Any) -> Any:
        """The counterpart of ``f``; raises :class:`Missing` with the dotted name when there is none.

        A function of PyTorch's test suite (a wrapper around an operator) is rebuilt with its globals, closure
        and defaults translated, so that it calls ``module`` in the same way.
        """
        if self.module is torch:
            return f
        found = _torch_paths().get(id(f))
        if found is not None:
            return _attribute(self.module, found[1])
        if isinstance(f, functools.partial):
            keywords = {k: self._value(v) for k, v in f.keywords.items()}
            return functools.partial(self.callable(f.func), *map(self._value, f.args), **keywords)
        if isinstance(f, types.FunctionType):
            if f.__name__ == "wrapper_set_seed":
                return self._call_seeded
            return self._rebind(f)
        if isinstance(f, type) or not (getattr(f, "__module__", None) or "").startswith("torch"):
            return f
        raise Missing(getattr(f, "__qualname__", None) or str(f))

    def named(self, name: str) -> None:
        """Raises :class:`Missing` when PyTorch has an operator of this dotted name and ``module`` does not.

        An entry may be a function of the test suite that calls the operator only when it runs.
        """
        for space in ("", "Tensor."):
            try:
                _attribute(torch, space + name)
            except Missing:
                continue
            _attribute(self.module, space + name)
            return

    def _call_seeded(self, op: Any, *args: Any, **kwargs: Any) -> Any:
        self.module.manual_seed(42)
        return op(*args, **kwargs)

    def _rebind(self, f: types.FunctionType) -> types.FunctionType:
        if id(f) in self._rebuilt:
            return self._rebuilt[id(f)][1]
        scope: dict[str, Any] = {"__builtins__": f.__globals__.get("__builtins__", __builtins__)}
        cells = tuple(types.CellType() for _ in f.__closure__ or ())
        g = types.FunctionType(f.__code__, scope, f.__name__, None, cells)
        self._rebuilt[id(f)] = f, g  # before its parts are translated, since a function may name itself
        for name in _names(f.__code__):
            if name in f.__globals__:
                scope[name] = self._value(f.__globals__[name])
        for cell, source in zip(cells, f.__closure__ or (), strict=True):
            cell.cell_contents = self._value(source.cell_contents)
        g.__defaults__ = tuple(self._value(v) for v in f.__defaults__ or ()) or None
        g.__kwdefaults__ = {k: self._value(v) for k, v in (f.__kwdefaults__ or {}).items()} or None
        return g

    def _value(self, v: Any) -> Any:
        if v is torch:
            return self.module
        if v is torch.Tensor:
            return self.module.Tensor
        if isinstance(v, types.ModuleType):
            return _attribute(self.module, v.__name__[6:]) if v.__name__.startswith("torch.") else v
        if isinstance(v, torch.Tensor):
            return Bridge(self.module).value(v)
        if isinstance(v, (torch.dtype, torch.memory_format, torch.layout, torch.device)):
            return Bridge(self.module).constant(v)
        if isinstance(v, (tuple, list)) and type(v) in (tuple, list):
            return type(v)(self._value(x) for x in v)
        if callable(v) and (
            isinstance(v, (types.FunctionType, functools.partial)) or id(v) in _torch_paths()
        ):
            module = getattr(v, "__module__", None) or ""
            return self.callable(v) if module.startswith("torch") or id(v) in _torch_paths() else v
        return v


def _names(code: types.CodeType) -> set[str]:
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= _names(constant)
    return found
