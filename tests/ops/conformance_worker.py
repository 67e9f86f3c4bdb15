"""The process that runs cases for ``conformance.py``; it may die, its parent goes on.

Reads one JSON request a line from standard input and writes JSON lines to what was standard output:
``["run", id]`` before a case, ``["turn", id]`` when PyTorch is done with it, then ``["ok", id]``, ``["skip",
id, why]``, ``["fail", id, [[class, message], ...]]`` or ``["digest", id, hash]``; ``["broken", entry, why]``
when an entry's samples cannot be made; ``["end", entry]``.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import os
import resource
import sys
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

ADDRESS_SPACE = 24 << 30  # bytes; a result of absurd size raises instead of taking the machine down


def open_channel() -> int:
    """The descriptor of standard output, which then leads to standard error instead: libraries print."""
    channel = os.dup(1)
    os.dup2(2, 1)
    return channel


def import_product() -> Any:
    """The installed ``lohe``, or this source tree's; raises ``ModuleNotFoundError`` without either."""
    if importlib.util.find_spec("lohe") is None:
        sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "python"))
    module = importlib.import_module("lohe")
    if not hasattr(module, "Tensor"):
        raise ModuleNotFoundError(
            "lohe is not built; build it and put the package on PYTHONPATH", name="lohe"
        )
    return module


def main() -> None:
    channel = open_channel()
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")

    def send(*message: Any) -> None:
        os.write(channel, (json.dumps(message) + "\n").encode())

    import torch
    from conformance_bridge import Unsupported
    from conformance_cases import DTYPES, Enumeration, database, dtype_name
    from conformance_compare import Comparison, Difference

    torch.set_num_threads(1)
    module = import_product()
    entries = database()
    comparison = Comparison(module)
    for line in sys.stdin:
        request = json.loads(line)
        if request.get("threads"):
            module.set_num_threads(request["threads"])
        dtypes = tuple(d for d in DTYPES if dtype_name(d) in request["dtypes"])
        enumeration = Enumeration(dtypes, request["limit"], request["fraction"], request["seed"])
        entry, after = request["entry"], request.get("after")
        op = entries[entry]
        try:
            for case in enumeration.cases(entry, op):
                if after is not None:
                    after = None if case.id == after else after
                    continue
                send("run", case.id)
                try:
                    if request["digest"]:
                        send("digest", case.id, comparison.digest(op, case))
                        continue
                    found = comparison.compare(op, case, functools.partial(send, "turn", case.id))
                except Unsupported as reason:
                    send("skip", case.id, str(reason))
                    continue
                except Exception as error:  # noqa: BLE001 - results that cannot even be read are a failure
                    found = [
                        Difference("structure", f"reading the result: {type(error).__name__}: {error}"[:400])
                    ]
                if found:
                    send("fail", case.id, [[d.kind, d.message] for d in found])
                else:
                    send("ok", case.id)
        except Exception as error:  # noqa: BLE001 - generators of samples belong to the database
            send("broken", entry, f"{type(error).__name__}: {error}"[:400])
        send("end", entry)


if __name__ == "__main__":
    main()
