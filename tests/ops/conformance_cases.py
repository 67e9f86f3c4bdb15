"""The cases of PyTorch's operator database, with names that are stable from run to run.

A case id reads ``<entry>/<variant>/<dtype>/<index>``, for example ``nn.functional.gelu/function/float32/7``
or ``linalg.pinv@hermitian/method/float64/3``. The entry is the database's name with ``@`` and the name of the
variant test where one entry is not enough. Variants: ``function``, ``method``, ``inplace``, ``alias:<name>``,
four of ``out=`` (:data:`OUT_VARIANTS`), ``refuse`` (a dtype the database does not list) and ``error`` (its
error inputs).
"""

from __future__ import annotations

import dataclasses
import itertools
import random
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from conformance_bridge import dtype_name

# float32 and int64 first: most programs use them, and the first report should show them.
DTYPES = (
    torch.float32,
    torch.int64,
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.float16,
    torch.bfloat16,
    torch.float64,
    torch.complex64,
    torch.complex128,
)

OUT_VARIANTS = ("out", "out_strided", "out_empty", "out_dtype")
# PyTorch 2.13 writes outside of a batched out= whose strides are reversed: `triu(torch.ones(3, 3, 5, 5),
# out=...)` corrupts the heap, and lu and lu_unpack call it.
NO_STRIDED_OUT = {"tril", "triu", "linalg.lu", "lu_unpack"}
VARIANT_SAMPLES = 12  # the forms other than the function share its kernels, so a spread of samples is enough
REFUSED_SAMPLES = 2

# The result depends on a random stream, which each framework defines for itself, or on uninitialised memory.
NONDETERMINISTIC = {
    "bernoulli", "cauchy", "empty", "empty_like", "empty_permuted", "empty_strided", "exponential",
    "geometric", "log_normal", "multinomial", "new_empty", "new_empty_strided", "nn.functional.alpha_dropout",
    "nn.functional.dropout", "nn.functional.dropout2d", "nn.functional.dropout3d",
    "nn.functional.feature_alpha_dropout", "nn.functional.fractional_max_pool2d",
    "nn.functional.fractional_max_pool3d", "nn.functional.rrelu", "normal", "pca_lowrank", "rand_like",
    "randint", "randint_like", "randn", "randn_like", "resize_", "resize_as_", "svd_lowrank", "uniform",
}  # fmt: skip

# Entries that drop elements at random in some of their samples.
DROPS = {
    "nn.functional.multi_head_attention_forward": lambda sample: sample.kwargs.get("training", False),
    "nn.functional.scaled_dot_product_attention": lambda sample: sample.kwargs.get("dropout_p", 0) > 0,
}

# Results that are moved, selected, or changed in sign or to an integer are equal bit for bit in every dtype.
EXACT = {
    "H", "T", "__getitem__", "abs", "alias_copy", "amax", "amin", "aminmax", "as_strided", "as_strided_copy",
    "as_strided_scatter", "atleast_1d", "atleast_2d", "atleast_3d", "block_diag", "broadcast_tensors",
    "broadcast_to", "cartesian_prod", "cat", "ceil", "chunk", "clamp", "clamp_max", "clamp_min", "clone",
    "column_stack", "combinations", "conj", "conj_physical", "constant_pad_nd", "contiguous", "copysign",
    "cummax", "cummin", "diag", "diag_embed", "diagflat", "diagonal", "diagonal_copy", "diagonal_scatter",
    "dsplit", "dstack", "expand", "expand_as", "expand_copy", "eye", "fill", "flatten", "flip", "fliplr",
    "flipud", "floor", "fmax", "fmin", "full", "full_like", "gather", "hsplit", "hstack", "imag",
    "index_copy", "index_fill", "index_select", "kthvalue", "mH", "mT", "masked_fill", "masked_scatter",
    "masked_select", "maximum", "meshgrid", "minimum", "mode", "movedim", "msort", "narrow", "narrow_copy",
    "neg", "nn.functional.channel_shuffle", "nn.functional.pixel_shuffle", "nn.functional.pixel_unshuffle",
    "nn.functional.relu", "nn.functional.unfold", "ones", "ones_like", "permute", "permute_copy", "positive",
    "ravel", "real", "repeat", "repeat_interleave", "reshape", "reshape_as", "resolve_conj", "resolve_neg",
    "roll", "rot90", "round", "scatter", "select", "select_scatter", "sign", "slice", "slice_scatter", "sort",
    "split", "split_with_sizes", "split_with_sizes_copy", "squeeze", "squeeze_copy", "stack", "swapaxes", "t",
    "t_copy", "take", "take_along_dim", "tensor_split", "tile", "topk", "transpose", "transpose_copy", "tril",
    "triu", "trunc", "unbind", "unbind_copy", "unflatten", "unfold", "unfold_copy", "unique",
    "unique_consecutive", "unsafe_chunk", "unsafe_split", "unsqueeze", "unsqueeze_copy", "view", "view_as",
    "view_as_complex", "view_as_real", "view_copy", "vsplit", "vstack", "where", "zero_", "zeros",
    "zeros_like",
}  # fmt: skip


