"""Writes files with PyTorch and safetensors that the C++ tests of src/io read.

Usage: python make_io_fixtures.py FOLDER
The contents are fixed, so that the tests can name what they expect. The C++ tests find the folder in the
environment variable LOHE_IO_FIXTURES.
"""

from __future__ import annotations

import collections
import pickle
import sys
import warnings
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save_file

DTYPES = [
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.complex64,
    torch.complex128,
    torch.bool,
]


def arange(count: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.arange(count).to(dtype)


def state_dict() -> collections.OrderedDict:
    """A state_dict with version metadata, parameters, buffers and an integer scalar."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    with torch.no_grad():
        model[0].weight.copy_(torch.arange(6.0).reshape(2, 3))
        model[0].bias.copy_(torch.tensor([0.5, -0.5]))
    return model.state_dict()


def plain_data() -> dict:
    """Every kind of plain Python data that a checkpoint may hold."""
    shared = [1, 2]
    counter = collections.Counter("aab")
    nested = collections.defaultdict(list)
    nested["x"].append(1)
    return {
        "none": None,
        "true": True,
        "false": False,
        "ints": [0, 255, 256, 65535, 65536, -1, 2**31, -(2**31), 2**62],
        "big": 2**70,
        "negative": -(2**70),
        "long": 2**3000,
        "float": 1.5,
        "complex": 1 - 2j,
        "text": "grün \U0001f525",
        "bytes": b"\x00ab\xff",
        "empty_bytes": b"",
        "bytearray": bytearray(b"xyz\x80"),
        "tuples": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
        "shared": [shared, shared],
        "set": {1},
        "frozenset": frozenset([2]),
        "counter": counter,
        "defaultdict": nested,
        "ordered": collections.OrderedDict(b=1, a=2),
        "size": torch.Size([2, 3]),
        "dtype": torch.bfloat16,
        "device": torch.device("cuda", 1),
        "layout": torch.strided,
        1: "int key",
        (1, 2): "tuple key",
        1.5: "float key",
        "many": list(range(2500)),
    }


def tensors() -> dict:
    base = torch.arange(12.0)
    parameter = torch.nn.Parameter(torch.arange(3.0), requires_grad=False)
    tagged = torch.nn.Parameter(torch.arange(2.0))
    tagged.tag = "yes"
    plain = torch.arange(2.0)
    plain.note = 7
    return {
        "dtypes": {str(dtype)[6:]: arange(4, dtype) for dtype in DTYPES},
        "base": base,
        "view": base.reshape(3, 4)[1:, ::2].t(),
        "scalar": torch.tensor(3.25),
        "empty": torch.empty(0, 5),
        "expanded": torch.tensor([2.0]).expand(1000, 1000),
        "parameter": parameter,
        "tagged": tagged,
        "plain": plain,
        "leaf": torch.ones(2, requires_grad=True),
        "same": [base, base],
        "conj": torch.tensor([1 + 2j]).conj(),
        "neg": torch.tensor([1 + 2j]).conj().imag,
        "buffer": torch.nn.Buffer(torch.ones(1), persistent=False),
        "untyped": arange(3, torch.int16).untyped_storage(),
        "typed": arange(3, torch.int16).storage(),
    }


class Custom:
    """A class that no reader knows."""


def big_endian(source: Path, target: Path) -> None:
    """Rewrites an archive as a big-endian machine would have written it (int16 storage '0')."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for item in old.infolist():
            content = old.read(item)
            if item.filename.endswith("byteorder"):
                content = b"big"
            elif item.filename.endswith("data/0"):
                content = b"".join(content[i : i + 2][::-1] for i in range(0, len(content), 2))
            new.writestr(item.filename, content)


def repacked(source: Path, target: Path, compression: int) -> None:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for item in old.infolist():
            new.writestr(item.filename, old.read(item))


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    torch.save(state_dict(), folder / "state_dict.pt")
    torch.save(plain_data(), folder / "plain.pt")
    torch.save(tensors(), folder / "tensors.pt")
    for protocol in (3, 4, 5):
        torch.save(plain_data(), folder / f"plain_protocol{protocol}.pt", pickle_protocol=protocol)
        torch.save(state_dict(), folder / f"state_dict_protocol{protocol}.pt", pickle_protocol=protocol)
    torch.save({}, folder / "small.pt")

    torch.save(Custom(), folder / "custom.pt")
    torch.save(torch.nn.Linear(1, 1), folder / "module.pt")
    torch.save(torch.eye(2).to_sparse(), folder / "sparse.pt")
    torch.save(torch.ones(2, dtype=torch.uint16), folder / "uint16.pt")
    torch.save(torch.arange(3.0).numpy(), folder / "numpy.pt")
    torch.save(torch.ones(1), folder / "legacy.pt", _use_new_zipfile_serialization=False)
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), folder / "script.pt")
    (folder / "bare.pt").write_bytes(pickle.dumps({"a": 1}, protocol=2))
    torch.save(arange(3, torch.int16), folder / "int16.pt")
    big_endian(folder / "int16.pt", folder / "big_endian.pt")
    repacked(folder / "int16.pt", folder / "deflated.pt", zipfile.ZIP_DEFLATED)
    repacked(folder / "state_dict.pt", folder / "stored.pt", zipfile.ZIP_STORED)

    reals = {str(dtype)[6:]: arange(4, dtype) for dtype in DTYPES if dtype != torch.complex128}
    reals |= {
        "scalar": torch.tensor(3.25),
        "empty": torch.empty(0, 5),
        'grün "x"\n': torch.arange(6.0).reshape(2, 3),
    }
    save_file(reals, folder / "all.safetensors", metadata={"format": "pt"})
    save_file({}, folder / "none.safetensors")
    save_file({"a": torch.ones(2, dtype=torch.uint16)}, folder / "uint16.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
