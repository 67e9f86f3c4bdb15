#!/usr/bin/env python3
"""Random functions and training steps through compile(replay=True), against running them again: bits, versions, views,
gradients, states of optimizers. Every fourth seed is a training step.

Exit status: 0 when nothing was found, 1 otherwise.
"""

from __future__ import annotations

import argparse
import sys

import lohe
from replayed import check_function, check_training
from seeds import add_options, seeds


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/fuzz replay", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, "program")
    options = parser.parse_args()
    done = calls = failed = 0
    for seed in seeds(options):
        try:
            calls += check_training(seed) if seed % 4 == 0 else check_function(seed)
        except Exception as error:
            failed += 1
            print(f"seed {seed}: {type(error).__name__}: {error}", flush=True)
            if failed == options.most:
                break
        done += 1
        if done % 64 == 0:
            lohe.compiler.reset()
    print(f"{done} programs, {calls} calls replayed, {failed} differ")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
