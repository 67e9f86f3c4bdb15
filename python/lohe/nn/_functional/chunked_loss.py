"""``linear_cross_entropy`` over pieces of the batch, so that the logits of the whole batch never exist at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lohe
from lohe import Tensor
from lohe._C import ops


@dataclass(frozen=True)
class LinearCrossEntropyOptions:
    """How ``linear_cross_entropy`` cuts the batch.

    `batch_chunk_size` rows form a piece; None leaves it to `chunking_method`: "aspect_ratio" (or "auto") makes the
    logits of a piece about as large as the whole input, "aspect_ratio:N" N times smaller, None is one piece.
    Gradients are summed over pieces in `acc_dtype` (None: float32 for half types); `acc_policy` names trade-offs of
    other devices, the CPU always accumulates. Unless `allow_retain_graph`, the reductions "mean" and "sum" free
    their gradients in the first backward pass. There is no second derivative.
    """

    allow_retain_graph: bool = False
    batch_chunk_size: int | None = None
    chunking_method: str | None = "auto"
    acc_policy: str = "auto"
    acc_dtype: lohe.dtype | None = None

    def __post_init__(self) -> None:
        if self.acc_policy not in ("auto", "accurate", "balanced", "compact"):
            raise ValueError(f"invalid acc_policy: {self.acc_policy!r}")
        if self.chunking_method not in (None, "auto"):
            name, _, factor = self.chunking_method.partition(":")
            if name != "aspect_ratio" or not (factor or "1").isdigit() or int(factor or "1") < 1:
                raise ValueError(f"invalid chunking_method: {self.chunking_method!r}")
        size = self.batch_chunk_size
        if size is not None and not (isinstance(size, int) and size > 0):
            raise ValueError(f"batch_chunk_size must be positive int or None, got {size!r}")
        if self.acc_dtype not in (None, lohe.float16, lohe.bfloat16, lohe.float32, lohe.float64):
            raise ValueError(f"acc_dtype must be None or a floating dtype, got {self.acc_dtype!r}")

    def rows(self, batch: int, features: int, classes: int) -> int:
        """The number of rows of a piece."""
        if self.batch_chunk_size is not None:
            return self.batch_chunk_size
        if self.chunking_method is None or batch == 0:
            return max(batch, 1)
        factor = 2 if self.chunking_method == "auto" else int(self.chunking_method.partition(":")[2] or "1")
        times = -(-classes // max(features, 1))
        rows = 1 << (max(-(-batch // times), 1) - 1).bit_length()  # the next power of two
        return max(rows // factor, 1)


def chunked_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    weight: Tensor | None,
    reduction: int,
    ignore_index: int,
    options: LinearCrossEntropyOptions,
) -> Tensor:
    """Cross entropy of ``linear(input, linear_weight, bias)`` of (N, features) rows and N class indices."""
    rows = options.rows(input.size(0), input.size(1), linear_weight.size(0))
    half = input.dtype in (lohe.float16, lohe.bfloat16)
    wide = options.acc_dtype or (lohe.float32 if half else input.dtype)
    return _Pieces.apply(
        input, linear_weight, bias, target, weight, reduction, ignore_index, rows, wide, options.allow_retain_graph
    )


def _loss_of_piece(state: dict[str, Any], start: int, operands: list[Any]) -> Tensor:
    rows = slice(start, start + state["rows"])
    x, w, b = operands
    return ops.cross_entropy_loss(ops.linear(x, w, b), state["target"][rows], state["weight"], 0, state["ignored"], 0.0)


def _gradients_of_pieces(
    state: dict[str, Any], operands: list[Any], cotangent: Tensor | None
) -> tuple[list[Tensor | None], list[Tensor]]:
    """Gradients of the losses' sum (weighted by `cotangent`) for the operands that want one, and the losses."""
    wide, wanted = state["wide"], state["wanted"]
    x, w, b = operands
    parts: list[Tensor] = []
    sums: list[Tensor | None] = [
        None if t is None or not need else lohe.zeros(t.shape, dtype=wide) for t, need in zip((w, b), wanted[1:])
    ]
    losses = []
    for start in range(0, x.size(0), state["rows"]):
        leaves = [
            None if t is None else t.detach().requires_grad_(need)
            for t, need in zip((x[start : start + state["rows"]], w, b), wanted)
        ]
        with lohe.enable_grad():
            loss = _loss_of_piece(state, start, leaves)
            losses.append(loss.detach())
            share = loss.sum() if cotangent is None else (loss * cotangent[start : start + state["rows"]]).sum()
            asked = [t for t, need in zip(leaves, wanted) if need]
            if not asked:
                continue
            found = list(lohe.autograd.grad(share, asked))
        if wanted[0]:
            parts.append(found.pop(0))
        for total in sums:
            if total is not None:
                total += found.pop(0)
    first = (lohe.cat(parts) if parts else lohe.zeros_like(x)) if wanted[0] else None
    return [first, *sums], losses


class _Pieces(lohe.autograd.Function):
    """Mean and sum compute their gradients beside the loss and keep those; without a reduction, backward does."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        linear_weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        weight: Tensor | None,
        reduction: int,
        ignore_index: int,
        rows: int,
        wide: lohe.dtype,
        keep: bool,
    ) -> Tensor:
        operands = [input, linear_weight, bias]
        wanted = [bool(need) for need in ctx.needs_input_grad[:3]]
        ctx.state = {"target": target, "weight": weight, "ignored": ignore_index, "rows": rows, "wide": wide}
        ctx.state["wanted"] = wanted if reduction != 0 else [False] * 3
        ctx.reduction, ctx.keep, ctx.wanted = reduction, keep, wanted
        gradients, losses = _gradients_of_pieces(ctx.state, operands, None)
        loss = lohe.cat(losses) if losses else input.new_zeros((0,))
        if reduction == 0:
            ctx.save_for_backward(input, linear_weight, *([] if bias is None else [bias]))
            return loss
        divisor = None
        if reduction == 1:
            valid = target != ignore_index
            counts = valid.to(wide) if weight is None else weight.to(wide)[target.where(valid, 0)] * valid
            divisor = counts.sum()
        ctx.gradients = [g if g is None or divisor is None else g.to(wide) / divisor for g in gradients]
        ctx.dtypes = [None if t is None else t.dtype for t in operands]
        total = loss.to(wide).sum()
        return (total if divisor is None else total / divisor).to(input.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        if ctx.reduction == 0:
            saved = list(ctx.saved_tensors)
            operands = saved if len(saved) == 3 else [*saved, None]
            gradients, _ = _gradients_of_pieces({**ctx.state, "wanted": ctx.wanted}, operands, grad)
            dtypes = [None if t is None else t.dtype for t in operands]
        else:
            if ctx.gradients is None:
                raise RuntimeError(
                    "linear_cross_entropy: its gradients were freed by the first backward pass; pass "
                    "allow_retain_graph=True in its options to go through it again"
                )
            gradients, dtypes = [None if g is None else g * grad for g in ctx.gradients], ctx.dtypes
            if not ctx.keep:
                ctx.gradients = None
        results = [None if g is None else g.to(d) for g, d in zip(gradients, dtypes)]
        return (*results, *[None] * 7)
