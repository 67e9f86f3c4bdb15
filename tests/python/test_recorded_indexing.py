"""Indexing by numbers, and writes through indices, are part of a trace: the program is not cut, the bits are eager's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lohe
import pytest
from replay_checks import fresh_compiler  # noqa: F401

pytestmark = pytest.mark.eager  # they record by themselves

I = lohe.tensor([0, 3, 1])  # noqa: E741
J = lohe.tensor([[1], [2], [-1]])


def _gradient(f: Callable[[Any], Any], x: lohe.Tensor) -> Any:
    x = x.clone().requires_grad_()
    y = f(x * 2)
    (y * y).sum().backward()
    return x.grad


def _written(write: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def work(x: lohe.Tensor) -> Any:
        y = x * 2
        write(y)
        return y + 1

    return work


def _put(y: lohe.Tensor) -> None:
    y[I] = y[I + 1] * 0.5
    y[:, J] += 1
    y[:3, None][:, 0, I] *= 2
    y[I, J[:, 0]] = 4


FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "index": lambda x: ((x * 2)[I] + 1, (x * 2)[J, I] + 1, (x * 2)[:, None, J] * 3, (x * 2).t()[J[:2, 0]]),
    "int32 index": lambda x: (x * 2)[I.int()] + 1,
    "index of nothing": lambda x: (x * 2)[lohe.zeros(0, dtype=lohe.int64)] + 1,
    "index of what is computed": lambda x: (x * 2)[(x[:, 0] > 0).long().cumsum(0) % 3] + 1,
    "take": lambda x: (x * 2).take(J) + 1,
    "gather": lambda x: (x * 2).gather(1, J % 5) + 1,
    "gradient of index": lambda x: _gradient(lambda y: y[I, :2] + y[:3, I[:2]], x),
    "gradient of equal indices": lambda x: _gradient(lambda y: y[I * 0 + 2], x),
    "gradient of index_select": lambda x: _gradient(lambda y: y.index_select(1, I), x),
    "gradient of gather": lambda x: _gradient(lambda y: y.gather(0, J % 4), x),
    "gradient of take": lambda x: _gradient(lambda y: y.take(J), x),
    "gradient of index_put": lambda x: _gradient(lambda y: lohe.index_put(y * 3, (I,), y[:3] * y[1:4]), x),
    "index_put_": _written(_put),
    "scatter_": _written(lambda y: y.scatter_(1, J % 5, 1.5).scatter_(0, J % 4, y[:3, :1] * 2)),
    "scatter_ that reduces": _written(lambda y: y.scatter_(1, J % 5, 2.0, reduce="multiply")),
    "scatter_add_": _written(lambda y: y.scatter_add_(0, J % 4, lohe.ones(3, 1))),
    "scatter_reduce_": _written(
        lambda y: [
            y.scatter_reduce_(1, J % 5, lohe.ones(3, 1) * 3, how)
            for how in ("sum", "prod", "mean", "amax", "amin")
        ]
    ),
    "scatter_reduce": lambda x: (
        (x * 2).scatter_reduce(1, J % 5, lohe.ones(3, 1), "mean", include_self=False) + 1
    ),
    "index_add_": _written(lambda y: y.index_add_(0, I, y[:3].clone(), alpha=0.5)),
    "index_copy_": _written(lambda y: y.index_copy_(1, I, y[:, 1:4].clone())),
    "index_fill_": _written(
        lambda y: (y.index_fill_(0, I[:1], 3.0), y.index_fill_(1, I[:2], lohe.tensor(2.0)))
    ),
    "put_": _written(lambda y: y.put_(J, lohe.ones(3, 1) * 9).put_(I, lohe.ones(3), accumulate=True)),
    "masked_scatter_": _written(lambda y: y.masked_scatter_(y > 0, lohe.arange(30.0))),
    "a view that is written": _written(
        lambda y: y.t()[I].add_(1) + y.view(-1).index_fill_(0, I, 0.0)[:3, None]
    ),
    "halves": lambda x: _gradient(lambda y: y[I] * 2, x.bfloat16()),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("replay", [False, True])
def test_compiled_calls_have_eager_bits_in_one_program(name: str, replay: bool) -> None:
    function = FUNCTIONS[name]
    compiled = lohe.compile(function, replay=replay)
    before = lohe._C._record_counts()["traces"]
    for call in range(6):
        x = lohe.randn(5, 5)
        want, got = function(x), compiled(x)
        for w, g in zip(*((v if isinstance(v, tuple) else (v,)) for v in (want, got)), strict=True):
            assert w.dtype == g.dtype and w.shape == g.shape and w.stride() == g.stride(), call
            assert lohe.equal(w, g), call
    traces = lohe._C._record_counts()["traces"] - before
    assert traces == (3 if replay and lohe.compile_report(compiled).replay["replayed"] else 6)


@pytest.mark.parametrize(
    ("function", "error"),
    [
        (lambda x: x[lohe.tensor([0, 7])], IndexError),
        (lambda x: x.index_put_((lohe.tensor([9]),), lohe.zeros(())), IndexError),
        (lambda x: x.scatter_(0, lohe.full((1, 1), 8), 1.0), RuntimeError),
        (lambda x: x.index_add_(0, lohe.tensor([-6]), lohe.ones(1, 4)), RuntimeError),
        (lambda x: x.index_fill_(0, lohe.tensor([5]), 0.0), IndexError),
        (lambda x: x.take(lohe.tensor([99])), IndexError),
        (lambda x: x.put_(lohe.tensor([99]), lohe.ones(1)), IndexError),
        (lambda x: x.masked_scatter_(x > -100, lohe.ones(2)), RuntimeError),
    ],
)
def test_an_index_out_of_range_raises_and_leaves_what_came_before(function: Any, error: Any) -> None:
    def work(x: lohe.Tensor, y: lohe.Tensor) -> Any:
        y.add_(1)
        function(x)
        y.mul_(2)
        return y

    compiled = lohe.compile(work)
    for calls in range(1, 5):
        x = lohe.randn(5, 4)
        kept, y = x.clone(), lohe.zeros(3)
        with pytest.raises(error, match=r"out of (bounds|range)|Number of elements"):
            compiled(x, y)
        assert lohe.equal(x, kept) and y.tolist() == [1, 1, 1], calls
    with pytest.raises(error):
        function(lohe.randn(5, 4))


@pytest.mark.parametrize(
    ("function", "error"),
    [
        (lambda x: x[lohe.tensor([0, 1]), lohe.tensor([0, 1, 2])], IndexError),
        (lambda x: x[lohe.tensor([0.0])], IndexError),
        (lambda x: lohe.zeros(0, 4)[lohe.tensor([0])], IndexError),
        (lambda x: x.index_put_((lohe.tensor([0]),), lohe.zeros(7)), RuntimeError),
        (lambda x: x.index_put_((lohe.tensor([0]),), lohe.zeros((), dtype=lohe.float64)), RuntimeError),
        (lambda x: x.scatter_(0, lohe.zeros(9, 9, dtype=lohe.int64), x), RuntimeError),
        (lambda x: x.scatter_add_(0, lohe.zeros(2, 2, dtype=lohe.int64), x), RuntimeError),
        (lambda x: x.index_copy_(0, lohe.tensor([0]), lohe.ones(1, 3)), RuntimeError),
        (lambda x: x.expand(2, 5, 4).index_fill_(0, lohe.tensor([0]), 1.0), RuntimeError),
        (
            lambda x: x.bool().scatter_reduce_(0, lohe.tensor([[0]]), lohe.ones(1, 1).bool(), "mean"),
            NotImplementedError,
        ),
    ],
)
def test_what_shapes_and_dtypes_tell_raises_at_its_line(function: Any, error: Any) -> None:
    reached = []

    def work(x: lohe.Tensor) -> None:
        y = x * 2
        with pytest.raises(error):
            function(y)
        reached.append(lohe.equal(y, x * 2))

    for _ in range(3):
        lohe.compile(work)(lohe.randn(5, 4))
    assert reached == [True] * 3


def test_a_mask_cuts_the_trace_and_gives_what_it_gives() -> None:
    def work(x: lohe.Tensor) -> Any:
        y = x * 2
        y[y > 1] = 0
        return y[y < 0] + 1

    compiled = lohe.compile(work)
    for _ in range(4):
        x = lohe.randn(6, 5)
        assert lohe.equal(compiled(x), work(x))
