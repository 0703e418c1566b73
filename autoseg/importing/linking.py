"""Raw datasets whose files are not copied: dataset.json lists the paths, and only what must be converted is written.

Decision: the list of paths is nnU-Net's own format. Symbolic links would need a privilege on Windows, and many tools
that copy or pack lose or follow them. Paths of files that stay are absolute, since a workspace is moved more often than
its data; those of files that are written lie in the dataset, and are relative to it.
"""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from autoseg.datasets.dataset import Case
from autoseg.datasets.info import DatasetInfo
from autoseg.errors import UsageError
from autoseg.imaging.image_headers import is_series
from autoseg.importing import pairing
from autoseg.importing.case_files import image_targets, label_target
from autoseg.importing.label_values import is_identity
from autoseg.importing.recognised_source import Source
from autoseg.runtime.reporting import list_names


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversions:
    """Which files of a linked dataset cannot be used as they are, and are written into it.

    Attributes:
        images: Name of each case whose images are written, to the reason.
        labels: Name of each case whose label map is written, to the reason.
    """

    images: Mapping[str, str]
    labels: Mapping[str, str]

    @property
    def names(self) -> frozenset[str]:
        """Names of the cases of which something is written."""
        return frozenset(self.images.keys() | self.labels.keys())

    def describe(self) -> Iterator[str]:
        """Yields a line for each reason.

        Example:
            >>> print(*Conversions(images={"a": "points in time are split"}, labels={}).describe())
            Written into the dataset, not linked: 1 image, because points in time are split: a
        """
        for kind, reasons in (("image", self.images), ("label map", self.labels)):
            cases: defaultdict[str, list[str]] = defaultdict(list)
            for name, reason in reasons.items():
                cases[reason].append(name)
            for reason, names in cases.items():
                count = f"{len(names)} {kind}{'s' * (len(names) > 1)}"
                yield f"Written into the dataset, not linked: {count}, because {reason}: {list_names(names)}"


def find_conversions(source: Source) -> Conversions:
    """Returns which files of a source, which is not in DICOM, cannot be used as they are.

    Raises:
        ImageError: A file cannot be read.
    """
    images = ((case.name, find_image_reason(case, source.info)) for case in source.cases)
    labels = ((case.name, _label_reason(case, source)) for case in source.cases)
    return Conversions(
        images={name: reason for name, reason in images if reason is not None},
        labels={name: reason for name, reason in labels if reason is not None},
    )


def describe_linked(source: Source, conversions: Conversions) -> tuple[DatasetInfo, dict[str, object]]:
    """Returns the content of dataset.json and its further keys, among them the list of files.

    Raises:
        UsageError: A path contains the name of an environment variable, which nnU-Net would expand.
    """
    listed: dict[str, object] = {}
    paths: set[Path] = set()
    for case in source.cases:
        if case.label is None:
            continue
        images, label = image_targets(case, source.info), label_target(case, source.info)
        has_new_images, has_new_label = case.name in conversions.images, case.name in conversions.labels
        paths.update(images if has_new_images else case.images, [label if has_new_label else case.label])
        listed[case.name] = {
            "images": [path.as_posix() for path in images] if has_new_images else [*map(absolute_path, case.images)],
            "label": label.as_posix() if has_new_label else absolute_path(case.label),
        }
    info = source.info.model_copy(update={"file_ending": _ending(paths, source.cases)})
    return info, {"numTraining": len(listed), **source.notes, "dataset": listed}


def find_image_reason(case: Case, info: DatasetInfo) -> str | None:
    """Returns why images of a case must be written anew; None if they need not be."""
    if case.time_point is not None:
        return "points in time are split"
    if info.channels > len(case.images) and is_series(case.images[0]):
        return "channels lie along a fourth axis"
    return None


def _label_reason(case: Case, source: Source) -> str | None:
    """Returns why the label map of a case must be written anew; None if it need not be."""
    if source.structures is not None:
        return "masks of single structures are joined"
    if case.time_point is not None:
        return "points in time are split"
    if not is_identity(source.numbers):
        values = ", ".join(map(str, sorted(source.numbers)))
        return f"the mask values {values} become 0 to {max(source.numbers.values())}"
    return None


def _ending(paths: set[Path], cases: tuple[Case, ...]) -> str:
    """Returns the file ending that all files share, else the ending that copies would have."""
    endings = {pairing.ending_of(path) for path in paths}
    return endings.pop() if len(endings) == 1 else pairing.common_ending(cases)


def absolute_path(path: Path) -> str:
    """Returns the absolute path; if the file itself is a symbolic link, the link is kept."""
    absolute = str(path.parent.resolve() / path.name)
    if os.path.expandvars(absolute) != absolute:
        raise UsageError(f"{absolute} holds the name of an environment variable", "rename that folder or file")
    return absolute
