"""Medical image files: what is written is read, and what cannot be trusted is refused."""

import gzip
import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from phantoms import blocks, noise, place, write_picture
from scipy.spatial.transform import Rotation

from autoseg.errors import ArtifactError, ImageError
from autoseg.imaging.formats import READABLE_ENDINGS
from autoseg.imaging.geometry import Geometry, Shape, Volume
from autoseg.imaging.image_files import (
    convert_image,
    read_image,
    read_label_map,
    write_image,
    write_label_map,
    write_probabilities,
)
from autoseg.imaging.image_headers import channels_in, read_grid
from autoseg.imaging.sitk_conversion import from_sitk, to_sitk

VOLUME_ENDINGS = [".nii.gz", ".nii", ".nrrd", ".mha"]
STRAIGHT_ENDINGS = [".gipl", ".tif", ".tiff"]  # formats that know no direction


def oblique(shape: Shape, degrees: tuple[float, float, float] = (10.0, -25.0, 40.0)) -> Geometry:
    """A grid that is turned about all axes."""
    matrix = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    return Geometry(
        shape=shape,
        spacing_mm=(2.5, 0.7, 1.25),
        origin_mm=(-100.0, 55.5, 7.25),
        direction=tuple(tuple(map(float, row)) for row in matrix),
    )


def plane(shape: tuple[int, int]) -> Geometry:
    """The grid of a picture."""
    return Geometry(shape=(1, *shape), spacing_mm=(1.0, 1.0, 1.0), dimensions=2)


def random_labels(shape: Shape, highest: int = 3, seed: int = 0) -> NDArray[np.int32]:
    """A label map that uses its highest label."""
    labels = np.random.default_rng(seed).integers(0, highest + 1, shape).astype(np.int32)
    labels[0, 0, 0] = highest
    return labels


def write_array(path: Path, array: NDArray[np.generic], *, is_vector: bool = False) -> Path:
    """Writes an array as it is."""
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=is_vector), str(path))
    return path


def leftovers(folder: Path) -> list[Path]:
    """Files that a failed write left behind."""
    return [path for path in folder.rglob("*") if "writing" in str(path.relative_to(folder))]


@pytest.mark.parametrize("ending", VOLUME_ENDINGS)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    degrees=st.tuples(*[st.floats(-170, 170)] * 3),
    highest=st.sampled_from([1, 255, 256, 65535]),
)
def test_label_maps_survive_the_disk(
    tmp_path: Path, ending: str, shape: Shape, degrees: tuple[float, float, float], highest: int
) -> None:
    """Labels come back exactly, and the grid up to the rounding of headers."""
    volume = Volume(array=random_labels(shape, highest), geometry=oblique(shape, degrees))
    path = tmp_path / f"label{ending}"
    write_label_map(path, volume)
    result = read_label_map(path)
    np.testing.assert_array_equal(result.array, volume.array)
    assert result.array.dtype == np.int32
    assert volume.geometry.difference(result.geometry) is None
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("ending", "dimensions"), [*((ending, 3) for ending in VOLUME_ENDINGS), (".png", 2)])
def test_probabilities_are_written_in_8_bit(tmp_path: Path, ending: str, dimensions: int) -> None:
    """0 to 255 for 0 to 1, each to the nearest, in the place of the scan; the map itself is left as it is."""
    array = np.linspace(0, 1, 60, dtype=np.float32).reshape(1, 6, 10)
    geometry = plane((6, 10)) if dimensions == 2 else oblique((1, 6, 10))
    path = tmp_path / f"map{ending}"
    write_probabilities(path, Volume(array=array, geometry=geometry))
    image = sitk.ReadImage(str(path))
    assert image.GetPixelID() == sitk.sitkUInt8
    assert image.GetDimension() == dimensions
    result = read_image((path,))
    assert (result.array.min(), result.array.max()) == (0, 255)
    assert np.abs(result.array[0] / 255 - array).max() <= 0.5 / 255 + 1e-6
    assert geometry.difference(result.geometry) is None
    np.testing.assert_array_equal(array, np.linspace(0, 1, 60, dtype=np.float32).reshape(1, 6, 10))


