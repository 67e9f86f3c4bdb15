"""The gradient of a table that is looked up by index has PyTorch's values, whatever the indices are."""

import lohe
import numpy as np
import pytest

torch = pytest.importorskip("torch")


def both_gradients(grad, indices, rows, padding, by_frequency, dtype="float32"):
    results = []
    for lib in (lohe, torch):
        g = lib.from_numpy(grad).to(getattr(lib, dtype))
        results.append(
            lib.ops.aten.embedding_dense_backward(g, lib.from_numpy(indices), rows, padding, by_frequency)
        )
    ours, theirs = results
    assert str(ours.dtype).split(".")[-1] == str(theirs.dtype).split(".")[-1]
    return ours.float().numpy(), theirs.float().numpy()


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("index_dtype", [np.int32, np.int64])
@pytest.mark.parametrize("padding", [-1, 0, 3])
@pytest.mark.parametrize("by_frequency", [False, True])
@pytest.mark.parametrize("width", [1, 15, 16, 17, 70])
def test_equals_pytorch(dtype, index_dtype, padding, by_frequency, width):
    random = np.random.default_rng(width)
    # Integers: every order of additions gives the same sum; PyTorch divides by the frequency before it adds.
    grad = random.integers(-8, 8, (40, width)).astype(np.float32)
    indices = random.integers(0, 7, 40).astype(index_dtype)
    ours, theirs = both_gradients(grad, indices, 7, padding, by_frequency, dtype)
    np.testing.assert_allclose(
        ours, theirs, rtol=1e-6, atol=(0.02 if dtype == "float16" else 1e-6) * by_frequency
    )


def test_leaves_out_indices_of_no_row():
    grad = np.arange(6 * 40, dtype=np.float32).reshape(6, 40)
    ours, theirs = both_gradients(grad, np.array([0, 3, 3, 1, 7, -2]), 5, -1, False)
    np.testing.assert_array_equal(ours, theirs)


def test_no_indices_give_zeros():
    ours, theirs = both_gradients(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), 3, -1, False)
    np.testing.assert_array_equal(ours, theirs)
    assert ours.shape == (3, 4)
