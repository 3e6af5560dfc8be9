"""The optimiser of the reference code: LARS, its two parameter groups, linear warm-up and cosine decay."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class LARS(Optimizer):
    """Layer-wise adaptive rate scaling with momentum (You et al., 2017), as in the reference code.

    For a weight ``p`` with gradient ``g``: ``g += weight_decay * p``, scaled by ``eta * |p| / |g|`` (by 1
    if either norm is 0), ``m = momentum * m + g``, ``p -= lr * m``. Groups with ``adapt=False`` have
    neither scaling nor decay; `parameter_groups` sets this for biases and normalisation layers.

    Args:
        params: parameters or groups; a group may set ``adapt`` and any of the rates below.
        lr: learning rate.
        weight_decay: L2 decay.
        momentum: heavy-ball momentum, without dampening.
        eta: trust coefficient.

    Raises:
        ValueError: a rate that is out of range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.2,
        weight_decay: float = 1e-6,
        momentum: float = 0.9,
        eta: float = 0.001,
    ):
        if lr < 0 or weight_decay < 0 or not 0 <= momentum < 1 or eta <= 0:
            raise ValueError(
                f"needs lr >= 0, weight_decay >= 0, 0 <= momentum < 1, eta > 0; "
                f"got {lr=}, {weight_decay=}, {momentum=}, {eta=}"
            )
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "eta": eta, "adapt": True}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            # Momentum and decay fill a sparse gradient, such as nn.Embedding(sparse=True) has.
            updates: list[Tensor] = [p.grad.to_dense() if p.grad.is_sparse else p.grad for p in params]
            if group["adapt"]:
                updates = list(torch._foreach_add(updates, params, alpha=group["weight_decay"]))
                weights, grads = torch._foreach_norm(params), torch._foreach_norm(updates)
                trust = [
                    torch.where((w > 0) & (g > 0), group["eta"] * w / g, 1.0)
                    for w, g in zip(weights, grads, strict=True)
                ]
                torch._foreach_mul_(updates, trust)
            for p in params:
                if "momentum" not in self.state[p]:
                    self.state[p]["momentum"] = torch.zeros_like(p)
            momenta = [self.state[p]["momentum"] for p in params]
            torch._foreach_mul_(momenta, group["momentum"])
            torch._foreach_add_(momenta, updates)
            torch._foreach_add_(params, momenta, alpha=-group["lr"])
        return loss


def parameter_groups(module: nn.Module, bias_lr_ratio: float = 1.0) -> list[dict[str, Any]]:
    """Two groups for `LARS`: weights; and biases and normalisation, without adaptation and decay.

    Args:
        module: its parameters with at most one dimension are biases and normalisation, as in the
            reference code. Frozen parameters are left out.
        bias_lr_ratio: the learning rate of the second group divided by that of the first
            (0.0048 / 0.2 in the reference code); `schedule` applies it.
    """
    params = [p for p in module.parameters() if p.requires_grad]
    weights = {"params": [p for p in params if p.ndim > 1], "adapt": True, "lr_ratio": 1.0}
    others = {
        "params": [p for p in params if p.ndim <= 1],
        "adapt": False,
        "weight_decay": 0.0,
        "lr_ratio": bias_lr_ratio,
    }
    return [group for group in (weights, others) if group["params"]]


def warmup_cosine(warmup_steps: int, total_steps: int, final: float = 0.001) -> Callable[[int], float]:
    """The learning rate's factor as a function of the step: linear from 0 to 1, then cosine to ``final``.

    This is the schedule of the reference code, where ``final`` is 1/1000.

    Raises:
        ValueError: the warm-up is not shorter than the run.
    """
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(f"the warm-up ({warmup_steps} steps) must be shorter than the run ({total_steps})")

    def factor(step: int) -> float:
        if step < warmup_steps:
            return step / warmup_steps
        q = 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / (total_steps - warmup_steps)))
        return q + final * (1 - q)

    return factor


def schedule(
    optimizer: Optimizer, batch_size: int, warmup_steps: int, total_steps: int, final: float = 0.001
) -> LambdaLR:
    """The published learning rates, per step: ``lr * lr_ratio * batch_size / 256``, with warm-up and decay.

    Args:
        optimizer: has groups from `parameter_groups`; each ``lr`` is per 256 samples.
        batch_size: the global batch size.
        warmup_steps, total_steps, final: as in `warmup_cosine`.
    """
    shape = warmup_cosine(warmup_steps, total_steps, final)
    ratios = [group.get("lr_ratio", 1.0) * batch_size / 256 for group in optimizer.param_groups]

    def scaled(ratio: float) -> Callable[[int], float]:
        return lambda step: ratio * shape(step)

    return LambdaLR(optimizer, [scaled(ratio) for ratio in ratios])
