"""Files that are written beside the segmentations of a folder once these are there: DICOM objects and meshes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from autoseg.datasets.dataset import Case
from autoseg.errors import AutosegError, WriteError
from autoseg.inference.interfaces import ResultWriter
from autoseg.inference.scan_pipeline import ScanReport


def list_files(writers: Sequence[ResultWriter], scan: Case, maps: Mapping[int, str]) -> tuple[str, ...]:
    """Returns the paths of all files that writers write for a scan, from the folder of the results on."""
    return tuple(path for writer in writers for path in writer.list_files(scan, maps))


def write_beside(
    writers: Sequence[ResultWriter],
    reports: Iterator[ScanReport],
    scans: Mapping[str, Case],
    output: Path,
    maps: Mapping[str, Mapping[int, str]],
) -> Iterator[ScanReport]:
    """Writes the further files of each scan once its image files are written; yields its report.

    Args:
        writers: What writes them; may be none.
        reports: The reports of the scans.
        scans: The scans by name.
        output: Folder of the results.
        maps: Name of a scan, to the outputs whose probabilities are written too, to the names of their files.

    Yields:
        The report of each scan; without a result and with the problem if a file cannot be made of it.

    Raises:
        WriteError: The folder cannot be written.
    """
    for report in reports:
        completed = report
        if report.result is not None:
            try:
                for writer in writers:
                    writer.write(scans[report.name], report.result, output, maps[report.name])
            except WriteError:
                raise
            except AutosegError as error:
                completed = replace(report, result=None, problem=str(error))
        yield completed
