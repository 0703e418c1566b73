"""Coarse to fine: only tiles around what a coarse model found are predicted, and there the result is the same."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from phantoms import Listener, place
from small_model_folders import cascade_in, choose, model_in
from small_models import small_checkpoint

import autoseg
from autoseg.errors import ModelError, UsageError
from autoseg.imaging.geometry import Box, Volume
from autoseg.imaging.image_files import write_image
from autoseg.imaging.postprocessing import NO_RULES
from autoseg.inference.crop import RegionOfInterest, find_needed_voxels
from autoseg.inference.cropped_segmenter import CroppedSegmenter
from autoseg.inference.ensemble import EnsembleSegmenter
from autoseg.inference.loading import PredictionOptions, load_segmenter
from autoseg.inference.prediction_quality import QUALITIES
from autoseg.inference.predictor import Predictor
from autoseg.inference.segmenter import Segmenter
from autoseg.inference.tiling import tile_image
from autoseg.inference.torch_segmenter import make_segmenter
from autoseg.models.bundle import export_model
from autoseg.preprocessing.resampling import resampling_matrix

CPU = torch.device("cpu")
SHAPE, SPACING_MM = (16, 30, 26), (1.3, 0.8, 1.0)
SPOT = (slice(2, 4), slice(8, 12), slice(20, 23))


class Spot(Predictor):
    """Stands for a coarse network that knows the spot: class 1 where the image is very bright."""

    def __init__(self, level: float = 10.0) -> None:
        self.level = level

    def __call__(self, patches):
        bright = patches[:, :1] - self.level
        return torch.cat([-bright, bright, torch.full_like(bright, -9)], dim=1)


def scan(seed: int = 0, spot=SPOT) -> Volume:
    """Noise with a very bright spot."""
    array = np.random.default_rng(seed).normal(size=(1, *SHAPE)).astype(np.float32)
    array[(0, *spot)] += 40
    return place(array, spacing_mm=SPACING_MM)


def balanced_checkpoint():
    """An untrained fold that finds every label somewhere."""
    fold = small_checkpoint()
    head = fold.weights["heads.0.weight"]
    changed = {"heads.0.weight": head - head.mean(dim=1, keepdim=True), "heads.0.bias": torch.zeros(len(head))}
    return replace(fold, weights={**fold.weights, **changed})


def make(quality: str = "fast") -> Segmenter:
    """A fine model, without mirror images unless a quality has some."""
    return make_segmenter([balanced_checkpoint()], NO_RULES, CPU, quality=QUALITIES[quality])


def crop(segmenter, margin_mm: float | None = 2.0, level: float = 10.0) -> CroppedSegmenter:
    """A fine model behind a coarse one that finds the spot."""
    return CroppedSegmenter(segmenter=segmenter, coarse=replace(make(), predictor=Spot(level)), margin_mm=margin_mm)


def inside_of(prediction, volume: Volume) -> np.ndarray:
    """The voxels that a prediction kept, of a volume on the grid of the image."""
    return prediction.record.crop(volume.array)[prediction.crop.kept.slices]


@pytest.mark.parametrize("axis_order", [(0, 1, 2), (2, 0, 1)])
def test_inside_the_crop_nothing_changes(axis_order):
    """Labels, probabilities and disagreement, with the plan's axes in any order; outside is background."""
    segmenter = replace(make("balanced"), axis_order=axis_order).with_disagreement()
    whole, cropped = segmenter.predict(scan()), crop(segmenter).predict(scan())
    assert cropped.crop.tiles < 0.5 * cropped.crop.all_tiles
    labels = cropped.segmentation()
    assert len(np.unique(inside_of(cropped, labels))) == 3
    np.testing.assert_array_equal(inside_of(cropped, labels), inside_of(cropped, whole.segmentation()))
    assert (labels.array != 0).sum() == (inside_of(cropped, labels) != 0).sum()
    pairs = zip(cropped.probabilities([0, 1, 2]), whole.probabilities([0, 1, 2]), strict=True)
    outside = []
    for mine, theirs in pairs:
        np.testing.assert_allclose(inside_of(cropped, mine), inside_of(cropped, theirs), atol=1e-5)
        emptied = mine.array.copy()
        cropped.record.crop(emptied)[cropped.crop.kept.slices] = mine.array.flat[0]
        outside.append(np.unique(emptied).tolist())
    assert outside == [[1.0], [0.0], [0.0]]
    mine, theirs = cropped.disagreement(), whole.disagreement()
    np.testing.assert_allclose(inside_of(cropped, mine), inside_of(cropped, theirs), atol=1e-5)


