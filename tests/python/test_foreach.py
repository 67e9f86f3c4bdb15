"""Rows over lists of tensors do to each what the row for one tensor does."""

from __future__ import annotations

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
