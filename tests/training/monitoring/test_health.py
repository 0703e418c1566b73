"""Problems of a training are noticed and reported once, with what to do."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from autoseg.errors import AutosegError
from autoseg.training.monitoring.health import (
    LOST_EPOCHS,
    NEVER_FOUND_EPOCHS,
    check_losses,
    check_weights,
    describe_stall,
    find_alarms,
)
from autoseg.training.monitoring.progress import EpochReport

NAN = math.nan


def reports_of(dice, **changes):
    """Returns reports of epochs with these pseudo Dice of "lesion", beside an organ that is always found."""
    common = {"training_loss": 1.0, "validation_loss": 1.0, "learning_rate": 0.01, "elapsed_seconds": 1.0}
    return [
        EpochReport(epoch=epoch, pseudo_dice={"organ": 0.9, "lesion": value}, **{"seconds": 40.0, **common, **changes})
        for epoch, value in enumerate(dice)
    ]


def alarms_of(reports):
    """Returns the warnings after each epoch: its number and the line."""
    return [(epoch, line) for epoch in range(len(reports)) for line in find_alarms(reports[: epoch + 1])]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_broken_loss_is_named_with_its_step(value):
    """The first loss that is not finite is named, with what to do and which checkpoint is left."""
    losses = [torch.tensor(one) for one in (0.5, -0.25, value, math.nan)]
    with pytest.raises(AutosegError) as raised:
        check_losses(losses, epoch=4)
    assert f"the training loss became {value} in step 2 of epoch 4;" in str(raised.value)
    assert "lower training.learning_rate in plan.json and train with --restart" in str(raised.value)
    assert str(raised.value).endswith("; the checkpoint of epoch 3 is kept")
    assert "\n" not in str(raised.value)


def test_sound_losses_pass_and_nothing_is_promised_of_the_first_epoch():
    """In the first epoch there is no checkpoint yet."""
    check_losses([torch.tensor(-0.9), torch.tensor(3.0)], epoch=0)
    with pytest.raises(AutosegError, match=r"'autoseg check'$"):
        check_losses([torch.tensor(math.nan)], epoch=0)


def test_broken_weights_are_noticed():
    """One weight among many that is not finite is enough."""
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    check_weights(network, epoch=1)
    with torch.no_grad():
        network[1].weight[1, 2] = math.inf
    with pytest.raises(AutosegError, match="weights of the network are no longer numbers in epoch 1"):
        check_weights(network, epoch=1)


def test_structure_that_is_lost_is_said_once():
    """After ten epochs below 0.01 there is a warning, with the best Dice before."""
    curve = [0.05, 0.43, 0.3] + [0.002] * 40
    [(epoch, line)] = alarms_of(reports_of(curve))
    assert epoch == 2 + LOST_EPOCHS
    assert line.startswith("lesion is lost: its pseudo Dice was 0.43 and has been below 0.01 for 10 epochs; ")
    assert "training.learning_rate" in line
    assert "--restart" in line


def test_structure_that_was_never_found_is_said_once():
    """After 25 epochs there is a warning, with where to look."""
    [(epoch, line)] = alarms_of(reports_of([0.0, 0.004] * 30))
    assert epoch == NEVER_FOUND_EPOCHS - 1
    assert line.startswith("lesion was not found in 25 epochs; look at its labels with 'autoseg check'")


@pytest.mark.parametrize(
    "curve",
    [
        [0.0] * (NEVER_FOUND_EPOCHS - 1) + [0.2] + [0.3] * 20,  # found in time
        [0.5] + [0.0] * (LOST_EPOCHS - 1) + [0.5] * 30,  # came back
        [0.05] + [0.0] * 40,  # was never found well enough to be lost
        [0.5, NAN] + [0.0] * 5 + [NAN] + [0.0, NAN] * 10,  # occurs in no held-out patch
        [NAN] * 40,
    ],
)
def test_no_false_alarm(curve):
    """Structures that are found late, come back, or do not occur give no warning."""
    assert alarms_of(reports_of(curve)) == []


def test_waiting_for_patches_is_said_once():
    """The warning comes in the first epoch that waited for more than a fifth of its time."""
    reports = [
        replace(report, waiting_share=share)
        for report, share in zip(reports_of([0.5] * 5), [0.1, 0.2, 0.35, 0.9, 0.1], strict=True)
    ]
    [(epoch, line)] = alarms_of(reports)
    assert epoch == 2
    assert line.startswith("35% of the time of epoch 2 went into waiting for training patches; more CPU cores or")


def test_short_waits_are_not_worth_a_line():
    """Half of an epoch of four seconds gives no warning, nor do old reports without the waiting time."""
    short = [replace(report, waiting_share=0.5) for report in reports_of([0.5] * 3, seconds=4.0)]
    assert alarms_of(short) == []
    assert alarms_of(reports_of([0.5] * 3)) == []


def test_stall_says_what_is_waited_for():
    """The line names the time and the case."""
    assert describe_stall(60, "reading case_7") == (
        "no training patch for 1 min 00 s; reading case_7; see whether the disk answers"
    )
