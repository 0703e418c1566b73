"""Pictures that were made to harm: refused in a line by their headers, before any library decodes them."""

import random
import struct
import tracemalloc
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from autoseg.errors import ImageError
from autoseg.imaging.image_files import read_image
from autoseg.imaging.image_headers import channels_in
from autoseg.imaging.pictures.tiff_directories import check_directories

MEMORY_ALLOWED = 2**26


def chunk(name: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, data: bytes, *further: bytes, bits: int = 8, kind: int = 0) -> bytes:
    """A PNG of any size with any pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(further) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def zeros(size: int) -> bytes:
    """Zeros, compressed a thousandfold."""
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(size >> 20)) + packer.flush()


def tiff(*, following: int = 0, order: str = "<", data: bytes = b"\5" * 480, **tags: int) -> bytes:
    """A TIFF of a page of 24 x 20 pixels, with other values of tags, such as t256 for the width."""
    usual = {256: 24, 257: 20, 258: 8, 259: 1, 262: 1, 273: 8 + 2 + 120 + 4, 277: 1, 278: 20, 279: len(data), 284: 1}
    values = usual | {int(name[1:]): value for name, value in tags.items()}
    entries = b"".join(struct.pack(order + "HHII", code, 4, 1, value) for code, value in sorted(values.items()))
    mark = b"II" if order == "<" else b"MM"
    head = mark + struct.pack(order + "HIH", 42, 8, len(values))
    return head + entries + struct.pack(order + "I", following) + data


def bmp(width: int, height: int, packing: int = 0) -> bytes:
    """A BMP with a grey palette of any size with few pixels."""
    head = struct.pack("<IHHIIiiHHIIiiII", 0, 0, 0, 1078, 40, width, height, 1, 8, packing, 0, 0, 0, 0, 0)
    return b"BM" + head + bytes(range(256)) * 4 + b"\5" * 480


SOUND_PNG = png(24, 20, zlib.compress(bytes(25 * 20)))

HARMFUL = {
    "bomb.png": (lambda: png(17000, 17000, zeros(17001 * 17000)), "times as much as the file; if you trust it"),
    "claims.png": (lambda: png(60000, 60000, zlib.compress(bytes(60001))), "is cut off"),
    "claims_all.png": (lambda: png(2**31 - 1, 2**31 - 1, b""), "is cut off"),
    "empty.png": (lambda: png(0, 0, zlib.compress(b"")), "cannot be read"),
    "bits.png": (lambda: png(24, 20, zlib.compress(bytes(500)), bits=3), "cannot be read"),
    "kind.png": (lambda: png(24, 20, zlib.compress(bytes(500)), kind=9), "cannot be read"),
    "short.png": (lambda: png(24, 20, zlib.compress(bytes(100))), "cut off|cannot be read"),
    "checksum.png": (lambda: SOUND_PNG[:30] + b"\1" + SOUND_PNG[31:], "cannot be read"),
    "circle.tif": (lambda: tiff(following=8), "pages form a circle"),
    "circle_motorola.tif": (lambda: tiff(following=8, order=">"), "pages form a circle"),
    "bomb.tif": (lambda: tiff(t256=17000, t257=17000, t278=17000, t259=8, data=zeros(17000**2)), "times as much"),
    "large.tif": (lambda: tiff(t256=60000, t257=60000), "cut off|memory"),
    "largest.tif": (lambda: tiff(t256=2**32 - 1, t257=2**32 - 1), "cut off|memory"),
    "nothing.tif": (lambda: tiff(t256=0, t257=0), "cannot be read"),
    "far.tif": (lambda: tiff(t273=2**32 - 10), "cannot be read|cut off"),
    "samples.tif": (lambda: tiff(t277=65535), "cut off|samples|cannot be read"),
    "codec.tif": (lambda: tiff(t259=34712), "is compressed by JPEG ?2000, which is not read; save it"),
    "codec_unknown.tif": (lambda: tiff(t259=32946 + 5), "not read|cannot be read"),
    "bits.tif": (lambda: tiff(t258=24), "24 bits, which are not read|cannot be read"),
    "values.tif": (lambda: tiff()[:14] + struct.pack("<I", 2**31) + tiff()[18:], "cannot be read"),
    "directory.tif": (lambda: b"II" + struct.pack("<HHHQQ", 43, 8, 0, 16, 2**63) + bytes(100), "cut off"),
    "directory_far.tif": (lambda: b"II" + struct.pack("<HHHQ", 43, 8, 0, 2**63) + bytes(100), "cut off"),
    "negative.bmp": (lambda: bmp(-24, 20), "cannot be read"),
    "nothing.bmp": (lambda: bmp(0, 0), "cannot be read"),
    "lowest.bmp": (lambda: bmp(24, -(2**31)), "cut off|memory"),
    "largest.bmp": (lambda: bmp(2**31 - 1, 2**31 - 1), "cut off|memory"),
    "packed.bmp": (lambda: bmp(24, 20, packing=1), "damaged, cut off, or of a variant"),
    "large.bmp": (lambda: bmp(60000, 60000), "cut off|memory"),
}


@pytest.mark.parametrize("name", HARMFUL)
def test_harm_is_refused_in_a_line(tmp_path: Path, name: str) -> None:
    """With the true reason, and without taking much memory, whether pixels are asked for or the header alone."""
    make, text = HARMFUL[name]
    (tmp_path / name).write_bytes(make())
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match=text):
            read_image((tmp_path / name,))
        with suppress(ImageError):
            channels_in(tmp_path / name)
        assert tracemalloc.get_traced_memory()[1] < MEMORY_ALLOWED
    finally:
        tracemalloc.stop()


def test_a_jpeg_larger_than_the_memory(tmp_path: Path) -> None:
    """Its header claims the largest size."""
    Image.new("L", (32, 32)).save(tmp_path / "a.jpg")
    content = bytearray((tmp_path / "a.jpg").read_bytes())
    start = content.index(b"\xff\xc0")
    content[start + 5 : start + 9] = b"\xff\xff\xff\xff"
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(ImageError, match=r"times as much as the file|memory"):
        channels_in(tmp_path / "a.jpg")


@pytest.mark.parametrize("name", [b"zTXt", b"iCCP"])
def test_a_bomb_in_a_comment_is_never_opened(tmp_path: Path, name: bytes) -> None:
    """Only the chunks of pixels are decoded; the picture is sound."""
    bomb = chunk(name, b"a\0\0" + zeros(70 * 2**20))
    (tmp_path / "a.png").write_bytes(png(24, 20, zlib.compress(bytes(25 * 20)), bomb))
    assert not read_image((tmp_path / "a.png",)).array.any()


def test_a_large_empty_mask_is_read(tmp_path: Path) -> None:
    """Up to a size that fits anywhere, the best compression is no harm."""
    Image.new("L", (4000, 5000)).save(tmp_path / "a.png")
    assert read_image((tmp_path / "a.png",)).array.shape == (1, 1, 5000, 4000)


def test_directories_of_both_sizes_are_followed(tmp_path: Path) -> None:
    """A directory that ends too early is missed, in the large format too."""
    path = tmp_path / "a.tif"
    for big in (False, True):
        tifffile.imwrite(path, np.ones((5, 8, 9), np.uint8), photometric="minisblack", bigtiff=big)
        check_directories(path)
        content = path.read_bytes()
        path.write_bytes(content[: content.index(b"tifffile.py")])
        with pytest.raises(ImageError, match=r"cut off|cannot be read"):
            read_image((path,))


@pytest.mark.parametrize("ending", [".png", ".tif", ".jpg", ".bmp"])
def test_damage_ends_in_a_line(tmp_path: Path, ending: str) -> None:
    """Bytes changed at random give a picture or an ImageError, never another error."""
    pixels = np.random.default_rng(0).integers(0, 200, (12, 14, 3)).astype(np.uint8)
    options = {"compression": "tiff_lzw"} if ending == ".tif" else {}
    Image.fromarray(pixels).save(tmp_path / f"a{ending}", **options)
    sound = (tmp_path / f"a{ending}").read_bytes()
    for seed in range(150):
        generator = random.Random(seed)
        changed = bytearray(sound)
        for _ in range(generator.randint(1, 6)):
            changed[generator.randrange(min(len(changed), 400))] = generator.randrange(256)
        path = tmp_path / f"changed_{seed}{ending}"
        path.write_bytes(changed[: generator.randint(1, len(changed))] if seed % 3 == 0 else changed)
        with suppress(ImageError):
            read_image((path,))
