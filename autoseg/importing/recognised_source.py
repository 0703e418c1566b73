"""What a foreign folder was found to hold, and which of its cases are complete."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoseg.datasets.dataset import Case
from autoseg.datasets.info import DatasetInfo
from autoseg.errors import DatasetError
from autoseg.imaging.image_headers import channels_in
from autoseg.importing import pairing
from autoseg.importing.structures import Structures
from autoseg.runtime.reporting import Reporter

if TYPE_CHECKING:
    from autoseg.importing.dicom_source import DicomDataset


KIND_UNKNOWN = (
    "The kind of image is not known and counts as MR (z-score); for CT, write 'CT' as the channel's name into "
    "dataset.json"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A recognised source, which `sources` imports.

    Attributes:
        info: Content of the new dataset.json.
        cases: Training cases, with their files in the source.
        tests: Scans without labels.
        numbers: Mask value to label number; empty if dataset.json states the numbers and they stay.
        structures: Structures and their numbers, if the label of a case is a folder of masks.
        notes: Further keys of the new dataset.json.
        splits: File of nnU-Net's folds of these cases.
        dicom: The cases and their masks, if they are in DICOM.
    """

    info: DatasetInfo
    cases: tuple[Case, ...]
    tests: tuple[Case, ...]
    numbers: dict[int, int] = field(default_factory=dict)
    structures: Structures | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    splits: Path | None = None
    dicom: "DicomDataset | None" = None


def select_complete(
    cases: tuple[Case, ...], counts: Mapping[str, int], expected: int | None, reporter: Reporter
) -> tuple[Case, ...]:
    """Leaves out cases whose number of channels differs from the expected one, or from that of most cases."""
    usual_count = expected or Counter(counts.values()).most_common(1)[0][0]
    kept = tuple(case for case in cases if counts[case.name] == usual_count)
    if not kept:
        raise DatasetError(f"no case has {usual_count} channels", "correct channel_names in dataset.json")
    pairing.report_left_out(
        f"Cases that do not have {usual_count} channels", counts.keys() - {case.name for case in kept}, reporter
    )
    return kept


def count_channels_of(case: Case) -> int:
    """Returns the number of channels of a case, with those that it lacks; reads the header of a single file."""
    if case.time_point is not None:
        return 1
    if case.series:
        return len(case.series)
    present = len(case.images) if len(case.images) > 1 else channels_in(case.images[0])
    return present + len(case.missing_channels) if present == len(case.images) else present
