"""Runs programs in Lohe on request, so that a crash or a hang ends this process and not the search.

Reads pickled ``(program, threads, gradients)`` from standard input, each after its length in eight bytes, and answers
with the pickled trace in the same form.
"""

from __future__ import annotations

import os
import pickle
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))


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
            program, threads, gradients = request
            lohe.set_num_threads(threads)
            answer = Machine(lohe, error_checks=True).run(program, gradients)
        data = pickle.dumps(answer)
        with os.fdopen(os.dup(channel), "wb") as out:
            out.write(len(data).to_bytes(8, "little") + data)


if __name__ == "__main__":
    main()