@pytest.mark.parametrize("ending", VOLUME_ENDINGS)
def test_images_survive_the_disk(tmp_path: Path, ending: str) -> None:
    """Channels come back in order, as 32-bit floats, with their place in space."""
    geometry = oblique((3, 4, 5))
    channels = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    paths = (tmp_path / f"a_0000{ending}", tmp_path / f"a_0001{ending}")
    for path, channel in zip(paths, channels, strict=True):
        write_image(path, Volume(array=channel[np.newaxis], geometry=geometry))
    result = read_image(paths)
    np.testing.assert_array_equal(result.array, channels)
    assert result.array.dtype == np.float32
    assert geometry.difference(result.geometry) is None


def test_a_voxel_lies_where_simpleitk_says() -> None:
    """The axes are reversed once: physical points agree with ITK's own, read in the order z, y, x."""
    label = random_labels((3, 4, 5))
    image = to_sitk(Volume(array=label, geometry=oblique((3, 4, 5))))
    geometry = from_sitk(image).geometry
    for z, y, x in [(0, 0, 0), (2, 3, 4), (1, 0, 3)]:
        offset = np.asarray(geometry.direction) @ (np.array([z, y, x]) * geometry.spacing_mm)
        expected = image.TransformIndexToPhysicalPoint((x, y, z))[::-1]
        np.testing.assert_allclose(geometry.origin_mm + offset, expected, atol=1e-9)
        assert image[x, y, z] == label[z, y, x]


@pytest.mark.parametrize("ending", [".png", ".bmp", ".nii.gz", ".nrrd", ".mha"])
def test_planes_survive_the_disk(tmp_path: Path, ending: str) -> None:
    """A 2D label map has one slice and is written as a plane again."""
    volume = Volume(array=random_labels((1, 7, 9), 200), geometry=plane((7, 9)))
    path = tmp_path / f"plane{ending}"
    write_label_map(path, volume)
    result = read_label_map(path)
    np.testing.assert_array_equal(result.array, volume.array)
    assert result.geometry == volume.geometry
    assert sitk.ReadImage(str(path)).GetDimension() == 2


def test_the_slice_distance_of_a_plane_is_its_larger_pixel() -> None:
    """It is not known, and must not look finer than the plane."""
    image = sitk.Image([5, 4], sitk.sitkUInt8)
    image.SetSpacing((0.5, 2.0))
    assert from_sitk(image).geometry.spacing_mm == (2.0, 2.0, 0.5)


