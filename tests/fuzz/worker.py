"""Runs programs in Lohe on request, so that a crash or a hang ends this process and not the search.

Reads pickled ``(program, threads, gradients)`` from standard input, each after its length in eight bytes, and answers
with the pickled trace in the same form.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import sys
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))


def unobserved(machine: Any, program: Any, recorded: bool, seed: int) -> object:
    """Recorded work is settled after some steps, which the seed chooses; a second time it is done by compiled programs."""
    import lohe

    rng = random.Random(seed)
    often = rng.choice((0.0, 0.1, 0.5))

    def settle() -> None:
        if recorded and rng.random() < often:
            lohe._C._record_settle()

    scope = lohe.compiler.lazy() if recorded else contextlib.nullcontext()
    return machine.run_unobserved(program, scope, settle)


def main() -> None:
    channel = os.dup(1)
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    import lohe
    from program import Machine

    rows = [dict(row) for row in lohe._C.op_table()]
    reader = sys.stdin.buffer
    while header := reader.read(8):
        request = pickle.loads(reader.read(int.from_bytes(header, "little")))
        if request == "rows":
            answer: object = rows
        else:
            program, threads, how = request
            lohe.set_num_threads(threads)
            if isinstance(how, bool):
                answer = Machine(lohe, error_checks=True).run(program, how)
            else:
                answer = unobserved(Machine(lohe), program, *how)
        data = pickle.dumps(answer)
        with os.fdopen(os.dup(channel), "wb") as out:
            out.write(len(data).to_bytes(8, "little") + data)


if __name__ == "__main__":
    main()
