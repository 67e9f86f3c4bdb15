"""Runs one of these programs on PyTorch, to compare.

usage: python examples/on_torch.py PROGRAM.py [ARGUMENT...]

The programs say `import lohe as torch`. Here, and nowhere else, that name is given to PyTorch: the same lines run.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        raise SystemExit(__doc__)
    import torch  # noqa: F401

    for name in [name for name in sys.modules if name == "torch" or name.startswith("torch.")]:
        sys.modules["lohe" + name[len("torch") :]] = sys.modules[name]
    program = Path(sys.argv[1]).resolve()
    del sys.argv[0]
    sys.path[0] = str(program.parent)
    runpy.run_path(str(program), run_name="__main__")


if __name__ == "__main__":
    main()
