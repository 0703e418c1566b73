"""Targets of auxiliary outputs, worked out by hand, and their loss."""

from dataclasses import replace
from math import log

import pytest
import torch
from custom_parts import own_run
from small_models import small_state
from torch.nn import functional as F

from autoseg.imaging.targets import Targets
from autoseg.networks.auxiliary_outputs import AuxiliaryOutput
from autoseg.planning.loss_settings import LossSettings
from autoseg.training.auxiliary_loss import auxiliary_loss, find_answers
from autoseg.training.losses import Loss
from autoseg.training.plugin_checks import find_idle

LABELS = Targets(structures={"first": (1,), "second": (2,)})
SPARSE = replace(LABELS, ignore=3)
REGIONS = Targets(structures={"whole": (1, 2), "core": (2,)}, exclusive=False)
CHANGES, PRESENCE, ABSENCE = (AuxiliaryOutput(target=target) for target in ("changes", "presence", "absence"))


def column(*labels):
    """Returns labels of one patch that has a single voxel in each slice, in 3D."""
    return torch.tensor(labels).reshape(1, -1, 1, 1)


def answers(auxiliary_outputs, labels, targets=LABELS, unknown=None):
    """Returns the targets of each channel of one patch: 1 for yes, 0 for no, None for unknown."""
    told, known = find_answers(auxiliary_outputs, labels, targets, unknown)
    known = torch.ones_like(told) if known is None else known
    return [
        [
            int(yes) if sure else None
            for yes, sure in zip(one.flatten().tolist(), certain.flatten().tolist(), strict=True)
        ]
        for one, certain in zip(told[0], known[0], strict=True)
    ]


# --- What changes -----------------------------------------------------------------------------------------------------


def test_changes_are_where_a_structure_begins_or_ends():
    """Before the first slice there is background alone, so the background changes with the foreground."""
    assert answers(CHANGES, column(1, 1, 0, 1, 2)) == [
        [1, 0, 1, 1, 0],  # background: first is there at once, then nothing, then something, then something else
        [1, 0, 1, 1, 1],
        [0, 0, 0, 0, 1],
    ]
    assert answers(CHANGES, column(0, 0, 0)) == [[0, 0, 0]] * 3


def test_changes_of_regions_are_those_of_each():
    """Regions may overlap; there is no background channel."""
    assert answers(CHANGES, column(1, 2, 2, 0), REGIONS) == [[1, 0, 0, 1], [0, 1, 0, 1]]


def test_changes_of_masks_and_planes():
    """Structures may come as masks, and in 2D the slices are the rows of an image."""
    masks = torch.tensor([[True, True, False], [False, True, True]]).reshape(1, 2, 3, 1)
    targets = Targets(structures={"a": (1,), "b": (2,)}, exclusive=False)
    assert answers(CHANGES, masks, targets) == [[1, 0, 1], [0, 1, 0]]


def test_nobody_knows_changes_beside_what_nobody_labelled():
    """Changes are unknown in a slice that was not labelled, and in the slice after it."""
    assert answers(CHANGES, column(1, 3, 1, 0), SPARSE) == [[1, None, None, 1], [1, None, None, 1], [0, None, None, 0]]


def test_nobody_knows_changes_of_what_nobody_looked_for():
    """They are unknown for the background too, which may hold the structure; others are known."""
    unknown = torch.tensor([[False, True]])
    assert answers(CHANGES, column(1, 0), LABELS, unknown) == [[None, None], [1, 1], [None, None]]
    assert answers(CHANGES, column(1, 0), REGIONS, unknown) == [[1, 1], [None, None]]


# --- What is present --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "targets", "present"),
    [
        ((0, 1, 0), LABELS, [1, 1, 0]),
        ((2, 2, 2), LABELS, [0, 0, 1]),
        ((1, 1, 0), REGIONS, [1, 0]),
        ((2, 0, 0), REGIONS, [1, 1]),
        ((1, 3, 1), SPARSE, [None, 1, None]),
        ((3, 3, 3), SPARSE, [None, None, None]),
    ],
)
def test_presence_is_known_from_any_voxel_and_absence_from_all(labels, targets, present):
    """Each channel has one target per patch, whose opposite is absence."""
    assert answers(PRESENCE, column(*labels), targets) == [[one] for one in present]
    assert answers(ABSENCE, column(*labels), targets) == [[None if one is None else 1 - one] for one in present]


def test_nobody_knows_the_presence_of_what_nobody_looked_for():
    """Presence is unknown for the structure and the background, as changes are."""
    unknown = torch.tensor([[False, True]])
    assert answers(PRESENCE, column(1, 0), LABELS, unknown) == [[None], [1], [None]]


# --- Losses -----------------------------------------------------------------------------------------------------------


def test_cross_entropy_by_hand():
    """The loss is the mean over voxels, then over channels, of three probabilities."""
    targets = Targets(structures={"a": (1,)}, exclusive=False)
    logits = torch.tensor([3.0, 1 / 3, 1.0]).log().reshape(1, 1, 3, 1, 1)
    found = auxiliary_loss(CHANGES, logits, column(1, 1, 1), targets)
    assert found.item() == pytest.approx(-(log(3 / 4) + log(3 / 4) + log(1 / 2)) / 3)


