"""The optimizer, its learning rate, and the running average of the weights."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from autoseg.plan import TrainingSettings


def make_optimizer(network: nn.Module, settings: TrainingSettings) -> torch.optim.SGD:
    """Stochastic gradient descent with Nesterov momentum. Source: the reference method."""
    return torch.optim.SGD(
        network.parameters(),
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=settings.momentum > 0,
    )


def learning_rate(progress: float, settings: TrainingSettings) -> float:
    """The learning rate when a share `progress` (0 to 1) of the training is done: a polynomial that ends at 0.

    Source: the reference method, which sets it once per epoch: 0.01, 0.00535887 half way, 1.995e-5 after 999 of 1000
    epochs. Here it is set at each step, so that short runs anneal as smoothly as long ones.
    """
    return settings.learning_rate * math.pow(1 - min(max(progress, 0.0), 1.0), settings.schedule_power)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the learning rate of all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = rate


@torch.no_grad()
def update_average(average: Iterable[torch.Tensor], current: Iterable[torch.Tensor], decay: float, step: int) -> None:
    """Moves the running average towards the current weights, in place.

    Early on the average keeps less, (1 + step) / (10 + step), so that it forgets the random start.
    """
    keep = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average), list(current), 1 - keep)
