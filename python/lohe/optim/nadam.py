"""NAdam (Dozat, 2016)."""

from __future__ import annotations

from typing import Any

import lohe
from lohe import Tensor
from lohe.optim.optimizer import Optimizer, ParamsT, check_hyperparameters, gradient_of, new_step, real_views

__all__ = ["NAdam"]


class NAdam(Optimizer):
    """Adam with Nesterov momentum, whose weight grows with the step by `momentum_decay`."""

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
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
        if not momentum_decay >= 0.0:
            raise ValueError(f"Invalid momentum_decay value: {momentum_decay}")
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
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
        state["mu_product"] = lohe.ones((), dtype=lohe.float32)
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
        decay = group["momentum_decay"]
        mu = beta1 * (1.0 - 0.5 * (0.96 ** (step * decay)))
        mu_next = beta1 * (1.0 - 0.5 * (0.96 ** ((step + 1) * decay)))
        state["mu_product"].mul_(mu)
        product = float(state["mu_product"])
        param, grad, mean, square = real_views([param, grad, state["exp_avg"], state["exp_avg_sq"]])
        mean.lerp_(grad, 1 - beta1)
        square.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        root = square.div(1 - beta2**step).sqrt_().add_(group["eps"])
        param.addcdiv_(grad, root, value=-group["lr"] * (1.0 - mu) / (1.0 - product))
        param.addcdiv_(mean, root, value=-group["lr"] * mu_next / (1.0 - product * mu_next))
