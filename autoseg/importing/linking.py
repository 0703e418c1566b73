"""A raw dataset whose files stay where they are: dataset.json lists them, and nothing else is written.

Decision: a list, which is nnU-Net's own format, and no symbolic links: those need a privilege on Windows, and are lost
or followed by many tools that copy and pack. Paths are absolute, since a workspace is moved more often than its data.
"""

import os
from pathlib import Path

from autoseg.datasets.dataset import Case
from autoseg.datasets.info import DatasetInfo
from autoseg.errors import UsageError
from autoseg.imaging.files import is_series
from autoseg.importing import pairing
from autoseg.importing.label_values import stay
from autoseg.importing.recognition import Source


def refuse_unless_in_place(source: Source) -> None:
    """Makes sure that every file can be used as it is.

    Raises:
        UsageError: Some must be converted; the text says why.
        ImageError: A file cannot be read.
    """
    if reason := _why_converted(source):
        raise UsageError(f"the files cannot stay where they are, because {reason}", "import a copy, without --link")


def describe_in_place(source: Source) -> tuple[DatasetInfo, dict[str, object]]:
    """The content of dataset.json and its further keys, among them the list of files.

    Raises:
        UsageError: A path holds the name of an environment variable, which nnU-Net would replace.
    """
    listed = {
        case.name: {"images": [_absolute(path) for path in case.images], "label": _absolute(case.label)}
        for case in source.cases
        if case.label is not None
    }
    info = source.info.model_copy(update={"file_ending": _ending(source.cases)})
    return info, {"numTraining": len(listed), **source.notes, "dataset": listed}


def _why_converted(source: Source) -> str | None:
    if source.structures is not None:
        return "masks of single structures must be joined into label maps"
    if not stay(source.numbers):
        values = ", ".join(map(str, sorted(source.numbers)))
        return f"the mask values {values} must be numbered 0 to {max(source.numbers.values())}"
    several = (case.images[0] for case in source.cases if source.info.channels > len(case.images))
    series = next((path for path in several if is_series(path)), None)
    return None if series is None else f"{series} holds all channels as a fourth dimension, which must be split"


def _ending(cases: tuple[Case, ...]) -> str:
    """What all files share; else as if they were copied."""
    endings = {pairing.ending_of(path) for case in cases for path in (*case.images, case.label) if path}
    return endings.pop() if len(endings) == 1 else pairing.common_ending(cases)


def _absolute(path: Path) -> str:
    """The path from the root; a file that is a link itself stays one."""
    absolute = str(path.parent.resolve() / path.name)
    if os.path.expandvars(absolute) != absolute:
        raise UsageError(f"{absolute} holds the name of an environment variable", "rename that folder or file")
    return absolute
