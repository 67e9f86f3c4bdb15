"""compile(): results, gradients, state and errors are those of the plain program, bit for bit."""

from __future__ import annotations

import gc
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lohe
import pytest
from lohe import _C, nn
from lohe.nn import functional as F

pytestmark = [pytest.mark.eager, pytest.mark.usefixtures("fresh_compiler")]  # they record by themselves


def _bits(t: lohe.Tensor) -> bytes:
    t = t.detach().contiguous().reshape(-1)
    return (t.view(lohe.int16) if t.dtype == lohe.bfloat16 else t).numpy().tobytes()


def _counts() -> dict[str, int]:
    return _C._record_counts()


def _same_calls(function: Callable[..., Any], *args: Any, calls: int = 4) -> None:
    """The compiled function gives the plain one's bits at every call, unfused and as a program."""
    compiled = lohe.compile(function)
    for _ in range(calls):
        state = lohe.get_rng_state()
        want = function(*args)
        lohe.set_rng_state(state)
        got = compiled(*args)
        wants, gots = (want, got) if isinstance(want, tuple) else ((want,), (got,))
        for w, g in zip(wants, gots, strict=True):
            assert g.dtype == w.dtype and g.shape == w.shape and g.stride() == w.stride()
            assert _bits(g) == _bits(w)


def _attention(q: Any, k: Any, v: Any) -> Any:
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    mask = lohe.ones(scores.shape[-2:], dtype=lohe.bool).tril()
    return lohe.softmax(scores.masked_fill(~mask, float("-inf")), -1) @ v


