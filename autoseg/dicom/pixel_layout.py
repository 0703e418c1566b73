"""How the voxels of a DICOM file are stored: what is needed to read them, without reading the header again."""

from dataclasses import dataclass
from typing import Any

UNCOMPRESSED = {
    "1.2.840.10008.1.2": "<",
    "1.2.840.10008.1.2.1": "<",
    "1.2.840.10008.1.2.2": ">",
}
"""Transfer syntaxes whose pixels are plain numbers, and the order of their bytes. Source: PS3.5, annex A."""

DEFLATED = "1.2.840.10008.1.2.1.99"
JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
RLE = "1.2.840.10008.1.2.5"
JPEG_8_BIT = "1.2.840.10008.1.2.4.50"
JPEG = ("1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
"""JPEG of 12 bits and lossless JPEG."""

SUPPORTED = {*UNCOMPRESSED, DEFLATED, *JPEG_2000, *JPEG_LS, RLE, JPEG_8_BIT, *JPEG}

WITHOUT_UNIT = ("CR", "DX", "IO", "MG", "MR", "PX", "RF", "RG", "XA")
"""Modalities whose values have no physical unit, so that MONOCHROME1, where low values are white, is inverted.

Decision: values of a CT are Hounsfield units, and those of a PET activities, whichever way they are displayed.
"""


class UnsupportedPixelsError(Exception):
    """Pixels of a kind that is not read; the text says which, as a sentence about the series."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelLayout:
    """How a file stores its voxels; see PS3.3 of the standard, section C.7.6.3.

    Attributes:
        transfer_syntax: UID of the transfer syntax.
        offset: Position in the file of the element with the pixels.
        frames: Number of frames in the file.
        bits_allocated: Bits of a voxel in the file.
        bits_stored: Bits of a voxel that count.
        low_bits: Bits below those that count; 0 in nearly all files. Older editions of the standard allow others.
        signed: Whether voxels may be negative.
        inverted: Whether low values are white, and values have no unit.
        is_float: Whether voxels are floating-point numbers.
        has_table: Whether a table leads from stored to real values, in place of slope and intercept.
    """

    transfer_syntax: str
    offset: int
    frames: int = 1
    bits_allocated: int = 16
    bits_stored: int = 16
    low_bits: int = 0
    signed: bool = False
    inverted: bool = False
    is_float: bool = False
    has_table: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether the voxels can be read from the file as they are."""
        return self.transfer_syntax in UNCOMPRESSED and self.bits_allocated in (8, 16, 32, 64)

    def check_size(self, file_bytes: int, pixels: int) -> None:
        """Checks that a file is as large as the frames that it states.

        Raises:
            ValueError: It is smaller.
        """
        needed = pixels * self.bits_allocated // 8 * self.frames if self.is_plain else self.frames
        if self.transfer_syntax != DEFLATED and needed > file_bytes:
            raise ValueError(f"its voxels take {needed} bytes, and it holds {file_bytes}")


def find_layout(dataset: Any, transfer_syntax: str, offset: int, modality: str) -> PixelLayout:
    """Returns how a data set stores its voxels.

    Raises:
        UnsupportedPixelsError: It has colours, impossible numbers of bits, or a compression that is not decoded.
    """
    samples, photometric = int(dataset.get("SamplesPerPixel") or 1), str(dataset.get("PhotometricInterpretation") or "")
    if samples != 1 or photometric not in ("", "MONOCHROME1", "MONOCHROME2"):
        raise UnsupportedPixelsError("its voxels are colours")
    if transfer_syntax not in SUPPORTED:
        raise UnsupportedPixelsError(f"its transfer syntax {transfer_syntax} is not supported")
    allocated = int(dataset.get("BitsAllocated") or 16)
    stored = int(dataset.get("BitsStored") or allocated)
    if allocated not in (8, 16, 32, 64) or not 0 < stored <= allocated:
        raise UnsupportedPixelsError(f"it states {stored} bits in {allocated}")
    low_bits = max(0, int(dataset.get("HighBit") or stored - 1) + 1 - stored)
    if low_bits + stored > allocated or (low_bits and transfer_syntax not in UNCOMPRESSED):
        raise UnsupportedPixelsError(f"it states that the highest of {stored} bits is bit {dataset.HighBit}")
    return PixelLayout(
        transfer_syntax=transfer_syntax,
        offset=offset,
        frames=int(dataset.get("NumberOfFrames") or 1),
        bits_allocated=allocated,
        bits_stored=stored,
        low_bits=low_bits,
        signed=bool(dataset.get("PixelRepresentation") or 0),
        inverted=photometric == "MONOCHROME1" and modality in WITHOUT_UNIT,
        is_float=photometric == "" or "BitsStored" not in dataset,
        has_table="ModalityLUTSequence" in dataset,
    )
