"""A model loaded once gives the same masks however an image reaches it."""

import copy
import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from tiny_workspaces import LABELS, NUMBER, boxes, folders_of, plan_tiny, scan, write_pictures

import autoseg
from autoseg.errors import ImageError, UsageError
from autoseg.imaging.conversion import convert_to_volume
from autoseg.imaging.geometry import Volume
from autoseg.imaging.image_files import read_image, read_label_map
from autoseg.imaging.postprocessing import PostprocessingRules, SmallestSize
from autoseg.imaging.sitk_conversion import to_sitk
from autoseg.inference.model import Model, load_model
from autoseg.models.checkpoint import load_checkpoint
from autoseg.pipeline.prediction import predict
from autoseg.pipeline.training import train
from autoseg.workspace import ModelFolder


@pytest.fixture(scope="module")
def model(trained_volumes: Path) -> Model:
    """A model of one channel, the mean of two folds."""
    return load_model(folders_of(trained_volumes).model("3d_fullres").path, device="cpu")


@pytest.fixture(scope="module")
def oblique_model(trained_oblique: Path) -> Model:
    """A model of two channels whose slices are stacked along the third axis of the file."""
    return load_model(folders_of(trained_oblique).model("3d_fullres").path, folds=["all"], device="cpu")


def scans_of(root: Path) -> list[Path]:
    """The channels of the new scan."""
    return sorted((folders_of(root).raw / "imagesTs").iterdir())


def test_path_image_and_array_give_one_mask(model, trained_volumes):
    """The image of SimpleITK stays in its place; the array has none, and the same voxels."""
    [path] = scans_of(trained_volumes)
    image = sitk.ReadImage(str(path))
    array = sitk.GetArrayFromImage(image)
    from_path, from_name = model.predict(path), model.predict(str(path))
    from_image, from_array = model.predict(image), model.predict(array, spacing_mm=image.GetSpacing()[::-1])
    expected = sitk.GetArrayFromImage(from_path)
    assert set(np.unique(expected)) == {0, 1, 2}
    for mask in (sitk.GetArrayFromImage(from_name), sitk.GetArrayFromImage(from_image), from_array):
        np.testing.assert_array_equal(mask, expected)
    for mask in (from_path, from_image):
        assert mask.GetOrigin() == image.GetOrigin()
        assert mask.GetDirection() == image.GetDirection()
        assert mask.GetSpacing() == image.GetSpacing()


def test_channels_come_as_paths_components_or_first_axis(oblique_model, trained_oblique):
    """Two files, one image of two components, an array (c, z, y, x): the same mask, on tilted slices too."""
    paths = scans_of(trained_oblique)
    images = [sitk.ReadImage(str(path)) for path in paths]
    array = np.stack([sitk.GetArrayFromImage(image) for image in images])
    mask = oblique_model.predict(paths)
    expected = sitk.GetArrayFromImage(mask)
    assert mask.GetDirection() == pytest.approx(images[0].GetDirection())
    np.testing.assert_array_equal(sitk.GetArrayFromImage(oblique_model.predict(sitk.Compose(images))), expected)
    spacing_mm = images[0].GetSpacing()[::-1]
    np.testing.assert_array_equal(oblique_model.predict(array, spacing_mm=spacing_mm), expected)


def test_model_and_command_agree(model, trained_volumes, tmp_path):
    """`predict` writes what `Model.predict` returns."""
    scans = folders_of(trained_volumes).raw / "imagesTs"
    [written] = predict(scans, tmp_path, number=NUMBER, workspace=trained_volumes, device="cpu")
    mask = sitk.GetArrayFromImage(model.predict(scans_of(trained_volumes)[0]))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(written))), mask)


