"""Voxels between components weigh more in the voxelwise loss, by the sum over all voxels."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from autoseg.dataloading.shapes import ShapeMaker
from autoseg.imaging.targets import Targets
from autoseg.planning.loss_settings import LossSettings
from autoseg.training.losses import Loss, coarsen

LABELS = Targets(structures={"first": (1,), "second": (2,)})
SPARSE = Targets(structures={"first": (1,), "second": (2,)}, ignore=3)
REGIONS = Targets(structures={"whole": (1, 2), "core": (2,)}, exclusive=False)
BORDERS = {"overlap": "none", "border_weight": 10.0, "border_sigma_voxels": 2.0}


def example(targets, size):
    """Returns labels with several components, the last patch without one, and logits."""
    generator = torch.Generator().manual_seed(len(size))
    labels = torch.randint(0, 30, (3, *size), generator=generator)
    labels = torch.where(labels < 4, labels, 0)
    labels[labels == 3] = 0 if targets.ignore is None else 3
    labels[-1] = 0
    return labels, torch.randn(3, targets.outputs, *size, generator=generator, dtype=torch.float64).float()


@pytest.mark.parametrize(
    ("targets", "settings"),
    [
        (LABELS, {}),
        (LABELS, {"class_weights": (1.0, 2.0, 3.0)}),
        (SPARSE, {}),
        (REGIONS, {}),
        (LABELS, {"focal": True}),
    ],
)
@pytest.mark.parametrize("size", [(9, 10), (6, 7, 5)])
def test_loss_is_the_weighted_mean_over_voxels(targets, settings, size):
    """The weight of a voxel is that of its class times that of its border, and 0 where nobody labelled."""
    focal = settings.pop("focal", False) if (settings := dict(settings)) else False
    labels, logits = example(targets, size)
    chosen = LossSettings(**BORDERS, **settings, voxelwise="focal" if focal else "cross_entropy")
    shapes = ShapeMaker.of(chosen, targets).make(labels)
    assert shapes.borders.max() > 0.3
    found = Loss(targets=targets, settings=chosen, batch_dice=False)((logits,), labels, None, shapes).item()
    total = weights = 0.0
    for patch, *place in np.ndindex(*labels.shape):
        label, scores = int(labels[patch, *place]), logits[patch, :, *place].double().numpy()
        if label == targets.ignore:
            continue
        for channel in range(shapes.borders.shape[1]):
            weight = 1 + 10 * float(shapes.borders[patch, channel, *place])
            if targets.exclusive:
                entropy = float(np.log(np.exp(scores).sum()) - scores[label])
                weight *= settings.get("class_weights", (1.0,) * 3)[label]
            else:
                inside = label in list(targets.structures.values())[channel]
                entropy = float(np.log1p(np.exp(-scores[channel] if inside else scores[channel])))
            total += weight * entropy * ((1 - np.exp(-entropy)) ** 2 if focal else 1.0)
            weights += weight
    assert found == pytest.approx(total / weights, abs=1e-5)


def test_mistake_between_two_cells_costs_most():
    """A pixel that closes the gap between two cells costs more than one elsewhere in the background."""
    labels = torch.zeros((1, 24, 40), dtype=torch.long)
    labels[0, 4:20, 2:12] = labels[0, 4:20, 13:23] = 1
    targets, costs = Targets(structures={"cell": (1,)}), []
    for settings in (LossSettings(overlap="none"), LossSettings(overlap="none", border_weight=10.0)):
        maker = ShapeMaker.of(settings, targets)
        shapes = () if maker is None else (None, maker.make(labels))
        for wrong in ((12, 12), (12, 36)):
            answer = labels.clone()
            answer[0, *wrong] = 1
            logits = torch.where(torch.stack([answer == 0, answer == 1], dim=1), 5.0, -5.0)
            costs.append(Loss(targets=targets, settings=settings, batch_dice=False)((logits,), labels, *shapes).item())
    assert costs[0] == pytest.approx(costs[1])
    assert costs[2] > 5 * costs[3]


def test_coarser_outputs_get_coarser_borders():
    """Borders are coarsened as labels are."""
    labels, fine = example(LABELS, (8, 8))
    settings = LossSettings(**BORDERS)
    shapes = ShapeMaker.of(settings, LABELS).make(labels)
    coarse, unused = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(9)), torch.randn(3, 3, 2, 2)
    loss = Loss(targets=LABELS, settings=settings, batch_dice=False)
    second = type(shapes)(borders=coarsen(shapes.borders, coarse))
    expected = 2 / 3 * loss((fine,), labels, None, shapes) + 1 / 3 * loss(
        (coarse,), coarsen(labels, coarse), None, second
    )
    assert loss((fine, coarse, unused), labels, None, shapes).item() == pytest.approx(expected.item(), abs=1e-6)


def test_batch_without_borders_is_refused():
    """A weight is never left out silently."""
    loss = Loss(targets=LABELS, settings=LossSettings(border_weight=1.0), batch_dice=False)
    with pytest.raises(ValueError, match="border_weight"):
        loss((torch.zeros(1, 3, 4, 4),), torch.zeros(1, 4, 4, dtype=torch.long))


@pytest.mark.parametrize(
    "settings",
    [
        {"border_weight": -1.0},
        {"border_weight": 1.0, "voxelwise": "top_k"},
        {"border_weight": 1.0, "voxelwise": "none"},
        {"border_weight": 1.0, "custom": {"name": "mine"}},
        {"border_sigma_voxels": 0.0},
    ],
)
def test_impossible_settings_are_refused(settings):
    """Those that could have no effect, or a senseless one."""
    with pytest.raises(ValidationError):
        LossSettings.model_validate(settings)
