"""Series of made-up slices on disk, in any orientation, with the `Series` that describes them."""

from pathlib import Path

import numpy as np

from autoseg.dicom.codes import find_codes
from autoseg.dicom.object_content import ModelIdentity, SlicedSegmentation
from autoseg.dicom.series import Frame, Series
from autoseg.dicom.source import read_source
from autoseg.imaging.geometry import Geometry

CT, ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1"

MODEL = ModelIdentity(name="Dataset007_Organs", digest="0123456789abcdef")

OBLIQUE = np.linalg.qr(np.array([[0.9, 0.2, -0.1], [-0.3, 0.8, 0.3], [0.1, -0.2, 0.95]]))[0]
ORIENTATIONS = {
    "axial": ([1, 0, 0], [0, 1, 0]),
    "negated columns": ([1, 0, 0], [0, -1, 0]),
    "negated rows": ([-1, 0, 0], [0, 1, 0]),
    "sagittal": ([0, 1, 0], [0, 0, -1]),
    "coronal": ([1, 0, 0], [0, 0, -1]),
    "oblique": (OBLIQUE[:, 0], OBLIQUE[:, 1]),
}
"""Name to the direction cosines of rows and of columns."""


def header(**attributes):
    """Returns the header of a CT slice, with the attributes that a series needs."""
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    stated = {
        "SOPClassUID": CT, "SOPInstanceUID": generate_uid(), "Modality": "CT", "PatientName": "Müller^Änne",
        "PatientID": "P-17", "PatientBirthDate": "19700101", "PatientSex": "F", "StudyDate": "20260102",
        "StudyTime": "101112", "StudyID": "7", "AccessionNumber": "A9", "ReferringPhysicianName": "Who^Doctor",
        "SeriesNumber": 4, "SpecificCharacterSet": "ISO_IR 100", "SamplesPerPixel": 1, "BitsAllocated": 16,
        "BitsStored": 16, "HighBit": 15, "PixelRepresentation": 1, "PhotometricInterpretation": "MONOCHROME2",
        "RescaleSlope": 1, "RescaleIntercept": 0, "KVP": 120, "PositionReferenceIndicator": "",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "Manufacturer": "Made up", "AcquisitionNumber": 1,
    }  # fmt: skip
    for keyword, value in (stated | attributes).items():
        if value is not None:
            setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def write_series(
    folder: Path,
    *,
    shape=(4, 7, 5),
    spacing_mm=(2.5, 0.7, 0.9),
    orientation="axial",
    backwards=False,
    pixels=None,
    **attributes,
) -> Series:
    """Writes a file for each slice, and returns the series sorted along its normal.

    Args:
        folder: Where the files go.
        shape: Number of slices, rows and columns.
        spacing_mm: Distance of slices, rows and columns.
        orientation: A name of `ORIENTATIONS`.
        backwards: Whether instance numbers and file names count against the normal.
        pixels: Array of `shape`; by default noise.
        attributes: Further attributes by keyword; None leaves one out.
    """
    from pydicom.uid import generate_uid

    folder.mkdir(parents=True, exist_ok=True)
    rows, columns = (np.asarray(vector, float) for vector in ORIENTATIONS[orientation])
    normal = np.cross(rows, columns)
    if pixels is None:
        pixels = np.random.default_rng(1).integers(-500, 500, shape)
    uids = {name: generate_uid() for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")}
    origin, frames = np.array([-31.7, 12.25, 103.5]), []
    for index in range(shape[0]):
        number = shape[0] - index if backwards else index + 1
        position = origin + index * spacing_mm[0] * normal
        dataset = header(
            **uids
            | {
                "InstanceNumber": number,
                "ImagePositionPatient": [f"{value:.10g}" for value in position],
                "ImageOrientationPatient": [f"{value:.10g}" for value in (*rows, *columns)],
                "PixelSpacing": list(spacing_mm[1:]),
                "SliceThickness": spacing_mm[0],
                "Rows": shape[1],
                "Columns": shape[2],
            }
            | attributes
        )
        dataset.PixelData = pixels[index].astype("<i2").tobytes()
        path = folder / f"slice_{number:03}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        frames.append(
            Frame(
                path=path,
                number=None,
                sop_uid=dataset.SOPInstanceUID,
                position_mm=tuple(position),
                row_cosines=tuple(rows),
                column_cosines=tuple(columns),
                size=shape[1:],
                spacing_mm=spacing_mm[1:],
                thickness_mm=spacing_mm[0],
                instance=number,
            )
        )
    directions = np.stack([normal[::-1], columns[::-1], rows[::-1]], axis=1)
    return Series(
        uid=uids["SeriesInstanceUID"],
        frames=tuple(frames),
        geometry=Geometry(
            shape=shape,
            spacing_mm=spacing_mm,
            origin_mm=tuple(origin[::-1]),
            direction=tuple(tuple(float(value) for value in row) for row in directions),
        ),
    )


