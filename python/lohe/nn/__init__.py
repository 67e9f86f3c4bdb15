"""Layers, their functions and their initial values."""

from lohe.nn import functional, init, modules, parameter, utils
from lohe.nn._functional.chunked_loss import LinearCrossEntropyOptions
from lohe.nn.modules import *  # noqa: F403
from lohe.nn.parameter import Buffer, Parameter, UninitializedBuffer, UninitializedParameter
