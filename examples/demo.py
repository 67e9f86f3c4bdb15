"""Trains three models with Lohe, draws their loss curves and ends with a table of what was measured.

  gpt   a character-level GPT on Shakespeare's plays, then a page of its own writing (minutes)
  cnn   a convolutional network on scikit-learn's handwritten digits (seconds)
  cpp   the same network trained by a C++ program that says find_package(lohe) (seconds, and its build)

Everything goes into demo/. Interrupt or kill it at any moment: started again it goes on from the last checkpoint, and
its losses and weights end up bit-equal to those of a run that was left alone.

  tools/demo                    all three
  tools/demo --quick            the same with few steps
  tools/demo --only gpt         one of them (may be given more than once)
  tools/demo --compare          each program again on PyTorch: a column to compare with
  tools/demo --only cnn --die-at 500; tools/demo --only cnn
                                killed with signal 9 after step 500, then resumed
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.report import draw_losses, table

HERE = Path(__file__).resolve().parent
FOLDER = HERE.parent / "demo"
PYTHON_PROGRAMS = {"gpt": "char_gpt", "cnn": "digits_cnn"}
PYTORCH = "torch==2.13.0"


def call(*command: str | Path, quiet: bool = False) -> None:
    """Runs a command; ends the demo with its name where it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(words, stdout=subprocess.PIPE if quiet else None, stderr=subprocess.STDOUT if quiet else None)
    if done.returncode == -signal.SIGKILL:
        raise SystemExit(f"{Path(words[-1]).name if quiet else 'the program'} was killed; run the same command without "
                         "--die-at to see it go on")
    if done.returncode:
        if quiet:
            sys.stdout.buffer.write(done.stdout)
        raise SystemExit(f"failed with status {done.returncode}: {' '.join(words)}")


def folder_of(program: str, framework: str, quick: bool) -> Path:
    return FOLDER / (program + ("-quick" if quick else "")) / framework


def run_python(program: str, framework: str, options: argparse.Namespace, words: list[str]) -> Path:
    folder = folder_of(program, framework, options.quick)
    launcher = [HERE / "on_torch.py"] if framework == "torch" else []
    call(sys.executable, *launcher, HERE / f"{program}.py", "--out", folder, *words)
    return folder


def build_cpp(framework: str, options: argparse.Namespace) -> Path:
    """Configures and builds examples/cpp against the installed library; returns the program."""
    if framework == "torch":
        import torch

        prefix = Path(torch.utils.cmake_prefix_path)
    else:
        prefix = options.prefix
    build = FOLDER / "build" / framework
    print(f"building examples/cpp against {framework} ...", flush=True)
    call("cmake", "-S", HERE / "cpp", "-B", build, "-DCMAKE_BUILD_TYPE=Release", f"-DCMAKE_PREFIX_PATH={prefix}",
         f"-DDIGITS_FRAMEWORK={framework}", quiet=True)
    call("cmake", "--build", build, "-j2", quiet=True)
    return build / "digits"


def run_cpp(framework: str, options: argparse.Namespace, words: list[str]) -> Path:
    from support.digits import export

    export(FOLDER / "data" / "digits")
    folder = folder_of("digits_cpp", framework, options.quick)
    call(build_cpp(framework, options), "--data", FOLDER / "data" / "digits", "--out", folder, *words)
    draw_losses(folder / "loss.png", [json.loads((folder / "result.json").read_text())])
    return folder


def require_pytorch() -> None:
    if importlib.util.find_spec("torch") is None:
        print(f"installing {PYTORCH} for the comparison (the CPU build is enough) ...", flush=True)
        call(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", PYTORCH)


def closing_table(results: list[dict[str, Any]]) -> str:
    rows = []
    for result in results:
        (name, value), *_ = result["quality"].items()
        rows.append([
            result["program"],
            f"{result['framework']} {result['version'].split('+')[0]}",
            f"{name} {value:.4f}",
            f"{result['per_second']:,.0f} {result['unit']}/s",
            f"{result['seconds']:.1f} s",
            f"{result['peak_bytes'] / 2**20:,.0f} MiB",
        ])
    return table(["program", "framework", "result", "training speed", "training", "peak memory"], rows)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tools/demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", choices=("gpt", "cnn", "cpp"), metavar="gpt|cnn|cpp",
                        help="one of the three; may be given more than once")
    parser.add_argument("--quick", action="store_true", help="a few seconds for each program")
    parser.add_argument("--compare", action="store_true", help=f"also on PyTorch ({PYTORCH}, installed when missing)")
    parser.add_argument("--fresh", action="store_true", help="start over instead of going on from checkpoints")
    parser.add_argument("--die-at", type=int, metavar="N", help="each program kills itself (kill -9) after step N")
    prefix = os.environ.get("LOHE_PREFIX")
    parser.add_argument("--prefix", type=Path, default=Path(prefix) if prefix else None,
                        help="where find_package(lohe) looks (default: the package of this Python)")
    return parser.parse_args()


def main() -> None:
    options = parse()
    if options.prefix is None and "cpp" in (options.only or ["cpp"]):
        import lohe.utils

        options.prefix = Path(lohe.utils.cmake_prefix_path)
    if options.compare:
        require_pytorch()
    words = ["--quick"] * options.quick + ["--fresh"] * options.fresh
    if options.die_at is not None:
        words += ["--die-at", str(options.die_at)]
    results = []
    for key in options.only or ["gpt", "cnn", "cpp"]:
        of_this = []
        for framework in ["lohe", "torch"] if options.compare else ["lohe"]:
            if key == "cpp":
                folder = run_cpp(framework, options, words)
            else:
                folder = run_python(PYTHON_PROGRAMS[key], framework, options, words)
            of_this.append(json.loads((folder / "result.json").read_text()))
        if options.compare:
            draw_losses(folder.parent / "loss.png", of_this)
        results += of_this
    print("\n" + closing_table(results))
    print(f"\nPeak memory is above what was resident after the imports. Loss curves: {FOLDER}/*/*/loss.png")


if __name__ == "__main__":
    main()
