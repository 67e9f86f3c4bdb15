"""Adam (Kingma and Ba, 2015) and AdamW (Loshchilov and Hutter, 2019)."""

from __future__ import annotations

from typing import Any

import lohe
from lohe import Tensor
from lohe.optim.optimizer import Optimizer, ParamsT, check_hyperparameters, new_step, real_views

__all__ = ["Adam", "AdamW"]


class Adam(Optimizer):
    """``m`` and ``v`` are running means of g and g ** 2; ``p -= lr * m_hat / (sqrt(v_hat) + eps)``.

    `weight_decay` times p is added to the gradient; with `decoupled_weight_decay` p shrinks by ``lr * weight_decay``
    instead. `amsgrad` uses the largest v so far (Reddi et al., 2018).
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        check_hyperparameters(
            lr,
            eps=eps,
            betas=betas,
            weight_decay=weight_decay,
            foreach=foreach,
            fused=fused,
            differentiable=differentiable,
        )
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("amsgrad", False)
            group.setdefault("maximize", False)
            group.setdefault("foreach", None)
            group.setdefault("capturable", False)
            group.setdefault("differentiable", False)
            group.setdefault("fused", None)
            group.setdefault("decoupled_weight_decay", False)
            for param in group["params"]:
                own = self.state.get(param)
                # Old checkpoints hold the step as a number.
                if own and not isinstance(own.get("step"), Tensor):
                    own["step"] = lohe.tensor(float(own["step"]), dtype=lohe.float32)

    def _update(self, group: dict[str, Any]) -> None:
        params = self._params_with_grad(group)
        if not params:
            return
        amsgrad = group["amsgrad"]
        states = []
        for param in params:
            state = self.state[param]
            if not state:
                state["step"] = new_step()
                state["exp_avg"] = lohe.zeros_like(param, memory_format=lohe.preserve_format)
                state["exp_avg_sq"] = lohe.zeros_like(param, memory_format=lohe.preserve_format)
                if amsgrad:
                    state["max_exp_avg_sq"] = lohe.zeros_like(param, memory_format=lohe.preserve_format)
            states.append(state)
        steps = [state["step"] for state in states]
        lohe._foreach_add_(steps, 1)
        beta1, beta2 = group["betas"]
        update = lohe._fused_adamw_ if group["decoupled_weight_decay"] else lohe._fused_adam_
        lists: list[list[Any]] = [
            params,
            [param.grad for param in params],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [state["max_exp_avg_sq"] for state in states] if amsgrad else [],
        ]
        if any(param.is_complex() for param in params):
            lists = [real_views(tensors) for tensors in lists]
        update(
            *lists,
            steps,
            lr=group["lr"],
            beta1=float(beta1),
            beta2=float(beta2),
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=amsgrad,
            maximize=group["maximize"],
        )


class AdamW(Adam):
    """Adam whose weight decay shrinks the parameters directly."""

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=True,
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group["decoupled_weight_decay"] = True