def test_threads_may_share_a_model(model):
    """Four threads on eight images find what one finds, however the images come."""
    shapes = [(14, 16, 18 + number) for number in range(8)]
    arrays = [scan(boxes(shape), 1.0, seed) for seed, shape in enumerate(shapes)]

    def segment(number: int) -> np.ndarray:
        if number % 2:
            return sitk.GetArrayFromImage(model.predict(sitk.GetImageFromArray(arrays[number])))
        return model.predict(arrays[number], spacing_mm=(1, 1, 1))

    alone = [segment(number) for number in range(8)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(segment, range(8)))
    for one, other in zip(alone, together, strict=True):
        assert len(np.unique(one)) > 1
        np.testing.assert_array_equal(one, other)


def test_images_that_lie_in_another_way_give_the_same_mask(model, trained_volumes):
    """They are turned for the networks, so the mask is the usual one, turned with its image; and that is said."""
    [path] = scans_of(trained_volumes)
    volume = read_image((path,))
    expected = model.segmenter.segment(volume)
    assert volume.geometry.orientation == "SPL"
    for orientation in ("LAS", "IPR"):
        turned = volume.reoriented(orientation)
        image = to_sitk(Volume(array=turned.array[0], geometry=turned.geometry))
        found = model.analyse(image)
        assert found.segmentation.GetDirection() == image.GetDirection()
        assert found.segmentation.GetOrigin() == image.GetOrigin()
        back = Volume(array=sitk.GetArrayFromImage(found.segmentation), geometry=turned.geometry).reoriented("SPL")
        np.testing.assert_array_equal(back.array, expected.array)
        assert found.remarks == [f"its axes lead {orientation}, those of training SPL; it was turned for the model"]
        likely = sitk.GetArrayFromImage(found.probabilities("bright"))
        assert likely.shape == turned.array.shape[1:]
        np.testing.assert_allclose(likely[sitk.GetArrayFromImage(found.segmentation) == 1].min(), 0.5, atol=0.2)


def test_analysis_measures_and_judges(model, trained_volumes):
    """Volumes in ml, probabilities that sum to 1, a map of disagreement, how far folds agree; nothing to remark."""
    [path] = scans_of(trained_volumes)
    image = sitk.ReadImage(str(path))
    array, spacing_mm = sitk.GetArrayFromImage(image), image.GetSpacing()[::-1]
    found = model.analyse(array, spacing_mm=spacing_mm)
    np.testing.assert_array_equal(found.segmentation, model.predict(array, spacing_mm=spacing_mm))
    voxels = np.bincount(found.segmentation.ravel())
    assert found.volumes_ml == pytest.approx(
        {name: voxels[number] * np.prod(spacing_mm) / 1000 for name, number in LABELS.items() if number}
    )
    maps = [found.probabilities(name) for name in LABELS]
    np.testing.assert_allclose(sum(maps), 1, atol=1e-5)
    np.testing.assert_array_equal(np.argmax(maps, axis=0), found.segmentation)
    assert found.agreement.keys() == found.volumes_ml.keys()
    assert all(0 < value <= 1 for value in found.agreement.values())
    assert found.disagreement().shape == array.shape
    assert 0 < found.disagreement().max() <= 1
    assert found.remarks == []
    assert len(model.analyse(1000 * array, spacing_mm=spacing_mm).remarks) == 1
    with pytest.raises(UsageError, match="no label 'liver'; choose from background, bright, dark"):
        found.probabilities("liver")


def test_input_is_left_as_it_is(model):
    """Arrays of whole numbers, reversed and read-only ones are taken, and not written to."""
    array = scan(boxes((14, 16, 18)), 1.0, 0).astype(np.int16)
    array.flags.writeable = False
    expected = model.predict(array, spacing_mm=(1, 1, 1))
    assert set(np.unique(expected)) == {0, 1, 2}
    assert expected.shape == array.shape
    assert np.issubdtype(expected.dtype, np.integer)
    reversed_view = array[::-1].copy()[::-1]
    np.testing.assert_array_equal(model.predict(reversed_view, spacing_mm=(1, 1, 1)), expected)


