"""PNG files: grey, colours or a palette of 1 to 16 bits, with or without transparency.

The numbers are those that the file stores: grey of 1, 2 or 4 bits is not stretched to 8, and colours of 16 bits are not
cut to 8. Source of the layout: the PNG specification (third edition), chunks IHDR, PLTE, IDAT, eXIf and acTL.

Pillow decodes all kinds but colours of 16 bits, which it cuts to 8 and SimpleITK reads whole. Grey of 16 bits with
transparency, which neither reads, has as many bytes per pixel as colours of 8 bits with transparency, and is decoded
as those. Pillow gets the chunks that hold pixels only, so that no other chunk can harm it.
"""

import struct
import zlib
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import PngImagePlugin

from autoseg.errors import ImageError
from autoseg.imaging.file_kind import cut_off
from autoseg.imaging.foreign_formats import unreadable
from autoseg.imaging.itk_reading import ITK_READING
from autoseg.imaging.pictures.orientation_tag import UPRIGHT, find_orientation, turn, turned_shape
from autoseg.imaging.pictures.picture import (
    Picture,
    apply_palette,
    check_proportion,
    is_grey,
    planes_of,
)

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, COLOURS, PALETTE, GREY_ALPHA, COLOURS_ALPHA = 0, 2, 3, 4, 6
SAMPLES = {GREY: 1, COLOURS: 3, PALETTE: 1, GREY_ALPHA: 2, COLOURS_ALPHA: 4}
BITS = {GREY: (1, 2, 4, 8, 16), PALETTE: (1, 2, 4, 8)}  # of the other kinds: 8 and 16
INTERLACED = [(8, 8, 0, 0), (8, 8, 4, 0), (4, 8, 0, 4), (4, 4, 2, 0), (2, 4, 0, 2), (2, 2, 1, 0), (1, 2, 0, 1)]
"""Steps and start, to the right and down, of the seven passes of an interlaced picture."""
LONGEST_KEPT = 2**16  # bytes of a chunk other than pixels that are looked at
PIECE = 2**20  # bytes that are unpacked at once
LARGEST_DEFLATE_RATIO = 1032  # Source: the deflate format; nothing is compressed more


