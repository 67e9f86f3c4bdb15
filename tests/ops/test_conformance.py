"""A sample of the operator database on every run; ``tools/conformance`` runs all of it.

``LOHE_CONFORMANCE_SEED`` chooses the sample (CI passes its run number), ``LOHE_CONFORMANCE_SAMPLE`` its
share.
"""

from __future__ import annotations

import os

import pytest

pytest.importorskip("torch")

import conformance
from conformance_report import KnownDifferences
from conformance_worker import import_product

SEED = int(os.environ.get("LOHE_CONFORMANCE_SEED", "0"))
SHARE = float(os.environ.get("LOHE_CONFORMANCE_SAMPLE", "0.1"))


@pytest.fixture(scope="module")
def product():
    try:
        return import_product()
    except ModuleNotFoundError as error:
        if error.name != "lohe":
            raise
        pytest.skip(str(error))


@pytest.mark.parametrize(
    "dtypes", [("float32", "int64"), ("bool", "bfloat16", "complex64", "float64", "uint8")]
)
def test_sampled_cases_agree_with_pytorch(product, dtypes):
    present, _ = conformance.split_entries(product, "")
    settings = conformance.Settings(
        dtypes=dtypes, limit=10, fraction=SHARE, seed=SEED, jobs=os.cpu_count() or 1
    )
    entries = conformance.Run(settings).run(present)
    unexpected = KnownDifferences(conformance.HERE / "known_differences.toml").unexpected(entries)
    lines = [f"{case}: {found}" for case, found in list(unexpected.items())[:30]]
    assert not unexpected, (
        f"{len(unexpected)} cases differ, seed {SEED}; rerun one with --replay:\n" + "\n".join(lines)
    )


def test_every_operator_of_the_table_has_a_schema_and_a_kind(product):
    for row in product._C.op_table():
        assert row["name"] and row["schema"] and row["kind"]