FUNCTIONS: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]] = {
    "a chain": (lambda x, y: ((x * y + 1).tanh() * x.sigmoid() - y).relu(), ((33, 65), (33, 65))),
    "broadcasts": (lambda x, y, b: (x + b) * y.exp() + b, ((7, 5, 64), (5, 1), (64,))),
    "softmax by hand": (lambda x: ((x - x.amax(-1, keepdim=True)).exp() / (x - x.amax(-1, keepdim=True)).exp().sum(-1, keepdim=True)), ((40, 129),)),
    "softmax between": (lambda x, y: lohe.softmax(x * y + 1, -1) * y, ((64, 200), (64, 200))),
    "norm and residual": (lambda x, y, w, b: F.layer_norm(x + y, (96,), w, b) + x, ((12, 8, 96), (12, 8, 96), (96,), (96,))),
    "rms norm": (lambda x, w: x * lohe.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * w, ((50, 70), (70,))),
    "sums over columns": (lambda x, y: ((x * y).sum(0), (x + y).mean(0)), ((300, 31), (300, 31))),
    "a long sum": (lambda x: (x * 2 - 1).sum(), ((70000,),)),
    "a mean of squares": (lambda x, y: (x - y).square().mean(), ((300, 257), (300, 257))),
    "views": (lambda x: (x.view(6, 50).t()[3:40:2] * 2).unsqueeze(1).expand(-1, 3, -1) + 1, ((300,),)),
    "a turned operand": (lambda x, y: x.t() * y + y.t().contiguous().t(), ((48, 80), (80, 48))),
    "reshaped in between": (lambda x: (x.exp().view(-1, 10) * 0.5).view(4, 30, 5).sum(-1), ((4, 3, 50),)),
    "attention": (_attention, ((2, 3, 17, 8), (2, 3, 17, 8), (2, 3, 17, 8))),
    "dropout": (lambda x: F.dropout(x * 2, 0.3) + F.dropout(x, 0.5), ((64, 33),)),
    "random numbers": (lambda x: (x + lohe.rand_like(x)) * lohe.randn(x.shape[0], 1), ((9, 40),)),
    "scans and sorts": (lambda x: (x * 2).cumsum(0).sort(-1).values - x.amax(), ((17, 9),)),
    "cat and split": (lambda x, y: tuple(t * 2 for t in lohe.cat([x + 1, y, x], 1).split(7, 1)), ((4, 10), (4, 10))),
    "cat of halves": (lambda x, y: lohe.cat((x * y - 1, x + y.cos()), -1), ((64, 200), (64, 200))),
    "cat of many dtypes": (lambda x, y: lohe.cat((x.to(lohe.bfloat16) * 2, y.exp(), (x > 0)), 0), ((80, 100), (90, 100))),
    "cat, then a sum of it": (lambda x, y: lohe.cat((x * y, x), 1).sum(-1), ((100, 100), (100, 100))),
    "a loss on both sides": (lambda x, y: (lohe.where((x - y).abs() < 1, (x - y).square() / 2, (x - y).abs() - 0.5).mean(), x * y), ((200, 300), (200, 300))),
    "what is summed is kept": (lambda x, y: ((x * y).exp().sum(), (x * y).exp()), ((300, 250), (300, 250))),
    "what is summed is kept, by columns": (lambda x, y: ((x * y).sum(0), x * y + 1, x - y), ((300, 250), (300, 250))),
    "what follows a sum is kept": (lambda x, y: (x / x.sum(-1, keepdim=True), x * y, (x * y).sum()), ((120, 250), (120, 250))),
    "variance": (lambda x: ((x - x.mean(0)) / (x.std(0) + 1e-5), x.var(-1)), ((40, 30),)),
    "integers": (lambda x: ((x * 8).to(lohe.int32) // 3 % 5, (x > 0).sum(0)), ((20, 21),)),
    "one number": (lambda x: x.sum() * 2 + x.mean(), ((5,),)),
    "nothing": (lambda x: (x[:0] * 2, x[:0].sum(0) + 1), ((5, 3),)),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_compiled_function_gives_the_bits_of_the_plain_one(name: str, dtype: str) -> None:
    function, shapes = FUNCTIONS[name]
    _same_calls(function, *(lohe.randn(s, dtype=getattr(lohe, dtype)) for s in shapes))


@pytest.mark.parametrize(
    "name", [n for n in FUNCTIONS if n not in ("integers", "scans and sorts", "nothing")]
)
def test_gradients_of_a_compiled_function_have_the_same_bits(name: str) -> None:
    function, shapes = FUNCTIONS[name]
    inputs = [lohe.randn(s) for s in shapes]

    def gradients(f: Callable[..., Any], whole: bool) -> list[bytes]:
        leaves = [t.clone().requires_grad_() for t in inputs]

        def run() -> None:
            out = f(*leaves)
            total = sum(
                (t * t).sum() for t in (out if isinstance(out, tuple) else (out,)) if t.is_floating_point()
            )
            total.backward()

        (lohe.compile(run) if whole else run)()
        return [_bits(t.grad) for t in leaves]

    compiled = lohe.compile(function)
    for _ in range(3):
        state = lohe.get_rng_state()
        plain = gradients(function, False)
        lohe.set_rng_state(state)
        assert gradients(compiled, False) == plain
        lohe.set_rng_state(state)
        assert gradients(function, True) == plain


def _model() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 24), nn.GELU(), nn.LayerNorm(24), nn.Dropout(0.1), nn.Linear(24, 5))


@pytest.mark.parametrize("form", ["model", "whole step", "method", "decorator", "optimizer step"])
@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW"])
def test_training_has_the_same_losses_and_weights(form: str, optimizer: str) -> None:
    x, y = lohe.randn(16, 12), lohe.randint(0, 5, (16,))

    def train(form: str) -> tuple[list[float], list[bytes]]:
        lohe.manual_seed(1)
        model = _model()
        options = {"lr": 0.1, "momentum": 0.9} if optimizer == "SGD" else {"lr": 0.01}
        opt = getattr(lohe.optim, optimizer)(model.parameters(), **options)
        forward = lohe.compile(model) if form == "model" else model
        if form == "method":
            model.compile()
        advance = lohe.compile(opt.step) if form == "optimizer step" else opt.step

        def step() -> float:
            opt.zero_grad()
            loss = F.cross_entropy(forward(x), y)
            loss.backward()
            advance()
            return loss.item()

        if form == "whole step":
            step = lohe.compile(step)
        elif form == "decorator":
            step = lohe.compile(fullgraph=False)(step)
        return [step() for _ in range(6)], [_bits(p) for p in model.parameters()]

    assert train(form) == train("plain")


def test_a_schedule_and_new_numbers_compile_nothing_anew() -> None:
    model = _model().eval()
    opt = lohe.optim.AdamW(model.parameters(), lr=0.01)
    schedule = lohe.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=20)
    x, y = lohe.randn(16, 12), lohe.randint(0, 5, (16,))

    @lohe.compile
    def step(scale: float) -> None:
        opt.zero_grad()
        (F.cross_entropy(model(x * scale), y) + lohe.rand(()).mul(0)).backward()
        opt.step()

    for i in range(4):
        step(1.0 + i)
        schedule.step()
    before = _counts()
    for i in range(8):
        step(5.0 + i)
        schedule.step()
    after = _counts()
    assert after["compilations"] == before["compilations"]
    assert after["compiled"] - before["compiled"] == 8 and after["unfused"] == before["unfused"]


