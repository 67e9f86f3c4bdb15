"""Runs one case in PyTorch and in the module under test and says in what they differ.

A difference has a class, one of :data:`CLASSES`, in the order in which a case with several is filed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import traceback
import warnings
import zlib
from collections.abc import Callable
from typing import Any

import torch
from conformance_bridge import Bridge, Missing, Translator, Unsupported, dtype_name, to_torch
from conformance_cases import DROPS, EXACT, EXACT_IF_REAL, NONDETERMINISTIC, Case, tolerance, variant_callable

CLASSES = (
    "crash",  # the process died
    "timeout",  # the case ran past the time limit
    "missing",  # no callable of this name, or an attribute error inside the call
    "raised",  # raised where PyTorch returns
    "not_raised",  # returned where PyTorch raises
    "error_type",  # raised another exception type
    "structure",  # other containers, counts, field names or Python values
    "dtype",
    "shape",
    "value",
    "stride",
    "lazy_bit",  # conjugate or negative bit
    "alias",  # which inputs or results share memory, at which offset, or are the same object
    "input",  # an argument was changed, or not changed, where PyTorch does otherwise
    "requires_grad",
    "gradient",
    "gradient_error",
)

# The factors, by position in the result, that are unique only up to a sign, a phase or a rotation.
GAUGED = {"svd": (0, 2), "linalg.svd": (0, 2), "linalg.eigh": (1,), "linalg.eig": (1,)}


@dataclasses.dataclass
class Outcome:
    """What one call left: the flat results, or the exception; then gradients, or their exception."""

    leaves: list[tuple[str, Any]] = dataclasses.field(default_factory=list)
    arguments: list[Any] = dataclasses.field(default_factory=list)
    error: BaseException | None = None
    differentiable: list[bool] = dataclasses.field(default_factory=list)
    gradients: list[Any] | None = None
    gradient_error: BaseException | None = None
    trace: str = ""


@dataclasses.dataclass(frozen=True)
class Difference:
    kind: str
    message: str


class Comparison:
    """Compares ``module`` with PyTorch, case by case."""

    def __init__(self, module: Any):
        self.module = module
        self._translator = Translator(module)

    def compare(
        self, op: Any, case: Case, before_module: Callable[[], None] = lambda: None
    ) -> list[Difference]:
        """All differences, most severe class first; empty when the case passes.

        ``before_module`` is called when PyTorch is done and the module's turn comes, so that a crash can be
        laid at the right door. Raises :class:`Unsupported` when the sample is outside the comparison.
        """
        expected = self.outcome(torch, op, case)
        before_module()
        try:
            actual = self.outcome(self.module, op, case)
        except Missing as missing:
            return [Difference("missing", str(missing))]
        found = list(_Judge(self, op, case, expected, actual).differences())
        return sorted(found, key=lambda d: CLASSES.index(d.kind))

    def digest(self, op: Any, case: Case) -> str:
        """A hash of everything the module under test computes for the case, errors by type."""
        try:
            outcome = self.outcome(self.module, op, case)
        except Missing as missing:
            return f"missing {missing}"
        if outcome.error is not None:
            return f"raised {type(outcome.error).__name__}"
        state = hashlib.sha1()
        uninitialised = "empty" in op.name or "resize" in op.name
        for path, leaf in outcome.leaves + [("gradient", g) for g in outcome.gradients or ()]:
            state.update(path.encode())
            if not _is_tensor(self.module, leaf):
                state.update(repr(leaf).encode() if not callable(leaf) else b"")
                continue
            state.update(f"{dtype_name(leaf.dtype)}{tuple(leaf.shape)}".encode())
            if not uninitialised:
                plain = to_torch(leaf).clone(memory_format=torch.contiguous_format).reshape(-1)
                if plain.is_complex():
                    plain = torch.view_as_real(plain).reshape(-1)
                if plain.is_floating_point():  # a NaN's sign and payload mean nothing
                    plain = torch.where(plain.isnan(), torch.full_like(plain, float("nan")), plain)
                state.update(plain.view(torch.uint8).numpy().tobytes())
        if outcome.gradient_error is not None:
            state.update(type(outcome.gradient_error).__name__.encode())
        return state.hexdigest()

    def outcome(self, module: Any, op: Any, case: Case, widen: bool = False) -> Outcome:
        """Runs the case in ``module``; raises :class:`Missing` or :class:`Unsupported`."""
        translator = self._translator if module is self.module else Translator(torch)
        function = translator.callable(variant_callable(op, case.variant))
        bridge = Bridge(module, widen=widen, gradients=case.gradients)
        sample = case.sample
        first = bridge.value(sample.input)
        args = bridge.value(sample.args)
        kwargs = bridge.value(sample.kwargs)
        outcome = Outcome(arguments=bridge.tensors)
        module.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                if case.variant.startswith("out"):
                    kwargs["out"] = self._out(module, op, case, widen)
                if "inplace" in case.variant:
                    first = first.clone()
                    bridge.tensors.append(first)
                result = function(first, *args, **kwargs)
            except (Missing, Unsupported):
                raise
            except Exception as error:  # noqa: BLE001 - any exception is an outcome to compare
                outcome.error = error
                outcome.trace = traceback.format_exc()
                return outcome
            if case.variant.startswith("out"):
                outcome.arguments = [*bridge.tensors, *(o for _, o in _flatten(kwargs["out"]))]
            outcome.leaves = list(_flatten(result))
            if case.gradients:
                self._differentiate(module, translator, bridge, case, result, outcome)
        return outcome

    def _out(self, module: Any, op: Any, case: Case, widen: bool) -> Any:
        """Results to write into, built from PyTorch's own results of the plain call."""
        plain = dataclasses.replace(case, variant="function", gradients=False)
        expected = self.outcome(torch, op, plain, widen)
        if expected.error is not None:
            raise Unsupported("the call without out= fails")
        tensors = [leaf for _, leaf in expected.leaves]
        if not tensors or not all(isinstance(t, torch.Tensor) for t in tensors):
            raise Unsupported("results that are no tensors")
        outs = [_out_like(t, case.variant) for t in tensors]
        built = [Bridge(module).value(o) for o in outs]
        return built[0] if expected.leaves[0][0] == "" else tuple(built)

    def _differentiate(
        self, module: Any, translator: Translator, bridge: Bridge, case: Case, result: Any, outcome: Outcome
    ) -> None:
        inputs = [t for t in bridge.tensors if t.requires_grad and t.is_leaf]
        try:
            process = translator.callable(case.sample.output_process_fn_grad)
            outputs = [t for _, t in _flatten(process(result)) if _is_tensor(module, t)]
            outcome.differentiable = [bool(t.requires_grad) for t in outputs]
            outputs = [t for t in outputs if t.requires_grad]
            if not inputs or not outputs:
                return
            cotangents = [_cotangent(module, t, case.id, i) for i, t in enumerate(outputs)]
            grads = module.autograd.grad(outputs, inputs, cotangents, allow_unused=True)
            outcome.gradients = list(grads)
        except Missing:
            raise
        except Exception as error:  # noqa: BLE001 - any exception is an outcome to compare
            outcome.gradient_error = error
            outcome.trace = traceback.format_exc()


