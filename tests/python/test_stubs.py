"""The stub of the extension names what the extension has, and nothing else."""

from __future__ import annotations

import ast
from pathlib import Path

import lohe
import pytest
from lohe import _C

STUB = Path(lohe.__file__).parent / "_C" / "__init__.pyi"


@pytest.fixture(scope="module")
def stub() -> ast.Module:
    return ast.parse(STUB.read_text())


def names_of(body: list[ast.stmt]) -> set[str]:
    names: set[str] = set()
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.ImportFrom) and node.module == "lohe._C":
            names |= {alias.name for alias in node.names}
    return names


def test_stub_names_every_name_of_the_extension(stub: ast.Module) -> None:
    there = {name for name in vars(_C) if not name.startswith("__")}
    described = names_of(stub.body) - {"_Number", "_Device", "return_types"}
    assert described == there


def test_stub_names_every_member_of_the_tensor_class(stub: ast.Module) -> None:
    tensor = next(node for node in stub.body if isinstance(node, ast.ClassDef) and node.name == "TensorBase")
    described = names_of(tensor.body)
    # An attribute that tensors get with their first such hook.
    described -= {"_post_accumulate_grad_hooks", "__init__"}
    there = {name for name in vars(_C.TensorBase) if not name.startswith("__")}
    assert there - described == set()
    assert {name for name in described if not hasattr(_C.TensorBase, name)} == set()
