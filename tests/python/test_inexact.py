"""compile(options={"exact": False}): every rewrite stays within its bound, and the default rounds as without compile().

References are exact fractions of the inputs, or float64 where functions without exact values take part.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import lohe
import numpy as np
import pytest
from lohe import _C, nn

pytestmark = [pytest.mark.eager, pytest.mark.usefixtures("fresh_compiler")]  # they record by themselves

DTYPES = ("float32", "float64", "float16", "bfloat16")
# Bits of the significand and the exponent of the least number, of a dtype and of what it is computed in.
FORMATS = {"float32": (24, -149), "float64": (53, -1074), "float16": (11, -24), "bfloat16": (8, -133)}
INEXACT = {"exact": False}


def _values(t: Any) -> list[float]:
    return t.detach().to(lohe.float64).reshape(-1).tolist()


def _bits(t: Any) -> bytes:
    t = t.detach().contiguous().reshape(-1)
    return (t.view(lohe.int16) if t.dtype == lohe.bfloat16 else t).numpy().tobytes()


def _inexact(function: Callable[..., Any], *args: Any) -> tuple[Any, dict[str, int]]:
    """The result as a program, and how often each rewrite was applied; the first occurrence is eager, to the bit."""
    lohe.compiler.reset()  # reports name a trace after the function that met it first
    compiled = lohe.compile(function, options=INEXACT)
    plain, first = function(*args), compiled(*args)
    for p, f in zip(*((t if isinstance(t, tuple) else (t,)) for t in (plain, first)), strict=True):
        assert _bits(p) == _bits(f)
    result = compiled(*args)
    (program,) = lohe.compile_report(compiled).programs
    assert not program["exact"]
    counts = {"reciprocals": 0, "fmas": 0, "roundings": 0}
    for step in program["steps"]:
        for name, count in step["rewrites"].items():
            counts[name] += count
    return result, counts


def _ulp(x: Fraction, dtype: str) -> Fraction:
    """The distance of neighbours of `dtype` around x."""
    digits, least = FORMATS[dtype]
    if x == 0:
        return Fraction(2) ** least
    size = abs(x)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    exponent -= Fraction(2) ** exponent > size
    return Fraction(2) ** max(exponent - digits + 1, least)


def _bound(x: Fraction, dtype: str, ulps: float) -> Fraction:
    """`ulps` of what `dtype` is computed in; half types then round to themselves."""
    if dtype in ("float32", "float64"):
        return Fraction(ulps) * _ulp(x, dtype)
    return Fraction(ulps) * _ulp(x, "float32") + _ulp(x, dtype) * Fraction(0.5001)


def _assert_within(got: Any, want: list[Fraction], dtype: str, ulps: float) -> None:
    for g, w in zip(_values(got), want, strict=True):
        assert abs(Fraction(g) - w) <= _bound(w, dtype, ulps), (g, float(w))


def _single(x: float, dtype: str) -> Fraction:
    """A number as an op on `dtype` takes it."""
    return Fraction(x if dtype == "float64" else float(np.float32(x)))


# Division


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("number", [3.7, -0.3, 255.0, 1e-3, 4.0, 1 / 3])
def test_division_by_a_number_is_a_product_within_one_and_a_half_ulp(dtype: str, number: float) -> None:
    x = lohe.randn(9, 101).to(getattr(lohe, dtype))
    got, rewrites = _inexact(lambda x: x / number, x)
    assert rewrites == {"reciprocals": 1, "fmas": 0, "roundings": 0}
    c = _single(number, dtype)
    _assert_within(got, [Fraction(v) / c for v in _values(x)], dtype, 1.5)


def test_a_division_may_round_differently_only_where_that_is_asked_for() -> None:
    x = lohe.randn(1000)
    got, _ = _inexact(lambda x: x / 3.7, x)
    assert _bits(got) != _bits(x / 3.7)
    exact = lohe.compile(lambda x: x / 3.7)
    for _ in range(3):
        assert _bits(exact(x)) == _bits(x / 3.7)
    assert lohe.compile_report(exact).programs[0]["exact"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("where", ["column", "maximum of the row", "number of no dims"])
def test_division_by_what_stays_along_the_innermost_loop(dtype: str, where: str) -> None:
    x = lohe.randn(30, 77).to(getattr(lohe, dtype))
    column = (lohe.rand(30, 1) + 0.1).to(x.dtype)
    function, divisors = {
        "column": (lambda x, c: x / c, column),
        "maximum of the row": (lambda x, c: x / x.amax(-1, keepdim=True), x.amax(-1, keepdim=True)),
        "number of no dims": (lambda x, c: x / c[0, 0], column[:1]),
    }[where]
    got, rewrites = _inexact(function, x, column)
    assert rewrites["reciprocals"] == 1
    by = np.broadcast_to(divisors.to(lohe.float64).numpy(), (30, 77)).reshape(-1)
    _assert_within(got, [Fraction(v) / Fraction(float(c)) for v, c in zip(_values(x), by, strict=True)], dtype, 1.5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_two_divisions_by_one_changing_value_share_a_reciprocal(dtype: str) -> None:
    x, y, c = ((lohe.randn(20, 51)).to(getattr(lohe, dtype)) for _ in range(3))
    (p, q), rewrites = _inexact(lambda x, y, c: (x / c, y / c), x, y, c)
    assert rewrites["reciprocals"] == 2
    for got, over in ((p, x), (q, y)):
        _assert_within(got, [Fraction(a) / Fraction(b) for a, b in zip(_values(over), _values(c), strict=True)], dtype, 1.5)


def test_one_division_by_a_changing_value_stays_as_it_is() -> None:
    x, y = lohe.randn(20, 50), lohe.randn(20, 50)
    got, rewrites = _inexact(lambda x, y: x / y, x, y)
    assert rewrites["reciprocals"] == 0 and _bits(got) == _bits(x / y)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("form", ["number", "column", "shared"])
def test_division_keeps_its_bound_at_the_ends_of_the_range(dtype: str, form: str) -> None:
    """Divisors with a reciprocal that is infinite, denormal or zero; zeros, infinities, NaN and denormals."""
    kind = np.dtype(dtype).type
    info = np.finfo(kind)
    tiny, least, most = float(info.tiny), float(info.smallest_subnormal), float(info.max)
    divisors = [0.0, -0.0, least, -3 * least, tiny / 3, tiny, 1.0, -3.0, most / 8, most / 3, -most, math.inf, -math.inf, math.nan]
    numerators = [*divisors, 5 * least, tiny * 1.7, 1e-3, 17.0, most * 0.9]
    x = lohe.tensor(numerators, dtype=getattr(lohe, dtype))
    for c in divisors:
        if form == "number":
            got, _ = _inexact(lambda x, c=c: x / c, x)
        elif form == "column":
            got, _ = _inexact(lambda x, c: x / c, lohe.stack([x, x]), lohe.full((2, 1), c, dtype=x.dtype))
            got = got[1]
        else:
            (got, _), _ = _inexact(lambda x, c: (x / c, c / c), x, lohe.full(x.shape, c, dtype=x.dtype))
        with np.errstate(all="ignore"):
            eager = kind(numerators) / kind(c)
        for g, e, n in zip(_values(got), eager, numerators, strict=True):
            if not (math.isfinite(e) and math.isfinite(n) and math.isfinite(c)):
                assert g == e or (math.isnan(g) and math.isnan(e)), (n, c, g, e)
                assert math.isnan(e) or math.copysign(1, g) == math.copysign(1, e)
            else:
                want = Fraction(float(kind(n))) / Fraction(float(kind(c)))
                assert abs(Fraction(g) - want) <= _bound(want, dtype, 1.5), (n, c, g, e)
                assert math.copysign(1, g) == math.copysign(1, e)


# Products and sums

SUMS: dict[str, tuple[Callable[..., Any], Callable[..., Fraction]]] = {
    "a * b + c": (lambda a, b, c: a * b + c, lambda a, b, c: a * b + c),
    "c + a * b": (lambda a, b, c: c + a * b, lambda a, b, c: a * b + c),
    "a * b - c": (lambda a, b, c: a * b - c, lambda a, b, c: a * b - c),
    "c - a * b": (lambda a, b, c: c - a * b, lambda a, b, c: c - a * b),
    "square of a + c": (lambda a, b, c: a.square() + c, lambda a, b, c: a * a + c),
    "add with a factor": (lambda a, b, c: lohe.add(c, a, alpha=0.375), lambda a, b, c: c + a * Fraction(0.375)),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SUMS)
def test_a_product_and_a_sum_round_once(name: str, dtype: str) -> None:
    function, exact = SUMS[name]
    tensors = [lohe.randn(7, 93).to(getattr(lohe, dtype)) for _ in range(3)]
    got, rewrites = _inexact(function, *tensors)
    assert rewrites["fmas"] == 1 and rewrites["reciprocals"] == 0
    operands = [[Fraction(v) for v in _values(t)] for t in tensors]
    _assert_within(got, [exact(*v) for v in zip(*operands, strict=True)], dtype, 0.5)


def test_a_fused_product_keeps_what_its_rounding_would_lose() -> None:
    a, c = lohe.full((33,), 1 + 2.0**-12), lohe.full((33,), -1 - 2.0**-11)
    got, _ = _inexact(lambda a, c: a * a + c, a, c)
    assert (a * a + c).tolist() == [0.0] * 33 and got.tolist() == [2.0**-24] * 33


def test_a_product_that_others_read_is_not_fused() -> None:
    a, b, c = (lohe.randn(5, 40) for _ in range(3))
    for function in (lambda p, c: (p + c, p), lambda p, c: (c + p, p.amax(-1))):
        got, _ = _inexact(lambda a, b, c, f=function: f(a * b, c), a, b, c)
        assert [_bits(t) for t in got] == [_bits(t) for t in function(a * b, c)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_special_values_of_products_and_sums(dtype: str) -> None:
    """As eager, where the product alone does not overflow."""
    special = [0.0, -0.0, 1.0, -2.5, math.inf, -math.inf, math.nan]
    a, b, c = (lohe.tensor(v, dtype=getattr(lohe, dtype)) for v in zip(*itertools.product(special, repeat=3), strict=True))
    for function, _ in SUMS.values():
        got, _ = _inexact(function, a, b, c)
        for g, e in zip(_values(got), _values(function(a, b, c)), strict=True):
            assert (math.isnan(g) and math.isnan(e)) or (g == e and math.copysign(1, g) == math.copysign(1, e))


def test_a_product_that_overflows_alone_may_give_a_finite_sum() -> None:
    a, c = lohe.full((9,), 2.0**127), lohe.full((9,), -(2.0**127))
    got, _ = _inexact(lambda a, c: a * 2 + c, a, c)
    assert got.tolist() == [2.0**127] * 9 and (a * 2 + c).tolist() == [math.inf] * 9


# Roundings of half types


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types_round_once_at_the_end_of_a_kernel(dtype: str) -> None:
    def chain(x: Any) -> Any:
        return ((x * 1.1) * 1.3) * 0.7

    x = lohe.randn(13, 200).to(getattr(lohe, dtype))
    got, rewrites = _inexact(chain, x)
    assert rewrites == {"reciprocals": 0, "fmas": 0, "roundings": 2}
    once = chain(x.to(lohe.float32)).to(x.dtype)
    assert _bits(got) == _bits(once) and _bits(got) != _bits(chain(x))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_what_is_kept_is_rounded_and_what_is_computed_from_it_is_not(dtype: str) -> None:
    x = lohe.randn(13, 200).to(getattr(lohe, dtype))
    (y, z), rewrites = _inexact(lambda x: (lambda y: (y, y * 1.3))(x * 1.1), x)
    assert rewrites["roundings"] == 1
    assert _bits(y) == _bits(x * 1.1) and _bits(z) == _bits((x.to(lohe.float32) * 1.1 * 1.3).to(x.dtype))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_comparisons_and_whole_numbers_read_rounded_values(dtype: str) -> None:
    x = lohe.randn(50, 300).to(getattr(lohe, dtype))

    def hits(x: Any) -> Any:
        y = x * 1.1
        return (y == y.amax(-1, keepdim=True)).sum(-1), (y * 4).floor(), y.argmax(-1), (y * 8).to(lohe.int32)

    got, _ = _inexact(hits, x)
    wide = x.to(lohe.float32) * 1.1
    assert all(v >= 1 for v in got[0].tolist())
    for g, w in zip(got[:1] + got[2:3], hits(x)[:1] + hits(x)[2:3], strict=True):
        assert _bits(g) == _bits(w)
    assert _bits(got[1]) == _bits((wide * 4).to(x.dtype).floor())
    assert _bits(got[3]) == _bits((wide * 8).to(x.dtype).to(lohe.int32))


def test_a_float16_intermediate_may_pass_its_range() -> None:
    x = lohe.full((40,), 256.0, dtype=lohe.float16)
    got, _ = _inexact(lambda x: x * x * 2.0**-4, x)
    assert got.tolist() == [4096.0] * 40 and (x * x * 2.0**-4).tolist() == [math.inf] * 40
    stored, _ = _inexact(lambda x: x * x * 2, x)
    assert stored.tolist() == [math.inf] * 40


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_special_values_of_half_types(dtype: str) -> None:
    info = lohe.finfo(getattr(lohe, dtype))
    x = lohe.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, info.tiny, -info.tiny / 4, info.max], dtype=getattr(lohe, dtype))
    got, _ = _inexact(lambda x: x * 0.5 * 1.5 - x, x)
    for g, v in zip(_values(got), _values(x), strict=True):
        if math.isfinite(v):
            assert abs(Fraction(g) - Fraction(v) * Fraction(-0.25)) <= _bound(Fraction(v) / 4, dtype, 1)
        else:
            assert math.isnan(g)


# Scopes


def _rewritten(compiled: Callable[..., Any]) -> bool:
    return not lohe.compile_report(compiled).programs[0]["exact"]


def test_the_outermost_setting_holds() -> None:
    x = lohe.randn(500)
    want = x / 3.7 + 1
    inner_inexact = lohe.compile(lambda x: x / 3.7, options=INEXACT)
    outer = lohe.compile(lambda x: inner_inexact(x) + 1)
    for _ in range(3):
        assert _bits(outer(x)) == _bits(want)
    assert not _rewritten(outer)
    inner_exact = lohe.compile(lambda x: x / 3.7)
    outer = lohe.compile(lambda x: inner_exact(x) + 1, options=INEXACT)
    for _ in range(3):
        got = outer(x)
    assert _rewritten(outer) and _bits(got) != _bits(want)
    for _ in range(3):
        assert _bits(inner_exact(x)) == _bits(x / 3.7)


@pytest.mark.parametrize("exact_outside", [True, False])
def test_a_disabled_function_between_two_settings_keeps_both(exact_outside: bool) -> None:
    x = lohe.randn(500)
    inner = lohe.compile(lambda x: x / 3.7, options={"exact": not exact_outside})

    @lohe.compiler.disable
    def between(x: Any) -> Any:
        return inner(x), x / 1.3

    def f(x: Any) -> Any:
        before = x / 2.9
        return (before, *between(x), x / 5.3)

    outer = lohe.compile(f, options={"exact": exact_outside})
    wants = [_bits(t) for t in (x / 2.9, x / 3.7, x / 1.3, x / 5.3)]
    for _ in range(4):
        got = [_bits(t) for t in outer(x)]
    same = [g == w for g, w in zip(got, wants, strict=True)]
    assert same == ([True, False, True, True] if exact_outside else [False, True, True, False])


def test_one_trace_has_a_program_for_each_setting() -> None:
    x = lohe.randn(500)

    def f(x: Any) -> Any:
        return x / 3.7

    exact, inexact = lohe.compile(f), lohe.compile(f, options=INEXACT)
    for _ in range(4):
        a, b = exact(x), inexact(x)
    assert _bits(a) == _bits(f(x)) and _bits(b) != _bits(f(x))
    assert not _rewritten(exact) and _rewritten(inexact)
    assert "inexact: 1 divisions as products" in repr(lohe.compile_report(inexact))
    assert "inexact" not in repr(lohe.compile_report(exact))


def test_a_block_may_be_inexact() -> None:
    x = lohe.randn(500)
    for _ in range(3):
        with lohe.compiler.lazy(exact=False):
            y = x / 3.7
        with lohe.compiler.lazy():
            z = x / 3.7
    assert _bits(y) != _bits(z) and _bits(z) == _bits(x / 3.7)


@pytest.mark.parametrize("exact", [True, False])
def test_the_backward_pass_of_a_compiled_model_is_as_its_forward_pass(exact: bool) -> None:
    x = lohe.randn(64, 50)

    def gradient(f: Callable[..., Any]) -> bytes:
        leaf = x.clone().requires_grad_()
        f(leaf).sum().backward()
        return _bits(leaf.grad)

    def f(x: Any) -> Any:
        return (x / 3.7).tanh() / 1.9

    compiled = lohe.compile(f, options={"exact": exact})
    want = gradient(f)
    for _ in range(3):
        got = gradient(compiled)
    assert (got == want) == exact
    assert gradient(f) == want


@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("backward", [True, False])
def test_what_is_computed_again_is_exact_where_its_forward_pass_was(forward: bool, backward: bool) -> None:
    """A polynomial's intermediate results are left to the backward pass, which may be of the other kind."""
    x, w = lohe.randn(1024, 512), lohe.randn(1024, 512)

    def f(x: Any, w: Any) -> Any:
        return ((0.2 * x - w) * x + 0.3) * x - w * 0.7

    leaf = x.clone().requires_grad_()
    plain = f(leaf, w)
    (want,) = lohe.autograd.grad(plain.sum(), leaf)
    there = lohe.compile(f, options={"exact": forward})
    back = lohe.compile(lambda y, x: lohe.autograd.grad(y, x), options={"exact": backward})
    for _ in range(4):
        y = there(leaf, w)
        (got,) = back(y.sum(), leaf)
        assert not forward or _bits(y) == _bits(plain)
        assert not (forward and backward) or _bits(got) == _bits(want)
    assert (got - want).abs().max().item() <= 2e-5


