"""The C++ layers against the Python layers that they are translated from: equal bits of everything.

build/<preset>/bin/tests/layers_tool makes the C++ layers; both sides start from the same seeds.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import lohe
import pytest
from lohe import nn

# Name of the case in tests/cpp/layers_tool.cpp -> the layer.
LAYERS = {
    "MaxPool1d": lambda: nn.MaxPool1d(3, stride=2, padding=1),
    "MaxPool2d": lambda: nn.MaxPool2d(2),
    "MaxPool2d_dilated": lambda: nn.MaxPool2d((3, 2), stride=(2, 1), dilation=2, ceil_mode=True),
    "MaxPool3d": lambda: nn.MaxPool3d(2, stride=1),
    "AvgPool2d": lambda: nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False),
    "AdaptiveAvgPool1d": lambda: nn.AdaptiveAvgPool1d(4),
    "AdaptiveAvgPool2d": lambda: nn.AdaptiveAvgPool2d((3, None)),
    "AdaptiveAvgPool3d": lambda: nn.AdaptiveAvgPool3d(2),
    "AdaptiveMaxPool2d": lambda: nn.AdaptiveMaxPool2d(3),
    "LPPool1d": lambda: nn.LPPool1d(2, 3),
    "LPPool2d": lambda: nn.LPPool2d(2, 3, stride=2),
    "ReflectionPad1d": lambda: nn.ReflectionPad1d(2),
    "ReflectionPad2d": lambda: nn.ReflectionPad2d((1, 2, 3, 0)),
    "ReplicationPad2d": lambda: nn.ReplicationPad2d(2),
    "ReplicationPad3d": lambda: nn.ReplicationPad3d(1),
    "CircularPad2d": lambda: nn.CircularPad2d(1),
    "ZeroPad2d": lambda: nn.ZeroPad2d((1, 0, 2, 1)),
    "ConstantPad1d": lambda: nn.ConstantPad1d(2, 1.5),
    "ConstantPad3d": lambda: nn.ConstantPad3d(1, -0.5),
    "Conv1d": lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2),
    "Conv2d": lambda: nn.Conv2d(3, 5, (3, 2), padding=(1, 0), dilation=2, bias=False),
    "Conv2d_circular": lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"),
    "ConvTranspose1d": lambda: nn.ConvTranspose1d(4, 3, 3, stride=2, output_padding=1),
    "ConvTranspose2d": lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, groups=2),
    "ConvTranspose2d_sized": lambda: nn.ConvTranspose2d(4, 3, 3, stride=2),
    "ConvTranspose3d": lambda: nn.ConvTranspose3d(2, 3, 2, stride=2, bias=False),
    "BatchNorm2d": lambda: nn.BatchNorm2d(3),
    "LayerNorm": lambda: nn.LayerNorm((4, 5), eps=1e-3),
    "GroupNorm": lambda: nn.GroupNorm(2, 6),
    "RMSNorm": lambda: nn.RMSNorm(7),
    "InstanceNorm1d": lambda: nn.InstanceNorm1d(3, affine=True),
    "LocalResponseNorm": lambda: nn.LocalResponseNorm(3, k=2.0),
    "LocalResponseNorm_3d": lambda: nn.LocalResponseNorm(2),
    "Dropout": lambda: nn.Dropout(0.3),
    "Dropout1d": lambda: nn.Dropout1d(0.5),
    "Dropout2d": lambda: nn.Dropout2d(0.5),
    "Dropout3d": lambda: nn.Dropout3d(0.5),
    "AlphaDropout": lambda: nn.AlphaDropout(0.4),
    "FeatureAlphaDropout": lambda: nn.FeatureAlphaDropout(0.4),
    "Softshrink": lambda: nn.Softshrink(0.3),
    "GELU": lambda: nn.GELU(approximate="tanh"),
    "PReLU": lambda: nn.PReLU(3),
    "RReLU": lambda: nn.RReLU(0.1, 0.4),
    "Identity": lambda: nn.Identity(),
    "Unflatten": lambda: nn.Unflatten(1, (2, 3)),
    "BCELoss": lambda: nn.BCELoss(reduction="sum"),
    "BCELoss_weight": lambda: nn.BCELoss(lohe.tensor([0.5, 1.0, 2.0])),
    "CrossEntropyLoss": lambda: nn.CrossEntropyLoss(label_smoothing=0.1),
    "MSELoss": lambda: nn.MSELoss(),
    "Embedding": lambda: nn.Embedding(10, 4, padding_idx=2),
    "EmbeddingBag": lambda: nn.EmbeddingBag(10, 4),
    "EmbeddingBag_sum": lambda: nn.EmbeddingBag(10, 4, mode="sum"),
    "EmbeddingBag_max": lambda: nn.EmbeddingBag(10, 4, mode="max"),
    "RNN": lambda: nn.RNN(4, 5, num_layers=2, nonlinearity="relu"),
    "LSTM": lambda: nn.LSTM(4, 5, num_layers=2, bidirectional=True, batch_first=True, dropout=0.3),
    "LSTM_state": lambda: nn.LSTM(4, 5, proj_size=3),
    "LSTM_unbatched": lambda: nn.LSTM(4, 5, bias=False),
    "GRU": lambda: nn.GRU(4, 5, bidirectional=True),
    "RNNCell": lambda: nn.RNNCell(4, 5),
    "LSTMCell": lambda: nn.LSTMCell(4, 5),
    "GRUCell": lambda: nn.GRUCell(4, 5),
    "MultiheadAttention": lambda: nn.MultiheadAttention(8, 2),
    "MultiheadAttention_kv": lambda: nn.MultiheadAttention(
        8, 2, kdim=4, vdim=3, add_bias_kv=True, dropout=0.2
    ),
    "MultiheadAttention_self": lambda: nn.MultiheadAttention(8, 4, batch_first=True, bias=False),
    "TransformerEncoderLayer": lambda: nn.TransformerEncoderLayer(8, 2, 16, activation="gelu"),
    "TransformerDecoderLayer": lambda: nn.TransformerDecoderLayer(
        8, 2, 16, batch_first=True, norm_first=True
    ),
    "TransformerEncoder": lambda: nn.TransformerEncoder(
        nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0), 2, nn.LayerNorm(8)
    ),
    "Transformer": lambda: nn.Transformer(8, 2, 1, 2, 16),
}
# How the inputs of a case, a list in the file, are grouped and completed.
CALLS = {
    "LSTM_state": lambda x: (x[0], (x[1], x[2])),
    "LSTMCell": lambda x: (x[0], (x[1], x[2])),
    "ConvTranspose2d_sized": lambda x: (x[0], [12, 13]),
}


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    tool = Path(lohe.__file__).parents[2] / "bin" / "tests" / "layers_tool"
    if not tool.exists():
        pytest.skip(f"{tool.name} is not built")
    path = tmp_path_factory.mktemp("layers") / "cases.pt"
    subprocess.run([tool, path], check=True, timeout=120)
    return lohe.load(path)


def flat(value: Any) -> list[lohe.Tensor]:
    if isinstance(value, lohe.Tensor):
        return [value]
    return [t for part in value or () for t in flat(part)]


def same_bits(a: lohe.Tensor, b: lohe.Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()


@pytest.mark.parametrize("name", LAYERS)
def test_a_cpp_layer_gives_the_bits_of_the_python_layer(
    name: str, cases: dict[str, dict[str, Any]]
) -> None:
    case = cases[name]
    lohe.manual_seed(3)
    layer = LAYERS[name]()
    state = layer.state_dict()
    assert list(state) == list(case["state"])
    for key, value in state.items():
        assert same_bits(value, case["state"][key]), key
    inputs = [
        t.clone().requires_grad_() if t.is_floating_point() else t.clone() for t in case["inputs"]
    ]
    if name == "MultiheadAttention_self":
        inputs = [inputs[0]] * 3
    lohe.manual_seed(5)
    outputs = flat(layer(*CALLS.get(name, tuple)(inputs)))
    assert len(outputs) == len(case["outputs"])
    for got, expected in zip(outputs, case["outputs"]):
        assert same_bits(got.detach(), expected)
    losses = [(out * out).sum() for out in outputs if out.requires_grad]
    if losses:
        loss = losses[0]
        for part in losses[1:]:
            loss = loss + part
        loss.backward()
    grads = [t.grad for t in [*inputs, *layer.parameters()] if t.grad is not None]
    assert len(grads) == len(case["grads"])
    for got, expected in zip(grads, case["grads"]):
        assert same_bits(got, expected)


def test_every_case_is_compared(cases: dict[str, dict[str, Any]]) -> None:
    assert sorted(cases) == sorted(LAYERS)
