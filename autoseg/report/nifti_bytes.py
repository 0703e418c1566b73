"""Volumes as the bytes of a NIfTI file, for a viewer in the browser; files on disk are written by `image_files`."""

import gzip

import numpy as np
from numpy.typing import NDArray

from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume_files.nifti_header import FIRST

CODES = {"uint8": (2, 8), "int16": (4, 16), "float32": (16, 32), "uint16": (512, 16)}
"""Code and bits of each type of voxels. Source: the header nifti1.h."""

HEADER_BYTES = 352
DISPLAY_MAX, DISPLAY_MIN = 124, 128  # Places of cal_max and cal_min, which viewers take for white and black
MILLIMETRES, SCANNER = 2, 1  # Codes of the unit of space, and of a place in the frame of the scanner


def encode_nifti(
    array: NDArray[np.generic],
    geometry: Geometry,
    *,
    scale: tuple[float, float] = (1.0, 0.0),
    window: tuple[float, float] | None = None,
    packed: bool = False,
) -> bytes:
    """Returns a volume as a NIfTI file.

    Args:
        array: Shape (z, y, x), of type uint8, int16, uint16 or float32.
        geometry: Its grid.
        scale: Slope and intercept: an intensity is slope x stored value + intercept.
        window: Intensities that are shown as black and as white; None leaves them to the viewer.
        packed: Whether the file is compressed with gzip.

    Example:
        >>> geometry = Geometry(shape=(1, 2, 3), spacing_mm=(2.0, 1.0, 1.0))
        >>> len(encode_nifti(np.zeros((1, 2, 3), np.uint8), geometry))
        358
    """
    header = np.zeros(1, dtype=FIRST)[0]
    code, bits = CODES[array.dtype.name]
    sizes = array.shape[::-1]
    header["sizeof_hdr"], header["magic"], header["vox_offset"] = 348, b"n+1", HEADER_BYTES
    header["dim"] = (3, *sizes, 1, 1, 1, 1)
    header["datatype"], header["bitpix"] = code, bits
    header["pixdim"] = (1, *geometry.spacing_mm[::-1], 0, 0, 0, 0)
    header["scl_slope"], header["scl_inter"] = scale
    header["xyzt_units"], header["sform_code"] = MILLIMETRES, SCANNER
    header["srow"] = make_affine(geometry).ravel()
    start = bytearray(header.tobytes().ljust(HEADER_BYTES, b"\0"))
    for place, level in zip((DISPLAY_MIN, DISPLAY_MAX), window or (0.0, 0.0), strict=True):
        start[place : place + 4] = np.array(level, dtype="<f4").tobytes()
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    content = bytes(start) + np.ascontiguousarray(little).tobytes()
    return gzip.compress(content, mtime=0) if packed else content


def make_affine(geometry: Geometry) -> NDArray[np.float64]:
    """Returns the rows of the sform, shape (3, 4): voxel (x, y, z) to mm towards right, anterior and superior.

    Example:
        >>> geometry = Geometry(shape=(1, 1, 1), spacing_mm=(3.0, 2.0, 1.0), origin_mm=(30.0, 20.0, 10.0))
        >>> make_affine(geometry)[:, 3].tolist()
        [-10.0, -20.0, 30.0]
    """
    columns = np.asarray(geometry.direction) * np.asarray(geometry.spacing_mm)
    affine = np.empty((3, 4))
    affine[:, :3] = columns[::-1, ::-1]
    affine[:, 3] = geometry.origin_mm[::-1]
    affine[:2] *= -1
    return affine
