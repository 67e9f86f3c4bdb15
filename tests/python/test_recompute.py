"""What backward of a compiled function computes again instead of keeping: with eager's values, whatever happens in between."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import lohe
import pytest


def polynomial(x: lohe.Tensor) -> lohe.Tensor:
    return ((x * 0.5 - 1) * x + 2) * x


def compiled_polynomial() -> Callable[[lohe.Tensor], lohe.Tensor]:
    """Compiled already, so that intermediate results are left out."""
    f = lohe.compile(polynomial)
    for _ in range(3):
        f(lohe.randn(512, 512, requires_grad=True)).sum().backward()
    return f


def eager_gradient(x: lohe.Tensor) -> lohe.Tensor:
    copy = x.detach().clone().requires_grad_()
    polynomial(copy).sum().backward()
    return copy.grad


@pytest.fixture
def held() -> Callable[[], int]:
    def bytes_now() -> int:
        gc.collect()
        return lohe.cpu.memory_stats()["allocated_bytes"]

    return bytes_now


def test_intermediate_results_are_not_kept(held: Callable[[], int]) -> None:
    f = compiled_polynomial()
    x = lohe.randn(512, 512, requires_grad=True)
    before = held()
    y = f(x)
    assert held() - before < 1.5 * y.nbytes  # the result alone; eager keeps two more
    y.sum().backward()
    assert lohe.equal(x.grad, eager_gradient(x))


def test_a_write_to_a_factor_in_between_changes_nothing_that_was_computed() -> None:
    def f(x: lohe.Tensor, scale: lohe.Tensor) -> lohe.Tensor:
        return (x + scale).square() * 3  # square keeps x + scale, which comes from both

    compiled = lohe.compile(f)
    scale = lohe.ones(512, 512)
    for _ in range(3):
        compiled(lohe.randn(512, 512, requires_grad=True), scale).sum().backward()
    for change in (
        lambda: scale.add_(5),
        lambda: scale.numpy().fill(9),
        lambda: scale.__setitem__(0, 2.0),
        lambda: lohe.mul(scale, 2, out=scale),
        lambda: lohe.nn.init.zeros_(scale),
    ):
        scale = lohe.ones(512, 512)
        x = lohe.randn(512, 512, requires_grad=True)
        y = compiled(x, scale)
        change()
        y.sum().backward()
        assert lohe.equal(x.grad, ((x + 1) * 2 * 3).detach())


def test_backward_twice_and_in_any_order() -> None:
    f = compiled_polynomial()
    x, z = (lohe.randn(512, 512, requires_grad=True) for _ in range(2))
    y, w = f(x), f(z)
    w.sum().backward(retain_graph=True)
    y.sum().backward(retain_graph=True)
    y.sum().backward()
    w.sum().backward()
    assert lohe.equal(x.grad, 2 * eager_gradient(x))
    assert lohe.equal(z.grad, 2 * eager_gradient(z))


def test_second_derivatives() -> None:
    f = compiled_polynomial()

    def second(function: Callable[[lohe.Tensor], lohe.Tensor], x: lohe.Tensor) -> lohe.Tensor:
        (g,) = lohe.autograd.grad(function(x).sum(), x, create_graph=True)
        return lohe.autograd.grad(g.square().sum(), x)[0]

    x = lohe.randn(512, 512, requires_grad=True)
    for _ in range(3):
        assert lohe.equal(second(f, x), second(polynomial, x))


def test_a_graph_that_is_never_used_holds_nothing(held: Callable[[], int]) -> None:
    f = compiled_polynomial()
    x = lohe.randn(512, 512, requires_grad=True)
    f(x)
    before = held()
    for _ in range(20):
        f(x)
    assert held() - before < x.nbytes


def test_graphs_with_casts_are_freed(held: Callable[[], int]) -> None:
    def f(x: lohe.Tensor, w: lohe.Tensor) -> lohe.Tensor:
        return (x.float() * w).to(x.dtype) * w

    compiled = lohe.compile(f)
    x, w = lohe.randn(512, 512).bfloat16().requires_grad_(), lohe.randn(512).requires_grad_()

    def step() -> None:
        x.grad = w.grad = None
        compiled(x, w).sum().backward()

    for _ in range(4):
        step()
    before = held()
    for _ in range(10):
        step()
    assert held() - before < x.nbytes  # a graph holds more than that


def test_the_argument_may_be_let_go() -> None:
    f = compiled_polynomial()
    leaf = lohe.randn(512, 512, requires_grad=True)
    y = f(leaf * 1)
    gc.collect()
    junk = [lohe.full((512, 512), float("nan")) for _ in range(4)]
    y.sum().backward()
    del junk
    assert lohe.equal(leaf.grad, eager_gradient(leaf))


def test_eager_backward_and_hooks_read_what_was_left_out() -> None:
    f = compiled_polynomial()
    x = lohe.randn(512, 512, requires_grad=True)
    y = f(x)
    seen = []
    y.register_hook(lambda g: seen.append(g.sum().item()))
    y.sum().backward()
    assert seen == [512 * 512]
    assert lohe.equal(x.grad, eager_gradient(x))


def test_two_threads_go_backward_through_one_graph() -> None:
    f = compiled_polynomial()
    for _ in range(20):
        x = lohe.randn(512, 512, requires_grad=True)
        y = f(x).sum()
        grads: list[lohe.Tensor] = []

        def backward(y: lohe.Tensor = y, x: lohe.Tensor = x, grads: list[lohe.Tensor] = grads) -> None:
            grads.append(lohe.autograd.grad(y, x, retain_graph=True)[0])

        threads = [threading.Thread(target=backward) for _ in range(3)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        want = eager_gradient(x)
        assert len(grads) == 3
        assert all(lohe.equal(g, want) for g in grads)


def test_random_numbers_and_checks_are_never_repeated() -> None:
    def f(x: lohe.Tensor) -> lohe.Tensor:
        return (lohe.nn.functional.dropout(x, 0.5) * 2).square()

    compiled = lohe.compile(f)
    for i in range(4):
        x = lohe.randn(512, 512, requires_grad=True)
        lohe.manual_seed(i)
        compiled(x).sum().backward()
        y = x.detach().clone().requires_grad_()
        lohe.manual_seed(i)
        f(y).sum().backward()
        assert lohe.equal(x.grad, y.grad)


POLICY = """
import lohe as torch

