"""The forms that a kernel takes by stride class give the same elements as plain ones, to the bit.

A reduction down dense columns reads memory row by row, a copy of a transposed tensor goes over tiles: each is
compared with the same reduction or copy on a layout for which the generator takes another form, with NumPy,
and with itself at other thread counts and CPU levels.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import lohe as torch
import numpy as np
import pytest

DTYPES = [
    "bool",
    "uint8",
    "int16",
    "int32",
    "int64",
    "float16",
    "bfloat16",
    "float32",
    "float64",
    "complex64",
]
# Around the sides of tiles and vectors, and below what is tiled at all.
MATRICES = [(64, 64), (65, 63), (1, 200), (200, 1), (7, 9), (8, 8), (130, 1030), (33, 5000)]


def integers(shape: tuple[int, ...], dtype: str) -> tuple[torch.Tensor, np.ndarray]:
    array = np.random.default_rng(1).integers(0, 2 if dtype == "bool" else 5, shape)
    return torch.tensor(array).to(getattr(torch, dtype)), array


def values(x: torch.Tensor) -> np.ndarray:
    return (torch.view_as_real(x)[..., 0] if x.is_complex() else x).to(torch.int64).numpy()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", MATRICES, ids=str)
def test_transposed_copies_move_every_element(shape: tuple[int, ...], dtype: str) -> None:
    x, array = integers(shape, dtype)
    assert (values(x.t().contiguous()) == array.T).all()
    y, other = integers((shape[1], shape[0]), dtype)
    added = torch.logical_or(y, x.t()) if dtype == "bool" else y + x.t()
    assert (values(added) == (other | array.T if dtype == "bool" else other + array.T)).all()


@pytest.mark.parametrize("order", [(0, 2, 1), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
def test_permuted_copies_move_every_element(order: tuple[int, ...]) -> None:
    for shape in ((3, 70, 80), (70, 3, 80), (70, 80, 3), (17, 18, 19)):
        x, array = integers(shape, "int32")
        assert (x.permute(order).contiguous().numpy() == array.transpose(order)).all()


def test_a_transposed_copy_keeps_the_bits_of_nans() -> None:
    bits = torch.tensor(np.random.default_rng(2).integers(-(2**15), 2**15, (70, 90)).astype(np.int16))
    for dtype in (torch.bfloat16, torch.float16):
        assert (bits.view(dtype).t().contiguous().view(torch.int16).numpy() == bits.numpy().T).all()


def test_sums_down_columns_are_chains_in_row_order() -> None:
    for rows, columns in ((1, 32), (5, 40), (1000, 1030), (67, 2100)):
        x = torch.randn(rows, columns)
        chain = np.zeros(columns, np.float32)
        for row in x.numpy():
            chain = chain + row
        assert (x.sum(0).numpy() == chain).all()
        # Few columns at a time take the form with accumulators in registers.
        narrow = torch.cat([part.contiguous().sum(0) for part in x.split(16, dim=1)])
        assert (narrow.numpy() == chain).all()


def test_several_reductions_down_columns_agree_with_rows() -> None:
    x = torch.randn(3, 50, 70, dtype=torch.float64)
    turned = x.transpose(1, 2).contiguous()
    for name in ("softmax", "log_softmax", "logsumexp", "var", "std", "argmax", "amin", "prod"):
        ours = getattr(torch, name)(x, dim=1)
        theirs = getattr(torch, name)(turned, dim=2)
        if ours.dim() == 3:
            theirs = theirs.transpose(1, 2)
        assert torch.allclose(ours.to(torch.float64), theirs.to(torch.float64), rtol=1e-13), name


@pytest.mark.parametrize("columns", range(1, 20))
def test_sums_of_short_rows_are_the_tree_of_lanes(columns: int) -> None:
    for rows in (5, 1000, 16401):
        x = torch.randn(rows, columns)
        lanes = [
            x.numpy()[:, j] + np.float32(0) if j < columns else np.zeros(rows, np.float32) for j in range(64)
        ]
        while len(lanes) > 1:
            half = len(lanes) // 2
            lanes = [lanes[j] + lanes[j + half] for j in range(half)]
        assert (x.sum(1).numpy() == lanes[0]).all()
        assert (torch.stack([x, -x]).sum(2)[0].numpy() == lanes[0]).all()


@pytest.mark.parametrize("columns", (2, 3, 4, 7, 8, 9, 16, 17))
def test_short_rows_agree_with_long_ones(columns: int) -> None:
    """Of a small matrix they take the other form."""
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        x = torch.randn(10000, columns).to(dtype)
        x[3, 1], x[7, 0], x[8] = float("nan"), float("inf"), float("-inf")
        for function in (
            lambda x: x.max(-1),
            lambda x: x.argmin(-1),
            lambda x: x.softmax(-1),
            lambda x: x.prod(-1),
            lambda x: x / x.norm(dim=-1, keepdim=True),
            lambda x: torch.nn.functional.layer_norm(x, (columns,)),
        ):
            whole = function(x)
            for i in range(0, 10000, 500):
                part = function(x[i : i + 500])
                pairs = zip(whole, part, strict=True) if isinstance(whole, tuple) else [(whole, part)]
                for w, p in pairs:
                    assert torch.equal(w[i : i + 500].nan_to_num(5).double(), p.nan_to_num(5).double())


@pytest.mark.parametrize("shape", [(3, 5, 2), (200, 33, 4), (40960, 3), (7, 11, 13, 2), (1000, 2, 2)], ids=str)
def test_short_innermost_dims_are_copied_from_everywhere(shape: tuple[int, ...]) -> None:
    x, array = integers(shape, "int32")
    turned = torch.arange(x.numel(), dtype=torch.int32).reshape(shape[::-1])
    expected = array + turned.numpy().transpose()
    assert ((x + turned.permute(*range(x.dim() - 1, -1, -1))).numpy() == expected).all()
    assert (x.transpose(-1, -2).contiguous().numpy() == array.swapaxes(-1, -2)).all()
    split = x.reshape(*shape[:-1], 1, shape[-1]).transpose(-1, -3).contiguous()
    assert (split.numpy() == array.reshape(*shape[:-1], 1, shape[-1]).swapaxes(-1, -3)).all()


PROGRAM = """
import hashlib, lohe as torch
torch.manual_seed(3)
digest = hashlib.sha256()
for dtype in (torch.float32, torch.bfloat16, torch.float64):
    for shape in ((300, 70), (5, 1100), (2, 33, 64), (70, 40000)):
        x = torch.randn(*shape).to(dtype)
        for dim in range(len(shape)):
            for y in (x.sum(dim), x.amax(dim), torch.softmax(x, dim), x.mean(dim), x.argmax(dim)):
                digest.update(y.contiguous().view(torch.uint8).numpy().tobytes())
        for y in (x.sum(), x.transpose(0, -1).contiguous(), x.transpose(0, -1).exp().contiguous()):
            digest.update(y.reshape(-1).view(torch.uint8).numpy().tobytes())
