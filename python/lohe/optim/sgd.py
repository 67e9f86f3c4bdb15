"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from typing import Any

import lohe
from lohe import Tensor
from lohe.optim.optimizer import Optimizer, ParamsT, check_hyperparameters, gradient_of, real_views

__all__ = ["SGD"]


class SGD(Optimizer):
    """``v = momentum * v + (1 - dampening) * g``, ``p -= lr * v``; with `nesterov`, ``p -= lr * (g + momentum * v)``.

    The first v is g. `weight_decay` times p is added to the gradient g.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float | Tensor = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        check_hyperparameters(
            lr, weight_decay=weight_decay, foreach=foreach, fused=fused, differentiable=differentiable
        )
        if momentum < 0.0:
            raise ValueError(f"Invalid momentum value: {momentum}")
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
            "foreach": foreach,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("nesterov", False)
            group.setdefault("maximize", False)
            group.setdefault("foreach", None)
            group.setdefault("differentiable", False)
            group.setdefault("fused", None)

    def _update(self, group: dict[str, Any]) -> None:
        params = self._params_with_grad(group)
        if group["momentum"] == 0:
            self._call(group, params, [], False)
            return
        started = [p for p in params if self.state[p].get("momentum_buffer") is not None]
        if started:
            self._call(group, started, [self.state[p]["momentum_buffer"] for p in started], False)
        if len(started) < len(params):
            fresh = [p for p in params if self.state[p].get("momentum_buffer") is None]
            buffers = [lohe.empty_like(gradient_of(p)) for p in fresh]
            for param, buffer in zip(fresh, buffers):
                self.state[param]["momentum_buffer"] = buffer
            self._call(group, fresh, buffers, True)

    def _call(self, group: dict[str, Any], params: list[Tensor], buffers: list[Tensor], first: bool) -> None:
        if not params:
            return
        lists: list[list[Any]] = [params, [p.grad for p in params], buffers]
        if any(p.is_complex() for p in params):
            lists = [real_views(tensors) for tensors in lists]
        lohe._fused_sgd_(
            *lists,
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
            lr=group["lr"],
            dampening=group["dampening"],
            nesterov=group["nesterov"],
            maximize=group["maximize"],
            is_first_step=first,
        )
