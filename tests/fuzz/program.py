"""Random programs: what they are made of, and how one runs in a framework (Lohe or PyTorch, whose names agree).

A program is a list of steps; each step's results get the names ``v<step>_<i>``, and later steps refer to them. A step
whose operands are missing, because an earlier step raised or was taken out, is skipped: so any subset of a program's
steps is a program, which is what shrinking needs. Steps are plain data; ``repr`` of a program reads back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

FLOATS = ("float32", "float64", "bfloat16", "float16")
COMPLEX = ("complex64", "complex128")
INTEGERS = ("int64", "int32", "int16", "int8", "uint8")
WIDE = {"float32": "float64", "bfloat16": "float64", "float16": "float64", "complex64": "complex128"}
# Errors that a call may raise; anything else is a fault of this program.
CALL_ERRORS = (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError, AttributeError, ZeroDivisionError)


@dataclass(frozen=True)
class Ref:
    """The result of an earlier step."""

    step: int
    part: int = 0

    def __repr__(self) -> str:
        return f"Ref({self.step}, {self.part})"


@dataclass(frozen=True)
class Dtype:
    """A dtype by name, so that it means the same in both frameworks."""

    name: str

    def __repr__(self) -> str:
        return f"Dtype({self.name!r})"


@dataclass(frozen=True)
class Leaf:
    """A new tensor: values from `seed` (or `data`, nested lists, when given), `layout` says how it lies in memory."""

    step: int
    dtype: str
    shape: tuple[int, ...]
    seed: int = 0
    layout: str = "dense"  # dense, transposed, strided, offset, expanded
    requires_grad: bool = False
    data: tuple[Any, ...] | None = None  # integers: an index or a repetition needs exact ones


@dataclass(frozen=True)
class Call:
    """`name` of `place` ("method", "torch", "nn.functional", "special", "linalg", "getitem" or "setitem")."""

    step: int
    place: str
    name: str
    args: tuple[Any, ...]
    kwargs: tuple[tuple[str, Any], ...] = ()


Step = Leaf | Call
Program = list[Step]


def references(value: Any) -> Iterator[Ref]:
    """Every reference in the arguments of a step."""
    if isinstance(value, Ref):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from references(item)
    elif isinstance(value, slice):
        yield from references((value.start, value.stop, value.step))
    elif isinstance(value, Call):
        yield from references(value.args)
        yield from references(tuple(v for _, v in value.kwargs))


def leaf_values(leaf: Leaf) -> np.ndarray:
    """A leaf's values, in float64 (complex128, int64) where its own dtype is narrower: multiples of 1/8 that every type has."""
    if leaf.data is not None:
        return np.array(leaf.data, dtype=np.int64).reshape(leaf.shape)
    rng = np.random.default_rng(leaf.seed)
    if leaf.dtype == "bool":
        return rng.integers(0, 2, leaf.shape).astype(bool)
    if leaf.dtype in INTEGERS:
        return rng.integers(0 if leaf.dtype == "uint8" else -5, 9, leaf.shape)
    values = rng.integers(-24, 25, leaf.shape) / 8
    if leaf.dtype in COMPLEX:
        return values + 1j * (rng.integers(-24, 25, leaf.shape) / 8)
    return values


def widened(program: Program) -> Program:
    """The same program with the wide dtype of every floating kind."""

    def of(value: Any) -> Any:
        if isinstance(value, Dtype):
            return Dtype(WIDE.get(value.name, value.name))
        if isinstance(value, tuple) and not isinstance(value, Ref):
            return tuple(of(v) for v in value)
        return value

    result: Program = []
    for step in program:
        if isinstance(step, Leaf):
            result.append(Leaf(step.step, WIDE.get(step.dtype, step.dtype), step.shape, step.seed, step.layout, step.requires_grad, step.data))
        else:
            name = {"float": "double", "half": "double", "bfloat16": "double", "cfloat": "cdouble"}.get(step.name, step.name)
            result.append(Call(step.step, step.place, name, of(step.args), of(step.kwargs)))
    return result