print(digest.hexdigest())
"""


def test_forms_give_equal_bits_everywhere() -> None:
    def run(**variables: str) -> str:
        environment = {**os.environ, "LOHE_NUM_THREADS": "1", **variables}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment, check=True
        )
        return done.stdout.strip()

    expected = run()
    assert len(expected) == hashlib.sha256().digest_size * 2
    assert run(LOHE_NUM_THREADS="3") == expected
    assert run(LOHE_CPU_LEVEL="avx2") == expected
    assert run(LOHE_CPU_LEVEL="x86-64-v2") == expected


# Of many short rows some are done side by side, and what is left over one by one.
@pytest.mark.parametrize("rows", [32, 33, 34, 35, 71])
@pytest.mark.parametrize("columns", [17, 24, 40, 64, 65, 128])
def test_rows_done_together_have_the_bits_of_rows_alone(rows: int, columns: int) -> None:
    x = torch.randn(rows, columns)
    for function in (
        lambda t: torch.nn.functional.softmax(t, -1),
        lambda t: torch.nn.functional.log_softmax(t, -1),
        lambda t: torch.nn.functional.layer_norm(t, (columns,)),
        lambda t: torch.nn.functional.normalize(t, dim=-1),
        lambda t: (t - t.mean(1, keepdim=True)).square().sum(1),
    ):
        together, alone = x.clone().requires_grad_(), x.clone().requires_grad_()
        whole = function(together)
        single = torch.cat([function(alone[i : i + 1]) for i in range(rows)])
        assert torch.equal(whole, single)
        for leaf, result in ((together, whole), (alone, single)):
            (result * torch.arange(result.numel()).view_as(result)).sum().backward()
            assert leaf.grad is not None
        assert torch.equal(together.grad, alone.grad)
