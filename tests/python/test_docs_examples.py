"""The Python code that README.md and docs/ show runs as it stands there."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import lohe
import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def load_runner():
    spec = importlib.util.spec_from_file_location("docs_examples", ROOT / "tools" / "docs_examples.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


runner = load_runner()
WITH_PYTHON = [file for file in FILES if runner.python_of(file.read_text())]


@pytest.mark.parametrize("file", WITH_PYTHON, ids=lambda file: str(file.relative_to(ROOT)))
def test_the_blocks_of_a_page_run(file, tmp_path):
    path = os.pathsep.join([str(Path(lohe.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    source = runner.python_of(file.read_text())
    status, output = runner.run_python(source, {**os.environ, "PYTHONPATH": path}, str(tmp_path))
    assert status == 0, output


def test_readme_shows_python():
    assert ROOT / "README.md" in WITH_PYTHON
