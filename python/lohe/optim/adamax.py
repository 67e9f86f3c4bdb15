"""Adamax (Kingma and Ba, 2015)."""

from __future__ import annotations

from typing import Any

import lohe
from lohe import Tensor
from lohe.optim.optimizer import Optimizer, ParamsT, check_hyperparameters, gradient_of, new_step, real_views

__all__ = ["Adamax"]


class Adamax(Optimizer):
    """Adam whose v is the decayed maximum of abs(g)."""

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        check_hyperparameters(
            lr,
            eps=eps,
            betas=betas,
            weight_decay=weight_decay,
            foreach=foreach,
            differentiable=differentiable,
        )
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
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
        state["exp_avg"] = lohe.zeros_like(param, memory_format=lohe.preserve_format)
        state["exp_inf"] = lohe.zeros_like(param, memory_format=lohe.preserve_format)

    def _update_one(self, group: dict[str, Any], state: dict[str, Any], param: Tensor) -> None:
        grad = gradient_of(param, group["maximize"])
        if group["weight_decay"] != 0:
            grad = grad.add(param, alpha=group["weight_decay"])
        beta1, beta2 = group["betas"]
        param, grad, mean, largest = real_views([param, grad, state["exp_avg"], state["exp_inf"]])
        mean.lerp_(grad, 1 - beta1)
        lohe.maximum(largest.mul_(beta2), grad.abs().add_(group["eps"]), out=largest)
        rate = group["lr"] / (1 - beta1 ** float(state["step"]))
        param.addcdiv_(mean, largest, value=-rate)
