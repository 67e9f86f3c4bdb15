"""Adadelta (Zeiler, 2012)."""

from __future__ import annotations

from typing import Any

import lohe
from lohe import Tensor
from lohe.optim.optimizer import Optimizer, ParamsT, check_hyperparameters, gradient_of, new_step, real_views

__all__ = ["Adadelta"]


class Adadelta(Optimizer):
    """Steps are ``lr * g`` times the ratio of the root mean squares of past steps and gradients."""

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_hyperparameters(
            lr, eps=eps, weight_decay=weight_decay, foreach=foreach, differentiable=differentiable
        )
        if not 0.0 <= rho <= 1.0:
            raise ValueError(f"Invalid rho value: {rho}")
        defaults = {
            "lr": lr,
            "rho": rho,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "capturable": capturable,
            "foreach": foreach,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def _update(self, group: dict[str, Any]) -> None:
        for param in self._params_with_grad(group):
            state = self.state[param]
            if not state:
                self._start(state, param, group)
            state["step"].add_(1)
            self._update_one(group, state, param)

    def _start(self, state: dict[str, Any], param: Tensor, group: dict[str, Any]) -> None:
        state["step"] = new_step()
        state["square_avg"] = lohe.zeros_like(param, memory_format=lohe.preserve_format)
        state["acc_delta"] = lohe.zeros_like(param, memory_format=lohe.preserve_format)

    def _update_one(self, group: dict[str, Any], state: dict[str, Any], param: Tensor) -> None:
        grad = gradient_of(param, group["maximize"])
        if group["weight_decay"] != 0:
            grad = grad.add(param, alpha=group["weight_decay"])
        rho, eps = group["rho"], group["eps"]
        param, grad, square, deltas = real_views([param, grad, state["square_avg"], state["acc_delta"]])
        square.mul_(rho).addcmul_(grad, grad, value=1 - rho)
        delta = deltas.add(eps).sqrt_().div_(square.add(eps).sqrt_()).mul_(grad)
        deltas.mul_(rho).addcmul_(delta, delta, value=1 - rho)
        param.add_(delta, alpha=-group["lr"])