# Of these only for real numbers: the absolute value of a complex one is rounded.
EXACT_IF_REAL = {"abs"}


@dataclasses.dataclass(frozen=True)
class Case:
    """One call to compare. ``gradients`` asks for a random cotangent's gradients too."""

    id: str
    variant: str
    dtype: torch.dtype | None
    sample: Any
    gradients: bool


def database() -> dict[str, Any]:
    """The operator database by entry name; entries of other devices and layouts are left out."""
    from torch.testing._internal.common_methods_invocations import op_db

    entries = {}
    for op in op_db:
        if op.name.startswith(("jiterator", "torch.ops.", "sparse.", "to_sparse")):
            continue
        name = f"{op.name}@{op.variant_test_name}" if op.variant_test_name else op.name
        entries[name.replace("/", "_")] = op
    return entries


def tolerance(op: Any, dtype: torch.dtype) -> tuple[float, float]:
    """``(rtol, atol)``: the defaults of ``torch.testing`` for ``dtype``, widened by the database's overrides.

    Sources: ``torch.testing.assert_close`` (table of default tolerances), and the entry's
    ``toleranceOverride`` and ``precisionOverride`` decorators that apply on the CPU.
    """
    from torch.testing._comparison import default_tolerances

    rtol, atol = default_tolerances(dtype)
    for info in op.decorators:
        if getattr(info, "device_type", None) not in (None, "cpu"):
            continue
        if getattr(info, "dtypes", None) is not None and dtype not in info.dtypes:
            continue
        for decorator in getattr(info, "decorators", ()):
            values = getattr(decorator, "d", None)
            bound = values.get(dtype) if isinstance(values, dict) else None
            if isinstance(bound, tuple):
                rtol, atol = max(rtol, bound.rtol), max(atol, bound.atol)
            elif isinstance(bound, (int, float)):
                atol = max(atol, bound)
    return rtol, atol


