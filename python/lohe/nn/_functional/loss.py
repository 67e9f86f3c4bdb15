"""Loss functions.

``reduction`` is "none" (a loss an element), "mean" or "sum". The older ``size_average`` and ``reduce`` flags are
accepted with a warning and override it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import lohe
from lohe import Tensor
from lohe._C import ops
from lohe.nn._functional.chunked_loss import LinearCrossEntropyOptions, chunked_cross_entropy

_REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}


def _reduction(name: str, size_average: bool | None = None, reduce: bool | None = None) -> int:
    """The reduction as the ops take it: 0 none, 1 mean, 2 sum."""
    if size_average is not None or reduce is not None:
        name = _legacy_reduction(size_average, reduce)
    number = _REDUCTIONS.get(name)
    if number is None:
        raise ValueError(f"{name} is not a valid value for reduction")
    return number


def _legacy_reduction(size_average: bool | None, reduce: bool | None, emit_warning: bool = True) -> str:
    size_average = True if size_average is None else size_average
    reduce = True if reduce is None else reduce
    name = "none" if not reduce else "mean" if size_average else "sum"
    if emit_warning:
        warnings.warn(
            f"size_average and reduce args will be deprecated, please use reduction='{name}' instead.",
            stacklevel=4,
        )
    return name


def _reduced(loss: Tensor, reduction: int) -> Tensor:
    return loss if reduction == 0 else loss.mean() if reduction == 1 else loss.sum()


def _same_size(name: str, input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Broadcasts the two to one shape, with a warning where they differ."""
    if target.size() != input.size():
        warnings.warn(
            f"Using a target size ({target.size()}) that is different to the input size ({input.size()}). This will "
            f"likely lead to incorrect results due to broadcasting in {name}. Please ensure they have the same size.",
            stacklevel=3,
        )
        input, target = lohe.broadcast_tensors(input, target)  # type: ignore[call-arg, arg-type]
    return input, target


def _weighted(loss: Tensor, weight: Tensor, reduction: int) -> Tensor:
    """Weights each element; the mean divides by the sum of the weights."""
    if weight.size() != loss.size():
        raise ValueError("Weights and input must have the same size.")
    weighted = loss * weight
    if reduction == 1:
        return weighted.sum() / weight.sum()
    return _reduced(weighted, reduction)


def l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """``|input - target|``."""
    number = _reduction(reduction, size_average, reduce)
    input, target = _same_size("l1_loss", input, target)
    if weight is not None:
        return _weighted(ops.l1_loss(input, target, 0), weight, number)
    return ops.l1_loss(input, target, number)


def mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """``(input - target) ** 2``."""
    number = _reduction(reduction, size_average, reduce)
    input, target = _same_size("mse_loss", input, target)
    if weight is not None:
        return _weighted(ops.mse_loss(input, target, 0), weight, number)
    return ops.mse_loss(input, target, number)


def smooth_l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Tensor:
    """``d ** 2 / (2 * beta)`` where the distance d is below `beta`, else ``d - beta / 2``."""
    number = _reduction(reduction, size_average, reduce)
    input, target = _same_size("smooth_l1_loss", input, target)
    if beta == 0.0:
        return ops.l1_loss(input, target, number)
    return ops.smooth_l1_loss(input, target, number, beta)


