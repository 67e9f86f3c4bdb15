"""The kernels that the library carries: usual programs generate none, and their results are the same without.

A kernel that is generated is put into the disk cache, so its entries count what was generated.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import hashlib, lohe as torch
from lohe import nn
from lohe.nn import functional as F

torch.manual_seed(5)
digest = hashlib.sha256()

def note(*tensors):
    for t in tensors:
        digest.update(t.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())

class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        batch, length, width = x.shape
        q, k, v = self.qkv(self.first(x)).split(width, dim=2)
        q, k, v = (t.view(batch, length, 2, width // 2).transpose(1, 2) for t in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.gelu(self.up(self.second(x))))

def train(model, inputs, targets, optimizer):
    for _ in range(3):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(inputs).flatten(0, -2), targets.flatten())
        loss.backward()
        optimizer.step()
    note(loss, *model.parameters())

gpt = nn.Sequential(nn.Embedding(50, 32), Block(32), nn.LayerNorm(32), nn.Linear(32, 50))
ids = torch.randint(0, 50, (4, 20))
train(gpt, ids, ids, torch.optim.AdamW(gpt.parameters(), lr=1e-3))

mlp = nn.Sequential(nn.Linear(20, 40), nn.ReLU(), nn.Dropout(0.1), nn.Linear(40, 10))
train(mlp, torch.randn(16, 20), torch.randint(0, 10, (16,)), torch.optim.SGD(mlp.parameters(), lr=0.1, momentum=0.9))

for dtype in (torch.float32, torch.bfloat16):
    x, y = torch.randn(30, 50).to(dtype), torch.randn(30, 50).to(dtype)
    note(x + y, x * 2, x * 0.5, x - 1, 1 / x, x > y, x.abs().sqrt(), x.exp(), x.tanh(), torch.sigmoid(x))
    note(x.sum(), x.mean(0), x.amax(-1), x.argmax(1), x.softmax(-1), x.to(torch.float64), x.t().contiguous())
    note(F.gelu(x), F.silu(x), F.layer_norm(x, (50,)), x.clamp(0, 1), torch.where(x > 0, x, y), x + y[0])
i = torch.arange(12)
note(i + 1, i * i, i % 5, i // 5, i == 3, i.sum(), i.to(torch.float32))
print(digest.hexdigest())
"""


def run(cache: Path, **variables: str) -> tuple[str, int]:
    """What the program prints, and how many kernels it generated."""
    environment = {**os.environ, "LOHE_CACHE_DIR": str(cache), **variables}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), len(list(cache.rglob("*.kernel")))


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, int]:
    return run(tmp_path_factory.mktemp("generated"), LOHE_KERNELS="generated")


@pytest.mark.skipif("libasan" in os.environ.get("LD_PRELOAD", ""), reason="a sanitizer's build carries no kernels")
@pytest.mark.parametrize("level", ["", "avx2", "x86-64-v2"])
@pytest.mark.eager
def test_usual_programs_generate_no_kernel(tmp_path: Path, level: str, generated: tuple[str, int]) -> None:
    digest, count = run(tmp_path, LOHE_CPU_LEVEL=level)
    assert count == 0
    if level != "x86-64-v2":  # products of matrices are exact across levels, the library calls at v2 are not
        assert digest == generated[0]


def test_the_count_counts(generated: tuple[str, int]) -> None:
    assert generated[1] > 30
