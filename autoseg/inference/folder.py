"""Segmentation of a folder of scans: which scans and probabilities, where results go, and which errors are reported."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from autoseg.datasets.dataset import Case
from autoseg.datasets.info import BACKGROUND, DatasetInfo, info_file
from autoseg.datasets.names import compose
from autoseg.datasets.scans import result_ending
from autoseg.errors import ProblemsError, UsageError, WriteError
from autoseg.imaging.image_writing import require_writer
from autoseg.imaging.label_files import check_mask_names, file_stem
from autoseg.inference.continuation import PROVENANCE_FILE, PredictionProvenance, find_waiting, list_maps
from autoseg.inference.crop import describe_gain
from autoseg.inference.interfaces import ImageSegmenter, ResultWriter
from autoseg.inference.report import ReportWriter, describe_remarkable, make_record
from autoseg.inference.result_writers import list_files, write_beside
from autoseg.inference.scan_pipeline import ScanReport, ScansToSegment, segment_each
from autoseg.inference.scan_records import FOLDER_NAME
from autoseg.runtime.forks import calculation
from autoseg.runtime.leases import Leases, open_leases
from autoseg.runtime.reporting import Reporter, describe_item, log_line
from autoseg.runtime.shared_work import SharedWork, take_turns
from autoseg.runtime.writable import check_writable

LEASES_FOLDER = ".leases"
"""Subfolder of the segmentations with the leases of runs that share their scans, while they are at work."""


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
    for name in map(compose, [names] if isinstance(names, str) else names):
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
    writers: Sequence[ResultWriter] = (),
) -> list[Path]:
    """Segments scans one after the other; one that cannot be segmented does not stop the others.

    Several runs may write into one folder at the same time.

    Args:
        segmenter: The model.
        scans: Cases without labels.
        output: Folder for the results, for a dataset.json that names their labels, for a prediction.json that says
            which model made them, and for a table of the scans; see `report`.
        labels: Labels whose probabilities are written too, into a folder of their own; see `choose_labels`.
        reporter: Shows progress, and gets a line for each result that deserves a look.
        writers: Write further files of the scans, such as DICOM objects and meshes.

    Returns:
        Paths of the segmentations that were written. Where one is, the probabilities of its scan are complete.

    Raises:
        UsageError: Two maps of probabilities, or two masks, would have the same file; or this process was forked, see
            `forks.calculation`.
        ProblemsError: Some scans could not be segmented, each with its line.
    """
    run = _make_run(segmenter, scans, output, labels, reporter, writers)
    turns = ScansToSegment(turns=((scan, None) for scan in scans), most=len(scans))
    return _complete(run, scans, lambda: run.segment(scans, turns))


def share_scans(
    segmenter: ImageSegmenter,
    scans: Sequence[Case],
    output: Path,
    labels: Mapping[str, int],
    reporter: Reporter,
    writers: Sequence[ResultWriter] = (),
) -> list[Path]:
    """Segments the scans that are not finished and that no other run has in work, until all of them are finished.

    Takes the arguments of `segment_scans`, returns what this run has written, and raises the same errors. See
    `runtime.leases` for how runs on several machines know of each other.
    """
    run = _make_run(segmenter, scans, output, labels, reporter, writers)
    return _complete(run, scans, lambda: run.share(scans))


def _make_run(
    segmenter: ImageSegmenter,
    scans: Sequence[Case],
    output: Path,
    labels: Mapping[str, int],
    reporter: Reporter,
    writers: Sequence[ResultWriter],
) -> "_Run":
    check_mask_names(segmenter.info.targets)
    for ending in {result_ending(scan) for scan in scans}:
        require_writer(ending)
    maps = name_probability_maps(scans, labels)
    return _Run(segmenter=segmenter, output=output, maps=maps, reporter=reporter, writers=writers)


def _complete(run: "_Run", scans: Sequence[Case], segment: Callable[[], object]) -> list[Path]:
    """Segments, says what deserves a look, and returns what was written."""
    with calculation(run.segmenter.device.type):
        segment()
    written = [report.result for report in run.reports if report.result is not None]
    if crops := [report.crop for report in run.reports if report.crop is not None]:
        run.reporter.say(describe_gain(crops))
    for line in describe_remarkable(run.reports):
        run.reporter.say(line)
    if run.failures:
        run.reporter.say(f"{len(written)} of {len(scans)} scans were segmented: {run.output}")
        raise ProblemsError(run.failures)
    return written


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """A run over some scans.

    Attributes:
        segmenter: The model.
        output: Folder for the results.
        maps: See `name_probability_maps`.
        reporter: Shows progress.
        writers: Write further files of the scans.
        reports: What became of each scan so far.
        failures: A line for each scan that was not segmented, and for what ended the run.
    """

    segmenter: ImageSegmenter
    output: Path
    maps: Mapping[str, Mapping[int, str]]
    reporter: Reporter
    writers: Sequence[ResultWriter]
    reports: list[ScanReport] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def share(self, scans: Sequence[Case]) -> None:
        """Segments those scans that no other run has in work; ends when all are finished."""

        def is_finished(scan: Case) -> bool:
            return not find_waiting(self.segmenter, [scan], self.output, self.maps, self.writers).scans

        with open_leases(self.output / LEASES_FOLDER) as leases:
            folders = (self.output, self.output / FOLDER_NAME)
            shared: SharedWork[Case] = SharedWork(
                leases=leases, is_finished=is_finished, folders=folders, reporter=self.reporter
            )
            self.segment(scans, ScansToSegment(turns=take_turns(scans, shared), most=len(scans)), leases)

    def segment(
        self,
        scans: Sequence[Case],
        turns: ScansToSegment,
        leases: Leases | None = None,
    ) -> None:
        """Segments scans, and keeps a record of each.

        Args:
            scans: All scans.
            turns: Those that this run segments.
            leases: Gives back each scan that is recorded.
        """
        segmenter, digest = self.segmenter, self.segmenter.digest
        table, cases = ReportWriter(self.output, segmenter.info.targets.names), {scan.name: scan for scan in scans}
        try:
            segmented = segment_each(segmenter, turns, self.output, self.maps, self.reporter, begin=self._begin)
            for report in write_beside(self.writers, segmented, cases, self.output, self.maps):
                self._note(report, len(scans))
                wanted = self.maps[report.name] if report.result is not None else {}
                with_disagreement = segmenter.maps_disagreement and report.result is not None
                written = list_maps(cases[report.name], wanted, with_disagreement=with_disagreement)
                if report.result is not None:
                    written += list_files(self.writers, cases[report.name], wanted)
                table.add(make_record(report, cases[report.name], digest, written))
                if leases is not None:
                    leases.release(report.name)
            table.write()
        except WriteError as error:  # it would stop every other scan too
            self.failures.append(str(error))
        except BaseException:
            with suppress(WriteError):
                table.write()
            raise

    def _begin(self) -> None:
        provenance = PredictionProvenance.of(self.segmenter)
        if not provenance.is_in(self.output):
            provenance.save(self.output / PROVENANCE_FILE)
        self.segmenter.info.save(info_file(self.output))

    def _note(self, report: ScanReport, total: int) -> None:
        self.reports.append(report)
        line = describe_item("segmenting", len(self.reports), total, report.name, report.problem)
        log_line(self.reporter, line if report.problem else f"{line}, {report.seconds:.1f} s")
        if report.result is None:
            self.failures.append(f"case {report.name!r}: {report.problem}")
