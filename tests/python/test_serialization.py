"""Files in PyTorch's format and safetensors files, exchanged with PyTorch in both directions."""

from __future__ import annotations

import collections
import io
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import lohe
import pytest
from lohe import safetensors

DTYPES = ["uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64", "complex64", "complex128", "bool"]


def through_lohe(value: Any) -> Any:
    buffer = io.BytesIO()
    lohe.save(value, buffer)
    buffer.seek(0)
    return lohe.load(buffer)


def to_torch(value: Any, torch: Any) -> Any:
    buffer = io.BytesIO()
    lohe.save(value, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def from_torch(value: Any, torch: Any) -> Any:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    return lohe.load(buffer)


def bits(tensor: Any) -> list:
    """Values as Python numbers; half types through float32, which is exact."""
    dtype = str(tensor.dtype).rsplit(".", 1)[-1]
    return (tensor.detach().float() if dtype in ("float16", "bfloat16") else tensor.detach()).tolist()


def assert_tensor(got: Any, expected: Any) -> None:
    assert str(got.dtype).rsplit(".", 1)[-1] == str(expected.dtype).rsplit(".", 1)[-1]
    assert tuple(got.shape) == tuple(expected.shape)
    assert got.stride() == expected.stride()
    assert got.storage_offset() == expected.storage_offset()
    assert got.requires_grad == expected.requires_grad
    assert bits(got) == bits(expected)


@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype_goes_both_ways(name: str, oracle: Any) -> None:
    data = [0, 1, 2, 3, 1, 0]
    ours = lohe.tensor(data).to(getattr(lohe, name)).reshape(2, 3)
    theirs = oracle.tensor(data).to(getattr(oracle, name)).reshape(2, 3)
    assert_tensor(to_torch(ours, oracle), theirs)
    assert_tensor(from_torch(theirs, oracle), ours)


@pytest.mark.parametrize(
    "make",
    [
        lambda t: t.zeros(0),
        lambda t: t.zeros(3, 0, 2),
        lambda t: t.tensor(2.5),
        lambda t: t.arange(12.0).reshape(3, 4).t(),
        lambda t: t.arange(12.0)[3::2],
        lambda t: t.ones(1).expand(4, 5),
        lambda t: t.ones(2, 3, 4, 4).to(memory_format=t.channels_last),
        lambda t: t.ones(3, requires_grad=True),
    ],
    ids=["empty", "empty3", "scalar", "transposed", "strided", "expanded", "channels_last", "requires_grad"],
)
def test_views_keep_their_geometry(make: Any, oracle: Any) -> None:
    ours, theirs = make(lohe), make(oracle)
    assert_tensor(to_torch(ours, oracle), theirs)
    assert_tensor(from_torch(theirs, oracle), ours)
    assert_tensor(through_lohe(ours), ours)


def test_lazy_conjugation_stays_lazy(oracle: Any) -> None:
    data = [1 + 2j, 3 - 1j]
    ours, theirs = lohe.tensor(data).conj(), oracle.tensor(data).conj()
    loaded = to_torch(ours, oracle)
    assert loaded.is_conj() and loaded.tolist() == theirs.tolist()
    back = from_torch(theirs, oracle)
    assert back.is_conj() and back.resolve_conj().tolist() == theirs.tolist()
    negated = from_torch(theirs.imag, oracle)
    assert negated.is_neg() and negated.tolist() == theirs.imag.tolist()


def test_state_dicts_of_modules_keep_keys_order_and_metadata(oracle: Any) -> None:
    def model(t: Any) -> Any:
        return t.nn.Sequential(t.nn.Linear(3, 2), t.nn.BatchNorm1d(2), t.nn.Linear(2, 1, bias=False))

    theirs = model(oracle).state_dict()
    loaded = from_torch(theirs, oracle)
    assert type(loaded) is collections.OrderedDict
    assert list(loaded) == list(theirs) and loaded._metadata == theirs._metadata
    for name, tensor in theirs.items():
        assert_tensor(loaded[name], tensor)
    ours = model(lohe)
    ours.load_state_dict(loaded)
    back = to_torch(ours.state_dict(), oracle)
    assert list(back) == list(theirs) and back._metadata == theirs._metadata
    model(oracle).load_state_dict(back)


def test_optimizer_state_goes_both_ways(oracle: Any) -> None:
    def trained(t: Any) -> Any:
        parameter = t.nn.Parameter(t.tensor([1.0, -2.0]))
        optimizer = t.optim.AdamW([parameter], lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            (parameter * parameter).sum().backward()
            optimizer.step()
        return optimizer

    ours, theirs = trained(lohe), trained(oracle)
    loaded = from_torch(theirs.state_dict(), oracle)
    assert loaded["param_groups"][0]["betas"] == (0.9, 0.999)
    trained(lohe).load_state_dict(loaded)
    trained(oracle).load_state_dict(to_torch(ours.state_dict(), oracle))


def test_tensors_that_share_memory_share_it_afterwards(oracle: Any) -> None:
    base = lohe.arange(6.0)
    loaded = through_lohe({"base": base, "view": base[2:4], "same": base})
    assert loaded["same"] is loaded["base"]
    loaded["view"].zero_()
    assert loaded["base"].tolist() == [0, 1, 0, 0, 4, 5]
    theirs = to_torch([base, base[2:4]], oracle)
    theirs[1].zero_()
    assert theirs[0].tolist() == [0, 1, 0, 0, 4, 5]
    a = oracle.arange(4.0)
    ours = from_torch([a, a[1:]], oracle)
    ours[1].zero_()
    assert ours[0].tolist() == [0, 0, 0, 0]


def test_parameters_buffers_and_attributes(oracle: Any) -> None:
    parameter = lohe.nn.Parameter(lohe.ones(2), requires_grad=False)
    parameter.note = "x"
    plain = lohe.ones(1)
    plain.tag = [1, "two"]
    loaded = through_lohe([parameter, plain, lohe.nn.Buffer(lohe.zeros(1))])
    assert type(loaded[0]) is lohe.nn.Parameter and not loaded[0].requires_grad and loaded[0].note == "x"
    assert type(loaded[1]) is lohe.Tensor and loaded[1].tag == [1, "two"]
    assert isinstance(loaded[2], lohe.nn.Buffer) and loaded[2].persistent
    theirs = to_torch(lohe.nn.Parameter(lohe.ones(2)), oracle)
    assert type(theirs) is oracle.nn.Parameter and theirs.requires_grad
    ours = from_torch(oracle.nn.Parameter(oracle.ones(2)), oracle)
    assert type(ours) is lohe.nn.Parameter and ours.requires_grad and ours.is_leaf


def plain_data() -> dict:
    shared = [1, 2]
    ordered = collections.OrderedDict(a=1, b=2)
    ordered.move_to_end("a")
    return {
        "none": None,
        "bools": (True, False),
        "ints": [0, -1, 255, 2**31, -(2**63), 2**63, 2**200, -(2**200)],
        "floats": [0.5, -0.0, float("inf"), 1e-310],
        "complex": 1 + 2j,
        "text": "grün \N{GRINNING FACE}\udc80\0",
        "bytes": bytes(range(256)),
        b"key": bytearray(b"ab"),
        (1, ("x",)): set(range(3)),
        1.5: [],
        7: {"": ()},
        "ordered": ordered,
        "counter": collections.Counter("aab"),
        "shared": [shared, shared],
    }


def test_plain_data_is_equal_and_keeps_types_order_and_identity() -> None:
    expected = plain_data()
    expected["default"] = collections.defaultdict(list, x=[1])
    expected["frozen"] = frozenset({1, 2})
    loaded = through_lohe(expected)
    assert loaded == expected and list(loaded) == list(expected)
    assert [type(v) for v in loaded.values()] == [type(v) for v in expected.values()]
    assert list(loaded["ordered"]) == ["b", "a"]
    assert loaded["shared"][0] is loaded["shared"][1]
    assert loaded["default"].default_factory is list


def test_plain_data_goes_both_ways(oracle: Any) -> None:
    expected = plain_data()
    assert from_torch(expected, oracle) == expected
    expected.pop(b"key")  # PyTorch's safe reader knows no bytearray
    assert to_torch(expected, oracle) == expected


def test_sizes_dtypes_devices_layouts_and_storages(oracle: Any) -> None:
    value = [lohe.Size([2, 3]), lohe.bfloat16, lohe.device("cpu"), lohe.strided, lohe.UntypedStorage(b"abc")]
    loaded = through_lohe(value)
    assert loaded[:4] == value[:4] and type(loaded[0]) is lohe.Size
    assert loaded[4].tolist() == [97, 98, 99]
    theirs = to_torch(value[:3], oracle)
    assert theirs == [oracle.Size([2, 3]), oracle.bfloat16, oracle.device("cpu")]


@pytest.mark.parametrize("mmap", [None, False, True])
def test_paths_and_mapped_files(tmp_path: Path, mmap: bool | None) -> None:
    path = tmp_path / "größe.pt"
    lohe.save({"a": lohe.arange(1000.0)}, path)
    before = path.read_bytes()
    for name in (path, str(path)):
        tensor = lohe.load(name, mmap=mmap)["a"]
        tensor += 1
        assert tensor[:3].tolist() == [1, 2, 3]
    assert path.read_bytes() == before  # pages that are written become copies
    assert sorted(p.name for p in tmp_path.iterdir()) == ["größe.pt"]
    path.unlink()
    assert tensor.sum().item() == 1000 * 999 / 2 + 1000


def test_a_loaded_tensor_can_be_resized_and_trained() -> None:
    tensor = through_lohe(lohe.ones(2))
    tensor.resize_(5000)
    assert tensor[:2].tolist() == [1, 1]
    tensor = through_lohe(lohe.ones(2, requires_grad=True))
    (tensor * 3).sum().backward()
    assert tensor.grad.tolist() == [3, 3]


def test_map_location(oracle: Any) -> None:
    buffer = io.BytesIO()
    oracle.save([oracle.ones(2)], buffer)
    for place in ("cpu", lohe.device("cpu"), {"cuda:0": "cpu"}, lambda storage, location: storage):
        buffer.seek(0)
        assert lohe.load(buffer, map_location=place)[0].tolist() == [1, 1]
    seen = []
    buffer.seek(0)
    other = lohe.load(buffer, map_location=lambda storage, location: seen.append(location) or lohe.UntypedStorage(8))
    assert seen == ["cpu"] and other[0].shape == (2,)
    buffer.seek(0)
    with pytest.raises(RuntimeError, match="cuda:1"):
        lohe.load(buffer, map_location="cuda:1")
    buffer.seek(0)
    with pytest.raises(TypeError, match="UntypedStorage"):
        lohe.load(buffer, map_location=lambda storage, location: 3)
    buffer.seek(0)
    with pytest.raises(KeyError):
        lohe.load(buffer, map_location=lambda storage, location: {}["x"])


class Custom:
    pass


class Model(lohe.nn.Module):
    pass


class IntSubclass(int):
    pass


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Custom(), "Custom"),
        (lambda: 1, "function"),
        (Model(), r"state_dict\(\)"),
        (IntSubclass(3), "IntSubclass"),
        (Custom, "type"),
        (collections.namedtuple("Point", "x")(1), "Point"),
        (collections.defaultdict(lambda: 1), "default_factory"),
        ({"a": [object()]}, "object"),
    ],
    ids=lambda v: "" if not isinstance(v, str) else v,
)
def test_objects_that_cannot_be_read_without_code_are_refused(value: Any, text: str, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=text):
        lohe.save(value, tmp_path / "x.pt")
    assert list(tmp_path.iterdir()) == []


