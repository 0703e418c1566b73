"""TIFF files in all their layouts: read as tifffile, which wrote them, says; or refused by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from numpy.typing import NDArray
from phantoms import noise
from PIL import Image, TiffImagePlugin

from autoseg.errors import ImageError
from autoseg.imaging.affine_geometry import describe_difference
from autoseg.imaging.geometry import Geometry, Volume
from autoseg.imaging.image_files import convert_image, read_image, read_label_map, write_image, write_label_map
from autoseg.imaging.image_headers import channels_in, count_volumes, read_grid
from autoseg.imaging.pictures.files import open_picture
from autoseg.imaging.pictures.spacing_file import find_spacing_file, read_spacing, write_spacing

UM = {"unit": "um", "spacing": 2.0}


def numbers(shape: tuple[int, ...], dtype: Any = np.uint8, seed: int = 0) -> NDArray[Any]:
    """Random numbers of a type."""
    values = np.random.default_rng(seed).integers(0, 200, shape)
    return (values - 100 if np.dtype(dtype).kind in "if" else values).astype(dtype)


def write(path: Path, array: NDArray[Any], **options: Any) -> Path:
    """Writes a TIFF by tifffile."""
    tifffile.imwrite(path, array, **options)
    return path


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize(
    "dtype", ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"], ids=lambda name: name
)
def test_all_types_of_numbers(tmp_path: Path, dtype: str, bigtiff: bool, byteorder: Any) -> None:
    """Signed or not, whole or not, 8 to 64 bits, either order of bytes, BigTIFF."""
    array = numbers((3, 7, 9), dtype)
    path = write(tmp_path / "a.tif", array, bigtiff=bigtiff, byteorder=byteorder, photometric="minisblack")
    result = read_image((path,))
    np.testing.assert_array_equal(result.array[0], array.astype(np.float32))
    assert read_grid(path)[0] == (3, 7, 9)
    convert_image(path, (tmp_path / "b.nii.gz",))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "b.nii.gz"))), array)


@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("planar", [None, "separate"])
@pytest.mark.parametrize("compression", [None, "zlib", "lzma"])
@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_colours_in_all_layouts(
    tmp_path: Path, dtype: str, compression: str | None, planar: str | None, tile: tuple[int, int] | None
) -> None:
    """Strips and tiles, samples together or apart, 8 and 16 bits, with transparency that is no channel."""
    array = numbers((30, 37, 4), dtype)
    stored = np.ascontiguousarray(array.transpose(2, 0, 1)) if planar else array
    options = {"planarconfig": planar} if planar else {}
    path = tmp_path / "a.tif"
    write(path, stored, photometric="rgb", extrasamples=["unassalpha"], compression=compression, tile=tile, **options)
    np.testing.assert_array_equal(read_image((path,)).array[:, 0], array.transpose(2, 0, 1)[:3])
    picture = open_picture(path)
    assert (picture.channels, picture.bits, picture.has_colours) == (3, 8 * array.itemsize, True)


def save_by_libtiff(path: Path, array: NDArray[Any], compression: str, **tags: int) -> None:
    """Writes a TIFF by libtiff, which compresses in ways that tifffile alone does not."""
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    for code, value in tags.items():
        directory[int(code[1:])] = value
    Image.fromarray(array).save(path, compression=compression, tiffinfo=directory)


@pytest.mark.parametrize("predictor", [1, 2])
@pytest.mark.parametrize("rows", [5, 64])
@pytest.mark.parametrize("dtype", ["u1", "u2", "i4", "rgb"])
def test_lzw(tmp_path: Path, dtype: str, rows: int, predictor: int) -> None:
    """The usual compression of microscopes, as libtiff writes it: a strip or several, with and without predictor."""
    shape, dtype = ((33, 40, 3), "u1") if dtype == "rgb" else ((33, 40), dtype)
    array = numbers(shape, dtype)
    save_by_libtiff(tmp_path / "a.tif", array, "tiff_lzw", t317=predictor, t278=rows)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert (tiff.pages[0].compression, tiff.pages[0].predictor) == (5, predictor)
    planes = np.moveaxis(array, -1, 0) if array.ndim == 3 else array[np.newaxis]
    np.testing.assert_array_equal(read_image((tmp_path / "a.tif",)).array[:, 0], planes)


@pytest.mark.parametrize(
    "array", [numbers((20, 30)), numbers((20, 30), "u2"), numbers((20, 30, 3))], ids=["8", "16", "rgb"]
)
def test_packbits(tmp_path: Path, array: NDArray[Any]) -> None:
    """Runs of equal bytes, as ITK compresses."""
    save_by_libtiff(tmp_path / "a.tif", array, "packbits")
    planes = np.moveaxis(array, -1, 0) if array.ndim == 3 else array[np.newaxis]
    np.testing.assert_array_equal(read_image((tmp_path / "a.tif",)).array[:, 0], planes)


def test_floats_as_differences(tmp_path: Path) -> None:
    """The predictor of floats, beneath LZW."""
    array = np.random.default_rng(0).normal(size=(20, 30)).astype(np.float32)
    save_by_libtiff(tmp_path / "a.tif", array, "tiff_lzw", t317=3)
    np.testing.assert_array_equal(read_image((tmp_path / "a.tif",)).array[0, 0], array)


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt", "raw", "tiff_lzw", "packbits"])
def test_one_bit(tmp_path: Path, compression: str) -> None:
    """Black and white become 0 and 1, as Pillow reads them."""
    array = np.kron(numbers((5, 6)) > 100, np.ones((4, 5))).astype(bool)
    save_by_libtiff(tmp_path / "a.tif", array, compression)
    with Image.open(tmp_path / "a.tif") as image:
        np.testing.assert_array_equal(np.asarray(image), array)
    np.testing.assert_array_equal(read_label_map(tmp_path / "a.tif").array[0], array)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg_in_tiff(tmp_path: Path, mode: str) -> None:
    """Grey, and colours as brightness and differences, as whole-slide scanners store them."""
    pixels = np.kron(numbers((4, 6, 3)), np.ones((8, 8, 1), np.uint8))
    Image.fromarray(pixels).convert(mode).save(tmp_path / "a.tif", compression="jpeg", quality=95)
    with Image.open(tmp_path / "a.tif") as image:
        shown = np.asarray(image)
    result = read_image((tmp_path / "a.tif",)).array[:, 0]
    planes = np.moveaxis(shown, -1, 0) if mode == "RGB" else shown[np.newaxis]
    assert np.abs(result - planes).max() <= 2


def test_jpeg_whose_samples_have_no_names(tmp_path: Path) -> None:
    """The TIFF says that they are RGB; without that, libjpeg takes them for brightness and differences."""
    pixels = np.kron(numbers((4, 6, 3)), np.ones((8, 8, 1), np.uint8))
    Image.fromarray(pixels).save(tmp_path / "a.tif", compression="jpeg", quality=95)
    before = read_image((tmp_path / "a.tif",)).array
    content = (tmp_path / "a.tif").read_bytes()
    start = content.index(b"\xff\xda")
    (tmp_path / "a.tif").write_bytes(rename(rename(content, content.index(b"\xff\xc0") + 10), start + 5, step=2))
    np.testing.assert_array_equal(read_image((tmp_path / "a.tif",)).array, before)


def rename(content: bytes, offset: int, step: int = 3) -> bytes:
    """Numbers the samples of a JPEG, which are named R, G and B at an offset."""
    changed = bytearray(content)
    assert bytes(changed[offset : offset + 3 * step : step]) == b"RGB"
    changed[offset : offset + 3 * step : step] = b"\0\1\2"
    return bytes(changed)


@pytest.mark.parametrize(("bits", "highest"), [(1, 1), (2, 3), (4, 15), (8, 255)])
def test_palettes(tmp_path: Path, bits: int, highest: int) -> None:
    """A mask gives its indices, an image the colours."""
    indices = np.random.default_rng(0).integers(0, highest + 1, (9, 16)).astype(np.uint8)
    colours = np.random.default_rng(1).integers(0, 2**16, (3, 2**bits)).astype(np.uint16)
    path = tmp_path / "a.tif"
    if bits == 8:
        write(path, indices, photometric="palette", colormap=colours)
    else:
        packed = np.packbits(np.unpackbits(indices[..., np.newaxis], axis=2)[..., 8 - bits :].reshape(9, -1), axis=1)
        write_tags(path, packed.tobytes(), bits, colours)
    np.testing.assert_array_equal(read_label_map(path).array[0], indices)
    np.testing.assert_array_equal(read_image((path,)).array[:, 0], (colours >> 8)[:, indices])


def write_tags(path: Path, pixels: bytes, bits: int, colours: NDArray[np.uint16]) -> None:
    """Writes 9 rows of 16 packed indices, with their palette."""
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    for code, value in {256: 16, 257: 9, 258: bits, 259: 1, 262: 3, 277: 1, 278: 9, 279: len(pixels)}.items():
        directory[code] = value
    directory[320] = tuple(int(value) for value in colours.ravel())
    directory[273] = 0  # counted from the end of the directory
    with path.open("wb") as file:
        directory.save(file)
        file.write(pixels)


def test_a_look_up_table_of_imagej_is_no_palette(tmp_path: Path) -> None:
    """ImageJ colours intensities for the display; they stay intensities."""
    array, colours = numbers((9, 8)), np.zeros((3, 256), np.uint16)
    colours[1] = np.arange(256) * 257
    path = write(tmp_path / "a.tif", array, imagej=True, colormap=colours)
    np.testing.assert_array_equal(read_image((path,)).array[0, 0], array)


@pytest.mark.parametrize(("imagej", "inverted"), [(False, True), (True, False)])
def test_white_as_zero_is_turned_round_but_in_imagej(tmp_path: Path, imagej: bool, inverted: bool) -> None:
    """Viewers show the brightness, and ImageJ's inverting look-up table changes the display alone."""
    array = numbers((9, 8))
    path = write(tmp_path / "a.tif", array, photometric="miniswhite", imagej=imagej)
    np.testing.assert_array_equal(read_image((path,)).array[0, 0], 255 - array if inverted else array)


