"""Losses equal the reference method's golden values and are right where classes are missing."""

import pytest
import torch

from autoseg.training.losses import dice_and_cross_entropy, dice_loss, supervised_loss, supervision_weights


@pytest.fixture
def golden():
    """Logits and target of the golden values, written down with the reference's facts."""
    logits = torch.sin(7 * torch.linspace(-1, 1, 48)).reshape(2, 3, 2, 2, 2)
    target = (torch.arange(16) % 3).reshape(2, 2, 2, 2)
    return logits, target


@pytest.mark.parametrize(("batch_dice", "expected"), [(True, 1.0616557598), (False, 1.0778412819)])
def test_sum_of_dice_and_cross_entropy_is_golden(golden, batch_dice, expected):
    """Dice plus cross entropy of nnU-Net v2.8.1 on the same tensors."""
    assert dice_and_cross_entropy(*golden, batch_dice=batch_dice).item() == pytest.approx(expected, abs=1e-6)


def test_dice_alone_is_golden(golden):
    """The Dice part of the golden value."""
    assert dice_loss(*golden, batch_dice=True).item() == pytest.approx(-0.2671042383, abs=1e-6)


@pytest.mark.parametrize(
    ("outputs", "weights"),
    [
        (1, [1]),
        (2, [1, 0]),
        (4, [0.571429, 0.285714, 0.142857, 0]),
        (5, [0.533333, 0.266667, 0.133333, 0.066667, 0]),
        (6, [0.516129, 0.258065, 0.129032, 0.064516, 0.032258, 0]),
    ],
)
def test_weights_of_the_resolutions_are_golden(outputs, weights):
    """Halved at each level, the coarsest unused, the sum 1."""
    assert supervision_weights(outputs) == pytest.approx(weights, abs=1e-6)


def test_perfect_prediction_has_the_lowest_loss():
    """Certain and right everywhere: Dice loss -1, cross entropy 0."""
    target = torch.randint(0, 3, (2, 4, 6, 8), generator=torch.Generator().manual_seed(0))
    logits = 100.0 * torch.nn.functional.one_hot(target, 3).movedim(-1, 1)
    assert dice_and_cross_entropy(logits, target, batch_dice=False).item() == pytest.approx(-1, abs=1e-4)


def test_absent_class_that_is_not_predicted_counts_as_perfect():
    """Dice of nothing against nothing is 1, by the smoothing term."""
    target = torch.zeros(1, 4, 4, dtype=torch.int64)
    logits = torch.zeros(1, 2, 4, 4)
    logits[:, 0] = 200.0
    assert dice_loss(logits, target, batch_dice=False).item() == pytest.approx(-1)


def test_coarse_outputs_are_compared_with_the_coarsened_target():
    """A prediction that equals the target at every resolution reaches the lowest loss."""
    target = torch.zeros(1, 8, 12, dtype=torch.int64)
    target[:, :4, 4:] = 1
    outputs = [
        100.0 * torch.nn.functional.one_hot(level, 2).movedim(-1, 1)
        for level in (target, target[:, ::2, ::2], target[:, ::4, ::4])
    ]
    assert supervised_loss(outputs, target, batch_dice=True).item() == pytest.approx(-1, abs=1e-4)


def test_gradient_reaches_all_but_the_coarsest_output():
    """The coarsest resolution has weight zero, the others learn."""
    target = torch.randint(0, 2, (1, 8, 8), generator=torch.Generator().manual_seed(1))
    outputs = [torch.zeros(1, 2, size, size, requires_grad=True) for size in (8, 4, 2)]
    supervised_loss(outputs, target, batch_dice=True).backward()
    assert outputs[0].grad.abs().sum() > 0
    assert outputs[1].grad.abs().sum() > 0
    assert outputs[2].grad is None
