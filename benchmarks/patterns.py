"""Pointwise, reduction, softmax, norm and loss code as it stands in programs, written once against PyTorch's API.

The functions read the module under measurement from the names ``torch`` and ``F``, which ``use`` sets.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

torch: Any = None
F: Any = None


def use(module: Any) -> None:
    """Sets the module that the patterns call; a process measures one."""
    global torch, F
    torch, F = module, module.nn.functional


@dataclasses.dataclass(frozen=True)
class Pattern:
    """A function and the kinds of its arguments, see ``argument``."""

    name: str
    function: Callable[..., Any]
    arguments: tuple[str, ...]
    backward: bool


PATTERNS: list[Pattern] = []
LEAVES = (
    "matrix",
    "row",
    "column",
    "unit",
    "positive",
    "images",
    "squares",
    "bf16",
    "bf16row",
)  # kinds that take a gradient


def argument(kind: str, rows: int, columns: int) -> Any:
    """An argument of a pattern for a size: a leaf for ``LEAVES``, else data."""
    if kind == "labels":
        return torch.randint(0, columns, (rows,))
    if kind == "mask":
        return torch.rand(rows, columns) > 0.3
    if kind == "bits":
        return (torch.rand(rows, columns) > 0.5).float()
    if kind == "angles":
        return torch.rand(rows, columns // 2) * 6.28
    made = {
        "matrix": lambda: torch.randn(rows, columns),
        "data": lambda: torch.randn(rows, columns),
        "row": lambda: torch.randn(columns),
        "column": lambda: torch.randn(rows, 1),
        "unit": lambda: torch.rand(rows, columns) * 0.98 + 0.01,
        "positive": lambda: torch.rand(rows, columns) + 0.1,
        "integers": lambda: torch.randint(-1000, 1000, (rows, columns)),
        "images": lambda: torch.randn(4, rows * columns // 4096, 32, 32),
        "bytes": lambda: torch.randint(0, 256, (4, rows * columns // 4096, 32, 32), dtype=torch.uint8),
        "squares": lambda: torch.randn(rows * columns // 1024, 32, 32),
        "bf16": lambda: torch.randn(rows, columns).to(torch.bfloat16),
        "bf16row": lambda: torch.randn(columns).to(torch.bfloat16),
    }[kind]()
    return made.requires_grad_() if kind in LEAVES else made


def pattern(name: str, arguments: str, backward: bool = True) -> Callable[[Callable[..., Any]], Any]:
    def keep(function: Callable[..., Any]) -> Callable[..., Any]:
        PATTERNS.append(Pattern(name, function, tuple(arguments.split()), backward))
        return function

    return keep


# Pointwise


@pattern("bias, gelu", "matrix row")
def _bias_gelu(x, bias):
    return F.gelu(x + bias)


@pattern("bias, gelu tanh by hand", "matrix row")
def _bias_gelu_tanh(x, bias):
    x = x + bias
    return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


@pattern("swiglu", "matrix matrix")
def _swiglu(gate, up):
    return F.silu(gate) * up


@pattern("geglu of halves", "matrix")
def _geglu(x):
    x, gate = x.chunk(2, dim=-1)
    return x * F.gelu(gate)


@pattern("quick gelu", "matrix")
def _quick_gelu(x):
    return x * torch.sigmoid(1.702 * x)


@pattern("mish by hand", "matrix")
def _mish(x):
    return x * torch.tanh(F.softplus(x))


@pattern("hard-swish by hand", "matrix")
def _hard_swish(x):
    return x * torch.clamp(x + 3, 0, 6) / 6


@pattern("tanh soft cap", "matrix")
def _soft_cap(x):
    return 30.0 * torch.tanh(x / 30.0)


@pattern("squared relu", "matrix row")
def _squared_relu(x, bias):
    return F.relu(x + bias).square()


@pattern("elu by hand", "matrix")
def _elu(x):
    return torch.where(x > 0, x, 1.5 * (torch.exp(x) - 1))


@pattern("prelu, one slope per column", "matrix row")
def _prelu(x, slope):
    return torch.where(x >= 0, x, slope * x)


@pattern("snake", "matrix row")
def _snake(x, frequency):
    a = frequency.abs() + 0.5
    return x + torch.sin(a * x).square() / a


@pattern("softsign by hand", "matrix")
def _softsign(x):
    return x / (1 + x.abs())


@pattern("polynomial", "matrix")
def _polynomial(x):
    return ((((0.2 * x - 1.1) * x + 0.3) * x + 2.0) * x - 0.7) * x + 1.0


@pattern("scale and shift", "matrix row row")
def _scale_shift(x, weight, bias):
    return x * weight + bias


@pattern("modulate by rows", "matrix column column")
def _film(x, scale, shift):
    return x * (1 + scale) + shift


@pattern("gated residual", "matrix matrix matrix")
def _gated_residual(x, y, gate):
    return x + torch.sigmoid(gate) * y


@pattern("dropout by mask, residual", "matrix matrix mask")
def _masked_dropout(x, y, mask):
    return x + y * mask * (1 / 0.7)


@pattern("dropout, residual", "matrix matrix")
def _dropout(x, y):
    return x + F.dropout(y, 0.1, training=True)


@pattern("clamp chain", "matrix matrix")
def _clamps(x, y):
    x = x.clamp(-2.0, 2.0)
    x = (x * y).clamp(min=-1.0)
    return (x + y).clamp(max=1.5)


@pattern("where chain", "matrix matrix")
def _wheres(x, y):
    z = torch.where(x > 1.0, x * 2.0, y)
    z = torch.where(y < -1.0, z - x, z)
    return torch.where((x < 0) & (y > 0), -z, z)


@pattern("exponential moving average", "data data", backward=False)
def _ema(x, y):
    return torch.lerp(x, y, 0.01)


@pattern("Adam's update", "data data data positive", backward=False)
def _adam(p, g, m, v):
    m = 0.9 * m + 0.1 * g
    v = 0.999 * v + 0.001 * g * g
    return p - 1e-3 * (m / 0.3) / ((v / 0.02).sqrt() + 1e-8), m, v


@pattern("normal log density", "matrix matrix matrix")
def _log_density(x, mean, log_scale):
    return -0.5 * ((x - mean) / log_scale.exp()) ** 2 - log_scale - 0.5 * math.log(2 * math.pi)


@pattern("reparametrised sample", "matrix matrix data")
def _reparametrise(mean, log_variance, noise):
    return mean + torch.exp(0.5 * log_variance) * noise


@pattern("complex product in parts", "matrix matrix matrix matrix")
def _complex(a, b, c, d):
    return a * c - b * d, a * d + b * c


@pattern("rope on halves", "matrix angles")
def _rope(x, angles):
    cos, sin = angles.cos(), angles.sin()
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)


@pattern("rope by rotate_half", "matrix data data")
def _rotate_half(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-b, a), dim=-1) * sin


@pattern("fake quantisation, straight through", "matrix")
def _fake_quantise(x):
    quantised = torch.round(x / 0.05).clamp(-128, 127) * 0.05
    return x + (quantised - x).detach()


@pattern("logit", "unit")
def _logit(p):
    return torch.log(p / (1 - p))


@pattern("normalise an image", "data row positive", backward=False)
def _image(x, mean, deviation):
    return ((x / 255.0 - mean) / deviation).clamp(-3.0, 3.0)


# Reductions


@pattern("sum of squared residuals", "matrix matrix")
def _rss(x, y):
    return ((x - y) ** 2).sum()


@pattern("weighted mean of rows", "matrix positive")
def _weighted_mean(x, weight):
    return (x * weight).sum(-1) / weight.sum(-1)


@pattern("masked mean of rows", "matrix mask")
def _masked_mean(x, mask):
    return (x * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


@pattern("variance by hand", "matrix")
def _variance(x):
    return ((x - x.mean(-1, keepdim=True)) ** 2).mean(-1)


@pattern("standardise columns", "matrix")
def _standardise(x):
    return (x - x.mean(0)) / (x.std(0) + 1e-6)


@pattern("min-max scale of rows", "data", backward=False)
def _min_max(x):
    low, high = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
    return (x - low) / (high - low + 1e-6)


@pattern("l2-normalise by hand", "matrix")
def _l2(x):
    return x / torch.sqrt((x * x).sum(-1, keepdim=True) + 1e-12)


@pattern("normalize, scale", "matrix row")
def _normalize(x, scale):
    return F.normalize(x, dim=-1) * scale


@pattern("cosine similarity by hand", "matrix matrix")
def _cosine(x, y):
    return (x * y).sum(-1) / (x.norm(dim=-1) * y.norm(dim=-1)).clamp(min=1e-8)


@pattern("cosine_similarity loss", "matrix matrix")
def _cosine_loss(x, y):
    return (1 - F.cosine_similarity(x, y, dim=-1)).mean()


@pattern("logsumexp by hand", "matrix")
def _logsumexp(x):
    m = x.amax(-1, keepdim=True).detach()
    return (m + torch.log(torch.exp(x - m).sum(-1, keepdim=True))).squeeze(-1)


@pattern("z-loss", "matrix")
def _z_loss(x):
    return 1e-4 * torch.logsumexp(x, dim=-1).square().mean()


@pattern("euclidean distance of rows", "matrix matrix")
def _distance(x, y):
    return torch.sqrt(((x - y) ** 2).sum(-1) + 1e-8)


@pattern("clip by norm", "data", backward=False)
def _clip(x):
    return x * torch.clamp(1.0 / (x.square().sum().sqrt() + 1e-6), max=1.0)


@pattern("mean over rows, tanh", "matrix row")
def _pool(x, bias):
    return torch.tanh(x.mean(0) + bias)


@pattern("correlation of rows", "matrix matrix")
def _correlation(x, y):
    x, y = x - x.mean(-1, keepdim=True), y - y.mean(-1, keepdim=True)
    return (x * y).sum(-1) / torch.sqrt((x * x).sum(-1) * (y * y).sum(-1) + 1e-8)


@pattern("coefficient of determination", "matrix data")
def _r2(prediction, y):
    return 1 - ((y - prediction) ** 2).sum() / ((y - y.mean()) ** 2).sum()


@pattern("gradient penalty", "matrix matrix")
def _penalty(gx, gy):
    return ((torch.sqrt(gx * gx + gy * gy + 1e-12) - 1) ** 2).mean()


# Softmax


@pattern("softmax by hand", "matrix")
def _softmax(x):
    e = torch.exp(x - x.amax(-1, keepdim=True).detach())
    return e / e.sum(-1, keepdim=True)


@pattern("masked softmax", "matrix mask")
def _masked_softmax(x, mask):
    return torch.softmax((x * 0.125).masked_fill(~mask, -1e9), dim=-1)


@pattern("softmax with bias, dropout by mask", "matrix row mask")
def _biased_softmax(x, bias, mask):
    return F.softmax(x * 0.125 + bias, dim=-1) * mask / 0.7


@pattern("gumbel softmax", "matrix unit")
def _gumbel(x, u):
    return F.softmax((x - torch.log(-torch.log(u))) / 0.7, dim=-1)


@pattern("softmax entropy", "matrix")
def _entropy(x):
    logp = F.log_softmax(x, dim=-1)
    return -(logp.exp() * logp).sum(-1).mean()


@pattern("log-softmax, gather, mean", "matrix labels")
def _nll(x, labels):
    return -torch.log_softmax(x, dim=1).gather(1, labels.unsqueeze(1)).mean()


@pattern("cross_entropy", "matrix labels")
def _cross_entropy(x, labels):
    return F.cross_entropy(x, labels)


@pattern("label-smoothed cross entropy by hand", "matrix labels")
def _smoothed(x, labels):
    logp = F.log_softmax(x, dim=-1)
    nll = -logp.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    return (0.9 * nll - 0.1 * logp.mean(-1)).mean()


@pattern("distillation", "matrix data")
def _distillation(student, teacher):
    return F.kl_div(F.log_softmax(student / 2, -1), F.softmax(teacher / 2, -1), reduction="batchmean") * 4


# Norms


@pattern("residual, layer_norm", "matrix matrix row row")
def _residual_layer_norm(x, y, weight, bias):
    return F.layer_norm(x + y, (x.shape[-1],), weight, bias)


@pattern("layer_norm by hand", "matrix row row")
def _layer_norm(x, weight, bias):
    mean = x.mean(-1, keepdim=True)
    variance = x.var(-1, keepdim=True, unbiased=False)
    return (x - mean) / torch.sqrt(variance + 1e-5) * weight + bias


@pattern("rmsnorm by hand", "matrix row")
def _rms_norm(x, weight):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * weight


@pattern("residual, rms_norm, both returned", "matrix matrix row")
def _residual_rms_norm(x, y, weight):
    x = x + y
    return F.rms_norm(x, (x.shape[-1],), weight), x


@pattern("layer_norm, modulate", "matrix column column")
def _adaptive_layer_norm(x, scale, shift):
    return F.layer_norm(x, (x.shape[-1],)) * (1 + scale) + shift


@pattern("layer_norm, gelu", "matrix row row")
def _layer_norm_gelu(x, weight, bias):
    return F.gelu(F.layer_norm(x, (x.shape[-1],), weight, bias))


@pattern("group norm by hand", "matrix row row")
def _group_norm(x, weight, bias):
    y = x.view(x.shape[0], 8, -1)
    y = (y - y.mean(-1, keepdim=True)) * torch.rsqrt(y.var(-1, keepdim=True, unbiased=False) + 1e-5)
    return y.view_as(x) * weight + bias


@pattern("batch norm by hand, relu", "matrix row row")
def _batch_norm(x, weight, bias):
    mean = x.mean(0)
    variance = ((x - mean) ** 2).mean(0)
    return F.relu((x - mean) * torch.rsqrt(variance + 1e-5) * weight + bias)


# Losses


@pattern("huber by hand", "matrix data")
def _huber(x, y):
    d = (x - y).abs()
    return torch.where(d < 1.0, 0.5 * d * d, d - 0.5).mean()


@pattern("BCE with logits by hand", "matrix bits")
def _bce(x, y):
    return (x.clamp(min=0) - x * y + torch.log1p(torch.exp(-x.abs()))).mean()


@pattern("binary_cross_entropy_with_logits", "matrix bits")
def _bce_with_logits(x, y):
    return F.binary_cross_entropy_with_logits(x, y)


@pattern("focal loss", "matrix bits")
def _focal(x, y):
    p = torch.sigmoid(x)
    ce = F.binary_cross_entropy_with_logits(x, y, reduction="none")
    p_t = p * y + (1 - p) * (1 - y)
    return ((0.25 * y + 0.75 * (1 - y)) * (1 - p_t) ** 2 * ce).mean()


@pattern("KL of a normal to the standard one", "matrix matrix")
def _vae_kl(mean, log_variance):
    return -0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp())


@pattern("KL of two normals", "matrix matrix matrix matrix")
def _kl(m1, s1, m2, s2):
    return (s2 - s1 + ((2 * s1).exp() + (m1 - m2) ** 2) / (2 * (2 * s2).exp()) - 0.5).sum(-1).mean()


@pattern("dice loss", "matrix bits")
def _dice(x, y):
    p = torch.sigmoid(x)
    return (1 - (2 * (p * y).sum(-1) + 1) / (p.sum(-1) + y.sum(-1) + 1)).mean()


@pattern("log-cosh", "matrix data")
def _log_cosh(x, y):
    d = x - y
    return (d + F.softplus(-2 * d) - math.log(2)).mean()


@pattern("pinball loss", "matrix data")
def _pinball(x, y):
    d = y - x
    return torch.maximum(0.9 * d, -0.1 * d).mean()


@pattern("triplet margin by hand", "matrix matrix matrix")
def _triplet(anchor, near, far):
    return F.relu((anchor - near).pow(2).sum(1).sqrt() - (anchor - far).pow(2).sum(1).sqrt() + 1.0).mean()


@pattern("Poisson loss by hand", "matrix positive")
def _poisson(x, y):
    return (x.exp() - y * x + y * torch.log(y) - y).mean()


@pattern("clipped policy loss", "matrix data data")
def _policy(logp, old, advantage):
    ratio = torch.exp(logp - old)
    return -torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean()


# Pieces of tensors, short rows, other layouts


@pattern("border, sum of neighbours", "matrix")
def _border(x):
    return F.pad(x, (1, 1))[:, 1:-1] + F.pad(x, (0, 2))[:, 2:]


@pattern("token shift", "matrix row")
def _token_shift(x, mix):
    return x * mix + F.pad(x, (0, 0, 1, -1)) * (1 - mix)


@pattern("concatenated relu", "matrix")
def _crelu(x):
    return F.relu(torch.cat([x, -x], dim=-1))


@pattern("mean of a stack", "matrix matrix matrix")
def _ensemble(x, y, z):
    return torch.stack([x, y, z]).mean(0)


@pattern("sum with rolled neighbours", "matrix")
def _rolled(x):
    return x + torch.roll(x, 1, -1) + torch.roll(x, -1, -1)


@pattern("squared differences of neighbours", "matrix")
def _differences(x):
    return (x[:, 1:] - x[:, :-1]).square().mean()


@pattern("maxout of four", "matrix")
def _maxout(x):
    return x.view(x.shape[0], -1, 4).amax(-1)


@pattern("pixel shuffle back", "images")
def _space_to_depth(x):
    b, c, h, w = x.shape
    parts = x.view(b, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4)
    return F.relu(parts.reshape(b, c * 4, h // 2, w // 2))


@pattern("brightness of cropped bytes", "bytes", backward=False)
def _crop(x):
    return x[:, :, 2:30, 2:30].clamp(16, 235) - 16


@pattern("rotary, interleaved, written in place", "data angles", backward=False)
def _rotary_in_place(x, angles):
    cos, sin = torch.cos(angles), torch.sin(angles)
    even, odd = x[:, 0::2], x[:, 1::2]
    out = torch.empty_like(x)
    out[:, 0::2] = even * cos - odd * sin
    out[:, 1::2] = even * sin + odd * cos
    return out


@pattern("symmetric part of matrices", "squares")
def _symmetric(x):
    return (x + x.transpose(-1, -2)) * 0.5


@pattern("squeeze and excite", "images")
def _squeeze(x):
    return x * torch.sigmoid(F.adaptive_avg_pool2d(x, 1))


@pattern("elu and selu", "matrix")
def _elu_selu(x):
    return F.elu(x) + F.selu(x)


@pattern("angles wrapped", "data", backward=False)
def _wrap(x):
    return torch.remainder(x + math.pi, 2 * math.pi) - math.pi


@pattern("hash of integers", "integers integers", backward=False)
def _hash(x, y):
    return (x * 31 + y) % 97


# Half precision


@pattern("rotary by complex numbers", "matrix data")
def _rotary_complex(x, angles):
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * torch.view_as_complex(angles.unflatten(-1, (-1, 2)))).flatten(-2)


@pattern("dot products of rows by einsum", "matrix matrix")
def _row_dots(x, y):
    return torch.einsum("ij,ij->i", x, y)


@pattern("softmax of rows of 32", "matrix")
def _short_softmax(x):
    return F.softmax(x.reshape(-1, 32), -1)


@pattern("layer_norm of rows of 32", "matrix")
def _short_layer_norm(x):
    return F.layer_norm(x.reshape(-1, 32), (32,))


@pattern("bias, gelu, bfloat16", "bf16 bf16row")
def _bias_gelu_bf16(x, bias):
    return F.gelu(x + bias)


@pattern("swiglu, bfloat16", "bf16 bf16")
def _swiglu_bf16(gate, up):
    return F.silu(gate) * up


@pattern("rmsnorm in float32 of bfloat16", "bf16 bf16row")
def _rms_norm_bf16(x, weight):
    y = x.float()
    y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6)
    return y.to(x.dtype) * weight


@pattern("softmax in float32 of bfloat16", "bf16")
def _softmax_bf16(x):
    return F.softmax(x.float() * 0.125, dim=-1).to(x.dtype)


def call(
    compile: Callable[[Any], Any], p: Pattern, rows: int, columns: int, backward: bool
) -> Callable[[], Any]:
    """The pattern as a call without arguments: forward without a tape, or with the gradients of its leaves."""
    torch.manual_seed(0)
    arguments = [argument(kind, rows, columns) for kind in p.arguments]
    function = compile(p.function)
    if not backward:
        arguments = [a.detach() for a in arguments]

        def forward() -> Any:
            with torch.no_grad():
                return function(*arguments)

        return forward
    leaves = [a for a in arguments if a.requires_grad]
    given = [
        torch.randn(*r.shape).to(r.dtype) if r.dim() else torch.ones(())
        for r in listed(p.function(*arguments))
    ]

    def both() -> Any:
        return torch.autograd.grad(listed(function(*arguments)), leaves, given)

    return both


def listed(results: Any) -> list[Any]:
    """What a pattern returned, as a list of tensors."""
    return list(results) if isinstance(results, tuple) else [results]
