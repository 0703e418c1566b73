"""The loss of a student is least where it agrees with its teacher, and the usual loss where the teacher is certain."""

import pytest
import torch
from small_models import SMALL_INFO

from autoseg.imaging.targets import Targets
from autoseg.planning.loss_settings import LossSettings
from autoseg.training.distillation_loss import distillation_loss
from autoseg.training.losses import Loss

REGIONS = Targets(structures={"whole": (1, 2), "core": (2,)}, exclusive=False, region_class_order=(1, 2))


def made_up(outputs=3, size=(4, 5, 6), seed=0):
    """Logits of two patches."""
    return torch.randn((2, outputs, *size), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("exclusive", [False, True])
def test_agreeing_is_best(exclusive, batch_dice):
    """Any step away from the probabilities of the teacher, however small, raises the loss."""
    logits = made_up()
    soft = logits.softmax(dim=1)[:, 1:] if exclusive else logits.sigmoid()
    least = distillation_loss(logits, soft, exclusive=exclusive, batch_dice=batch_dice)
    for seed in range(1, 6):
        for length in (0.01, 0.1, 1.0):
            moved = logits + length * made_up(seed=seed)
            assert distillation_loss(moved, soft, exclusive=exclusive, batch_dice=batch_dice) > least


@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("targets", [SMALL_INFO.targets, REGIONS], ids=["classes", "regions"])
def test_a_certain_teacher_is_a_label(targets, batch_dice):
    """Cross entropy and Dice of probabilities 0 and 1 are those of the labels; so the weight then changes nothing."""
    labels = torch.randint(0, 3, (2, 4, 5, 6), generator=torch.Generator().manual_seed(3))
    present = [torch.isin(labels, torch.tensor(numbers)) for numbers in targets.structures.values()]
    soft, logits = torch.stack(present, dim=1).float(), made_up(targets.outputs)
    losses = [
        Loss(targets=targets, settings=LossSettings(), batch_dice=batch_dice, soft_weight=weight)
        for weight in (0.0, 0.3, 1.0)
    ]
    values = [float(loss((logits,), labels, soft=soft)) for loss in losses]
    assert values == pytest.approx([float(losses[0]((logits,), labels))] * 3, abs=1e-5)


def test_the_weight_divides_the_loss():
    """With the weight w, it is (1 - w) times the loss by labels and w times that by the teacher, at each resolution."""
    labels, logits, soft = torch.zeros(2, 4, 4, 4), made_up(size=(4, 4, 4)), made_up(size=(4, 4, 4), seed=9)
    soft, coarse = soft.softmax(dim=1)[:, 1:], made_up(size=(2, 2, 2), seed=5)
    by_labels, mixed, taught = (
        Loss(targets=SMALL_INFO.targets, settings=LossSettings(), batch_dice=False, soft_weight=weight)(
            (logits, coarse, coarse), labels.long(), soft=soft
        )
        for weight in (0.0, 0.25, 1.0)
    )
    assert float(mixed) == pytest.approx(0.75 * float(by_labels) + 0.25 * float(taught), rel=1e-5)
    assert abs(float(by_labels) - float(taught)) > 0.01


def test_micro_batches_add_up():
    """The mean over patches: two halves have the gradient of the whole."""
    logits, soft = made_up().requires_grad_(), made_up(seed=4).softmax(dim=1)[:, 1:]
    [whole] = torch.autograd.grad(distillation_loss(logits, soft, exclusive=True), logits)
    halves = sum(distillation_loss(logits[n : n + 1], soft[n : n + 1], exclusive=True) / 2 for n in range(2))
    [parts] = torch.autograd.grad(halves, logits)
    assert torch.allclose(whole, parts, atol=1e-7)
