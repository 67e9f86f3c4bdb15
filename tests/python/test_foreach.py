"""Rows over lists of tensors do to each what the row for one tensor does."""

from __future__ import annotations

import functools

import lohe
import numpy as np
import pytest

torch = pytest.importorskip("torch")

CALLS = {
    "_foreach_neg": (),
    "_foreach_sqrt": (),
    "_foreach_reciprocal": (),
    "_foreach_abs": (),
    "_foreach_exp": (),
    "_foreach_add": (2.5,),
    "_foreach_sub": ("other",),
    "_foreach_mul": ([1.0, 2.0, 3.0],),
    "_foreach_div": ("other",),
    "_foreach_maximum": (0.7,),
    "_foreach_minimum": ("other",),
    "_foreach_clamp_min": ([0.5, 0.6, 0.7],),
    "_foreach_pow": (2,),
    "_foreach_addcmul": ("other", "other", 0.5),
    "_foreach_addcdiv": ("other", "other", [0.5, 1.0, 1.5]),
    "_foreach_lerp": ("other", 0.3),
}


def lists(module):
    g = np.random.default_rng(0)
    made = [[g.uniform(0.2, 2, shape) for shape in ((2, 3), (4,), ())] for _ in range(2)]
    return [[module.tensor(x.tolist(), dtype=module.float64) for x in values] for values in made]


@pytest.mark.parametrize("name", CALLS)
def test_new_tensors_and_in_place(name):
    results = []
    for module in (lohe, torch):
        first, other = lists(module)
        arguments = [other if a == "other" else a for a in CALLS[name]]
        made = getattr(module, name)(first, *arguments)
        getattr(module, name + "_")(first, *arguments)
        results.append([t.tolist() for t in [*made, *first]])
    for got, want in zip(*results):
        np.testing.assert_allclose(got, want, rtol=1e-12)


def test_factors_copies_and_zeros():
    for module in (lohe, torch):
        first, other = lists(module)
        expected = [(a + 3 * b).tolist() for a, b in zip(first, other)]
        for made, want in zip(module._foreach_add(first, other, alpha=3), expected):
            np.testing.assert_allclose(made.tolist(), want, rtol=1e-12)
        module._foreach_copy_(first, other)
        assert [t.tolist() for t in first] == [t.tolist() for t in other]
        module._foreach_zero_(first)
        assert all(t.abs().sum().item() == 0 for t in first)


def test_lists_of_other_lengths_are_refused():
    for module in (lohe, torch):
        first, other = lists(module)
        for call in (lambda f, o: f(first, o[:2]), lambda f, o: f([], [])):
            with pytest.raises(RuntimeError):
                call(module._foreach_add, other)


# A list of dense tensors is checked as a whole and takes one parallel region; whatever is in the way of that
# must make no difference.


def _parameters(kind):
    """Tensors to write, and as many gradients, in layouts and states that a list may have."""
    lohe.manual_seed(0)
    sizes = [(64, 64), (64,), (1000,), (3, 5, 7), (1,), (), (40000,), (2,)]
    made = [lohe.randn(s, dtype=lohe.float64 if kind == "float64" else lohe.float32) for s in sizes]
    if kind == "empty":
        made[2] = lohe.randn(0, 4)
    elif kind == "dtypes":
        made[3] = made[3].double()
    elif kind == "half":
        made = [t.bfloat16() for t in made]
    elif kind == "columns":
        made[0] = made[0].t()
    elif kind == "flat":
        memory = lohe.randn(sum(t.numel() for t in made))
        parts = memory.split([t.numel() for t in made])
        made = [part.view(s) for part, s in zip(parts, sizes, strict=True)]
    elif kind == "twice":
        made[5] = made[0]
    elif kind == "overlapping":
        memory = lohe.randn(64 * 64 + 100)
        made[0], made[3] = memory[: 64 * 64].view(64, 64), memory[64 * 64 - 10 :][:105].view(3, 5, 7)
    grads = [lohe.randn_like(t) for t in made]
    if kind == "shared gradient":
        made[7], grads[7] = lohe.randn(1000), grads[2]
    return made, grads


def _lists(name, params, grads, averages):
    if name.startswith("add"):
        lohe._foreach_add_(params, grads, alpha=-0.1)
    if name == "add twice":
        lohe._foreach_mul_(grads, 0.5)
        lohe._foreach_add_(params, grads)
    elif name == "clip":
        lohe._foreach_mul_(params, [0.5 + i for i in range(len(params))])
        lohe._foreach_clamp_max_(params, 0.5)
    elif name == "average":
        lohe._foreach_lerp_(averages, grads, 0.1)
        lohe._foreach_addcdiv_(params, averages, [g.abs() + 1 for g in grads], -0.01)