def test_rings_and_deep_nesting_are_refused_without_a_crash() -> None:
    ring: list = []
    ring.append({"a": ring})
    with pytest.raises(ValueError, match="contains itself"):
        lohe.save(ring, io.BytesIO())
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValueError, match="deeper"):
        lohe.save(deep, io.BytesIO())
    while deep:
        deep = deep[0]


def test_one_storage_of_two_dtypes_is_refused_as_by_torch() -> None:
    t = lohe.zeros(2)
    with pytest.raises(RuntimeError, match="different types"):
        lohe.save([t, t.view(lohe.int32)], io.BytesIO())


def test_hooks_are_left_behind_with_a_warning() -> None:
    t = lohe.ones(1, requires_grad=True)
    t.register_hook(lambda g: g)
    with pytest.warns(UserWarning, match="hook"):
        through_lohe(t)


def test_misuse_of_arguments(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        lohe.load(tmp_path / "missing.pt")
    with pytest.raises(IsADirectoryError):
        lohe.load(tmp_path)
    with pytest.raises(RuntimeError, match="does not exist"):
        lohe.save(1, tmp_path / "no" / "x.pt")
    with pytest.raises(NotImplementedError, match="weights_only"):
        lohe.load(tmp_path / "x.pt", weights_only=False)
    with pytest.raises(RuntimeError, match="pickle_module"):
        lohe.load(tmp_path / "x.pt", pickle_module=pickle)
    with pytest.raises(ValueError, match="mmap"):
        lohe.load(io.BytesIO(), mmap=True)
    with pytest.raises(AttributeError, match="read"):
        lohe.load(3)
    with pytest.raises(AttributeError, match="write"):
        lohe.save(1, 3)
    with pytest.raises(NotImplementedError):
        lohe.save(1, io.BytesIO(), _use_new_zipfile_serialization=False)


class _BrokenFile:
    def write(self, data: bytes) -> int:
        raise OSError("disk full")


def test_an_error_of_the_file_object_comes_through() -> None:
    with pytest.raises(OSError, match="disk full"):
        lohe.save(lohe.ones(3), _BrokenFile())


class _Evil:
    def __reduce__(self) -> tuple:
        return (print, ("executed",))


def test_a_file_that_names_code_is_refused_and_nothing_runs(oracle: Any, capsys: Any) -> None:
    buffer = io.BytesIO()
    oracle.save({"a": _Evil()}, buffer)
    buffer.seek(0)
    with pytest.raises(pickle.UnpicklingError, match="print"):
        lohe.load(buffer)
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"hello", pickle.dumps([1]), b"\x80\x02." * 40])
def test_content_that_is_no_such_file(content: bytes) -> None:
    with pytest.raises(RuntimeError):
        lohe.load(io.BytesIO(content))