def test_the_first_occurrence_is_not_compiled_and_the_second_is() -> None:
    f = lohe.compile(lambda x: (x + 1).exp())
    x = lohe.randn(8)
    start = _counts()
    seen = []
    for _ in range(3):
        f(x)
        seen.append(_counts()["compilations"] - start["compilations"])
    assert seen == [0, 1, 1]


def test_values_may_be_read_in_between() -> None:
    lines: list[str] = []

    def f(x: Any) -> Any:
        y = x * 2
        lines.append(repr(y.sum()))
        if y.sum().item() > 0:
            y = y + 1
        for v in y[:2].tolist():
            y = y * (1 + v)
        return y + float(y.numpy().mean())

    _same_calls(f, lohe.arange(5.0))
    assert len(set(lines)) == 1


def test_memory_that_numpy_sees_is_never_behind() -> None:
    x = lohe.zeros(4)
    outside = x.numpy()

    @lohe.compile
    def f() -> None:
        x.add_(1)
        assert outside.tolist() == [1.0] * 4
        outside[:] = 5
        y = x + 1
        outside[:] = 7
        assert y.tolist() == [6.0] * 4

    f()
    x.zero_()
    f()


def test_arguments_closures_and_globals_are_written_in_place() -> None:
    kept = lohe.zeros(3)

    def f(x: Any) -> Any:
        x += 1
        kept.add_(x)
        view = x[1:]
        view.mul_(3)
        return x * 2 + kept.sum()

    x, other = lohe.ones(3), lohe.ones(3)
    compiled = lohe.compile(f)
    plain, got = [], []
    for _ in range(4):
        plain.append(f(x).tolist())
    kept.zero_()
    for _ in range(4):
        got.append(compiled(other).tolist())
    assert got == plain and x.tolist() == other.tolist()
    assert x._version == other._version


@pytest.mark.parametrize("write", ["fill_", "zero_"])
@pytest.mark.parametrize("dims", [0, 1, 2])
def test_what_overlaps_itself_is_written_after_it_is_read(write: str, dims: int) -> None:
    sizes = [(3, 4, 17), (4, 3, 17), (4, 17, 3)][dims]
    x = lohe.randn(4, 17).unsqueeze(dims)

    def function(x: lohe.Tensor) -> tuple[lohe.Tensor, ...]:
        base = x * 1
        wide = base.expand(sizes)
        before = wide.abs() + base
        wide.fill_(0.5) if write == "fill_" else wide.zero_()
        return before, before.sum(-1), base, wide * 2

    _same_calls(function, x)


def test_an_error_comes_at_its_own_line_and_nothing_is_lost() -> None:
    x = lohe.zeros(3)

    @lohe.compile
    def f() -> None:
        x.add_(1)
        lohe.ones(2) + lohe.ones(3)

    for i in range(3):
        with pytest.raises(RuntimeError, match="size of tensor"):
            f()
        assert x.tolist() == [i + 1.0] * 3


