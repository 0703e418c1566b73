"""Regions, skeletons and borders of patches equal those of their masks, and come with each batch."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from small_models import small_cases, small_configuration

from autoseg.dataloading.loader import Batches
from autoseg.dataloading.shapes import MOST_REGIONS, ShapeMaker, find_regions
from autoseg.imaging.borders import number_components, weigh_borders
from autoseg.imaging.label_encoding import code_base, encode_cascade
from autoseg.imaging.skeletons import find_tube
from autoseg.imaging.targets import Targets
from autoseg.planning.loss_settings import LossSettings

LABELS = Targets.of_labels({"bright": 1, "dark": 2})
REGIONS = Targets(structures={"whole": (1, 2), "core": (2,)}, exclusive=False)
BOTH = LossSettings(component_weight=1.0, skeleton_weight=1.0, border_weight=10.0, border_sigma_voxels=2.0)


@pytest.mark.parametrize("shape", [(13, 17), (7, 9, 11)])
def test_each_voxel_belongs_to_its_nearest_component(shape):
    """No other component is nearer, by the distances to all voxels of each; all components have a region."""
    for seed in range(5):
        mask = np.random.default_rng(seed).random(shape) < 0.02
        components, count = ndimage.label(mask, structure=np.ones((3,) * len(shape)))
        regions = find_regions(mask)
        assert regions.dtype == np.int16
        if count == 0:
            assert not regions.any()
            continue
        voxels = np.stack(np.indices(shape), axis=-1)
        distances = np.stack(
            [
                np.linalg.norm(voxels[..., None, :] - np.argwhere(components == number), axis=-1).min(-1)
                for number in range(1, count + 1)
            ]
        )
        assert set(np.unique(regions)) == set(range(1, count + 1))
        nearest = np.take_along_axis(distances, regions[None].astype(int) - 1, axis=0)[0]
        assert np.allclose(nearest, distances.min(axis=0))


def test_patch_with_one_component_is_one_region():
    """Corners connect; an empty mask has no region."""
    mask = np.zeros((4, 4, 4), dtype=bool)
    assert not find_regions(mask).any()
    mask[0, 0, 0] = mask[1, 1, 1] = True
    assert (find_regions(mask) == 1).all()


def test_countless_components_share_the_last_region():
    """Numbers stay within those that the loss sums over."""
    mask = np.zeros((100, 100), dtype=bool)
    mask[::2, ::2] = True
    regions = find_regions(mask)
    assert (regions.min(), regions.max()) == (1, MOST_REGIONS)
    assert (regions[mask] == MOST_REGIONS).sum() == mask.sum() - MOST_REGIONS + 1


@pytest.mark.parametrize("targets", [LABELS, REGIONS, replace(LABELS, ignore=3)])
@pytest.mark.parametrize("size", [(9, 8), (5, 9, 8)])
def test_shapes_of_every_structure(targets, size):
    """Structures may overlap; voxels that were not annotated belong to none."""
    labels = torch.from_numpy(np.random.default_rng(1).choice([0, 1, 2, 3], p=[0.7, 0.1, 0.15, 0.05], size=(2, *size)))
    shapes = ShapeMaker.of(BOTH, targets).make(labels.to(torch.int16))
    for patch in range(2):
        for structure, numbers in enumerate(targets.structures.values()):
            mask = np.isin(labels[patch].numpy(), numbers)
            assert np.array_equal(shapes.regions[patch, structure].numpy(), find_regions(mask))
            assert np.array_equal(shapes.skeletons[patch, structure].numpy(), find_tube(mask))


@pytest.mark.parametrize("targets", [LABELS, REGIONS])
def test_borders_lie_between_all_labels_or_within_a_region(targets):
    """Labels that exclude each other share a map of borders; regions have one each, since a voxel may be in several."""
    labels = torch.from_numpy(np.random.default_rng(2).choice([0, 1, 2], p=[0.8, 0.1, 0.1], size=(2, 9, 8)))
    borders = ShapeMaker.of(BOTH, targets).make(labels.to(torch.int16)).borders
    assert borders.shape == (2, 1 if targets.exclusive else 2, 9, 8)
    for patch in range(2):
        masks = [np.isin(labels[patch].numpy(), numbers) for numbers in targets.structures.values()]
        for channel, group in enumerate([masks] if targets.exclusive else [[mask] for mask in masks]):
            expected = weigh_borders(number_components(group), 2.0)
            assert expected.any()
            assert np.array_equal(borders[patch, channel].numpy(), expected)


def test_only_what_the_loss_needs_is_made():
    """Most losses need nothing beside the labels."""
    assert ShapeMaker.of(LossSettings(), LABELS) is None
    labels = torch.zeros((1, 4, 4), dtype=torch.int16)
    shapes = ShapeMaker.of(LossSettings(component_weight=0.1), LABELS).make(labels)
    assert shapes.skeletons is shapes.borders is None
    assert shapes.regions.shape == (1, 2, 4, 4)
    assert ShapeMaker.of(LossSettings(skeleton_weight=0.1), LABELS).make(labels).regions is None
    assert ShapeMaker.of(LossSettings(border_weight=0.1), LABELS).make(labels).borders.shape == (1, 1, 4, 4)


def small_batches(**changes):
    """Returns a supply of batches of small cases, with shapes."""
    values = {
        "cases": small_cases(),
        "configuration": small_configuration(),
        "foreground_fraction": 0.5,
        "seed": (7,),
        "augmented": True,
        "shapes": ShapeMaker.of(BOTH, LABELS),
        **changes,
    }
    return Batches(**values)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_batches_bring_the_shapes_of_their_labels(dimensions):
    """After augmentation; the images and labels are those of batches without shapes."""
    batches = small_batches(configuration=small_configuration(dimensions))
    for number, batch in enumerate(batches.ahead(range(3), workers=2)):
        plain = replace(batches, shapes=None).make(number)
        assert torch.equal(batch.images, plain.images)
        assert torch.equal(batch.labels, plain.labels)
        expected = batches.shapes.make(batch.labels)
        assert torch.equal(batch.regions, expected.regions)
        assert torch.equal(batch.skeletons, expected.skeletons)
        assert torch.equal(batch.borders, expected.borders)
        assert plain.regions is plain.skeletons is plain.borders is None


def test_shapes_of_a_cascade_are_those_of_its_labels():
    """The coarse segmentation, which the labels hold as well while patches are read, has no part in them."""
    base = code_base(LABELS)
    cases = [replace(case, label=encode_cascade(case.label, 2 * (case.label > 0), base)) for case in small_cases()]
    batch = small_batches(cases=cases, previous=LABELS).make(0)
    expected = ShapeMaker.of(BOTH, LABELS).make(batch.labels)
    assert torch.equal(batch.regions, expected.regions)
    assert torch.equal(batch.skeletons, expected.skeletons)
    assert batch.regions.any()


def test_ranks_share_the_shapes_of_a_batch():
    """Each gets those of its own patches."""
    whole, second = small_batches().make(4), small_batches(share=(1, 2)).make(4)
    assert torch.equal(second.regions, whole.regions[1::2])
    assert torch.equal(second.skeletons, whole.skeletons[1::2])
    assert torch.equal(second.borders, whole.borders[1::2])
