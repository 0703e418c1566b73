"""Segmentation of a folder of scans: which scans and probabilities, where results go, and which errors are reported."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from secrets import token_hex
from typing import Self

from autoseg._version import __version__
from autoseg.datasets.dataset import Case
from autoseg.datasets.info import BACKGROUND, DatasetInfo, info_file
from autoseg.datasets.scans import DISAGREEMENT_FOLDER, PROBABILITIES_FOLDER, result_ending
from autoseg.errors import ProblemsError, UsageError, WriteError
from autoseg.imaging.label_files import file_stem, result_path
from autoseg.inference.interfaces import ImageSegmenter
from autoseg.inference.report import ReportWriter, describe_remarkable, name_table
from autoseg.inference.scan_pipeline import ScanReport, segment_each
from autoseg.runtime.artifact import Artifact, atomic_file
from autoseg.runtime.reporting import Reporter

PROVENANCE_FILE = "prediction.json"

PART = re.compile(r"^(\d{1,4})/(\d{1,4})\Z")


def make_output_folder(output: Path, source: Path) -> Path:
    """Makes the folder for the results, and finds out before the work whether it can be written.

    Args:
        output: The folder.
        source: The folder of the scans, or one scan.

    Returns:
        The folder.

    Raises:
        UsageError: The folder holds the scans.
        WriteError: It cannot be written.
    """
    if output.resolve() == (source.parent if source.is_file() else source).resolve():
        raise UsageError(f"{output} holds the scans, which the results would replace", "give another folder with -o")
    check_writable(output)
    return output


def check_writable(folder: Path) -> None:
    """Finds out before the work whether a folder can be written; several programs may do so at the same time.

    Raises:
        WriteError: It cannot be made or written.
    """
    trial = folder / f".writable_{token_hex(4)}"
    with atomic_file(trial) as probe:
        probe.touch()
    trial.unlink()


def choose_labels(names: str | Sequence[str], info: DatasetInfo) -> dict[str, int]:
    """Returns the labels whose probabilities are asked for.

    Example:
        >>> info = DatasetInfo(channel_names={"0": "CT"}, labels={"background": 0, "liver": 1}, file_ending=".nii.gz")
        >>> choose_labels("all", info)
        {'liver': 1}

    Args:
        names: Name of a label, or several; "all" stands for each label but the background, which has to be named.
            Models with regions have no background.
        info: Labels of the model.

    Returns:
        Name of each label to its output of the networks.

    Raises:
        UsageError: The model has no such label.
    """
    chosen: dict[str, int] = {}
    outputs = ({BACKGROUND: 0} if info.targets.exclusive else {}) | info.targets.output_of
    for name in [names] if isinstance(names, str) else names:
        if name == "all":
            chosen |= info.targets.output_of
        elif name in outputs:
            chosen[name] = outputs[name]
        else:
            raise UsageError(f"the model has no label {name!r}", f"choose from {', '.join(outputs)}, or 'all'")
    return chosen


def name_probability_maps(scans: Sequence[Case], labels: Mapping[str, int]) -> dict[str, dict[int, str]]:
    """Returns the file names of probability maps.

    Example:
        >>> scan = Case(name="liver_01", images=(Path("liver_01_0000.nii.gz"),))
        >>> name_probability_maps([scan], {"kidney, left": 2})
        {'liver_01': {2: 'liver_01_kidney_left.nii.gz'}}

    Args:
        scans: Cases without labels.
        labels: Name of each label to its output of the networks; see `choose_labels`.

    Returns:
        Name of a scan, to output of a label, to name of the file.

    Raises:
        UsageError: Two maps would have the same file, on a file system that does not tell Kidney from kidney either.
    """
    names: dict[str, dict[int, str]] = {scan.name: {} for scan in scans}
    owners: dict[str, str] = {}
    for scan in scans:
        for label, number in labels.items():
            name = f"{scan.name}_{file_stem(label)}{result_ending(scan)}"
            owner = f"label {label!r} of scan {scan.name!r}"
            other = owners.setdefault(name.casefold(), owner)
            if other != owner:
                what = f"the probabilities of {other} and of {owner} would both be written to {name}"
                raise UsageError(what, "ask for them one after the other, in different folders")
            names[scan.name][number] = name
    return names


def choose_part(scans: Sequence[Case], part: str | None) -> list[Case]:
    """Returns the scans for one of several machines that share a folder: "2/4" takes the second, the sixth, and so on.

    Raises:
        UsageError: The text is no part such as "2/4".
    """
    if part is None:
        return list(scans)
    match = PART.match(part)
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= count:
        raise UsageError(f"{part!r} is no part of a whole", "write 1/4, 2/4, 3/4 and 4/4 for four machines")
    return list(scans[number - 1 :: count])


class PredictionProvenance(Artifact):
    """The model that made the segmentations of a folder; prediction.json.

    Segmentations that are older than this file were made by another model.

    Attributes:
        program: Version of autoseg.
        dataset: Name of the dataset that the model was trained on.
        model: Digest of the networks, their plan and their postprocessing; see `Segmenter.digest`.
        postprocessing: Description of the postprocessing.
    """

    program: str
    dataset: str
    model: str
    postprocessing: str

    @classmethod
    def of(cls, segmenter: ImageSegmenter) -> Self:
        """Returns the provenance of the segmentations of a model."""
        return cls(
            program=__version__,
            dataset=segmenter.dataset,
            model=segmenter.digest,
            postprocessing=segmenter.rules.describe(),
        )

    def is_in(self, output: Path) -> bool:
        """Returns whether the present segmentations in a folder were made by this model."""
        path = output / PROVENANCE_FILE
        return path.is_file() and PredictionProvenance.load(path).model == self.model


def leave_out_finished(
    segmenter: ImageSegmenter, scans: Sequence[Case], output: Path, labels: Mapping[str, int]
) -> list[Case]:
    """Returns the scans that still lack a result of this model in a folder, or a map that is asked for.

    A file that is there is complete, since each is written as a whole or not at all.

    Args:
        segmenter: The model.
        scans: Cases without labels.
        output: Folder of the results.
        labels: Labels whose probabilities are asked for; see `choose_labels`.
    """
    if not PredictionProvenance.of(segmenter).is_in(output):
        return list(scans)
    maps, since = name_probability_maps(scans, labels), (output / PROVENANCE_FILE).stat().st_mtime_ns

    def is_finished(scan: Case) -> bool:
        result = result_path(output / (scan.name + result_ending(scan)), segmenter.info.targets)
        files = [result, *(output / PROBABILITIES_FOLDER / name for name in maps[scan.name].values())]
        if segmenter.maps_disagreement:
            files.append(output / DISAGREEMENT_FOLDER / (scan.name + result_ending(scan)))
        return all(path.exists() and path.stat().st_mtime_ns >= since for path in files)

    return [scan for scan in scans if not is_finished(scan)]


def ask_for_disagreement(segmenter: ImageSegmenter) -> ImageSegmenter:
    """Returns the same model, which also maps where its folds and mirror images disagree.

    Raises:
        UsageError: The model is one fold without mirroring, which has nothing to disagree with.
    """
    if segmenter.votes == 1:
        what = "one fold without mirroring has nothing to disagree with"
        raise UsageError(what, "predict with several folds, or leave out --disagreement")
    return segmenter.with_disagreement()


def segment_scans(
    segmenter: ImageSegmenter,
    scans: Sequence[Case],
    output: Path,
    labels: Mapping[str, int],
    reporter: Reporter,
    *,
    part: str | None = None,
) -> list[Path]:
    """Segments scans one after the other; one that cannot be segmented does not stop the others.

    Args:
        segmenter: The model.
        scans: Cases without labels.
        output: Folder for the results, for a dataset.json that names their labels, for a prediction.json that says
            which model made them, and for a table of the scans; see `report`.
        labels: Labels whose probabilities are written too, into a folder of their own; see `choose_labels`.
        reporter: Shows progress, and gets a line for each result that deserves a look.
        part: Which part of all scans these are, such as "2/4"; then the table has a name of its own.

    Returns:
        Paths of the segmentations that were written. Where one is, the probabilities of its scan are complete.

    Raises:
        UsageError: Two maps of probabilities would have the same file.
        ProblemsError: Some scans could not be segmented, each with its line.
    """
    maps = name_probability_maps(scans, labels)
    reports: list[ScanReport] = []
    failures: list[str] = []
    table = ReportWriter(
        output / name_table(part), segmenter.info.targets.names, keep=PredictionProvenance.of(segmenter).is_in(output)
    )

    def begin() -> None:
        provenance = PredictionProvenance.of(segmenter)
        if not provenance.is_in(output):
            provenance.save(output / PROVENANCE_FILE)
        segmenter.info.save(info_file(output))

    try:
        for report in segment_each(segmenter, scans, output, maps, reporter, begin=begin):
            reports.append(report)
            if report.result is None:
                failures.append(f"case {report.name!r}: {report.problem}")
            table.add(report)
    except WriteError as error:  # it would stop every other scan too
        failures.append(str(error))
    written = [report.result for report in reports if report.result is not None]
    for line in describe_remarkable(reports, name_table(part)):
        reporter.say(line)
    if failures:
        reporter.say(f"{len(written)} of {len(scans)} scans were segmented: {output}")
        raise ProblemsError(failures)
    return written
