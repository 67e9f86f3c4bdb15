"""Borders, joined tensors and gradients of slices are read piece by piece when they are compiled.

Each function gives eager's bits, forward and backward, whatever its pieces are made of, and what is not read
as a whole, or changed meanwhile, is put together in memory as eager does it.
"""

from __future__ import annotations

from collections.abc import Callable

import lohe as torch
import pytest

F = torch.nn.functional


def framed(x: torch.Tensor) -> torch.Tensor:
    y = torch.zeros(x.shape[0] + 2, x.shape[1])
    y[1:-1] = x
    y[0] = 3.0
    return y * x.mean()


def every_second(x: torch.Tensor) -> torch.Tensor:
    y = torch.full(x.shape, 2.0)
    y[:, ::2] = x[:, ::2]
    return y.exp()


def source_changes(x: torch.Tensor) -> torch.Tensor:
    z = x * 1.0
    y = F.pad(z, (1, 1))
    z.mul_(2.0)
    return y + F.pad(z, (1, 1))


def written_again(x: torch.Tensor) -> torch.Tensor:
    y = torch.cat([x, x], 1)
    z = y * 2.0
    y.add_(1.0)
    return y + z


def read_by_a_product(x: torch.Tensor) -> torch.Tensor:
    y = F.pad(x, (1, 1))
    return (y @ y.t()).sum() + y.sum()


def joined_twice(x: torch.Tensor) -> torch.Tensor:
    return torch.relu(torch.cat([torch.cat([x, x * 2.0], 1), F.pad(x, (0, 3))], 1))


def joined_again_and_again(x: torch.Tensor) -> torch.Tensor:
    """More pieces in pieces than a kernel takes operands."""
    y = x
    for n in range(1, 4):
        y = torch.cat([y, y * 2.0, F.pad(x, (0, n)), y + 1.0], 1)
    return torch.relu(y)


FUNCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "border": lambda x: F.pad(x, (1, 2, 3, 0)) * 2 + 1,
    "border of a number": lambda x: F.pad(x, (1, 2, 3, 0), value=1.5).tanh(),
    "negative border": lambda x: F.pad(x, (0, 0, 1, -1)) * 0.3 + x * 0.7,
    "side by side": lambda x: F.relu(torch.cat([x, x * 2], -1)),
    "one below the other": lambda x: F.relu(torch.cat([x, x[1:3], x], 0)),
    "mean of a stack": lambda x: torch.stack([x, x.exp(), x]).mean(0),
    "sum of a stack in the middle": lambda x: torch.stack([x, -x], 1).sum(1),
    "sum of pairs": lambda x: torch.stack([x, x * 3], -1).sum(-1),
    "rolled": lambda x: x + torch.roll(x, 1, -1) + torch.roll(x, -1, 0),
    "total variation": lambda x: (x[1:] - x[:-1]).abs().mean() + (x[:, 1:] - x[:, :-1]).abs().mean(),
    "laplacian": lambda x: x[1:-1, 1:-1] * 4 - x[2:, 1:-1] - x[:-2, 1:-1] - x[1:-1, 2:] - x[1:-1, :-2],
    "joined rows, softmax": lambda x: F.softmax(torch.cat([x, x[:, :5]], 1), 1),
    "border, sum of columns": lambda x: F.pad(x, (1, 1)).sum(0),
    "border, transposed": lambda x: F.pad(x, (1, 1)).t() * 2,
    "border, reshaped": lambda x: F.pad(x, (1, 1)).reshape(-1) * 2,
    "part of a border": lambda x: (F.pad(x, (0, 0, 1, 1))[1:] * 2)[:, 1:],
    "halves": lambda x: F.pad(x.half(), (1, 1)).float() * 2,
    "bfloat16": lambda x: torch.cat([x.bfloat16(), x.bfloat16()], 1).float() * 2,
    "bools": lambda x: (torch.cat([x > 0, x < 0], 1) & True).float(),
    "bytes": lambda x: (F.pad((x > 0).to(torch.uint8), (3, 1)) * 3).float(),
    "float64": lambda x: F.pad(x.double(), (3, 1)) * 3,
    "complex": lambda x: torch.cat([torch.complex(x, x), torch.complex(x, x)], 1).abs(),
    "in place, framed": framed,
    "in place, every second": every_second,
    "the source changes": source_changes,
    "written again": written_again,
    "read by a product": read_by_a_product,
    "joined twice": joined_twice,
    "joined again and again": joined_again_and_again,
}


@pytest.mark.parametrize("shape", [(130, 140), (300, 70), (7, 5000)], ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_pieces_give_the_bits_of_the_whole(name: str, shape: tuple[int, int]) -> None:
    function = FUNCTIONS[name]
    torch.manual_seed(0)
    x = torch.randn(*shape, requires_grad=True)

    def step(f: Callable[[torch.Tensor], torch.Tensor]) -> list[torch.Tensor]:
        with torch.no_grad():
            forward = f(x)
        y = f(x)
        if not y.requires_grad:
            return [forward, y]
        return [forward, y.detach(), *torch.autograd.grad(y, x, torch.ones_like(y) * 0.5 + y.detach())]

    expected = step(function)
    compiled = torch.compile(function)
    for _ in range(4):
        for got, want in zip(step(compiled), expected, strict=True):
            assert torch.equal(got.nan_to_num(7), want.nan_to_num(7))


@pytest.mark.eager
def test_nothing_is_put_together_that_is_only_read_piece_by_piece() -> None:
    def shift(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return x * weight + F.pad(x, (0, 0, 1, -1)) * (1 - weight)

    compiled = torch.compile(shift)
    x, weight = torch.randn(300, 200), torch.rand(200)
    for _ in range(3):
        compiled(x, weight)
    program = torch.compile_report(compiled).programs[0]
    assert all(step["kernel"] for step in program["steps"])
    assert program["arena_bytes"] + program["block_bytes"] < x.numel() * 4


def test_sizes_may_change_between_calls() -> None:
    def shifted(x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(F.pad(x, (2, 1)) + 1)

    compiled = torch.compile(shifted)
    for rows in (130, 150, 170, 190, 210, 130):
        x = torch.randn(rows, 140)
        for _ in range(3):
            assert torch.equal(compiled(x), shifted(x))
