"""One name for what a prediction may cost: mirror images, tiles and resampling together."""

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from phantoms import place
from small_model_folders import cascade_in, model_in
from small_models import small_checkpoint
from typer.testing import CliRunner

import autoseg
from autoseg.cli.app import app
from autoseg.errors import UsageError
from autoseg.imaging.image_files import write_image
from autoseg.imaging.postprocessing import NO_RULES
from autoseg.inference.loading import PredictionOptions, load_segmenter
from autoseg.inference.prediction_quality import BEST, QUALITIES, choose_quality
from autoseg.inference.predictor import FunctionPredictor, MirroringPredictor
from autoseg.inference.segmenter import Segmenter
from autoseg.inference.torch_segmenter import make_segmenter
from autoseg.preprocessing.resampling import resample_image

CPU = torch.device("cpu")
IMAGE = np.random.default_rng(0).normal(size=(14, 23, 18)).astype(np.float32)
SPACING_MM = (1.4, 0.9, 1.2)


def make(quality=BEST, **options) -> Segmenter:
    """An untrained fold."""
    return make_segmenter([small_checkpoint()], NO_RULES, CPU, quality=quality, **options)


class Counted(FunctionPredictor):
    """Counts the patches that a predictor gets."""

    patches = 0

    def __call__(self, patches):
        Counted.patches += len(patches)
        return super().__call__(patches)


def count_patches(segmenter: Segmenter, shape: tuple[int, int, int]) -> int:
    """Number of patches of an image that go through the network, mirror images counted apart."""
    counted, predictor = Counted(lambda patches: patches.repeat(1, 3, 1, 1, 1)), segmenter.predictor
    inner = replace(predictor, predictor=counted) if isinstance(predictor, MirroringPredictor) else counted
    Counted.patches = 0
    scan = place(np.random.default_rng(1).normal(size=(1, *shape)).astype(np.float32), spacing_mm=(1.0, 1.0, 1.0))
    replace(segmenter, predictor=inner).predict(scan)
    return Counted.patches


@pytest.mark.parametrize(
    ("name", "images", "tiles"), [("best", 8, 7 * 7 * 7), ("balanced", 2, 7 * 7 * 7), ("fast", 1, 5 * 5 * 5)]
)
def test_a_quality_is_so_many_patches(name, images, tiles):
    """Of an image of four tiles of 8 voxels along each axis."""
    assert count_patches(make(QUALITIES[name]), (32, 32, 32)) == images * tiles


@pytest.mark.parametrize("name", QUALITIES)
def test_explicit_mirroring_wins(name):
    """Over what the quality says; all else stays."""
    mirrored, plain = (make(choose_quality(name, mirroring=mirroring)) for mirroring in (True, False))
    assert (mirrored.votes, plain.votes) == (8, 1)
    assert mirrored.quality.overlap_step == plain.quality.overlap_step == QUALITIES[name].overlap_step


def test_best_is_what_there_was_before():
    """The same model by its digest, and the same probabilities to the last bit."""
    scan = place(IMAGE[np.newaxis], spacing_mm=SPACING_MM)
    usual, best = make_segmenter([small_checkpoint()], NO_RULES, CPU), make(choose_quality("best"))
    assert best.digest == usual.digest
    one, other = (np.stack([m.array for m in each.predict(scan).probabilities([0, 1, 2])]) for each in (usual, best))
    np.testing.assert_array_equal(one, other)


def test_each_quality_is_another_model():
    """So that results of one are not taken for those of another."""
    options = [choose_quality(name, mirroring=mirroring) for name in QUALITIES for mirroring in (None, True, False)]
    assert len({make(quality).digest for quality in options}) == len(set(options)) == 5


def test_two_images_are_the_patch_and_its_opposite():
    """Mirrored along all axes at once, with left and right exchanged."""
    predictor = FunctionPredictor(lambda patches: torch.cat([patches, 2 * patches, patches**2], dim=1))
    patch = torch.randn(1, 1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    weighted = torch.arange(4.0)

    def position(patches):
        logits = predictor(patches)
        return logits * weighted

    two = MirroringPredictor(
        FunctionPredictor(position), (0, 1, 2), swap_axis=2, swapped_labels=((1, 2),), opposite_only=True
    )
    opposite = position(patch.flip((2, 3, 4))).flip((2, 3, 4))[:, [0, 2, 1]]
    torch.testing.assert_close(two(patch), (position(patch) + opposite) / 2)
    assert two.votes == 2
    assert MirroringPredictor(predictor, (), opposite_only=True).votes == 1


def test_fast_resamples_linearly_and_the_others_by_splines():
    """The image as the network sees it."""
    scan = place(IMAGE[np.newaxis], spacing_mm=SPACING_MM)
    normalized = (IMAGE - IMAGE.mean()) / IMAGE.std()
    for name, order in (("fast", 1), ("balanced", 3), ("best", 3)):
        case = make(QUALITIES[name]).prepare(scan).case
        expected = resample_image(normalized[np.newaxis], SPACING_MM, case.record.shape, (1.0, 1.0, 1.0), order=order)
        np.testing.assert_allclose(case.image, expected, atol=1e-4)


def test_both_stages_of_a_cascade_have_the_quality(tmp_path):
    """And a list of names is offered for any other."""
    folder = cascade_in(tmp_path)
    segmenter = load_segmenter(folder.path, PredictionOptions(device="cpu", quality="fast"))
    assert segmenter.quality == segmenter.previous.quality == QUALITIES["fast"]
    with pytest.raises(UsageError, match="there is no quality 'quick'; choose from fast, balanced, best"):
        autoseg.load_model(folder.path, device="cpu", quality="quick")


def test_command_and_python_give_the_same_mask(tmp_path):
    """Of the same quality; a name that is none ends with exit code 2 before anything is read."""
    model = model_in(tmp_path / "home").path
    scan = tmp_path / "scan_0000.nii.gz"
    write_image(scan, place(IMAGE[np.newaxis], spacing_mm=SPACING_MM))
    masks = {}
    for name in QUALITIES:
        masks[name] = predict(model, scan, tmp_path / f"{name}.nii.gz", "--quality", name)
        loaded = autoseg.load_model(model, device="cpu", quality=name).predict(scan)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(loaded), masks[name])
    assert any((masks[name] != masks["best"]).any() for name in ("fast", "balanced"))
    mirrored = predict(model, scan, tmp_path / "mirrored.nii.gz", "--quality", "balanced", "--mirroring")
    np.testing.assert_array_equal(mirrored, masks["best"])
    refused = CliRunner().invoke(app, [*command(model, scan, tmp_path / "other.nii.gz"), "--quality", "good"])
    assert refused.exit_code == 2
    assert "there is no quality 'good'" in refused.output
    assert not (tmp_path / "other.nii.gz").exists()


def command(model, scan, output) -> list[str]:
    """The command that segments a scan into a file."""
    return ["predict", "-m", str(model), "-i", str(scan), "-o", str(output), "--device", "cpu"]


def predict(model, scan, output, *options):
    """Runs the command, and returns the mask."""
    done = CliRunner().invoke(app, [*command(model, scan, output), *options], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return sitk.GetArrayFromImage(sitk.ReadImage(output))