def test_a_check_inside_a_kernel_stops_what_comes_after_it() -> None:
    table, before, after = lohe.ones(4, 2), lohe.zeros(2), lohe.zeros(2)

    @lohe.compile
    def f(index: Any) -> Any:
        before.add_(1)
        rows = F.embedding(index, table)
        after.add_(1)
        return rows * 2

    good, bad = lohe.tensor([1, 2]), lohe.tensor([1, 9])
    for i in range(3):
        assert f(good).tolist() == [[2.0, 2.0]] * 2
        with pytest.raises(IndexError):
            f(bad)
        assert before.tolist() == [2.0 * (i + 1)] * 2 and after.tolist() == [1.0 * (i + 1)] * 2


def test_what_a_failed_operation_would_have_made_cannot_be_read() -> None:
    held: list[Any] = []

    @lohe.compile
    def f() -> None:
        rows = F.embedding(lohe.tensor([9]), lohe.ones(4, 2))
        held.append(rows + 1)

    with pytest.raises(IndexError):
        f()
    with pytest.raises(RuntimeError, match="never computed"):
        held[0].tolist()


def test_memory_that_was_never_computed_is_refused_whoever_asks() -> None:
    with pytest.raises(RuntimeError, match="out of bounds"), lohe.compiler.lazy():
        index = lohe.tensor([9])
        picked = lohe.randn(3).take_along_dim(index, 0)
        lost = picked * 2
    storage = lost.untyped_storage()
    for ask in (
        storage.data_ptr,
        storage.tolist,
        storage.clone,
        lambda: storage[0],
        lambda: memoryview(storage),
        lost.data_ptr,
    ):
        with pytest.raises(RuntimeError, match="never computed"):
            ask()


def test_memory_that_nobody_was_to_write_can_be_read_after_an_error() -> None:
    held: list[Any] = []

    @lohe.compile
    def f() -> None:
        held.append(lohe.empty(1 << 16))
        F.embedding(lohe.tensor([9]), lohe.ones(4, 2))

    with pytest.raises(IndexError):
        f()
    assert held[0].fill_(2).sum().item() == 2 << 16


def test_a_version_check_still_raises() -> None:
    @lohe.compile
    def f() -> None:
        x = lohe.ones(3, requires_grad=True)
        y = x.exp()
        y.mul_(2)
        y.sum().backward()

    for _ in range(3):
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            f()


def test_hooks_run_and_see_values() -> None:
    seen: list[float] = []

    def f(w: Any) -> None:
        y = w * 3
        y.register_hook(lambda g: seen.append(g.sum().item()) or g * 2)
        (y * y).sum().backward()

    plain, compiled = lohe.ones(4, requires_grad=True), lohe.ones(4, requires_grad=True)
    g = lohe.compile(f)
    for _ in range(3):
        f(plain)
        g(compiled)
    assert plain.grad.tolist() == compiled.grad.tolist() and seen[0::2] == seen[1::2]


