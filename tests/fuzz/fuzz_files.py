#!/usr/bin/env python3
"""Damaged and forged files: mutations of .pt and safetensors files, read by `load` and `lohe.safetensors`.

A file must either be read or be refused by a clear error: no crash, no hang, no code of the file's, no memory beyond what
the file backs. Files are mutated as bytes, and below their checksums: the pickle inside a .pt archive, the header of a
safetensors file. A failing file is shrunk to the fewest changes that still fail and written beside its seed.

Exit status: 0 when nothing was found, 1 otherwise.
"""

from __future__ import annotations

import argparse
import collections
import io
import json
import os
import pickle
import random
import struct
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from seeds import add_options, seeds

HERE = Path(__file__).resolve().parent
SLOW_SECONDS = 5.0
MEMORY_FACTOR, MEMORY_BASE = 8, 32 << 20  # bytes that reading a file may take: base + factor x its size
REFUSALS = (RuntimeError, ValueError, EOFError, pickle.UnpicklingError, OSError, KeyError, TypeError, NotImplementedError)
READERS = ("load", "load mapped", "load stream", "safetensors file", "safetensors bytes", "safetensors open")
INTERESTING = (0, 1, -1, 127, 128, 255, 256, 32767, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, -(2**63))

# One change of a file: (kind, place, value). Place is a fraction of the length, so that it means something in any file.
Change = tuple[str, float, Any]


# ---- files to start from


def sources() -> dict[str, bytes]:
    """Sound files, small so that a change hits something."""
    import lohe
    import lohe.nn
    import lohe.safetensors

    def saved(value: Any) -> bytes:
        stream = io.BytesIO()
        lohe.save(value, stream)
        return stream.getvalue()

    base = lohe.arange(24.0).reshape(4, 6)
    model = lohe.nn.Sequential(lohe.nn.Linear(3, 4), lohe.nn.BatchNorm1d(4))
    optimizer = lohe.optim.AdamW(model.parameters())
    model(lohe.ones(2, 3)).sum().backward()
    optimizer.step()
    views = {"base": base, "row": base[1], "turned": base.t(), "half": base.half(), "empty": lohe.empty(0, 3)}
    plain = {"n": 1, "big": 2**70, "text": "häh", "list": [1.5, None, True, (2, "x")], "set": {1, 2}, "bytes": b"abc"}
    tensors = {"a": lohe.arange(6.0).reshape(2, 3), "b": lohe.ones(4, dtype=lohe.int64), "c": lohe.zeros(0, 2)}
    return {
        "state.pt": saved({"model": model.state_dict(), "optimizer": optimizer.state_dict()}),
        "views.pt": saved(views),
        "plain.pt": saved(plain),
        "parameter.pt": saved(lohe.nn.Parameter(lohe.ones(2, 2))),
        "tensors.safetensors": lohe.safetensors.save(tensors, {"format": "pt", "note": "x"}),
    }


# ---- changes


def random_change(rng: random.Random, layers: tuple[str, ...]) -> Change:
    layer = rng.choice(layers)
    place = rng.random() ** (2 if rng.random() < 0.5 else 1)  # heads and tails of files matter more
    place = 1 - place if layer == "file" and rng.random() < 0.4 else place
    kind = rng.choice(["bit", "bit", "byte", "byte", "int", "cut", "drop", "repeat", "insert", "swap"])
    value: Any = None
    if kind == "bit":
        value = rng.randrange(8)
    elif kind == "byte":
        value = rng.choice([rng.randrange(256), *b"\x00\xff.(}]tRcqX\x80\x81\x8a\x94", *b'{}[]",:0-9'])
    elif kind == "int":
        value = (rng.choice(["<H", "<I", "<Q", ">I"]), rng.choice(INTERESTING))
    elif kind in ("drop", "repeat", "insert", "swap"):
        value = (rng.randint(1, 40), rng.random(), bytes(rng.randrange(256) for _ in range(4)))
    return f"{layer}:{kind}", place, value