@pytest.mark.parametrize(("components", "channels"), [(1, 1), (3, 3), (4, 3)])
def test_pictures_give_their_colours_without_transparency(tmp_path: Path, components: int, channels: int) -> None:
    """Grey, RGB and RGBA."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, components)).astype(np.uint8)
    path = tmp_path / "a.png"
    write_picture(path, pixels[..., 0] if components == 1 else pixels)
    result = read_image((path,))
    np.testing.assert_array_equal(result.array[:, 0], np.moveaxis(pixels, -1, 0)[:channels])
    assert result.geometry.dimensions == 2
    assert channels_in(path) == channels


def test_a_colour_label_map_is_refused_unless_it_is_grey(tmp_path: Path) -> None:
    """Equal colours are one channel saved three times."""
    grey = np.repeat(random_labels((6, 8, 1)).astype(np.uint8), 3, axis=2)
    write_picture(tmp_path / "a.png", grey)
    np.testing.assert_array_equal(read_label_map(tmp_path / "a.png").array[0], grey[..., 0])
    grey[0, 0, 1] += 1
    write_picture(tmp_path / "a.png", grey)
    with pytest.raises(ImageError, match=r"one channel, not 3"):
        read_label_map(tmp_path / "a.png")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """Reading and converting say which path does not exist; a folder is no image either."""
    (tmp_path / "folder.nii.gz").mkdir()
    for name, what in (("missing.nii.gz", "does not exist"), ("folder.nii.gz", "is a folder")):
        path = tmp_path / name
        with pytest.raises(ImageError, match=rf"{name} {what}"):
            read_image((path,))
        with pytest.raises(ImageError, match=rf"{name} {what}"):
            read_label_map(path)
        with pytest.raises(ImageError, match=rf"{name} {what}"):
            convert_image(path, (tmp_path / "to.nii.gz",))


@pytest.mark.parametrize("content", [b"", b"these are words", b"\x1f\x8b and so on", bytes(400)])
@pytest.mark.parametrize("ending", [*VOLUME_ENDINGS, ".png"])
def test_files_that_are_no_images_are_refused(tmp_path: Path, ending: str, content: bytes) -> None:
    """Whatever the ending promises."""
    path = tmp_path / f"text{ending}"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=rf"text{ending} "):
        read_image((path,))


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("ending", [*VOLUME_ENDINGS, ".png"])
def test_a_file_that_was_cut_off_is_refused(tmp_path: Path, ending: str, share: float) -> None:
    """An interrupted copy is never read as an image with zeros at its end."""
    path = tmp_path / f"cut{ending}"
    if ending == ".png":
        write_picture(path, noise(0, (40, 50)).astype(np.uint8))
    else:
        write_image(path, place(noise(0, (1, 10, 20, 20))))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ImageError, match=rf"cut{ending} .*cut off"):
        read_image((path,))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_voxels_that_are_no_numbers_are_counted_and_refused(tmp_path: Path, ending: str, value: float) -> None:
    """NaN, infinity, and what 32 bit cannot hold."""
    array = np.ones((3, 4, 5))
    array[1, 2, 2:4] = value
    path = write_array(tmp_path / f"a{ending}", array)
    with pytest.raises(ImageError, match=r"voxels that are NaN or infinite: 2"):
        read_image((path,))


SERIES = np.arange(2 * 3 * 4 * 5, dtype=np.int16).reshape(2, 3, 4, 5)  # (c, z, y, x)


def write_channels(path: Path, layout: str) -> None:
    """Writes `SERIES` as nibabel does, as the components of a vector, or as a fourth dimension."""
    if layout.startswith("nibabel"):
        voxels = SERIES.transpose(3, 2, 1, 0)
        voxels = voxels[:, :, :, np.newaxis] if layout == "nibabel, fifth axis" else voxels
        nibabel.save(nibabel.Nifti1Image(voxels, np.diag([-1, -1, 2, 1])), path)
        return
    channels = [sitk.GetImageFromArray(channel) for channel in SERIES]
    for channel in channels:
        channel.SetSpacing((1, 1, 2))
    sitk.WriteImage(sitk.JoinSeries(channels) if layout == "series" else sitk.Compose(channels), str(path))


def write_list_nrrd(path: Path) -> None:
    """Writes `SERIES` as an NRRD whose last axis is a list."""
    header = (
        "NRRD0004\ntype: short\ndimension: 4\nspace: left-posterior-superior\nsizes: 5 4 3 2\n"
        "space directions: (1,0,0) (0,1,0) (0,0,2) none\nkinds: domain domain domain list\nendian: little\n"
        "encoding: raw\nspace origin: (0,0,0)\n\n"
    )
    path.write_bytes(header.encode() + SERIES.astype("<i2").tobytes())


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
@pytest.mark.parametrize("layout", ["series", "vector", "nibabel", "nibabel, fifth axis", "list"])
def test_several_volumes_are_channels(tmp_path: Path, layout: str, ending: str) -> None:
    """Whatever a format calls them, they are read as import splits them."""
    path = tmp_path / f"a{ending}"
    if layout.startswith("nibabel") and not ending.startswith(".nii"):
        pytest.skip("nibabel writes NIfTI only")
    if layout == "list":
        path = tmp_path / "a.nrrd"
        write_list_nrrd(path)
    else:
        write_channels(path, layout)
    volume = read_image((path,))
    assert np.array_equal(volume.array, SERIES)
    assert volume.geometry == Geometry(shape=(3, 4, 5), spacing_mm=(2, 1, 1))
    assert channels_in(path) == 2
    convert_image(path, (tmp_path / "0.nii.gz", tmp_path / "1.mha"))
    for number, name in enumerate(("0.nii.gz", "1.mha")):
        part = read_image((tmp_path / name,))
        assert np.array_equal(part.array[0], SERIES[number])
        assert part.geometry == volume.geometry


def test_several_volumes_of_several_values_are_refused(tmp_path: Path) -> None:
    """It cannot be known which of them are the channels."""
    nibabel.save(nibabel.Nifti1Image(np.zeros((2, 3, 4, 2, 3), np.uint8), np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(ImageError, match=r"a\.nii: its voxels have 5 dimensions, of sizes \(2, 3, 4, 2, 3\)"):
        read_image((tmp_path / "a.nii",))


def test_complex_voxels_are_refused(tmp_path: Path) -> None:
    """Raw MR data has two parts, of which none may be dropped silently."""
    path = tmp_path / "raw.nii.gz"
    sitk.WriteImage(sitk.Image([5, 4, 3], sitk.sitkComplexFloat32), str(path))
    for read in (lambda: read_image((path,)), lambda: read_label_map(path)):
        with pytest.raises(ImageError, match=r"complex"):
            read()


def test_axes_that_are_not_at_right_angles_are_named(tmp_path: Path) -> None:
    """A sheared NIfTI file is not called damaged."""
    path = tmp_path / "sheared.nii.gz"
    write_label_map(path, place(blocks()))
    header = bytearray(gzip.decompress(path.read_bytes()))
    affine = np.array(struct.unpack_from("<12f", header, 280)).reshape(3, 4)
    affine[0, 1] += 0.3
    struct.pack_into("<12f", header, 280, *affine.ravel())
    struct.pack_into("<h", header, 252, 0)  # no quaternion: the affine matrix counts
    path.write_bytes(gzip.compress(bytes(header)))
    with pytest.raises(ImageError, match=r"17 degrees off right angles"):
        read_label_map(path)


def test_float_label_maps_must_hold_whole_numbers(tmp_path: Path) -> None:
    """Whole floats are labels; fractions come from interpolation and are refused with their value."""
    labels = random_labels((3, 4, 5)).astype(np.float32)
    path = write_array(tmp_path / "a.nrrd", labels)
    np.testing.assert_array_equal(read_label_map(path).array, labels)
    for value, problem in ((1.5, r"voxel value 1\.5 is no label"), (np.nan, "NaN or infinite: 1")):
        labels[1, 1, 1] = value
        write_array(path, labels)
        with pytest.raises(ImageError, match=problem):
            read_label_map(path)


@pytest.mark.parametrize("array", [np.full((2, 2, 2), 2**40, np.uint64), np.full((2, 2, 2), -3e9, np.float32)])
def test_numbers_beyond_32_bit_are_no_labels(tmp_path: Path, array: NDArray[np.generic]) -> None:
    """They would wrap around to other labels."""
    path = write_array(tmp_path / "a.nrrd", array)
    with pytest.raises(ImageError, match=rf"voxel value {int(array.flat[0])} is no label"):
        read_label_map(path)


@pytest.mark.parametrize("value", [-1, 65536])
def test_only_labels_are_written(tmp_path: Path, value: int) -> None:
    """Values that do not fit into 16 bit are refused instead of wrapping around."""
    labels = blocks()
    labels[0, 0, 0] = value
    with pytest.raises(ImageError, match=str(value)):
        write_label_map(tmp_path / "a.nii.gz", place(labels))
    assert list(tmp_path.iterdir()) == []


def test_channels_on_different_grids_are_refused(tmp_path: Path) -> None:
    """Both files and the difference are named; rounding in a header is no difference."""
    paths = tmp_path / "a_0000.nii.gz", tmp_path / "a_0001.nii.gz"
    write_image(paths[0], place(noise(0)[np.newaxis]))
    write_image(paths[1], place(noise(1)[np.newaxis], spacing_mm=(2.5001, 1.0, 0.8)))
    assert read_image(paths).array.shape[0] == 2
    write_image(paths[1], place(noise(1)[np.newaxis], spacing_mm=(2.6, 1.0, 0.8)))
    with pytest.raises(ImageError, match=r"a_0000.*a_0001.*spacing 0\.8 x 1 x 2\.5 differs from 0\.8 x 1 x 2\.6 mm"):
        read_image(paths)


def test_an_unwritable_folder_is_an_error_of_the_user(tmp_path: Path) -> None:
    """A file in place of the folder is named, and nothing is left behind."""
    (tmp_path / "folder").write_text("a file")
    with pytest.raises(ArtifactError, match=r"cannot write .*folder"):
        write_label_map(tmp_path / "folder" / "a.nii.gz", place(blocks()))
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.foo", r"no image format"),
        ("a", r"no image format"),
        ("a.png", r"one slice, not 6"),
        ("a.jpg", r"JPEG would change labels"),
        ("a.mhd", r"two files"),
        ("a.nhdr", r"two files"),
    ],
)
def test_formats_that_cannot_hold_the_result_are_refused(tmp_path: Path, name: str, text: str) -> None:
    """An existing file stays as it was, and nothing is left behind."""
    (tmp_path / name).write_text("earlier")
    with pytest.raises(ImageError, match=text):
        write_label_map(tmp_path / name, place(blocks()))
    assert [path.name for path in tmp_path.rglob("*")] == [name]
    assert (tmp_path / name).read_text() == "earlier"


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up half-way leaves the earlier file alone."""
    path = tmp_path / "a.nrrd"
    write_label_map(path, place(blocks()))
    before = path.read_bytes()

    def fill_disk(image: sitk.Image, name: str, **options: bool) -> None:
        Path(name).write_bytes(b"half")
        raise RuntimeError("no space left on device")

    monkeypatch.setattr(sitk, "WriteImage", fill_disk)
    with pytest.raises(ImageError, match=r"cannot write .*a\.nrrd"):
        write_label_map(path, place(blocks((0, 2))))
    assert list(tmp_path.rglob("*")) == [path]
    assert path.read_bytes() == before