def test_kept_box_is_what_was_found_and_its_margin():
    """In voxels of the file, more of them where they are smaller."""
    prediction = crop(make(), margin_mm=2.0).predict(scan())
    assert prediction.crop.kept == Box(start=(0, 5, 18), stop=(6, 15, 25))


@pytest.mark.parametrize("patch", [(8, 8, 8), (3, 7, 5)])
def test_tiles_of_a_box_are_all_that_it_depends_on(patch):
    """Each voxel of the box has the tiles that it has in the whole image, which lie in the same places."""
    tiled = tile_image(np.zeros((1, 20, 21, 13), np.float32), patch)
    some = tiled.only(Box(start=(2, 8, 5), stop=(6, 14, 6)))
    assert len(some.tiles) < len(tiled.tiles)
    left_out = [tile for tile in tiled.tiles if tile not in some.tiles]
    covered = np.zeros(tiled.shape, int)
    for tile in left_out:
        covered[tile.region[1:]] += 1
    assert not covered[2:6, 8:14, 5:6].any()
    assert {id(tile) for tile in some.tiles} <= {id(tile) for tile in tiled.tiles}


@pytest.mark.parametrize(("old", "new"), [(40, 13), (13, 40), (20, 20), (31, 30)])
def test_needed_voxels_are_those_with_weight(old, new):
    """Of linear interpolation and of the nearest voxel, for any part of an axis."""
    segmenter = make()
    record = segmenter.prepare(place(np.ones((1, 4, 4, old), np.float32), spacing_mm=(1.0, 1.0, 1.0))).case.record
    record = record.model_copy(update={"shape": (4, 4, new)})
    for start in range(0, old - 3, 3):
        needed = find_needed_voxels(Box(start=(0, 0, start), stop=(4, 4, start + 3)), record)
        for order in (0, 1):
            rows = resampling_matrix(new, old, order)[start : start + 3]
            used = np.flatnonzero(np.abs(rows).max(axis=0) > 0)
            assert needed.start[2] <= used[0]
            assert used[-1] < needed.stop[2]


def test_whole_scan_is_segmented_where_nothing_is_found():
    """With a remark."""
    segmenter = make("balanced")
    prediction = crop(segmenter, level=1000.0).predict(scan())
    assert prediction.crop.kept is None
    labels = prediction.segmentation()
    np.testing.assert_array_equal(labels.array, segmenter.segment(scan()).array)
    assert prediction.list_remarks(labels, prediction.targets) == (
        "the coarse model found nothing, so the whole scan was segmented",
    )


def test_structure_at_the_edge_of_the_crop_is_remarked_on():
    """Not at the edge of the image, beyond which there is nothing."""
    fine = replace(make(), predictor=Spot(-100))
    prediction = crop(fine).predict(scan())
    [remark] = prediction.list_remarks(prediction.segmentation(), prediction.targets)
    assert remark.startswith("bright reaches the edge of the crop")
    calm = crop(replace(make(), predictor=Spot())).predict(scan())
    assert calm.list_remarks(calm.segmentation(), calm.targets) == ()
    corner = scan(spot=(slice(0, 3), slice(0, 4), slice(0, 3)))
    at_border = crop(replace(make(), predictor=Spot())).predict(corner)
    assert at_border.crop.kept.start == (0, 0, 0)
    assert at_border.list_remarks(at_border.segmentation(), at_border.targets) == ()


