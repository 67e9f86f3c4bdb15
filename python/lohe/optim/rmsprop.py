"""RMSprop (Hinton, 2012)."""

from __future__ import annotations

from typing import Any

import lohe
from lohe import Tensor
from lohe.optim.optimizer import Optimizer, ParamsT, check_hyperparameters, gradient_of, new_step, real_views

__all__ = ["RMSprop"]


class RMSprop(Optimizer):
    """``v`` is a running mean of g ** 2 (less the squared mean of g if `centered`); ``p -= lr * g / (sqrt(v) + eps)``."""

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_hyperparameters(
            lr, eps=eps, weight_decay=weight_decay, foreach=foreach, differentiable=differentiable
        )
        if not momentum >= 0.0:
            raise ValueError(f"Invalid momentum value: {momentum}")
        if not alpha >= 0.0:
            raise ValueError(f"Invalid alpha value: {alpha}")
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "alpha": alpha,
            "eps": eps,
            "centered": centered,
            "weight_decay": weight_decay,
            "capturable": capturable,
            "foreach": foreach,
            "maximize": maximize,
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
        if group["momentum"] > 0:
            state["momentum_buffer"] = lohe.zeros_like(param, memory_format=lohe.preserve_format)
        if group["centered"]:
            state["grad_avg"] = lohe.zeros_like(param, memory_format=lohe.preserve_format)

    def _update_one(self, group: dict[str, Any], state: dict[str, Any], param: Tensor) -> None:
        grad = gradient_of(param, group["maximize"])
        if group["weight_decay"] != 0:
            grad = grad.add(param, alpha=group["weight_decay"])
        alpha, rate = group["alpha"], group["lr"]
        param, grad, square = real_views([param, grad, state["square_avg"]])
        square.mul_(alpha).addcmul_(grad, grad, value=1 - alpha)
        if group["centered"]:
            (mean,) = real_views([state["grad_avg"]])
            mean.lerp_(grad, 1 - alpha)
            root = square.addcmul(mean, mean, value=-1).sqrt_()
        else:
            root = square.sqrt()
        root = root.add_(group["eps"])
        if group["momentum"] > 0:
            (buffer,) = real_views([state["momentum_buffer"]])
            buffer.mul_(group["momentum"]).addcdiv_(grad, root)
            param.add_(buffer, alpha=-rate)
        else:
            param.addcdiv_(grad, root, value=-rate)
