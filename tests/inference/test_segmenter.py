"""A trained configuration as something that can be called."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from phantoms import place
from small_models import small_checkpoint

from autoseg.errors import AutosegError, ImageError, ModelError
from autoseg.imaging.postprocessing import NO_RULES, PostprocessingRules
from autoseg.inference.prediction_quality import choose_quality
from autoseg.inference.predictor import FunctionPredictor, Predictor
from autoseg.inference.segmenter import Segmenter
from autoseg.inference.torch_segmenter import make_segmenter
from autoseg.preprocessing.case import preprocess_case, restore_case

CPU = torch.device("cpu")
LARGE = (11, 19, 15)


def make(checkpoints=None, rules=NO_RULES, **options) -> Segmenter:
    """A segmenter of untrained folds."""
    return make_segmenter(checkpoints or [small_checkpoint()], rules, CPU, **options)


def image(shape=LARGE, seed=0):
    """Noise on a grid with thick slices."""
    return place(np.random.default_rng(seed).normal(size=(1, *shape)).astype(np.float32), spacing_mm=(2.0, 1.0, 1.0))


class Threshold(Predictor):
    """Stands for a network that knows the answer: label 1 above zero, label 2 far above."""

    def __call__(self, patches):
        value = patches[:, :1]
        return torch.cat([-value, value, 3 * (value - 1)], dim=1)


@pytest.mark.parametrize("shape", [LARGE, (8, 8, 8), (3, 5, 4)])
def test_shares_of_the_work_add_up_to_one(shape):
    """With many tiles, with one, and with an image smaller than a tile."""
    shares = []
    make().segment(image(shape), on_progress=shares.append)
    assert sum(shares) == pytest.approx(1)
    assert min(shares) > 0


@pytest.mark.parametrize("axis_order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_answer_comes_back_where_it_was_asked(axis_order):
    """On the image's own grid each voxel has the label of its intensity, whatever order the plan puts axes in."""
    segmenter = replace(make(), predictor=Threshold(), axis_order=axis_order)
    segmenter = replace(segmenter, configuration=segmenter.configuration.model_copy(update={"spacing_mm": (1.0,) * 3}))
    scan = place(image().array, spacing_mm=(1.0, 1.0, 1.0))
    expected = scan.array[0] - scan.array.mean() > 0
    segmented = segmenter.segment(scan)
    assert segmented.geometry == scan.geometry
    assert ((segmented.array > 0) == expected).mean() > 0.99
    assert set(np.unique(segmented.array)) == {0, 1, 2}


def test_prepared_case_gives_what_its_image_gives():
    """Validation, which starts from stored cases, and prediction go the same way."""
    segmenter, scan = make(), image()
    case = preprocess_case(scan, None, axis_order=segmenter.axis_order, configuration=segmenter.configuration)
    prepared, whole = segmenter.predict_preprocessed(case).segmentation(), segmenter.segment(scan)
    np.testing.assert_array_equal(prepared.array, whole.array)
    assert prepared.geometry == whole.geometry == scan.geometry
    assert restore_case(np.zeros((3, *case.record.shape), np.float32), case.record).array.shape == LARGE


def test_segmentation_and_probabilities_follow_from_one_prediction():
    """The likeliest label is the one that is segmented; rules leave the probabilities alone."""
    rules = PostprocessingRules(keep_largest=(1, 2))
    segmenter, scan = replace(make(), predictor=Threshold()), image()
    prediction = segmenter.predict(scan)
    maps = list(prediction.probabilities([0, 1, 2]))
    assert all(one.geometry == scan.geometry for one in maps)
    likeliest = np.argmax([one.array for one in maps], axis=0)
    assert (prediction.segmentation().array == likeliest).mean() > 0.999
    cleaned = replace(segmenter, rules=rules).predict(scan)
    assert (cleaned.segmentation().array != likeliest).any()
    for one, other in zip(cleaned.probabilities([0, 1, 2]), maps, strict=True):
        np.testing.assert_array_equal(one.array, other.array)