def test_a_custom_function_is_recorded_like_any_other() -> None:
    class Twice(lohe.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x * 2

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * 2 + ctx.saved_tensors[0] * 0

    w = lohe.ones(3, requires_grad=True)
    f = lohe.compile(lambda: Twice.apply(w).sum().backward())
    for i in range(3):
        f()
        assert w.grad.tolist() == [2.0 * (i + 1)] * 3


def test_threads_compile_side_by_side() -> None:
    f = lohe.compile(lambda x: lohe.softmax(x * 2 + 1, -1).sum(0))
    inputs = [lohe.randn(20 + i, 30) for i in range(4)]
    wants = [_bits(lohe.softmax(x * 2 + 1, -1).sum(0)) for x in inputs]
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(50):
            if _bits(f(inputs[i])) != wants[i]:
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_another_thread_may_read_what_is_recorded() -> None:
    with lohe.compiler.lazy():
        y = lohe.arange(1000.0) * 2
        seen: list[float] = []
        t = threading.Thread(target=lambda: seen.append(y.sum().item()))
        t.start()
        t.join()
        z = y + 1
    assert seen == [999000.0] and z[0].item() == 1.0


def test_scopes_nest_and_disable_stops_recording() -> None:
    inner = lohe.compile(lambda x: x + 1)
    plain: list[bool] = []

    @lohe.compiler.disable
    def outside(x: Any) -> Any:
        plain.append(lohe.compiler.is_compiling())
        return x * 2

    def f(x: Any) -> Any:
        return outside(inner(x) * 3) + 1

    _same_calls(f, lohe.randn(7))
    assert not any(plain)


def test_intermediate_results_get_no_memory_of_their_own() -> None:
    @lohe.compile
    def f(x: Any) -> Any:
        for _ in range(10):
            x = x * 1.01 + 0.5
        return x

    x = lohe.randn(1 << 20)
    f(x), f(x)
    gc.collect()
    lohe.cpu.reset_peak_memory_stats()
    before = lohe.cpu.memory_stats()["allocated_bytes"]
    y = f(x)
    peak = lohe.cpu.memory_stats()["peak_allocated_bytes"] - before
    assert y.numel() == 1 << 20 and peak < 1.1 * 4 * (1 << 20)


def _steps(compiled: Any) -> list[dict[str, Any]]:
    return lohe.compile_report(compiled).programs[0]["steps"]


def _train_by_hand(w: Any, x: Any) -> Any:
    difference = x * w - 1
    loss = lohe.where(difference.abs() < 1, difference.square() / 2, difference.abs() - 0.5).mean()
    loss.backward()
    gradient, w.grad = w.grad, None
    return loss, gradient


def test_an_elementwise_loss_goes_forward_and_backward_in_one_kernel() -> None:
    w, x = lohe.randn(200, 300, requires_grad=True), lohe.randn(200, 300)
    want = _train_by_hand(w, x)
    compiled = lohe.compile(_train_by_hand)
    for _ in range(4):
        got = compiled(w, x)
        assert [_bits(t) for t in got] == [_bits(t) for t in want]
    assert len(_steps(compiled)) == 1


def test_both_halves_of_a_result_are_written_by_one_kernel() -> None:
    def rotate(x: Any, angles: Any) -> Any:
        a, b = x.chunk(2, -1)
        return lohe.cat((a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()), -1)

    x, angles = lohe.randn(100, 256), lohe.randn(100, 128)
    compiled = lohe.compile(rotate)
    for _ in range(4):
        assert _bits(compiled(x, angles)) == _bits(rotate(x, angles))
    assert len(_steps(compiled)) == 1


@pytest.mark.parametrize("second", [slice(0, 64), slice(32, 96), slice(63, 127), slice(64, 128)])
def test_slices_that_overlap_keep_their_order(second: slice) -> None:
    def write(x: Any, y: Any) -> Any:
        x = x.clone()
        x[:, :64] = y * 2
        x[:, second] = y - x[:, second]
        x[:, :64] += x[:, second]
        return x, x.sum(-1)

    x, y = lohe.randn(150, 128), lohe.randn(150, 64)
    compiled = lohe.compile(write)
    for _ in range(4):
        assert [_bits(t) for t in compiled(x, y)] == [_bits(t) for t in write(x, y)]


def test_a_sum_of_what_is_overwritten_reads_the_old_values() -> None:
    def scale(x: Any, y: Any) -> Any:
        x = x + 0
        x.mul_(y)
        total = x.sum(-1, keepdim=True)
        x.div_(total)
        return x, total, x.amax(-1)

    x, y = lohe.rand(90, 500), lohe.rand(90, 500)
    compiled = lohe.compile(scale)
    for _ in range(4):
        assert [_bits(t) for t in compiled(x, y)] == [_bits(t) for t in scale(x, y)]


def test_compiled_steps_hold_no_memory() -> None:
    model = _model()
    opt = lohe.optim.AdamW(model.parameters(), lr=0.01)
    x, y = lohe.randn(16, 12), lohe.randint(0, 5, (16,))

    @lohe.compile
    def step() -> float:
        opt.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        return loss.item()

    held = []
    for i in range(600):
        step()
        if i in (99, 599):
            gc.collect()
            held.append(lohe.cpu.memory_stats()["allocated_bytes"])
    assert held[0] == held[1]


def test_a_report_names_programs_kernels_and_reasons(tmp_path: Path) -> None:
    f = lohe.compile(lambda x: lohe.softmax(x * 2, -1) + 1)
    report = lohe.compile_report(f, lohe.randn(4, 9))
    (program,) = report.programs
    assert program["reason"] == "first" and program["operations"] == 3 and program["profiled_runs"] == 5
    assert [s["operations"] for s in program["steps"]] == [3] and program["steps"][0]["kernel"]
    assert "softmax" in repr(report)
    for _ in range(2):
        f(lohe.randn(5, 9))
    assert "sizes" in lohe.compile_report(f).programs[0]["reason"]
    report.draw(tmp_path / "program.svg")
    assert (tmp_path / "program.svg").read_text().startswith("<svg")
    with pytest.raises(TypeError, match="compile"):
        lohe.compile_report(lambda: None)


def test_a_report_says_what_a_product_fetches_for_the_steps_that_follow() -> None:
    def f(x: Any, w: Any, v: Any, far: Any) -> Any:
        near = x @ w
        return (near + far) @ v, near.exp()

    x, w, v, far = (lohe.randn(512, 512) for _ in range(4))
    compiled = lohe.compile(f)
    for _ in range(2):
        compiled(x, w, v, far)
    size = 4 * 512 * 512
    assert [(s["name"], s["far"]) for s in _steps(compiled)] == [
        ("mm", 2 * size),  # far and v; what it makes is near
        ("add", 0),
        ("mm", size),  # what the first product made, for exp
        ("exp", 0),
    ]


def test_a_report_says_what_share_of_the_machines_limit_a_step_reaches() -> None:
    def f(x: Any, w: Any) -> Any:
        return (x.exp() @ w).sort(-1).values, x.square().sum()

    compiled = lohe.compile(f)
    x, w = lohe.randn(256, 384), lohe.randn(384, 512)
    for _ in range(2):
        compiled(x, w)
    assert all(s["share"] is None for s in _steps(compiled))
    assert "limit" not in repr(lohe.compile_report(compiled)).splitlines()[1]
    report = lohe.compile_report(compiled, x, w)
    steps = {s["name"]: s for s in report.programs[0]["steps"]}
    assert all(s["bytes"] == s["read"] + s["written"] for s in steps.values())
    exp, product, sort, total = (steps[name] for name in ("exp", "mm", "sort", "fused_pow_sum"))
    assert (exp["read"], exp["written"], exp["flops"]) == (4 * 256 * 384, 4 * 256 * 384, 0)
    assert (product["read"], product["written"]) == (4 * (256 * 384 + 384 * 512), 4 * 256 * 512)
    assert product["flops"] == 2 * 256 * 384 * 512
    assert (total["read"], total["written"]) == (4 * 256 * 384, 4)
    # Above 1 where the limit was measured in a busier moment than the step.
    assert all(0 < s["share"] < 4 for s in (exp, product, total)) and sort["share"] is None
    known = [s["nanoseconds"] for s in (exp, product, total)]
    least = sum(s["share"] * s["nanoseconds"] for s in (exp, product, total))
    assert report.programs[0]["share"] == pytest.approx(least / sum(known))
    lines = repr(report).splitlines()
    assert f"{100 * report.programs[0]['share']:.0f} % of the machine's limit" in lines[1]
    assert [line.count(" % ") for line in lines[3:]] == [int(s["share"] is not None) for s in steps.values()]
    # Measured once: a second report says the same.
    assert [s["share"] for s in _steps(compiled)] == [s["share"] for s in steps.values()]


def test_a_report_counts_the_flops_of_products_and_convolutions() -> None:
    def f(x: Any, w: Any, up: Any, m: Any) -> Any:
        y = lohe.nn.functional.conv2d(x, w, stride=2)
        z = lohe.nn.functional.conv_transpose2d(y, up, groups=2)
        return lohe.nn.functional.linear(z.flatten(1), m).sum()

    leaves = [
        lohe.randn(*s, requires_grad=True) for s in ((3, 4, 9, 9), (6, 4, 3, 3), (6, 5, 2, 2), (7, 250))
    ]

    def step() -> Any:
        return lohe.autograd.grad(f(*leaves), leaves)

    compiled = lohe.compile(step)
    for _ in range(2):
        compiled()
    flops: dict[str, list[int]] = {}
    for s in _steps(compiled):
        flops.setdefault(s["name"], []).append(s["flops"])
    down, up, linear = 2 * (3 * 6 * 4 * 4) * (4 * 3 * 3), 2 * (3 * 6 * 4 * 4) * (5 * 2 * 2), 2 * 3 * 7 * 250
    assert flops["convolution"][:2] == [down, up] and flops["linear"] == [linear]
    assert flops["_linear_backward"] == [2 * linear]
    assert down in flops["_convolution_input_gradient"]
    assert sorted(flops["_convolution_weight_gradient"]) == [up, down]


def test_a_report_counts_an_expanded_operand_once() -> None:
    f = lohe.compile(lambda x, row: x * row + 1)
    report = lohe.compile_report(f, lohe.randn(64, 100), lohe.randn(100))
    (step,) = report.programs[0]["steps"]
    assert step["read"] == 4 * (64 * 100 + 100) and step["written"] == 4 * 64 * 100


def test_a_compiled_module_keeps_its_state_and_attributes(oracle: Any) -> None:
    model = _model()
    compiled = lohe.compile(model)
    theirs = oracle.compile(oracle.nn.Sequential(oracle.nn.Linear(2, 2)), backend="eager")
    assert list(lohe.compile(nn.Sequential(nn.Linear(2, 2))).state_dict()) == list(theirs.state_dict())
    assert [p is q for p, q in zip(compiled.parameters(), model.parameters(), strict=True)] == [True] * 6
    compiled.eval()
    assert not model.training and not compiled.training
    compiled.note = 3
    assert model.note == 3 and len(compiled) == 5
    seen = []
    compiled.register_forward_hook(lambda module, args, result: seen.append(tuple(result.shape)))
    compiled(lohe.randn(2, 12))
    assert seen == [(2, 5)]


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"backend": "nonesuch"}, RuntimeError, "Invalid backend"),
        ({"mode": "fast"}, RuntimeError, "Unrecognized mode"),
        ({"options": {"fuse": 1}}, RuntimeError, "Unexpected optimization option"),
        ({"mode": "default", "options": {}}, RuntimeError, "can't be specified at the same time"),
        ({"backend": lambda g, x: g}, NotImplementedError, "name of a backend"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        lohe.compile(lambda x: x, **arguments)


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(TypeError, match="expected a function or a module"):
        lohe.compile(3)


def test_disabled_compiling_gives_the_function_back() -> None:
    def f(x: Any) -> Any:
        return x

    assert lohe.compile(f, disable=True) is f and lohe.compile(f, backend="eager") is f
    g = lohe.compile(lambda: (lohe.ones(3) + 1).sum())
    before = _counts()["traces"]
    with lohe.compiler.set_stance("force_eager"):
        g()
    stance = lohe.compiler.set_stance("force_eager")(lambda: g())
    stance()
    assert _counts()["traces"] == before
    g()
    assert _counts()["traces"] == before + 1
    with pytest.raises(NotImplementedError, match="fail_on_recompile"):
        lohe.compiler.set_stance("fail_on_recompile")
    with pytest.raises(NotImplementedError, match="recursive"):
        lohe.compiler.disable(f, recursive=False)


def test_a_disabled_module_is_not_recorded_inside_a_compiled_one() -> None:
    seen: list[bool] = []

    class Plain(nn.Module):
        def forward(self, x: Any) -> Any:
            seen.append(lohe.compiler.is_compiling())
            return x * 2

    model = nn.Sequential(nn.Linear(3, 3), lohe.compiler.disable(Plain()), nn.ReLU())
    x = lohe.randn(2, 3)
    want = model(x)
    compiled = lohe.compile(model)
    for _ in range(3):
        assert _bits(compiled(x)) == _bits(want)
    assert seen == [False] * 4


def test_a_report_knows_what_model_compile_made() -> None:
    model = _model().eval()
    model.compile()
    for _ in range(3):
        model(lohe.ones(2, 12))
    assert len(lohe.compile_report(model).programs) == 1


def counts_of(call):
    before = lohe._C._record_counts()
    result = call()
    after = lohe._C._record_counts()
    return result, after["compilations"] - before["compilations"], after["instances"] - before["instances"]


def test_batches_of_other_sizes_are_not_compiled_anew():
    """A program for a third size is there at once, as a second one is; both do what the first one does."""
    model = lohe.nn.Sequential(
        lohe.nn.Linear(16, 24), lohe.nn.GELU(), lohe.nn.LayerNorm(24), lohe.nn.Linear(24, 1)
    )

    def gradients(x):
        model.zero_grad()
        model(x).square().mean().backward()
        return [p.grad.clone() for p in model.parameters()]

    compiled = lohe.compile(gradients)
    made = []
    for batch in (8, 9, 20, 5, 33, 2):
        x = lohe.randn(batch, 16)
        for _ in range(2):
            got, compilations, instances = counts_of(lambda x=x: compiled(x))
            made.append((compilations, instances))
            assert all(lohe.equal(a, b) for a, b in zip(got, gradients(x), strict=True))
    # The first call is a trace of its own: gradients are there afterwards.
    assert sum(c for c, _ in made) <= 2
    assert all(m == (0, 1) for m in made[4::2])
    assert all(m == (0, 0) for m in made[5::2])


def test_writes_that_come_to_overlap_at_another_size_are_not_joined():
    def f(n):
        x = lohe.arange(40.0)
        low, high = x[:n], x[8 : 8 + n]
        low += 1
        high *= 2
        low -= 3
        return x

    compiled = lohe.compile(f)
    for n in (3, 4, 5, 8, 9, 20, 32):
        for _ in range(3):
            assert lohe.equal(compiled(n), f(n)), n


def test_a_sum_joins_what_made_its_operand_past_a_product() -> None:
    """The gradient of a bias: the product between the two cannot change what either of them gives."""

    def f(x: lohe.Tensor, y: lohe.Tensor, w: lohe.Tensor) -> tuple[lohe.Tensor, ...]:
        h = x * y + 1
        return h, h @ w, h.sum(0)

    x, y, w = lohe.randn(64, 32), lohe.randn(64, 32), lohe.randn(32, 8)
    compiled = lohe.compile(f)
    for _ in range(3):
        assert all(lohe.equal(a, b) for a, b in zip(compiled(x, y, w), f(x, y, w), strict=True))
    (program,) = lohe.compile_report(compiled).programs
    assert [s["kernel"] for s in program["steps"]] == [True, False]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda x: x.to(lohe.bool).cumsum(0, dtype=lohe.bool), NotImplementedError),
        (lambda x: x.cumsum(3), IndexError),
        (lambda x: x.to(lohe.int64).logcumsumexp(0), NotImplementedError),
        (lambda x: x.logcumsumexp(3), IndexError),
        (lambda x: x.to(lohe.complex64).cummax(0), NotImplementedError),
        (lambda x: x.cummin(-4), IndexError),
        (lambda x: lohe.nn.functional.max_pool2d(x.to(lohe.bool)[None], 2), NotImplementedError),
    ],
)
def test_dtypes_and_dims_are_checked_at_the_call(call: Any, error: type[Exception]) -> None:
    x = lohe.randn(4, 4)
    with lohe.compiler.lazy():
        y = x * 2
        with pytest.raises(error):
            call(y)
    assert lohe.equal(y, x * 2)