def test_maxima_are_found_again_by_the_backward_pass() -> None:
    x, w = lohe.randn(1024, 512), lohe.randn(1024, 512)

    def f(x: Any, w: Any) -> Any:
        y = x * w + 0.3
        return (y.amax(-1), (y * w).sum(-1))

    leaf = x.clone().requires_grad_()
    (want,) = lohe.autograd.grad(f(leaf, w)[0].sum(), leaf)
    compiled = lohe.compile(f, options=INEXACT)
    for _ in range(4):
        (got,) = lohe.autograd.grad(compiled(leaf, w)[0].sum(), leaf)
        assert (got != 0).sum(-1).tolist() == [1] * 1024 and (got - want).abs().max().item() < 1e-5


def test_options_are_checked() -> None:
    for wrong in (1, None, "no"):
        with pytest.raises(RuntimeError, match="should be bool"):
            lohe.compile(lambda x: x, options={"exact": wrong})
    with pytest.raises(RuntimeError, match="known options are"):
        lohe.compile(lambda x: x, options={"fast": True})
    assert _C._record_counts()["traces"] >= 0


# Programs


def test_training_inexactly_comes_out_close() -> None:
    x, y = lohe.randn(16, 12), lohe.randint(0, 5, (16,))

    def train(**options: Any) -> list[float]:
        lohe.manual_seed(1)
        model = nn.Sequential(nn.Linear(12, 24), nn.GELU(), nn.LayerNorm(24), nn.Linear(24, 5))
        opt = lohe.optim.AdamW(model.parameters(), lr=0.01)

        @lohe.compile(**options)
        def step() -> Any:
            opt.zero_grad()
            loss = nn.functional.cross_entropy(model(x) / 1.7, y)
            loss.backward()
            opt.step()
            return loss

        return [step().item() for _ in range(10)]

    plain, got = train(disable=True), train(options=INEXACT)
    assert got != plain and max(abs(a - b) for a, b in zip(plain, got, strict=True)) < 1e-5


