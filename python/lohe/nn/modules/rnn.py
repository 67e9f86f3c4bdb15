"""Recurrent layers and cells, composed of linear maps and pointwise functions."""

from __future__ import annotations

import math
from typing import Any

import lohe
from lohe import Tensor
from lohe.nn import functional as F
from lohe.nn import init
from lohe.nn.modules.module import Module
from lohe.nn.parameter import Parameter

__all__ = ["GRU", "GRUCell", "LSTM", "LSTMCell", "RNN", "RNNBase", "RNNCell", "RNNCellBase"]


def _rnn_step(
    gates_x: Tensor, hidden: tuple, w_hh: Tensor, b_hh: Tensor | None, w_hr: Tensor | None, f: Any
) -> tuple:
    return (f(gates_x + F.linear(hidden[0], w_hh, b_hh)),)


def _lstm_step(
    gates_x: Tensor, hidden: tuple, w_hh: Tensor, b_hh: Tensor | None, w_hr: Tensor | None, f: Any
) -> tuple:
    h, c = hidden
    i, forget, cell, o = (gates_x + F.linear(h, w_hh, b_hh)).chunk(4, -1)
    c = forget.sigmoid() * c + i.sigmoid() * cell.tanh()
    h = o.sigmoid() * c.tanh()
    if w_hr is not None:
        h = F.linear(h, w_hr)
    return h, c


def _gru_step(
    gates_x: Tensor, hidden: tuple, w_hh: Tensor, b_hh: Tensor | None, w_hr: Tensor | None, f: Any
) -> tuple:
    h = hidden[0]
    x_r, x_z, x_n = gates_x.chunk(3, -1)
    h_r, h_z, h_n = F.linear(h, w_hh, b_hh).chunk(3, -1)
    r, z = (x_r + h_r).sigmoid(), (x_z + h_z).sigmoid()
    n = (x_n + r * h_n).tanh()
    return (n + z * (h - n),)


_GATES = {"RNN_TANH": 1, "RNN_RELU": 1, "LSTM": 4, "GRU": 3}
_STEPS = {"RNN_TANH": _rnn_step, "RNN_RELU": _rnn_step, "LSTM": _lstm_step, "GRU": _gru_step}