def _out_like(t: torch.Tensor, variant: str) -> torch.Tensor:
    if variant == "out_empty":
        return torch.empty(0, dtype=t.dtype)
    if variant == "out_dtype":
        other = torch.int64 if t.dtype != torch.int64 else torch.bool
        return torch.zeros(t.shape, dtype=other)
    if variant == "out_strided" and t.dim() > 0:
        return torch.ones(*reversed(t.shape), 2, dtype=t.dtype)[..., 1].permute(*reversed(range(t.dim())))
    return torch.ones(t.shape, dtype=t.dtype)


def _cotangent(module: Any, t: Any, case_id: str, index: int) -> Any:
    generator = torch.Generator().manual_seed(zlib.crc32(f"{case_id}#{index}".encode()))
    dtype = getattr(torch, dtype_name(t.dtype))
    wide = torch.complex128 if dtype.is_complex else torch.float64
    values = torch.randn(tuple(t.shape), generator=generator, dtype=wide)
    # Rounded to half precision first, so that every dtype gets the same values.
    values = torch.view_as_real(values) if dtype.is_complex else values
    values = values.to(torch.bfloat16).to(torch.float64)
    values = torch.view_as_complex(values) if dtype.is_complex else values
    return Bridge(module).value(values.to(dtype))


def _is_tensor(module: Any, v: Any) -> bool:
    return isinstance(v, (torch.Tensor, module.Tensor))


