"""The header of a NIfTI file: how its voxels are stored; `nifti_placement` says where they lie in space.

Source of the layouts: the headers nifti1.h and nifti2.h of the NIfTI Data Format Working Group.
"""

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from autoseg.imaging.volume_files.nifti_placement import NiftiPlacement

GZIP_START = b"\x1f\x8b"
GZIP = 31  # zlib's code for the head of gzip
BLOCK_BYTES = 2**14

FIRST_BYTES, SECOND_BYTES = 348, 540
"""Sizes of the headers of the two versions of the format, which the headers begin with."""

BITS = {2: 8, 4: 16, 8: 32, 16: 32, 32: 64, 64: 64, 128: 24, 256: 8, 512: 16, 768: 32, 1024: 64, 1280: 64}
BITS |= {1536: 128, 1792: 128, 2048: 256, 2304: 32}
"""Bits of a voxel, by the code of its type."""

LARGEST_START = 2**40
"""Where voxels begin at most, in bytes. Decision: headers and extensions fill no terabyte."""


def _layout(size: int, **fields: tuple[str, int]) -> np.dtype[np.void]:
    """Returns the layout of the fields of a header: type and offset in bytes of each."""
    formats, offsets = zip(*fields.values(), strict=True)
    return np.dtype({"names": list(fields), "formats": formats, "offsets": offsets, "itemsize": size})


FIRST = _layout(
    FIRST_BYTES,
    sizeof_hdr=("i4", 0),
    regular=("S1", 38),
    dim=("8i2", 40),
    intent_code=("i2", 68),
    datatype=("i2", 70),
    bitpix=("i2", 72),
    pixdim=("8f4", 76),
    vox_offset=("f4", 108),
    scl_slope=("f4", 112),
    scl_inter=("f4", 116),
    xyzt_units=("u1", 123),
    descrip=("S80", 148),
    qform_code=("i2", 252),
    sform_code=("i2", 254),
    quatern=("3f4", 256),
    qoffset=("3f4", 268),
    srow=("12f4", 280),
    magic=("S4", 344),
)
SECOND = _layout(
    SECOND_BYTES,
    sizeof_hdr=("i4", 0),
    magic=("S8", 4),
    datatype=("i2", 12),
    bitpix=("i2", 14),
    dim=("8i8", 16),
    pixdim=("8f8", 104),
    vox_offset=("i8", 168),
    scl_slope=("f8", 176),
    scl_inter=("f8", 184),
    descrip=("S80", 240),
    qform_code=("i4", 344),
    sform_code=("i4", 348),
    quatern=("3f8", 352),
    qoffset=("3f8", 376),
    srow=("12f8", 400),
    xyzt_units=("i4", 500),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NiftiHeader:
    """The header of a NIfTI file.

    Attributes:
        fields: A record of the layout `FIRST` or `SECOND`, in the byte order of the file.
        byte_order: The byte order of the file, "<" or ">".
        is_packed: Whether the file is compressed.
    """

    fields: Any
    byte_order: Literal["<", ">"]
    is_packed: bool

    @property
    def version(self) -> int:
        """Version of the format, 1 or 2."""
        return 1 if self.fields.dtype.itemsize == FIRST_BYTES else 2

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of voxels along each axis, x first; at least three axes."""
        count, *sizes = (int(size) for size in self.fields["dim"])
        return tuple(max(1, size) for size in sizes[: max(3, count)])

    @property
    def data_start(self) -> int | None:
        """Where the voxels begin in the file, in bytes; None if the header holds no sensible number."""
        start = float(self.fields["vox_offset"])
        return int(start) if 0 <= start < LARGEST_START else None

    @property
    def data_bytes(self) -> int:
        """Number of bytes that the voxels take, by their type; ITK does not look at the bits that the header states."""
        bits = BITS.get(int(self.fields["datatype"]), max(0, int(self.fields["bitpix"])))
        return math.prod(self.sizes) * bits // 8

    @property
    def used_sizes(self) -> tuple[int, ...]:
        """Number of voxels along each axis, x first, without axes of one voxel behind the third; two of a plane."""
        sizes = list(self.sizes)
        while len(sizes) > 3 and sizes[-1] == 1:
            sizes.pop()
        return tuple(sizes[:2] if int(self.fields["dim"][0]) == 2 else sizes)

    @property
    def first_voxel(self) -> int:
        """Where the voxels begin in the unpacked file, in bytes: not within the header, whatever that says."""
        return max(self.data_start or 0, FIRST_BYTES if self.version == 1 else SECOND_BYTES)

    @property
    def scale(self) -> tuple[float, float] | None:
        """Slope and intercept of the values; None if the numbers are the values, as for a slope of 0 or no number.

        Source: nifti1.h, which scales only if the slope is not 0; nibabel likewise.
        """
        slope, intercept = float(self.fields["scl_slope"]), float(self.fields["scl_inter"])
        is_idle = slope == 0 or not math.isfinite(slope) or (slope, intercept) == (1.0, 0.0)
        return None if is_idle else (slope, intercept)

    @property
    def placement(self) -> NiftiPlacement:
        """Where the voxels lie."""
        return NiftiPlacement.of_header(self.fields)


BYTE_ORDERS: tuple[Literal["<"], Literal[">"]] = ("<", ">")


def parse_header(start: bytes, *, is_packed: bool = False) -> NiftiHeader | None:
    """Parses the first bytes of an uncompressed file; None if they are no header of either version."""
    for layout in (FIRST, SECOND):
        for order in BYTE_ORDERS:
            if len(start) >= layout.itemsize and struct.unpack_from(order + "i", start) == (layout.itemsize,):
                fields = np.frombuffer(start, dtype=layout.newbyteorder(order), count=1)[0]
                return NiftiHeader(fields=fields, byte_order=order, is_packed=is_packed)
    return None


def read_header(path: Path) -> NiftiHeader | None:
    """Reads the header of a NIfTI file, compressed or not, whatever its name says; None if it is none.

    Raises:
        EOFError: It is compressed, and ends within its header.
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(BLOCK_BYTES)
    if not start.startswith(GZIP_START):
        return parse_header(start)
    try:
        return parse_header(_unpack_start(path, start), is_packed=True)
    except (gzip.BadGzipFile, zlib.error):  # it is damaged, which reading it names
        return None


def _unpack_start(path: Path, start: bytes) -> bytes:
    """Returns the first unpacked bytes of a file, fewer if it is cut off."""
    try:
        with gzip.open(path) as packed:
            return packed.read(SECOND_BYTES)
    except EOFError:
        unpacked = zlib.decompressobj(GZIP).decompress(start, SECOND_BYTES)
        if len(unpacked) < FIRST_BYTES:
            raise
        return unpacked


def is_nifti_name(path: Path) -> bool:
    """Returns whether the ending of a file is one of NIfTI's, in upper or lower case."""
    return path.name.lower().endswith((".nii", ".nii.gz"))
