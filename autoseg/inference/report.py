"""The table of a folder of segmented scans, report.csv: volumes, agreement and remarks of each scan."""

import csv
import io
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from autoseg._version import __version__
from autoseg.datasets.dataset import Case
from autoseg.datasets.names import compose
from autoseg.errors import UsageError, WriteError
from autoseg.inference.scan_pipeline import ScanReport
from autoseg.inference.scan_records import FileState, ScanRecord, ScanRecords
from autoseg.runtime.artifact import atomic_file

FIRST_COLUMNS = ("case", "seconds")
LAST_COLUMNS = ("agreement", "remarks")

MODEL = "model"
"""Last column, if the rows of a folder are of several models."""

MOST_LINES = 20
"""Number of scans that are named on the terminal. Decision: the table has them all."""


TABLE = "report.csv"

SHARE_OF_TIME = 0.05
"""Largest share of the time that is spent on writing the table. Decision: with thousands of scans it is then not
written after each."""

MOST_ROUNDS = 3
"""How often the table is written at once if other runs change records meanwhile, where they cannot be kept out."""


class ReportWriter:
    """Writes the table of a folder: a row per scan with seconds, volumes in ml, agreement and remarks.

    The rows are those of the records of all runs into the folder, see `scan_records`, and of a table that was there
    before. The file is written again after each scan if that is quick, and at the end of each run, as a whole or not at
    all. Runs write it one after the other, each with all records that are there when its turn comes, so that none puts
    an older table in place of a newer one. A folder in which nothing was segmented gets none.
    """

    def __init__(self, output: Path, structures: Sequence[str]) -> None:
        """Begins a table, or goes on with that of earlier runs.

        Args:
            output: Folder of the segmentations.
            structures: Names of the structures that the model segments.
        """
        self._path, self._records = output / TABLE, ScanRecords(output)
        self._volumes = [f"{name}_ml" for name in structures]
        self._former_rows = read_tables(output)
        self._rows: dict[str, tuple[FileState, Mapping[str, str]]] = {}
        self._waiting: list[ScanRecord] | None = None if self._records.exist else []
        self._due = 0.0

    def add(self, record: ScanRecord) -> None:
        """Adds a scan.

        Raises:
            WriteError: The folder cannot be written, or the disk is full.
        """
        if self._waiting is not None and not record.segmented:
            self._waiting.append(record)
            return
        for failed in self._waiting or ():
            self._records.save(failed)
        self._waiting = None
        former = self._records.load(record.case)
        if former is not None and (former.model, former.files) == (record.model, record.files):
            record = record.model_copy(update={"maps": tuple(dict.fromkeys((*former.maps, *record.maps)))})
        self._records.save(record)
        if (started := time.monotonic()) >= self._due:
            with suppress(WriteError):  # such as a table that is open in a spreadsheet; the record is there
                self.write()
            now = time.monotonic()
            self._due = now + (now - started) / SHARE_OF_TIME

    def write(self) -> None:
        """Writes the table.

        Raises:
            WriteError: It cannot be written.
        """
        if not self._records.exist:
            return
        try:
            with self._records.written_alone():
                self._write_once()
        except UsageError:  # a run that is halted, or was killed where a drive has no locks
            for _ in range(MOST_ROUNDS):
                if self._write_once():
                    return

    def _write_once(self) -> bool:
        """Writes the table of the records that are there; returns whether no run has changed any meanwhile."""
        states = self._records.states()
        if not states:
            return True
        self._read_records(states)
        self._write_rows()
        return self._records.states() == states

    def _read_records(self, states: Sequence[tuple[str, FileState]]) -> None:
        """Reads the records that are new or were changed."""
        for name, state in states:
            former = self._rows.get(name)
            if former is None or former[0] != state:
                record = self._records.load(name)
                if record is not None:
                    self._rows[name] = state, record.row

    def _write_rows(self) -> None:
        names = sorted({*self._former_rows, *self._rows})
        recorded = {name: row for name, (_, row) in self._rows.items()}
        rows = [{**self._former_rows.get(name, {}), **recorded.get(name, {})} for name in names]
        others = [column for row in rows for column in row if column not in (*FIRST_COLUMNS, *LAST_COLUMNS, MODEL)]
        volumes = [*self._volumes, *(column for column in others if column.endswith("_ml"))]
        models = {row.get(MODEL, "") for row in recorded.values()}
        last = (*LAST_COLUMNS, MODEL) if len(models) > 1 else LAST_COLUMNS
        columns = list(dict.fromkeys([*FIRST_COLUMNS, *volumes, *last, *others]))
        text = io.StringIO()
        table = csv.DictWriter(text, columns, restval="", extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        with atomic_file(self._path, durable=False) as writing:
            writing.write_text(text.getvalue(), encoding="utf-8", newline="")


def make_record(report: ScanReport, scan: Case, model: str, maps: Sequence[str]) -> ScanRecord:
    """Returns the record of a scan.

    Args:
        report: What became of the scan.
        scan: The scan.
        model: Digest of the model.
        maps: Paths of the maps that were written too.
    """
    remarks = report.remarks if report.problem is None else (f"not segmented: {report.problem}",)
    return ScanRecord(
        case=report.name,
        segmented=report.result is not None,
        program=__version__,
        model=model,
        files=report.files,
        images=tuple(str(path.absolute()) for path in scan.images),
        time_point=scan.time_point,
        maps=tuple(maps),
        row={
            "case": report.name,
            "seconds": f"{report.seconds:.2f}",
            **{f"{name}_ml": f"{volume:.6g}" for name, volume in report.volumes_ml.items()},
            "agreement": "" if math.isnan(report.agreement) else f"{report.agreement:.4f}",
            "remarks": "; ".join(remarks),
            MODEL: model,
        },
    )


def read_tables(output: Path) -> dict[str, dict[str, str]]:
    """Reads the rows of the tables in a folder: report.csv, and report_1_of_4.csv as earlier versions wrote it."""
    tables = [*sorted(output.glob("report_*_of_*.csv")), output / TABLE]
    return {name: row for table in tables for name, row in read_table(table).items()}


def read_table(path: Path) -> dict[str, dict[str, str]]:
    r"""Reads the rows of a table, by the name of the scan, also if a spreadsheet has saved it; none if it is no table.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder) / "report.csv"
        ...     _ = path.write_text("case;seconds\na;1.2\n")
        ...     read_table(path)
        {'a': {'case': 'a', 'seconds': '1.2'}}
    """
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            header = file.readline()
            file.seek(0)
            delimiter = max(",;\t", key=header.count)  # a spreadsheet may have saved it with another one
            table = csv.DictReader(file, delimiter=delimiter)
            rows = [row for row in table if None not in row and None not in row.values()]
    except (OSError, csv.Error):
        return {}
    return {compose(row["case"]): row for row in rows if row.get("case")}


def describe_remarkable(reports: Sequence[ScanReport]) -> list[str]:
    """Returns lines about the segmented scans that have remarks; none if no scan has.

    Example:
        >>> odd = ScanReport(name="scan_1", seconds=1.0, result=Path("scan_1.nii.gz"), remarks=("nothing was found",))
        >>> describe_remarkable([odd])
        ['1 of 1 scan deserves a look:', '  scan_1: nothing was found']

    Args:
        reports: Reports of all scans of a run.
    """
    segmented = [report for report in reports if report.result is not None]
    flagged = [report for report in segmented if report.remarks]
    if not flagged:
        return []
    verb = "deserves" if len(flagged) == 1 else "deserve"
    lines = [f"{len(flagged)} of {len(segmented)} scan{'s' * (len(segmented) > 1)} {verb} a look:"]
    lines += [f"  {report.name}: {'; '.join(report.remarks)}" for report in flagged[:MOST_LINES]]
    if len(flagged) > MOST_LINES:
        lines.append(f"  and {len(flagged) - MOST_LINES} more, which {TABLE} names")
    return lines
