"""What is measured: a case builds its data with the module it is given and names the statement to repeat."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import models
import patterns


@dataclasses.dataclass(frozen=True)
class Options:
    """How a side is run: the form of its optimizers, its compiler."""

    fused: bool = False
    foreach: bool = False
    compiled: bool = False


@dataclasses.dataclass(frozen=True)
class Case:
    """``make(torch, options)`` returns the names that ``statement`` uses.

    ``read`` and ``written`` bytes and ``flops`` (float32) state the least work of one repetition, from which
    the limit follows; 0 where that is not simple. ``table`` is the table of the suite that the case stands in,
    where it has several.
    """

    name: str
    suite: str
    make: Callable[[Any, Options], dict[str, Any]]
    statement: str
    read: int = 0
    written: int = 0
    flops: int = 0
    table: str = ""


# name: statement, and how many tensors of the dtype it reads
POINTWISE = {
    "add": ("torch.add(x, y)", 2),
    "mul": ("torch.mul(x, y)", 2),
    "exp": ("torch.exp(x)", 1),
    "gelu": ("torch.nn.functional.gelu(x)", 1),
    "gelu tanh": ("torch.nn.functional.gelu(x, approximate='tanh')", 1),
    "sigmoid": ("torch.sigmoid(x)", 1),
    "tanh": ("torch.tanh(x)", 1),
    "where": ("torch.where(mask, x, y)", 2),
}
SIZES = {"L1": 1 << 11, "L2": 1 << 17, "memory": 1 << 24}
ROWS, COLUMNS = 4096, 1024
MATMULS = [(64, 64, 64), (256, 256, 256), (1024, 1024, 1024), (1024, 1536, 384), (1024, 384, 1536),
           (2048, 3072, 768), (2048, 1024, 1024), (7, 768, 768), (1, 1024, 1024)]  # fmt: skip
# The products of a training step as they meet them: forward, and the gradients of weights.
FAR_MATMULS = [(1024, 384, 384, "nt"), (1024, 1536, 384, "nt"), (768, 128, 512, "nt"), (384, 384, 1024, "tn"),
               (512, 128, 768, "tn")]  # fmt: skip
PATTERN_SIZES = [(64, 64), (1024, 1024), (4096, 2048)]  # the last one forward only: its gradients take long
OPTIMIZERS: dict[str, dict[str, float]] = {
    "SGD, momentum": {"lr": 1e-3, "momentum": 0.9}, "Adam": {"lr": 1e-3}, "AdamW": {"lr": 1e-3},
}  # fmt: skip
# name: batch, in, out, image, kernel, stride, groups
CONVOLUTIONS = {
    "3x3, 64 to 64, 32x32, batch 16": (16, 64, 64, 32, 3, 1, 1),
    "1x1, 256 to 64, 56x56, batch 4": (4, 256, 64, 56, 1, 1, 1),
    "7x7 stride 2, 3 to 64, 224x224, batch 4": (4, 3, 64, 224, 7, 2, 1),
    "3x3 depthwise, 128, 56x56, batch 8": (8, 128, 128, 56, 3, 1, 128),
}


def all_cases() -> dict[str, Case]:
    """Every case that runs in a long-lived worker, by ``suite: name``."""
    found = [*_overhead(), *_kernels(), *_matmul(), *_conv(), *_train(), *_parts(), *_patterns(), *_compile()]
    return {f"{case.suite}: {case.name}": case for case in found}


def _overhead() -> Iterator[Case]:
    def pair(torch: Any, _: Options) -> dict[str, Any]:
        return {"torch": torch, "a": torch.randn(4), "b": torch.randn(4), "m": torch.randn(2, 2)}

    def pair_with_gradient(torch: Any, _: Options) -> dict[str, Any]:
        return {"a": torch.randn(4, requires_grad=True), "b": torch.randn(4)}

    def linear(torch: Any, _: Options) -> dict[str, Any]:
        return {"layer": torch.nn.Linear(8, 8), "x": torch.randn(1, 8)}

    def small_mlp(torch: Any, _: Options) -> dict[str, Any]:
        model, x = models.mlp(torch, width=8, depth=2), torch.randn(8, 8)

        def step() -> None:
            model(x).sum().backward()

        return {"step": step}

    statements = {
        "a + b": "a + b", "a * 2.0": "a * 2.0", "a[1:3]": "a[1:3]", "a.view(2, 2)": "a.view(2, 2)",
        "m.transpose(0, 1)": "m.transpose(0, 1)", "a.add_(b)": "a.add_(b)",
        "torch.empty(4)": "torch.empty(4)",
    }  # fmt: skip
    for name, statement in statements.items():
        yield Case(name, "overhead", pair, statement)
    yield Case("a + b with gradient", "overhead", pair_with_gradient, "a + b")
    yield Case("Linear(8, 8)(x)", "overhead", linear, "layer(x)")
    yield Case("MLP 8-8-8 forward and backward", "overhead", small_mlp, "step()")


def _tensors(dtype: str, *shape: int) -> Callable[[Any, Options], dict[str, Any]]:
    def make(torch: Any, _: Options) -> dict[str, Any]:
        x, y = (torch.randn(*shape).to(getattr(torch, dtype)) for _ in range(2))
        return {"torch": torch, "x": x, "y": y, "mask": x > 0}

    return make


def _kernels() -> Iterator[Case]:
    for dtype, width in (("float32", 4), ("bfloat16", 2)):
        for level, count in SIZES.items():
            data, size = _tensors(dtype, count), count * width
            for name, (statement, sources) in POINTWISE.items():
                read = sources * size + (count if name == "where" else 0)
                yield Case(f"{name}, {dtype}, {level}", "kernels", data, statement, read, size)
            other, other_width = ("bfloat16", 2) if dtype == "float32" else ("float32", 4)
            cast = f"x.to(torch.{other})"
            yield Case(f"cast to {other}, {dtype}, {level}", "kernels", data, cast, size, count * other_width)
        matrix, whole = _tensors(dtype, ROWS, COLUMNS), ROWS * COLUMNS * width
        for op in ("sum", "mean", "amax"):
            for over, dim in (("rows", "0"), ("columns", "1"), ("all", "(0, 1)")):
                yield Case(
                    f"{op} over {over}, {dtype}, 4096x1024", "kernels", matrix, f"torch.{op}(x, {dim})", whole
                )
        copy = "x.t().contiguous()"
        yield Case(f"transposed copy, {dtype}, 4096x1024", "kernels", matrix, copy, whole, whole)
        for level, count in SIZES.items():
            for name in ("softmax", "log_softmax", "layer_norm"):
                yield from _normalisation(name, dtype, level, count // COLUMNS, count * width)


def _normalisation(name: str, dtype: str, level: str, rows: int, whole: int) -> Iterator[Case]:
    """Rows of 1024 elements, ``whole`` bytes of them."""
    argument = f"({COLUMNS},)" if name == "layer_norm" else "-1"
    forward = f"torch.nn.functional.{name}(x, {argument})"
    plain = _tensors(dtype, rows, COLUMNS)
    yield Case(f"{name}, {dtype}, {level}", "kernels", plain, forward, whole, whole)

    def make(torch: Any, options: Options) -> dict[str, Any]:
        names = plain(torch, options)
        x = names["x"].requires_grad_()
        function = getattr(torch.nn.functional, name)
        result = function(x, (COLUMNS,) if name == "layer_norm" else -1)
        return {"torch": torch, "result": result, "x": x, "cotangent": names["y"]}

    backward = "torch.autograd.grad(result, x, cotangent, retain_graph=True)"
    yield Case(f"{name} backward, {dtype}, {level}", "kernels", make, backward, 2 * whole, whole)


def _matmul() -> Iterator[Case]:
    def operands(dtype: str, m: int, n: int, k: int) -> Callable[[Any, Options], dict[str, Any]]:
        def make(torch: Any, _: Options) -> dict[str, Any]:
            kind = getattr(torch, dtype)
            return {"a": torch.randn(m, k).to(kind), "b": torch.randn(k, n).to(kind)}

        return make

    for dtype in ("float32", "bfloat16"):
        for m, n, k in MATMULS:
            flops = 2 * m * n * k if dtype == "float32" else 0
            yield Case(f"{m} x {n} x {k}, {dtype}", "matmul", operands(dtype, m, n, k), "a @ b", flops=flops)

    def far(m: int, n: int, k: int, order: str) -> Callable[[Any, Options], dict[str, Any]]:
        def make(torch: Any, _: Options) -> dict[str, Any]:
            def matrix(rows: int, columns: int, transposed: bool) -> Any:
                return torch.randn(columns, rows).t() if transposed else torch.randn(rows, columns)

            sets = 200_000_000 // (4 * (m * k + k * n))
            pairs = [(matrix(m, k, order[0] == "t"), matrix(k, n, order[1] == "t")) for _ in range(sets)]
            return {"torch": torch, "operands": itertools.cycle(pairs)}

        return make

    for m, n, k, order in FAR_MATMULS:
        name = f"{m} x {n} x {k}, {order}, operands from memory"
        yield Case(name, "matmul", far(m, n, k, order), "torch.mm(*next(operands))", flops=2 * m * n * k)


def _conv() -> Iterator[Case]:
    for name, (batch, inside, outside, image, kernel, stride, groups) in CONVOLUTIONS.items():

        def make(torch: Any, _: Options, sizes: tuple[int, ...] = CONVOLUTIONS[name]) -> dict[str, Any]:
            batch, inside, outside, image, kernel, stride, groups = sizes
            x = torch.randn(batch, inside, image, image, requires_grad=True)
            w = torch.randn(outside, inside // groups, kernel, kernel, requires_grad=True)
            conv = torch.nn.functional.conv2d
            y = conv(x, w, None, stride, kernel // 2, 1, groups)
            sizes = {"stride": stride, "padding": kernel // 2, "groups": groups}
            return {"torch": torch, "conv": conv, "x": x.detach(), "w": w.detach(), "y": y, "leaves": (x, w),
                    "cotangent": torch.randn(*y.shape), "sizes": sizes}  # fmt: skip

        pixels = math.ceil(image / stride) ** 2
        flops = 2 * batch * outside * pixels * (inside // groups) * kernel**2
        yield Case(name, "conv", make, "conv(x, w, None, **sizes)", flops=flops)
        backward = "torch.autograd.grad(y, leaves, cotangent, retain_graph=True)"
        yield Case(f"{name}, backward", "conv", make, backward, flops=2 * flops)


Make = Callable[[Any, Options], dict[str, Any]]

#: What training steps go through, again and again.
BATCHES = 32


def _gpt(layers: int, width: int, heads: int, context: int, batch: int, **how: bool) -> Make:
    def make(torch: Any, options: Options) -> dict[str, Any]:
        torch.manual_seed(0)
        model = models.gpt(torch, layers=layers, width=width, heads=heads, vocabulary=65, context=context)
        batches = []
        for _ in range(BATCHES):
            ids = torch.randint(0, 65, (batch, context + 1))
            batches.append((ids[:, :-1].contiguous(), ids[:, 1:].contiguous()))
        return {"step": _step(torch, model, batches, options, **how)}

    return make


def _mlp(**how: bool) -> Make:
    def make(torch: Any, options: Options) -> dict[str, Any]:
        torch.manual_seed(0)
        batches = [(torch.randn(32, 64), torch.randint(0, 64, (32,))) for _ in range(BATCHES)]
        return {"step": _step(torch, models.mlp(torch, width=64, depth=4), batches, options, **how)}

    return make


def _step(torch: Any, model: Any, batches: Any, options: Options, **how: bool) -> Any:
    return models.classification_step(
        torch, model, batches, **how, **dataclasses.asdict(options)
    )


def _train() -> Iterator[Case]:
    def resnet(torch: Any, options: Options) -> dict[str, Any]:
        torch.manual_seed(0)
        batches = [(torch.randn(16, 3, 32, 32), torch.randint(0, 10, (16,))) for _ in range(BATCHES)]
        return {"step": _step(torch, models.small_resnet(torch), batches, options)}

    yield Case("GPT 6x384, 256 tokens, batch 4", "train", _gpt(6, 384, 6, 256, 4), "step()")
    yield Case("GPT 4x128, 64 tokens, batch 12", "train", _gpt(4, 128, 4, 64, 12), "step()")
    yield Case("small ResNet, 32x32, batch 16", "train", resnet, "step()")
    yield Case("MLP 64x4, batch 32", "train", _mlp(), "step()")


def _patterns() -> Iterator[Case]:
    for p in patterns.PATTERNS:
        for rows, columns in PATTERN_SIZES:
            both = p.backward and (rows, columns) != PATTERN_SIZES[-1]
            for form in ("forward", "forward and backward")[: 1 + both]:

                def make(
                    torch: Any,
                    options: Options,
                    what: tuple[Any, ...] = (p, rows, columns),
                    backward: bool = form != "forward",
                ) -> dict[str, Any]:
                    patterns.use(torch)
                    compile = torch.compile if options.compiled else lambda f: f
                    return {"call": patterns.call(compile, *what, backward)}

                yield Case(f"{p.name}; {form}, {rows}x{columns}", "patterns", make, "call()")


def _compile() -> Iterator[Case]:
    """Whole training steps, and optimizers' steps alone, through ``compile``."""
    for how, name in (
        ({"whole": True}, "whole step compiled"),
        ({"whole": True, "replay": True}, "whole step compiled, replay"),
        ({}, "model compiled"),
    ):
        steps = {
            "MLP 64x4, batch 32": _mlp(**how),
            "GPT 4x128, 64 tokens, batch 12": _gpt(4, 128, 4, 64, 12, **how),
            "GPT 6x384, 256 tokens, batch 4": _gpt(6, 384, 6, 256, 4, **how),
        }
        for case, make in steps.items():
            yield Case(f"{case}; {name}", "compile", make, "step()", table="training steps")
    for name, arguments in OPTIMIZERS.items():
        for count in (1, 50, 500):

            def make_optimizer(
                torch: Any, options: Options, what: tuple[Any, ...] = (name.split(",")[0], arguments, count)
            ) -> dict[str, Any]:
                kind, arguments, count = what
                torch.manual_seed(0)
                parameters = [torch.randn(1000, requires_grad=True) for _ in range(count)]
                for p in parameters:
                    p.grad = torch.randn(1000)
                form = {"fused": True} if options.fused else {"foreach": True} if options.foreach else {}
                optimizer = getattr(torch.optim, kind)(parameters, **arguments, **form)
                step = optimizer.step
                return {"step": torch.compile(lambda: step()) if options.compiled else step}

            tensors = f"{count} tensor{'s' if count > 1 else ''} of 1000"
            yield Case(f"{name}; {tensors}", "compile", make_optimizer, "step()", table="optimizers")


