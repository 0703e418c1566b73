"""Where the voxels of a NIfTI file lie: as nibabel has it for paths, its own images, and the files of results."""

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from nifti_files import write_nifti
from scipy.spatial.transform import Rotation

from autoseg.errors import ImageError
from autoseg.imaging.affine_geometry import LEFT_AND_BACK, describe_difference
from autoseg.imaging.conversion import convert_to_volume
from autoseg.imaging.geometry import Box, Geometry, Volume
from autoseg.imaging.image_files import convert_image, read_image, read_label_map, write_image, write_label_map
from autoseg.imaging.image_headers import channels_in, is_series, read_grid

VOXELS = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
SFORM = [-1, 0, 0, 10, 0, -1, 0, 20, 0, 0, 2, -30]
QFORM = {"quatern": (0, 0, 1), "qoffset": (1, 2, 3)}
NAN = float("nan")


def corners(geometry: Geometry) -> np.ndarray:
    """Returns the positions of the corners, (x, y, z), right, anterior, superior."""
    ends = np.array(np.meshgrid(*[(0, size - 1) for size in geometry.shape], indexing="ij")).reshape(3, -1)
    steps = ends * np.array(geometry.spacing_mm)[:, None]
    zyx = np.array(geometry.origin_mm)[:, None] + np.array(geometry.direction) @ steps
    return (zyx[::-1] * LEFT_AND_BACK[:, None]).T


def corners_by_nibabel(image: nibabel.Nifti1Image) -> np.ndarray:
    """Returns the same positions by the matrix of nibabel."""
    shape = image.shape[2::-1]
    ends = np.array(np.meshgrid(*[(0, size - 1) for size in shape], indexing="ij")).reshape(3, -1)
    return nibabel.affines.apply_affine(image.affine, ends[::-1].T)


PLACES = {
    "the sform where both hold something": {"sform_code": 1, "qform_code": 1},
    "the sform of an aligned scan": {"sform_code": 2, "qform_code": 1},
    "the sform of a template": {"sform_code": 4, "qform_code": 2},
    "the sform of another template": {"sform_code": 5, "qform_code": 1},
    "the sform alone": {"sform_code": 2, "qform_code": 0},
    "the qform alone": {"sform_code": 0, "qform_code": 1},
    "the qform of an aligned scan": {"sform_code": 0, "qform_code": 2},
    "a rotation that is rounded beyond 1": {"sform_code": 0, "qform_code": 1, "quatern": (0.6, 0.8, 3e-4)},
    "a mirrored qform": {"sform_code": 0, "qform_code": 1, "pixdim": [-1, 1, 2, 3, 1, 1, 1, 1]},
    "a second version": {"sform_code": 1, "qform_code": 1, "version": 2},
    "the other order of bytes": {"sform_code": 1, "qform_code": 1, "order": ">"},
    "the second version in the other order": {"sform_code": 0, "qform_code": 1, "version": 2, "order": ">"},
    "axes that are hardly sheared": {"sform_code": 1, "srow": [-1.5, 3e-4, 0, 10, 0, -1.5, 0, 20, 0, 0, 1.5, -30]},
}


