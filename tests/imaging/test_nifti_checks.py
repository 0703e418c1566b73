"""NIfTI files that a library would read wrongly without an error."""

import gzip
import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nifti_files import write_nifti
from phantoms import REALDATA, blocks, noise, place

from autoseg.errors import ImageError
from autoseg.imaging.image_files import read_image, read_label_map, write_image, write_label_map
from autoseg.imaging.volume_files.nifti_checks import check_nifti, is_cut_off


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


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_files_that_were_written_to_a_full_disk_are_noticed(tmp_path: Path, ending: str) -> None:
    """The library that writes them says nothing; NaN is the writer's own business, and so are other formats."""
    path = tmp_path / f"a{ending}"
    image = noise(0)[np.newaxis]
    image[0, 0, 0, 0] = np.nan
    write_image(path, place(image))
    assert not is_cut_off(path)
    content = path.read_bytes()
    for size in (0, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        assert is_cut_off(path)
    assert not is_cut_off(tmp_path / "a.nrrd")


def test_one_missing_byte_is_noticed(tmp_path: Path) -> None:
    """The last byte counts, in packed and in plain files."""
    for ending in (".nii", ".nii.gz"):
        path = tmp_path / ending[1:] / f"a{ending}"
        write_image(path, place(noise(0)[np.newaxis]))
        check_nifti(path)
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(ImageError, match="cut off"):
            check_nifti(path)


@pytest.mark.parametrize("place_of_damage", [0.4, 0.6, 0.8])
def test_damaged_bytes_are_noticed(tmp_path: Path, place_of_damage: float) -> None:
    """A packed file of the right length with one changed byte is refused."""
    path = tmp_path / "a.nii.gz"
    write_image(path, place(noise(0)[np.newaxis]))
    content = bytearray(path.read_bytes())
    content[int(len(content) * place_of_damage)] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(ImageError, match=r"damaged|cut off|NaN"):
        check_nifti(path)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("voxel", [(0, 0, 0), (2, 3, 4), (5, 8, 7)])
def test_single_voxel_that_is_no_number_is_counted(tmp_path: Path, ending: str, voxel: tuple[int, int, int]) -> None:
    """First, last or between: NaN and infinity are seen wherever they are."""
    for value in (np.nan, np.inf, -np.inf):
        image = noise(0)
        image[voxel] = value
        write_image(tmp_path / f"a{ending}", place(image[np.newaxis]))
        with pytest.raises(ImageError, match="voxels that are NaN or infinite: 1"):
            check_nifti(tmp_path / f"a{ending}")


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
    struct.pack_into(order + "h", header, 14, 16)
    struct.pack_into(order + "8q", header, 16, 3, 4, 5, 6, 1, 1, 1, 1)
    struct.pack_into(order + "q", header, 168, 544)
    path = tmp_path / "a.nii"
    path.write_bytes(bytes(header) + bytes(4 + 4 * 5 * 6 * 2 - missing))
    if missing:
        with pytest.raises(ImageError, match="cut off"):
            check_nifti(path)
    else:
        check_nifti(path)


def test_an_unpacked_file_beside_the_packed_one_is_refused(tmp_path: Path) -> None:
    """With a.nii beside it, a.nii.gz would be read with the voxels of the other; a.nii itself is read rightly."""
    write_image(tmp_path / "a.nii.gz", place(noise(1)[np.newaxis]))
    write_image(tmp_path / "a.nii", place(noise(2)[np.newaxis]))
    with pytest.raises(ImageError, match=r"beside a\.nii"):
        read_image((tmp_path / "a.nii.gz",))
    np.testing.assert_array_equal(read_image((tmp_path / "a.nii",)).array, noise(2)[np.newaxis])


def test_other_files_pass(tmp_path: Path) -> None:
    """Only NIfTI files are looked at."""
    (tmp_path / "a.png").write_bytes(b"")
    check_nifti(tmp_path / "a.png")


@pytest.mark.realdata
@pytest.mark.skipif(not REALDATA.is_dir(), reason="no real scans beside the checkout")
def test_real_files_pass() -> None:
    """Files of other tools, with either version of the header, are whole."""
    paths = sorted((REALDATA / "awkward").rglob("*.nii*")) + sorted((REALDATA / "open_ms").rglob("*.nii.gz"))
    assert len(paths) > 20
    for path in paths:
        if path.name == "resampled_anat_moved.nii":  # which really holds NaN
            with pytest.raises(ImageError, match="voxels that are NaN or infinite: 153"):
                check_nifti(path)
        else:
            check_nifti(path)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("intercept", [0.0, 5.0])
@pytest.mark.parametrize("slope", [0.0, 1.0, -2.0, float("nan"), float("inf")])
def test_numbers_are_scaled_as_by_nibabel(tmp_path: Path, slope: float, intercept: float, packed: bool) -> None:
    """A slope that is 0 or no number scales nothing, whatever the intercept."""
    voxels = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    path = tmp_path / ("a.nii.gz" if packed else "a.nii")
    write_nifti(path, voxels, scl_slope=slope, scl_inter=intercept, sform_code=1, srow=np.eye(4)[:3].ravel())
    assert np.array_equal(read_image((path,)).array[0].T, np.asarray(nibabel.load(path).dataobj))
