"""NIfTI files of every kind, whole and damaged, beside other readers."""

import gzip
import struct
from pathlib import Path
from unittest.mock import patch

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nifti_files import write_nifti as write_header
from phantoms import REALDATA, blocks, noise, place

from autoseg.errors import ImageError
from autoseg.imaging.affine_geometry import find_carried
from autoseg.imaging.geometry import Geometry, Volume
from autoseg.imaging.image_files import read_image, read_label_map, read_stored, write_image, write_label_map
from autoseg.imaging.image_headers import read_image_header
from autoseg.imaging.sitk_conversion import geometry_of, join_series, to_sitk
from autoseg.imaging.volume_files.nifti_header import read_header
from autoseg.imaging.volume_files.nifti_writing import write_nifti


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    fraction=st.floats(0.02, 1, exclude_max=True), ending=st.sampled_from([".nii", ".nii.gz"]), is_label=st.booleans()
)
def test_cut_off_files_are_refused(tmp_path: Path, fraction: float, ending: str, is_label: bool) -> None:
    """Wherever a copy was interrupted, the file is not read."""
    path = tmp_path / ending.replace(".", "_") / f"a{ending}"
    if is_label:
        write_label_map(path, place(blocks()))
    else:
        write_image(path, place(noise(0)[np.newaxis]))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * fraction)])
    with pytest.raises(ImageError, match=r"cut off"):
        read_label_map(path) if is_label else read_image((path,))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no file that is always full")
def test_a_full_disk_is_noticed() -> None:
    """No file is taken for written that is not."""
    volume = place(noise(0))
    with pytest.raises(OSError, match="No space left"):
        write_nifti(Path("/dev/full"), volume, find_carried(volume.geometry))


@pytest.mark.parametrize(
    ("kind", "channels", "dimensions", "time_step_s"),
    [
        ("u1", 1, 3, None),
        ("f4", 1, 3, None),
        ("u2", 3, 3, None),
        ("i2", 1, 2, None),
        ("f8", 2, 3, 2.5),
        ("i4", 1, 3, 1),
    ],
)
def test_the_header_is_the_one_that_itk_writes(tmp_path, kind, channels, dimensions, time_step_s) -> None:
    """Sizes, types, axes of vectors and of time, units, and both matrices; and the voxels behind it."""
    shape = (1, 5, 6) if dimensions == 2 else (4, 5, 6)
    geometry = Geometry(shape=shape, spacing_mm=(2.5, 0.5, 0.75), origin_mm=(0.0, -2.0, 1.0), dimensions=dimensions)
    volume = Volume(
        array=np.arange(channels * np.prod(shape)).reshape(channels, *shape).astype(kind), geometry=geometry
    )
    points = [Volume(array=channel, geometry=geometry) for channel in volume.array]
    image = to_sitk(volume) if time_step_s is None else join_series(points, time_step_s)
    sitk.WriteImage(image, str(tmp_path / "itk.nii"))
    write_nifti(tmp_path / "a.nii", volume, find_carried(geometry), time_step_s)
    mine, itk = (read_header(tmp_path / name).fields for name in ("a.nii", "itk.nii"))
    for name in mine.dtype.names:
        if name == "quatern":  # turns by half a circle have two signs
            np.testing.assert_allclose(np.abs(mine[name]), np.abs(itk[name]), atol=1e-6)
        elif mine[name].dtype.kind == "f":
            np.testing.assert_allclose(mine[name], itk[name], atol=1e-6, err_msg=name)
        else:
            assert np.array_equal(mine[name], itk[name]), name
    assert (tmp_path / "a.nii").read_bytes()[348:] == (tmp_path / "itk.nii").read_bytes()[348:]


def test_what_the_format_does_not_hold_is_refused(tmp_path) -> None:
    """Sizes of 16 bit, and numbers that have no code."""
    for array, words in ((np.zeros((1, 1, 40_000), np.uint8), "32767 voxels"), (np.zeros((2, 2, 2), "f2"), "float16")):
        geometry = Geometry(shape=array.shape, spacing_mm=(1.0, 1.0, 1.0))
        with pytest.raises(ImageError, match=words):
            write_nifti(tmp_path / "a.nii", Volume(array=array, geometry=geometry), find_carried(geometry))
        assert not (tmp_path / "a.nii").exists()


