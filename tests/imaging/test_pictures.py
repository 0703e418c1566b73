"""PNG, JPEG and BMP files: the numbers that independent readers give, as viewers show them, and never a density."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from PIL import Image, ImageOps

from autoseg.errors import ImageError
from autoseg.imaging.image_files import convert_image, read_image, read_label_map, write_label_map
from autoseg.imaging.image_headers import channels_in, read_grid
from autoseg.imaging.pictures.files import open_picture
from autoseg.imaging.pictures.orientation_tag import find_orientation

COLOURS = [0, 0, 0, 200, 10, 10, 10, 190, 30, 9, 9, 9] + [0] * (3 * 252)


def labels(highest: int = 3, shape: tuple[int, int] = (13, 21)) -> NDArray[np.uint8]:
    """Numbers up to a highest one."""
    return np.random.default_rng(highest).integers(0, highest + 1, shape).astype(np.uint8)


def with_palette(indices: NDArray[np.uint8]) -> Image.Image:
    """A picture with a palette of colours."""
    image = Image.frombytes("P", indices.shape[::-1], indices.tobytes())
    image.putpalette(COLOURS)
    return image


def png(pixels: NDArray[np.integer], bits: int, kind: int, *further: tuple[bytes, bytes]) -> bytes:
    """A PNG of pixels (y, x) or (y, x, samples) without filters, with further chunks before the pixels."""
    height, width = pixels.shape[:2]
    if bits == 16:
        rows = pixels.astype(">u2").reshape(height, -1).view(np.uint8)
    elif bits == 8:
        rows = pixels.astype(np.uint8).reshape(height, -1)
    else:
        flags = np.unpackbits(pixels.astype(np.uint8).reshape(height, -1, 1), axis=2)[..., 8 - bits :]
        rows = np.packbits(flags.reshape(height, -1), axis=1)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    head = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    chunks = [(b"IHDR", head), *further, (b"IDAT", data), (b"IEND", b"")]
    packed = (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize(("bits", "highest"), [(1, 1), (2, 3), (4, 15), (8, 255), (16, 255)])
def test_grey_is_not_stretched(tmp_path: Path, bits: int, highest: int) -> None:
    """Grey of few bits gives the numbers that the file stores: a mask of 2 bits holds 0 to 3."""
    pixels = labels(highest)
    (tmp_path / "a.png").write_bytes(png(pixels, bits, 0))
    np.testing.assert_array_equal(read_label_map(tmp_path / "a.png").array[0], pixels)
    np.testing.assert_array_equal(read_image((tmp_path / "a.png",)).array[0, 0], pixels)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_palette_gives_indices_to_masks_and_colours_to_images(tmp_path: Path, bits: int) -> None:
    """Whatever the number of bits, and with a transparent entry too; as an image, Pillow says its colours."""
    pixels = labels(min(3, 2**bits - 1))
    palette = (b"PLTE", bytes(COLOURS[: 3 * 2**bits])), (b"tRNS", b"\0")
    (tmp_path / "a.png").write_bytes(png(pixels, bits, 3, *palette))
    np.testing.assert_array_equal(read_label_map(tmp_path / "a.png").array[0], pixels)
    with Image.open(tmp_path / "a.png") as image:
        shown = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(read_image((tmp_path / "a.png",)).array[:, 0], np.moveaxis(shown, -1, 0))
    assert channels_in(tmp_path / "a.png") == 3


@pytest.mark.parametrize("ending", [".png", ".bmp"])
@pytest.mark.parametrize("highest", [1, 3, 255])
def test_palettes_that_pillow_writes(tmp_path: Path, ending: str, highest: int) -> None:
    """As the programs for drawing masks save them."""
    pixels = labels(highest)
    with_palette(pixels).save(tmp_path / f"a{ending}")
    np.testing.assert_array_equal(read_label_map(tmp_path / f"a{ending}").array[0], pixels)


def test_a_grey_palette_is_one_channel(tmp_path: Path) -> None:
    """Grey saved with a palette is grey; its indices are the numbers of a mask all the same."""
    pixels = labels(255)
    image = Image.frombytes("P", pixels.shape[::-1], pixels.tobytes())
    image.putpalette([grey for number in range(256) for grey in [255 - number] * 3])
    image.save(tmp_path / "a.png")
    assert channels_in(tmp_path / "a.png") == 1
    np.testing.assert_array_equal(read_image((tmp_path / "a.png",)).array[0, 0], 255 - pixels)
    np.testing.assert_array_equal(read_label_map(tmp_path / "a.png").array[0], pixels)


@pytest.mark.parametrize(("bits", "kind", "samples"), [(8, 4, 2), (16, 4, 2), (8, 6, 4), (16, 6, 4), (16, 2, 3)])
def test_transparency_is_no_channel_and_16_bits_stay(tmp_path: Path, bits: int, kind: int, samples: int) -> None:
    """Grey and colours of both depths."""
    pixels = np.random.default_rng(0).integers(0, 2**bits, (7, 9, samples))
    (tmp_path / "a.png").write_bytes(png(pixels, bits, kind))
    colours = pixels[..., : {2: 1, 3: 3, 4: 3}[samples]]
    np.testing.assert_array_equal(read_image((tmp_path / "a.png",)).array[:, 0], np.moveaxis(colours, -1, 0))
    assert channels_in(tmp_path / "a.png") == colours.shape[-1]
    assert open_picture(tmp_path / "a.png").bits == bits


@pytest.mark.parametrize(("kind", "key"), [(0, b"\0\5"), (2, b"\0\5\0\5\0\5")])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_transparent_colour_is_a_colour(tmp_path: Path, kind: int, key: bytes, bits: int) -> None:
    """The key of transparency adds no channel."""
    pixels = np.random.default_rng(0).integers(0, 9, (7, 9, 3) if kind == 2 else (7, 9))
    (tmp_path / "a.png").write_bytes(png(pixels, bits, kind, (b"tRNS", key)))
    planes = np.moveaxis(pixels, -1, 0) if kind == 2 else pixels[np.newaxis]
    np.testing.assert_array_equal(read_image((tmp_path / "a.png",)).array[:, 0], planes)


def test_interlaced_grey_with_transparency_of_16_bits(tmp_path: Path) -> None:
    """Its bytes are those of interlaced colours of 8 bits with transparency, as which Pillow cannot save it either."""
    rgba = np.random.default_rng(0).integers(0, 256, (1, 1, 4)).astype(np.uint8)
    content = bytearray(png(rgba, 8, 6))
    content[24:26] = bytes([16, 4])
    content[28] = 1  # one pixel is the same in both orders
    content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
    (tmp_path / "a.png").write_bytes(content)
    assert read_image((tmp_path / "a.png",)).array.item() == 256 * int(rgba[0, 0, 0]) + int(rgba[0, 0, 1])


@pytest.mark.parametrize("orientation", range(9))
@pytest.mark.parametrize("ending", [".jpg", ".png", ".tif"])
def test_a_picture_is_turned_as_viewers_show_it(tmp_path: Path, ending: str, orientation: int) -> None:
    """Pillow's own function for viewers says how; a result has the shape of the turned picture."""
    pixels = np.kron(labels(255, (5, 8)), np.ones((8, 8), np.uint8))
    exif = Image.Exif()
    exif[0x112] = orientation
    path = tmp_path / f"a{ending}"
    for file in (path, tmp_path / "twin.png"):
        Image.fromarray(pixels).save(file, exif=exif)
    with Image.open(path if ending == ".jpg" else tmp_path / "twin.png") as image:  # Pillow turns TIFF by itself
        shown = np.asarray(ImageOps.exif_transpose(image))
    volume = read_image((path,))
    np.testing.assert_array_equal(volume.array[0, 0], shown)
    assert read_grid(path)[0] == (1, *shown.shape)
    assert open_picture(path).turned_by == max(1, orientation)
    convert_image(path, (tmp_path / "b.png",))
    write_label_map(tmp_path / "c.png", volume)
    for name in ("b.png", "c.png"):
        with Image.open(tmp_path / name) as image:
            np.testing.assert_array_equal(np.asarray(image), shown)
            assert not image.getexif()


