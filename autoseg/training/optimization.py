"""The optimizer, its learning rate, and the running average of the weights."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from autoseg.planning.settings import TrainingSettings

WARMUP_START = 0.01
"""Share of the highest learning rate at which a warm-up starts. Decision: at 0 the first step would change nothing."""

LEAST_IMPROVEMENT = 5e-4
"""Smallest fall of the smoothed training loss that counts as better. Source: the reference method's first version."""

FUSES_STEPS = ("cpu", "cuda")
"""Types of devices on which a step of gradient descent is fused; see `make_optimizer`."""

ROUNDING = 1e-9
"""Shares of the training that differ by less count as equal, because sums of them are rounded."""


def make_optimizer(network: nn.Module, settings: TrainingSettings, *, scaled: bool = False) -> torch.optim.Optimizer:
    """Returns the optimizer of all weights that are not frozen.

    Source: of stochastic gradient descent with Nesterov momentum, the reference method; of "adam", Kingma and Ba 2015;
    of "adamw", Loshchilov and Hutter 2019. Decision: on a CPU and on a CUDA GPU all operations of a step of gradient
    descent are fused. That takes a third of the time on a CPU; a GPU reads and writes weights, gradients and momentum
    once instead of several times. Not where the loss is scaled: a first step that is left out, because its gradients
    overflow, would leave the momentum of torch's fused step without a value (torch 2.13). Elsewhere torch chooses.

    Args:
        network: The network, on its device.
        settings: The settings of the plan.
        scaled: Whether the loss is scaled, see `device.needs_scaling`.
    """
    weights = [weights for weights in network.parameters() if weights.requires_grad]
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "sgd":
        momentum, nesterov = settings.momentum, settings.momentum > 0
        fuses = bool(weights) and weights[0].device.type in FUSES_STEPS and not scaled
        fused = True if fuses else None
        return torch.optim.SGD(weights, lr=rate, momentum=momentum, weight_decay=decay, nesterov=nesterov, fused=fused)
    kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    return kind(weights, lr=rate, betas=settings.adam_betas, weight_decay=decay)


def learning_rate(progress: float, settings: TrainingSettings, falls: int = 0) -> float:
    """Returns the learning rate when a share of the training is done: a warm-up, if there is one, then the schedule.

    It follows from the share alone, so short runs, and runs of limited time, anneal as smoothly as long ones; only
    "plateau" depends on the losses.

    Source: "polynomial" is the reference method's, which sets it once per epoch: 0.01, 0.00535887 half way, 1.995e-5
    after 999 of 1000 epochs; "cosine" is Loshchilov and Hutter 2017, without restarts; "step" is He et al. 2016.

    Args:
        progress: Share of the training that is done, clipped to 0 to 1.
        settings: The settings of the plan.
        falls: Number of times that the rate of a "plateau" fell, from `count_falls`.
    """
    done = min(max(progress, 0.0), 1.0)
    if done < settings.warmup_share:
        return settings.learning_rate * max(WARMUP_START, done / settings.warmup_share)
    return settings.learning_rate * _share_of_highest(
        (done - settings.warmup_share) / (1 - settings.warmup_share), settings, falls
    )


def _share_of_highest(done: float, settings: TrainingSettings, falls: int) -> float:
    """Returns the factor of the schedule, which falls from 1 while `done` goes from 0, the end of the warm-up, to 1."""
    if settings.schedule == "polynomial":
        return math.pow(1 - done, settings.schedule_power)
    if settings.schedule == "cosine":
        return (1 + math.cos(math.pi * done)) / 2
    if settings.schedule == "step":
        falls = int(done / settings.step_share + ROUNDING)
    return settings.step_factor**falls


def count_falls(losses: Sequence[tuple[float, float]], patience: float) -> int:
    """Returns how often a "plateau" lowered the learning rate: each time the loss did not improve for long enough.

    The losses are smoothed exponentially, with a half-life of a quarter of the patience; in a run with longer epochs
    than that, there is nearly no smoothing. Source: the reference method's first version, which waited for 30 epochs of
    1000 and kept 0.93 of the mean per epoch. Decision: both in shares of the training, so that short runs anneal too.

    Example: here the rate falls at 0.3 and 0.5 of the training.
        >>> count_falls([(0.1, 2.0), (0.2, 2.0), (0.3, 2.0), (0.4, 2.0), (0.5, 2.0)], patience=0.2)
        2

    Args:
        losses: For each finished epoch, the share of the training that was done at its end, and its mean training loss.
        patience: Share of the training without a better loss after which the rate falls.
    """
    falls = 0
    before = since = 0.0
    best = smoothed = math.inf
    for done, loss in losses:
        kept = 0.5 ** ((done - before) / (patience / 4))
        smoothed = loss if math.isinf(smoothed) else kept * smoothed + (1 - kept) * loss
        if smoothed < best - LEAST_IMPROVEMENT:
            best, since = smoothed, done
        elif done - since > patience - ROUNDING:
            falls, since = falls + 1, done
        before = done
    return falls


def share_done(settings: TrainingSettings, steps: int, seconds: float) -> float:
    """Returns the share of the training that is done: of its seconds if they are limited, else of its steps."""
    if settings.budget_seconds is not None:
        return min(1.0, seconds / settings.budget_seconds)
    return min(1.0, steps / (settings.epochs * settings.steps_per_epoch))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the learning rate of all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = rate


@torch.no_grad()
def update_average(average: Iterable[torch.Tensor], current: Iterable[torch.Tensor], decay: float, step: int) -> None:
    """Moves the running average towards the current weights, in place.

    In the first steps the decay is smaller, (1 + step) / (10 + step), so that the random weights are soon forgotten.

    Args:
        average: The averaged weights, which are changed.
        current: The weights of the network.
        decay: Share of the average that a step keeps.
        step: Number of steps done before.
    """
    keep = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average), list(current), 1 - keep)


@torch.no_grad()
def copy_buffers(average: nn.Module, network: nn.Module) -> None:
    """Copies the buffers of a network, such as running means; the built-in network has none."""
    for copied, current in zip(average.buffers(), network.buffers(), strict=True):
        copied.copy_(current)