def test_missing_folders_are_made(tmp_path: Path) -> None:
    """The folder of a new result is made."""
    write_label_map(tmp_path / "new" / "newer" / "a.nrrd", place(blocks()))
    assert read_label_map(tmp_path / "new" / "newer" / "a.nrrd").array.shape == blocks().shape


@pytest.mark.parametrize(("source", "target"), [("a.mha", "b.nii.gz"), ("a.png", "b.png"), ("a.nrrd", "b.mha")])
def test_converting_keeps_voxels_and_place(tmp_path: Path, source: str, target: str) -> None:
    """The number type stays too."""
    if source.endswith(".png"):
        write_picture(tmp_path / source, noise(0, (9, 8)).astype(np.uint8))
    else:
        write_label_map(tmp_path / source, Volume(array=random_labels((3, 4, 5), 999), geometry=oblique((3, 4, 5))))
    convert_image(tmp_path / source, (tmp_path / target,))
    before, after = sitk.ReadImage(str(tmp_path / source)), sitk.ReadImage(str(tmp_path / target))
    assert before.GetPixelID() == after.GetPixelID()
    one, other = from_sitk(before), from_sitk(after)
    np.testing.assert_array_equal(one.array, other.array)
    assert one.geometry.difference(other.geometry) is None


def test_converting_splits_a_series_into_channels(tmp_path: Path) -> None:
    """One file per channel of a fourth dimension, or of colours; another number of files is refused."""
    series = sitk.JoinSeries([sitk.GetImageFromArray(noise(seed)) for seed in range(3)])
    sitk.WriteImage(series, str(tmp_path / "series.nii.gz"))
    assert channels_in(tmp_path / "series.nii.gz") == 3
    targets = tuple(tmp_path / f"a_{channel:04d}.nii.gz" for channel in range(3))
    convert_image(tmp_path / "series.nii.gz", targets)
    np.testing.assert_array_equal(read_image(targets).array, [noise(seed) for seed in range(3)])
    with pytest.raises(ImageError, match=r"holds 3 channels, not 2"):
        convert_image(tmp_path / "series.nii.gz", targets[:2])
    write_picture(tmp_path / "a.png", np.dstack([noise(seed, (9, 8)).astype(np.uint8) for seed in range(3)]))
    pictures = tuple(tmp_path / f"b_{channel:04d}.png" for channel in range(3))
    convert_image(tmp_path / "a.png", pictures)
    np.testing.assert_array_equal(read_image(pictures).array, read_image((tmp_path / "a.png",)).array)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("ending", STRAIGHT_ENDINGS)
