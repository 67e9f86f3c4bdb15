"""compile(): what a program's steps are made of, and when it is carried out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lohe
import pytest
from lohe import nn
from lohe.nn import functional as F

pytestmark = [pytest.mark.eager, pytest.mark.usefixtures("fresh_compiler")]  # they record by themselves


def _bits(t: lohe.Tensor) -> bytes:
    return t.detach().contiguous().numpy().tobytes()


class _Block(nn.Module):
    """Half of a transformer's layer on [batch, positions, 32]: norm, joint projection, attention, residual."""

    def __init__(self, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.joint, self.out = nn.LayerNorm(32), nn.Linear(32, 96), nn.Linear(32, 32)
        self.seen: Any = None

    def forward(self, x: Any) -> Any:
        batch, positions, width = x.shape
        parts = self.joint(self.norm(x)).split(width, dim=2)
        q, k, v = (t.view(batch, positions, self.heads, -1).transpose(1, 2) for t in parts)
        if self.seen is not None:
            q.register_hook(self.seen.append)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return x + self.out(y.transpose(1, 2).reshape(batch, positions, width))


def _gradients_of_blocks(seen: Any = None) -> list[str]:
    """Compares the gradients of two blocks with those of the plain step; names of the program's steps."""
    lohe.manual_seed(0)
    model = nn.Sequential(_Block(), _Block())
    model[0].seen = seen
    x = lohe.randn(16, 64, 32, requires_grad=True)
    leaves = [x, *model.parameters()]

    def step() -> Any:
        return lohe.autograd.grad(model(x).square().mean(), leaves)

    want = [_bits(g) for g in step()]
    compiled = lohe.compile(step)
    for _ in range(3):
        assert [_bits(g) for g in compiled()] == want
    return [s["name"] for s in lohe.compile_report(compiled).programs[0]["steps"]]


def test_the_gradient_beside_a_norm_joins_the_norms_gradient() -> None:
    names = _gradients_of_blocks()
    assert names.count("fused__native_layer_norm_backward_add") == 2
    assert not any(name.startswith("add") for name in names)


def test_gradients_of_attention_are_written_where_they_would_be_copied() -> None:
    names = _gradients_of_blocks()
    assert names.count("_attention_backward") == 2
    assert not any("copy_" in name or "cat" in name for name in names)


def test_a_gradient_that_somebody_else_sees_is_copied() -> None:
    seen: list[Any] = []
    names = _gradients_of_blocks(seen)
    assert any("copy_" in name for name in names)
    assert all(g.shape == (16, 4, 64, 8) for g in seen) and len({_bits(g) for g in seen}) == 1


def test_a_number_beside_a_dead_sum_is_changed_once() -> None:
    def f(x: Any, counter: Any, step: Any) -> Any:
        z = x + step
        z.sum()
        counter.add_(step)
        return z

    compiled = lohe.compile(f)
    x, counter, step = lohe.randn(2, 5, 17), lohe.zeros(()), lohe.tensor(2.0)
    for calls in range(1, 5):
        assert _bits(compiled(x, counter, step)) == _bits(x + step)
        assert counter.item() == 2 * calls


LEFT_TO_THE_END = """
import ctypes, lohe
x = lohe.randn(1000)
lohe.compile(lambda x: (x.cos() * x.sin() - x.exp()).sum())(x).item()
left = lohe.compile(lambda x: (x.cos() * x.sin() + x.exp()).tanh().sum())(x)
ctypes.pythonapi.Py_IncRef(ctypes.py_object(left))
"""


def test_work_that_is_left_when_the_process_ends_can_still_be_compiled(tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(lohe.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    # Freed memory is overwritten, so that what is used too late does not look as it did.
    settings = {"LOHE_RECORD": "1", "LOHE_COMPILE_AT": "1", "LOHE_CACHE_DIR": str(tmp_path), "MALLOC_PERTURB_": "165"}
    end = subprocess.run([sys.executable, "-c", LEFT_TO_THE_END], env={**os.environ, **settings, "PYTHONPATH": path},
                         capture_output=True, text=True, timeout=60)
    assert end.returncode == 0 and end.stderr == ""