@pytest.mark.parametrize("fields", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_voxels_lie_where_nibabel_says(tmp_path: Path, fields: dict[str, object], ending: str) -> None:
    """A path and an image of nibabel lie at the same place, and so do masks and maps that are written on it."""
    path = write_nifti(tmp_path / f"a{ending}", VOXELS, **{"srow": SFORM, **QFORM, **fields})
    image = nibabel.load(path)
    expected = corners_by_nibabel(image)
    volume = read_image((path,))
    assert np.array_equal(volume.array[0], VOXELS.T)
    assert np.abs(corners(volume.geometry) - expected).max() < 1e-6
    assert np.abs(corners(convert_to_volume(image, None, None).volume.geometry) - expected).max() < 1e-6
    assert read_grid(path)[0] == (4, 3, 2)
    assert read_grid(path)[1] == pytest.approx(volume.geometry.spacing_mm)
    write_label_map(tmp_path / "mask.nii.gz", Volume(array=VOXELS.T.astype(int), geometry=volume.geometry))
    write_image(tmp_path / "map.nii", volume)
    for name in ("mask.nii.gz", "map.nii"):
        assert np.abs(corners_by_nibabel(nibabel.load(tmp_path / name)) - expected).max() < 1e-6
        assert np.array_equal(np.asarray(nibabel.load(tmp_path / name).dataobj), VOXELS)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    matrices=st.fixed_dictionaries(
        {
            "angles": st.tuples(*[st.floats(-180, 180)] * 3),
            "sizes": st.tuples(*[st.floats(0.1, 9)] * 3),
            "offset": st.tuples(*[st.floats(-500, 500)] * 3),
            "flips": st.tuples(*[st.sampled_from((-1, 1))] * 3),
        }
    ),
    codes=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    units=st.sampled_from((0, 1, 2, 3, 10)),
)
def test_random_matrices_lie_where_nibabel_says(tmp_path: Path, matrices, codes, units) -> None:
    """The sform is any rotated grid and the qform another; results hold both again, whichever was taken."""
    angles, sizes, offset, flips = (matrices[name] for name in ("angles", "sizes", "offset", "flips"))
    rotation = Rotation.from_euler("xyz", angles, degrees=True)
    matrix = np.column_stack([rotation.as_matrix() * np.array(sizes) * flips, offset])
    b, c, d, a = Rotation.from_euler("zyx", angles, degrees=True).as_quat()
    fields = {
        "srow": matrix.ravel(),
        "quatern": np.array([b, c, d]) * (1 if a >= 0 else -1),
        "qoffset": np.array(offset) + 7,
        "pixdim": [flips[0], *sizes, 1, 1, 1, 1],
        "sform_code": codes[0],
        "qform_code": codes[1],
        "xyzt_units": units,
        "descrip": b"from a scanner",
    }
    path = write_nifti(tmp_path / "a.nii", VOXELS, **fields)
    image, volume = nibabel.load(path), read_image((path,))
    if max(codes) > 0:
        mm = {1: 1000, 3: 0.001}.get(units, 1)
        expected = mm * corners_by_nibabel(image)
        assert np.abs(corners(volume.geometry) - expected).max() <= 1e-6 * max(1, mm)
    other = convert_to_volume(image, None, None)
    if max(codes) > 0:
        assert np.abs(corners(other.volume.geometry) - corners(volume.geometry)).max() < 1e-6
    write_label_map(tmp_path / "mask.nii.gz", Volume(array=VOXELS.T.astype(int), geometry=volume.geometry))
    given_back = other.give_back(Volume(array=VOXELS.T.astype(np.uint8), geometry=other.volume.geometry))
    for result in (nibabel.load(tmp_path / "mask.nii.gz"), given_back):
        for name in ("sform_code", "qform_code", "srow_x", "srow_z", "quatern_b", "qoffset_x", "xyzt_units", "descrip"):
            assert np.array_equal(result.header[name], image.header[name]), name
        assert np.allclose(result.header["pixdim"][:4], image.header["pixdim"][:4])


def sitk_image_of(affine: np.ndarray) -> sitk.Image:
    """Returns an image of SimpleITK with `VOXELS` at the place of a matrix."""
    image = sitk.GetImageFromArray(VOXELS.T)
    steps = np.diag([-1, -1, 1]) @ affine[:3, :3]
    image.SetSpacing(np.linalg.norm(steps, axis=0).tolist())
    image.SetDirection((steps / np.linalg.norm(steps, axis=0)).ravel().tolist())
    image.SetOrigin((np.diag([-1, -1, 1]) @ affine[:3, 3]).tolist())
    return image


