"""Layers, their functions and their initial values."""

from lohe.nn import functional, init
from lohe.nn.parameter import Buffer, Parameter, UninitializedBuffer, UninitializedParameter
from lohe.nn.modules import *  # noqa: F403
from lohe.nn import modules, parameter, utils
