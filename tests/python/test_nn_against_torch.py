"""Layers take PyTorch's arguments, hold its state, print and compute alike."""

import copy
import inspect
import pickle
import warnings

import lohe
import pytest
import torch

# name, arguments, keyword arguments, shapes of the inputs
LAYERS = [
    ("Linear", (4, 3), {}, [(2, 4)]),
    ("Linear", (4, 3), {"bias": False}, [(4,)]),
    ("Bilinear", (4, 3, 2), {}, [(5, 4), (5, 3)]),
    ("Conv1d", (4, 6, 3), {"padding": "same", "dilation": 2}, [(2, 4, 9)]),
    (
        "Conv2d",
        (4, 6, 3),
        {"stride": 2, "padding": 1, "groups": 2, "padding_mode": "reflect"},
        [(2, 4, 7, 7)],
    ),
    ("Conv2d", (4, 6, (3, 2)), {"bias": False}, [(4, 7, 7)]),
    ("Conv3d", (2, 3, 2), {}, [(1, 2, 4, 4, 4)]),
    ("ConvTranspose1d", (4, 3, 3), {"stride": 2}, [(2, 4, 5)]),
    ("ConvTranspose2d", (4, 3, 3), {"stride": 2, "output_padding": 1}, [(2, 4, 5, 5)]),
    ("BatchNorm1d", (4,), {}, [(5, 4)]),
    ("BatchNorm2d", (4,), {"momentum": None}, [(5, 4, 3, 3)]),
    ("BatchNorm3d", (4,), {"affine": False, "track_running_stats": False}, [(5, 4, 2, 2, 2)]),
    ("LayerNorm", ((3, 4),), {}, [(2, 3, 4)]),
    ("LayerNorm", (4,), {"bias": False}, [(2, 3, 4)]),
    ("RMSNorm", (4,), {}, [(2, 3, 4)]),
    ("GroupNorm", (2, 4), {}, [(2, 4, 5)]),
    ("InstanceNorm1d", (4,), {"affine": True}, [(2, 4, 5)]),
    ("InstanceNorm2d", (4,), {"track_running_stats": True}, [(2, 4, 5, 5)]),
    ("LocalResponseNorm", (2,), {}, [(2, 4, 5, 5)]),
    ("Dropout", (0.3,), {"inplace": True}, None),
    ("MaxPool1d", (2,), {}, [(2, 4, 9)]),
    ("MaxPool2d", (3,), {"stride": 2, "padding": 1, "ceil_mode": True}, [(2, 4, 8, 8)]),
    ("AvgPool1d", (2,), {}, [(2, 4, 9)]),
    ("AvgPool2d", (2,), {"count_include_pad": False, "padding": 1}, [(2, 4, 8, 8)]),
    ("AdaptiveAvgPool1d", (3,), {}, [(2, 4, 8)]),
    ("AdaptiveAvgPool2d", ((3, None),), {}, [(2, 4, 8, 8)]),
    ("AdaptiveMaxPool2d", (2,), {}, [(2, 4, 8, 8)]),
    ("LPPool2d", (2, 2), {}, [(2, 4, 8, 8)]),
    ("PReLU", (4,), {}, [(2, 4)]),
    ("Threshold", (0.1, 2.0), {}, [(2, 4)]),
    ("Softmax", (1,), {}, [(2, 4)]),
    ("LogSoftmax", (-1,), {}, [(2, 4)]),
    ("Softmin", (1,), {}, [(2, 4)]),
    ("Flatten", (), {}, [(2, 4, 3)]),
    ("Unflatten", (1, (2, 2)), {}, [(2, 4, 3)]),
    ("Upsample", (), {"scale_factor": 2, "mode": "bilinear"}, [(2, 4, 3, 3)]),
    ("UpsamplingNearest2d", (5,), {}, [(2, 4, 3, 3)]),
    ("PixelShuffle", (2,), {}, [(2, 4, 3, 3)]),
    ("PixelUnshuffle", (3,), {}, [(2, 4, 3, 3)]),
    ("ZeroPad2d", (1,), {}, [(2, 4, 3, 3)]),
    ("ConstantPad1d", ((1, 2), 3.0), {}, [(2, 4, 3)]),
    ("ReflectionPad2d", (1,), {}, [(2, 4, 3, 3)]),
    ("ReplicationPad3d", (1,), {}, [(2, 4, 3, 3, 3)]),
    ("CircularPad2d", (1,), {}, [(2, 4, 3, 3)]),
    ("CosineSimilarity", (), {}, [(2, 4), (2, 4)]),
    ("PairwiseDistance", (), {}, [(2, 4), (2, 4)]),
    ("Unfold", (2,), {}, [(2, 4, 3, 3)]),
    ("RNN", (4, 3), {"nonlinearity": "relu"}, [(5, 2, 4)]),
    ("LSTM", (4, 3, 2), {"bidirectional": True, "batch_first": True}, [(2, 5, 4)]),
    ("LSTM", (4, 3), {"proj_size": 2, "bias": False}, [(5, 4)]),
    ("GRU", (4, 3, 2), {}, [(5, 2, 4)]),
    ("LSTMCell", (4, 3), {}, [(2, 4)]),
    ("GRUCell", (4, 3), {}, [(4,)]),
    ("MultiheadAttention", (4, 2), {"batch_first": True}, [(2, 5, 4)] * 3),
    (
        "MultiheadAttention",
        (4, 2),
        {"kdim": 3, "vdim": 2, "add_bias_kv": True},
        [(5, 2, 4), (6, 2, 3), (6, 2, 2)],
    ),
    ("TransformerEncoderLayer", (4, 2, 8, 0.0), {"norm_first": True}, [(5, 2, 4)]),
    ("TransformerDecoderLayer", (4, 2, 8, 0.0), {"activation": "gelu"}, [(5, 2, 4), (6, 2, 4)]),
    ("Transformer", (4, 2, 1, 1, 8, 0.0), {}, [(5, 2, 4), (6, 2, 4)]),
    ("MSELoss", (), {}, [(2, 4), (2, 4)]),
    ("L1Loss", (), {"reduction": "sum"}, [(2, 4), (2, 4)]),
    ("SmoothL1Loss", (), {"beta": 0.5}, [(2, 4), (2, 4)]),
    ("HuberLoss", (), {"reduction": "none"}, [(2, 4), (2, 4)]),
    ("BCEWithLogitsLoss", (), {}, [(2, 4), (2, 4)]),
    ("CrossEntropyLoss", (), {"label_smoothing": 0.1}, [(2, 4), (2, 4)]),
    ("TripletMarginLoss", (), {}, [(2, 4)] * 3),
]
LAYERS += [
    (name, (), {}, [(2, 4)])
    for name in ["CELU", "ELU", "GELU", "GLU", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "Identity", "LeakyReLU", "LogSigmoid", "Mish", "ReLU", "ReLU6", "SELU", "Sigmoid", "SiLU", "Softplus", "Softshrink", "Softsign", "Tanh", "Tanhshrink"]
]
NOT_OFFERED = {
    "AdaptiveLogSoftmaxWithLoss",
    "Container",
    "CrossMapLRN2d",
    "FractionalMaxPool2d",
    "FractionalMaxPool3d",
    "LinearCrossEntropyLoss",
    "LinearCrossEntropyOptions",
    "MaxUnpool1d",
    "MaxUnpool2d",
    "MaxUnpool3d",
    "NLLLoss2d",
    "SyncBatchNorm",
}