def _parts() -> Iterator[Case]:
    """The parts of the step "GPT 6x384, 256 tokens, batch 4", each with how often the step does it."""
    rows, width, heads, time, batch = 1024, 384, 6, 256, 4

    def product(n: int, k: int, bias: bool) -> Callable[[Any, Options], dict[str, Any]]:
        def make(torch: Any, _: Options) -> dict[str, Any]:
            return {"torch": torch, "linear": torch.nn.functional.linear, "x": torch.randn(rows, k),
                    "w": torch.randn(n, k), "b": torch.randn(n) if bias else None, "g": torch.randn(rows, n)}  # fmt: skip

        return make

    def backward_of(
        forward: Callable[[Any, Any], Any], *shape: int, leaves: int = 1
    ) -> Callable[[Any, Options], dict[str, Any]]:
        def make(torch: Any, _: Options) -> dict[str, Any]:
            x = torch.randn(*shape, requires_grad=True)
            more = [torch.ones(width, requires_grad=True) for _ in range(leaves - 1)]
            y = forward(torch, [x, *more])
            return {"torch": torch, "forward": lambda: forward(torch, [x.detach(), *(m.detach() for m in more)]),
                    "y": y, "leaves": [x, *more], "g": torch.randn(*y.shape)}  # fmt: skip

        return make

    gradient = "torch.autograd.grad(y, leaves, g, retain_graph=True)"
    weights = 0
    for name, n, k, bias in (
        ("query, key and value", 3 * width, width, True),
        ("attention's result", width, width, True),
        ("up", 4 * width, width, True),
        ("down", width, 4 * width, True),
        ("head", 65, width, False),
    ):
        make, flops, times = product(n, k, bias), 2 * rows * n * k, 1 if name == "head" else 6
        weights += n * k * times
        yield Case(f"{name}, {times}x", "parts", make, "linear(x, w, b)", flops=flops)
        yield Case(f"{name}, gradient of the input, {times}x", "parts", make, "torch.mm(g, w)", flops=flops)
        yield Case(
            f"{name}, gradient of the weight, {times}x", "parts", make, "torch.mm(g.t(), x)", flops=flops
        )
        if bias:
            yield Case(f"{name}, gradient of the bias, {times}x", "parts", make, "g.sum(0)", rows * n * 4)

    def attention(torch: Any, leaves: list[Any]) -> Any:
        parts = (
            t.view(batch, time, heads, width // heads).transpose(1, 2) for t in leaves[0].split(width, dim=2)
        )
        return torch.nn.functional.scaled_dot_product_attention(*parts, is_causal=True)

    def gelu(torch: Any, leaves: list[Any]) -> Any:
        return torch.nn.functional.gelu(leaves[0])

    def layer_norm(torch: Any, leaves: list[Any]) -> Any:
        return torch.nn.functional.layer_norm(leaves[0], (width,), leaves[1], leaves[2])

    product_flops = batch * heads * time * time * (width // heads)  # of one product, half of it masked
    make = backward_of(attention, batch, time, 3 * width)
    yield Case("attention, 6x", "parts", make, "forward()", flops=2 * product_flops)
    yield Case("attention backward, 6x", "parts", make, gradient, flops=4 * product_flops)
    size = rows * width * 4
    make = backward_of(gelu, batch, time, 4 * width)
    yield Case("gelu, 6x", "parts", make, "forward()", 4 * size, 4 * size)
    yield Case("gelu backward, 6x", "parts", make, gradient, 8 * size, 4 * size)
    make = backward_of(layer_norm, batch, time, width, leaves=3)
    yield Case("layer_norm, 13x", "parts", make, "forward()", size, size)
    yield Case("layer_norm backward, 13x", "parts", make, gradient, 2 * size, size)

    def adamw(torch: Any, options: Options) -> dict[str, Any]:
        parameters = [torch.randn(width, width, requires_grad=True) for _ in range(weights // width**2)]
        for p in parameters:
            p.grad = torch.randn(width, width)
        extra = {"fused": True} if options.fused else {}
        return {"optimizer": torch.optim.AdamW(parameters, **extra)}

    yield Case("AdamW, 1x", "parts", adamw, "optimizer.step()")  # in place: not what the limit's loop does