def test_agreement_is_that_of_the_kept_voxels():
    """Voxels that were left out have no say."""
    prediction = crop(make("balanced")).predict(scan())
    whole = crop(make("balanced"), margin_mm=1000.0).predict(scan())
    assert whole.crop.tiles == whole.crop.all_tiles
    assert prediction.agreement.votes == whole.agreement.votes == 2
    assert prediction.agreement.structures.keys() == whole.agreement.structures.keys()
    assert prediction.agreement.structures != whole.agreement.structures
    np.testing.assert_array_equal(whole.segmentation().array, make("balanced").segment(scan()).array)


def test_ensemble_looks_at_one_box():
    """Members with another order of axes, too."""
    members = (make(), replace(make(), axis_order=(1, 2, 0)))
    ensemble = EnsembleSegmenter(members=members, rules=NO_RULES)
    cropped, whole = crop(ensemble).predict(scan()), ensemble.predict(scan())
    first = cropped.members[0]
    assert cropped.crop.all_tiles == sum(member.crop.all_tiles for member in cropped.members)
    labels = cropped.segmentation()
    np.testing.assert_array_equal(inside_of(first, labels), inside_of(first, whole.segmentation()))
    assert (labels.array != 0).sum() == (inside_of(first, labels) != 0).sum()


class CountedSpot(Spot):
    """Counts its images."""

    images = 0

    def begin_image(self, *_):
        CountedSpot.images += 1


def test_coarser_configuration_of_a_cascade_runs_once(tmp_path):
    """And the cascade sees all of its segmentation, so that inside the crop nothing changes."""
    folder = cascade_in(tmp_path)
    segmenter = load_segmenter(
        folder.path, PredictionOptions(device="cpu", quality="fast", crop_by="3d_lowres", crop_margin_mm=2.0)
    )
    assert segmenter.coarse is segmenter.segmenter.previous
    counted = replace(segmenter.coarse, predictor=CountedSpot())
    fine = replace(segmenter.segmenter, previous=counted)
    CountedSpot.images = 0
    cropped = CroppedSegmenter(segmenter=fine, coarse=counted, margin_mm=2.0).predict(scan())
    assert CountedSpot.images == 1
    assert cropped.crop.coarse_is_needed_anyway
    whole = fine.predict(scan())
    np.testing.assert_array_equal(inside_of(cropped, cropped.segmentation()), inside_of(cropped, whole.segmentation()))


def test_crop_is_part_of_what_a_model_is_known_by():
    """Its coarse model and its margin."""
    plain = make()
    digests = {plain.digest, crop(plain).digest, crop(plain, margin_mm=3.0).digest, crop(plain, margin_mm=None).digest}
    assert len(digests) == 4


def test_region_of_overlapping_masks_is_that_of_all():
    """A mask for each structure, the first axis."""
    segmenter = make()
    record = segmenter.prepare(scan()).case.record
    masks = np.zeros((2, *SHAPE), np.uint8)
    masks[0, 3, 4, 5], masks[1, 10, 20, 25] = 1, 1
    region = RegionOfInterest(segmentation=place(masks, spacing_mm=SPACING_MM), margin_mm=0)
    assert region.find_box(record) == Box(start=(3, 4, 5), stop=(11, 21, 26))


# --- By command and from Python ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fine model, and a coarse one beside it that sees a part of the image."""
    root = tmp_path_factory.mktemp("models")
    plan = small_checkpoint().plan
    one = plan.configurations["3d_fullres"]
    coarse = one.model_copy(update={"spacing_mm": (2.0, 2.0, 2.0)})
    plan = plan.model_copy(update={"configurations": {"3d_lowres": coarse, "3d_fullres": one}})
    weights = dict(balanced_checkpoint().weights)
    model_in(root, "3d_fullres", plan=plan, weights=weights)
    only_first = {**weights, "heads.0.bias": torch.tensor([0.0, -99.0, -99.0])}
    model_in(root, "3d_lowres", plan=plan, weights=only_first)
    return root


