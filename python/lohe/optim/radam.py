"""RAdam (Liu et al., 2020)."""

from __future__ import annotations

from typing import Any

import lohe
from lohe import Tensor
from lohe.optim.optimizer import Optimizer, ParamsT, check_hyperparameters, gradient_of, new_step, real_views

__all__ = ["RAdam"]


class RAdam(Optimizer):
    """Adam that leaves out the division by v while its variance is too large to estimate."""

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
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
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "decoupled_weight_decay": decoupled_weight_decay,
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
        state["exp_avg"] = lohe.zeros_like(param, memory_format=lohe.preserve_format)
        state["exp_avg_sq"] = lohe.zeros_like(param, memory_format=lohe.preserve_format)

    def _update_one(self, group: dict[str, Any], state: dict[str, Any], param: Tensor) -> None:
        grad = gradient_of(param, group["maximize"])
        if group["weight_decay"] != 0:
            if group["decoupled_weight_decay"]:
                param.mul_(1 - group["lr"] * group["weight_decay"])
            else:
                grad = grad.add(param, alpha=group["weight_decay"])
        beta1, beta2 = group["betas"]
        step = float(state["step"])
        param, grad, mean, square = real_views([param, grad, state["exp_avg"], state["exp_avg_sq"]])
        mean.lerp_(grad, 1 - beta1)
        square.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        correction2 = 1 - beta2**step
        corrected = mean / (1 - beta1**step)
        rho_limit = 2 / (1 - beta2) - 1
        rho = rho_limit - 2 * step * (beta2**step) / correction2
        if rho > 5.0:
            rectified = ((rho - 4) * (rho - 2) * rho_limit / ((rho_limit - 4) * (rho_limit - 2) * rho)) ** 0.5
            corrected = corrected * (correction2**0.5 * rectified) / square.sqrt().add_(group["eps"])
        param.add_(corrected, alpha=-group["lr"])
