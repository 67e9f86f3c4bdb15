"""Files that the C++ library wrote, read by PyTorch, zipfile and safetensors.

build/<preset>/bin/tests/io_tool, or what the environment variable LOHE_IO_TOOL names, is made from
tests/cpp/io_tool.cpp.
"""

from __future__ import annotations

import collections
import importlib.util
import os
import subprocess
import warnings
import zipfile
from pathlib import Path
from typing import Any

import lohe
import pytest

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")

TOOL = Path(
    os.environ.get("LOHE_IO_TOOL", Path(lohe.__file__).parents[2] / "bin" / "tests" / "io_tool")
)
pytestmark = pytest.mark.skipif(not TOOL.exists(), reason="io_tool is not built")


def _fixtures() -> Any:
    path = Path(__file__).parents[1] / "cpp" / "make_io_fixtures.py"
    spec = importlib.util.spec_from_file_location("make_io_fixtures", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def copy(source: Path) -> Path:
    target = source.with_stem(source.stem + "_copy")
    subprocess.run([str(TOOL), str(source), str(target)], check=True)
    return target


def resave(value: Any, folder: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(value, folder / "value.pt")
    return copy(folder / "value.pt")


def assert_same(actual: Any, expected: Any) -> None:
    assert type(actual) is type(expected)
    if isinstance(expected, torch.Tensor):
        assert (actual.dtype, actual.shape, actual.stride()) == (
            expected.dtype,
            expected.shape,
            expected.stride(),
        )
        assert actual.storage_offset() == expected.storage_offset()
        assert actual.requires_grad == expected.requires_grad
        assert (actual.is_conj(), actual.is_neg()) == (expected.is_conj(), expected.is_neg())
        assert torch.equal(actual.detach(), expected.detach())
        assert_same(actual.__dict__, expected.__dict__)
    elif isinstance(expected, torch.UntypedStorage | torch.TypedStorage):
        assert actual.tolist() == expected.tolist()
    elif isinstance(expected, dict):
        assert list(actual) == list(expected)
        for key in expected:
            assert_same(actual[key], expected[key])
        if isinstance(expected, collections.OrderedDict):
            assert_same(actual.__dict__, expected.__dict__)
    elif isinstance(expected, list | tuple):
        assert len(actual) == len(expected)
        for a, e in zip(actual, expected, strict=True):
            assert_same(a, e)
    else:
        assert actual == expected


def test_torch_reads_a_state_dict_under_weights_only(tmp_path: Path) -> None:
    expected = _fixtures().state_dict()
    assert_same(torch.load(resave(expected, tmp_path), weights_only=True), expected)


def test_torch_reads_a_mapped_state_dict(tmp_path: Path) -> None:
    expected = _fixtures().state_dict()
    assert_same(torch.load(resave(expected, tmp_path), weights_only=True, mmap=True), expected)


def test_torch_reads_plain_data(tmp_path: Path) -> None:
    expected = _fixtures().plain_data()
    loaded = torch.load(resave(expected, tmp_path), weights_only=False)
    assert_same(loaded, expected)
    assert loaded["shared"][0] is loaded["shared"][1]


def test_torch_reads_tensors_and_their_sharing(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        copied = resave(_fixtures().tensors(), tmp_path)
        loaded = torch.load(copied, weights_only=True)
        # PyTorch itself does not bring everything back: an untyped storage returns as a typed one.
        assert_same(loaded, torch.load(tmp_path / "value.pt", weights_only=True))
    assert loaded["same"][0] is loaded["base"]
    assert loaded["view"].data_ptr() == loaded["base"].data_ptr() + 16


def test_an_optimizer_goes_on_after_a_round_trip(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(3)).sum().backward()
    optimizer.step()
    expected = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}
    loaded = torch.load(resave(expected, tmp_path), weights_only=True)
    assert_same(loaded, expected)
    model.load_state_dict(loaded["model"])
    optimizer.load_state_dict(loaded["optimizer"])


def test_zipfile_finds_every_checksum_right(tmp_path: Path) -> None:
    with zipfile.ZipFile(resave(_fixtures().state_dict(), tmp_path)) as archive:
        assert archive.testzip() is None
        assert archive.read("value_copy/byteorder") == b"little"
        assert archive.read("value_copy/version") == b"3\n"


def test_safetensors_files_are_the_same_bytes(tmp_path: Path) -> None:
    tensors = {
        str(dtype)[6:]: torch.arange(5).to(dtype) for dtype in _fixtures().DTYPES if dtype != torch.complex128
    }
    tensors["matrix"] = torch.randn(3, 4)
    tensors["empty"] = torch.empty(0, 2)
    source = tmp_path / "value.safetensors"
    safetensors_torch.save_file(tensors, source, metadata={"format": "pt"})
    written = copy(source)
    assert written.read_bytes() == source.read_bytes()
    loaded = safetensors_torch.load_file(written)
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(loaded[name], tensor)
