"""Headers of NIfTI files that are written for a scan: what its own header says of its place is carried to them."""

import gzip
import shutil
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from autoseg.imaging.formats import split_ending
from autoseg.imaging.volume_files.nifti_header import FIRST, FIRST_BYTES, is_nifti_name, read_header
from autoseg.imaging.volume_files.nifti_placement import NiftiPlacement

BLOCK_BYTES = 2**20

COMPRESSION = 6
"""Level of compression. Source: zlib's default, which ITK takes as well."""


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
        shutil.copyfileobj(source, packed, BLOCK_BYTES)


def is_cut_off(path: Path) -> bool:
    """Returns whether a NIfTI file that was just written ends before its last voxel; False for another ending.

    The library that writes NIfTI files reports success when the disk is full.
    """
    if not is_nifti_name(path):
        return False
    unpacked = 0
    try:
        header = read_header(path)
        if header is None:
            return True
        with gzip.open(path) if header.is_packed else path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                unpacked += len(block)
    except EOFError:
        return True
    return unpacked < header.first_voxel + header.data_bytes