def changed(data: bytes, kind: str, place: float, value: Any) -> bytes:
    if not data:
        return data
    at, out = min(int(place * len(data)), len(data) - 1), bytearray(data)
    if kind == "bit":
        out[at] ^= 1 << value
    elif kind == "byte":
        out[at] = value
    elif kind == "int":
        form, number = value
        size = struct.calcsize(form)
        out[at : at + size] = struct.pack(form, number & (2 ** (8 * size) - 1))
    elif kind == "cut":
        del out[at:]
    else:
        count, other, raw = value
        if kind == "drop":
            del out[at : at + count]
        elif kind == "repeat":
            out[at:at] = out[at : at + count] * (1 + int(other * 50))
        elif kind == "insert":
            out[at:at] = raw
        elif kind == "swap":
            to = int(other * len(out))
            out[at : at + count], out[to : to + count] = out[to : to + count], out[at : at + count]
    return bytes(out)


def apply(name: str, data: bytes, changes: list[Change]) -> bytes:
    """The file after its changes: those below the checksums first."""
    inner = [c for c in changes if not c[0].startswith("file:")]
    if inner and name.endswith(".pt"):
        stream = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as new:
            for number, info in enumerate(old.infolist()):
                content, entry = old.read(info), info.filename
                for layer, place, value in inner:
                    where, kind = layer.split(":")
                    if where == "pickle" and entry.endswith("data.pkl"):
                        content = changed(content, kind, place, value)
                    elif where == "name" and number == int(place * 1000) % len(old.infolist()):
                        entry = changed(entry.encode(), kind, place, value).decode("latin-1").replace("\0", "_") or "_"
                new.writestr(entry, content)
        data = stream.getvalue()
    elif inner:
        size = int.from_bytes(data[:8], "little")
        header = data[8 : 8 + size]
        for layer, place, value in inner:
            header = changed_header(header, place, value) if layer.startswith("name:") else changed(header, layer.split(":")[1], place, value)
        data = len(header).to_bytes(8, "little") + header + data[8 + size :]
    for layer, place, value in changes:
        if layer.startswith("file:"):
            data = changed(data, layer.split(":")[1], place, value)
    return data


def changed_header(header: bytes, place: float, value: Any) -> bytes:
    """A safetensors header that is still JSON: one of its values replaced."""
    try:
        table = json.loads(header)
    except ValueError:
        return header
    if not isinstance(table, dict) or not table:
        return header
    rng = random.Random(repr((place, value)))
    key = rng.choice(sorted(table))
    entry = table[key]
    if isinstance(entry, dict) and entry:
        field = rng.choice(sorted(entry))
        wrong = [*INTERESTING, None, True, 1.5, "F64", "", [], [2**62, 2**62], [-1], [0, 2**40], {}, [[]]]
        if isinstance(entry[field], list) and entry[field] and rng.random() < 0.6:
            entry[field][rng.randrange(len(entry[field]))] = rng.choice(wrong)
        else:
            entry[field] = rng.choice(wrong)
    else:
        table[key] = rng.choice([None, [], "x", 3])
    return json.dumps(table).encode()


# ---- reading, in a process of its own


