"""What goes wrong while a network learns: noticed early, said once, with what to do about it."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from autoseg.errors import AutosegError
from autoseg.runtime.units import describe_duration
from autoseg.training.monitoring.progress import EpochReport

STEPS_BETWEEN_LOOKS = 20
"""Losses stay on the device for so many steps: to look at one, the CPU must wait until the device has caught up."""

SILENT_SECONDS = 60
"""After that long without a batch, the user is told what it waits for."""

LOST = 0.01
"""A structure with a pseudo Dice below that is not found."""
FOUND = 0.1
LOST_EPOCHS = 10
NEVER_FOUND_EPOCHS = 25
"""Decision: of the ten datasets of `planning.schedule`, each structure was found within the first few epochs."""

MUCH_WAITING = 0.2
WAITING_WORTH_SAYING_SECONDS = 5.0
"""Of an epoch, together: below either nobody would notice."""

ANEW = "in plan.json and train with --restart"


def check_losses(losses: Sequence[torch.Tensor], epoch: int) -> None:
    """Makes sure that the losses of the running epoch are numbers.

    Args:
        losses: One scalar per step, on any device, at least one.
        epoch: Its number.

    Raises:
        AutosegError: One is not a number, or is infinite.
    """
    values = torch.stack(list(losses))
    broken = (~values.isfinite()).nonzero()
    if len(broken):
        step = int(broken[0])
        raise _broken(f"the training loss became {values[step].item()} in step {step} of epoch {epoch}", epoch)


def check_weights(network: nn.Module, epoch: int) -> None:
    """Makes sure that the weights are numbers; the last step may have broken them, whose loss was still sound.

    Raises:
        AutosegError: One is not a number, or is infinite.
    """
    norms = torch._foreach_norm([weights.detach() for weights in network.parameters()])
    if not bool(torch.stack(list(norms)).isfinite().all()):
        raise _broken(f"weights of the network are no longer numbers in epoch {epoch}", epoch)


def _broken(what: str, epoch: int) -> AutosegError:
    kept = f"; the checkpoint of epoch {epoch - 1} is kept" if epoch else ""
    fix = f"lower training.learning_rate {ANEW}, or look for extreme intensities with 'autoseg check'"
    return AutosegError(what, fix + kept)


def describe_stall(seconds: float, work: str) -> str:
    """Says that training waits for patches."""
    return f"no training patch for {describe_duration(seconds)}; {work}; see whether the disk answers"


def find_alarms(reports: Sequence[EpochReport]) -> Iterator[str]:
    """Says what the last epoch brought to light, and no epoch before it.

    That follows from the reports alone, so a run that was stopped in between says nothing twice.

    Args:
        reports: Of all epochs so far, at least one.
    """
    for name in reports[-1].pseudo_dice:
        yield from _structure_alarms(name, [report.pseudo_dice[name] for report in reports])
    starved = [report for report in reports if _is_starved(report)]
    if starved == [reports[-1]]:
        yield (
            f"{reports[-1].waiting_share:.0%} of the time of epoch {reports[-1].epoch} went into waiting for training "
            "patches; more CPU cores or a faster disk would save that"
        )


def _structure_alarms(name: str, dice: Sequence[float]) -> Iterator[str]:
    """Whether a structure was lost, or never found, as of the last epoch."""
    due = [epoch for epoch in range(len(dice)) if _is_lost(dice, epoch) or _was_never_found(dice, epoch)]
    if due[:1] != [len(dice) - 1]:
        return
    if _was_never_found(dice, due[0]):
        yield (
            f"{name} was not found in {NEVER_FOUND_EPOCHS} epochs; look at its labels with 'autoseg check', then raise "
            f"training.foreground_fraction or set training.loss.overlap to 'tversky' {ANEW}"
        )
    else:
        yield (
            f"{name} is lost: its pseudo Dice was {max(dice):.2f} and has been below {LOST} for {LOST_EPOCHS} epochs; "
            f"if it does not come back, lower training.learning_rate or raise training.foreground_fraction {ANEW}"
        )


def _is_lost(dice: Sequence[float], epoch: int) -> bool:
    """Whether, as of an epoch, a structure that occurs was found before and no longer is."""
    last = dice[max(0, epoch + 1 - LOST_EPOCHS) : epoch + 1]
    return len(last) == LOST_EPOCHS and _are_all_lost(last) and any(one > FOUND for one in dice[:epoch])


def _was_never_found(dice: Sequence[float], epoch: int) -> bool:
    """Whether, as of an epoch, a structure that occurs was not found once."""
    return epoch + 1 == NEVER_FOUND_EPOCHS and _are_all_lost(dice[: epoch + 1])


def _are_all_lost(dice: Sequence[float]) -> bool:
    """NaN counts as no loss: the structure occurs in no held-out patch, which are the same after each epoch."""
    return not any(math.isnan(one) or one >= LOST for one in dice)


def _is_starved(report: EpochReport) -> bool:
    share = report.waiting_share or 0.0
    return share > MUCH_WAITING and share * report.seconds > WAITING_WORTH_SAYING_SECONDS
