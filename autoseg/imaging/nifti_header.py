"""The header of a NIfTI file: how its voxels are stored, and where they lie in space.

A NIfTI file has two matrices that say where its voxels lie: the sform, twelve numbers, and the qform, a rotation with
the sizes of the voxels. Each has a code, which is 0 if the matrix holds nothing. Where both hold something, they may
differ: programs that align scans write the sform and leave the qform as the scanner had it.

The rule of this program, for every reader: the sform if its code is above 0, else the qform if its code is above 0,
else the sizes of the voxels alone, with the first voxel at 0 and the axes as those of the patient. A matrix that is
not finite, or has an axis of no length, does not count, and neither does a sform with a shear beyond
`affine_geometry.RIGHT_ANGLE_TOLERANCE` if there is a qform. Source: nibabel, FSL, SPM and FreeSurfer take the sform
first. ITK takes the qform in most cases, so programs built on it may show a scan elsewhere; results carry both
matrices of their scan, so each program shows them where it shows the scan.

Source of the layouts: the headers nifti1.h and nifti2.h of the NIfTI Data Format Working Group.
"""

import gzip
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

GZIP_START = b"\x1f\x8b"
FIRST_BYTES, SECOND_BYTES = 348, 540
"""Sizes of the headers of the two versions of the format, which the headers begin with."""

DATA_OFFSET = 352
"""Where voxels begin in a file of the first version without extensions, in bytes."""

UNIT_MASK = 0b111
"""The bits of `xyzt_units` that hold the unit of space."""

MM_PER_UNIT = {1: 1000.0, 3: 0.001}
"""Millimetres per unit of space, by its code: metres and micrometres; all other codes are taken for millimetres."""


def _layout(size: int, **fields: tuple[str, int]) -> np.dtype[np.void]:
    """Returns the layout of the fields of a header: type and offset in bytes of each."""
    formats, offsets = zip(*fields.values(), strict=True)
    return np.dtype({"names": list(fields), "formats": formats, "offsets": offsets, "itemsize": size})


FIRST = _layout(
    FIRST_BYTES,
    sizeof_hdr=("i4", 0),
    dim=("8i2", 40),
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
class NiftiPlacement:
    """What a header says about the place of its voxels, as it is stored; results take it over from their scan.

    Attributes:
        sform_code: Code of the sform; 0 if it holds nothing.
        sform: Rows of the sform, from voxels (x, y, z) to units of space, right, anterior, superior.
        qform_code: Code of the qform; 0 if it holds nothing.
        quaternion: The rotation of the qform: b, c and d of a unit quaternion.
        offset: Position (x, y, z) of the first voxel by the qform.
        pixdim: Handedness of the qform, -1 or else 1, followed by the sizes of a voxel along (x, y, z).
        units: Code of the units of space and time.
        description: Any text.

    Example:
        >>> header = np.zeros(1, dtype=FIRST)[0]
        >>> header["sform_code"], header["srow"] = 1, [1, 0, 0, 0, 0, 2, 0, 0, 0, 0, 3, 0]
        >>> [affine.diagonal().tolist() for affine in NiftiPlacement.of_header(header).affines()]
        [[1.0, 2.0, 3.0, 1.0]]
    """

    sform_code: int
    sform: tuple[float, ...]
    qform_code: int
    quaternion: tuple[float, ...]
    offset: tuple[float, ...]
    pixdim: tuple[float, ...]
    units: int
    description: str

    @classmethod
    def of_header(cls, header: Any) -> Self:
        """Returns the placement of a header.

        Args:
            header: A record of the layout `FIRST` or `SECOND`, or of the layouts of nibabel, which split vectors.
        """
        names = header.dtype.names
        rows = [header["srow"]] if "srow" in names else [header[f"srow_{axis}"] for axis in "xyz"]
        quaternion = header["quatern"] if "quatern" in names else [header[f"quatern_{letter}"] for letter in "bcd"]
        offset = header["qoffset"] if "qoffset" in names else [header[f"qoffset_{axis}"] for axis in "xyz"]
        return cls(
            sform_code=int(header["sform_code"]),
            sform=tuple(map(float, np.concatenate(rows))),
            qform_code=int(header["qform_code"]),
            quaternion=tuple(map(float, quaternion)),
            offset=tuple(map(float, offset)),
            pixdim=tuple(map(float, header["pixdim"][:4])),
            units=int(header["xyzt_units"]),
            description=header["descrip"].item().decode("latin-1").rstrip("\0"),
        )

    @property
    def mm_per_unit(self) -> float:
        """Millimetres per unit of space."""
        return MM_PER_UNIT.get(self.units & UNIT_MASK, 1.0)

    @property
    def is_finite(self) -> bool:
        """Whether all numbers are finite; ITK does not check those that it calculates with."""
        return bool(np.isfinite([*self.sform, *self.quaternion, *self.offset, *self.pixdim]).all())

    def affines(self) -> list[NDArray[np.float64]]:
        """Returns the matrices that hold something, the sform first; none if none does.

        Returns:
            Matrices of shape (4, 4) from voxels (x, y, z) to mm, right, anterior, superior.
        """
        matrices = []
        if self.sform_code > 0:
            matrices.append(np.reshape(self.sform, (3, 4)))
        if self.qform_code > 0:
            matrices.append(self._qform())
        scaled = [np.vstack([self.mm_per_unit * matrix, [0, 0, 0, 1]]) for matrix in matrices]
        return [affine for affine in scaled if _is_usable(affine)]

    def _qform(self) -> NDArray[np.float64]:
        """Returns the first three rows of the qform. Source: nifti1.h, method 2."""
        b, c, d = self.quaternion
        length = math.sqrt(b * b + c * c + d * d)
        if length > 1:  # by rounding
            b, c, d = b / length, c / length, d / length
        a = math.sqrt(max(0.0, 1 - (b * b + c * c + d * d)))
        rotation = np.array(
            [
                [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
                [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
                [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
            ]
        )
        handedness, *sizes = self.pixdim
        steps = np.array([abs(size) or 1.0 for size in sizes]) * [1, 1, -1 if handedness < 0 else 1]
        return np.column_stack([rotation * steps, self.offset])


def _is_usable(affine: NDArray[np.float64]) -> bool:
    """Returns whether a matrix is finite, and leads to other places along each axis."""
    return bool(np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) > 0)


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
        return int(start) if 0 <= start < 2**62 else None

    @property
    def data_bytes(self) -> int:
        """Number of bytes that the voxels take."""
        return math.prod(self.sizes) * max(0, int(self.fields["bitpix"])) // 8

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
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(SECOND_BYTES)
    if not start.startswith(GZIP_START):
        return parse_header(start)
    try:
        with gzip.open(path) as packed:
            return parse_header(packed.read(SECOND_BYTES), is_packed=True)
    except (EOFError, OSError):  # it is damaged, which `nifti_checks` names
        return None


def is_nifti_name(path: Path) -> bool:
    """Returns whether the ending of a file is one of NIfTI's, in upper or lower case."""
    return path.name.lower().endswith((".nii", ".nii.gz"))
