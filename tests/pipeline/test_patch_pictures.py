"""Training patches are drawn as the plan changes them."""

import numpy as np
import pytest
from PIL import Image
from small_models import small_configuration
from tiny_workspaces import LABELS, NUMBER, folders_of

from autoseg.dataloading.augmentation_parameters import AugmentationParameters
from autoseg.errors import UsageError
from autoseg.imaging.targets import Targets
from autoseg.pipeline.patch_pictures import choose_plane, describe, draw_augmentations, make_tiles
from autoseg.planning.plan import Plan
from autoseg.preprocessing.store import StoredCase


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_picture_is_drawn_without_a_model(trained_volumes, tmp_path, configuration):
    """From the preprocessed cases alone, and the same each time."""
    paths = [tmp_path / "one.png", tmp_path / "other.png"]
    for path in paths:
        assert draw_augmentations(NUMBER, configuration, path, count=5, workspace=trained_volumes) == path
    one, other = (np.asarray(Image.open(path)) for path in paths)
    assert np.array_equal(one, other)
    assert len(np.unique(one)) > 50


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (4, 2), (9, 3), (24, 3)])
def test_as_many_changed_patches_as_wanted(trained_volumes, tmp_path, monkeypatch, count, rows):
    """Each row begins with the patch as it is."""
    drawn = {}
    monkeypatch.setattr("autoseg.pipeline.patch_pictures.draw_panels", lambda _, tiles, **__: drawn.update(tiles=tiles))
    draw_augmentations(NUMBER, "3d_fullres", tmp_path / "a.png", count=count, workspace=trained_volumes)
    tiles = drawn["tiles"]
    assert len(tiles) == rows
    assert sum(len(row) - 1 for row in tiles) == count
    assert all(row[0].caption[0].startswith("case_") for row in tiles)
    assert all((row[0].labels > 0).any() for row in tiles)


def test_tiles_are_changed_by_the_plan(trained_volumes):
    """Without any row of the table, patches stay as they are; with brightness alone, they are scaled."""
    folders = folders_of(trained_volumes)
    configuration = Plan.load(folders.plan).configurations["3d_fullres"]
    cases = [StoredCase.open(folders.cases("3d_fullres"), "case_1")]
    off = {name: 0.0 for name in type(configuration.augmentation).model_fields if name.endswith("probability")}
    for changes in ({}, {"brightness_probability": 1.0}):
        settings = configuration.augmentation.model_copy(update={**off, "mirror_axes": (), **changes})
        plan = configuration.model_copy(update={"augmentation": settings})
        [[plain, changed]] = make_tiles(cases, plan, 1, np.random.default_rng(0), Targets.of_labels(LABELS))
        ratio = changed.image[plain.image != 0] / plain.image[plain.image != 0]
        assert np.ptp(ratio) < 1e-4
        assert (abs(ratio.mean() - 1) > 1e-3) == bool(changes)
        assert np.array_equal(plain.labels, changed.labels)
        assert (changed.caption == ["unchanged"]) == (not changes)


def test_plane_with_the_most_labels_is_shown():
    """The middle one of several, or of none."""
    labels = np.zeros((7, 4, 4), np.int16)
    assert choose_plane(labels) == 3
    labels[1:4, 0, 0] = 1
    assert choose_plane(labels) == 2
    labels[5, :2, 0] = 2
    labels[6] = -1
    assert choose_plane(labels) == 5


@pytest.mark.parametrize(
    ("draw", "axes", "expected"),
    [
        (AugmentationParameters(), 3, ["unchanged"]),
        (AugmentationParameters(affine=np.array([[0.0, -1], [1, 0]]) / 1.25), 2, ["turned 90°", "size 1.25"]),
        (AugmentationParameters(affine=np.diag([1.0, 2, 2])), 3, ["size 0.50"]),
        (AugmentationParameters(mirrored=(0, 2), displacements=np.zeros((3, 2, 2, 2))), 3, ["deformed", "flipped z x"]),
        (AugmentationParameters(mirrored=(0, 1)), 2, ["flipped y x"]),
        (AugmentationParameters(noise_std=0.05, blur_sigmas=np.zeros((1, 3))), 3, ["noise 0.05"]),
        (
            AugmentationParameters(blur_sigmas=np.full((1, 3), 0.7), resolution=np.array([0.5])),
            3,
            ["blur 0.70", "resolution 0.50"],
        ),
        (
            AugmentationParameters(
                partner=1, resolution=np.ones(1), gamma_inverted=np.array([1.5]), gamma=np.array([0.8])
            ),
            3,
            ["histogram of another", "inverted gamma 1.50", "gamma 0.80"],
        ),
    ],
)
def test_changes_are_named(draw, axes, expected):
    """In the words of the plan; what left the first channel alone is not mentioned."""
    assert describe(draw, axes) == expected


@pytest.mark.parametrize("count", [0, 1000])
def test_picture_of_too_many_patches_is_refused(trained_volumes, tmp_path, count):
    """Or of none."""
    with pytest.raises(UsageError, match="--count"):
        draw_augmentations(NUMBER, "3d_fullres", tmp_path / "a.png", count=count, workspace=trained_volumes)


def test_other_configuration_is_refused(trained_volumes, tmp_path):
    """With those that there are."""
    with pytest.raises(UsageError, match="3d_lowres"):
        draw_augmentations(NUMBER, "3d_lowres", tmp_path / "a.png", workspace=trained_volumes)
    assert small_configuration().augmentation is not None
