"""How tensors are printed: precision, scientific notation, summaries and suffixes as PyTorch users know them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import lohe

__all__ = ["set_printoptions", "get_printoptions", "printoptions", "tensor_text"]


@dataclass
class PrintOptions:
    """``threshold``: elements above which a tensor is summarized, with ``edgeitems`` at each end of a dimension."""

    precision: int = 4
    threshold: float = 1000
    edgeitems: int = 3
    linewidth: float = 80
    sci_mode: bool | None = None  # None: by the values


PRINT_OPTS = PrintOptions()

_PROFILES: dict[str, dict[str, Any]] = {
    "default": {"precision": 4, "threshold": 1000, "edgeitems": 3, "linewidth": 80},
    "short": {"precision": 2, "threshold": 1000, "edgeitems": 2, "linewidth": 80},
    "full": {"precision": 4, "threshold": math.inf, "edgeitems": 3, "linewidth": 80},
}


def set_printoptions(
    precision: int | None = None,
    threshold: float | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """Sets what is given; `profile` is "default", "short" or "full"; ``sci_mode=None`` decides by the values."""
    if profile is not None:
        if profile not in _PROFILES:
            raise ValueError(f"set_printoptions: profile must be one of {', '.join(_PROFILES)}, got {profile!r}")
        for name, value in _PROFILES[profile].items():
            setattr(PRINT_OPTS, name, value)
    given: dict[str, Any] = {"precision": precision, "threshold": threshold, "edgeitems": edgeitems, "linewidth": linewidth}
    for name, value in given.items():
        if value is not None:
            setattr(PRINT_OPTS, name, value)
    PRINT_OPTS.sci_mode = sci_mode


def get_printoptions() -> dict[str, Any]:
    """The present settings."""
    return dict(vars(PRINT_OPTS))


class printoptions:  # noqa: N801
    """Context manager: print options that hold inside."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def __enter__(self) -> None:
        self.saved = get_printoptions()
        set_printoptions(**self.options)

    def __exit__(self, *exc_info: object) -> None:
        vars(PRINT_OPTS).update(self.saved)


def _flat(values: Any) -> list:
    if not isinstance(values, list):
        return [values]
    return [leaf for value in values for leaf in _flat(value)]


class _Formatter:
    """One width and notation for all the elements that will be seen."""

    def __init__(self, values: list, floating: bool) -> None:
        self.floating = floating
        self.integral = True
        self.scientific = False
        self.width = 1
        if not floating:
            self.width = max([1, *(len(str(v)) for v in values)])
            return
        usual = [v for v in values if math.isfinite(v) and v != 0]
        if usual:
            least, most = min(map(abs, usual)), max(map(abs, usual))
            self.integral = all(v == math.floor(v) for v in usual)
            self.scientific = most / least > 1000.0 or most > 1.0e8 or least < 1.0e-4
            if PRINT_OPTS.sci_mode is not None:
                self.scientific = PRINT_OPTS.sci_mode
            if self.scientific:
                lengths = [len(f"{v:.{PRINT_OPTS.precision}e}") for v in usual]
            elif self.integral:
                lengths = [len(f"{v:.0f}") + 1 for v in usual]
            else:
                lengths = [len(f"{v:.{PRINT_OPTS.precision}f}") for v in usual]
            self.width = max([1, *lengths])

    def text(self, value: Any) -> str:
        if not self.floating:
            return str(value).rjust(self.width)
        if self.scientific:
            text = f"{value:{self.width}.{PRINT_OPTS.precision}e}"
        elif self.integral:
            text = f"{value:.0f}" + ("." if math.isfinite(value) else "")
        else:
            text = f"{value:.{PRINT_OPTS.precision}f}"
        return text.rjust(self.width)


