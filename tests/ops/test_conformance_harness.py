"""The comparison itself, on PyTorch with planted faults: what it must find, and what it must keep."""

from __future__ import annotations

import types

import pytest

torch = pytest.importorskip("torch")

import conformance
import conformance_cases
import conformance_compare
from conformance_bridge import Bridge, Missing, Translator
from conformance_compare import Comparison
from conformance_report import Entry, KnownDifferences


class Altered(types.ModuleType):
    """PyTorch with some names replaced or, when None, absent."""

    def __init__(self, **names):
        super().__init__("altered")
        self._names = names

    def __getattr__(self, name):
        if name in self._names:
            if self._names[name] is None:
                raise AttributeError(name)
            return self._names[name]
        return getattr(torch, name)


@pytest.fixture(scope="module")
def entries():
    return conformance_cases.database()


def classes(entries, entry, module, dtype=torch.float32, variant="function", limit=4):
    """The classes of difference over a few cases of one entry."""
    op = entries[entry]
    comparison = Comparison(module)
    found = set()
    for case in conformance_cases.Enumeration((dtype,), limit).cases(entry, op):
        if case.variant == variant:
            found |= {d.kind for d in comparison.compare(op, case)}
    return found


@pytest.mark.parametrize(
    "entry", ["add", "sort", "cat", "nn.functional.dropout", "linalg.svd", "__getitem__", "as_strided"]
)
def test_pytorch_agrees_with_itself(entries, entry):
    assert classes(entries, entry, Altered()) == set()