def test_colours_are_divided_by_the_transparency_in_them(tmp_path: Path) -> None:
    """A colour of 100 at an opacity of a half is stored as 50."""
    array = np.array([[[50, 20, 0, 128], [7, 8, 9, 255], [0, 0, 0, 0]]], np.uint8)
    path = write(tmp_path / "a.tif", array, photometric="rgb", extrasamples=["assocalpha"])
    expected = [[100, 40, 0], [7, 8, 9], [0, 0, 0]]
    np.testing.assert_array_equal(read_image((path,)).array[:, 0, 0].T, expected)


@pytest.mark.parametrize(("alpha", "channels"), [("unassalpha", 1), ("unspecified", 2)])
def test_samples_of_grey_are_channels_unless_they_are_transparency(tmp_path: Path, alpha: str, channels: int) -> None:
    """Two dyes in one pixel are channels."""
    array = numbers((9, 8, 2))
    path = write(tmp_path / "a.tif", array, photometric="minisblack", planarconfig="contig", extrasamples=[alpha])
    np.testing.assert_array_equal(read_image((path,)).array[:, 0], np.moveaxis(array, -1, 0)[:channels])
    assert channels_in(path) == channels


@pytest.mark.parametrize("kind", ["imagej", "ome"])
@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        ("ZCYX", (5, 2, 8, 9)),
        ("CYX", (3, 8, 9)),
        ("ZYX", (5, 8, 9)),
        ("TZCYX", (1, 5, 2, 8, 9)),
        ("ZYXS", (4, 8, 9, 3)),
        ("CZYX", (2, 5, 8, 9)),
    ],
)
def test_stacks_name_their_axes(tmp_path: Path, kind: str, axes: str, shape: tuple[int, ...]) -> None:
    """Slices and channels of ImageJ and OME, whatever their order; ImageJ writes slices before channels alone."""
    array = numbers(shape)
    if kind == "imagej" and axes == "CZYX":
        pytest.skip("ImageJ has no such order")
    options = {"photometric": "rgb"} if "S" in axes else {"photometric": "minisblack"}
    metadata: dict[str, Any] = {"axes": axes}
    path = write(tmp_path / "a.tif", array, metadata=metadata, **{kind: True}, **options)
    result = read_image((path,)).array
    moved = array.transpose([axes.index(letter) for letter in "TCSZYX" if letter in axes])
    moved = moved.reshape(-1, *((1,) if "Z" not in axes else ()), *moved.shape[-3 if "Z" in axes else -2 :])
    np.testing.assert_array_equal(result, moved)
    assert channels_in(path) == len(moved)