def test_one_missing_byte_is_noticed(tmp_path: Path) -> None:
    """The last byte counts, in packed and in plain files."""
    for ending in (".nii", ".nii.gz"):
        path = tmp_path / ending[1:] / f"a{ending}"
        write_image(path, place(noise(0)[np.newaxis]))
        read_image((path,))
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(ImageError, match="cut off"):
            read_image((path,))


@pytest.mark.parametrize("place_of_damage", [0.4, 0.6, 0.8])
def test_damaged_bytes_are_noticed(tmp_path: Path, place_of_damage: float) -> None:
    """A packed file of the right length with one changed byte is refused."""
    path = tmp_path / "a.nii.gz"
    write_image(path, place(noise(0)[np.newaxis]))
    content = bytearray(path.read_bytes())
    content[int(len(content) * place_of_damage)] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(ImageError, match=r"damaged|cut off|NaN"):
        read_image((path,))


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("voxel", [(0, 0, 0), (2, 3, 4), (5, 8, 7)])
def test_single_voxel_that_is_no_number_is_counted(tmp_path: Path, ending: str, voxel: tuple[int, int, int]) -> None:
    """First, last or between: NaN and infinity are seen wherever they are."""
    for value in (np.nan, np.inf, -np.inf):
        image = noise(0)
        image[voxel] = value
        write_image(tmp_path / f"a{ending}", place(image[np.newaxis]))
        with pytest.raises(ImageError, match="voxels that are NaN or infinite: 1"):
            read_image((tmp_path / f"a{ending}",))


@pytest.mark.parametrize("split", [True, False])
def test_other_ways_to_pack_are_read(tmp_path: Path, split: bool) -> None:
    """Files that were packed in parts, or that have bytes to spare, are whole."""
    path = tmp_path / "a.nii.gz"
    write_image(path, place(noise(0)[np.newaxis]))
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[:600]) + gzip.compress(content[600:] + (b"" if split else b"spare")))
    np.testing.assert_array_equal(read_image((path,)).array, noise(0)[np.newaxis])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("missing", [0, 1])
def test_second_version_of_the_format_is_known(tmp_path: Path, order: str, missing: int) -> None:
    """The size follows from the wider header too, in both orders of bytes."""
    header = bytearray(540)
    struct.pack_into(order + "i", header, 0, 540)
    struct.pack_into(order + "2h", header, 12, 4, 16)
    struct.pack_into(order + "8q", header, 16, 3, 4, 5, 6, 1, 1, 1, 1)
    struct.pack_into(order + "q", header, 168, 544)
    path = tmp_path / "a.nii"
    path.write_bytes(bytes(header) + bytes(4 + 4 * 5 * 6 * 2 - missing))
    if missing:
        with pytest.raises(ImageError, match="cut off"):
            read_image((path,))
    else:
        read_image((path,))


def test_an_unpacked_file_beside_the_packed_one_is_another_file(tmp_path: Path) -> None:
    """ITK would read a.nii.gz with the voxels of a.nii beside it."""
    write_image(tmp_path / "a.nii.gz", place(noise(1)[np.newaxis]))
    write_image(tmp_path / "a.nii", place(noise(2)[np.newaxis]))
    np.testing.assert_array_equal(read_image((tmp_path / "a.nii.gz",)).array, noise(1)[np.newaxis])
    np.testing.assert_array_equal(read_image((tmp_path / "a.nii",)).array, noise(2)[np.newaxis])


@pytest.mark.realdata
@pytest.mark.skipif(not REALDATA.is_dir(), reason="no real scans beside the checkout")
def test_real_files_pass() -> None:
    """Files of other tools, with either version of the header, are whole."""
    paths = sorted((REALDATA / "awkward").rglob("*.nii*")) + sorted((REALDATA / "open_ms").rglob("*.nii.gz"))
    assert len(paths) > 20
    for path in paths:
        if path.name == "resampled_anat_moved.nii":  # which really holds NaN
            with pytest.raises(ImageError, match="voxels that are NaN or infinite: 153"):
                read_image((path,))
        else:
            read_image((path,))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("intercept", [0.0, 5.0])
@pytest.mark.parametrize("slope", [0.0, 1.0, -2.0, float("nan"), float("inf")])
def test_numbers_are_scaled_as_by_nibabel(tmp_path: Path, slope: float, intercept: float, packed: bool) -> None:
    """A slope that is 0 or no number scales nothing, whatever the intercept."""
    voxels = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    path = tmp_path / ("a.nii.gz" if packed else "a.nii")
    write_header(path, voxels, scl_slope=slope, scl_inter=intercept, sform_code=1, srow=np.eye(4)[:3].ravel())
    assert np.array_equal(read_image((path,)).array[0].T, np.asarray(nibabel.load(path).dataobj))