def test_a_file_cut_or_changed_anywhere_raises_an_error_or_loads() -> None:
    buffer = io.BytesIO()
    lohe.save({"w": lohe.arange(4.0), "n": [1, "x", (2.5, None)]}, buffer)
    content = buffer.getvalue()
    allowed = (RuntimeError, ValueError, TypeError, pickle.UnpicklingError)
    for end in range(0, len(content), 7):
        with pytest.raises(allowed):
            lohe.load(io.BytesIO(content[:end]))
    for at in range(0, len(content), 3):
        changed = bytearray(content)
        changed[at] ^= 0x55
        try:
            lohe.load(io.BytesIO(bytes(changed)))
        except allowed:
            pass


def rewritten(content: bytes, edit: Any) -> bytes:
    """The archive with another data.pkl."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        for item in old.infolist():
            data = old.read(item)
            new.writestr(item.filename, edit(data) if item.filename.endswith("data.pkl") else data)
    return out.getvalue()


def test_a_tensor_that_claims_more_than_its_storage_is_refused() -> None:
    buffer = io.BytesIO()
    lohe.save(lohe.zeros(5), buffer)
    forged = rewritten(buffer.getvalue(), lambda p: p.replace(b"K\x05\x85", b"K\x7f\x85"))
    with pytest.raises(RuntimeError, match="reaches element"):
        lohe.load(io.BytesIO(forged))


def test_safetensors_go_both_ways(oracle: Any, tmp_path: Path) -> None:
    theirs_module = pytest.importorskip("safetensors.torch")
    names = [name for name in DTYPES if name != "complex128"]
    ours = {n: lohe.tensor([0, 1, 1, 0]).to(getattr(lohe, n)).reshape(2, 2) for n in names}
    safetensors.save_file(ours, tmp_path / "ours.safetensors", metadata={"format": "pt"})
    loaded = theirs_module.load_file(tmp_path / "ours.safetensors")
    assert set(loaded) == set(ours)
    for name in names:
        assert_tensor(ours[name], loaded[name])
    theirs_module.save_file(loaded, tmp_path / "theirs.safetensors")
    back = safetensors.load_file(tmp_path / "theirs.safetensors")
    for name in names:
        assert_tensor(back[name], ours[name])
    assert theirs_module.load(safetensors.save(ours)).keys() == ours.keys()
    assert safetensors.load(theirs_module.save(loaded)).keys() == ours.keys()
    with safetensors.safe_open(tmp_path / "ours.safetensors", framework="pt") as f:
        assert f.metadata() == {"format": "pt"}
        assert f.keys() == sorted(ours)
        assert f.get_tensor("float32").tolist() == [[0, 1], [1, 0]]
        assert f.get_slice("int8")[1:].tolist() == [[1, 0]]
        with pytest.raises(safetensors.SafetensorError):
            f.get_tensor("nothing")


def test_safetensors_that_cannot_be_written_or_read(tmp_path: Path) -> None:
    t = lohe.arange(6.0).reshape(2, 3)
    for bad in ({"a": t.t()}, {"a": t, "b": t}, {"a": t.to(lohe.complex128)}):
        with pytest.raises(safetensors.SafetensorError):
            safetensors.save_file(bad, tmp_path / "x.safetensors")
    with pytest.raises(TypeError):
        safetensors.save_file({"a": 3}, tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == []
    for content in (b"", struct.pack("<Q", 2**60), struct.pack("<Q", 3) + b"{}}", struct.pack("<Q", 2) + b"{}junk"):
        with pytest.raises(safetensors.SafetensorError):
            safetensors.load(content)
    with pytest.raises(FileNotFoundError):
        safetensors.load_file(tmp_path / "missing.safetensors")


def test_a_loaded_safetensors_file_can_be_written_in_memory_only(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    safetensors.save_file({"a": lohe.zeros(3)}, path)
    before = path.read_bytes()
    loaded = safetensors.load_file(path)["a"]
    loaded += 1
    assert loaded.tolist() == [1, 1, 1] and path.read_bytes() == before