def test_the_stack_of_an_image_and_its_mask_belong_together(tmp_path: Path) -> None:
    """The image states its spacing in micrometres, the mask states none."""
    image = write(
        tmp_path / "a.tif", numbers((5, 2, 8, 9), "u2"), imagej=True, resolution=(4, 2), metadata={"axes": "ZCYX", **UM}
    )
    mask = write(tmp_path / "b.tif", numbers((5, 8, 9)), imagej=True, metadata={"axes": "ZYX"})
    grid = read_image((image,)).geometry
    assert grid.spacing_mm == pytest.approx((2e-3, 0.5e-3, 0.25e-3))
    label = read_label_map(mask)
    assert label.geometry.spacing_mm == (1, 1, 1)
    assert describe_difference(grid, label.geometry) is None
    assert describe_difference(label.geometry, grid) is None
    other = Geometry(shape=(5, 8, 9), spacing_mm=(1.0, 1.0, 2.0), origin_mm=(0.0, 0.0, 50.0))
    assert "first voxel at" in str(describe_difference(other, label.geometry))
    write_label_map(tmp_path / "c.tif", Volume(array=label.array, geometry=grid))
    assert grid.difference(read_label_map(tmp_path / "c.tif").geometry) is None


@pytest.mark.parametrize(
    ("options", "spacing_mm"),
    [
        ({"imagej": True, "resolution": (72, 72), "metadata": {"axes": "ZYX", "unit": "inch"}}, (1, 1, 1)),
        ({"imagej": True, "resolution": (4, 4), "metadata": {"axes": "ZYX", "unit": "pixel"}}, (1, 1, 1)),
        ({"imagej": True, "resolution": (4, 4), "metadata": {"axes": "ZYX", "unit": "mm"}}, (1, 0.25, 0.25)),
        ({"resolution": (300, 300), "resolutionunit": "inch"}, (1, 1, 1)),
        (
            {
                "ome": True,
                "metadata": {"axes": "ZYX", "PhysicalSizeX": 500, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.25,
                "PhysicalSizeYUnit": "µm", "PhysicalSizeZ": 2, "PhysicalSizeZUnit": "mm"},
            },
            (2, 0.25e-3, 0.5e-3),
        ),
        ({"ome": True, "metadata": {"axes": "ZYX", "PhysicalSizeX": 1, "PhysicalSizeY": 1}}, (1, 1, 1)),
    ],
)  # fmt: skip
def test_only_what_is_physical_is_a_spacing(tmp_path: Path, options: Any, spacing_mm: tuple[float, ...]) -> None:
    """Units of microscopes are; density of printing, pixels and half a statement are not."""
    path = write(tmp_path / "a.tif", numbers((3, 8, 9)), photometric="minisblack", **options)
    assert read_image((path,)).geometry.spacing_mm == pytest.approx(spacing_mm)
    write_spacing(path, (5.0, 3.0, 2.0))
    assert read_image((path,)).geometry.spacing_mm == (5, 3, 2)