def _flatten(v: Any, path: str = "") -> Any:
    """``(path, leaf)`` pairs; a path shows the container (``()`` tuple, ``[]`` list) and the index or key."""
    if isinstance(v, (tuple, list)) and type(v).__name__ != "Size":
        if not v:
            yield path + ("[]" if isinstance(v, list) else "()"), None
        for i, item in enumerate(v):
            yield from _flatten(item, f"{path}[{i}]" if isinstance(v, list) else f"{path}({i})")
    elif isinstance(v, dict):
        for key, item in v.items():
            yield from _flatten(item, f"{path}.{key}")
    else:
        yield path, v


def _error_name(error: BaseException) -> str:
    # The class for which there is no public name yet is reported by what it derives from.
    return type(error).__name__.lstrip("_")


class _Judge:
    def __init__(self, owner: Comparison, op: Any, case: Case, expected: Outcome, actual: Outcome):
        self.owner, self.op, self.case = owner, op, case
        self.expected, self.actual = expected, actual
        self._reference: Outcome | None = None

    def differences(self) -> Any:
        expected, actual = self.expected, self.actual
        if expected.error is not None or actual.error is not None:
            yield from self._errors()
            return
        if [p for p, _ in expected.leaves] != [p for p, _ in actual.leaves]:
            yield Difference("structure", f"got {_shape_of(actual)}, expected {_shape_of(expected)}")
            return
        for i, ((path, want), (_, got)) in enumerate(zip(expected.leaves, actual.leaves, strict=True)):
            yield from self._leaf(path or "result", want, got, i)
        yield from self._decomposition()
        yield from self._aliases()
        yield from self._inputs()
        yield from self._gradients()

    def _errors(self) -> Any:
        want, got = self.expected.error, self.actual.error
        if got is None:
            yield Difference("not_raised", f"expected {_error_name(want)}: {_first_line(want)}")
        elif want is None:
            kind = "missing" if isinstance(got, AttributeError) else "raised"
            yield Difference(kind, f"{_error_name(got)}: {_first_line(got)}")
        elif _error_name(want) != _error_name(got):
            yield Difference(
                "error_type",
                f"got {_error_name(got)}: {_first_line(got)}; "
                f"expected {_error_name(want)}: {_first_line(want)}",
            )

    def _leaf(self, path: str, want: Any, got: Any, index: int) -> Any:
        module = self.owner.module
        if not isinstance(want, torch.Tensor):
            if _is_tensor(module, got) or not _same_python(want, got, self._random()):
                yield Difference("structure", f"{path}: got {got!r:.80}, expected {want!r:.80}")
            return
        if not _is_tensor(module, got):
            yield Difference("structure", f"{path}: got {type(got).__name__}, expected a tensor")
            return
        if dtype_name(got.dtype) != dtype_name(want.dtype):
            yield Difference(
                "dtype", f"{path}: got {dtype_name(got.dtype)}, expected {dtype_name(want.dtype)}"
            )
            return
        if tuple(got.shape) != tuple(want.shape):
            yield Difference("shape", f"{path}: got {tuple(got.shape)}, expected {tuple(want.shape)}")
            return
        if not want.is_sparse and _strides(got) != _strides(want):
            yield Difference(
                "stride", f"{path}: got {got.stride()}, expected {want.stride()}, shape {tuple(want.shape)}"
            )
        for bit in ("is_conj", "is_neg"):
            if bool(getattr(got, bit, bool)()) != getattr(want, bit)():
                yield Difference("lazy_bit", f"{path}: {bit} is {not getattr(want, bit)()}")
        if not self._random() and index not in GAUGED.get(self.op.name, ()):
            reference = self._leaf_reference(index)
            inexact = self.op.name in EXACT_IF_REAL and any(t.is_complex() for t in self.expected.arguments)
            exact = self.op.name in EXACT and not inexact
            message = self._mismatch(to_torch(got), to_torch(want), reference, exact)
            if message:
                yield Difference("value", f"{path}: {message}")

    def _decomposition(self) -> Any:
        """Factors that are unique only up to signs or phases are compared by the product they stand for."""
        if self.op.name not in GAUGED or len(self.expected.leaves) < 2:
            return
        products = []
        for outcome in (self.actual, self.expected):
            leaves = [to_torch(leaf) for _, leaf in outcome.leaves if leaf is not None]
            products.append(_product(self.op.name, leaves))
        message = self._mismatch(*products, lambda: None)
        if message:
            yield Difference("value", f"product of the factors: {message}")

    def _random(self) -> bool:
        drops = DROPS.get(self.op.name)
        return self.op.name in NONDETERMINISTIC or (drops is not None and drops(self.case.sample))

    def _leaf_reference(self, index: int) -> Any:
        def reference() -> torch.Tensor | None:
            outcome = self._wide()
            if outcome is None or index >= len(outcome.leaves):
                return None
            leaf = outcome.leaves[index][1]
            return to_torch(leaf) if isinstance(leaf, torch.Tensor) else None

        return reference

    def _gradient_reference(self, index: int) -> Any:
        def reference() -> torch.Tensor | None:
            outcome = self._wide()
            grad = outcome.gradients[index] if outcome is not None and outcome.gradients else None
            return to_torch(grad) if grad is not None else None

        return reference

    def _wide(self) -> Outcome | None:
        """PyTorch's outcome with every float in 64 bits, or None where that cannot be had."""
        if self._reference is None:
            try:
                self._reference = self.owner.outcome(torch, self.op, self.case, widen=True)
            except (Unsupported, Missing):
                self._reference = Outcome(error=RuntimeError())
        return None if self._reference.error is not None else self._reference

    def _mismatch(self, got: torch.Tensor, want: torch.Tensor, reference: Any, exact: bool = False) -> str:
        """Empty when equal within the class of tolerance, else what differs.

        Exact: bool and integers, and operators that only move, select or change signs. Otherwise the
        tolerance of PyTorch's tests. A result outside of that still passes when its largest error against
        PyTorch's own result in 64 bits is at most twice PyTorch's, since then PyTorch's rounding is what the
        comparison measures; so does a finite element where PyTorch's overflows and the one in 64 bits does not.
        """
        if got.numel() == 0:
            return ""
        floating = want.dtype.is_floating_point or want.dtype.is_complex
        if not floating or exact:
            same = got == want
            if floating:
                same |= got.isnan() & want.isnan()
            return "" if bool(same.all()) else _describe(got, want, same)
        rtol, atol = tolerance(self.op, want.dtype)
        close = torch.isclose(got, want, rtol=rtol, atol=atol, equal_nan=True)
        if bool(close.all()):
            return ""
        ideal = reference()
        wide = (torch.float64, torch.complex128)
        if ideal is None or ideal.shape != want.shape or ideal.dtype not in wide or want.dtype in wide:
            return _describe(got, want, close)
        theirs = (want.to(ideal.dtype) - ideal).abs()
        ours = (got.to(ideal.dtype) - ideal).abs()
        finite = theirs[theirs.isfinite()]
        bound = 2 * finite.max() if finite.numel() else torch.tensor(0.0)
        overflow = ideal.isfinite() & got.isfinite() & ~theirs.isfinite()
        if bool((close | (ours <= bound) | overflow).all()):
            return ""
        return _describe(got, want, close)

    def _aliases(self) -> Any:
        want = _relations(torch, self.expected)
        got = _relations(self.owner.module, self.actual)
        for path, expected in want.items():
            if path in got and got[path] != expected:
                yield Difference("alias", f"{path or 'result'}: got {got[path]}, expected {expected}")

    def _inputs(self) -> Any:
        if self._random():
            return
        pairs = zip(self.expected.arguments, self.actual.arguments, strict=False)
        results = [
            (want, got)
            for (_, want), (_, got) in zip(self.expected.leaves, self.actual.leaves, strict=True)
        ]
        for i, (want, got) in enumerate(pairs):
            if any(want is w and got is g for w, g in results):
                continue  # what was written is the result, which is compared as such
            if tuple(want.shape) != tuple(got.shape):
                yield Difference(
                    "input", f"argument {i}: got shape {tuple(got.shape)}, expected {tuple(want.shape)}"
                )
                continue
            message = self._mismatch(to_torch(got), to_torch(want), lambda: None)
            if message:
                yield Difference("input", f"argument {i}: {message}")

    def _gradients(self) -> Any:
        expected, actual = self.expected, self.actual
        if expected.gradient_error is not None or actual.gradient_error is not None:
            want, got = expected.gradient_error, actual.gradient_error
            if want is None or got is None or _error_name(want) != _error_name(got):
                names = [
                    f"{_error_name(e)}: {_first_line(e)}" if e is not None else "no error"
                    for e in (got, want)
                ]
                yield Difference("gradient_error", f"got {names[0]}, expected {names[1]}")
            return
        if expected.differentiable != actual.differentiable:
            yield Difference(
                "requires_grad", f"got {actual.differentiable}, expected {expected.differentiable}"
            )
            return
        if self._random():
            return
        for i, (want, got) in enumerate(zip(expected.gradients or (), actual.gradients or (), strict=True)):
            if (want is None) != (got is None):
                names = ["none" if g is None else "a tensor" for g in (got, want)]
                yield Difference("gradient", f"input {i}: got {names[0]}, expected {names[1]}")
            elif want is not None:
                if tuple(got.shape) != tuple(want.shape) or dtype_name(got.dtype) != dtype_name(want.dtype):
                    yield Difference("gradient", f"input {i}: got {tuple(got.shape)} {got.dtype}")
                    continue
                message = self._mismatch(to_torch(got), to_torch(want), self._gradient_reference(i))
                if message:
                    yield Difference("gradient", f"input {i}: {message}")


