"""NIfTI files with any header, written byte by byte."""

import gzip
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoseg.imaging.volume_files.nifti_header import FIRST, SECOND

CODES = {"uint8": 2, "int16": 4, "float32": 16}


def write_nifti(
    path: Path, array: NDArray[np.generic], *, version: int = 1, order: str = "<", packed: bool | None = None, **fields
) -> Path:
    """Writes voxels (x, y, z) with a header that has the given fields; by default no matrix holds anything.

    Args:
        path: Path of the file.
        array: Voxels along (x, y, z).
        version: Version of the format.
        order: Order of bytes.
        packed: Whether to compress; by default as the name says.
        fields: Fields of the header, by the names of the format.
    """
    layout = {1: FIRST, 2: SECOND}[version]
    header = np.zeros(1, dtype=layout.newbyteorder(order))
    usual = {
        "sizeof_hdr": layout.itemsize,
        "dim": [array.ndim, *array.shape, *[1] * (7 - array.ndim)],
        "datatype": CODES[str(array.dtype)],
        "bitpix": 8 * array.itemsize,
        "pixdim": [1, 1, 1, 2, 1, 1, 1, 1],
        "vox_offset": layout.itemsize + 4,
        "xyzt_units": 2,
        "magic": b"n+1" if version == 1 else b"n+2\0\r\n\x1a\n",
    }
    for name, value in {**usual, **fields}.items():
        header[name] = value
    voxels = array.astype(array.dtype.newbyteorder(order)).tobytes(order="F")
    content = header.tobytes() + bytes(4) + voxels
    packed = path.name.endswith(".gz") if packed is None else packed
    path.write_bytes(gzip.compress(content) if packed else content)
    return path