def test_a_plane_has_the_spacing_that_is_written_beside_it(tmp_path: Path) -> None:
    """A result carries it on; the first number counts for volumes alone."""
    path = write(tmp_path / "a.tif", numbers((8, 9)))
    assert read_image((path,)).geometry.spacing_mm == (1, 1, 1)
    write_spacing(path, (7.0, 0.5, 0.25))
    plane = read_image((path,))
    assert plane.geometry.spacing_mm == (0.5, 0.5, 0.25)
    write_image(tmp_path / "b.tif", plane)
    assert read_image((tmp_path / "b.tif",)).geometry == plane.geometry


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_turned_stack(tmp_path: Path, orientation: int) -> None:
    """Every slice is turned, and the spacing with it."""
    array = numbers((3, 8, 9))
    options: Any = {"metadata": {"axes": "ZYX", "unit": "mm"}, "resolution": (4, 2)}
    path = write(tmp_path / "a.tif", array, imagej=True, extratags=[(274, "H", 1, orientation, True)], **options)
    result = read_image((path,))
    turns = {1: 0, 3: 2, 6: 3}[orientation]
    np.testing.assert_array_equal(result.array[0], np.rot90(array, turns, axes=(1, 2)))
    assert result.geometry.spacing_mm == ((1, 0.25, 0.5) if orientation == 6 else (1, 0.5, 0.25))