KINDS = ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("scale", [(1.0, 0.0), (0.37, -11.5)])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", KINDS)
def test_all_numbers_are_those_of_nibabel(
    tmp_path: Path, kind: str, order: str, scale: tuple[float, float], packed: bool
) -> None:
    """Every number type, in both orders of bytes, scaled and not, with the extremes that it holds."""
    limits = np.iinfo(kind) if kind[0] in "iu" else np.finfo("f4")
    voxels = np.array([limits.min, limits.max, 0, 1, 2, 100], order + kind).reshape(1, 2, 3)
    header = nibabel.Nifti1Header(endianness=order)
    header.set_data_dtype(voxels.dtype)
    image = nibabel.Nifti1Image(voxels.T, np.diag([1.0, 2.0, 3.0, 1.0]), header, dtype=voxels.dtype)
    path = tmp_path / ("a.nii.gz" if packed else "a.nii")
    image.header.set_slope_inter(*scale)
    write_nifti_image(path, image, voxels)
    expected = np.asarray(nibabel.load(path).dataobj).T
    stored = read_stored(path).array[0]
    np.testing.assert_allclose(stored, expected, rtol=2e-7)
    if scale == (1.0, 0.0):
        assert stored.dtype == voxels.dtype.newbyteorder("=")
        np.testing.assert_array_equal(stored, expected)


def write_nifti_image(path: Path, image: nibabel.Nifti1Image, voxels: np.ndarray) -> None:
    """Writes the header of an image of nibabel with the stored numbers of its voxels, which nibabel would rescale."""
    image.header["vox_offset"] = 352
    image.header["magic"] = b"n+1"
    content = image.header.binaryblock + bytes(4) + voxels.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 6, 1), (4, 5, 6, 3), (4, 5, 6, 1, 3), (4, 5, 6, 1, 1, 1)])
def test_axes_behind_the_third_are_channels(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """A fourth axis, or a fifth beside one of length 1, holds channels; further axes of length 1 hold nothing."""
    voxels = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "a.nii.gz")
    x, y, z, *others = (*shape, 1)[: max(3, len(shape))]
    expected = voxels.reshape((x, y, z, -1) if others else (x, y, z, 1)).transpose(3, 2, 1, 0)
    np.testing.assert_array_equal(read_stored(tmp_path / "a.nii.gz").array, expected)


@pytest.mark.parametrize("shape", [(4,), (4, 5, 6, 2, 3), (4, 5, 6, 1, 1, 2)])
def test_other_axes_are_refused_by_name(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """Nothing is guessed of a row of numbers, or of several vectors along time."""
    nibabel.save(nibabel.Nifti1Image(np.zeros(shape, np.int16), np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(ImageError, match=r"row of numbers|extract one volume"):
        read_stored(tmp_path / "a.nii")


def test_colours_are_channels(tmp_path: Path) -> None:
    """Numbers of three bytes are three colours."""
    colours = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    voxels = np.ascontiguousarray(colours).view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(read_stored(tmp_path / "a.nii.gz").array, colours.transpose(3, 2, 1, 0))


@pytest.mark.parametrize(
    "affine",
    [
        np.diag([1.0, 2.0, 3.0, 1.0]),
        np.array([[0.6, -1.6, 0, 10], [0.8, 1.2, 0, 20], [0, 0, 3, 30], [0, 0, 0, 1.0]]),
    ],
)
def test_a_plane_lies_where_itk_sees_it(tmp_path: Path, affine: np.ndarray) -> None:
    """Origin and direction of a plane are those of its matrix within the plane."""
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5), np.int16), affine), tmp_path / "a.nii")
    expected = geometry_of(sitk.ReadImage(str(tmp_path / "a.nii")))
    assert read_stored(tmp_path / "a.nii").geometry.difference(expected) is None


def test_itk_is_not_asked_for_voxels_or_header(tmp_path: Path) -> None:
    """The threads of its reader share the name of the last file, and none guards it."""
    path = tmp_path / "a.nii.gz"
    write_image(path, place(noise(0)[np.newaxis]))
    refusing = {"side_effect": AssertionError}
    with patch.object(sitk, "ReadImage", **refusing), patch.object(sitk, "ImageFileReader", **refusing):
        np.testing.assert_array_equal(read_image((path,)).array[0], noise(0))
        assert read_image_header(path).shape == noise(0).shape