def _to_lohe(t):
    return lohe.tensor(t.tolist(), dtype=getattr(lohe, str(t.dtype).split(".")[1])).reshape(tuple(t.shape))


def _flat(output):
    if isinstance(output, tuple):
        return [t for part in output for t in _flat(part)]
    return [] if output is None else [output]


@pytest.mark.parametrize(("name", "args", "kwargs", "shapes"), LAYERS)
def test_layer_state_text_output_and_gradient(name, args, kwargs, shapes):
    theirs, ours = getattr(torch.nn, name)(*args, **kwargs), getattr(lohe.nn, name)(*args, **kwargs)
    assert repr(ours) == repr(theirs)
    state = theirs.state_dict()
    assert [(k, tuple(v.shape)) for k, v in ours.state_dict().items()] == [
        (k, tuple(v.shape)) for k, v in state.items()
    ]
    ours.load_state_dict({k: _to_lohe(v) for k, v in state.items()})
    if shapes is None:
        return
    inputs = [
        torch.randn(shape, generator=torch.Generator().manual_seed(i)) for i, shape in enumerate(shapes)
    ]
    expected, got = _flat(theirs(*inputs)), _flat(ours(*map(_to_lohe, inputs)))
    assert len(got) == len(expected)
    for a, b in zip(expected, got):
        torch.testing.assert_close(
            torch.tensor(b.tolist()).reshape(tuple(b.shape)), a.detach(), rtol=1e-4, atol=1e-5
        )
    if any(True for _ in theirs.parameters()):
        expected[0].square().sum().backward()
        got[0].square().sum().backward()
        for (key, a), (_, b) in zip(theirs.named_parameters(), ours.named_parameters()):
            if a.grad is None:
                assert b.grad is None, key
            else:
                grad = torch.tensor(b.grad.tolist()).reshape(a.grad.shape)
                torch.testing.assert_close(grad, a.grad, rtol=1e-3, atol=1e-4)