def write_pages(path: Path, *shapes: tuple[int, int], **options: Any) -> None:
    """Writes a page of each shape."""
    with tifffile.TiffWriter(path) as writer:
        for number, shape in enumerate(shapes):
            writer.write(numbers(shape, seed=number), photometric="minisblack", metadata=None, **options)


def test_pages_without_names_are_slices(tmp_path: Path) -> None:
    """As SimpleITK and Pillow write them."""
    write_pages(tmp_path / "a.tif", (8, 9), (8, 9), (8, 9))
    expected = [numbers((8, 9), seed=number) for number in range(3)]
    np.testing.assert_array_equal(read_label_map(tmp_path / "a.tif").array, expected)


def test_a_pyramid_gives_its_full_resolution(tmp_path: Path) -> None:
    """Reduced copies, and the thumbnail of a camera, do not count."""
    array = numbers((64, 80))
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(array, subifds=1, photometric="minisblack", tile=(16, 16))
        writer.write(array[::2, ::2], subfiletype=1, photometric="minisblack", tile=(16, 16))
        writer.write(array[::4, ::4], subfiletype=1, photometric="minisblack", metadata=None)
    np.testing.assert_array_equal(read_label_map(tmp_path / "a.tif").array[0], array)


@pytest.mark.parametrize(
    ("shape", "options", "text"),
    [
        ((4, 3, 8, 9), {"imagej": True, "metadata": {"axes": "TCYX"}}, "holds 3 channels at 4 points in time; save"),
        ((4, 8, 9, 3), {"imagej": True, "metadata": {"axes": "TYXS"}}, "points in time that have colours of their own"),
        ((4, 3, 8, 9), {"photometric": "minisblack"}, "arranged as 4 pages x 3 pages, and nothing says which"),
        ((8, 9), {"dtype": "c8"}, "complex"),
        ((8, 9, 5), {"photometric": "rgb"}, "5 samples per pixel, of which 3 are its colours"),
        ((8, 9, 4), {"photometric": "separated"}, "colours of printing"),
    ],
)
def test_what_is_not_read_is_named(tmp_path: Path, shape: tuple[int, ...], options: Any, text: str) -> None:
    """The kind, and what to do."""
    dtype = options.pop("dtype", "u1")
    path = write(tmp_path / "a.tif", numbers(shape, dtype), **options)
    with pytest.raises(ImageError, match=text):
        read_image((path,))


def test_a_mask_whose_slices_are_called_channels_is_named(tmp_path: Path) -> None:
    """This is what tifffile writes for ImageJ without axes."""
    path = write(tmp_path / "a.tif", numbers((4, 8, 9)), imagej=True)
    with pytest.raises(ImageError, match="has one channel, not 4; save its channels as slices, if they are slices"):
        read_label_map(path)


@pytest.mark.parametrize(("axes", "shape"), [("TYX", (4, 8, 9)), ("TZYX", (4, 3, 8, 9))])
def test_points_in_time_are_the_volumes_of_a_series(tmp_path: Path, axes: str, shape: tuple[int, ...]) -> None:
    """As those of a fourth axis in other formats: channels, or scans of their own for a model of one channel."""
    array = numbers(shape)
    path = write(tmp_path / "a.tif", array, imagej=True, metadata={"axes": axes})
    assert count_volumes(path) == channels_in(path) == 4
    np.testing.assert_array_equal(read_image((path,)).array.squeeze(), array)
    np.testing.assert_array_equal(read_image((path,), time_point=2).array.squeeze(), array[2])
    convert_image(path, (tmp_path / "b.nii.gz",), time_point=1)
    np.testing.assert_array_equal(read_image((tmp_path / "b.nii.gz",)).array.squeeze(), array[1])


def test_points_in_time_are_slices_if_a_spacing_file_says_so(tmp_path: Path) -> None:
    """ImageJ calls the pages of many a volume frames."""
    array = numbers((4, 8, 9))
    path = write(tmp_path / "a.tif", array, imagej=True, metadata={"axes": "TYX"})
    write_spacing(path, (3.0, 1.0, 1.0))
    np.testing.assert_array_equal(read_image((path,)).array[0], array)