def _product(name: str, leaves: list[torch.Tensor]) -> torch.Tensor:
    if name in ("svd", "linalg.svd"):
        u, s, v = leaves
        vh = v.mH if name == "svd" else v
        k = s.shape[-1]
        return (u[..., :k] * s.unsqueeze(-2).to(u.dtype)) @ vh[..., :k, :]
    w, v = leaves
    right = v.mH if name == "linalg.eigh" else torch.linalg.pinv(v)
    return (v * w.unsqueeze(-2).to(v.dtype)) @ right


def _strides(t: Any) -> tuple[int, ...]:
    """Strides of the dimensions that have more than one index; those of an empty tensor address nothing."""
    shape = tuple(t.shape)
    if 0 in shape:
        return ()
    return tuple(s for s, n in zip(t.stride(), shape, strict=True) if n > 1)


def _relations(module: Any, outcome: Outcome) -> dict[str, Any]:
    """For each result with memory: the first argument or result that it shares it with, and its offset."""
    known: list[tuple[str, Any, int]] = []

    def relate(name: str, t: Any) -> Any:
        if t.numel() == 0:
            return None
        start = t.data_ptr() - t.storage_offset() * t.element_size()
        for other, tensor, base in known:
            if tensor is t:
                return f"is {other}"
            if base == start:
                known.append((name, t, start))
                return f"shares memory with {other}, offset {t.storage_offset()}"
        known.append((name, t, start))
        return f"own memory, offset {t.storage_offset()}"

    for i, t in enumerate(outcome.arguments):
        relate(f"argument {i}", t)
    found = {}
    for path, leaf in outcome.leaves:
        if _is_tensor(module, leaf):
            found[path] = relate(f"result{path}", leaf)
    return found


