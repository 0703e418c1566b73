"""Decodes compressed pixel data of DICOM files, with a decoder for each transfer syntax."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.dicom.pixel_layout import JPEG, JPEG_8_BIT, JPEG_2000, JPEG_LS, RLE
from autoseg.imaging.itk_reading import ITK_READING

PLUGINS = {
    **dict.fromkeys(JPEG_2000, "pillow"),
    **dict.fromkeys(JPEG_LS, "pyjpegls"),
    RLE: "pydicom",
    JPEG_8_BIT: "pillow",
}
"""Decoder of each other transfer syntax, by the name that pydicom has for it.

Decision: they are named, since pydicom would else take what happens to be installed, and python-gdcm ends the whole
program on some data.
"""

PIXEL_MODULE = (
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
)
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def decode_frames(dataset: Any, indices: Sequence[int]) -> Iterator[NDArray[Any]]:
    """Yields frames of a data set that holds pixel data, as they are stored.

    Args:
        dataset: The data set of pydicom, with its file meta information.
        indices: Numbers of the frames, from 0.

    Raises:
        ValueError: They cannot be decoded.
    """
    from pydicom.pixels import iter_pixels

    syntax = str(dataset.file_meta.TransferSyntaxUID)
    try:
        if syntax in JPEG:
            yield from _decode_by_itk(dataset, indices, syntax)
            return
        for pixels in iter_pixels(dataset, indices=list(indices), raw=True, decoding_plugin=PLUGINS.get(syntax, "")):
            yield np.asarray(pixels)
    except RuntimeError as error:
        raise ValueError(f"its pixels, of transfer syntax {syntax}, cannot be decoded") from error


def _decode_by_itk(dataset: Any, indices: Sequence[int], syntax: str) -> Iterator[NDArray[Any]]:
    """Decodes frames by SimpleITK, each as a file that holds nothing but its pixels, so that they are not rescaled."""
    import SimpleITK as sitk
    from pydicom.encaps import generate_frames

    count = int(dataset.get("NumberOfFrames") or 1)
    frames = list(islice(generate_frames(dataset.PixelData, number_of_frames=count), count))
    with TemporaryDirectory() as folder:
        for index in indices:
            path = Path(folder) / f"{index}.dcm"
            _write_frame(dataset, frames[index], path, syntax)
            reader = sitk.ImageFileReader()
            reader.SetImageIO("GDCMImageIO")
            reader.SetFileName(str(path))
            with ITK_READING:
                pixels = sitk.GetArrayFromImage(reader.Execute())[0]
            yield pixels
            path.unlink()


def _write_frame(dataset: Any, frame: bytes, path: Path, syntax: str) -> None:
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import UID, generate_uid

    single = Dataset()
    single.file_meta = FileMetaDataset()
    single.file_meta.TransferSyntaxUID = UID(syntax)
    single.SOPClassUID, single.SOPInstanceUID = SECONDARY_CAPTURE, generate_uid()
    single.file_meta.MediaStorageSOPClassUID = single.SOPClassUID
    single.file_meta.MediaStorageSOPInstanceUID = single.SOPInstanceUID
    for keyword in PIXEL_MODULE:
        setattr(single, keyword, dataset[keyword].value)
    single.PhotometricInterpretation = "MONOCHROME2"
    single.PixelData = encapsulate([frame])
    single["PixelData"].VR, single["PixelData"].is_undefined_length = "OB", True
    single.save_as(path, enforce_file_format=True)
