"""Arrays of every kind that Python has are taken as they are meant, or refused with what to do."""

import io
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import torch
from PIL import Image

from autoseg.errors import ImageError
from autoseg.imaging.conversion import convert_to_volume
from autoseg.imaging.geometry import Volume

VOXELS = np.arange(60.0, dtype=np.float32).reshape(3, 4, 5)
STEPS = (3.0, 0.5, 0.75)
SAME_VOXELS = {
    "whole numbers": VOXELS.astype(np.int16),
    "other byte order": VOXELS.astype(">i4"),
    "fractions of the other byte order": VOXELS.astype(">f8"),
    "order of Fortran": np.asfortranarray(VOXELS),
    "steps between voxels": np.repeat(VOXELS, 2, axis=2)[:, :, ::2],
    "backwards in memory": VOXELS[::-1, ::-1].copy()[::-1, ::-1],
    "not aligned": np.frombuffer(b"\0" + VOXELS.tobytes(), np.uint8)[1:].view(np.float32).reshape(3, 4, 5),
    "no voxel masked out": np.ma.masked_array(VOXELS),
    "an axis of channels": VOXELS[np.newaxis],
    "a list": [VOXELS],
    "a tuple of tensors": (torch.from_numpy(VOXELS),),
    "a tensor": torch.from_numpy(VOXELS),
    "a tensor that is trained": torch.nn.Parameter(torch.from_numpy(VOXELS)),
    "a tensor of half precision": torch.from_numpy(VOXELS).half(),
    "a tensor of bfloat16": torch.from_numpy(VOXELS).bfloat16(),
    "a tensor with steps": torch.from_numpy(VOXELS.transpose(2, 1, 0).copy()).permute(2, 1, 0),
    "a sparse tensor": torch.from_numpy(VOXELS).to_sparse(),
}


@pytest.mark.parametrize("name", SAME_VOXELS)
def test_arrays_are_taken_however_they_are_kept(name):
    """The voxels are the same, whatever their type and order in memory; they are copied."""
    image = SAME_VOXELS[name]
    volume = convert_to_volume(image, STEPS, None).volume
    np.testing.assert_array_equal(volume.array, VOXELS[np.newaxis])
    assert volume.array.flags.c_contiguous
    assert volume.geometry.spacing_mm == STEPS
    volume.array[:] = -1
    np.testing.assert_array_equal(convert_to_volume(image, STEPS, None).volume.array, VOXELS[np.newaxis])


def test_read_only_arrays_and_booleans_are_taken():
    """Nothing is written into them; true is 1."""
    frozen = (VOXELS > 7).copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(convert_to_volume(frozen, STEPS, None).volume.array[0], VOXELS > 7)


@pytest.mark.parametrize("spacing_mm", [STEPS, list(STEPS), np.array(STEPS), torch.tensor(STEPS)])
def test_spacing_is_a_list_of_any_kind(spacing_mm):
    """Of Python, numpy or torch."""
    assert convert_to_volume(VOXELS, spacing_mm, None).volume.geometry.spacing_mm == STEPS


NO_SPACINGS = [None, 1, "111", (), (1, 1), (1, 1, 1, 1), (0, 1, 1), (-1, 1, 1), (1, np.nan, 1), (1, None, 1), {"z": 1}]


@pytest.mark.parametrize("spacing_mm", NO_SPACINGS, ids=str)
def test_spacing_that_is_none(spacing_mm):
    """One number for all axes is none either: the distance of slices is not guessed."""
    with pytest.raises(ImageError, match=r"an array needs its spacing, not .*; pass spacing_mm=\(z, y, x\)"):
        convert_to_volume(VOXELS, spacing_mm, None)


@pytest.mark.parametrize("as_tensors", [False, True])
def test_results_are_of_the_kind_of_the_image(as_tensors):
    """An array for an array, a tensor for a tensor, also if it was a plane or a list; they can be pickled."""
    taken = torch.from_numpy if as_tensors else np.asarray
    label = (np.arange(60) % 3).astype(np.uint8).reshape(3, 4, 5)
    for image in (taken(VOXELS), [taken(VOXELS), taken(VOXELS)]):
        converted = convert_to_volume(image, STEPS, None)
        result = converted.give_back(Volume(array=label, geometry=converted.volume.geometry))
        assert isinstance(result, torch.Tensor if as_tensors else np.ndarray)
        np.testing.assert_array_equal(np.asarray(result), label)
        assert pickle.loads(pickle.dumps(converted)).volume.array.shape == converted.volume.array.shape  # noqa: S301
    plane = convert_to_volume(taken(VOXELS[0]), (1, 1), None)
    result = plane.give_back(Volume(array=label[:1], geometry=plane.volume.geometry))
    np.testing.assert_array_equal(np.asarray(result), label[0])


def test_arrays_of_a_list_are_channels():
    """Volumes, and planes too: slices of a volume are no list, and the message of the wrong number says so."""
    taken = convert_to_volume([VOXELS, -VOXELS], STEPS, None)
    np.testing.assert_array_equal(taken.volume.array, [VOXELS, -VOXELS])
    planes = convert_to_volume(list(VOXELS), (1, 1), None)
    np.testing.assert_array_equal(planes.volume.array[:, 0], VOXELS)
    with pytest.raises(ImageError, match=r"has 3 channels, the model wants 1 \(MR\).*numpy.stack makes one volume"):
        planes.check_channels(["MR"])
    taken.check_channels(["T1", "T2"])


