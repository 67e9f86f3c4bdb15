"""Views and in-place writes under autograd, against PyTorch: random programs, and the cases that have bitten elsewhere.

A program is a list of steps over a growing list of tensors; it runs in both frameworks with the same numbers. Where PyTorch
raises, Lohe must raise too, at the same step.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import lohe
import pytest

Program = list[tuple[str, tuple[Any, ...]]]


def _view_choices(shape: tuple[int, ...], rng: random.Random) -> list[tuple[str, tuple[Any, ...]]]:
    """Views that a tensor of this shape has."""
    choices: list[tuple[str, tuple[Any, ...]]] = [("alias", ()), ("detach", ()), ("unsqueeze", (rng.randint(0, len(shape)),))]
    if len(shape) >= 2:
        choices.append(("transpose", tuple(rng.sample(range(len(shape)), 2))))
        choices.append(("diagonal", (rng.randint(-1, 1),)))
        choices.append(("flatten", ()))
    if shape:
        dim = rng.randrange(len(shape))
        size = shape[dim]
        if size:
            choices.append(("select", (dim, rng.randrange(size))))
            start = rng.randrange(size)
            choices.append(("slice", (dim, start, rng.randint(start + 1, size), rng.randint(1, 2))))
            choices.append(("split", (dim, rng.randint(1, size), 0)))
            window = rng.randint(1, size)  # windows side by side: Lohe refuses to write ones that overlap
            choices.append(("unfold", (dim, window, window)))
        choices.append(("expand", (rng.randint(2, 3),)))
        choices.append(("view", ()))
        choices.append(("squeeze", ()))
    return choices


def _apply_view(t: Any, name: str, args: tuple[Any, ...]) -> Any:
    if name == "alias":
        return t[...]
    if name == "slice":
        dim, start, end, step = args
        return t[(slice(None),) * dim + (slice(start, end, step),)]
    if name == "split":
        return t.split(args[1], args[0])[args[2]]
    if name == "expand":
        return t.expand(args[0], *t.shape)
    if name == "view":
        return t.view(-1)
    return getattr(t, name)(*args)


WRITES: dict[str, Callable[[Any, Any], Any]] = {
    "mul_number": lambda t, other: t.mul_(1.5),
    "add_number": lambda t, other: t.add_(0.25),
    "add": lambda t, other: t.add_(other),
    "mul": lambda t, other: t.mul_(other),
    "copy": lambda t, other: t.copy_(other),
    "zero": lambda t, other: t.zero_(),
    "square": lambda t, other: t.mul_(t),
}


class Machine:
    """One framework's tensors while a program runs."""

    def __init__(self, framework: Any, make: Callable[[list[float], tuple[int, ...]], Any]):
        self.framework = framework
        # Leaves with memory of their own: where a leaf is a view, PyTorch 2.13 may lose its gradient (see the test below).
        x, w = make([0.1 * i - 0.7 for i in range(24)], (2, 3, 4)).clone(), make([0.3, -0.5, 0.9, 1.1], (4,)).clone()
        x.requires_grad_(True)
        w.requires_grad_(True)
        self.leaves = [x, w]
        self.tensors = [x * 1.0, w, x, make([0.5 * i for i in range(12)], (3, 4))]

    def step(self, name: str, args: tuple[Any, ...]) -> None:
        t = self.tensors
        if name == "view":
            source, kind, rest = args
            t.append(_apply_view(t[source], kind, rest))
        elif name == "write":
            target, kind, other = args
            WRITES[kind](t[target], t[other])
        elif name == "write a number of one":
            target, kind, other = args
            WRITES[kind](t[target], t[other].sum())
        elif name == "write data":
            t[args[0]].data.mul_(0.5)
        elif name == "use":
            t.append(t[args[0]] * t[args[0]])
        elif name == "save":
            t.append(t[args[0]].sin() if hasattr(t[args[0]], "sin") else t[args[0]] * t[args[0]])

    def backward(self) -> None:
        total = sum((v * (i + 1)).sum() for i, v in enumerate(self.tensors) if v.requires_grad)
        total.backward()


def _run(program: Program, machine: Machine) -> tuple[int, str]:
    """Runs a program; the step that raised (or -1) and the exception's name."""
    for number, (name, args) in enumerate(program):
        try:
            machine.step(name, args)
        except (RuntimeError, IndexError, NotImplementedError) as error:
            return number, f"{type(error).__name__}: {error}"
    try:
        machine.backward()
    except RuntimeError as error:
        return len(program), f"{type(error).__name__}: {error}"
    return -1, ""