def _one_by_one(name, params, grads, averages):
    if name.startswith("add"):
        for p, g in zip(params, grads, strict=True):
            p.add_(g, alpha=-0.1)
    if name == "add twice":
        for g in grads:
            g.mul_(0.5)
        for p, g in zip(params, grads, strict=True):
            p.add_(g)
    elif name == "clip":
        for i, p in enumerate(params):
            p.mul_(0.5 + i)
        for p in params:
            p.clamp_max_(0.5)
    elif name == "average":
        for a, g in zip(averages, grads, strict=True):
            a.lerp_(g, 0.1)
        for p, a, g in zip(params, averages, grads, strict=True):
            p.addcdiv_(a, g.abs() + 1, value=-0.01)


KINDS = [
    "plain",
    "float64",
    "half",
    "empty",
    "dtypes",
    "columns",
    "flat",
    "twice",
    "overlapping",
    "shared gradient",
]


@pytest.mark.eager
@pytest.mark.parametrize("how", ["eager", "recorded", "compiled", "replay"])
@pytest.mark.parametrize("name", ["add", "add twice", "clip", "average"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_list_is_what_its_tensors_are_one_by_one(kind, name, how, fresh_compiler):
    if kind == "dtypes" and name == "average":
        pytest.skip("lerp wants one dtype")
    results = []
    for step in (_one_by_one, _lists):
        params, grads = _parameters(kind)
        averages = [lohe.zeros_like(t) for t in params]
        work = functools.partial(step, name, params, grads, averages)
        if how == "recorded":
            run = functools.partial(_lazily, work)
        else:
            run = work if how == "eager" else lohe.compile(lambda work=work: work(), replay=how == "replay")
        for _ in range(5):
            run()
        results.append([t.double().flatten().tolist() for t in [*params, *grads, *averages]])
        results[-1].append([t._version for t in [*params, *averages]])
    assert results[0] == results[1]


def _lazily(work):
    with lohe.compiler.lazy():
        work()


@pytest.mark.eager
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("kind", ["plain", "flat", "shared gradient"])
def test_an_optimizer_steps_as_tensor_by_tensor(kind, threads, fresh_compiler):
    before = lohe.get_num_threads()
    lohe.set_num_threads(threads)
    try:
        for make in (
            lambda p: lohe.optim.AdamW(p, lr=0.1, weight_decay=0.1),
            lambda p: lohe.optim.Adam(p, amsgrad=True),
            lambda p: lohe.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
            lambda p: lohe.optim.SGD(p, lr=0.1),
            lambda p: lohe.optim.Adagrad(p, lr=0.1),
        ):
            states = []
            for how in ("one by one", "list", "compiled"):
                params, grads = _parameters(kind)
                for p, g in zip(params, grads, strict=True):
                    p.requires_grad_() if p.is_leaf else None
                    p.grad = g
                optimizers = [make([p]) for p in params] if how == "one by one" else [make(params)]
                steps = [lohe.compile(o.step) if how == "compiled" else o.step for o in optimizers]
                for _ in range(5):
                    for step in steps:
                        step()
                states.append([p.detach().flatten().tolist() for p in params])
            assert states[0] == states[1] == states[2]
    finally:
        lohe.set_num_threads(before)


@pytest.mark.eager
def test_a_compiled_list_is_one_step_of_the_program(fresh_compiler):
    params = [lohe.randn(100 + i).requires_grad_() for i in range(20)]
    for p in params:
        p.grad = lohe.randn_like(p)
    optimizer = lohe.optim.AdamW(params)
    step = lohe.compile(optimizer.step)
    for _ in range(4):
        step()
    steps = lohe.compile_report(step).programs[0]["steps"]
    assert [s["name"] for s in steps] == ["_adam_step_ x20"]
    assert steps[0]["operations"] == 20


@pytest.mark.eager
def test_updates_that_use_one_another_are_not_run_together(fresh_compiler):
    x = lohe.arange(64.0)

    def chain(y):
        for i in range(6):
            y[i + 1].add_(y[i])  # each reads what the one before has written
        return y

    compiled = lohe.compile(lambda: chain(x.repeat(7, 1).clone()))
    want = chain(x.repeat(7, 1).clone()).tolist()
    for _ in range(4):
        assert compiled().tolist() == want


@pytest.mark.eager
@pytest.mark.parametrize("recorded", [False, True])
def test_a_list_with_a_tensor_that_may_not_be_written_raises(recorded):
    with lohe.inference_mode():
        strange = lohe.ones(3)
    leaf = lohe.ones(3).requires_grad_()
    for bad, error in ((strange, "inference tensor"), (leaf, "leaf Variable")):
        good = lohe.ones(4)

        def work(bad=bad, good=good):
            lohe._foreach_add_([bad, good], 1)

        with pytest.raises(RuntimeError, match=error):
            _lazily(work) if recorded else work()
        assert bad.tolist() == [1] * 3 and good.tolist() == [1] * 4
