"""What the Python tests share: the product from the source tree where none is installed, seeds, and the oracle."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import tomllib
from pathlib import Path

import pytest

if importlib.util.find_spec("lohe") is None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "python"))
# What tests share with each other, and with the searches of tests/fuzz.
sys.path += [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1] / "fuzz")]


# Tests with several threads want work shared out that would be too short for it.
os.environ.setdefault("LOHE_DEBUG_WAKE", "1")
RECORDING = os.environ.get("LOHE_RECORD", "0") not in ("", "0")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of known_gaps.toml as expected failures, with the reason that stands there.

    Where all work is recorded, tests that ask when it is done are skipped.
    """
    for item in items:
        if RECORDING and item.get_closest_marker("eager"):
            item.add_marker(pytest.mark.skip(reason="work is recorded"))
    gaps = tomllib.loads((Path(__file__).parent / "known_gaps.toml").read_text()).get("gap", [])
    for item in items:
        for gap in gaps:
            if gap["test"] in item.nodeid:
                item.add_marker(pytest.mark.xfail(reason=gap["reason"], strict=False))


def pytest_report_header() -> str:
    import lohe

    return f"lohe {lohe.__version__} in {Path(lohe.__file__).parent.name}, {lohe.get_num_threads()} threads"


@pytest.fixture(autouse=True)
def _same_state_for_every_test():
    """Each test starts from seed 0 and may change the number of threads, the default dtype and gradient mode."""
    import lohe

    lohe.manual_seed(0)
    threads, dtype, gradients = lohe.get_num_threads(), lohe.get_default_dtype(), lohe.is_grad_enabled()
    yield
    if RECORDING:
        with contextlib.suppress(Exception):  # of work that the test left behind
            lohe._C._record_settle()
    lohe.set_num_threads(threads)
    lohe.set_default_dtype(dtype)
    lohe.set_grad_enabled(gradients)


@pytest.fixture
def fresh_compiler():
    """Nothing is compiled yet, and nothing is left open."""
    import lohe

    lohe.compiler.reset()
    yield
    assert not lohe.compiler.is_compiling()


@pytest.fixture(scope="session")
def oracle():
    """PyTorch, the semantic oracle; the test is skipped where it is not installed."""
    return pytest.importorskip("torch")


@pytest.fixture
def same(oracle):
    """``same(got, expected)``: a Lohe tensor against a PyTorch tensor in dtype, shape, strides and values.

    Values are equal up to ``torch.testing.assert_close``'s defaults, or exactly with ``exact=True``.
    """

    def check(got, expected, *, exact: bool = False) -> None:
        assert str(got.dtype).rsplit(".", 1)[-1] == str(expected.dtype).rsplit(".", 1)[-1]
        assert tuple(got.shape) == tuple(expected.shape)
        assert [s for s, n in zip(got.stride(), got.shape) if n > 1] == [
            s for s, n in zip(expected.stride(), expected.shape) if n > 1
        ]
        values = oracle.from_dlpack(got.detach())
        limits = {"rtol": 0.0, "atol": 0.0} if exact else {}
        oracle.testing.assert_close(values, expected.detach(), equal_nan=True, **limits)

    return check