def logits(model: Model) -> np.ndarray:
    """What the networks of a model say of one patch."""
    import torch

    patch = torch.randn(1, 1, *model.segmenter.configuration.patch_size, generator=torch.Generator().manual_seed(0))
    return model.segmenter.predictor(patch).numpy()


def test_folds_are_averaged_before_the_decision(trained_volumes):
    """The logits of an ensemble are the mean of its members'; numbered folds are taken unless others are named."""
    path = folders_of(trained_volumes).model("3d_fullres").path
    first, second, everything = (logits(load_model(path, folds=[fold], device="cpu")) for fold in (0, 1, "all"))
    mean = (first + second) / 2
    assert np.abs(first - second).max() > 0.1
    np.testing.assert_allclose(logits(load_model(path, folds=[0, 1], device="cpu")), mean, atol=1e-5)
    np.testing.assert_allclose(logits(load_model(path, device="cpu")), mean, atol=1e-5)
    np.testing.assert_allclose(logits(load_model(path, folds=["cv"], device="cpu")), mean, atol=1e-5)
    np.testing.assert_allclose(
        logits(load_model(path, folds=[0, "all"], device="cpu")), (first + everything) / 2, atol=1e-5
    )


def test_model_of_all_cases_alone_is_loaded(trained_oblique, tmp_path):
    """Without numbered folds, "all" is what there is."""
    trained = folders_of(trained_oblique).model("3d_fullres")
    (tmp_path / "fold_all").mkdir()
    (tmp_path / "fold_all" / "checkpoint.pt").write_bytes(trained.checkpoint("all").read_bytes())
    model = load_model(str(tmp_path), device="cpu")
    assert model.labels == LABELS
    np.testing.assert_array_equal(logits_of_two(model), logits_of_two(load_model(tmp_path, folds=["all"])))


def logits_of_two(model: Model) -> np.ndarray:
    """What the networks of a model of two channels say of one patch."""
    import torch

    patch = torch.ones(1, 2, *model.segmenter.configuration.patch_size)
    return model.segmenter.predictor(patch).numpy()


def test_planes_come_as_images_and_arrays(tmp_path):
    """A colour picture as a path, as an image of SimpleITK, and as (c, 1, y, x); a grey one as (y, x)."""
    models, pictures = [], []
    for colours in (3, 1):
        root = tmp_path / str(colours)
        folders = write_pictures(root, colours=colours, cases=2)
        plan_tiny(root, epochs=1, steps_per_epoch=4)
        train(NUMBER, "2d", [0], device="cpu", workspace=root)
        models.append(load_model(folders.model("2d").path, device="cpu"))
        pictures.append(scans_of(root)[0])
    (colour, grey), (colour_path, grey_path) = models, pictures
    mask = colour.predict(colour_path)
    image = sitk.ReadImage(str(colour_path))
    assert (mask.GetDimension(), mask.GetSize()) == (2, image.GetSize())
    expected = sitk.GetArrayFromImage(mask)
    assert len(np.unique(expected)) > 1
    np.testing.assert_array_equal(sitk.GetArrayFromImage(colour.predict(image)), expected)
    array = np.moveaxis(sitk.GetArrayFromImage(image), -1, 0)[:, np.newaxis]
    np.testing.assert_array_equal(colour.predict(array, spacing_mm=(1, 1))[0], expected)

    expected = sitk.GetArrayFromImage(grey.predict(grey_path))
    plane = sitk.GetArrayFromImage(sitk.ReadImage(str(grey_path)))
    assert grey.predict(plane, spacing_mm=(1, 1)).shape == plane.shape == (32, 40)
    np.testing.assert_array_equal(grey.predict(plane, spacing_mm=(1, 1)), expected)


def test_finished_models_are_public():
    """`autoseg.load_model` is the function of this module, and its weights are checkpoints."""
    assert autoseg.load_model is load_model
    assert autoseg.Model is Model