FAULTS = {
    "value": ("exp", lambda x: torch.exp(x) * 1.0001),
    "dtype": ("exp", lambda x: torch.exp(x).double()),
    "shape": ("exp", lambda x: torch.exp(x).unsqueeze(0)),
    "alias": ("flatten", lambda x, *a, **k: torch.flatten(x, *a, **k).clone()),
    "gradient": ("exp", lambda x: torch.exp(x.detach()) + (x - x.detach())),
    "requires_grad": ("exp", lambda x: torch.exp(x.detach())),
    "raised": ("exp", lambda x: {}[x.dim()]),
    "input": ("exp", lambda x: (torch.exp(x), x.data.zero_())[0]),
    "structure": ("exp", lambda x: (torch.exp(x),)),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_planted_fault_is_found(entries, kind):
    entry, fault = FAULTS[kind]
    assert kind in classes(entries, entry, Altered(**{entry: fault}))


def test_wrong_strides_are_found(entries):
    def swapped(x, *a, **k):
        y = torch.add(x, *a, **k)
        return y.mT.contiguous().mT if y.dim() > 1 else y

    assert classes(entries, "add", Altered(add=swapped), torch.int64) == {"stride"}


def test_wrong_exception_type_and_missing_check_are_found(entries):
    def lenient(*a, **k):
        raise KeyError("other")

    assert "error_type" in classes(entries, "cat", Altered(cat=lenient), torch.int64, variant="error")
    assert "not_raised" in classes(
        entries, "cat", Altered(cat=lambda *a, **k: 1), torch.int64, variant="error"
    )


def test_absent_operator_is_missing(entries):
    with pytest.raises(Missing, match="exp"):
        Translator(Altered(exp=None)).callable(entries["exp"].op)
    assert classes(entries, "exp", Altered(exp=None)) == {"missing"}


def test_function_with_a_private_name_beside_its_public_one_is_found(entries):
    function = torch.nn.functional.threshold
    assert function is torch.nn.functional._threshold
    functional = types.SimpleNamespace(threshold=function)
    module = Altered(nn=types.SimpleNamespace(functional=functional))
    assert Translator(module).callable(entries["nn.functional.threshold"].op) is function


def test_entry_whose_operator_is_only_called_by_a_wrapper_is_missing(entries):
    Translator(Altered()).named(entries["pca_lowrank"].name)
    with pytest.raises(Missing, match="pca_lowrank"):
        Translator(Altered(pca_lowrank=None)).named(entries["pca_lowrank"].name)


def test_finite_result_passes_where_only_pytorch_overflows(entries):
    # In float16 the gradient of tan, g (1 + y^2), overflows when it is not computed in wider numbers.
    x = torch.tensor([1.566], dtype=torch.float16)
    comparison = Comparison(Altered())
    judge = conformance_compare._Judge(comparison, entries["tan"], None, None, None)
    wide = torch.tensor([6e4], dtype=torch.float64)
    infinite, finite = torch.tensor([float("inf")], dtype=x.dtype), torch.tensor([59000.0], dtype=x.dtype)
    assert judge._mismatch(finite, infinite, lambda: wide) == ""
    assert judge._mismatch(infinite, finite, lambda: wide) != ""
    assert judge._mismatch(finite, infinite, lambda: wide / 0) != ""


def test_wrapper_of_the_test_suite_calls_the_module_under_test():
    calls = []

    def wrapped(x):
        return torch.exp(x)

    module = Altered(exp=lambda x: calls.append(x) or x)
    x = torch.ones(2)
    assert Translator(module)._rebind(wrapped)(x) is x
    assert calls


def test_bridge_keeps_what_an_operator_can_observe():
    base = torch.arange(24.0)
    view = base.as_strided((2, 3), (7, 2), 3)
    other = base[5:9]
    conj = torch.ones(2, 3, dtype=torch.complex64).t().conj()
    leaf = torch.randn(3, requires_grad=True)
    bridge = Bridge(Altered())
    v, o, c, x, again = bridge.value((view, other, conj, leaf, leaf))
    assert (v.stride(), v.storage_offset(), tuple(v.shape)) == ((7, 2), 3, (2, 3))
    assert torch.equal(v, view) and torch.equal(o, other)
    assert (
        v.untyped_storage().data_ptr() == o.untyped_storage().data_ptr() != base.untyped_storage().data_ptr()
    )
    assert c.is_conj() and c.stride() == conj.stride() and torch.equal(c, conj)
    assert x.requires_grad and x.is_leaf and x is again
    v.zero_()
    assert base[3] == 3


def test_bridge_widens_for_the_reference():
    wide = Bridge(torch, widen=True).value([torch.ones(2, dtype=torch.bfloat16), torch.float32, torch.int64])
    assert [wide[0].dtype, *wide[1:]] == [torch.float64, torch.float64, torch.int64]


def test_result_as_accurate_as_pytorch_passes(entries):
    def accurate(x, *a, **k):
        return torch.sum(x.double(), *a, **k).to(x.dtype)

    assert classes(entries, "sum", Altered(sum=accurate), limit=0) == set()


def test_case_ids_find_their_case_again(entries):
    ids = [c.id for c in conformance_cases.Enumeration((torch.int64,), 3).cases("add", entries["add"])]
    assert len(set(ids)) == len(ids) > 10
    op, case = conformance_cases.Enumeration().find(ids[1])
    assert (op.name, case.id) == ("add", ids[1])


def test_sample_depends_on_the_seed_and_the_case_alone():
    one, two = (conformance_cases.Enumeration(fraction=0.5, seed=s) for s in (1, 2))
    ids = [f"add/function/float32/{i}" for i in range(200)]
    assert [one.chosen(i) for i in ids] == [one.chosen(i) for i in ids]
    assert [one.chosen(i) for i in ids] != [two.chosen(i) for i in ids]
    assert 60 < sum(map(one.chosen, ids)) < 140


def test_accepted_difference_needs_a_reason(tmp_path):
    path = tmp_path / "known.toml"
    path.write_text('[[difference]]\nop = "ad."\nclass = "value"\n')
    with pytest.raises(ValueError, match="reason"):
        KnownDifferences(path)
    path.write_text('[[difference]]\nop = "ad."\nclass = "value"\nreason = "measured"\n')
    entry = Entry(
        failures={"add/function/float32/0": [("value", "x")], "add/function/int64/0": [("stride", "y")]}
    )
    assert list(KnownDifferences(path).unexpected({"add": entry})) == ["add/function/int64/0"]


def test_worker_that_dies_fails_its_case_and_the_rest_goes_on(tmp_path, monkeypatch):
    (tmp_path / "lohe.py").write_text(
        "import torch\n"
        "globals().update({k: v for k, v in torch.__dict__.items() if not k.startswith('__')})\n"
        "import os, signal\n"
        "def exp(x, **k):\n"
        "    if x.dim() == 0: os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    return torch.exp(x, **k)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    run = conformance.Run(conformance.Settings(dtypes=("int64",), limit=6))
    entry = run.run(["exp"])["exp"]
    assert {found[0][0] for found in entry.failures.values()} == {"crash"}
    assert entry.passed > 0
