"""Where the voxels of a NIfTI file lie in space, by the two matrices of its header.

A NIfTI file has two matrices that say where its voxels lie: the sform, twelve numbers, and the qform, a rotation with
the sizes of the voxels. Each has a code, which is 0 if the matrix holds nothing. Where both hold something, they may
differ: programs that align scans write the sform and leave the qform as the scanner had it.

The rule of this program, for every reader: the sform if its code is above 0, else the qform if its code is above 0,
else the sizes of the voxels alone, with the first voxel at 0 and the axes as those of the patient. A matrix that is
not finite, or has an axis of no length, does not count, and neither does a sform with a shear beyond
`affine_geometry.RIGHT_ANGLE_TOLERANCE` if there is a qform. Source: nibabel, FSL, SPM and FreeSurfer take the sform
first. ITK takes the qform in most cases, so programs built on it may show a scan elsewhere; results carry both
matrices of their scan, so each program shows them where it shows the scan.
"""

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

UNIT_MASK = 0b111
"""The bits of `xyzt_units` that hold the unit of space."""

MM_PER_UNIT = {1: 1000.0, 3: 0.001}
"""Millimetres per unit of space, by its code: metres and micrometres; all other codes are taken for millimetres."""

TIME_MASK = 0b111000
"""The bits of `xyzt_units` that hold the unit of time."""

SECONDS_PER_UNIT = {16: 0.001, 24: 0.000001}
"""Seconds per unit of time, by its code: milliseconds and microseconds; all other codes are taken for seconds."""


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
        >>> from autoseg.imaging.volume_files.nifti_header import FIRST
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
    def seconds_per_unit(self) -> float:
        """Seconds per unit of time."""
        return SECONDS_PER_UNIT.get(self.units & TIME_MASK, 1.0)

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


def find_quaternion(rotation: NDArray[np.floating]) -> tuple[float, float, float]:
    """Returns b, c and d of the unit quaternion, with a of at least 0, of the rotation that is nearest to a matrix.

    Source: Bar-Itzhack, New method for extracting the quaternion from a rotation matrix, 2000: it is the eigenvector of
    the largest eigenvalue of a symmetric matrix.

    Args:
        rotation: Shape (3, 3); a rotation, but for rounding.

    Example:
        >>> [abs(round(number, 6)) for number in find_quaternion(np.diag([-1.0, -1.0, 1.0]))]
        [0.0, 0.0, 1.0]
    """
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = np.asarray(rotation, dtype=float)
    symmetric = [
        [xx + yy + zz, zy - yz, xz - zx, yx - xy],
        [zy - yz, xx - yy - zz, xy + yx, xz + zx],
        [xz - zx, xy + yx, yy - xx - zz, yz + zy],
        [yx - xy, xz + zx, yz + zy, zz - xx - yy],
    ]
    a, b, c, d = np.linalg.eigh(symmetric).eigenvectors[:, -1]
    sign = -1.0 if a < 0 else 1.0
    return float(sign * b), float(sign * c), float(sign * d)


def _is_usable(affine: NDArray[np.float64]) -> bool:
    """Returns whether a matrix is finite, and leads to other places along each axis."""
    return bool(np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) > 0)