def test_folder_is_all_that_is_read(trained_volumes):
    """The checkpoint holds plan and labels, so no other file of the workspace is needed."""
    checkpoint = load_checkpoint(folders_of(trained_volumes).model("3d_fullres").checkpoint(0))
    assert checkpoint.info.labels == LABELS
    assert checkpoint.plan.configurations.keys() == {"2d", "3d_fullres"}


@pytest.mark.parametrize("spacing_mm", [None, (1, 1), (1, 1, 1, 1), (1, 0, 1), (1, float("nan"), 1), ()])
def test_volume_needs_the_spacing_of_each_axis(model, spacing_mm):
    """The distance of slices is not guessed."""
    with pytest.raises(ImageError, match=r"an array needs its spacing, not .*; pass spacing_mm=\(z, y, x\)"):
        model.predict(np.ones((14, 16, 18)), spacing_mm=spacing_mm)


@pytest.mark.slow
def test_each_point_in_time_of_a_series_is_segmented(model, trained_volumes, tmp_path):
    """As the command does, from a path, an image of SimpleITK and one of nibabel; the result keeps place and time."""
    scan = sitk.ReadImage(str(scans_of(trained_volumes)[0]))
    array, spacing_mm = sitk.GetArrayFromImage(scan), scan.GetSpacing()[::-1]
    points = [array, np.ascontiguousarray(array[:, :, ::-1]), array // 2]
    expected = [model.predict(point, spacing_mm=spacing_mm) for point in points]
    images = [sitk.GetImageFromArray(point) for point in points]
    for image in images:
        image.CopyInformation(scan)
    series = sitk.JoinSeries(images, 2.0, 0.5)
    for name in ("cine.nii.gz", "cine.nrrd"):
        sitk.WriteImage(series, str(tmp_path / name))
        assert np.array_equal(sitk.GetArrayFromImage(model.predict(tmp_path / name)), expected)
    result = model.predict(series)
    assert np.array_equal(sitk.GetArrayFromImage(result), expected)
    assert (result.GetSpacing(), result.GetOrigin()) == (series.GetSpacing(), series.GetOrigin())
    loaded = nibabel.load(tmp_path / "cine.nii.gz")
    mask = model.predict(loaded)
    assert np.array_equal(np.asarray(mask.dataobj).T, expected)
    assert np.array_equal(mask.affine, loaded.affine)
    assert mask.header.get_zooms() == loaded.header.get_zooms()
    [written] = predict(
        tmp_path / "cine.nii.gz", tmp_path / "mask.nii.gz", number=NUMBER, workspace=trained_volumes, device="cpu"
    )
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(written))), expected)
    with pytest.raises(ImageError, match="is a series of 3 points in time; analyse each by itself"):
        model.analyse(series)


def test_series_of_a_model_with_overlapping_structures_has_masks_at_each_point():
    """An image of nibabel has them along its last axis, one of SimpleITK as components."""
    array = np.arange(4 * 3 * 2 * 5, dtype=np.float32).reshape(4, 3, 2, 5)
    series = convert_to_volume(nibabel.Nifti1Image(array, np.eye(4)), None, None)
    masks = [
        Volume(array=np.stack([point.array[0], -point.array[0]]), geometry=point.geometry) for point in series.points()
    ]
    result = np.asarray(series.give_back_points(masks).dataobj)
    assert np.array_equal(result, np.stack([array, -array], axis=-1))
    image = convert_to_volume(sitk.JoinSeries([sitk.GetImageFromArray(point) for point in array.T]), None, None)
    result = sitk.GetArrayFromImage(image.give_back_points(masks))
    assert np.array_equal(result, np.stack([array.T, -array.T], axis=-1))