@pytest.mark.parametrize("block", [b"", b"II*\0", b"MM\0*\0\0\0\x08\xff\xff", b"II*\0\xff\xff\xff\xff", b"xx" * 20])
def test_a_damaged_exif_block_turns_nothing(block: bytes) -> None:
    """It is cut off, points beyond its end, or is none."""
    assert find_orientation(block) == 1


@pytest.mark.parametrize("ending", [".png", ".jpg", ".bmp", ".tif"])
def test_density_is_no_spacing(tmp_path: Path, ending: str) -> None:
    """Dots per inch say how large a picture is printed."""
    path = tmp_path / f"a{ending}"
    Image.fromarray(labels(255)).save(path, dpi=(72, 72))
    geometry = read_image((path,)).geometry
    assert geometry.spacing_mm == (1, 1, 1)
    assert geometry.dimensions == 2
    assert read_grid(path) == ((1, 13, 21), (1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("mode", "ending"),
    [("L", ".jpg"), ("RGB", ".jpg"), ("L", ".bmp"), ("RGB", ".bmp"), ("1", ".bmp"), ("RGBA", ".bmp")],
)
def test_pixels_are_those_that_pillow_reads(tmp_path: Path, mode: str, ending: str) -> None:
    """Grey, colours, and black and white, which are 0 and 1."""
    image = Image.fromarray(np.kron(labels(255, (4, 6, 3)), np.ones((8, 8, 1), np.uint8))).convert(mode)
    image.save(tmp_path / f"a{ending}")
    with Image.open(tmp_path / f"a{ending}") as opened:
        shown = np.asarray(opened).astype(np.uint8)
    planes = shown[np.newaxis] if shown.ndim == 2 else np.moveaxis(shown[..., :3], -1, 0)
    np.testing.assert_array_equal(read_image((tmp_path / f"a{ending}",)).array[:, 0], planes)


def save_cmyk(path: Path) -> None:
    """A photograph for printing."""
    Image.new("CMYK", (8, 8)).save(path)


def save_animation(path: Path) -> None:
    """An animation of two pictures."""
    Image.new("L", (8, 8)).save(path, save_all=True, append_images=[Image.new("L", (8, 8), 9)])


@pytest.mark.parametrize(
    ("name", "save", "text"),
    [
        ("a.jpg", save_cmyk, r"colours of printing \(CMYK\); save it as grey or RGB"),
        ("a.tif", save_cmyk, r"colours of printing \(CMYK\); save it as grey or RGB"),
        ("a.png", save_animation, "animation of several pictures"),
    ],
)
def test_what_is_not_read_is_named(tmp_path: Path, name: str, save: Callable[[Path], None], text: str) -> None:
    """The kind, and what to do."""
    save(tmp_path / name)
    for read in (lambda path: read_image((path,)), read_label_map, channels_in):
        with pytest.raises(ImageError, match=text):
            read(tmp_path / name)


def test_a_colour_picture_of_16_bits_stays_one_when_converted(tmp_path: Path) -> None:
    """The depth is not cut."""
    pixels = np.random.default_rng(0).integers(0, 2**16, (6, 7, 3)).astype(np.uint16)
    sitk.WriteImage(sitk.GetImageFromArray(pixels, isVector=True), str(tmp_path / "a.png"))
    convert_image(tmp_path / "a.png", (tmp_path / "b.png",))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "b.png"))), pixels)
