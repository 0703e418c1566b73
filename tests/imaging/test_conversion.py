"""Images of nibabel have the same voxels at the same place as the file that they were read from."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation
from tiny_workspaces import folders_of

from autoseg.errors import ImageError
from autoseg.imaging.conversion import convert_to_volume
from autoseg.imaging.geometry import Geometry, Volume
from autoseg.imaging.image_files import read_image, write_image
from autoseg.inference.model import load_model

nibabel = pytest.importorskip("nibabel")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A scan that is tilted and mirrored, with another spacing along each axis."""
    tilted = Rotation.from_euler("xyz", [20, -30, 110], degrees=True).as_matrix() * [1, -1, 1]
    geometry = Geometry(
        shape=(3, 4, 5),
        spacing_mm=(3.0, 0.5, 0.75),
        origin_mm=(-20.0, 31.5, 7.0),
        direction=tuple(map(tuple, tilted.tolist())),
    )
    array = np.random.default_rng(0).normal(size=(1, 3, 4, 5)).astype(np.float32)
    write_image(tmp_path / "scan.nii.gz", Volume(array=array, geometry=geometry))
    return tmp_path / "scan.nii.gz"


def test_an_image_lies_where_its_file_does(file):
    """Voxels, spacing, origin and directions are those that SimpleITK reads."""
    read, taken = read_image((file,)), convert_to_volume(nibabel.load(file), None, None)
    np.testing.assert_array_equal(taken.volume.array, read.array)
    assert read.geometry.difference(taken.volume.geometry) is None
    assert taken.volume.geometry.orientation == read.geometry.orientation


def test_results_are_images_of_the_same_class_with_the_same_affine(file):
    """A map has the axes of the image, several maps one axis more."""
    image = nibabel.load(file)
    taken = convert_to_volume(image, None, None)
    label = (np.arange(60).reshape(3, 4, 5) % 3).astype(np.uint8)
    back = taken.give_back(Volume(array=label, geometry=taken.volume.geometry))
    assert isinstance(back, nibabel.Nifti1Image)
    np.testing.assert_array_equal(back.affine, image.affine)
    assert back.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(back.dataobj), label.transpose(2, 1, 0))
    masks = taken.give_back(Volume(array=np.stack([label, label + 1]), geometry=taken.volume.geometry))
    assert masks.shape == (5, 4, 3, 2)
    np.testing.assert_array_equal(masks.dataobj[..., 1], label.transpose(2, 1, 0) + 1)


def test_channels_are_the_fourth_axis_and_a_plane_comes_back_flat():
    """(x, y, z, c) and (x, y)."""
    array = np.arange(120.0).reshape(3, 4, 5, 2)
    taken = convert_to_volume(nibabel.Nifti1Image(array, np.eye(4)), None, None)
    assert taken.volume.array.shape == (2, 5, 4, 3)
    assert taken.volume.array[1, 4, 3, 2] == array[2, 3, 4, 1]
    plane = convert_to_volume(nibabel.Nifti1Image(array[..., 0, 0], np.eye(4)), None, None)
    assert plane.volume.array.shape == (1, 1, 4, 3)
    result = plane.give_back(Volume(array=np.ones((1, 4, 3), np.uint8), geometry=plane.volume.geometry))
    assert result.shape == (3, 4)


@pytest.mark.parametrize(
    ("affine", "text"),
    [
        (None, "has no affine"),
        (np.diag([1.0, 0, 1, 1]), "axes of no length"),
        (np.diag([1.0, np.nan, 1, 1]), "axes of no length"),
        (np.array([[1, 0.2, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), "11 degrees off right angles"),
    ],
)
def test_places_that_are_none_are_refused(affine, text):
    """The message is one line."""
    image = SimpleNamespace(affine=affine, dataobj=np.ones((2, 2, 2)))
    with pytest.raises(ImageError, match=text):
        convert_to_volume(image, None, None)


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.ones((2, 2, 2, 1, 3)), "is no volume; give numbers"),
        (np.zeros((2, 2, 2), dtype=[("R", "u1"), ("G", "u1")]), "which are no numbers; give numbers"),
        (np.full((2, 2, 2), np.nan), "holds NaN"),
        (np.ones((0, 2, 2)), "is empty"),
    ],
)
def test_voxels_that_are_none_are_refused(array, text):
    """Colours of nibabel, a fifth axis, NaN, and nothing at all."""
    with pytest.raises(ImageError, match=text):
        convert_to_volume(SimpleNamespace(affine=np.eye(4), dataobj=array), None, None)


def test_arrays_lie_as_training_cases_do():
    """Their axes are taken to lead where the model expects it, so they are not turned."""
    taken = convert_to_volume(np.ones((2, 3, 4)), (1, 1, 1), "SAR")
    assert taken.volume.geometry.orientation == "SAR"
    assert convert_to_volume(np.ones((2, 3, 4)), (1, 1, 1), None).volume.geometry.orientation == "SPL"


def test_a_model_segments_images_of_nibabel(trained_volumes):
    """The segmentation and its measures are those of the file, also if the axes of the image have another order."""
    folders = folders_of(trained_volumes)
    model = load_model(folders.model("3d_fullres").path, device="cpu")
    [path] = (folders.raw / "imagesTs").iterdir()
    expected = sitk.GetArrayFromImage(model.predict(path)).transpose(2, 1, 0)
    image = nibabel.load(path)
    mask = model.predict(image)
    assert len(np.unique(expected)) == 3
    np.testing.assert_array_equal(np.asarray(mask.dataobj), expected)
    np.testing.assert_array_equal(mask.affine, image.affine)
    closest = nibabel.as_closest_canonical(image)
    assert not np.allclose(closest.affine, image.affine)
    turned = nibabel.as_closest_canonical(model.predict(image))
    np.testing.assert_array_equal(np.asarray(model.predict(closest).dataobj), np.asarray(turned.dataobj))
    assert model.analyse(image).probabilities("bright").shape == image.shape
