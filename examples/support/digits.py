"""scikit-learn's handwritten digits: 1,797 grey images of 8x8 pixels, split once and for all."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from support.files import write_whole

TEST_SHARE = 5  # every fifth image of a class is a test image


def digits() -> dict[str, np.ndarray]:
    """train_images, test_images: float32 (n, 1, 8, 8), 0 to 1; train_labels, test_labels: int64 (n,)."""
    from sklearn.datasets import load_digits  # the data ship with scikit-learn; nothing is downloaded

    images, labels = load_digits(return_X_y=True)
    images = (images / 16.0).astype(np.float32).reshape(-1, 1, 8, 8)
    labels = labels.astype(np.int64)
    test = np.zeros(len(labels), dtype=bool)
    shuffled = np.random.RandomState(0).permutation(len(labels))
    for digit in range(10):
        test[shuffled[labels[shuffled] == digit][::TEST_SHARE]] = True
    return {
        "train_images": images[~test],
        "train_labels": labels[~test],
        "test_images": images[test],
        "test_labels": labels[test],
    }


def export(folder: Path) -> None:
    """Writes the four arrays as `folder`/NAME.npy for programs in other languages."""
    for name, array in digits().items():
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        write_whole(folder / f"{name}.npy", lambda file, buffer=buffer: file.write(buffer.getvalue()))