def test_constructors_take_the_same_arguments():
    for name in torch.nn.modules.__all__:
        # The recurrent layers' constructors take anything there; activation's default is a function.
        if name in NOT_OFFERED or name.startswith("Lazy") or name in ("RNN", "LSTM", "GRU"):
            continue
        signatures = [inspect.signature(getattr(nn, name).__init__).parameters for nn in (torch.nn, lohe.nn)]
        theirs, ours = (
            [(p.name, None if callable(p.default) else p.default, p.kind) for p in signature.values()]
            for signature in signatures
        )
        assert ours == theirs, name


def _model(t):
    return t.nn.Sequential(t.nn.Linear(3, 4), t.nn.BatchNorm1d(4), t.nn.ModuleList([t.nn.Linear(1, 1)] * 2))


def test_listing_names_are_the_same():
    ours, theirs = _model(lohe), _model(torch)
    for method in ("named_parameters", "named_buffers", "named_modules", "named_children"):
        assert [n for n, _ in getattr(ours, method)()] == [n for n, _ in getattr(theirs, method)()]
    ours_all = [n for n, _ in ours.named_parameters(prefix="m", remove_duplicate=False)]
    assert ours_all == [n for n, _ in theirs.named_parameters(prefix="m", remove_duplicate=False)]
    assert repr(ours) == repr(theirs)


def test_load_state_dict_reports_faults_in_the_same_words():
    texts = []
    for t in (torch, lohe):
        model = t.nn.Linear(2, 3)
        with pytest.raises(RuntimeError) as raised:
            model.load_state_dict({"weight": t.ones(2, 2), "extra": t.ones(1)})
        texts.append(str(raised.value))
        assert model.load_state_dict({"bias": t.zeros(3)}, strict=False).missing_keys == ["weight"]
    assert texts[0] == texts[1]


def _assign(t, value):
    t.nn.Linear(1, 1).weight = value


@pytest.mark.parametrize(
    "misuse",
    [
        lambda t: t.nn.Linear(1, 1).missing,
        lambda t: _assign(t, 3),
        lambda t: t.nn.Module().register_buffer("a.b", None),
        lambda t: t.nn.Module().register_buffer("", None),
        lambda t: t.nn.Module().register_buffer("forward", None),
        lambda t: t.nn.Module().register_parameter("w", t.ones(1)),
        lambda t: t.nn.Module().register_parameter("w", t.nn.Parameter(t.ones(1)) * 2),
        lambda t: t.nn.Module().add_module("a", 1),
        lambda t: t.nn.Module()(1),
        lambda t: t.nn.Linear(1, 1).get_submodule("a.b"),
        lambda t: t.nn.Linear(1, 1).to(t.int64),
        lambda t: t.nn.Linear(1, 1).train("yes"),
        lambda t: t.nn.Sequential()[0],
        lambda t: t.nn.ModuleList([t.nn.ReLU()])[1],
        lambda t: t.nn.Conv2d(3, 4, 1, groups=2),
        lambda t: t.nn.BatchNorm2d(3)(t.ones(2, 3)),
        lambda t: t.nn.Dropout(2.0),
        lambda t: t.nn.functional.interpolate(t.ones(1, 1, 2, 2)),
        lambda t: t.nn.functional.mse_loss(t.ones(1), t.ones(1), reduction="avg"),
        lambda t: t.nn.init.xavier_uniform_(t.ones(3)),
    ],
)
def test_misuse_raises_the_same_type(misuse):
    with pytest.raises(Exception) as expected:
        misuse(torch)
    with pytest.raises(type(expected.value)):
        misuse(lohe)


