"""Raw datasets whose files are not copied: dataset.json lists the paths, and nothing else is written.

Decision: the list of paths is nnU-Net's own format. Symbolic links would need a privilege on Windows, and many tools
that copy or pack lose or follow them. Paths are absolute, since a workspace is moved more often than its data.
"""

import os
from pathlib import Path

from autoseg.datasets.dataset import Case
from autoseg.datasets.info import DatasetInfo
from autoseg.errors import UsageError
from autoseg.imaging.image_headers import is_series
from autoseg.importing import pairing
from autoseg.importing.label_values import is_identity
from autoseg.importing.recognition import Source


def check_linkable(source: Source) -> None:
    """Checks that every file can be used without conversion.

    Raises:
        UsageError: Some files must be converted; the text says why.
        ImageError: A file cannot be read.
    """
    if reason := _find_conversion(source):
        raise UsageError(f"the files cannot stay where they are, because {reason}", "import a copy, without --link")


def describe_linked(source: Source) -> tuple[DatasetInfo, dict[str, object]]:
    """Returns the content of dataset.json and its further keys, among them the list of files.

    Raises:
        UsageError: A path contains the name of an environment variable, which nnU-Net would expand.
    """
    listed = {
        case.name: {"images": [_absolute(path) for path in case.images], "label": _absolute(case.label)}
        for case in source.cases
        if case.label is not None
    }
    info = source.info.model_copy(update={"file_ending": _ending(source.cases)})
    return info, {"numTraining": len(listed), **source.notes, "dataset": listed}


def _find_conversion(source: Source) -> str | None:
    """Returns why files must be converted; None if they need not be."""
    if source.structures is not None:
        return "masks of single structures must be joined into label maps"
    if not is_identity(source.numbers):
        values = ", ".join(map(str, sorted(source.numbers)))
        return f"the mask values {values} must be numbered 0 to {max(source.numbers.values())}"
    multichannel = (case.images[0] for case in source.cases if source.info.channels > len(case.images))
    series = next((path for path in multichannel if is_series(path)), None)
    return None if series is None else f"{series} holds all channels as a fourth dimension, which must be split"


def _ending(cases: tuple[Case, ...]) -> str:
    """Returns the file ending that all files share, else the ending that copies would have."""
    endings = {pairing.ending_of(path) for case in cases for path in (*case.images, case.label) if path}
    return endings.pop() if len(endings) == 1 else pairing.common_ending(cases)


def _absolute(path: Path) -> str:
    """Returns the absolute path; if the file itself is a symbolic link, the link is kept."""
    absolute = str(path.parent.resolve() / path.name)
    if os.path.expandvars(absolute) != absolute:
        raise UsageError(f"{absolute} holds the name of an environment variable", "rename that folder or file")
    return absolute
