"""Files and folders that are passed over where scans are looked for: each kind is named once, with what to do."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from autoseg.imaging.foreign_formats import ForeignFormat, recognise_content, recognise_name
from autoseg.imaging.formats import split_ending
from autoseg.runtime.reporting import Reporter, list_names

SEG = ".seg"
"""What Slicer writes between the name of a scan and the ending of its segmentation: scan.seg.nrrd."""

NO_SCANS = (".json", ".txt", ".csv", ".tsv", ".md", ".pdf", ".xlsx", ".xml", ".html", ".bval", ".bvec", ".py", ".log")
"""Endings of files that lie beside scans and that nobody takes for one."""

NO_SCAN_KINDS = ("a text", "a PDF", "a web page", "empty", "nothing but zeros", "a placeholder of iCloud or")
"""Beginnings of the names of kinds that are no scans, in files whose name does not promise one."""

SEGMENTATION = ForeignFormat(name="a segmentation of Slicer beside its scan", fix="leave it, or give it to 'evaluate'")
SUBFOLDER = ForeignFormat(name="a subfolder with images", fix="give that folder, or bring all scans into one folder")

OUTPUTS = ("probabilities", "disagreement")
DEEPEST = 2
"""Levels of subfolders in which images are looked for. Decision: a patient and a visit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PassedOver:
    """Files of one kind that are no scans for this program.

    Attributes:
        names: Their names, at least one.
        kind: What they are, and what to do with them.
    """

    names: tuple[str, ...]
    kind: ForeignFormat

    def describe(self) -> str:
        """Returns what was passed over, such as "2 of a.dcm, b.dcm, each a DICOM file".

        Example:
            >>> PassedOver(names=("a.mgz",), kind=ForeignFormat(name="a FreeSurfer image", fix="")).describe()
            'a.mgz, a FreeSurfer image'
        """
        if len(self.names) == 1:
            return f"{self.names[0]}, {self.kind.name}"
        return f"{len(self.names)} entries ({list_names(self.names, most=3, count_rest=False)}), each {self.kind.name}"


def find_passed_over(folder: Path) -> list[PassedOver]:
    """Returns what a folder holds that is like a scan and is not read as one, ordered by its first name.

    Files that are read here, and files that nobody takes for scans, are not among it. No file is read further than its
    first bytes.
    """
    if not folder.is_dir():
        return []
    entries = sorted(folder.iterdir())
    stems = {split_ending(path)[0] for path in entries if split_ending(path)[1]}
    kinds: dict[ForeignFormat, list[str]] = {}
    for path in entries:
        kind = _kind_of(path, stems)
        if kind is not None:
            kinds.setdefault(kind, []).append(path.name)
    return [PassedOver(names=tuple(names), kind=kind) for kind, names in kinds.items()]


def describe_passed_over(folder: Path) -> Iterator[str]:
    """Yields a line for each kind that is passed over in a folder."""
    for passed in find_passed_over(folder):
        yield f"passed over in {folder}: {passed.describe()}; {passed.kind.fix}"


def say_passed_over(folders: Iterable[Path], reporter: Reporter) -> None:
    """Says which files and folders are passed over, once for each kind and folder."""
    for folder in folders:
        for line in describe_passed_over(folder):
            reporter.say(line)


def is_beside_its_scan(stem: str, stems: Iterable[str]) -> bool:
    """Returns whether a name is that of Slicer's segmentation of a scan that is there as well."""
    return stem.lower().endswith(SEG) and stem[: -len(SEG)] in stems


def _kind_of(path: Path, stems: set[str]) -> ForeignFormat | None:
    stem, ending = split_ending(path)
    if path.is_dir():
        is_other = not path.name.startswith(".") and path.name not in OUTPUTS
        return SUBFOLDER if is_other and _holds_images(path, DEEPEST) else None
    if ending or path.name.startswith("."):
        hidden = recognise_name(path) if path.name.endswith(".icloud") else None
        return SEGMENTATION if ending and is_beside_its_scan(stem, stems) else hidden
    if path.name.lower().endswith(NO_SCANS) or not path.is_file():
        return None
    return recognise_name(path) or _recognise_scan(path)


def _recognise_scan(path: Path) -> ForeignFormat | None:
    """Returns the kind of a file by its content; None if it is no kind of scan, or cannot be read."""
    try:
        kind = recognise_content(path)
    except OSError:
        return None
    return None if kind is None or kind.name.startswith(NO_SCAN_KINDS) else kind


def _holds_images(folder: Path, levels: int) -> bool:
    try:
        entries = list(folder.iterdir())
    except OSError:
        return False
    if any(split_ending(path)[1] or recognise_name(path) for path in entries if not path.name.startswith(".")):
        return True
    return levels > 1 and any(_holds_images(path, levels - 1) for path in entries if path.is_dir())