def test_pages_of_different_sizes_are_named(tmp_path: Path) -> None:
    """Which of them counts, nobody knows."""
    write_pages(tmp_path / "a.tif", (8, 9), (16, 18))
    with pytest.raises(ImageError, match=r"holds 2 images of different sizes \(9 x 8, 18 x 16\); save the one"):
        channels_in(tmp_path / "a.tif")


def test_an_ome_image_in_several_files_reads_no_other_file(tmp_path: Path) -> None:
    """Its metadata name the other files, wherever they are."""
    path = write(tmp_path / "a.ome.tif", numbers((2, 8, 9)), photometric="minisblack", metadata={"axes": "ZYX"})
    other = '<UUID FileName="../other.tif">urn:uuid:0e8b4a3c-0000-4000-8000-000000000001</UUID>'
    content = path.read_bytes()
    start = content.index(b"<TiffData")
    stop = content.index(b"</TiffData>") if b"</TiffData>" in content else content.index(b"/>", start)
    text = f'<TiffData IFD="0" PlaneCount="2">{other}</TiffData>'.encode()
    grown = content[content.index(b"<?xml") : start] + text
    rest = content[stop + (11 if b"</TiffData>" in content else 2) :]
    end = rest.index(b"</OME>") + 6
    tifffile.imwrite(path, numbers((2, 8, 9)), photometric="minisblack", metadata=None, description=grown + rest[:end])
    with pytest.raises(ImageError, match="one of several files that hold an OME image together"):
        read_image((path,))


@pytest.mark.parametrize(
    ("present", "found"),
    [
        (["liver_0001.json", "liver.json"], "liver_0001.json"),
        (["liver.json"], "liver.json"),
        (["liver_0000.json"], None),
    ],
)
def test_spacing_files_are_found_by_name(tmp_path: Path, present: list[str], found: str | None) -> None:
    """The file's own name goes before that of its case; other formats need none."""
    for name in present:
        (tmp_path / name).touch()
    assert find_spacing_file(tmp_path / "liver_0001.TIF") == (tmp_path / found if found else None)
    assert find_spacing_file(tmp_path / "liver_0001.nii.gz") is None


def test_spacing_survives_the_disk(tmp_path: Path) -> None:
    """The file holds the spacing in the order z, y, x."""
    write_spacing(tmp_path / "a.tiff", (2.5, 0.5, 0.75))
    assert read_spacing(tmp_path / "a.tiff") == (2.5, 0.5, 0.75)
    assert (tmp_path / "a.json").read_text() == '{"spacing": [2.5, 0.5, 0.75]}\n'


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"spacing": 1}', '{"spacing": [1, 1]}', '{"spacing": [1, 0, 1]}', "\\xff"]
)
def test_impossible_spacing_files_are_refused(tmp_path: Path, content: str) -> None:
    """The message names the spacing file, as part of the case that it belongs to."""
    write(tmp_path / "a_0000.tif", noise(0).astype(np.uint16), photometric="minisblack")
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ImageError, match=r"a\.json holds no spacing of a volume; write"):
        read_image((tmp_path / "a_0000.tif",))


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
def test_damaged_strips_of_fax_machines_are_refused(tmp_path, compression):
    """A wrong bit changes pixels, which libtiff gives all the same; few bits lead to a sound strip of other pixels."""
    rows, columns = np.mgrid[:40, :90]
    mask = (rows - 20) ** 2 + (columns - 45) ** 2 < 300
    path = tmp_path / "mask.tif"
    Image.fromarray(mask).save(path, compression=compression, tiffinfo={278: 40})
    with Image.open(path) as image:
        [start], [size] = image.tag_v2[273], image.tag_v2[279]
    assert np.array_equal(read_label_map(path).array[0], mask)
    content = path.read_bytes()
    wrong = refused = 0
    for bit in range(0, 8 * size, 3):
        damaged = bytearray(content)
        damaged[start + bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            wrong += not np.array_equal(read_label_map(path).array[0], mask)
        except ImageError:
            refused += 1
    assert refused > 0.6 * size * 8 / 3
    assert wrong <= (0.5 if compression == "group4" else 0.02) * refused