def slice_segmentation(series: Series, label, structures) -> SlicedSegmentation:
    """Returns a label map on the slices of a series as a segmentation of `MODEL`."""
    codes = find_codes(structures)
    return SlicedSegmentation(label=label, structures=structures, codes=codes, source=read_source(series), model=MODEL)


def affine(geometry: Geometry) -> np.ndarray:
    """Returns the matrix from an index (x, y, z, 1) to mm, to the left, back and head."""
    matrix = np.eye(4)
    matrix[:3, :3] = (np.asarray(geometry.direction) * np.asarray(geometry.spacing_mm))[::-1, ::-1]
    matrix[:3, 3] = geometry.origin_mm[::-1]
    return matrix


def write_enhanced_series(folder: Path, *, shape=(4, 6, 5), spacing_mm=(2.5, 0.7, 0.9)) -> Series:
    """Writes one enhanced CT whose frames are stored from the last slice to the first.

    The last frame of the file lies elsewhere, and is no slice of the series.
    """
    from pydicom import Dataset
    from pydicom.uid import generate_uid

    def nested(keyword, **attributes):
        item, outer = Dataset(), Dataset()
        for name, value in attributes.items():
            setattr(item, name, value)
        setattr(outer, keyword, [item])
        return outer[keyword]

    folder.mkdir(parents=True, exist_ok=True)
    count, origin, organization = shape[0] + 1, np.array([-3.0, 2.0, 10.0]), generate_uid()
    positions = [origin + np.array([0, 0, index * spacing_mm[0]]) for index in range(count)]
    positions[-1] = origin - np.array([0, 0, 50.0])
    order = [*range(shape[0])[::-1], shape[0]]
    dataset = header(
        SOPClassUID=ENHANCED_CT, StudyInstanceUID=generate_uid(), SeriesInstanceUID=generate_uid(),
        FrameOfReferenceUID=generate_uid(), InstanceNumber=1, NumberOfFrames=count, Rows=shape[1], Columns=shape[2],
        ImageType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
    )  # fmt: skip
    shared = Dataset()
    shared.add(nested("PixelMeasuresSequence", PixelSpacing=list(spacing_mm[1:]), SliceThickness=spacing_mm[0]))
    shared.add(nested("PlaneOrientationSequence", ImageOrientationPatient=[1, 0, 0, 0, 1, 0]))
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.DimensionOrganizationSequence = [Dataset()]
    dataset.DimensionOrganizationSequence[0].DimensionOrganizationUID = organization
    dataset.PerFrameFunctionalGroupsSequence = []
    for index in order:
        frame = Dataset()
        frame.add(nested("PlanePositionSequence", ImagePositionPatient=positions[index].tolist()))
        frame.add(nested("FrameContentSequence", DimensionIndexValues=[index + 1], StackID="1"))
        dataset.PerFrameFunctionalGroupsSequence.append(frame)
    dataset.PixelData = np.zeros((count, *shape[1:]), "<i2").tobytes()
    path = folder / "enhanced.dcm"
    dataset.save_as(path, enforce_file_format=True)
    frames = tuple(
        Frame(
            path=path,
            number=order.index(index),
            sop_uid=dataset.SOPInstanceUID,
            position_mm=tuple(positions[index]),
            row_cosines=(1.0, 0.0, 0.0),
            column_cosines=(0.0, 1.0, 0.0),
            size=shape[1:],
            spacing_mm=spacing_mm[1:],
        )
        for index in range(shape[0])
    )
    geometry = Geometry(shape=shape, spacing_mm=spacing_mm, origin_mm=tuple(origin[::-1]))
    return Series(uid=dataset.SeriesInstanceUID, frames=frames, geometry=geometry)
