"""Resizing, sampling, unfolding, pooling, unpooling and the sequence and multi-label losses, against PyTorch with gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lohe
import pytest


def _numbers(framework: Any, *shape: int, dtype: str = "float32", first: float = 0.0) -> Any:
    count = 1
    for n in shape:
        count *= n
    values = [((first + 0.618 * i) % 1.0) * 2 - 1 for i in range(count)]
    if dtype == "uint8":
        values = [float(int((v + 1) * 127)) for v in values]
    t = framework.tensor(values).reshape(shape).to(getattr(framework, dtype))
    return t if dtype == "uint8" else t.requires_grad_(True)


def _check(oracle: Any, function: Callable[..., Any], shapes: list[tuple[int, ...]], dtype: str = "float32") -> None:
    """Values, and first gradients of a weighted sum, in both frameworks."""
    ours = [_numbers(lohe, *s, dtype=dtype, first=0.3 * i) for i, s in enumerate(shapes)]
    theirs = [_numbers(oracle, *s, dtype=dtype, first=0.3 * i) for i, s in enumerate(shapes)]
    got, expected = function(lohe, *ours), function(oracle, *theirs)
    assert tuple(got.shape) == tuple(expected.shape) and str(got.dtype) == str(expected.dtype)
    limits = {"float16": 2e-3, "bfloat16": 2e-2}
    close = {"rtol": limits[dtype], "atol": limits[dtype]} if dtype in limits else {}
    if dtype == "float64":
        close = {"rtol": 1e-9, "atol": 1e-9}
    oracle.testing.assert_close(oracle.from_dlpack(got.detach().contiguous()), expected.detach().contiguous(), **close)
    if not expected.requires_grad:
        return
    for framework, result in ((lohe, got), (oracle, expected)):
        weights = _numbers(framework, *result.shape, first=0.1).detach().to(result.dtype)
        (result * weights).sum().backward()
    for a, b in zip(ours, theirs, strict=True):
        oracle.testing.assert_close(oracle.from_dlpack(a.grad.contiguous()), b.grad.contiguous(), **close)


_SPATIAL = {3: (7,), 4: (5, 7), 5: (4, 5, 3)}
_MODES = [("nearest", 3), ("nearest", 4), ("nearest", 5), ("nearest-exact", 3), ("nearest-exact", 4), ("nearest-exact", 5)]
_MODES += [("area", 4), ("linear", 3), ("bilinear", 4), ("bicubic", 4), ("trilinear", 5)]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("resize", [{"size": 3}, {"size": 11}, {"scale_factor": 1.7}, {"scale_factor": 0.6}], ids=str)
@pytest.mark.parametrize(("mode", "rank"), _MODES)
def test_interpolate(mode: str, rank: int, resize: dict[str, Any], dtype: str, oracle: Any) -> None:
    shape = (2, 3, *_SPATIAL[rank])
    corners = [None] if mode.startswith("nearest") or mode == "area" else [False, True]
    for align in corners:
        _check(
            oracle,
            lambda f, x, align=align: f.nn.functional.interpolate(x, mode=mode, align_corners=align, **resize),
            [shape],
            dtype,
        )


@pytest.mark.parametrize("recompute", [None, True, False])
def test_interpolate_by_a_scale_that_is_recomputed(recompute: bool | None, oracle: Any) -> None:
    def resized(f: Any, x: Any) -> Any:
        return f.nn.functional.interpolate(
            x, scale_factor=1.37, mode="bilinear", align_corners=False, recompute_scale_factor=recompute
        )

    _check(oracle, resized, [(1, 2, 5, 6)], "float64")


@pytest.mark.parametrize("size", [(2, 3), (9, 13), (4, 20)])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_interpolate_with_antialias(mode: str, size: tuple[int, int], oracle: Any) -> None:
    _check(oracle, lambda f, x: f.nn.functional.interpolate(x, size=size, mode=mode, antialias=True), [(2, 3, 10, 11)])


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("size", [(4, 3), (13, 17)])
@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_interpolate_bytes(mode: str, size: tuple[int, int], antialias: bool, oracle: Any) -> None:
    if antialias and mode == "nearest":
        pytest.skip("nearest has no antialias")

    def resized(f: Any, x: Any) -> Any:
        return f.nn.functional.interpolate(x, size=size, mode=mode, antialias=antialias)

    _check(oracle, resized, [(2, 3, 10, 11)], "uint8")
    _check(oracle, resized, [(1, 6, 7, 9)], "uint8")


def test_interpolate_keeps_channels_last_and_differentiates_twice(oracle: Any) -> None:
    def twice(f: Any) -> Any:
        x = _numbers(f, 2, 3, 4, 5, dtype="float64")
        y = f.nn.functional.interpolate(x.to(memory_format=f.channels_last), scale_factor=2, mode="bicubic")
        assert y.is_contiguous(memory_format=f.channels_last)
        (g,) = f.autograd.grad((y**3).sum(), x, create_graph=True)
        (g**2).sum().backward()
        return x.grad

    oracle.testing.assert_close(oracle.from_dlpack(twice(lohe)), twice(oracle))


@pytest.mark.parametrize("bad", [{"size": 0}, {"size": (2, 2, 2)}, {}, {"size": 2, "scale_factor": 2.0}], ids=str)
def test_interpolate_refuses_what_pytorch_refuses(bad: dict[str, Any], oracle: Any) -> None:
    with pytest.raises((RuntimeError, ValueError)) as expected:
        oracle.nn.functional.interpolate(oracle.zeros(1, 1, 3, 3), **bad)
    with pytest.raises(expected.type):
        lohe.nn.functional.interpolate(lohe.zeros(1, 1, 3, 3), **bad)


_UNFOLDS: list[dict[str, Any]] = [
    {"kernel_size": 2},
    {"kernel_size": (2, 3), "padding": 1, "stride": 2},
    {"kernel_size": 2, "dilation": (2, 1), "padding": (0, 1)},
]


@pytest.mark.parametrize("shape", [(2, 3, 5, 6), (3, 5, 6)], ids=str)
@pytest.mark.parametrize("options", _UNFOLDS, ids=str)
def test_unfold_and_fold(options: dict[str, Any], shape: tuple[int, ...], oracle: Any) -> None:
    _check(oracle, lambda f, x: f.nn.functional.unfold(x, **options), [shape])
    _check(oracle, lambda f, x: f.nn.functional.fold(f.nn.functional.unfold(x, **options) * 2, (5, 6), **options), [shape])


@pytest.mark.parametrize("corners", [True, False])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
def test_grid_sample(mode: str, padding: str, corners: bool, oracle: Any) -> None:
    def sampled(f: Any, x: Any, grid: Any) -> Any:
        return f.nn.functional.grid_sample(x, grid * 1.9, mode, padding, corners)

    _check(oracle, sampled, [(2, 3, 5, 4), (2, 3, 6, 2)], "float64")
    if mode != "bicubic":
        _check(oracle, sampled, [(2, 3, 3, 5, 4), (2, 2, 3, 2, 3)], "float64")


@pytest.mark.parametrize("corners", [True, False])
def test_affine_grid(corners: bool, oracle: Any) -> None:
    _check(oracle, lambda f, t: f.nn.functional.affine_grid(t, [2, 3, 4, 5], corners), [(2, 2, 3)])
    _check(oracle, lambda f, t: f.nn.functional.affine_grid(t, [2, 1, 3, 1, 2], corners), [(2, 3, 4)])


# Most windows of a row are alike and taken side by side; those at its edges, and at strides that differ, are not.
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("width", [2, 5, 9, 16, 17, 33])
@pytest.mark.parametrize(
    "window",
    [
        {"kernel_size": 2},
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": (2, 3), "stride": (1, 3), "padding": (0, 1), "ceil_mode": True},
        {"kernel_size": 2, "stride": 1},
    ],
    ids=str,
)
def test_pooling_of_rows(window: dict[str, Any], width: int, dtype: str, oracle: Any) -> None:
    for name in ("max_pool2d", "avg_pool2d"):
        _check(oracle, lambda f, x, name=name: getattr(f.nn.functional, name)(x, **window), [(2, 3, 4, width)], dtype)
    # To more outputs than inputs windows begin at one place; PyTorch adds up their bfloat16 gradients in bfloat16.
    for size in ((2, 3),) if dtype == "bfloat16" else ((2, 3), (6, 70)):
        _check(oracle, lambda f, x, s=size: f.nn.functional.adaptive_avg_pool2d(x, s), [(2, 3, 4, width)], dtype)
        _check(oracle, lambda f, x, s=size: f.nn.functional.adaptive_max_pool2d(x, s), [(2, 3, 4, width)], dtype)
    if dtype != "bfloat16":
        _check(oracle, lambda f, x: f.nn.functional.adaptive_avg_pool2d(x, 64), [(2, 3, 1, 1)], dtype)
    x, y = (_numbers(f, 2, 3, 4, width, dtype=dtype) for f in (lohe, oracle))
    ours, theirs = (
        f.nn.functional.max_pool2d(t, return_indices=True, **window)[1] for f, t in ((lohe, x), (oracle, y))
    )
    assert ours.tolist() == theirs.tolist()


@pytest.mark.parametrize("place", [0, 5, 10, 15])
def test_a_nan_wins_its_windows(place: int, oracle: Any) -> None:
    def pooled(f: Any) -> Any:
        x = f.arange(32.0).reshape(1, 2, 16) * -1.0
        x[0, 1, place] = float("nan")
        return f.nn.functional.max_pool2d(x, (2, 3), stride=(1, 2), padding=(0, 1))

    oracle.testing.assert_close(oracle.from_dlpack(pooled(lohe)), pooled(oracle), equal_nan=True)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_max_unpool(rank: int, oracle: Any) -> None:
    def round_trip(f: Any, x: Any) -> Any:
        pool, unpool = getattr(f.nn.functional, f"max_pool{rank}d"), getattr(f.nn.functional, f"max_unpool{rank}d")
        values, indices = pool(x, 2, stride=2, return_indices=True)
        return unpool(values, indices, 2, stride=2, output_size=x.shape[2:])

    _check(oracle, round_trip, [(2, 3, *(5, 4, 6)[:rank])])


@pytest.mark.parametrize("rank", [2, 3])
def test_fractional_max_pool(rank: int, oracle: Any) -> None:
    sizes, out = (7, 8, 9)[:rank], (3, 4, 5)[:rank]

    def pooled(f: Any, x: Any) -> Any:
        samples = _numbers(f, 2, 3, rank).detach().abs()
        pool = getattr(f.nn.functional, f"fractional_max_pool{rank}d")
        values, indices = pool(x, 2, output_size=out, return_indices=True, _random_samples=samples)
        return values + indices

    _check(oracle, pooled, [(2, 3, *sizes)])


@pytest.mark.parametrize("shapes", [[(3, 4), (3, 5), (2, 4, 5), (2,)], [(4,), (5,), (2, 4, 5)], [(2, 3, 4), (2, 3, 5), (2, 4, 5)]], ids=str)
def test_bilinear(shapes: list[tuple[int, ...]], oracle: Any) -> None:
    _check(oracle, lambda f, *operands: f.nn.functional.bilinear(*operands), shapes, "float64")


@pytest.mark.parametrize("zero_infinity", [False, True])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_ctc_loss(reduction: str, zero_infinity: bool, oracle: Any) -> None:
    def loss(f: Any, x: Any) -> Any:
        targets = f.tensor([[1, 2, 2, 3], [3, 3, 0, 0], [1, 0, 0, 0]])
        lengths = f.tensor([4, 2, 1 if not zero_infinity else 4])
        if zero_infinity:
            targets = f.tensor([[1, 2, 2, 3], [3, 3, 0, 0], [1, 1, 1, 1]])
        steps = f.tensor([8, 5, 3])
        return f.nn.functional.ctc_loss(
            x.log_softmax(-1), targets, steps, lengths, blank=4, reduction=reduction, zero_infinity=zero_infinity
        )

    _check(oracle, loss, [(8, 3, 5)], "float64")


def test_ctc_loss_of_joined_targets_and_of_one_sample(oracle: Any) -> None:
    def joined(f: Any, x: Any) -> Any:
        return f.nn.functional.ctc_loss(x.log_softmax(-1), f.tensor([1, 2, 1]), (6, 6), (2, 1))

    def single(f: Any, x: Any) -> Any:
        return f.nn.functional.ctc_loss(x.log_softmax(-1), f.tensor([1, 2]), f.tensor(6), f.tensor(2))

    _check(oracle, joined, [(6, 2, 4)])
    _check(oracle, single, [(6, 4)])
    with pytest.raises(RuntimeError, match="blank"):
        lohe.nn.functional.ctc_loss(lohe.zeros(6, 2, 4), lohe.tensor([1, 2, 1]), (6, 6), (2, 1), blank=4)
    with pytest.raises(RuntimeError, match="input_lengths"):
        lohe.nn.functional.ctc_loss(lohe.zeros(6, 2, 4), lohe.tensor([1, 2, 1]), (6, 7), (2, 1))


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_margin_losses_of_classes(reduction: str, oracle: Any) -> None:
    def multilabel(f: Any, x: Any) -> Any:
        targets = f.tensor([[3, 0, -1, 1], [0, 1, 2, 3], [-1, 0, 0, 0]])
        return f.nn.functional.multilabel_margin_loss(x, targets, reduction=reduction)

    def one(f: Any, x: Any) -> Any:
        return f.nn.functional.multi_margin_loss(x, f.tensor(1), p=2, margin=0.5, reduction=reduction)

    _check(oracle, multilabel, [(3, 4)])
    _check(oracle, one, [(4,)])
    with pytest.raises(RuntimeError, match="out of range"):
        lohe.nn.functional.multilabel_margin_loss(lohe.zeros(1, 3), lohe.tensor([[3, -1, 0]]))


def test_padding_wraps_what_a_negative_border_left(oracle: Any) -> None:
    _check(oracle, lambda f, x: f.nn.functional.pad(x, (-1, 2, 2, -1), mode="circular"), [(1, 2, 4, 5)])


def test_complex_logsumexp_and_rms_norm(oracle: Any) -> None:
    def summed(f: Any, x: Any) -> Any:
        z = f.complex(x, x * 2)
        return f.view_as_real(f.logsumexp(z, -1))

    def normed(f: Any, x: Any) -> Any:
        z = f.complex(x, x * 2 + 0.3)
        return f.view_as_real(f.nn.functional.rms_norm(z, (4,)))

    _check(oracle, summed, [(3, 4)], "float64")
    _check(oracle, normed, [(3, 4)], "float64")


def test_native_statistics_take_no_gradient() -> None:
    x = lohe.ones(2, 3, 4, requires_grad=True)
    for result in (
        lohe.native_layer_norm(x, (4,), None, None, 1e-5),
        lohe.native_batch_norm(x, None, None, None, None, True, 0.1, 1e-5),
    ):
        assert [t.requires_grad for t in result] == [True, False, False]


def test_ops_by_the_names_of_the_registry() -> None:
    x = lohe.tensor([[1.0, 5.0], [3.0, 2.0]])
    assert lohe.ops.aten.max.dim(x, 1)[1].tolist() == [1, 0]
    assert lohe.ops.aten.relu.default(-x).tolist() == [[0.0, 0.0], [0.0, 0.0]]
    with pytest.raises(AttributeError):
        lohe.ops.aten.no_such_op  # noqa: B018
    with pytest.raises(AttributeError):
        lohe.ops.aten.max.no_such_overload  # noqa: B018


@pytest.mark.parametrize("rows", [1, 2, 7, None])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_cross_entropy_of_pieces_of_the_batch(reduction: str, rows: int | None, oracle: Any) -> None:
    def loss(f: Any, x: Any, w: Any, b: Any) -> Any:
        options = f.nn.LinearCrossEntropyOptions(batch_chunk_size=rows, allow_retain_graph=True)
        if rows is None:
            options = f.nn.LinearCrossEntropyOptions(chunking_method="aspect_ratio")
        target, weight = f.tensor([0, 3, 1, 1, 2]), f.tensor([1.0, 0.5, 2.0, 1.5]).to(x.dtype)
        return f.nn.functional.linear_cross_entropy(
            x, w, target, linear_bias=b, weight=weight, ignore_index=1, reduction=reduction, options=options
        )

    _check(oracle, loss, [(5, 3), (4, 3), (4,)], "float64")


def test_gradients_of_pieces_are_freed_unless_asked_for() -> None:
    x = lohe.ones(2, 3, requires_grad=True)
    options = lohe.nn.LinearCrossEntropyOptions(batch_chunk_size=1)
    loss = lohe.nn.functional.linear_cross_entropy(x, lohe.ones(4, 3), lohe.tensor([0, 1]), options=options)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="allow_retain_graph"):
        loss.backward()
    with pytest.raises(ValueError, match="chunking_method"):
        lohe.nn.LinearCrossEntropyOptions(chunking_method="thirds")


@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_convolution_whose_output_padding_reaches_the_stride(oracle, groups) -> None:
    def convolve(f, x, w, b):
        return f.nn.functional.conv_transpose2d(
            x, w, b, stride=2, padding=1, output_padding=(3, 2), groups=groups, dilation=4
        )

    _check(oracle, convolve, [(2, 4, 4, 5), (4, 2, 3, 3), (2 * groups,)], "float64")


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_places_of_a_transposed_convolution_that_no_tap_reaches_hold_the_bias(oracle, threads) -> None:
    def convolve(f, x, w, b):
        return f.nn.functional.conv_transpose2d(x, w, b, stride=3, groups=2, dilation=3)

    before = lohe.get_num_threads()
    lohe.set_num_threads(threads)
    try:
        _check(oracle, convolve, [(1, 2, 3, 3), (2, 2, 2, 2), (4,)], "float64")
    finally:
        lohe.set_num_threads(before)
