"""The layers."""

from lohe.nn.modules.activation import *  # noqa: F403
from lohe.nn.modules.attention import *  # noqa: F403
from lohe.nn.modules.batchnorm import *  # noqa: F403
from lohe.nn.modules.container import *  # noqa: F403
from lohe.nn.modules.conv import *  # noqa: F403
from lohe.nn.modules.distance import *  # noqa: F403
from lohe.nn.modules.dropout import *  # noqa: F403
from lohe.nn.modules.flatten import *  # noqa: F403
from lohe.nn.modules.fold import *  # noqa: F403
from lohe.nn.modules.instancenorm import *  # noqa: F403
from lohe.nn.modules.linear import *  # noqa: F403
from lohe.nn.modules.loss import *  # noqa: F403
from lohe.nn.modules.module import Module
from lohe.nn.modules.normalization import *  # noqa: F403
from lohe.nn.modules.padding import *  # noqa: F403
from lohe.nn.modules.pixelshuffle import *  # noqa: F403
from lohe.nn.modules.pooling import *  # noqa: F403
from lohe.nn.modules.rnn import *  # noqa: F403
from lohe.nn.modules.sparse import *  # noqa: F403
from lohe.nn.modules.transformer import *  # noqa: F403
from lohe.nn.modules.upsampling import *  # noqa: F403

__all__ = sorted(
    name for name, value in list(globals().items()) if isinstance(value, type) and issubclass(value, Module)
)