class _Program:
    """A random program of smooth functions, sums over rows and divisions; the same seed makes the same calls."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __call__(self, *inputs: Any) -> tuple[Any, ...]:
        rng = random.Random(self._seed)
        values = list(inputs)
        for _ in range(rng.randint(3, 14)):
            x, y, z = (rng.choice(values) for _ in range(3))
            c = rng.choice([0.3, 1.7, -2.9, 5.0, 12.0])
            values.append(
                rng.choice(
                    [
                        lambda: x * y + z,
                        lambda: z - x * y,
                        lambda: x / c,
                        lambda: x / (1 + y.square()) + z / (1 + y.square()),
                        lambda: x / (1 + y.square().mean(-1, keepdim=True)),
                        lambda: x - x.mean(-1, keepdim=True),
                        lambda: x / (x.square().sum(-1, keepdim=True) + 1).sqrt(),
                        lambda: x.tanh() * y + c,
                        lambda: lohe.sigmoid(x) * y,
                        lambda: lohe.softmax(x, -1) * c,
                        lambda: (x.tanh() / c).exp(),
                        lambda: x.square() * 0.1 - y.cos(),
                        lambda: lohe.add(x, y, alpha=0.7).tanh(),
                    ]
                )()
            )
        return tuple(values[-2:])


def _errors(run: Callable[..., Any], references: list[Any]) -> list[float]:
    """The largest difference of each result from its reference."""
    return [(r.detach().to(lohe.float64) - w).abs().max().item() for r, w in zip(run(), references, strict=True)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("first", range(0, 60, 20))
def test_random_programs_are_about_as_near_to_float64_as_eager_ones(dtype: str, first: int) -> None:
    digits = FORMATS[dtype][0]
    rewritten = 0
    for seed in range(first, first + 20):
        program = _Program(seed)
        lohe.manual_seed(seed)
        shape = random.Random(seed).choice([(37,), (5, 64), (30, 33), (4, 3, 20)])
        inputs = [lohe.randn(*shape).to(getattr(lohe, dtype)) for _ in range(3)]
        compiled = lohe.compile(program, options=INEXACT)

        def gradients(f: Callable[..., Any], kind: Any, inputs: list[Any] = inputs) -> list[Any]:
            leaves = [t.detach().to(kind).requires_grad_() for t in inputs]
            results = f(*leaves)
            sum(r.sum() for r in results).backward()
            return [*results, *(leaf.grad for leaf in leaves if leaf.grad is not None)]

        references = [t.detach() for t in gradients(program, lohe.float64)]
        kind = getattr(lohe, dtype)
        eager = _errors(lambda: gradients(program, kind), references)  # noqa: B023
        for _ in range(3):
            got = _errors(lambda: gradients(compiled, kind), references)  # noqa: B023
        for g, e, w in zip(got, eager, references, strict=True):
            scale = max(w.abs().max().item(), 1.0)
            assert g <= 4 * e + 16 * scale * 2.0**-digits, (seed, g, e, scale)
        rewritten += sum(sum(s["rewrites"].values()) for p in lohe.compile_report(compiled).programs for s in p["steps"])
    assert rewritten > 20
