"""Models of the training benchmarks, written once against PyTorch's API with the module as an argument."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any


def gpt(torch: Any, *, layers: int, width: int, heads: int, vocabulary: int, context: int) -> Any:
    """A decoder-only transformer (pre-norm, learned positions); maps [B, T] ids to [B, T, V] logits."""
    nn, functional = torch.nn, torch.nn.functional

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.project = nn.Linear(width, 3 * width)
            self.out = nn.Linear(width, width)

        def forward(self, x):
            batch, time, _ = x.shape
            q, k, v = self.project(x).split(width, dim=2)
            q, k, v = (t.view(batch, time, heads, width // heads).transpose(1, 2) for t in (q, k, v))
            y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            return self.out(y.transpose(1, 2).reshape(batch, time, width))

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.attention = Attention()
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x):
            x = x + self.attention(self.norm1(x))
            return x + self.down(functional.gelu(self.up(self.norm2(x))))

    class GPT(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens = nn.Embedding(vocabulary, width)
            self.positions = nn.Embedding(context, width)
            self.blocks = nn.ModuleList([Block() for _ in range(layers)])
            self.norm = nn.LayerNorm(width)
            self.head = nn.Linear(width, vocabulary, bias=False)

        def forward(self, ids):
            x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
            for block in self.blocks:
                x = block(x)
            return self.head(self.norm(x))

    return GPT()


def small_resnet(torch: Any, *, classes: int = 10) -> Any:
    """Four residual blocks with batch norm for 32x32 images; maps [B, 3, 32, 32] to [B, classes]."""
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self, inside, outside, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(inside, outside, 3, stride=stride, padding=1, bias=False)
            self.norm1 = nn.BatchNorm2d(outside)
            self.conv2 = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
            self.norm2 = nn.BatchNorm2d(outside)
            self.same = inside == outside and stride == 1
            self.shortcut = (
                nn.Identity() if self.same else nn.Conv2d(inside, outside, 1, stride=stride, bias=False)
            )

        def forward(self, x):
            y = torch.relu(self.norm1(self.conv1(x)))
            return torch.relu(self.norm2(self.conv2(y)) + self.shortcut(x))

    class ResNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 64, 3, padding=1, bias=False)
            self.norm = nn.BatchNorm2d(64)
            self.blocks = nn.Sequential(
                Block(64, 64, 1), Block(64, 128, 2), Block(128, 256, 2), Block(256, 512, 2)
            )
            self.head = nn.Linear(512, classes)

        def forward(self, x):
            x = self.blocks(torch.relu(self.norm(self.stem(x))))
            return self.head(x.mean((2, 3)))

    return ResNet()


def mlp(torch: Any, *, width: int, depth: int) -> Any:
    """``depth`` linear layers of ``width`` with ReLU between; maps [B, width] to [B, width]."""
    layers = []
    for i in range(depth):
        layers += [torch.nn.Linear(width, width)] + ([torch.nn.ReLU()] if i + 1 < depth else [])
    return torch.nn.Sequential(*layers)


def classification_step(
    torch: Any,
    model: Any,
    batches: Sequence[tuple[Any, Any]],
    *,
    fused: bool = False,
    foreach: bool = False,
    compiled: bool = False,
    whole: bool = False,
    replay: bool = False,
) -> Callable[[], float]:
    """One training step (forward, cross entropy, backward, AdamW) as a call that returns the loss.

    Each call takes the next of the batches of inputs and targets, the first one after the last: trained on one batch
    alone, some units soon rest for good, and the averages of their gradients are denormal numbers from then on.
    ``fused`` and ``foreach`` ask for those forms of the optimizer, ``compiled`` for the forward through
    ``compile``, or with ``whole`` for the whole step through it; ``replay`` for Lohe's ``replay=True`` with that.
    """
    options = {"fused": True} if fused else {"foreach": True} if foreach else {}
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, **options)
    forward = torch.compile(model) if compiled and not whole else model

    def work(inputs: Any, targets: Any) -> Any:
        optimizer.zero_grad(set_to_none=True)
        logits = forward(inputs)
        loss = torch.nn.functional.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))
        loss.backward()
        optimizer.step()
        return loss.detach() if replay else loss

    more = {"replay": True} if replay and torch.__name__ == "lohe" else {}
    call = torch.compile(work, **more) if compiled and whole else work

    stream = itertools.cycle(batches)

    def step() -> float:
        return call(*next(stream)).item()

    return step