def test_hooks_run_in_order_and_replace_values():
    seen = []
    for t in (torch, lohe):
        log = []
        layer = t.nn.Linear(2, 2, bias=False)
        t.nn.init.ones_(layer.weight)
        layer.register_forward_pre_hook(lambda m, args, log=log: log.append("pre") or (args[0] * 2,))
        layer.register_forward_hook(lambda m, args, out, log=log: log.append("post") or out + 1)
        layer.register_forward_hook(
            lambda m, a, kw, out, log=log: log.append("first"), with_kwargs=True, prepend=True
        )
        layer.register_full_backward_pre_hook(lambda m, go, log=log: log.append(go[0].tolist()))
        layer.register_full_backward_hook(
            lambda m, gi, go, log=log: log.append(gi[0].tolist()) or (gi[0] * 10,)
        )
        x = t.ones(1, 2, requires_grad=True)
        y = layer(x)
        y.sum().backward()
        seen.append((log, y.tolist(), x.grad.tolist()))
    assert seen[0] == seen[1]


def test_always_called_hook_runs_after_an_error():
    calls = []
    layer = lohe.nn.Linear(2, 2)
    layer.register_forward_hook(lambda m, a, out: calls.append(out), always_call=True)
    with pytest.raises(RuntimeError):
        layer(lohe.ones(1, 3))
    assert calls == [None]


def test_deepcopy_and_pickle_keep_values_and_ties():
    model = lohe.nn.ModuleDict({"a": lohe.nn.Linear(2, 2), "b": lohe.nn.Linear(2, 2)})
    model["b"].weight = model["a"].weight
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert copied["a"].weight.tolist() == model["a"].weight.tolist()
        assert copied["a"].weight is not model["a"].weight
        assert isinstance(copied["a"].weight, lohe.nn.Parameter)
    assert copy.deepcopy(model)["b"].weight.tolist() == model["b"].weight.tolist()


def test_clipping_gives_the_norm_and_the_gradients_of_torch():
    results = []
    for t in (torch, lohe):
        p = t.nn.Parameter(t.ones(3))
        p.grad = t.tensor([3.0, 4.0, 0.0])
        norm = t.nn.utils.clip_grad_norm_([p], 1.0)
        results.append((norm.item(), p.grad.tolist()))
    assert results[0][1] == pytest.approx(results[1][1])
    assert results[0][0] == pytest.approx(results[1][0])


def test_pad_sequence_pads_on_both_sides():
    for side in ("left", "right"):
        rows = [
            t.nn.utils.rnn.pad_sequence([t.ones(2), t.ones(3)], True, 9.0, side).tolist()
            for t in (torch, lohe)
        ]
        assert rows[0] == rows[1]


def test_initial_values_have_their_distributions_bounds():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        w = lohe.empty(40, 30)
        lohe.nn.init.kaiming_uniform_(w, nonlinearity="relu")
        assert w.abs().max().item() <= (6 / 30) ** 0.5
        lohe.nn.init.trunc_normal_(w, std=2.0, a=-1.0, b=1.0)
        assert w.abs().max().item() <= 1.0
        lohe.nn.init.orthogonal_(w)
        assert (w.t() @ w - lohe.eye(30)).abs().max().item() < 1e-4
        same = [lohe.nn.init.normal_(w, generator=lohe.Generator().manual_seed(3)).tolist() for _ in range(2)]
        assert same[0] == same[1]


@pytest.mark.parametrize(
    "bound",
    [
        lambda m, x, y: m.relu(x),
        lambda m, x, y: m.nn.functional.relu6(x),
        lambda m, x, y: m.nn.functional.hardtanh(x, 0.0, 1.0),
        lambda m, x, y: m.clamp(x, min=0.0),
        lambda m, x, y: m.clamp(x, -0.0, 0.0),
        lambda m, x, y: m.clamp(x, max=float("nan")),
        lambda m, x, y: m.maximum(x, y),
        lambda m, x, y: m.minimum(x, y),
        lambda m, x, y: m.fmax(x, y),
    ],
)
def test_bounds_keep_torchs_signs_of_zeros_and_nans(bound):
    numbers = [-0.0, 0.0, float("nan"), 1.0, -1.0, float("inf")]
    pairs = [(a, b) for a in numbers for b in numbers] * 3
    results = []
    for m in (lohe, torch):
        x, y = (m.tensor([pair[i] for pair in pairs]) for i in (0, 1))
        z = bound(m, x, y)
        results.append((m.signbit(z).logical_and(~m.isnan(z)).tolist(), m.isnan(z).tolist(), m.nan_to_num(z).tolist()))
    assert results[0] == results[1]
