"""The strips and tiles of a TIFF's page, decoded where tifffile needs a package that is not installed.

tifffile puts the pages of a file into their order, and decodes what is not compressed, and deflate, LZMA and Zstandard.
LZW, JPEG and CCITT need another package there, and PackBits is slow without it, a ninth of the speed of SimpleITK. Here
libtiff and libjpeg decode them, which come with Pillow: a strip becomes a TIFF of one strip, or a JPEG, in memory.
Samples of less than 8 bits, and of 10, 12 or 14 bits, are unpacked here as well.
"""

import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import JpegImagePlugin, TiffImagePlugin
from tifffile import TIFF

from autoseg.errors import ImageError
from autoseg.imaging.file_kind import cut_off
from autoseg.imaging.pictures.ccitt import is_packed_so
from autoseg.imaging.pictures.jpeg_segments import ADOBE_SEGMENT, FRAMES, JFIF_SEGMENT, read_segments
from autoseg.imaging.pictures.tiff_codes import (
    CCITT,
    DEFLATE,
    DIFFERENCES,
    FLOAT_DIFFERENCES,
    JPEG,
    LZW,
    OLD_DEFLATE,
    PACKBITS,
    PLAIN,
    RGB,
    YCBCR,
)

DECODED_HERE = (PLAIN, DEFLATE, OLD_DEFLATE, *CCITT, LZW, JPEG, PACKBITS)
LARGEST_STRIP = 2**26  # bytes. Decision: libtiff is asked for no more at once


def is_decoded_here(page: Any) -> bool:
    """Returns whether tifffile alone does not decode a page, or slowly."""
    packed = int(page.bitspersample) % 8 != 0
    needs_codec = int(page.compression) in (*CCITT, LZW, JPEG, PACKBITS)
    return needs_codec or packed or int(page.predictor) == FLOAT_DIFFERENCES or int(page.fillorder) != 1


def check_compression(page: Any, path: Path) -> None:
    """Refuses a page that is compressed in a way that nothing here decodes, or whose samples have odd bits.

    Raises:
        ImageError: The page cannot be decoded; the text names the compression.
    """
    compression, bits = int(page.compression), int(page.bitspersample)
    name = getattr(page.compression, "name", str(compression)).replace("_", " ")
    if not (compression in DECODED_HERE if is_decoded_here(page) else _is_known_to_tifffile(compression)):
        raise ImageError(f"{path} is compressed by {name}, which is not read", "save it with LZW or deflate, or plain")
    if int(page.predictor) not in (1, DIFFERENCES, FLOAT_DIFFERENCES) or page.imagedepth != 1:
        raise ImageError(f"{path} is a TIFF of a rare kind (predictor {int(page.predictor)})", "save it anew")
    is_number = page.dtype is not None and (bits in (8, 16, 32, 64) or bits < 16 or page.dtype.kind == "c")
    if not is_number or (page.dtype.kind == "f" and bits not in (16, 32, 64)):
        raise ImageError(f"{path} has samples of {bits} bits, which are not read", "save it with 8, 16 or 32 bits")
    if compression == JPEG and bits != 8:
        raise ImageError(f"{path} is compressed by JPEG of {bits} bits, which is not read", "save it with deflate")