def test_balanced_cross_entropy_by_hand():
    """A positive weighs ln(4 / (1 + 1)) where one of four voxels is positive; unknown voxels do not count."""
    targets = Targets(structures={"a": (1,)}, exclusive=False, ignore=3)
    logits = torch.tensor([3.0, 1 / 3, 1.0, 1 / 3]).log().reshape(1, 1, 4, 1, 1)
    balanced = replace(CHANGES, balanced=True)
    expected = -(log(2) * log(3 / 4) + 2 * log(3 / 4) + log(1 / 2)) / 4
    assert auxiliary_loss(balanced, logits, column(1, 1, 1, 1), targets).item() == pytest.approx(expected)
    longer = torch.cat([logits, torch.full((1, 1, 2, 1, 1), 50.0)], dim=2)
    told = auxiliary_loss(balanced, longer[:, :, [0, 1, 2, 3, 4, 5]], column(1, 1, 1, 1, 3, 1), targets)
    assert told.item() == pytest.approx(expected)


def test_balance_never_turns_a_yes_into_a_no():
    """Where all voxels are positive, the formula gives ln(2 / 3) < 0: their weight is then 0."""
    targets = Targets(structures={"a": (1,)}, exclusive=False)
    logits = torch.zeros(1, 1, 2, 1, 1)
    assert auxiliary_loss(replace(CHANGES, balanced=True), logits, column(1, 0), targets).item() == 0


def test_channels_without_an_answer_do_not_count():
    """The mean is over the other channels; if all are unknown, the loss and its gradient are 0."""
    unknown = torch.tensor([[False, True], [True, True]])
    logits = torch.randn(2, 3, 1, 1, 1, requires_grad=True)
    labels = torch.cat([column(1, 0), column(0, 0)])
    found = auxiliary_loss(PRESENCE, logits, labels, LABELS, unknown)
    assert found.item() == pytest.approx(F.softplus(-logits[0, 1]).item())
    nothing = auxiliary_loss(PRESENCE, logits, labels, LABELS, torch.ones(2, 2, dtype=torch.bool))
    nothing.backward()
    assert nothing.item() == 0
    assert logits.grad.abs().max() == 0


def test_loss_adds_what_further_outputs_tell():
    """Auxiliary losses are added by their weights; the weights of the usual outputs do not change."""
    generator, size = torch.Generator().manual_seed(0), (4, 2, 2)
    labels = torch.randint(3, (2, *size), generator=generator)
    usual = [torch.randn(2, 3, *shape, generator=generator) for shape in (size, (2, 1, 1), (1, 1, 1))]
    told = [torch.randn(2, 3, *shape, generator=generator) for shape in (size, (2, 1, 1), (1, 1, 1))]
    auxiliary_outputs = (replace(CHANGES, balanced=True), replace(CHANGES, weight=0.5), replace(PRESENCE, weight=2.0))
    plain = Loss(targets=LABELS, settings=LossSettings(), batch_dice=False)
    loss = replace(plain, auxiliary_outputs=auxiliary_outputs)
    assert loss.weigh([*usual, *told]) == pytest.approx((2 / 3, 1 / 3, 0, 1, 0.5, 2))
    coarse = labels[:, 1::2, 1:, 1:]
    apart = [
        auxiliary_loss(one, y, x, LABELS)
        for one, y, x in zip(auxiliary_outputs, told, (labels, coarse, labels), strict=True)
    ]
    expected = plain(usual, labels) + apart[0] + 0.5 * apart[1] + 2 * apart[2]
    torch.testing.assert_close(loss([*usual, *told], labels), expected)


def test_only_output_of_evaluation_is_judged_by_the_labels():
    """Validation calls the loss with a single output."""
    labels, logits = torch.tensor([[[0, 1], [2, 0]]]), torch.randn(1, 3, 2, 2)
    plain = Loss(targets=LABELS, settings=LossSettings(), batch_dice=False)
    assert torch.equal(replace(plain, auxiliary_outputs=(PRESENCE,))([logits], labels), plain([logits], labels))


def test_micro_batches_have_the_loss_of_the_batch():
    """The loss is a mean over patches, so the losses of micro-batches add up."""
    generator = torch.Generator().manual_seed(1)
    labels, logits = (
        torch.randint(3, (4, 5, 2, 2), generator=generator),
        torch.randn(4, 3, 5, 2, 2, generator=generator),
    )
    auxiliary_outputs = replace(CHANGES, balanced=True)
    parts = [auxiliary_loss(auxiliary_outputs, logits[own], labels[own], LABELS) for own in (slice(0, 2), slice(2, 4))]
    torch.testing.assert_close(auxiliary_loss(auxiliary_outputs, logits, labels, LABELS), sum(parts) / 2)


@pytest.mark.usefixtures("empty_registry")
def test_weights_of_further_outputs_are_not_left_out():
    """They follow those of the labels, of which only the coarsest is left out of the loss."""
    run = own_run(given={"levels": 3})
    run = replace(run, loss=replace(run.loss, auxiliary_outputs=(AuxiliaryOutput(target="changes"),)))
    assert find_idle(small_state(run).network, run) == ["heads.1.weight", "heads.1.bias"]