class RNNBase(Module):
    """What the recurrent layers share.

    Layer k has ``weight_ih_lk`` (gates * hidden, input), ``weight_hh_lk`` (gates * hidden, hidden or projection),
    ``bias_ih_lk``, ``bias_hh_lk`` and, with `proj_size`, ``weight_hr_lk``; names of the reverse direction end in
    ``_reverse``. All start as U(-k, k), ``k = hidden_size ** -0.5``.
    """

    mode: str
    input_size: int
    hidden_size: int
    num_layers: int
    bias: bool
    batch_first: bool
    dropout: float
    bidirectional: bool
    proj_size: int

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device=None,
        dtype=None,
    ) -> None:
        super().__init__()
        if isinstance(dropout, bool) or not isinstance(dropout, (int, float)) or not 0 <= dropout <= 1:
            raise ValueError(
                "dropout should be a number in range [0, 1] representing the probability of an element being zeroed"
            )
        if dropout > 0 and num_layers == 1:
            import warnings

            warnings.warn(
                "dropout option adds dropout after all but last recurrent layer, so non-zero dropout expects "
                f"num_layers greater than 1, but got dropout={dropout} and num_layers={num_layers}",
                stacklevel=2,
            )
        if not isinstance(hidden_size, int):
            raise TypeError(f"hidden_size should be of type int, got: {type(hidden_size).__name__}")
        if hidden_size <= 0:
            raise ValueError("hidden_size must be greater than zero")
        if num_layers <= 0:
            raise ValueError("num_layers must be greater than zero")
        if proj_size < 0:
            raise ValueError("proj_size should be a positive integer or zero to disable projections")
        if proj_size >= hidden_size:
            raise ValueError("proj_size has to be smaller than hidden_size")
        if mode not in _GATES:
            raise ValueError("Unrecognized RNN mode: " + mode)
        self.mode = mode
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        directions = 2 if bidirectional else 1
        output_size = proj_size if proj_size > 0 else hidden_size
        gates = _GATES[mode] * hidden_size
        self._all_weights = []
        for layer in range(num_layers):
            layer_input = input_size if layer == 0 else output_size * directions
            for direction in range(directions):
                suffix = f"_l{layer}" + ("_reverse" if direction == 1 else "")
                shapes: dict[str, tuple[int, ...]] = {"weight_ih": (gates, layer_input), "weight_hh": (gates, output_size)}
                if bias:
                    shapes["bias_ih"] = (gates,)
                    shapes["bias_hh"] = (gates,)
                if proj_size > 0:
                    shapes["weight_hr"] = (proj_size, hidden_size)
                for name, shape in shapes.items():
                    setattr(self, name + suffix, Parameter(lohe.empty(shape, device=device, dtype=dtype)))
                self._all_weights.append([name + suffix for name in shapes])
        self.reset_parameters()

    def reset_parameters(self) -> None:
        bound = 1.0 / math.sqrt(self.hidden_size) if self.hidden_size > 0 else 0
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def flatten_parameters(self) -> None:
        """Accepted for compatibility; the parameters need no common memory here."""

    @property
    def all_weights(self) -> list[list[Parameter]]:
        return [[getattr(self, name) for name in names] for names in self._all_weights]

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        if self.proj_size != 0:
            text += f", proj_size={self.proj_size}"
        if self.num_layers != 1:
            text += f", num_layers={self.num_layers}"
        if self.bias is not True:
            text += f", bias={self.bias}"
        if self.batch_first is not False:
            text += f", batch_first={self.batch_first}"
        if self.dropout != 0:
            text += f", dropout={self.dropout}"
        if self.bidirectional is not False:
            text += f", bidirectional={self.bidirectional}"
        return text

    def _run(self, input: Tensor, hidden: tuple[Tensor, ...] | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The output (L, N, D * H) and the final states (layers * D, N, H), batch and time as the caller has them."""
        if not isinstance(input, lohe.Tensor):
            raise TypeError(f"{self._get_name()}: expected input to be a Tensor, got {type(input).__name__}")
        if input.dim() not in (2, 3):
            raise ValueError(f"{self._get_name()}: Expected input to be 2D or 3D, got {input.dim()}D tensor")
        batched = input.dim() == 3
        if input.size(-1) != self.input_size:
            raise RuntimeError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {input.size(-1)}"
            )
        if not batched:
            input = input.unsqueeze(1)
        elif self.batch_first:
            input = input.transpose(0, 1)
        states = self._initial_states(input, hidden, batched)
        directions = 2 if self.bidirectional else 1
        step = _STEPS[self.mode]
        function = F.relu if self.mode == "RNN_RELU" else F.tanh
        output = input
        final = []
        for layer in range(self.num_layers):
            outputs = []
            for direction in range(directions):
                place = layer * directions + direction
                names = {name.partition("_l")[0]: getattr(self, name) for name in self._all_weights[place]}
                gates = F.linear(output, names["weight_ih"], names.get("bias_ih")).unbind(0)
                state = tuple(s[place] for s in states)
                shown = []
                for gates_x in reversed(gates) if direction else gates:
                    state = step(
                        gates_x,
                        state,
                        names["weight_hh"],
                        names.get("bias_hh"),
                        names.get("weight_hr"),
                        function,
                    )
                    shown.append(state[0])
                outputs.append(lohe.stack(shown[::-1] if direction else shown, 0))
                final.append(state)
            output = outputs[0] if directions == 1 else lohe.cat(outputs, -1)
            if self.dropout > 0 and self.training and layer < self.num_layers - 1:
                output = F.dropout(output, self.dropout, True)
        last = tuple(lohe.stack(parts, 0) for parts in zip(*final))
        if not batched:
            return output.squeeze(1), tuple(part.squeeze(1) for part in last)
        return (output.transpose(0, 1) if self.batch_first else output), last

    def _initial_states(
        self, input: Tensor, hidden: tuple[Tensor, ...] | None, batched: bool
    ) -> tuple[Tensor, ...]:
        count = self.num_layers * (2 if self.bidirectional else 1)
        widths = [self.proj_size or self.hidden_size] + ([self.hidden_size] if self.mode == "LSTM" else [])
        if hidden is None:
            return tuple(
                lohe.zeros((count, input.size(1), width), dtype=input.dtype, device=input.device)
                for width in widths
            )
        states = []
        for state, width, name in zip(hidden, widths, ("hidden[0]", "hidden[1]")):
            expected = (count, input.size(1), width) if batched else (count, width)
            if tuple(state.shape) != expected:
                label = f"Expected {name} size" if self.mode == "LSTM" else "Expected hidden size"
                raise RuntimeError(f"{label} {expected}, got {list(state.shape)}")
            states.append(state if batched else state.unsqueeze(1))
        return tuple(states)


class RNN(RNNBase):
    """Elman's recurrent network: ``h = f(W_ih x + b_ih + W_hh h + b_hh)`` with tanh or relu."""

    nonlinearity: str

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device=None,
        dtype=None,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'.")
        mode = "RNN_TANH" if nonlinearity == "tanh" else "RNN_RELU"
        super().__init__(
            mode,
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            0,
            device,
            dtype,
        )
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        output, final = self._run(input, None if hx is None else (hx,))
        return output, final[0]


class LSTM(RNNBase):
    """Long short-term memory (Hochreiter and Schmidhuber, 1997); gates in the order input, forget, cell, output."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device=None,
        dtype=None,
    ) -> None:
        super().__init__(
            "LSTM",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            device,
            dtype,
        )

    def forward(
        self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        return self._run(input, hx)  # type: ignore[return-value]  # the cell's state is a pair


class GRU(RNNBase):
    """Gated recurrent unit (Cho et al., 2014); gates in the order reset, update, new."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device=None,
        dtype=None,
    ) -> None:
        super().__init__(
            "GRU",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            0,
            device,
            dtype,
        )

    def forward(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        output, final = self._run(input, None if hx is None else (hx,))
        return output, final[0]


class RNNCellBase(Module):
    """What the cells share: the weights of one step."""

    input_size: int
    hidden_size: int
    bias: bool
    weight_ih: Tensor
    weight_hh: Tensor

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool, num_chunks: int, device=None, dtype=None
    ) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        gates = num_chunks * hidden_size
        self.weight_ih = Parameter(lohe.empty((gates, input_size), device=device, dtype=dtype))
        self.weight_hh = Parameter(lohe.empty((gates, hidden_size), device=device, dtype=dtype))
        if bias:
            self.bias_ih = Parameter(lohe.empty(gates, device=device, dtype=dtype))
            self.bias_hh = Parameter(lohe.empty(gates, device=device, dtype=dtype))
        else:
            self.register_parameter("bias_ih", None)
            self.register_parameter("bias_hh", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        bound = 1.0 / math.sqrt(self.hidden_size) if self.hidden_size > 0 else 0
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def _step(
        self, input: Tensor, hidden: tuple[Tensor, ...] | None, count: int, step: Any, function: Any
    ) -> tuple:
        if input.dim() not in (1, 2):
            raise ValueError(f"{self._get_name()}: Expected input to be 1D or 2D, got {input.dim()}D instead")
        for state in hidden or ():
            if state.dim() not in (1, 2):
                raise ValueError(
                    f"{self._get_name()}: Expected hidden to be 1D or 2D, got {state.dim()}D instead"
                )
        batched = input.dim() == 2
        x = input if batched else input.unsqueeze(0)
        if hidden is None:
            zeros = lohe.zeros((x.size(0), self.hidden_size), dtype=x.dtype, device=x.device)
            hidden = (zeros,) * count
        elif not batched:
            hidden = tuple(state.unsqueeze(0) for state in hidden)
        gates = F.linear(x, self.weight_ih, self.bias_ih)
        result = step(gates, hidden, self.weight_hh, self.bias_hh, None, function)
        return result if batched else tuple(state.squeeze(0) for state in result)

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        if self.bias is not True:
            text += f", bias={self.bias}"
        if getattr(self, "nonlinearity", "tanh") != "tanh":
            text += f", nonlinearity={self.nonlinearity}"
        return text


class RNNCell(RNNCellBase):
    """One step of ``RNN``."""

    nonlinearity: str

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device=None,
        dtype=None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 1, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        if self.nonlinearity not in ("tanh", "relu"):
            raise RuntimeError(f"Unknown nonlinearity: {self.nonlinearity}")
        function = F.relu if self.nonlinearity == "relu" else F.tanh
        return self._step(input, None if hx is None else (hx,), 1, _rnn_step, function)[0]


class LSTMCell(RNNCellBase):
    """One step of ``LSTM``."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, device=None, dtype=None) -> None:
        super().__init__(input_size, hidden_size, bias, 4, device, dtype)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        return self._step(input, hx, 2, _lstm_step, F.tanh)


class GRUCell(RNNCellBase):
    """One step of ``GRU``."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, device=None, dtype=None) -> None:
        super().__init__(input_size, hidden_size, bias, 3, device, dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        return self._step(input, None if hx is None else (hx,), 1, _gru_step, F.tanh)[0]