@dataclass(slots=True)
class _Chunks:
    """The chunks of a PNG that say something about its pixels.

    Attributes:
        kept: Name of a chunk to its content.
        pixels: Place of each IDAT chunk in the file: offset and bytes.
        ended: Whether the last chunk is there.
    """

    kept: dict[bytes, bytes] = field(default_factory=dict)
    pixels: list[tuple[int, int]] = field(default_factory=list)
    ended: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Head:
    """The content of the chunk IHDR."""

    width: int
    height: int
    bits: int
    kind: int
    interlaced: int

    @property
    def samples(self) -> int:
        return SAMPLES[self.kind]

    @property
    def stored_bytes(self) -> int:
        """Size of what is compressed: rows of whole bytes, each after the number of its filter."""
        first = [(1, 1, 0, 0)] if not self.interlaced else INTERLACED
        sizes = [(-(-(self.width - x) // right), -(-(self.height - y) // down)) for right, down, x, y in first]
        rows = ((width, height) for width, height in sizes if width > 0)
        return sum(height * (1 + (width * self.bits * self.samples + 7) // 8) for width, height in rows)


def open_png(path: Path) -> Picture:
    """Reads the header of a PNG.

    Raises:
        ImageError: The file is damaged, cut off, an animation, or out of proportion to its pixels.
        OSError: The file cannot be read.
    """
    chunks = _read_chunks(path)
    head = _read_head(path, chunks)
    if b"acTL" in chunks.kept and chunks.kept[b"acTL"][:4] != b"\0\0\0\1":
        raise ImageError(f"{path} is an animation of several pictures", "save the one that counts")
    stored = sum(size for _, size in chunks.pixels)
    if not chunks.ended or LARGEST_DEFLATE_RATIO * stored < head.stored_bytes:
        raise cut_off(path)
    samples_bytes = head.width * head.height * head.samples * max(1, head.bits // 8)
    check_proportion(path, samples_bytes, path.stat().st_size)
    palette = np.frombuffer(chunks.kept.get(b"PLTE", b"")[: 3 * 256], np.uint8)
    palette = palette[: len(palette) // 3 * 3].reshape(-1, 3)
    has_colours = head.kind in (COLOURS, COLOURS_ALPHA) or (head.kind == PALETTE and not is_grey(palette))
    orientation = find_orientation(chunks.kept.get(b"eXIf", b""))
    is_plain = head.kind in (GREY, COLOURS) and head.bits >= 8 and b"tRNS" not in chunks.kept

    def decode(as_mask: bool) -> NDArray[Any]:
        array = _decode(path, head, chunks)
        if head.kind == PALETTE and not as_mask:
            array = apply_palette(array, palette)
        return turn(planes_of(array), orientation)

    return Picture(
        shape=turned_shape((1, head.height, head.width), orientation),
        channels=3 if has_colours else 1,
        bits=8 if head.kind == PALETTE else head.bits,
        has_colours=has_colours,
        turned_by=orientation,
        is_plain=is_plain and orientation == UPRIGHT,
        decode=decode,
    )


def _read_chunks(path: Path) -> _Chunks:
    """Walks along the chunks of a PNG: length, name, content, checksum."""
    chunks = _Chunks()
    with path.open("rb") as file:
        if file.read(len(SIGNATURE)) != SIGNATURE:
            raise unreadable(path)
        while not chunks.ended:
            head = file.read(8)
            if len(head) < 8:
                break
            length, name = struct.unpack(">I4s", head)
            if name == b"IDAT":
                chunks.pixels.append((file.tell(), length))
            elif length <= LONGEST_KEPT and name in (b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"acTL"):
                content = file.read(length)
                if file.read(4) != struct.pack(">I", zlib.crc32(name + content)):
                    raise unreadable(path)
                chunks.kept.setdefault(name, content)
                continue
            chunks.ended = name == b"IEND"
            file.seek(length + 4, 1)
    return chunks


def _read_head(path: Path, chunks: _Chunks) -> _Head:
    content = chunks.kept.get(b"IHDR", b"")
    if len(content) != 13:
        raise unreadable(path)
    width, height, bits, kind, *others, interlaced = struct.unpack(">IIBBBBB", content)
    if not (width and height) or kind not in SAMPLES or bits not in BITS.get(kind, (8, 16)) or any(others):
        raise unreadable(path)
    return _Head(width=width, height=height, bits=bits, kind=kind, interlaced=interlaced)


def _check_pixels(path: Path, head: _Head, chunks: _Chunks) -> None:
    """Refuses pixels that end too early or have another checksum, which Pillow leaves to its users.

    They are unpacked piece by piece, and not kept.
    """
    unpacker, size = zlib.decompressobj(), 0
    with path.open("rb") as file:
        for offset, length in chunks.pixels:
            file.seek(offset)
            packed = file.read(length)
            while packed and not unpacker.eof:
                try:
                    size += len(unpacker.decompress(packed, PIECE))
                except zlib.error as error:
                    raise unreadable(path) from error
                packed = unpacker.unconsumed_tail
    if size < head.stored_bytes:
        raise cut_off(path)


def _decode(path: Path, head: _Head, chunks: _Chunks) -> NDArray[Any]:
    """Returns the pixels as they are stored, (y, x) or (y, x, 3): indices of a palette, no transparency."""
    _check_pixels(path, head, chunks)
    if head.bits == 16 and head.kind in (COLOURS, COLOURS_ALPHA):
        import SimpleITK as sitk

        try:
            with ITK_READING:
                array = np.asarray(sitk.GetArrayFromImage(sitk.ReadImage(str(path))))
        except RuntimeError as error:
            raise unreadable(path) from error
        return array[..., :3]
    wide_grey = head.bits == 16 and head.kind == GREY_ALPHA
    try:
        with PngImagePlugin.PngImageFile(BytesIO(_rewrite(path, head, chunks, wide_grey=wide_grey))) as image:
            array = np.asarray(image)
    except (OSError, SyntaxError, ValueError, EOFError, IndexError) as error:
        raise cut_off(path) if "truncated" in str(error) else unreadable(path) from error
    if wide_grey:
        return np.ascontiguousarray(array).view(">u2")[..., 0].astype(np.uint16)
    if head.kind == GREY and head.bits < 8:
        return (array.astype(np.uint8) if head.bits == 1 else array // (255 // (2**head.bits - 1))).astype(np.uint8)
    if head.kind == GREY_ALPHA:
        return array[..., 0]
    return array[..., :3] if head.kind in (COLOURS, COLOURS_ALPHA) else array


def _rewrite(path: Path, head: _Head, chunks: _Chunks, *, wide_grey: bool) -> bytes:
    """Returns the file with the chunks that hold pixels only; grey of 16 bits as the first byte of each channel."""
    bits, kind = (8, COLOURS_ALPHA) if wide_grey else (head.bits, head.kind)
    ihdr = struct.pack(">IIBBBBB", head.width, head.height, bits, kind, 0, 0, head.interlaced)
    parts = [SIGNATURE, _chunk(b"IHDR", ihdr)]
    if head.kind == PALETTE:
        parts.append(_chunk(b"PLTE", chunks.kept.get(b"PLTE", b"")))
    with path.open("rb") as file:
        for offset, size in chunks.pixels:
            file.seek(offset - 8)
            parts.append(file.read(size + 12))
    return b"".join([*parts, _chunk(b"IEND", b"")])


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