def _random_program(seed: int, oracle: Any) -> tuple[Program, Machine, tuple[int, str]]:
    """A program made while PyTorch runs it, so that its steps fit the shapes; most writes are legal ones."""
    rng = random.Random(seed)
    machine = Machine(oracle, lambda values, shape: oracle.tensor(values, dtype=oracle.float64).reshape(shape))
    program: Program = []
    for _ in range(rng.randint(3, 10)):
        source = rng.randrange(len(machine.tensors))
        shape = tuple(machine.tensors[source].shape)
        roll = rng.random()
        if roll < 0.45:
            step = ("view", (source, *rng.choice(_view_choices(shape, rng))))
        elif roll < 0.85:
            other = rng.randrange(len(machine.tensors))
            fits = tuple(machine.tensors[other].shape) == shape[len(shape) - machine.tensors[other].dim():]
            step = ("write" if fits else "write a number of one", (source, rng.choice(list(WRITES)), other))
        elif roll < 0.88:
            step = ("write data", (source,))
        else:
            step = (rng.choice(["use", "save"]), (source,))
        try:
            machine.step(*step)
        except RuntimeError:
            if rng.random() < 0.9:  # leave the illegal step out, now and then end with it
                machine_again = Machine(oracle, lambda values, shape: oracle.tensor(values, dtype=oracle.float64).reshape(shape))
                for done in program:
                    machine_again.step(*done)
                machine = machine_again
                continue
            program.append(step)
            break
        program.append(step)
    fresh = Machine(oracle, lambda values, shape: oracle.tensor(values, dtype=oracle.float64).reshape(shape))
    return program, fresh, _run(program, fresh)


def _product() -> Machine:
    return Machine(lohe, lambda values, shape: lohe.tensor(values, dtype=lohe.float64).reshape(shape))


def _values(oracle: Any, t: Any) -> Any:
    return oracle.from_dlpack(t.detach().contiguous())


@pytest.mark.parametrize("block", range(20))
def test_random_programs_give_pytorchs_values_gradients_and_errors(block: int, oracle: Any) -> None:
    for seed in range(block * 40, block * 40 + 40):
        program, expected, (stop, error) = _random_program(seed, oracle)
        got = _product()
        ours, our_error = _run(program, got)
        what = f"seed {seed}: {program}\nPyTorch: step {stop} {error}\nLohe: step {ours} {our_error}"
        if "was created in no_grad mode" in error or ("multiple views" in error and "base or another view" in error):
            # PyTorch refuses views of tensors that began to need gradients later; Lohe rebuilds their history.
            continue
        assert ours == stop, what
        if stop not in (-1, len(program)):
            continue
        for i, (a, b) in enumerate(zip(got.tensors, expected.tensors, strict=True)):
            assert tuple(a.shape) == tuple(b.shape) and a.stride() == b.stride() and a.storage_offset() == b.storage_offset(), what
            assert a.requires_grad == b.requires_grad and a.is_leaf == b.is_leaf, f"tensor {i}, {what}"
            oracle.testing.assert_close(_values(oracle, a), b.detach(), rtol=1e-12, atol=1e-12, msg=lambda m: f"tensor {i}: {m}\n{what}")
        if stop == -1:
            for i, (a, b) in enumerate(zip(got.leaves, expected.leaves, strict=True)):
                assert (a.grad is None) == (b.grad is None), f"leaf {i}, {what}"
                if b.grad is not None:
                    oracle.testing.assert_close(
                        _values(oracle, a.grad), b.grad, rtol=1e-10, atol=1e-10, msg=lambda m: f"leaf {i}: {m}\n{what}"
                    )


def test_a_leaf_that_is_a_view_keeps_its_gradient_when_it_is_written_without_history() -> None:
    # PyTorch 2.13 rebuilds the slice from the leaf's base, which needs no gradient, and gives the slice none.
    leaf = lohe.tensor([1.0, 2.0, 3.0]).view(3).requires_grad_()
    part = leaf[1:]
    part.detach().mul_(2)
    (part * 5).sum().backward()
    assert leaf.tolist() == [1.0, 4.0, 6.0] and leaf.grad.tolist() == [0.0, 5.0, 5.0]