def huber_loss(
    input: Tensor,
    target: Tensor,
    reduction: str = "mean",
    delta: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:
    """``d ** 2 / 2`` where the distance d is below `delta`, else ``delta * (d - delta / 2)``."""
    number = _reduction(reduction)
    input, target = _same_size("huber_loss", input, target)
    if weight is not None:
        return _weighted(ops.huber_loss(input, target, 0, delta), weight, number)
    return ops.huber_loss(input, target, number, delta)


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """``-weight[target] * input[target]`` of log-probabilities (N, C, ...) and class indices (N, ...)."""
    return ops.nll_loss_nd(input, target, weight, _reduction(reduction, size_average, reduce), ignore_index)


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross entropy of logits (N, C, ...) and a target of class indices (N, ...) or probabilities (N, C, ...)."""
    number = _reduction(reduction, size_average, reduce)
    return ops.cross_entropy_loss(input, target, weight, number, ignore_index, label_smoothing)


def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: LinearCrossEntropyOptions | None = None,
) -> Tensor:
    """Cross entropy of the logits ``linear(input, linear_weight, linear_bias)``.

    `linear_weight` is (C, in_features), or (C, d1, ..., in_features) for a loss at each of the positions d1, ...
    `options` cut the batch into pieces, so that not all logits are in memory at once.
    """
    if input.dim() not in (1, 2):
        raise RuntimeError(f"expected input with dimensionality 1 or 2, got {input.dim()}")
    if linear_weight.dim() < 2:
        raise RuntimeError(f"expected linear_weight with dimensionality at least 2, got {linear_weight.dim()}")
    features = input.shape[-1]
    if features != linear_weight.shape[-1]:
        raise RuntimeError(
            "expected equal input and linear_weight last dimensions (in_features), "
            f"got {features} and {linear_weight.shape[-1]}, respectively"
        )
    scores = tuple(linear_weight.shape[:-1])  # classes, then the dimensions of a position
    if linear_bias is not None and tuple(linear_bias.shape) != scores:
        raise RuntimeError(f"expected linear_bias shape {scores}, got {tuple(linear_bias.shape)}")
    if len(scores) > 1 and input.dim() == 1:
        raise RuntimeError(
            f"K-dimensional loss defined by linear_weight shape {tuple(linear_weight.shape)} requires batched input, "
            f"(N, {features}), got unbatched input with shape {tuple(input.shape)}"
        )
    shape = (*input.shape[:-1], *scores)
    if target.shape == shape and ignore_index is not None:
        raise RuntimeError("ignore_index cannot be specified when target contains probabilities")
    ignored = -100 if ignore_index is None else ignore_index
    if options is not None:
        if len(scores) == 1 and label_smoothing == 0 and target.dtype == lohe.int64:
            rows, labels = (input, target) if input.dim() == 2 else (input.unsqueeze(0), target.unsqueeze(0))
            number = _reduction(reduction)
            loss = chunked_cross_entropy(
                rows, linear_weight, linear_bias, labels, weight, number, ignored, options
            )
            return loss.squeeze(0) if input.dim() == 1 else loss
        warnings.warn(
            "linear_cross_entropy: `options` are ignored; cutting the batch needs label_smoothing == 0, a target of "
            f"int64 and a two-dimensional linear_weight, but got {label_smoothing}, {target.dtype} and "
            f"{tuple(linear_weight.shape)}",
            stacklevel=2,
        )
    if len(scores) > 1:
        linear_weight = linear_weight.reshape(-1, features)
        linear_bias = None if linear_bias is None else linear_bias.reshape(-1)
    logits = ops.linear(input, linear_weight, linear_bias).reshape(shape)
    return ops.cross_entropy_loss(logits, target, weight, _reduction(reduction), ignored, label_smoothing)


def kl_div(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    """``target * (log(target) - input)`` of log-probabilities `input`; "batchmean" divides the sum by the batch."""
    if size_average is not None or reduce is not None:
        number = _reduction(reduction, size_average, reduce)
    elif reduction == "batchmean":
        number = 2
    else:
        if reduction == "mean":
            warnings.warn(
                "reduction: 'mean' divides the total loss by both the batch size and the support size."
                "'batchmean' divides only by the batch size, and aligns with the KL div math definition."
                "'mean' will be changed to behave the same as 'batchmean' in the next major release.",
                stacklevel=2,
            )
        number = _reduction(reduction)
    loss = ops.kl_div(input, target, number, log_target=log_target)
    if reduction == "batchmean" and input.dim() != 0:
        loss = loss / input.size()[0]
    return loss


def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """``-(target * log(input) + (1 - target) * log(1 - input))`` of probabilities; logs are kept above -100."""
    number = _reduction(reduction, size_average, reduce)
    if target.size() != input.size():
        raise ValueError(
            f"Using a target size ({target.size()}) that is different to the input size ({input.size()}) is "
            "deprecated. Please ensure they have the same size."
        )
    if weight is not None:
        weight = weight.expand(lohe.broadcast_shapes(target.size(), weight.size()))
    return ops.binary_cross_entropy(input, target, weight, number)


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """``binary_cross_entropy(sigmoid(input), target)`` without its loss of precision."""
    number = _reduction(reduction, size_average, reduce)
    if target.size() != input.size():
        raise ValueError(f"Target size ({target.size()}) must be the same as input size ({input.size()})")
    return ops.binary_cross_entropy_with_logits(input, target, weight, pos_weight, number)


def poisson_nll_loss(
    input: Tensor,
    target: Tensor,
    log_input: bool = True,
    full: bool = False,
    size_average: bool | None = None,
    eps: float = 1e-8,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Negative log likelihood of counts `target` under a Poisson distribution of (log) rate `input`."""
    number = _reduction(reduction, size_average, reduce)
    return ops.poisson_nll_loss(input, target, log_input, full, eps, number)


def gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Tensor | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """Negative log likelihood of `target` under normal distributions of mean `input` and variance `var`.

    `var` has `input`'s shape, or one that lacks the last dimension or has 1 there, or is one number.
    """
    if isinstance(var, float):
        if var < 0:
            raise ValueError("var has negative entry/entries")
        variance = var * lohe.ones_like(input)
    else:
        if lohe.any(var < 0):
            raise ValueError("var has negative entry/entries")
        variance = var
    if variance.size() != input.size():
        if input.size()[:-1] == variance.size():
            variance = variance.unsqueeze(-1)
        elif not (
            input.size()[:-1] == variance.size()[:-1]
            and variance.size(-1) == 1
            or _differ_by_ones(input.size(), variance.size())
        ):
            raise ValueError("var is of incorrect size")
    number = _reduction(reduction)
    variance = variance.clone()
    with lohe.no_grad():
        variance.clamp_(min=eps)
    loss = 0.5 * (lohe.log(variance) + (input - target) ** 2 / variance)
    if full:
        loss = loss + 0.5 * math.log(2 * math.pi)
    return _reduced(loss, number)


def _differ_by_ones(size: tuple, other: tuple) -> bool:
    """Whether `other` equals `size` up to dimensions of extent 1 in exactly one place."""
    return (
        len(size) == len(other)
        and sum(a != b for a, b in zip(size, other)) == 1
        and all(a == b or b == 1 for a, b in zip(size, other))
    )


def hinge_embedding_loss(
    input: Tensor,
    target: Tensor,
    margin: float = 1.0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """`input` where `target` is 1, ``max(0, margin - input)`` where it is -1."""
    return ops.hinge_embedding_loss(input, target, margin, _reduction(reduction, size_average, reduce))


def margin_ranking_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """``max(0, -target * (input1 - input2) + margin)``."""
    number = _reduction(reduction, size_average, reduce)
    if input1.dim() != input2.dim() or input1.dim() != target.dim():
        raise RuntimeError(
            "margin_ranking_loss : All input tensors should have same dimension but got sizes: "
            f"input1: {input1.size()}, input2: {input2.size()}, target: {target.size()} "
        )
    return ops.margin_ranking_loss(input1, input2, target, margin, number)


def cosine_embedding_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """``1 - cos`` where `target` is 1, ``max(0, cos - margin)`` where it is -1."""
    number = _reduction(reduction, size_average, reduce)
    return ops.cosine_embedding_loss(input1, input2, target, margin, number)


def soft_margin_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """``log(1 + exp(-target * input))`` of targets 1 and -1."""
    return ops.soft_margin_loss(input, target, _reduction(reduction, size_average, reduce))


def multi_margin_loss(
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Mean over classes i other than the target y of ``max(0, margin - input[y] + input[i]) ** p``, p 1 or 2."""
    number = _reduction(reduction, size_average, reduce)
    if p not in (1, 2):
        raise ValueError("only p == 1 and p == 2 supported")
    if weight is not None and weight.dim() != 1:
        raise ValueError("weight must be one-dimensional")
    return ops.multi_margin_loss(input, target, p, margin, weight, number)


def multilabel_margin_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The multi-label form of ``multi_margin_loss``; `target` lists classes, and -1 ends a list."""
    return ops.multilabel_margin_loss(input, target, _reduction(reduction, size_average, reduce))


def multilabel_soft_margin_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Mean over classes of the binary cross entropy of logits."""
    number = _reduction(reduction, size_average, reduce)
    loss = -(target * ops.log_sigmoid(input) + (1 - target) * ops.log_sigmoid(-input))
    if weight is not None:
        loss = loss * weight
    return _reduced(loss.mean(dim=-1), number)


def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2,
    eps: float = 1e-6,
    swap: bool = False,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """``max(0, d(anchor, positive) - d(anchor, negative) + margin)`` with p-norm distances d."""
    number = _reduction(reduction, size_average, reduce)
    if margin <= 0:
        raise ValueError(f"margin must be greater than 0, got {margin}")
    return ops.triplet_margin_loss(anchor, positive, negative, margin, p, eps, swap, number)


def triplet_margin_with_distance_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    distance_function: Callable[[Tensor, Tensor], Tensor] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """``triplet_margin_loss`` with any distance; the default is the Euclidean one."""
    number = _reduction(reduction)
    distance = ops.pairwise_distance if distance_function is None else distance_function
    if margin <= 0:
        raise ValueError(f"margin must be greater than 0, got {margin}")
    if not anchor.dim() == positive.dim() == negative.dim():
        raise RuntimeError(
            "The anchor, positive, and negative tensors are expected to have the same number of dimensions, but got: "
            f"anchor {anchor.dim()}D, positive {positive.dim()}D, and negative {negative.dim()}D inputs"
        )
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = lohe.minimum(far, distance(positive, negative))
    return _reduced(lohe.clamp_min(margin + near - far, 0), number)


def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Tensor,
    target_lengths: Tensor,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """Connectionist temporal classification loss (Graves et al., 2006) of (T, N, C) log-probabilities."""
    number = _reduction(reduction)
    return ops.ctc_loss(log_probs, targets, input_lengths, target_lengths, blank, number, zero_infinity)