def touch(value: Any, depth: int = 0) -> int:
    """Reads every element that the file gives access to."""
    import lohe
    import lohe.nn
    import lohe.safetensors

    if isinstance(value, lohe.Tensor):
        if value.numel() <= 1 << 20:
            value.detach().resolve_conj().resolve_neg().reshape(-1).tolist()
        return value.untyped_storage().nbytes()
    if depth > 200:
        return 0
    if isinstance(value, dict):
        return sum(touch(k, depth + 1) + touch(v, depth + 1) for k, v in value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return sum(touch(v, depth + 1) for v in value)
    return 0


def read(reader: str, path: str, data: bytes) -> Any:
    import lohe
    import lohe.nn
    import lohe.safetensors

    if reader == "load":
        return lohe.load(path)
    if reader == "load mapped":
        return lohe.load(path, mmap=True)
    if reader == "load stream":
        return lohe.load(io.BytesIO(data))
    if reader == "safetensors file":
        return lohe.safetensors.load_file(path)
    if reader == "safetensors bytes":
        return lohe.safetensors.load(data)
    with lohe.safetensors.safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict


def work() -> None:
    """Answers lines ``reader<TAB>path`` with one line of JSON: what came of it, seconds, peak bytes."""
    import lohe
    import lohe.nn
    import lohe.safetensors

    channel = os.dup(1)
    os.dup2(2, 1)
    watching, seen = False, []

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event in ("exec", "compile", "os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "import", "pickle.find_class", "socket.connect"):
            seen.append(f"{event} {arguments!r}"[:200])

    lohe.safetensors.load(lohe.safetensors.save({"a": lohe.ones(1)}))
    stream = io.BytesIO()
    lohe.save(lohe.ones(1), stream)
    lohe.load(io.BytesIO(stream.getvalue()))
    sys.addaudithook(audit)
    for line in sys.stdin:
        reader, path = line.rstrip("\n").split("\t")
        data = Path(path).read_bytes()
        lohe.cpu.reset_peak_memory_stats()
        before, start, result = lohe.cpu.memory_stats()["allocated_bytes"], time.monotonic(), ""
        watching, seen[:] = True, []
        try:
            touch(read(reader, path, data))
            result = "read"
        except REFUSALS as error:
            result = f"refused {type(error).__name__}"
            if "tried to allocate" in str(error):
                result = f"memory {error}"
            elif "INTERNAL" in str(error) or not str(error):
                result = f"unclear {error!r}"
        except BaseException as error:  # noqa: BLE001 - whatever else it is, it is a finding
            result = f"raised {type(error).__name__}: {error}"
        watching = False
        ran = [event for event in seen if not event.startswith("import")]
        if ran:
            result = f"ran code: {ran}"
        peak = lohe.cpu.memory_stats()["peak_allocated_bytes"] - before
        os.write(channel, (json.dumps([result, time.monotonic() - start, peak]) + "\n").encode())


class Reader:
    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def problem(self, reader: str, path: Path) -> str | None:
        """What is wrong with how the file was read."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).resolve()), "--work"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL, text=True,
            )  # fmt: skip
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(f"{reader}\t{path}\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._process = None
            return f"crash: status {process.wait()}"
        result, seconds, peak = json.loads(line)
        if not result.startswith(("read", "refused")):
            return result
        if seconds > SLOW_SECONDS:
            return f"slow: {seconds:.1f} s, {result}"
        if peak > MEMORY_BASE + MEMORY_FACTOR * path.stat().st_size:
            return f"memory: {peak} bytes for a file of {path.stat().st_size}, {result}"
        self.last = result
        return None

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def shrink(changes: list[Change], fails: Callable[[list[Change]], bool]) -> list[Change]:
    for change in list(changes):
        fewer = [c for c in changes if c is not change]
        if fewer and fails(fewer):
            changes = fewer
    return changes


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tools/fuzz files", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, "file")
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()), metavar="FOLDER", help="where failing files go")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.work:
        work()
        return 0
    warnings.simplefilter("ignore")  # zipfile's, about names that a change made equal
    originals, reader = sources(), Reader()
    done, found = 0, 0
    outcomes: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        for seed in seeds(options):
            done += 1
            rng = random.Random(seed)
            name = rng.choice(sorted(originals))
            layers = ("file", "pickle", "pickle", "pickle", "name") if name.endswith(".pt") else ("file", "header", "header", "name", "name")
            changes = [random_change(rng, layers) for _ in range(rng.choice([1, 1, 2, 3, 5]))]
            how = rng.choice([r for r in READERS if r.startswith("load" if name.endswith(".pt") else "safetensors")])

            def problem(some: list[Change], name: str = name, how: str = how) -> str | None:
                path.write_bytes(apply(name, originals[name], some))
                return reader.problem(how, path)

            what = problem(changes)
            if what is None:
                outcomes[reader.last] += 1
            else:
                found += 1
                kind = what.split(":")[0]
                changes = shrink(changes, lambda some, kind=kind: (problem(some) or "").startswith(kind))
                problem(changes)
                kept = options.keep / f"lohe_fuzz_{seed}_{name}"
                kept.write_bytes(path.read_bytes())
                print(f"\n=== seed {seed}: {how} of {name} after {changes}: {what}\nthe file: {kept}", flush=True)
                if found == options.most:
                    break
    reader.close()
    print(f"{done} files, {found} findings; {dict(outcomes)}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
