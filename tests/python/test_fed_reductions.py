"""Long reductions that make what they read piece by piece, in caches: same bits as eager, one kernel less to write memory."""

import lohe
import pytest

LIMIT = 2 << 20  # bytes; what is made and is smaller is written to memory


def differences(x):
    return x[:, 1:] - x[:, :-1]


PROGRAMS = {
    "mean of squares": lambda x: differences(x).square().mean(),
    "sum": lambda x: differences(x).sum(),
    "largest": lambda x: differences(x).abs().amax(),
    "any above": lambda x: (differences(x) > 3).any(),
    "interior": lambda x: (x[1:-1, 1:-1] * 2).sum(),
    "rows left out": lambda x: (x[::2, :-1].exp() + 1).sum(),
    "norm": lambda x: (x[:, :-1] * 0.5).square().sum().sqrt(),
    "reversed": lambda x: (x.flip(1)[:, 1:] + 1).sum(),
    "transposed": lambda x: (x.t()[1:, :] * 3).sum(),
    "two of them": lambda x: differences(x).square().sum() + (x[1:] - x[:-1])[:, 1:].abs().sum(),
    "made twice used": lambda x: (lambda d: d.sum() + d.square().sum())(differences(x) * 2),
}
# With and without a last block that is not whole; rows longer than a block; rows of two elements.
SHAPES = [(1025, 1025), (700, 1536), (40, 20001), (3, 400_001), (513, 2049), (300_000, 3)]


def check(program, x):
    with lohe.no_grad():
        expected = program(x)
        compiled = lohe.compile(program)
        for _ in range(4):
            got = compiled(x)
            assert got.dtype == expected.dtype
            assert got.tolist() == expected.tolist()


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_same_bits(name, shape):
    lohe.manual_seed(3)
    check(PROGRAMS[name], lohe.randn(*shape))


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16", "int32", "int64", "int8"])
def test_same_bits_of_other_types(dtype):
    lohe.manual_seed(4)
    x = (lohe.randn(2100, 1201) * 10).to(getattr(lohe, dtype))
    for name in ("sum", "interior", "any above", "two of them"):
        check(PROGRAMS[name], x)


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_same_bits_on_any_number_of_threads(threads):
    before = lohe.get_num_threads()
    lohe.set_num_threads(threads)
    try:
        x = lohe.randn(1100, 1100)
        for program in PROGRAMS.values():
            check(program, x)
    finally:
        lohe.set_num_threads(before)


def test_same_gradients():
    def step(x):
        loss = differences(x).square().mean()
        return lohe.autograd.grad(loss, x)[0]

    x = lohe.randn(1030, 1030, requires_grad=True)
    expected = step(x)
    compiled = lohe.compile(step)
    for _ in range(4):
        assert lohe.equal(compiled(x), expected)


def test_numbers_of_the_maker_may_change():
    program = lohe.compile(lambda x, a: (x[:, 1:] * a).sum())
    x = lohe.randn(1100, 1100)
    for a in (0.5, 0.5, 0.5, 2.0, -1.25):
        assert program(x, a).item() == (x[:, 1:] * a).sum().item()


def test_operands_overwritten_in_between_are_read_before():
    def program(x, y):
        d = x[:, 1:] - y
        x.mul_(0)
        return d.sum()

    compiled = lohe.compile(program)
    for _ in range(4):
        x, y = lohe.randn(1100, 1100), lohe.randn(1100, 1099)
        expected = (x[:, 1:] - y).sum().item()
        assert compiled(x, y).item() == expected
        assert not x.any()


def kernels(program, x):
    compiled = lohe.compile(program)
    for _ in range(4):
        compiled(x)
    return str(lohe.compile_report(compiled))


@pytest.mark.eager
def test_what_is_made_is_not_written_to_memory():
    def program(x):
        return (x[:, 1:] - x[:, :-1]).square().sum()

    small, large = 512, 1500
    assert (small - 1) * small * 4 < LIMIT < (large - 1) * large * 4
    assert "2 kernels" in kernels(program, lohe.randn(small, small))
    assert "1 kernels" in kernels(program, lohe.randn(large, large))