def decode_page(page: Any, keyframe: Any, path: Path) -> NDArray[Any]:
    """Decodes all strips or tiles of a page.

    Args:
        page: The page, whose strips are read from its open file.
        keyframe: The page that says how they are stored.
        path: Path of the file, for messages.

    Returns:
        Shape (planes, y, x, samples): one plane with all samples, or a plane for each sample.

    Raises:
        ImageError: A strip is missing, or too large.
    """
    samples = 1 if keyframe.planarconfig == 2 else int(keyframe.samplesperpixel)
    planes = int(keyframe.samplesperpixel) if keyframe.planarconfig == 2 else 1
    height, width = int(keyframe.imagelength), int(keyframe.imagewidth)
    rows, columns = (
        (int(keyframe.tilelength), int(keyframe.tilewidth))
        if keyframe.is_tiled
        else (min(int(keyframe.rowsperstrip), height), width)
    )
    down, across = -(-height // rows), -(-width // columns)
    offsets, sizes = page.dataoffsets, page.databytecounts
    if len(offsets) < planes * down * across or not all(sizes):
        raise ImageError(f"{path} lacks some of its strips", "save it anew")
    result = np.zeros((planes, height, width, samples), _dtype(keyframe))
    for number in range(planes * down * across):
        plane, y, x = number // (down * across), number // across % down * rows, number % across * columns
        high = rows if keyframe.is_tiled else min(rows, height - y)
        handle = page.parent.filehandle
        handle.seek(offsets[number])
        strip = _decode_strip(handle.read(sizes[number]), keyframe, (high, columns, samples), path)
        result[plane, y : y + high, x : x + columns] = strip[: height - y, : width - x]
    return result


def _decode_strip(data: bytes, page: Any, shape: tuple[int, int, int], path: Path) -> NDArray[Any]:
    """Decodes a strip or a tile, of shape (y, x, samples)."""
    rows, columns, samples = shape
    if int(page.compression) == JPEG:
        return _decode_jpeg(data, page).reshape(-1, columns, samples)[:rows]
    bits = int(page.bitspersample)
    row_bytes = (columns * samples * bits + 7) // 8
    raw = _decompress(data, page, rows, row_bytes, columns, path)
    if len(raw) < rows * row_bytes:
        raise cut_off(path)
    lines = np.frombuffer(raw, np.uint8, rows * row_bytes).reshape(rows, row_bytes)
    if bits % 8:
        return _unpack(lines, bits, int(page.fillorder))[:, : columns * samples].reshape(shape)
    dtype = _dtype(page)
    if int(page.predictor) == FLOAT_DIFFERENCES:
        return _add_float_differences(lines, dtype, samples).reshape(shape)
    array = lines.view(dtype.newbyteorder(page.parent.byteorder)).astype(dtype).reshape(shape)
    return np.cumsum(array, axis=1, dtype=dtype) if int(page.predictor) == DIFFERENCES else array


def _decompress(data: bytes, page: Any, rows: int, row_bytes: int, columns: int, path: Path) -> bytes:
    """Returns the bytes of a strip, each row filled up to whole bytes."""
    compression = int(page.compression)
    if compression == PLAIN:
        return data
    if compression in (DEFLATE, OLD_DEFLATE):
        return zlib.decompressobj().decompress(data, rows * row_bytes)
    if rows * row_bytes > LARGEST_STRIP:
        raise ImageError(f"{path} has strips of more than {LARGEST_STRIP >> 20} MB", "save it with smaller strips")
    options = {code: int(page.tags[code].value) for code in (292, 293) if code in page.tags}
    if compression in CCITT:
        head = {256: columns, 258: 1, 262: 1, 266: int(page.fillorder), **options}
    else:
        head = {256: row_bytes, 258: 8, 262: 1}
    entries = {**head, 257: rows, 259: compression, 277: 1, 278: rows, 279: len(data)}
    entries[273] = 8 + 2 + 12 * (len(entries) + 1) + 4
    directory = b"".join(struct.pack("<HHII", code, 4, 1, entries[code]) for code in sorted(entries))
    content = b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + bytes(4) + data
    with TiffImagePlugin.TiffImageFile(BytesIO(content)) as image:
        array = np.asarray(image)
    if compression not in CCITT:
        return array.tobytes()
    if not is_packed_so(data, array, compression, options, int(page.fillorder)):
        what = f"{path} is damaged, or packed by a rare rule of fax machines (CCITT) that cannot be checked"
        raise ImageError(what, "copy it again, or save it with LZW or deflate")
    return np.packbits(array, axis=1).tobytes()


def _decode_jpeg(data: bytes, page: Any) -> NDArray[Any]:
    """Decodes a JPEG, whose tables may lie in the page; the page says whether its samples are RGB, not the JPEG."""
    tables = page.jpegtables
    content = data if not tables else tables[:-2] + data[2:]
    with JpegImagePlugin.JpegImageFile(BytesIO(content)) as image:
        if int(page.photometric) == RGB and image.mode == "RGB" and _are_nameless(content):
            image.draft("YCbCr", None)  # libjpeg takes samples without a name for YCbCr; this leaves them as they are
        if int(page.photometric) == YCBCR and page.planarconfig == 2:
            raise ValueError("planes of YCbCr")
        return np.asarray(image)


def _are_nameless(content: bytes) -> bool:
    """Returns whether a JPEG does not say which colours its three samples are, neither by a mark nor by their names."""
    segments = dict(read_segments(content))
    names = next((segment[6::3] for kind, segment in segments.items() if kind in FRAMES), b"")
    return names != b"RGB" and not {JFIF_SEGMENT, ADOBE_SEGMENT} & segments.keys()


def _unpack(lines: NDArray[np.uint8], bits: int, fill_order: int) -> NDArray[Any]:
    """Unpacks samples of 1 to 15 bits, of which the first has the highest bits of a row's first byte.

    Example:
        >>> _unpack(np.array([[0b01101100]], np.uint8), 2, 1).tolist()
        [[1, 2, 3, 0]]
    """
    flags = np.unpackbits(lines, axis=1, bitorder="big" if fill_order == 1 else "little")
    whole = flags.shape[1] // bits * bits
    groups = flags[:, :whole].reshape(len(lines), -1, bits)
    result: NDArray[Any] = np.zeros(groups.shape[:2], np.uint8 if bits <= 8 else np.uint16)
    for position in range(bits):
        result <<= 1
        result |= groups[..., position]
    return result


def _add_float_differences(lines: NDArray[np.uint8], dtype: "np.dtype[Any]", samples: int) -> NDArray[Any]:
    """Undoes the predictor of floats: bytes of equal weight lie together, highest first, as differences.

    Source: Adobe Photoshop TIFF Technical Note 3.
    """
    added = np.cumsum(lines.reshape(len(lines), -1, samples), axis=1, dtype=np.uint8).reshape(len(lines), -1)
    weights = added.reshape(len(lines), dtype.itemsize, -1)
    return np.ascontiguousarray(weights.transpose(0, 2, 1)).view(dtype.newbyteorder(">")).astype(dtype)[..., 0]


def _dtype(page: Any) -> "np.dtype[Any]":
    bits = int(page.bitspersample)
    if bits % 8:
        return np.dtype(np.uint8 if bits < 8 else np.uint16)
    native: np.dtype[Any] = np.dtype(page.dtype).newbyteorder("=")
    return native


def _is_known_to_tifffile(compression: int) -> bool:
    try:
        return compression == PLAIN or TIFF.DECOMPRESSORS[compression] is not None
    except KeyError:
        return False