def test_writing_an_expanded_tensor_is_refused() -> None:
    t = lohe.zeros(3).expand(2, 3)
    with pytest.raises(RuntimeError, match="more than one element of the written-to tensor"):
        t.add_(1)


def test_writing_what_backward_reads_is_noticed_but_not_through_data() -> None:
    x = lohe.ones(3, requires_grad=True)
    y = x * 2
    z = y * y
    y.detach().add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()
    y = x * 2
    z = y * y
    y.data.add_(1)
    z.sum().backward()
    assert x.grad.tolist() == [12.0, 12.0, 12.0]


def test_a_gradient_that_reads_the_written_tensor_sees_its_old_value() -> None:
    x, w = lohe.tensor([1.0, 2.0, 3.0], requires_grad=True), lohe.tensor([2.0, 2.0, 2.0], requires_grad=True)
    y = x * 1
    y.mul_(w)
    y.sum().backward()
    assert w.grad.tolist() == [1.0, 2.0, 3.0]


def test_an_operand_that_shares_the_written_memory_is_noticed() -> None:
    x = lohe.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = x * 1
    y.mul_(y)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_several_views_of_one_call_may_not_be_written() -> None:
    x = lohe.ones(4, requires_grad=True)
    first, _ = (x * 1).split(2)
    with pytest.raises(RuntimeError, match="returns multiple views"):
        first.add_(1)


def test_in_place_transposition_changes_the_tensor_but_not_its_base() -> None:
    x = lohe.ones(2, 3, requires_grad=True)
    y = x * 2
    v = y[:]
    v.t_()
    assert v.shape == (3, 2) and y.shape == (2, 3)
    (v * lohe.tensor([[1.0, 2.0]])).sum().backward()
    assert x.grad.tolist() == [[2.0] * 3, [4.0] * 3]


def test_parts_of_complex_numbers_can_be_written() -> None:
    x = lohe.tensor([1 + 2j, 3 - 1j], requires_grad=True)
    y = x * 1
    y.real.mul_(3)
    y.imag.zero_()
    (y.real + y.imag).sum().backward()
    assert x.grad.tolist() == [3 + 0j, 3 + 0j]


def test_set_shares_the_storage_and_counts_writes_anew() -> None:
    a, b = lohe.zeros(2), lohe.ones(3)
    a.set_(b)
    a.add_(1)
    assert b.tolist() == [2.0, 2.0, 2.0] and b._version == 0


def test_new_tensors_count_their_writes_from_zero() -> None:
    x = lohe.ones(3)
    made = [x, lohe.zeros(3), lohe.full((2,), 2.0), lohe.rand(2), lohe.cat([x, x]), lohe.nn.functional.pad(x, (1, 1)), x.to(lohe.float64)]
    assert [t._version for t in made] == [0] * len(made)
    made[0].add_(1)
    assert made[0]._version == 1


def test_one_value_may_be_written_through_an_expanded_view(oracle: Any) -> None:
    for framework in (lohe, oracle):
        x = framework.ones(3)
        x.expand(2, 3).fill_(4.0)
        assert x.tolist() == [4.0] * 3
        x.expand(2, 3).zero_()
        assert x.tolist() == [0.0] * 3


@pytest.mark.parametrize("read", [slice(0, 64), slice(1, 65), slice(32, 96), slice(63, 127), slice(64, 128)])
@pytest.mark.parametrize("step", [1, 2])
def test_a_view_with_gaps_is_written_with_what_the_views_beside_it_held(read: slice, step: int) -> None:
    x = lohe.arange(6 * 128.0).view(6, 128)
    y = x.clone()
    x[:, :64:step] += x[:, read][:, ::step] * 1
    want = y.clone()
    want[:, :64:step] = y[:, :64:step] + y[:, read][:, ::step]
    assert x.tolist() == want.tolist()
    y[:, :64:step] += y[:, read][:, ::step]
    assert y.tolist() == want.tolist()


def test_even_and_odd_elements_are_rotated_in_place() -> None:
    x = lohe.randn(5, 64)
    want = x.clone()
    want[:, ::2], want[:, 1::2] = x[:, ::2] - x[:, 1::2], x[:, 1::2] * 2
    x[:, ::2] -= x[:, 1::2]
    x[:, 1::2].mul_(2)
    assert x.tolist() == want.tolist()