def corners_by_sitk(image: sitk.Image) -> np.ndarray:
    """Returns the positions of the corners by SimpleITK, in the frame of nibabel."""
    ends = np.array(np.meshgrid(*[(0, size - 1) for size in image.GetSize()[::-1]], indexing="ij")).reshape(3, -1)
    points = [image.TransformIndexToPhysicalPoint([int(index) for index in end]) for end in ends[::-1].T]
    return np.array(points) * [-1, -1, 1]


SHEARS = st.sampled_from((0.0, 1e-9, 1e-7)) | st.floats(-2e-6, 2e-6) | st.floats(-5e-4, 5e-4)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    angles=st.tuples(*[st.sampled_from((0.0, 1.0, 90.0, 180.0)) | st.floats(-180, 180)] * 3),
    sizes=st.tuples(*[st.floats(0.1, 9)] * 3),
    offset=st.tuples(*[st.floats(-500, 500) | st.floats(-5e5, 5e5)] * 3),
    shears=st.tuples(SHEARS, SHEARS, SHEARS) | st.tuples(st.floats(5e-4, 9.9e-4), st.just(0.0), st.just(0.0)),
)
@example(
    angles=(0.0, 4.0, 15.346728559),
    sizes=(3.515245, 4.585469, 8.379157),
    offset=(-267.0, 225.5, -16.2),
    shears=(0, 0, 0),
)
def test_paths_nibabel_and_simpleitk_agree_about_results(tmp_path: Path, angles, sizes, offset, shears) -> None:
    """Random matrices, sheared as little as headers are: all readers have the same corners, and so have all results."""
    triangle = np.eye(3)
    triangle[0, 1], triangle[0, 2], triangle[1, 2] = shears
    matrix = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ triangle * np.array(sizes)
    path = write_nifti(tmp_path / "a.nii", VOXELS, sform_code=1, srow=np.column_stack([matrix, offset]).ravel())
    scan = nibabel.load(path)
    expected = corners_by_nibabel(scan)
    by_path, by_nibabel = read_image((path,)).geometry, convert_to_volume(scan, None, None)
    by_sitk = convert_to_volume(sitk_image_of(scan.affine), None, None)
    for geometry in (by_path, by_nibabel.volume.geometry, by_sitk.volume.geometry):
        assert np.abs(corners(geometry) - expected).max() < 1e-6
    label = VOXELS.T.astype(np.uint8)
    assert np.abs(corners_by_sitk(by_sitk.give_back(Volume(array=label, geometry=by_path))) - expected).max() < 1e-6
    given_back = by_nibabel.give_back(Volume(array=label, geometry=by_nibabel.volume.geometry))
    assert np.abs(corners_by_nibabel(given_back) - expected).max() < 1e-6
    for geometry in (by_path, by_sitk.volume.geometry):
        for ending in (".nii.gz", ".nrrd", ".mha"):
            result = tmp_path / f"mask{ending}"
            write_label_map(result, Volume(array=label, geometry=geometry))
            assert np.abs(corners(read_label_map(result).geometry) - expected).max() < 1e-6
            other = nibabel.load(result) if ending == ".nii.gz" else sitk.ReadImage(str(result))
            by_other = corners_by_nibabel(other) if ending == ".nii.gz" else corners_by_sitk(other)
            assert np.abs(by_other - expected).max() < 1e-6


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (1, 1, -1)], ids=str)
def test_results_on_turned_grids_have_both_matrices(tmp_path: Path, flips: tuple[int, int, int]) -> None:
    """Of images that are no NIfTI files; a shear, which a qform cannot hold, stays without one."""
    turn = Rotation.from_euler("xyz", (10, 170, -75), degrees=True).as_matrix() * np.array(flips)
    for shear, code in ((0.0, 1), (5e-4, 0)):
        affine = np.eye(4)
        affine[:3] = np.column_stack([turn @ [[1, shear, 0], [0, 1, 0], [0, 0, 1]] * (0.5, 1.5, 3), (5e4, -7, 0.25)])
        geometry = convert_to_volume(sitk_image_of(affine), None, None).volume.geometry
        write_label_map(tmp_path / "mask.nii.gz", Volume(array=VOXELS.T.astype(int), geometry=geometry))
        result = nibabel.load(tmp_path / "mask.nii.gz")
        assert np.allclose(result.get_sform(), affine, rtol=1e-7, atol=1e-7)
        assert result.header["qform_code"] == code
        assert result.header.get_xyzt_units()[0] == "mm"
        if code:
            assert np.allclose(result.get_qform(), affine, rtol=1e-6, atol=2e-6)