def test_formats_without_a_direction_keep_labels_and_spacing(tmp_path: Path, ending: str) -> None:
    """A volume comes back as it was written, from a TIFF by means of the spacing file beside it."""
    volume = place(blocks((0, 1, 300)), spacing_mm=(2.5, 0.7, 1.25))
    write_label_map(tmp_path / f"a{ending}", volume)
    result = read_label_map(tmp_path / f"a{ending}")
    np.testing.assert_array_equal(result.array, volume.array)
    assert volume.geometry.difference(result.geometry) is None
    assert {path.name for path in tmp_path.iterdir()} == {f"a{ending}"} | ({"a.json"} if ending != ".gipl" else set())


def test_a_volume_in_a_tiff_may_become_another_format(tmp_path: Path) -> None:
    """It gets the spacing of the spacing file, whose name lacks the channel number."""
    sitk.WriteImage(sitk.GetImageFromArray(noise(0).astype(np.uint16)), str(tmp_path / "a_0000.tif"))
    (tmp_path / "a.json").write_text('{"spacing": [5, 0.5, 0.25]}')
    convert_image(tmp_path / "a_0000.tif", (tmp_path / "b.nii.gz",))
    result = read_image((tmp_path / "b.nii.gz",))
    np.testing.assert_array_equal(result.array[0], noise(0))
    assert result.geometry.spacing_mm == (5, 0.5, 0.25)


