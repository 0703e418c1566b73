"""The optimizer, its learning rate, and the running average of the weights."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from autoseg.planning.settings import TrainingSettings

WARMUP_START = 0.01
"""Share of the highest learning rate at which a warm-up starts. Decision: at 0 the first step would do nothing."""

LEAST_IMPROVEMENT = 5e-4
"""By which the smoothed training loss must fall to count as better. Source: the reference method's first version."""

ROUNDING = 1e-9
"""Shares of the training that differ by less are the same, whatever the last bits of their sums are."""


def make_optimizer(network: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    """The optimizer of all weights that are not frozen.

    Source: of stochastic gradient descent with Nesterov momentum, the reference method; of "adam", Kingma and Ba 2015;
    of "adamw", Loshchilov and Hutter 2019.
    """
    weights = [weights for weights in network.parameters() if weights.requires_grad]
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "sgd":
        momentum, nesterov = settings.momentum, settings.momentum > 0
        return torch.optim.SGD(weights, lr=rate, momentum=momentum, weight_decay=decay, nesterov=nesterov)
    kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    return kind(weights, lr=rate, betas=settings.adam_betas, weight_decay=decay)


def learning_rate(progress: float, settings: TrainingSettings, falls: int = 0) -> float:
    """The learning rate when a share of the training is done: a warm-up, if there is one, then the schedule.

    It follows from the share alone, so short runs, and those of so many seconds, anneal as smoothly as long ones; only
    a "plateau" looks at the losses.

    Source: "polynomial" is the reference method's, which sets it once per epoch: 0.01, 0.00535887 half way, 1.995e-5
    after 999 of 1000 epochs; "cosine" is Loshchilov and Hutter 2017, without restarts; "step" is He et al. 2016.

    Args:
        progress: 0 to 1; values beyond are taken for these.
        settings: The plan's.
        falls: For "plateau": how often the rate fell, by `count_falls`.
    """
    done = min(max(progress, 0.0), 1.0)
    if done < settings.warmup_share:
        return settings.learning_rate * max(WARMUP_START, done / settings.warmup_share)
    return settings.learning_rate * _share_of_highest(
        (done - settings.warmup_share) / (1 - settings.warmup_share), settings, falls
    )


def _share_of_highest(done: float, settings: TrainingSettings, falls: int) -> float:
    """The schedule: from 1 downwards while `done` goes from 0, the end of the warm-up, to 1."""
    if settings.schedule == "polynomial":
        return math.pow(1 - done, settings.schedule_power)
    if settings.schedule == "cosine":
        return (1 + math.cos(math.pi * done)) / 2
    if settings.schedule == "step":
        falls = int(done / settings.step_share + ROUNDING)
    return settings.step_factor**falls


def count_falls(losses: Sequence[tuple[float, float]], patience: float) -> int:
    """How often a "plateau" lowered the learning rate: each time when the loss got no better for long enough.

    The losses are smoothed: of each, half is forgotten after a quarter of the patience. In a run whose epochs are
    longer than that, each epoch speaks for itself. Source: the reference method's first version, which waited for 30
    epochs of 1000 and kept 0.93 of the mean per epoch. Decision: both in shares of the training, so that short runs
    anneal too.

    Example: the losses 2, 2, 2, 2, 2 at 0.1, 0.2, ... 0.5 of the training, with a patience of 0.2, give two falls, at
    0.3 and 0.5.

    Args:
        losses: Of each finished epoch: the share of the training that was done at its end, and its mean training loss.
        patience: Share of the training without a better loss before a fall.
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
    """Share of the training that is done after some steps: of its seconds if they are limited, else of its steps."""
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

    Early on the average keeps less, (1 + step) / (10 + step), so that it forgets the random start.
    """
    keep = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average), list(current), 1 - keep)


@torch.no_grad()
def copy_buffers(average: nn.Module, network: nn.Module) -> None:
    """Copies what a network knows besides weights: running means, say, of which the built-in one has none."""
    for kept, current in zip(average.buffers(), network.buffers(), strict=True):
        kept.copy_(current)