def test_image_of_four_dimensions_is_refused(oblique_model):
    """If the model has several channels, and others."""
    with pytest.raises(ImageError, match=r"has 3 channels, the model wants 2 .*, or its fourth axis; bring"):
        oblique_model.predict(sitk.Image([8, 8, 8, 3], sitk.sitkFloat32))


def test_folds_are_given_one_by_one_or_in_a_list(trained_volumes):
    """0 is [0], "cv" is ["cv"]."""
    path = folders_of(trained_volumes).model("3d_fullres").path
    for fold in (0, "all", "cv"):
        one, listed = (logits(load_model(path, folds=folds, device="cpu")) for folds in (fold, [fold]))
        np.testing.assert_array_equal(one, listed)


def test_postprocessing_can_be_switched_off(trained_volumes, tmp_path):
    """In Python and by the command's function, whose prediction.json says so, and whose results count as others."""
    trained = folders_of(trained_volumes).model("3d_fullres")
    folder = ModelFolder(path=shutil.copytree(trained.path, tmp_path / "model"))
    PostprocessingRules(smallest=(SmallestSize(structure=(1,), mm3=1e9),)).save(folder.postprocessing)
    [path] = scans_of(trained_volumes)
    whole, rest = (
        load_model(folder.path, device="cpu", mirroring=False, postprocessing=use).predict(path)
        for use in (False, True)
    )
    assert set(np.unique(sitk.GetArrayFromImage(whole))) == {0, 1, 2}
    assert set(np.unique(sitk.GetArrayFromImage(rest))) == {0, 2}
    options = {"model": folder.path, "device": "cpu", "mirroring": False}
    for use in (True, False):
        [written] = predict(path, tmp_path / "masks", postprocessing=use, resume=True, **options)
        assert (1 in read_label_map(written).array) is not use
        provenance = json.loads((tmp_path / "masks" / "prediction.json").read_text())
        assert (provenance["postprocessing"] == "postprocessing: none") is not use


def test_models_and_analyses_can_be_pickled_and_copied(model, trained_volumes):
    """To carry them to other processes."""
    [path] = scans_of(trained_volumes)
    expected = sitk.GetArrayFromImage(model.predict(path))
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):  # noqa: S301 - made here
        np.testing.assert_array_equal(sitk.GetArrayFromImage(other.predict(path)), expected)
    array, spacing_mm = sitk.GetArrayFromImage(sitk.ReadImage(str(path))), (1, 1, 1)
    analysis = model.analyse(array, spacing_mm=spacing_mm)
    carried = pickle.loads(pickle.dumps(analysis))  # noqa: S301 - made here
    np.testing.assert_array_equal(carried.segmentation, analysis.segmentation)
    np.testing.assert_array_equal(carried.probabilities("bright"), analysis.probabilities("bright"))


def test_channels_are_named_for_each_kind_of_image(model):
    """Where they are in it, if there are more than the model has."""
    array = np.ones((2, 14, 16, 18), np.float32)
    with pytest.raises(
        ImageError, match=r"has 2 channels, the model wants 1 \(.*\); channels are the first of four axes"
    ):
        model.predict(array, spacing_mm=(1, 1, 1))
    with pytest.raises(
        ImageError, match=r"channels are the components of its voxels, or its fourth axis; bring that in order"
    ):
        model.predict(sitk.GetImageFromArray(np.moveaxis(array, 0, -1), isVector=True))


@pytest.mark.parametrize("path", [None, [], 1.5, b"model.zip", np.zeros(3)], ids=str)
def test_what_is_no_path_names_no_model(path):
    """Said in one line, as by the functions that take folders."""
    with pytest.raises(UsageError, match="names no model; give the path of a model folder or a bundle"):
        load_model(path)
    with pytest.raises(UsageError, match=r"source is of type .* and no path; give the path of a file or a folder"):
        predict(path, "masks", model="model.zip")
    with pytest.raises(UsageError, match=r"output is of type .* and no path"):
        predict("scans", path, model="model.zip")