@pytest.mark.parametrize("ending", [ending for ending in READABLE_ENDINGS if ending not in (".jpg", ".jpeg")])
@pytest.mark.parametrize("change", [str.upper, str.title], ids=["capitals", "mixed"])
def test_endings_are_read_in_any_letters(tmp_path, ending, change):
    """Windows and scanners write them in capitals, and ITK knows some in lower case only."""
    array = np.arange(48, dtype=np.uint8).reshape((6, 8) if ending in (".png", ".bmp") else (2, 4, 6))
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / f"a{ending}"))
    path = (tmp_path / f"a{ending}").rename(tmp_path / f"b{change(ending)}")
    assert read_image((path,)).array[0].ravel().tolist() == array.ravel().tolist()
    assert read_grid(path)[0][-2:] == array.shape[-2:]
    assert channels_in(path) == 1


def test_grids_are_read_from_headers(tmp_path: Path) -> None:
    """A volume in the order of arrays, a plane as one slice, and several volumes as the first of them."""
    geometry = oblique((3, 4, 5))
    write_image(tmp_path / "volume.nii.gz", Volume(array=np.zeros((1, 3, 4, 5), np.float32), geometry=geometry))
    shape, spacing_mm = read_grid(tmp_path / "volume.nii.gz")
    assert shape == (3, 4, 5)
    assert spacing_mm == pytest.approx(geometry.spacing_mm, rel=1e-5)
    write_picture(tmp_path / "plane.png", np.zeros((6, 7), np.uint8))
    assert read_grid(tmp_path / "plane.png") == ((1, 6, 7), (1.0, 1.0, 1.0))
    series = write_array(tmp_path / "series.nii.gz", np.zeros((2, 3, 4, 5), np.float32))
    assert read_grid(series)[0] == (3, 4, 5)
    with pytest.raises(ImageError, match="does not exist"):
        read_grid(tmp_path / "missing.nii.gz")
