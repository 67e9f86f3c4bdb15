"""Optimizers and learning-rate schedules."""

from lohe.optim import lr_scheduler
from lohe.optim.adadelta import Adadelta
from lohe.optim.adagrad import Adagrad
from lohe.optim.adam import Adam, AdamW
from lohe.optim.adamax import Adamax
from lohe.optim.nadam import NAdam
from lohe.optim.optimizer import Optimizer
from lohe.optim.radam import RAdam
from lohe.optim.rmsprop import RMSprop
from lohe.optim.sgd import SGD

__all__ = [
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "SGD",
    "lr_scheduler",
]