UNUSABLE = {
    "not finite": [NAN, *SFORM[1:]],
    "nothing": [0] * 12,
    "an axis of no length": [-1, 0, 0, 10, 0, 0, 0, 20, 0, 0, 2, -30],
    "a shear that means something": [-1, 0.3, 0, 10, 0, -1, 0, 20, 0, 0, 2, -30],
}


@pytest.mark.parametrize("sform", UNUSABLE.values(), ids=UNUSABLE)
def test_the_qform_counts_where_the_sform_cannot(tmp_path: Path, sform: list[float]) -> None:
    """It is the place that the scanner gave; the result takes over both all the same."""
    path = write_nifti(tmp_path / "a.nii", VOXELS, sform_code=1, qform_code=1, srow=sform, **QFORM)
    geometry = read_image((path,)).geometry
    assert geometry.spacing_mm == (2, 1, 1)
    assert np.allclose(corners(geometry)[0], (1, 2, 3))


def test_sizes_count_where_no_matrix_holds_anything(tmp_path: Path) -> None:
    """The first voxel lies at 0, and the axes are those of the patient; the codes stay 0."""
    path = write_nifti(tmp_path / "a.nii", VOXELS, srow=SFORM, **QFORM)
    geometry = read_image((path,)).geometry
    assert geometry == Geometry(shape=(4, 3, 2), spacing_mm=(2, 1, 1))
    write_image(tmp_path / "b.nii", Volume(array=np.ones((1, 4, 3, 2), np.float32), geometry=geometry))
    header = nibabel.load(tmp_path / "b.nii").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (0, 0)


def test_shear_is_named_with_its_degrees(tmp_path: Path) -> None:
    """Whatever kind of image it is, with the way out; for NIfTI only if there is no other matrix."""
    tilted = [1, 0, 0, 0, 0, 1, np.tan(np.radians(12)), 0, 0, 0, 1, 0]
    path = write_nifti(tmp_path / "a.nii", VOXELS, sform_code=1, srow=tilted)
    image = sitk_image_of(nibabel.load(path).affine)
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"))
    sitk.WriteImage(image, str(tmp_path / "a.mha"))
    said = r"its axes are 12 degrees off right angles, as a tilted gantry leaves them; resample .* 'autoseg straighten'"
    for name in ("a.nii", "a.nrrd", "a.mha"):
        with pytest.raises(ImageError, match=rf"{name}: {said}"):
            read_image((tmp_path / name,))
        with pytest.raises(ImageError, match=rf"{name}: {said}"):
            convert_image(tmp_path / name, (tmp_path / "b.nii.gz",))
    for other, kind in ((nibabel.load(path), "nibabel"), (image, "SimpleITK")):
        with pytest.raises(ImageError, match=rf"the image of {kind}: {said}"):
            convert_to_volume(other, None, None)


def test_compression_is_seen_whatever_the_name_says(tmp_path: Path) -> None:
    """A compressed file without its ending, and the other way round."""
    for name, packed in (("a.nii", True), ("b.nii.gz", False)):
        path = write_nifti(tmp_path / name, VOXELS, packed=packed, sform_code=1, srow=SFORM)
        assert np.array_equal(read_image((path,)).array[0], VOXELS.T)
        assert read_grid(path) == ((4, 3, 2), (2.0, 1.0, 1.0))


