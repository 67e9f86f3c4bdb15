"""Recurrent layers and cells; the ops of src/ops/recurrent.cpp run them."""

from __future__ import annotations

import math
import warnings

import lohe
from lohe import Tensor
from lohe._C import ops
from lohe.nn import init
from lohe.nn.modules.module import Module
from lohe.nn.parameter import Parameter

__all__ = ["GRU", "GRUCell", "LSTM", "LSTMCell", "RNN", "RNNBase", "RNNCell", "RNNCellBase"]

_RNN_MODES = ("RNN_TANH", "RNN_RELU", "LSTM", "GRU")


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
        if mode not in _RNN_MODES:
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
        gates = (4 if mode == "LSTM" else 3 if mode == "GRU" else 1) * hidden_size
        for layer in range(num_layers):
            layer_input = input_size if layer == 0 else output_size * directions
            for direction in range(directions):
                suffix = f"_l{layer}" + ("_reverse" if direction == 1 else "")
                self._add_weight("weight_ih" + suffix, [gates, layer_input], device, dtype)
                self._add_weight("weight_hh" + suffix, [gates, output_size], device, dtype)
                if bias:
                    self._add_weight("bias_ih" + suffix, [gates], device, dtype)
                    self._add_weight("bias_hh" + suffix, [gates], device, dtype)
                if proj_size > 0:
                    self._add_weight("weight_hr" + suffix, [proj_size, hidden_size], device, dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        bound = 1.0 / math.sqrt(self.hidden_size) if self.hidden_size > 0 else 0
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def _add_weight(self, name: str, shape: list[int], device=None, dtype=None) -> None:
        self.register_parameter(name, Parameter(lohe.empty(shape, device=device, dtype=dtype)))

    def flatten_parameters(self) -> None:
        """Accepted for compatibility; the parameters need no common memory here."""

    @property
    def _all_weights(self) -> list[list[str]]:
        """The names of the weights of each layer and direction."""
        kinds = ["weight_ih", "weight_hh"] + ["bias_ih", "bias_hh"] * self.bias
        kinds += ["weight_hr"] * (self.proj_size > 0)
        places = [f"_l{layer}" for layer in range(self.num_layers)]
        if self.bidirectional:
            places = [place + end for place in places for end in ("", "_reverse")]
        return [[kind + place for kind in kinds] for place in places]

    @property
    def all_weights(self) -> list[list[Parameter]]:
        return [[getattr(self, name) for name in names] for names in self._all_weights]

    @property
    def _flat_weights(self) -> list[Tensor]:
        """All weights in their order, as the ops take them."""
        return [getattr(self, name) for names in self._all_weights for name in names]

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

    def _is_batched(self, input: Tensor) -> bool:
        """Whether the input, which is checked, has a batch dimension."""
        if not isinstance(input, lohe.Tensor):
            raise TypeError(f"{self._get_name()}: expected input to be a Tensor, got {type(input).__name__}")
        if input.dim() not in (2, 3):
            raise ValueError(f"{self._get_name()}: Expected input to be 2D or 3D, got {input.dim()}D tensor")
        if input.size(-1) != self.input_size:
            raise RuntimeError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {input.size(-1)}"
            )
        return input.dim() == 3

    def _batch_dim(self) -> int:
        return 0 if self.batch_first else 1

    def _state(self, hx: Tensor | None, x: Tensor, batched: bool, width: int, name: str) -> Tensor:
        """The given first state (layers * directions, N, width), or zeros."""
        count = self.num_layers * (2 if self.bidirectional else 1)
        batch = x.size(self._batch_dim())
        if hx is None:
            return lohe.zeros((count, batch, width), dtype=x.dtype, device=x.device)
        expected = (count, batch, width) if batched else (count, width)
        if tuple(hx.shape) != expected:
            raise RuntimeError(f"Expected {name} size {expected}, got {list(hx.shape)}")
        return hx if batched else hx.unsqueeze(1)


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
        batched = self._is_batched(input)
        x = input if batched else input.unsqueeze(self._batch_dim())
        h = self._state(hx, x, batched, self.hidden_size, "hidden")
        if self.mode == "RNN_TANH":
            output, final = ops.rnn_tanh(
                x,
                h,
                self._flat_weights,
                self.bias,
                self.num_layers,
                self.dropout,
                self.training,
                self.bidirectional,
                self.batch_first,
            )
        else:
            output, final = ops.rnn_relu(
                x,
                h,
                self._flat_weights,
                self.bias,
                self.num_layers,
                self.dropout,
                self.training,
                self.bidirectional,
                self.batch_first,
            )
        if not batched:
            return output.squeeze(self._batch_dim()), final.squeeze(1)
        return output, final


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
        batched = self._is_batched(input)
        x = input if batched else input.unsqueeze(self._batch_dim())
        h_width = self.proj_size if self.proj_size > 0 else self.hidden_size
        h = self._state(None if hx is None else hx[0], x, batched, h_width, "hidden[0]")
        c = self._state(None if hx is None else hx[1], x, batched, self.hidden_size, "hidden[1]")
        output, last_h, last_c = ops.lstm(
            x,
            [h, c],
            self._flat_weights,
            self.bias,
            self.num_layers,
            self.dropout,
            self.training,
            self.bidirectional,
            self.batch_first,
        )
        if not batched:
            return output.squeeze(self._batch_dim()), (last_h.squeeze(1), last_c.squeeze(1))
        return output, (last_h, last_c)


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
        batched = self._is_batched(input)
        x = input if batched else input.unsqueeze(self._batch_dim())
        h = self._state(hx, x, batched, self.hidden_size, "hidden")
        output, final = ops.gru(
            x,
            h,
            self._flat_weights,
            self.bias,
            self.num_layers,
            self.dropout,
            self.training,
            self.bidirectional,
            self.batch_first,
        )
        if not batched:
            return output.squeeze(self._batch_dim()), final.squeeze(1)
        return output, final


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

    def _is_batched(self, input: Tensor) -> bool:
        if input.dim() not in (1, 2):
            raise ValueError(f"{self._get_name()}: Expected input to be 1D or 2D, got {input.dim()}D instead")
        return input.dim() == 2

    def _state(self, hx: Tensor | None, x: Tensor, batched: bool) -> Tensor:
        """The given state (N, hidden_size), or zeros."""
        if hx is None:
            return lohe.zeros((x.size(0), self.hidden_size), dtype=x.dtype, device=x.device)
        if hx.dim() not in (1, 2):
            raise ValueError(f"{self._get_name()}: Expected hidden to be 1D or 2D, got {hx.dim()}D instead")
        return hx if batched else hx.unsqueeze(0)

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        if self.bias is not True:
            text += f", bias={self.bias}"
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
        batched = self._is_batched(input)
        x = input if batched else input.unsqueeze(0)
        h = self._state(hx, x, batched)
        if self.nonlinearity == "tanh":
            result = ops.rnn_tanh_cell(x, h, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        else:
            result = ops.rnn_relu_cell(x, h, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        return result if batched else result.squeeze(0)

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        if self.bias is not True:
            text += f", bias={self.bias}"
        if self.nonlinearity != "tanh":
            text += f", nonlinearity={self.nonlinearity}"
        return text


class LSTMCell(RNNCellBase):
    """One step of ``LSTM``."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, device=None, dtype=None) -> None:
        super().__init__(input_size, hidden_size, bias, 4, device, dtype)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        batched = self._is_batched(input)
        x = input if batched else input.unsqueeze(0)
        h = self._state(None if hx is None else hx[0], x, batched)
        c = self._state(None if hx is None else hx[1], x, batched)
        next_h, next_c = ops.lstm_cell(x, [h, c], self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        if not batched:
            return next_h.squeeze(0), next_c.squeeze(0)
        return next_h, next_c


class GRUCell(RNNCellBase):
    """One step of ``GRU``."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, device=None, dtype=None) -> None:
        super().__init__(input_size, hidden_size, bias, 3, device, dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        batched = self._is_batched(input)
        x = input if batched else input.unsqueeze(0)
        result = ops.gru_cell(x, self._state(hx, x, batched), self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        return result if batched else result.squeeze(0)