@dataclass
class Value:
    """A tensor's observable state, or a plain result of a call."""

    dtype: str = ""
    shape: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    offset: int = 0
    storage: int = -1  # the number of the first value of the run that has the same memory
    requires_grad: bool = False
    is_leaf: bool | None = True
    lazy: tuple[bool, bool] = (False, False)  # conjugate and negative bit
    data: bytes = b""
    plain: Any = None

    def array(self) -> np.ndarray:
        """The values as float64, complex128 or integers."""
        if self.dtype == "bfloat16":
            bits = np.frombuffer(self.data, dtype=np.uint16).astype(np.uint32) << 16
            return bits.view(np.float32).astype(np.float64).reshape(self.shape)
        raw = np.frombuffer(self.data, dtype=self.dtype).reshape(self.shape)
        return raw.astype(np.complex128 if raw.dtype.kind == "c" else np.float64) if raw.dtype.kind in "fc" else raw


    def bits(self) -> tuple[Any, ...]:
        """What must be equal between two runs of Lohe: everything, but a NaN's sign and payload mean nothing."""
        data: Any = self.data
        if self.dtype in (*FLOATS, *COMPLEX):
            part = {"complex64": "float32", "complex128": "float64", "bfloat16": "uint16"}.get(self.dtype, self.dtype)
            raw = np.frombuffer(data, dtype=part)
            bits = raw.view(f"uint{8 * raw.itemsize}")
            nan = (bits & 0x7FFF) > 0x7F80 if self.dtype == "bfloat16" else np.isnan(raw)
            data = np.where(nan, bits.dtype.type(-1 & (2 ** (8 * raw.itemsize) - 1)), bits).tobytes()
        return self.dtype, self.shape, self.stride, data, repr(self.plain)


@dataclass
class Trace:
    """What a run left: results of every step, then the final state of all values and the leaves' gradients."""

    results: dict[int, list[Value]] = field(default_factory=dict)
    errors: dict[int, tuple[str, str]] = field(default_factory=dict)
    changed_by_error: dict[int, list[Ref]] = field(default_factory=dict)
    final: dict[Ref, Value] = field(default_factory=dict)
    backward_error: tuple[str, str] | None = None
    gradients: dict[int, Value | None] = field(default_factory=dict)