def _same_python(want: Any, got: Any, random: bool) -> bool:
    if isinstance(want, (torch.dtype, torch.layout, torch.memory_format)):
        return dtype_name(want) == dtype_name(got)
    if isinstance(want, torch.Size):
        return type(got).__name__ == "Size" and tuple(want) == tuple(got)
    if type(want) is not type(got):
        return False
    if random:
        return True
    if isinstance(want, (float, complex)):
        return bool(
            torch.isclose(torch.tensor(got), torch.tensor(want), rtol=1.3e-6, atol=1e-5, equal_nan=True)
        )
    return want == got if isinstance(want, (bool, int, str)) else True


def _describe(got: torch.Tensor, want: torch.Tensor, same: torch.Tensor) -> str:
    wrong = (~same).nonzero()
    where = tuple(wrong[0].tolist()) if wrong.numel() or same.dim() == 0 else ()
    first = f"at {list(where)} got {got[where].item()}, expected {want[where].item()}"
    return f"{len(wrong)} of {want.numel()} differ, {first}"


def _shape_of(outcome: Outcome) -> str:
    return ", ".join(f"{p or 'one'}:{type(v).__name__}" for p, v in outcome.leaves[:6])


def _first_line(error: BaseException | None) -> str:
    text = str(error).strip().splitlines()
    return text[0][:200] if text else ""