FILE = Path("scan_0000.nii.gz")
REFUSED = {
    "nothing": (None, "type NoneType is no image; give a path; an array of numpy or a tensor"),
    "a number": (5, "type int is no image"),
    "a number of numpy": (np.float32(5), r"shape \(\) is no image; give \(z, y, x\)"),
    "no axes": (np.array(5.0), r"shape \(\) is no image"),
    "one axis": (VOXELS[0, 0], r"shape \(5,\) is no image"),
    "many images": (torch.zeros(2, 1, 3, 4, 5), "is no image; .*; of several images, one at a time"),
    "no voxels": (VOXELS[:0], "an array is empty: its shape is"),
    "an empty list": ([], "an empty list is no image; give one image for each channel"),
    "a list of lists": (VOXELS.tolist(), r"a list of list is no image; give numpy.array\(...\)"),
    "arrays of several shapes": ([VOXELS, VOXELS[1:]], r"differ: \(2, 4, 5\), \(3, 4, 5\); bring all channels"),
    "arrays with channels": ([VOXELS[np.newaxis]], "each of the 1 arrays is a channel"),
    "arrays and paths": ([VOXELS, FILE], "a list mixes numpy.ndarray and pathlib.PosixPath; give every channel"),
    "complex numbers": (VOXELS * 1j, "an array holds complex numbers; give their magnitude"),
    "complex numbers of torch": (torch.ones(3, 4, 5, dtype=torch.complex64), "a tensor holds complex numbers"),
    "complex numbers of SimpleITK": (sitk.Image([4, 4, 4], sitk.sitkComplexFloat32), "complex.*ComplexToModulus"),
    "labels of SimpleITK": (sitk.Image([4, 4, 4], sitk.sitkLabelUInt8), "holds label.*SimpleITK.Cast"),
    "objects": (VOXELS.astype(object), r"holds Python objects; .*array.astype\('float32'\)"),
    "objects in a list": ([VOXELS.astype(object)], "holds Python objects"),
    "texts": (np.full((2, 2), "a"), "holds <U1, which are no numbers"),
    "dates": (VOXELS.astype("M8[s]"), r"holds datetime64\[s\], which are no numbers"),
    "colours in fields": (np.zeros((2, 2), dtype=[("R", "u1")]), "which are no numbers; give numbers"),
    "voxels that are masked out": (np.ma.masked_less(VOXELS, 6), r"masks out 6 of 60 voxels; .*array.filled\(0\)"),
    "a masked channel": ([np.ma.masked_less(VOXELS, 6)], "masks out 6 of 60 voxels"),
    "NaN": (np.where(VOXELS > 57, np.nan, VOXELS), "NaN or infinite voxels: 2 of 60; replace them"),
    "numbers beyond 32 bit": (VOXELS.astype(np.float64) * 1e300, "NaN or infinite voxels: 59 of 60"),
    "no values": (torch.empty(3, 4, 5, device="meta"), "on the device 'meta' holds no values"),
    "a table": (pd.DataFrame(VOXELS[0]), "type pandas.DataFrame is no image; give numpy.asarray"),
    "a picture of Pillow": (Image.new("L", (4, 4)), "type PIL.Image is no image; give numpy.asarray"),
    "a file in memory": (io.BytesIO(b"1"), "type _io.BytesIO is no image; give the path of its file"),
    "bytes": (b"scan.nii.gz", "type bytes is no image; write the bytes to a file"),
    "a sample of a dataset": ({"image": VOXELS}, r"type dict is no image; give one of its values, .*image\['image'\]"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_image_is_refused_in_one_line(name):
    """With its type, and what to do."""
    image, text = REFUSED[name]
    with pytest.raises(ImageError, match=text) as caught:
        convert_to_volume(image, None if isinstance(image, sitk.Image) else STEPS, None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "image",
    [FILE, str(FILE), [FILE, FILE], sitk.Image([4, 4, 4], sitk.sitkInt16)],
    ids=["path", "text", "list", "image"],
)
def test_images_with_a_place_have_a_spacing_of_their_own(image):
    """A second one is not passed over in silence."""
    with pytest.raises(ImageError, match="has a spacing of its own; leave spacing_mm out"):
        convert_to_volume(image, STEPS, None)


def test_images_of_a_list_are_channels():
    """Of SimpleITK, on one grid."""
    image = sitk.GetImageFromArray(VOXELS)
    taken = convert_to_volume([image, image * 2], None, None)
    np.testing.assert_array_equal(taken.volume.array, [VOXELS, 2 * VOXELS])
    label = Volume(array=np.ones((3, 4, 5), np.uint8), geometry=taken.volume.geometry)
    assert taken.give_back(label).GetSize() == (5, 4, 3)
    with pytest.raises(ImageError, match=r"images 0 and 1 of the list: .*; put all channels on one grid"):
        convert_to_volume([image, sitk.GetImageFromArray(VOXELS[1:])], None, None)