class Machine:
    """One framework while a program runs."""

    def __init__(self, framework: Any, error_checks: bool = False, limit: int = 1 << 22):
        self.framework = framework
        self.limit = limit  # elements of a result; larger ones end the step with an error
        self.values: dict[Ref, Any] = {}
        self.trace = Trace()
        self._error_checks = error_checks
        self._looks = True
        self._leaves: dict[int, Any] = {}

    # ---- reading tensors

    def _bytes(self, t: Any) -> bytes:
        f = self.framework
        with f.no_grad():
            plain = t.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
            if t.dtype == f.bfloat16:
                plain = plain.view(f.int16)
            return plain.numpy().tobytes()

    def _storage(self, t: Any) -> int:
        """Memory as a number that both frameworks agree on."""
        where = t.untyped_storage().data_ptr()
        return -1 if where == 0 or t.numel() == 0 else where

    def _is_leaf(self, t: Any) -> bool | None:
        try:
            return t.is_leaf
        except RuntimeError:  # PyTorch rebuilds the history of a view here, and may refuse to
            return None

    def _state(self, t: Any) -> Value:
        if not isinstance(t, self.framework.Tensor):
            if isinstance(t, (bool, int, float, complex, str, type(None))):
                return Value(plain=t)
            if isinstance(t, self.framework.dtype):
                return Value(plain=str(t).rsplit(".", 1)[-1])
            return Value(plain=tuple(t) if isinstance(t, (tuple, list)) else type(t).__name__)
        dtype = str(t.dtype).rsplit(".", 1)[-1]
        return Value(
            dtype, tuple(t.shape), tuple(t.stride()), t.storage_offset(), self._storage(t), t.requires_grad, self._is_leaf(t),
            (t.is_conj(), t.is_neg()), self._bytes(t),
        )  # fmt: skip

    # ---- carrying out steps

    def _value(self, value: Any) -> Any:
        if isinstance(value, Ref):
            return self.values[value]
        if isinstance(value, Dtype):
            return getattr(self.framework, value.name)
        if isinstance(value, tuple):
            return tuple(self._value(v) for v in value)
        if isinstance(value, list):
            return [self._value(v) for v in value]
        return value

    def _leaf(self, leaf: Leaf) -> Any:
        f = self.framework
        dtype = getattr(f, leaf.dtype)
        values = leaf_values(leaf)
        with f.no_grad():
            dense = f.from_numpy(np.array(values, order="C")).to(dtype)
            t = dense
            if leaf.layout == "transposed" and len(leaf.shape) >= 2:
                t = f.empty(leaf.shape[::-1], dtype=dtype).permute(tuple(range(len(leaf.shape)))[::-1])
            elif leaf.layout == "strided" and leaf.shape:
                t = f.zeros((*leaf.shape[:-1], 2 * leaf.shape[-1]), dtype=dtype)[..., ::2]
            elif leaf.layout == "offset":
                t = f.zeros((dense.numel() + 3,), dtype=dtype)[3:].view(leaf.shape)
            elif leaf.layout == "expanded" and leaf.shape and leaf.shape[0] > 0:
                t = dense[:1].expand(leaf.shape)
            if t is not dense and leaf.layout != "expanded":
                t.copy_(dense)
            t = t.detach()
        if leaf.requires_grad:
            t.requires_grad_(True)
        return t

    def function(self, call: Call) -> Any:
        owner = self.framework
        for part in () if call.place in ("torch", "method") else call.place.split("."):
            owner = getattr(owner, part)
        return getattr(owner, call.name)

    def _call(self, call: Call) -> Any:
        args, kwargs = self._value(call.args), {k: self._value(v) for k, v in call.kwargs}
        if call.place == "getitem":
            return args[0][args[1]]
        if call.place == "setitem":
            args[0][args[1]] = args[2]
            return args[0]
        if call.place == "method":
            return getattr(args[0], call.name)(*args[1:], **kwargs)
        return self.function(call)(*args, **kwargs)

    def step(self, step: Step) -> bool:
        """Carries out one step; False where it raised or an operand is missing."""
        if any(ref not in self.values for ref in references(step)):
            return False
        if isinstance(step, Leaf):
            leaf = self._leaf(step)
            self.values[Ref(step.step)] = leaf
            if step.requires_grad:
                self._leaves[step.step] = leaf
            return True
        before = {ref: self._state(v) for ref, v in self.values.items()} if self._error_checks else {}
        try:
            result = self._call(step)
        except CALL_ERRORS as error:
            self.trace.errors[step.step] = (type(error).__name__, str(error))
            changed = [ref for ref, old in before.items() if not same_state(old, self._state(self.values[ref]))]
            if changed:
                self.trace.changed_by_error[step.step] = changed
            return False
        parts = list(result) if isinstance(result, (tuple, list)) and not isinstance(result, self.framework.Size) else [result]
        if any(isinstance(p, self.framework.Tensor) and p.numel() > self.limit for p in parts):
            self.trace.errors[step.step] = ("TooLarge", "")
            return False
        halves = getattr(self.framework, "complex32", None)  # PyTorch's alone
        if halves is not None and any(isinstance(p, self.framework.Tensor) and p.dtype == halves for p in parts):
            self.trace.errors[step.step] = ("NoSuchDtype", "")
            return False
        if self._looks:
            self.trace.results[step.step] = [self._state(p) for p in parts]
        for i, part in enumerate(parts):
            if isinstance(part, self.framework.Tensor):
                self.values[Ref(step.step, i)] = part
        return True

    def backward(self) -> None:
        """Gradients of a fixed weighting of everything that has one."""
        f = self.framework
        try:
            total = None
            for ref, v in self.values.items():
                if not v.requires_grad or not (v.is_floating_point() or v.is_complex()) or v.numel() == 0:
                    continue
                weight = ((f.arange(v.numel()) * 7 + ref.step) % 11 - 5).reshape(v.shape) / 4
                part = (v * weight.to(v.dtype)).sum()
                part = part.real + part.imag * 0.5 if part.is_complex() else part
                part = part.to(f.float64)
                total = part if total is None else total + part
            if total is not None:
                total.backward()
        except CALL_ERRORS as error:
            self.trace.backward_error = (type(error).__name__, str(error))
        self._note_gradients()

    def _note_gradients(self) -> None:
        if self._looks:
            for step, leaf in self._leaves.items():
                self.trace.gradients[step] = None if leaf.grad is None else self._state(leaf.grad)

    def _note_final(self) -> None:
        first: dict[int, int] = {}
        for i, (ref, v) in enumerate(self.values.items()):
            state = self._state(v)
            if state.storage != -1:
                state.storage = first.setdefault(state.storage, i)
            self.trace.final[ref] = state

    def run_unobserved(self, program: Program, scope: Any, settle: Any) -> Trace:
        """The program and its backward pass inside `scope`, a context; only what it leaves is looked at, and only then.

        `settle` is called between steps. Lohe only.
        """
        self._looks = False
        try:
            with scope:
                for step in program:
                    if isinstance(step, Leaf):
                        self.step(step)
                for step in program:
                    if not isinstance(step, Leaf):
                        self.step(step)
                    settle()
                self.backward()
        except CALL_ERRORS as error:
            self.trace.errors[-1] = (type(error).__name__, str(error))
        self._looks = True
        try:
            self._note_final()
            self._note_gradients()
        except CALL_ERRORS as error:
            self.trace.errors[-2] = (type(error).__name__, str(error))
        return self.trace

    def run(self, program: Program, gradients: bool = True) -> Trace:
        for step in program:
            self.step(step)
        self._note_final()
        if gradients:
            self.backward()
        return self.trace