class _ComplexFormatter:
    def __init__(self, values: list) -> None:
        self.real = _Formatter([v.real for v in values], True)
        self.imag = _Formatter([v.imag for v in values], True)
        self.width = self.real.width + self.imag.width + 1

    def text(self, value: complex) -> str:
        imag = self.imag.text(value.imag).lstrip() + "j"
        return self.real.text(value.real) + (imag if imag[0] in "+-" else "+" + imag)


_SKIPPED = object()  # stands where elements are left out


def _shown(t: lohe.Tensor, summarize: bool) -> Any:
    """Nested lists of the elements that will be printed, with a mark where some are left out."""
    if t.dim() == 0:
        return t.item()
    n, edge = t.size(0), PRINT_OPTS.edgeitems
    if not summarize:
        return t.tolist()
    if t.dim() == 1:
        if n > 2 * edge:
            return (t[:edge].tolist() if edge else []) + [_SKIPPED] + (t[n - edge :].tolist() if edge else [])
        return t.tolist()
    if n > 2 * edge:
        head = [_shown(t[i], True) for i in range(edge)]
        return head + [_SKIPPED] + [_shown(t[i], True) for i in range(n - edge, n)]
    return [_shown(t[i], True) for i in range(n)]


def _array_text(values: Any, rank: int, indent: int, formatter: Any) -> str:
    if rank == 0:
        return formatter.text(values)
    if rank == 1:
        texts = [" ..." if v is _SKIPPED else formatter.text(v) for v in values]
        per_line = max(1, int(math.floor((PRINT_OPTS.linewidth - indent) / (formatter.width + 2))))
        lines = [", ".join(texts[i : i + per_line]) for i in range(0, len(texts), per_line)] or [""]
        return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"
    parts = ["..." if v is _SKIPPED else _array_text(v, rank - 1, indent + 1, formatter) for v in values]
    return "[" + ("," + "\n" * (rank - 1) + " " * (indent + 1)).join(parts) + "]"


def _with_suffixes(text: str, suffixes: list[str], indent: int) -> str:
    length = len(text) - text.rfind("\n") + 1
    for suffix in suffixes:
        if length + len(suffix) + 2 > PRINT_OPTS.linewidth:
            text += ",\n" + " " * indent + suffix
            length = indent + len(suffix)
        else:
            text += ", " + suffix
            length += len(suffix) + 2
    return text + ")"


def tensor_text(tensor: lohe.Tensor) -> str:
    """What ``repr(tensor)`` gives."""
    plain = type(tensor) is lohe.Tensor or getattr(tensor, "_is_param", False) or type(tensor).__name__ == "Parameter"
    prefix = "tensor(" if plain else f"{type(tensor).__name__}("
    suffixes = []
    with lohe._C.DisableTorchFunctionSubclass(), lohe.no_grad():
        values = tensor.detach()
        default = lohe.get_default_dtype()
        if values.numel() == 0:
            if values.dim() != 1:
                suffixes.append(f"size={tuple(values.shape)}")
            if values.dtype != default:
                suffixes.append(f"dtype={values.dtype}")
            text = "[]"
        else:
            if values.dtype not in (default, lohe.int64, lohe.bool) and values.dtype is not (
                lohe.complex128 if default is lohe.float64 else lohe.complex64
            ):
                suffixes.append(f"dtype={values.dtype}")
            summarize = values.numel() > PRINT_OPTS.threshold
            shown = _shown(values, summarize)
            flat = [v for v in _flat(shown) if v is not _SKIPPED]
            if values.is_complex():
                formatter: Any = _ComplexFormatter(flat)
            else:
                formatter = _Formatter(flat, values.is_floating_point())
            text = _array_text(shown, values.dim(), len(prefix), formatter)
    grad_fn = tensor.grad_fn
    if grad_fn is not None:
        suffixes.append(f"grad_fn=<{grad_fn.name()}>")
    elif tensor.requires_grad:
        suffixes.append("requires_grad=True")
    return _with_suffixes(prefix + text, suffixes, len(prefix))
