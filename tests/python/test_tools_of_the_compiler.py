"""What lets one look at the compiler: dumps of its stages, the folder of kernels."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import lohe as torch

f = torch.compile(lambda x: (x * 3 + 0.12345).sin().sum())
for _ in range(3):
    f(torch.ones(50))
"""


def _run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env={**os.environ, **variables}, check=False
    )


@pytest.mark.eager
def test_every_stage_can_be_dumped(tmp_path: Path) -> None:
    folder, cache = tmp_path / "ir", tmp_path / "cache"
    done = _run("-c", PROGRAM, LOHE_DUMP_IR=str(folder), LOHE_CACHE_DIR=str(cache))
    assert done.returncode == 0, done.stderr
    by_stage: dict[str, str] = {}
    for path in sorted(folder.iterdir()):
        by_stage[path.suffix] = by_stage.get(path.suffix, "") + path.read_text()
    assert set(by_stage) == {".trace", ".program", ".kernel", ".ll"}
    assert "0 mul" in by_stage[".trace"] and "observed" in by_stage[".trace"]
    assert "step 0: kernel fused_mul_add_sin_sum" in by_stage[".program"]
    assert "vector loop" in by_stage[".kernel"] and "define" in by_stage[".ll"]


@pytest.mark.eager
def test_a_folder_that_cannot_be_written_is_warned_about_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = _run("-c", PROGRAM, LOHE_DUMP_IR=str(tmp_path / "file" / "inside"), LOHE_CACHE_DIR=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("LOHE_DUMP_IR") == 1


@pytest.mark.eager
def test_the_folder_of_kernels_is_shown_and_cleared(tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    shown = _run("-m", "lohe", "cache", LOHE_CACHE_DIR=cache)
    assert shown.returncode == 0 and ": 0 kernels, 0.0 MiB of at most" in shown.stdout
    assert _run("-c", PROGRAM, LOHE_CACHE_DIR=cache).returncode == 0
    kernels = list(Path(cache).rglob("*.kernel"))
    assert kernels
    (Path(cache) / "notes.txt").write_text("mine")
    assert f": {len(kernels)} kernels" in _run("-m", "lohe", "cache", LOHE_CACHE_DIR=cache).stdout
    cleared = _run("-m", "lohe", "cache", "--clear", LOHE_CACHE_DIR=cache)
    assert cleared.returncode == 0 and f": {len(kernels)} kernels" in cleared.stdout and "removed" in cleared.stdout
    assert [p.name for p in Path(cache).rglob("*") if p.is_file()] == ["notes.txt"]
    assert _run("-c", PROGRAM, LOHE_CACHE_DIR=cache).returncode == 0


@pytest.mark.eager
def test_results_that_nobody_reads_are_not_made(tmp_path: Path) -> None:
    folder = tmp_path / "ir"
    program = """
import lohe as torch

f = torch.compile(lambda x: x.max(dim=-1)[0])
for _ in range(3):
    f(torch.randn(50, 40))
"""
    done = _run("-c", program, LOHE_DUMP_IR=str(folder), LOHE_CACHE_DIR=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    graphs = [p.read_text().split("kernel ")[0] for p in folder.glob("*max*.kernel")]
    assert any("argmax" in g for g in graphs)  # the first occurrence, unfused
    assert any("amax" in g and "argmax" not in g for g in graphs)


@pytest.mark.eager
def test_a_sum_that_rows_have_in_common_is_taken_once(tmp_path: Path) -> None:
    folder = tmp_path / "ir"
    program = """
import lohe as torch

x = torch.randn(50, 40, requires_grad=True)
torch.nn.functional.nll_loss(x, torch.zeros(50, dtype=torch.int64)).backward()
"""
    done = _run("-c", program, LOHE_DUMP_IR=str(folder), LOHE_CACHE_DIR=str(tmp_path / "cache"), LOHE_KERNELS="generated")
    assert done.returncode == 0, done.stderr
    graphs = [p.read_text().split("kernel ")[0] for p in folder.glob("*nll_loss_forward_backward*.kernel")]
    assert any(" sum " in g for g in graphs) and any(" iota " in g for g in graphs)
    assert not any(" sum " in g and " iota " in g for g in graphs)