def test_temperatures_change_probabilities_and_no_mask():
    """They are part of what a model is known by, since its results depend on them."""
    plain, scan = replace(make(), predictor=Threshold()), image()
    calibrated = replace(plain, temperatures=(1.0, 3.0, 2.0))
    one, other = plain.predict(scan), calibrated.predict(scan)
    np.testing.assert_array_equal(one.segmentation().array, other.segmentation().array)
    maps, calibrated_maps = (np.stack([m.array for m in each.probabilities([0, 1, 2])]) for each in (one, other))
    assert np.abs(maps - calibrated_maps).max() > 0.05
    np.testing.assert_allclose(calibrated_maps.sum(axis=0), 1, atol=1e-5)
    assert plain.digest != calibrated.digest


def test_rules_are_applied_to_the_result():
    """Of the noise of label 1 the largest component is left, and the others are not touched."""
    scan = image()
    plain = replace(make(), predictor=Threshold()).segment(scan).array
    clean = replace(make(rules=PostprocessingRules(keep_largest=(2,))), predictor=Threshold()).segment(scan).array
    assert 0 < (clean == 2).sum() < (plain == 2).sum()
    np.testing.assert_array_equal(clean == 1, plain == 1)


def test_mirroring_sees_every_mirror_image_and_can_be_left_out():
    """With three axes eight images are averaged."""
    patch = torch.randn(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    mirrored, plain = make().predictor, make(quality=choose_quality("best", mirroring=False)).predictor
    eight = [
        plain(patch.flip(axes)).float().flip(axes) for axes in ([], [2], [3], [4], [2, 3], [2, 4], [3, 4], [2, 3, 4])
    ]
    torch.testing.assert_close(mirrored(patch), torch.stack(eight).mean(dim=0), atol=1e-5, rtol=1e-5)
    assert not torch.equal(mirrored(patch), plain(patch).float())


def test_sides_of_the_plan_are_exchanged_in_mirror_images():
    """Where the plan flips left to right with two labels exchanged, so does the prediction."""
    first = small_checkpoint()
    sided = first.configuration.augmentation.model_copy(
        update={"mirror_axes": (0, 2), "swap_axis": 2, "swapped_labels": ((1, 2),)}
    )
    configuration = first.configuration.model_copy(update={"augmentation": sided})
    plan = first.plan.model_copy(update={"configurations": {first.configuration_name: configuration}})
    fold = replace(first, plan=plan)
    patch = torch.randn(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    plain = make([fold], quality=choose_quality("best", mirroring=False)).predictor
    images = [plain(patch.flip(axes)).float().flip(axes) for axes in ([], [2], [4], [2, 4])]
    expected = (images[0] + images[1] + (images[2] + images[3])[:, [0, 2, 1]]) / 4
    torch.testing.assert_close(make([fold]).predictor(patch), expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(torch.stack(images).mean(dim=0), expected, atol=1e-3)


def test_channels_are_counted():
    """An image of two channels for a model of one is refused by name."""
    scan = place(np.zeros((2, *LARGE), np.float32))
    with pytest.raises(ImageError, match=r"has 2 channels, the model wants 1 \(MR\)"):
        make().segment(scan)


def test_folds_of_different_plans_are_not_mixed():
    """Neither another network nor another order of the axes."""
    first = small_checkpoint()
    turned = replace(first, fold=1, plan=first.plan.model_copy(update={"axis_order": (2, 0, 1)}))
    with pytest.raises(ModelError, match="folds 0 and 1 follow different plans"):
        make([first, turned])


def test_weights_that_do_not_fit_are_refused():
    """A checkpoint whose plan is another network's."""
    weights = {f"other.{name}": value for name, value in small_checkpoint().weights.items()}
    with pytest.raises(ModelError, match="weights of fold 0 do not fit its plan"):
        make([replace(small_checkpoint(), weights=weights)])


def test_full_memory_of_the_device_is_said():
    """As an error of this image, so that the others of a folder go on."""

    @FunctionPredictor
    def fail(_patches):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    with pytest.raises(AutosegError, match=r"memory of the device cpu is full; .*--device"):
        replace(make(), predictor=fail).segment(image())
