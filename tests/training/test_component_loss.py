"""Losses of components and skeletons equal sums over the voxels of each region, at every resolution."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from small_models import small_run, small_state

from autoseg.dataloading.shapes import ShapeMaker
from autoseg.imaging.targets import Targets
from autoseg.planning.loss_settings import LossSettings
from autoseg.runtime.reporting import SILENT
from autoseg.training.losses import Loss, coarsen, deep_supervision_weights
from autoseg.training.memory_trial import fill_gradients

LABELS = Targets(structures={"first": (1,), "second": (2,)})
SPARSE = replace(LABELS, ignore=3)
REGIONS = Targets(structures={"whole": (1, 2), "core": (2,)}, exclusive=False)
SMOOTH = 1e-5


def example(targets, size, patches=3):
    """Returns labels with several components of each structure, and logits."""
    generator = torch.Generator().manual_seed(len(size))
    labels = torch.randint(0, 40, (patches, *size), generator=generator)
    labels = torch.where(labels < 4, labels, 0)
    labels[labels == 3] = 0 if targets.ignore is None else 3
    labels[-1] = 0  # a patch without a component
    return labels, torch.randn(patches, targets.outputs, *size, generator=generator)


def overlap(p, g, settings):
    """Returns the overlap of two vectors."""
    hits = float((p * g).sum())
    if settings.overlap == "tversky":
        wrong = settings.false_positives * (p.sum() - hits) + settings.false_negatives * (g.sum() - hits)
        return (hits + SMOOTH) / (hits + float(wrong) + SMOOTH)
    predicted = (p * p).sum() if settings.overlap == "squared_dice" else p.sum()
    return (2 * hits + SMOOTH) / (float(predicted + g.sum()) + SMOOTH)


def by_brute_force(logits, labels, targets, settings, regions):
    """Returns the loss of components, by a loop over patches, structures and regions."""
    total = 0.0
    for patch in range(len(labels)):
        losses = [
            loss_of_region(mask, (regions[patch, structure] == number).numpy() & counts, p, voxelwise, settings)
            for structure, (mask, counts, p, voxelwise) in enumerate(
                each_structure(logits[patch].double().numpy(), labels[patch].numpy(), targets, settings)
            )
            for number in range(1, int(regions[patch, structure].max()) + 1)
        ]
        losses = [loss for loss in losses if loss is not None]
        total += sum(losses) / len(losses) if losses else 0.0
    return total / len(labels)


def each_structure(logits, labels, targets, settings):
    """Yields the mask, what counts, the probabilities, and values and weights of the voxelwise loss of a structure."""
    counts = np.ones(labels.shape, bool) if targets.ignore is None else labels != targets.ignore
    for structure, numbers in enumerate(targets.structures.values()):
        mask = np.isin(labels, numbers)
        if targets.exclusive:
            shares, classes = np.exp(logits) / np.exp(logits).sum(0), np.where(counts, labels, 0)
            entropy = -np.log(np.take_along_axis(shares, classes[None], axis=0)[0])
            p, weight = shares[structure + 1], np.array(settings.class_weights or (1.0,) * len(shares))[classes]
        else:
            p = 1 / (1 + np.exp(-logits[structure]))
            entropy, weight = -np.log(np.where(mask, p, 1 - p)), np.ones(mask.shape)
        focus = (1 - np.exp(-entropy)) ** settings.focal_exponent if settings.voxelwise == "focal" else 1.0
        yield mask, counts, p, (focus * entropy, weight)


def loss_of_region(mask, region, p, voxelwise, settings):
    """Returns the loss of one region; None if no voxel of its component counts."""
    if not (mask & region).any():
        return None
    loss = 0.0
    if settings.overlap != "none":
        loss -= settings.overlap_weight * overlap(p[region], mask[region], settings)
    if settings.voxelwise != "none":
        values, weights = voxelwise
        loss += settings.voxelwise_weight * np.average(values[region], weights=weights[region])
    return loss


CASES = [
    {},
    {"overlap": "squared_dice", "overlap_weight": 0.5},
    {"overlap": "tversky", "voxelwise": "none"},
    {"overlap": "none", "voxelwise_weight": 2.0},
    {"voxelwise": "focal"},
    {"class_weights": (1.0, 2.0, 3.0)},
]


@pytest.mark.parametrize("settings", CASES)
@pytest.mark.parametrize("targets", [LABELS, SPARSE, REGIONS])
@pytest.mark.parametrize("size", [(9, 10), (6, 7, 5)])
def test_components_equal_a_loop_over_regions(settings, targets, size):
    """What the third term adds is the mean loss of the regions, whatever the terms, structures and dimensions."""
    if targets is REGIONS and "class_weights" in settings:
        settings = {"class_weights": (2.0, 3.0)}
    labels, logits = example(targets, size)
    plain, weighted = LossSettings(**settings), LossSettings(**settings, component_weight=0.7)
    shapes = ShapeMaker.of(weighted, targets).make(labels)
    assert shapes.regions.max() > 3
    losses = [
        Loss(targets=targets, settings=each, batch_dice=True)((logits,), labels, None, shapes).item()
        for each in (plain, weighted)
    ]
    expected = by_brute_force(logits, labels, targets, plain, shapes.regions)
    assert losses[1] - losses[0] == pytest.approx(0.7 * expected, abs=2e-5)


def test_small_lesion_counts_as_much_as_a_large_one():
    """To miss a lesion of a voxel costs as much as to miss one of 64, where Dice of the patch hardly notices it."""
    labels = torch.zeros((1, 4, 4, 40), dtype=torch.long)
    labels[..., 2:6], labels[0, 2, 2, 35] = 1, 1
    targets, settings = Targets(structures={"lesion": (1,)}), LossSettings(voxelwise="none", component_weight=1.0)
    shapes, costs = ShapeMaker.of(settings, targets).make(labels), []
    for missed in (slice(0, 20), slice(20, 40)):
        found = labels.clone()
        found[..., missed] = 0
        logits = torch.where(torch.stack([found == 0, found == 1], dim=1), 50.0, -50.0)
        costs.append(Loss(targets=targets, settings=settings, batch_dice=False)((logits,), labels, None, shapes).item())
    whole = [2 * found / (found + 65) for found in (1, 64)]  # Dice of the patch, whose lesions have 65 voxels
    assert costs == pytest.approx([-whole[0] - 0.5, -whole[1] - 0.5], abs=1e-4)
    assert whole[1] - whole[0] > 0.9


@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("targets", [LABELS, SPARSE, REGIONS])
@pytest.mark.parametrize("size", [(9, 10), (6, 7, 5)])
def test_skeletons_equal_a_sum_over_voxels(batch_dice, targets, size):
    """The recall of each structure, of each patch or of the batch; 1 for one without a skeleton."""
    labels, logits = example(targets, size)
    settings = LossSettings(skeleton_weight=0.4)
    shapes = ShapeMaker.of(settings, targets).make(labels)
    losses = [
        Loss(targets=targets, settings=each, batch_dice=batch_dice)((logits,), labels, None, shapes).item()
        for each in (LossSettings(), settings)
    ]
    shares = logits.softmax(1)[:, 1:] if targets.exclusive else logits.sigmoid()
    patches = [range(len(labels))] if batch_dice else [[patch] for patch in range(len(labels))]
    recalls = []
    for group in patches:
        for structure in range(2):
            lines = [shapes.skeletons[patch, structure] for patch in group]
            found = sum(float(shares[patch, structure][line].sum()) for patch, line in zip(group, lines, strict=True))
            length = sum(int(line.sum()) for line in lines)
            recalls.append((found + SMOOTH) / (length + SMOOTH))
    assert losses[1] - losses[0] == pytest.approx(-0.4 * np.mean(recalls), abs=2e-5)


def test_both_terms_are_taken_at_every_resolution():
    """Shapes are coarsened as labels are; a component that is lost in that does not count."""
    labels, fine = example(LABELS, (8, 8))
    coarse, unused = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(9)), torch.randn(3, 3, 2, 2)
    settings = LossSettings(component_weight=1.0, skeleton_weight=0.5)
    shapes = ShapeMaker.of(settings, LABELS).make(labels)
    loss = Loss(targets=LABELS, settings=settings, batch_dice=False)
    first, second, _ = deep_supervision_weights([(8, 8), (4, 4), (2, 2)])
    coarse_shapes = replace(
        shapes, regions=coarsen(shapes.regions, coarse), skeletons=coarsen(shapes.skeletons, coarse)
    )
    expected = first * loss((fine,), labels, None, shapes) + second * loss(
        (coarse,), coarsen(labels, coarse), None, coarse_shapes
    )
    assert loss((fine, coarse, unused), labels, None, shapes).item() == pytest.approx(expected.item(), abs=1e-6)


@pytest.mark.parametrize("targets", [LABELS, SPARSE, REGIONS])
def test_gradients_are_numbers(targets):
    """Also for patches without a component, and where no voxel of a region counts."""
    labels, logits = example(targets, (6, 7, 5))
    logits.requires_grad_()
    settings = LossSettings(component_weight=1.0, skeleton_weight=1.0)
    shapes = ShapeMaker.of(settings, targets).make(labels)
    Loss(targets=targets, settings=settings, batch_dice=False)((logits,), labels, None, shapes).backward()
    assert logits.grad.isfinite().all()
    assert logits.grad.abs().sum() > 0


def test_batch_without_shapes_is_refused():
    """A term is never left out silently."""
    for name in ("component_weight", "skeleton_weight"):
        loss = Loss(targets=LABELS, settings=LossSettings(**{name: 1.0}), batch_dice=False)
        with pytest.raises(ValueError, match=name):
            loss((torch.zeros(1, 3, 4, 4),), torch.zeros(1, 4, 4, dtype=torch.long))


@pytest.mark.parametrize(
    "settings",
    [
        {"component_weight": -1.0},
        {"skeleton_weight": math.inf},
        {"component_weight": 1.0, "voxelwise": "top_k"},
        {"skeleton_weight": 1.0, "custom": {"name": "mine"}},
    ],
)
def test_impossible_settings_are_refused(settings):
    """Those that could have no effect, or a senseless one."""
    with pytest.raises(ValidationError):
        LossSettings.model_validate(settings)


def shaped_run(**training):
    """Returns a small run whose loss has both terms."""
    settings = LossSettings(component_weight=1.0, skeleton_weight=1.0)
    run = small_run(**{"loss": settings, **training})
    maker = ShapeMaker.of(settings, run.loss.targets)
    return replace(run, training=replace(run.training, shapes=maker), validation=replace(run.validation, shapes=maker))


def test_micro_batches_have_the_gradient_of_the_batch():
    """Both terms are means over patches, unless Dice is summed over the batch."""
    gradients = []
    for size in (None, 1):
        run = shaped_run(micro_batch_size=size)
        state = small_state(run)
        fill_gradients(state, run.training.make(0), run, SILENT)
        gradients.append(torch.cat([weight.grad.flatten() for weight in state.network.parameters()]))
    assert (gradients[0] - gradients[1]).norm() < 0.01 * gradients[0].norm()  # networks round to bfloat16