class Enumeration:
    """Which cases of an entry to run.

    ``limit`` bounds the samples per entry and dtype, spread evenly (0: all). ``fraction`` keeps a
    pseudo-random share of the cases, chosen by ``seed`` and the case's id alone, so that the choice does not
    depend on order.
    """

    def __init__(
        self, dtypes: tuple[torch.dtype, ...] = DTYPES, limit: int = 0, fraction: float = 1.0, seed: int = 0
    ):
        self.dtypes = dtypes
        self.limit = limit
        self.fraction = fraction
        self.seed = seed

    def chosen(self, case_id: str) -> bool:
        if self.fraction >= 1:
            return True
        return zlib.crc32(f"{self.seed}:{case_id}".encode()) < self.fraction * 2**32

    def cases(self, entry: str, op: Any) -> Iterator[Case]:
        """The chosen cases of ``op``, in an order that is the same in every process."""
        for dtype in self.dtypes:
            listed = op.supports_dtype(dtype, "cpu")
            for case in self._listed(entry, op, dtype) if listed else self._refused(entry, op, dtype):
                if self.chosen(case.id):
                    yield case
        for index, error in enumerate(_error_inputs(entry, op)):
            sample = error.sample_input
            case = Case(f"{entry}/error/any/{index}", "error", None, sample, False)
            if self.chosen(case.id):
                yield case

    def _listed(self, entry: str, op: Any, dtype: torch.dtype) -> Iterator[Case]:
        gradients = op.supports_autograd and dtype in op.supported_backward_dtypes("cpu")
        samples = _samples(entry, op, dtype, gradients)
        every = _spread(len(samples), self.limit)
        for index in every:
            yield Case(
                f"{entry}/function/{dtype_name(dtype)}/{index}", "function", dtype, samples[index], gradients
            )
        some = [every[i] for i in _spread(len(every), VARIANT_SAMPLES)]
        for variant, index in itertools.product(variants(op), some):
            inplace = variant == "inplace" or variant.startswith("alias_inplace:")
            grad = (
                gradients and not variant.startswith("out") and (not inplace or op.supports_inplace_autograd)
            )
            yield Case(f"{entry}/{variant}/{dtype_name(dtype)}/{index}", variant, dtype, samples[index], grad)

    def _refused(self, entry: str, op: Any, dtype: torch.dtype) -> Iterator[Case]:
        try:
            samples = _samples(entry, op, dtype, False, REFUSED_SAMPLES)
        except Exception:  # noqa: BLE001 - generators of samples need not accept a refused dtype
            return
        for index, sample in enumerate(samples):
            yield Case(f"{entry}/refuse/{dtype_name(dtype)}/{index}", "refuse", dtype, sample, False)

    def find(self, case_id: str) -> tuple[Any, Case]:
        """The entry and the case of this id; raises ``KeyError`` when the database has none."""
        entry, _, dtype, _ = case_id.split("/")
        op = database()[entry]
        wanted = [d for d in DTYPES if dtype_name(d) == dtype]
        for case in Enumeration(tuple(wanted), self.limit).cases(entry, op):
            if case.id == case_id:
                return op, case
        for case in Enumeration(tuple(wanted)).cases(entry, op):
            if case.id == case_id:
                return op, case
        raise KeyError(case_id)


def variants(op: Any) -> list[str]:
    """The forms of the operator other than the function, in a fixed order."""
    found = []
    if op.method_variant is not None and op.method_variant is not op.op:
        found.append("method")
    if op.inplace_variant is not None:
        found.append("inplace")
    for alias in op.aliases:
        if alias.op is not None:
            found.append(f"alias:{alias.name}")
        if alias.inplace_variant is not None:
            found.append(f"alias_inplace:{alias.name}")
    if op.supports_out:
        found.extend(v for v in OUT_VARIANTS if v != "out_strided" or op.name not in NO_STRIDED_OUT)
    return found


def variant_callable(op: Any, variant: str) -> Any:
    """PyTorch's callable for a variant of :func:`variants`."""
    kind, _, name = variant.partition(":")
    if kind == "method":
        return op.method_variant
    if kind == "inplace":
        return op.inplace_variant
    if name:
        alias = next(a for a in op.aliases if a.name == name)
        return alias.op if kind == "alias" else alias.inplace_variant
    return op.op


def _samples(entry: str, op: Any, dtype: torch.dtype, gradients: bool, count: int | None = None) -> list[Any]:
    _seed(f"{entry}/{dtype_name(dtype)}")
    return list(itertools.islice(op.sample_inputs("cpu", dtype, requires_grad=gradients), count))


def _error_inputs(entry: str, op: Any) -> list[Any]:
    if op.error_inputs_func is None:
        return []
    _seed(f"{entry}/error")
    return list(op.error_inputs("cpu"))


def _seed(name: str) -> None:
    value = zlib.crc32(name.encode())
    torch.manual_seed(value)
    random.seed(value)
    np.random.seed(value)


def _spread(count: int, limit: int) -> list[int]:
    """At most ``limit`` of ``range(count)``, evenly spread (0: all of them)."""
    if limit <= 0 or count <= limit:
        return list(range(count))
    return sorted({i * (count - 1) // max(limit - 1, 1) for i in range(limit)})
