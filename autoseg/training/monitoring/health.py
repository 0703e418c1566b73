"""Warnings and errors while a network is trained: found early, reported once, with what to do about them."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from autoseg.errors import AutosegError
from autoseg.runtime.units import describe_duration
from autoseg.training.monitoring.progress import EpochReport

STEPS_BETWEEN_LOOKS = 20
"""Number of steps between two checks of the losses, which stay on the device meanwhile: to read one, the CPU must wait
until the device has caught up."""

SILENT_SECONDS = 60
"""Time without a batch after which the user is told what the training waits for."""

LOST = 0.01
"""Pseudo Dice below which a structure is not found."""

FOUND = 0.1
"""Pseudo Dice above which a structure was found once."""

LOST_EPOCHS = 10
"""Number of epochs without a structure, which was found before, after which it counts as lost."""

NEVER_FOUND_EPOCHS = 25
"""Number of first epochs without a structure after which it is reported. Decision: in the ten datasets of
`planning.schedule`, each structure was found within the first few epochs."""

MUCH_WAITING = 0.2
"""Share of the time of an epoch above which waiting for patches is reported, if it is long enough as well."""

WAITING_WORTH_SAYING_SECONDS = 5.0
"""Seconds of an epoch above which waiting for patches is reported, if the share is large enough as well."""

ANEW = "in plan.json and train with --restart"


def check_losses(losses: Sequence[torch.Tensor], epoch: int) -> None:
    """Makes sure that the losses of the running epoch are numbers.

    Args:
        losses: One scalar per step, on any device, at least one.
        epoch: Number of the epoch.

    Raises:
        AutosegError: A loss is NaN or infinite.
    """
    values = torch.stack(list(losses))
    broken = (~values.isfinite()).nonzero()
    if len(broken):
        step = int(broken[0])
        raise _broken(f"the training loss became {values[step].item()} in step {step} of epoch {epoch}", epoch)


def check_weights(network: nn.Module, epoch: int) -> None:
    """Makes sure that the weights are finite; the last step may have broken them, while its loss was still finite.

    Raises:
        AutosegError: A weight is NaN or infinite.
    """
    norms = torch._foreach_norm([weights.detach() for weights in network.parameters()])
    if not bool(torch.stack(list(norms)).isfinite().all()):
        raise _broken(f"weights of the network are no longer numbers in epoch {epoch}", epoch)


def _broken(what: str, epoch: int) -> AutosegError:
    previous = f"; the checkpoint of epoch {epoch - 1} is kept" if epoch else ""
    fix = f"lower training.learning_rate {ANEW}, or look for extreme intensities with 'autoseg check'"
    return AutosegError(what, fix + previous)


def describe_stall(seconds: float, work: str) -> str:
    """Returns the line that says that training waits for patches.

    Args:
        seconds: How long no patch has come.
        work: What the loader does, as a part of a sentence.
    """
    return f"no training patch for {describe_duration(seconds)}; {work}; see whether the disk answers"


def find_alarms(reports: Sequence[EpochReport]) -> Iterator[str]:
    """Yields the warnings that are due after the last epoch and after no epoch before it.

    They follow from the reports alone, so a run that was stopped in between repeats none.

    Args:
        reports: Reports of all epochs so far, at least one.
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
    """Yields a warning if a structure was lost, or never found, as of the last epoch."""
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
    """Whether a structure that occurs in the patches was found once, and not in the last epochs up to an epoch."""
    last = dice[max(0, epoch + 1 - LOST_EPOCHS) : epoch + 1]
    return len(last) == LOST_EPOCHS and _are_all_lost(last) and any(value > FOUND for value in dice[:epoch])


def _was_never_found(dice: Sequence[float], epoch: int) -> bool:
    """Whether a structure that occurs in the patches was not found in any epoch up to an epoch."""
    return epoch + 1 == NEVER_FOUND_EPOCHS and _are_all_lost(dice[: epoch + 1])


def _are_all_lost(dice: Sequence[float]) -> bool:
    """Whether all values are below `LOST`; with NaN they are not, since the structure occurs in no held-out patch."""
    return not any(math.isnan(value) or value >= LOST for value in dice)


def _is_starved(report: EpochReport) -> bool:
    share = report.waiting_share or 0.0
    return share > MUCH_WAITING and share * report.seconds > WAITING_WORTH_SAYING_SECONDS
