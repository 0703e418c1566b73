"""NIfTI files that ITK cannot read, given to it as copies that it can; and headers of results.

ITK reads no NIfTI-2, no compressed file whose name does not end in .gz, and no matrix whose axes are not at right
angles or that is not finite; and it adds an intercept that does not count. A copy has a header of the first version
that says nothing of the place.
"""

import gzip
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import SimpleITK as sitk

from autoseg.errors import ImageError
from autoseg.imaging.formats import split_ending
from autoseg.imaging.volume_files.nifti_header import (
    DATA_OFFSET,
    FIRST,
    FIRST_BYTES,
    NiftiHeader,
)
from autoseg.imaging.volume_files.nifti_placement import NiftiPlacement

LARGEST_SIZE = 2**15 - 1
"""Largest number of voxels along an axis that a header of the first version holds."""

COMPRESSION = 6
"""Level of compression. Source: zlib's default, which ITK takes as well."""


def is_readable_by_itk(header: NiftiHeader, path: Path) -> bool:
    """Returns whether ITK reads a file as it is; matrices that are not at right angles it tells when it meets them."""
    is_named = path.name.endswith((".nii.gz", ".NII.GZ") if header.is_packed else (".nii", ".NII"))
    return header.version == 1 and is_named and header.placement.is_finite and not header.has_idle_intercept


@contextmanager
def plain_copy(path: Path, header: NiftiHeader) -> Iterator[Path]:
    """Gives an uncompressed copy of a file, without its place in space, which vanishes afterwards.

    Raises:
        ImageError: The file has too many voxels along an axis for the first version of the format.
    """
    with TemporaryDirectory() as folder:
        copy = Path(folder) / "image.nii"
        with gzip.open(path) if header.is_packed else path.open("rb") as source, copy.open("wb") as target:
            target.write(_plain_header(header, path))
            source.seek(header.data_start or 0)
            shutil.copyfileobj(source, target, 2**20)
        yield copy


def _plain_header(header: NiftiHeader, path: Path) -> bytes:
    """Returns a header of the first version, with its gap before the voxels, that describes the same voxels."""
    if max(header.sizes) > LARGEST_SIZE:
        raise ImageError(f"{path} has {max(header.sizes)} voxels along an axis", f"crop it to {LARGEST_SIZE} at most")
    fields = np.zeros(1, dtype=FIRST.newbyteorder(header.byte_order))
    for name in ("dim", "datatype", "bitpix", "scl_slope", "scl_inter"):
        fields[name] = header.fields[name]
    if header.has_idle_intercept:
        fields["scl_slope"] = fields["scl_inter"] = 0
    sizes = np.abs(np.nan_to_num(header.fields["pixdim"], nan=1.0, posinf=1.0, neginf=1.0))
    fields["pixdim"] = np.where(sizes == 0, 1.0, sizes)
    fields["pixdim"][:, 1:4] *= header.placement.mm_per_unit
    fields["sizeof_hdr"], fields["vox_offset"], fields["xyzt_units"] = FIRST_BYTES, DATA_OFFSET, 2
    fields["magic"] = b"n+1"
    return fields.tobytes() + bytes(DATA_OFFSET - FIRST_BYTES)


def write_placed(image: sitk.Image, placement: NiftiPlacement, path: Path) -> None:
    """Writes a NIfTI file with both matrices, codes, units and description of another one, on whose grid it is.

    Args:
        image: Image of SimpleITK.
        placement: What the header of the other file says.
        path: Path of the file; it is compressed if its name ends in .gz.
    """
    stem, ending = split_ending(path)
    plain = path.with_name(f"{stem}.nii")  # ITK would compress it before its header is right
    try:
        sitk.WriteImage(image, str(plain), imageIO="NiftiImageIO")
        _carry(placement, plain)
        if ending.lower() == ".nii.gz":
            _compress(plain, path)
        elif plain != path:
            plain.replace(path)
    finally:
        if plain != path:
            plain.unlink(missing_ok=True)


def _carry(placement: NiftiPlacement, path: Path) -> None:
    """Writes what another header says of its place into that of an uncompressed file of the first version."""
    with path.open("r+b") as file:
        header = bytearray(file.read(FIRST_BYTES))
        [fields] = np.frombuffer(header, dtype=FIRST)[:, np.newaxis]  # the same memory
        if fields["sizeof_hdr"] != FIRST_BYTES:
            raise ValueError(f"{path} has no header of the first version")
        fields["sform_code"], fields["qform_code"] = placement.sform_code, placement.qform_code
        fields["srow"], fields["quatern"], fields["qoffset"] = placement.sform, placement.quaternion, placement.offset
        fields["pixdim"][:, :4] = placement.pixdim
        fields["pixdim"][:, 4] /= placement.seconds_per_unit  # ITK has written seconds
        fields["xyzt_units"] = placement.units
        fields["descrip"] = placement.description.encode("latin-1", "replace")
        file.seek(0)
        file.write(header)


def _compress(path: Path, target: Path) -> None:
    """Compresses a file; the same content gives the same bytes."""
    with (
        path.open("rb") as source,
        target.open("wb") as raw,
        gzip.GzipFile("", "wb", COMPRESSION, raw, mtime=0) as packed,
    ):
        shutil.copyfileobj(source, packed, 2**20)
