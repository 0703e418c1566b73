"""A sorted DICOM series: which frames of which files are the slices of a volume, and where its voxels lie."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from autoseg.dicom.pixel_layout import PixelLayout
from autoseg.errors import ImageError
from autoseg.imaging.geometry import Geometry, Vector


@dataclass(frozen=True, slots=True, kw_only=True)
class Defect:
    """A reason why a series, as it is, cannot be read as a volume.

    Attributes:
        what: What is wrong, and where.
        fix: What to do about it, as an imperative.
    """

    what: str
    fix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One slice on disk: a file, or a frame of a file that holds several.

    Vectors are in the order of the standard, (x, y, z), in the patient's frame (left, posterior, superior).

    Attributes:
        path: The file.
        number: Number of the frame in the file, from 0; None if the file holds a single slice.
        sop_uid: SOP Instance UID of the file.
        position_mm: Image Position (Patient): the centre of the first voxel; None if the file does not state it.
        row_cosines: Unit vector along which the column index grows; None if the file does not state it.
        column_cosines: Unit vector along which the row index grows.
        size: Number of (rows, columns).
        spacing_mm: Distance between the centres of neighbouring (rows, columns).
        thickness_mm: Spacing between slices, or else the slice thickness, that the header states; None without either.
        instance: Instance Number; None if it is not stated.
        attributes: What may tell the volumes of one series apart, by keyword of the standard.
        slope: Rescale Slope: a real value is slope x stored value + intercept.
        intercept: Rescale Intercept.
        layout: How the file stores its voxels.
    """

    path: Path
    number: int | None
    sop_uid: str
    position_mm: Vector | None
    row_cosines: Vector | None
    column_cosines: Vector | None
    size: tuple[int, int]
    spacing_mm: tuple[float, float] | None
    thickness_mm: float | None = None
    instance: int | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    slope: float = 1.0
    intercept: float = 0.0
    layout: PixelLayout | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Frames that make one volume, sorted along the normal of the slices.

    The first frame is the slice z = 0 of the geometry. The array axes (z, y, x) run along the normal, which is the
    cross product of the directions of rows and columns, down the rows and along the columns; rows and columns are as in
    the files.

    Attributes:
        uid: Series Instance UID.
        study_uid: Study Instance UID.
        patient: Patient ID, which tells the patients of a folder apart; it is written nowhere.
        number: Series Number; None if it is not stated.
        description: Series Description; empty if it is not stated.
        modality: Modality, such as "CT" or "MR".
        part: What tells this volume from others of the same series, such as "EchoNumbers 2"; empty if it is the only
            one.
        frames: The slices, in the order of the array axis z.
        geometry: The grid of the volume; None if the series has a defect. It is sheared if the gantry was tilted.
        defect: Why the series cannot be read as a volume; None if it can.
        role: "localizer", "secondary capture" or "mosaic" for images that are no scans; empty otherwise.
        remarks: Oddities that are no reason not to read the series.
        straighten: Whether the slices of a tilted gantry are resampled to a straight grid when they are read.
        frame_of_reference: Frame of Reference UID; positions of series with the same one can be compared.
    """

    uid: str
    study_uid: str = ""
    patient: str = ""
    number: int | None = None
    description: str = ""
    modality: str = ""
    part: str = ""
    frames: tuple[Frame, ...]
    geometry: Geometry | None = None
    defect: Defect | None = None
    role: str = ""
    remarks: tuple[str, ...] = ()
    straighten: bool = False
    frame_of_reference: str = ""

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files of the series in the order of their first slices, each once."""
        return tuple(dict.fromkeys(frame.path for frame in self.frames))

    @property
    def key(self) -> tuple[str, str, Path]:
        """What tells this volume from all others of its files."""
        return self.uid, self.part, self.frames[0].path

    @property
    def name(self) -> str:
        """The series as people name it in messages, such as "series 4 't2_tse_tra' (MR)"."""
        number = "" if self.number is None else f" {self.number}"
        part = f", {self.part}" if self.part else ""
        return f"series{number} {self.description!r} ({self.modality}{part})"

    def grid(self) -> Geometry:
        """Returns the grid of the volume.

        Raises:
            ImageError: The series has a defect.
        """
        if self.defect is not None or self.geometry is None:
            defect = self.defect or Defect(what="it is no volume", fix="choose another series")
            raise ImageError(f"{self.frames[0].path.parent}, {self.name}: {defect.what}", defect.fix)
        return self.geometry