def same_state(a: Value, b: Value) -> bool:
    return (a.dtype, a.shape, a.stride, a.offset, a.storage, a.requires_grad, a.data) == (
        b.dtype, b.shape, b.stride, b.offset, b.storage, b.requires_grad, b.data,
    )  # fmt: skip


def as_python(program: Program) -> str:
    """The program as Python source that runs with `torch` bound to either framework."""

    def text(value: Any) -> str:
        if isinstance(value, Ref):
            return f"v{value.step}_{value.part}"
        if isinstance(value, Dtype):
            return f"torch.{value.name}"
        if isinstance(value, tuple):
            return "(" + "".join(text(v) + ", " for v in value) + ")"
        if isinstance(value, list):
            return "[" + ", ".join(text(v) for v in value) + "]"
        if isinstance(value, slice):
            return f"slice({value.start}, {value.stop}, {value.step})"
        return repr(value)

    lines = []
    for step in program:
        if isinstance(step, Leaf):
            lines.append(f"v{step.step}_0 = leaf({step})")
            continue
        arguments = [text(a) for a in step.args] + [f"{k}={text(v)}" for k, v in step.kwargs]
        if step.place == "getitem":
            line = f"{arguments[0]}[{arguments[1]}]"
        elif step.place == "setitem":
            line = f"{arguments[0]}[{arguments[1]}] = {arguments[2]}"
        elif step.place == "method":
            line = f"{arguments[0]}.{step.name}({', '.join(arguments[1:])})"
        else:
            line = f"torch.{step.place + '.' if step.place != 'torch' else ''}{step.name}({', '.join(arguments)})"
        lines.append(f"v{step.step} = {line}")
    return "\n".join(lines)
