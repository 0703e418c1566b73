"""Tensors of MONAI lie where nibabel says that their file lies, and results go back with their affine."""

import nibabel
import numpy as np
import pytest
import torch

from autoseg.errors import ImageError
from autoseg.imaging.conversion import convert_to_volume
from autoseg.imaging.geometry import Volume

monai = pytest.importorskip("monai")
from monai.data import MetaTensor  # noqa: E402
from monai.transforms import LoadImage  # noqa: E402

AFFINE = np.array([[0.0, -1.5, 0, 3], [2, 0, 0, 4], [0, 0, 3, 5], [0, 0, 0, 1]])
VOXELS = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)


@pytest.mark.filterwarnings("ignore")  # MONAI's own
@pytest.mark.parametrize("channel_first", [False, True])
def test_a_tensor_lies_where_its_file_does(tmp_path, channel_first):
    """As MONAI reads the file, with and without an axis of channels; nibabel gives the right values."""
    nibabel.save(nibabel.Nifti1Image(VOXELS, AFFINE), tmp_path / "scan.nii.gz")
    image = nibabel.load(tmp_path / "scan.nii.gz")
    tensor = LoadImage(reader="NibabelReader", ensure_channel_first=channel_first)(tmp_path / "scan.nii.gz")
    assert isinstance(tensor, MetaTensor)
    taken, expected = (convert_to_volume(one, None, None) for one in (tensor, image))
    np.testing.assert_array_equal(taken.volume.array, expected.volume.array)
    assert taken.volume.geometry.difference(expected.volume.geometry) is None

    label = (np.arange(120).reshape(6, 5, 4) % 3).astype(np.uint8)
    back = taken.give_back(Volume(array=label, geometry=taken.volume.geometry))
    assert isinstance(back, MetaTensor)
    assert back.shape == tensor.shape
    np.testing.assert_array_equal(back.affine, image.affine)
    np.testing.assert_array_equal(back.numpy().reshape(4, 5, 6), label.T)
    masks = taken.give_back(Volume(array=np.stack([label, label + 1]), geometry=taken.volume.geometry))
    np.testing.assert_array_equal(masks[1].numpy(), label.T + 1)


def test_the_frame_is_the_one_that_the_tensor_states():
    """LPS is what ITK writes; RAS what MONAI does."""
    by_ras = convert_to_volume(MetaTensor(torch.from_numpy(VOXELS), affine=torch.tensor(AFFINE)), None, None)
    to_lps = np.diag([-1.0, -1, 1, 1]) @ AFFINE
    stated = MetaTensor(torch.from_numpy(VOXELS), affine=torch.tensor(to_lps), meta={"space": "LPS"})
    by_lps = convert_to_volume(stated, None, None)
    assert by_ras.volume.geometry.difference(by_lps.volume.geometry) is None


def test_planes_come_back_flat():
    """(x, y) and (c, x, y), by what their reader noted."""
    for shape in ((4, 5), (2, 4, 5)):
        affine = torch.diag(torch.tensor([0.5, 0.7, 1, 1]))
        tensor = MetaTensor(torch.rand(shape), affine=affine, meta={"spatial_shape": (4, 5)})
        taken = convert_to_volume(tensor, None, None)
        assert taken.volume.array.shape == (len(shape) - 1, 1, 5, 4)
        assert taken.volume.geometry.spacing_mm == pytest.approx((0.7, 0.7, 0.5))
        back = taken.give_back(Volume(array=np.ones((1, 5, 4), np.uint8), geometry=taken.volume.geometry))
        assert tuple(back.shape) == (shape if len(shape) == 2 else (1, 4, 5))


@pytest.mark.parametrize(
    ("tensor", "text"),
    [
        (MetaTensor(torch.zeros(2, 1, 4, 5, 6)), "no image of 3 axes; give one image .* at a time, such as batch"),
        (MetaTensor(torch.zeros(4, 5, 6), affine=torch.zeros(4, 4)), "axes of no length"),
        (MetaTensor(torch.full((4, 5, 6), torch.nan)), "the MetaTensor holds NaN"),
        (MetaTensor(torch.zeros(4, 5, 6, dtype=torch.complex64)), "the MetaTensor holds complex numbers"),
    ],
)
def test_tensors_that_are_no_image_are_refused(tensor, text):
    """In one line each."""
    with pytest.raises(ImageError, match=text):
        convert_to_volume(tensor, None, None)


def test_transforms_that_wait_are_refused(monkeypatch):
    """A lazy transform has changed neither the voxels nor their place yet."""
    tensor = MetaTensor(torch.zeros(4, 5, 6))
    tensor.push_pending_operation({"lazy_affine": torch.eye(4)})
    with pytest.raises(ImageError, match=r"has transforms that were not applied; call monai.transforms.ApplyPending"):
        convert_to_volume(tensor, None, None)