def test_command_says_what_was_saved_and_remarks(models, tmp_path):
    """The coarse model finds nothing here, so the scan is segmented whole, and report.csv says so."""
    write_image(tmp_path / "scans" / "a_0000.nii.gz", scan())
    listener = Listener()
    options = {"model": models / "3d_fullres", "device": "cpu", "reporter": listener, "mirroring": False}
    autoseg.predict(tmp_path / "scans", tmp_path / "masks", crop_by="3d_lowres", **options)
    [line] = [line for line in listener.lines if line.startswith("cropped: ")]
    assert "100 % of the tiles were calculated" in line
    assert "the coarse model found nothing" in (tmp_path / "masks" / "report.csv").read_text("utf-8")
    autoseg.predict(tmp_path / "scans", tmp_path / "whole", **options)
    masks = [sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / name / "a.nii.gz")) for name in ("masks", "whole")]
    np.testing.assert_array_equal(*masks)


@pytest.mark.slow
def test_model_crops_by_another_model(models, tmp_path):
    """A bundle, exported too; an analysis has the remarks."""
    bundle = export_model(models / "3d_lowres", tmp_path / "coarse.zip", runtime="onnx")
    fine = export_model(models / "3d_fullres", tmp_path / "fine.zip", runtime="onnx")
    for model in (models / "3d_fullres", fine):
        device = "auto" if model == fine else "cpu"
        loaded = autoseg.load_model(model, device=device, quality="balanced", crop_by=bundle, crop_margin_mm=4)
        analysis = loaded.analyse(scan().array, spacing_mm=SPACING_MM)
        assert any("the coarse model found nothing" in remark for remark in analysis.remarks)
        whole = autoseg.load_model(model, device=device, quality="balanced").predict(
            scan().array, spacing_mm=SPACING_MM
        )
        np.testing.assert_array_equal(analysis.segmentation, whole)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"crop_margin_mm": 3.0}, UsageError, "--crop-margin is a margin around what --crop-by finds"),
        ({"crop_by": "3d_lowres", "crop_margin_mm": -1.0}, UsageError, "--crop-margin cannot be -1"),
        ({"crop_by": "3d_lowres", "crop_margin_mm": float("nan")}, UsageError, "--crop-margin cannot be nan"),
        ({"crop_by": "3d_fullres"}, UsageError, "3d_fullres is what is predicted"),
        ({"crop_by": "2d"}, ModelError, "2d, which is to say where to look, holds no trained fold"),
        ({"crop_by": "nowhere.zip"}, ModelError, "nowhere.zip"),
    ],
)
def test_bad_options_are_refused(models, options, error, message):
    """In one line, before any scan is read."""
    with pytest.raises(error, match=message):
        autoseg.load_model(models / "3d_fullres", device="cpu", **options)


def test_coarse_model_of_other_channels_is_refused(models, tmp_path):
    """Their number counts; other names are said."""
    lines: list[str] = []
    fold = small_checkpoint()
    named = fold.info.model_copy(update={"channel_names": {"0": "CT"}})
    other = model_in(tmp_path / "other", info=named)
    options = PredictionOptions(device="cpu", crop_by=other.path)
    load_segmenter(models / "3d_fullres", options, say=lines.append)
    assert lines == ["the model of --crop-by was trained on CT; it gets MR"]
    two = fold.info.model_copy(update={"channel_names": {"0": "MR", "1": "CT"}})
    crowded = model_in(tmp_path / "crowded", info=two)
    with pytest.raises((UsageError, ModelError), match="channels"):
        load_segmenter(models / "3d_fullres", replace(options, crop_by=crowded.path))


def test_what_find_best_chose_is_cropped_too(models, tmp_path):
    """By a configuration that it did not choose."""
    for name in ("3d_lowres", "3d_fullres"):
        shutil.copytree(models / name, tmp_path / name)
    choose(tmp_path, "3d_fullres")
    segmenter = load_segmenter(tmp_path, PredictionOptions(device="cpu", crop_by="3d_lowres"))
    assert segmenter.rules == segmenter.segmenter.rules != NO_RULES
    assert segmenter.coarse.configuration.spacing_mm == (2.0, 2.0, 2.0)
    assert segmenter.coarse.quality == QUALITIES["fast"]