def loss(x, old, gain):
    ratio = torch.exp(x - old)
    return -torch.min(ratio * gain, ratio.clamp(0.8, 1.2) * gain).mean()

f = torch.compile(loss)
for _ in range(4):
    x = torch.randn(512, 512, requires_grad=True)
    f(x, torch.randn(512, 512), torch.randn(512, 512)).backward()
"""


@pytest.mark.eager
def test_what_several_kept_values_have_in_common_is_computed_once(tmp_path: Path) -> None:
    environment = {**os.environ, "LOHE_DUMP_IR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", POLICY], check=True, env=environment)
    graphs = [p.read_text().split("kernel ")[0] for p in tmp_path.glob("*fused*.kernel")]
    backward = [g for g in graphs if " select " in g]
    assert len(backward) == 1
    assert backward[0].count(" exp ") == 1


def test_numbers_of_different_calls_stay_apart() -> None:
    def scaled(x: lohe.Tensor, factor: float) -> lohe.Tensor:
        return lohe.exp(x * factor).square() * lohe.exp(x * factor)

    f = lohe.compile(scaled)
    for _ in range(3):
        f(lohe.randn(512, 512, requires_grad=True), 0.5).sum().backward()
    x, y = (lohe.randn(512, 512, requires_grad=True) for _ in range(2))
    for _ in range(3):
        x.grad = y.grad = None
        (f(x, 0.25) + f(x, 0.75) + f(y, 0.25)).sum().backward()
        copies = [t.detach().clone().requires_grad_() for t in (x, y)]
        (scaled(copies[0], 0.25) + scaled(copies[0], 0.75) + scaled(copies[1], 0.25)).sum().backward()
        assert lohe.equal(x.grad, copies[0].grad)
        assert lohe.equal(y.grad, copies[1].grad)


def test_backward_of_a_backward_that_computes_again() -> None:
    def g(x: lohe.Tensor) -> lohe.Tensor:
        return (lohe.exp(x * 0.5) * (x * 0.25 + 1)).square()

    f = lohe.compile(g)
    for _ in range(4):
        x = lohe.randn(512, 512, requires_grad=True)
        (first,) = lohe.autograd.grad(f(x).sum(), x, create_graph=True)
        (second,) = lohe.autograd.grad((first * x).sum(), x)
        copy = x.detach().clone().requires_grad_()
        (expected,) = lohe.autograd.grad(g(copy).sum(), copy, create_graph=True)
        assert lohe.equal(first, expected)
        assert lohe.equal(second, lohe.autograd.grad((expected * copy).sum(), copy)[0])
