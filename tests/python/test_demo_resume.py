"""The demo's promise: a run that is killed with signal 9 and started again ends with the bits of one left alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import lohe as torch
import pytest

ROOT = Path(__file__).resolve().parents[2]
GPT = ["char_gpt.py", "--text", ROOT / "LICENSE", "--steps", 23, "--batch", 4, "--context", 16, "--layers", 1,
       "--heads", 2, "--width", 16, "--dropout", 0.1, "--sample", 0]
CNN = ["digits_cnn.py", "--steps", 23, "--batch", 8, "--channels", 4]


def run(words: list, folder: Path, *more: object) -> subprocess.CompletedProcess[str]:
    program = ROOT / "examples" / words[0]
    command = [sys.executable, program, *words[1:], "--out", folder, "--checkpoint-every", 5, *more]
    path = os.pathsep.join([str(Path(torch.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    return subprocess.run([str(word) for word in command], env={**os.environ, "PYTHONPATH": path}, text=True,
                          capture_output=True, stdin=subprocess.DEVNULL, timeout=300)


def bits(value: object) -> object:
    """`value` with each tensor as its dtype, shape and bytes, so that == compares bits (NaN and -0.0 too)."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.detach().contiguous().numpy().tobytes()
    if isinstance(value, dict):
        return {key: bits(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [bits(entry) for entry in value]
    return value


def end_of(folder: Path) -> dict:
    """All that the last checkpoint holds, but for time and memory."""
    state = torch.load(folder / "checkpoint.pt")
    return {key: bits(entry) for key, entry in state.items() if key not in ("seconds", "peak")}


@pytest.mark.parametrize("words", [GPT, CNN], ids=["gpt", "cnn"])
def test_a_killed_run_ends_with_the_bits_of_one_left_alone(words, tmp_path):
    pytest.importorskip("numpy")
    if words is CNN:
        pytest.importorskip("sklearn")
    whole = run(words, tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr

    # Twice: between two checkpoints, and in the very step of one.
    for step in (8, 15):
        killed = run(words, tmp_path / "killed", "--die-at", step)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert not (tmp_path / "killed" / "result.json").exists()
    resumed = run(words, tmp_path / "killed")
    assert resumed.returncode == 0, resumed.stderr
    assert "going on after step 15 of 23" in resumed.stderr

    assert end_of(tmp_path / "killed") == end_of(tmp_path / "whole")
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("whole", "killed")]
    assert results[0]["losses"] == results[1]["losses"] and len(results[0]["losses"]) == 23
    assert results[0]["validation"] == results[1]["validation"]
    assert results[0]["quality"] == results[1]["quality"]


def test_a_checkpoint_of_other_settings_is_refused_with_the_setting_named(tmp_path):
    run(GPT, tmp_path, "--die-at", 5)
    other = run([*GPT, "--context", 8], tmp_path)
    assert other.returncode == 1
    assert "context 16" in other.stderr and "--fresh" in other.stderr


def test_a_torn_temporary_file_does_not_hinder_the_next_run(tmp_path):
    run(GPT, tmp_path, "--die-at", 5)
    (tmp_path / "checkpoint.pt.99.partial").write_bytes(b"half")
    resumed = run(GPT, tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert "going on after step 5" in resumed.stderr