def test_masks_belong_to_a_scan_by_either_matrix(tmp_path: Path) -> None:
    """One program takes the sform of the scan for the mask, another one the qform; a third place is none of them."""
    fields = {"sform_code": 2, "qform_code": 1, "srow": SFORM, **QFORM}
    scan = read_image((write_nifti(tmp_path / "scan.nii", VOXELS, **fields),)).geometry
    mask = (VOXELS > 5).astype(np.uint8)
    by_sform = write_nifti(tmp_path / "sform.nii", mask, sform_code=2, srow=SFORM)
    by_qform = write_nifti(tmp_path / "qform.nii", mask, qform_code=1, **QFORM)
    elsewhere = write_nifti(tmp_path / "elsewhere.nii", mask, sform_code=1, srow=[*SFORM[:3], 15, *SFORM[4:]])
    assert describe_difference(scan, read_label_map(by_sform).geometry) is None
    assert describe_difference(scan, read_label_map(by_qform).geometry) is None
    assert "first voxel" in str(describe_difference(scan, read_label_map(elsewhere).geometry))


def test_series_and_their_channels_lie_where_the_series_does(tmp_path: Path) -> None:
    """By the rule as well, when they are split into files."""
    series = np.stack([VOXELS, VOXELS + 1], axis=-1)
    path = write_nifti(tmp_path / "a.nii", series, sform_code=2, qform_code=1, srow=SFORM, **QFORM)
    assert channels_in(path) == 2
    assert is_series(path)
    convert_image(path, (tmp_path / "0.nii.gz", tmp_path / "1.nrrd"))
    for name in ("0.nii.gz", "1.nrrd"):
        assert np.allclose(corners(read_image((tmp_path / name,)).geometry)[0], (10, 20, -30))
    assert np.allclose(nibabel.load(tmp_path / "0.nii.gz").get_qform()[:3, 3], (1, 2, 3))


@pytest.mark.parametrize("fields", [{"vox_offset": NAN}, {"vox_offset": float("inf")}, {"vox_offset": -7e9}])
def test_nonsense_about_voxels_is_damage(tmp_path: Path, fields: dict[str, float]) -> None:
    """It neither ends the program nor takes its memory."""
    path = write_nifti(tmp_path / "a.nii", VOXELS, sform_code=1, srow=SFORM, **fields)
    with pytest.raises(ImageError, match=r"is damaged: its header says of its voxels what cannot be"):
        read_image((path,))


def test_grid_that_was_moved_is_written_where_it_is(tmp_path: Path) -> None:
    """The header of the scan is taken over only by results that lie where it says."""
    fields = {"sform_code": 2, "qform_code": 1, "srow": SFORM, **QFORM}
    volume = read_image((write_nifti(tmp_path / "scan.nii", VOXELS, **fields),))
    for changes in ({"origin_mm": (0.0, 5.0, 0.0)}, {"spacing_mm": (2.0, 1.0, 3.0)}):
        moved = replace(volume.geometry, **changes)
        write_image(tmp_path / "moved.nii.gz", Volume(array=volume.array, geometry=moved))
        assert np.allclose(corners_by_nibabel(nibabel.load(tmp_path / "moved.nii.gz")), corners(moved))
    cropped = volume.crop(Box(start=(1, 0, 0), stop=(3, 3, 2)))
    write_image(tmp_path / "cropped.nii.gz", cropped)
    assert np.allclose(corners_by_nibabel(nibabel.load(tmp_path / "cropped.nii.gz"))[0], (10, 20, -28))


@pytest.mark.parametrize(("units", "mm"), [(1, 1000.0), (2, 1.0), (3, 0.001), (0, 1.0)])
@pytest.mark.parametrize("fields", [{"version": 1}, {"version": 2}, {"packed": True}], ids=str)
def test_sizes_alone_have_the_unit_of_the_header(tmp_path: Path, units: int, mm: float, fields: dict) -> None:
    """Also where the file is read as a copy."""
    path = write_nifti(tmp_path / "a.nii", VOXELS, xyzt_units=units, **fields)
    assert read_image((path,)).geometry.spacing_mm == pytest.approx((2 * mm, mm, mm))
    assert read_grid(path)[1] == pytest.approx((2 * mm, mm, mm))
