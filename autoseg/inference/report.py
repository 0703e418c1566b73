"""The table of a folder of segmented scans, report.csv: volumes, agreement and remarks of each scan."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from autoseg.inference.scan_pipeline import ScanReport
from autoseg.runtime.artifact import atomic_file

MOST_LINES = 20
"""Number of scans that are named on the terminal. Decision: the table has them all."""


def name_table(part: str | None) -> str:
    """Returns the file name of the table; machines that share a folder have one each.

    Example:
        >>> name_table(None), name_table("2/4")
        ('report.csv', 'report_2_of_4.csv')
    """
    return "report.csv" if part is None else f"report_{part.replace('/', '_of_')}.csv"


class ReportWriter:
    """Writes the table of a folder: a row per scan with seconds, volumes in ml, agreement and remarks.

    The file is written again after each scan, as a whole or not at all; so it is complete whenever a run is stopped. A
    folder in which nothing was segmented gets none. See `ScanReport`.
    """

    def __init__(self, path: Path, structures: Sequence[str], *, keep: bool) -> None:
        """Begins a table.

        Args:
            path: Path of the file.
            structures: Names of the structures that the model segments.
            keep: Whether rows of an earlier run stay until a scan of their name is added.
        """
        self._path = path
        self._columns = ("case", "seconds", *(f"{name}_ml" for name in structures), "agreement", "remarks")
        self._rows = self._read() if keep else {}
        self._has_results = bool(self._rows)

    def add(self, report: ScanReport) -> None:
        """Adds a scan.

        Raises:
            WriteError: The folder cannot be written, or the disk is full.
        """
        volumes = {f"{name}_ml": f"{volume:.6g}" for name, volume in report.volumes_ml.items()}
        remarks = report.remarks if report.problem is None else (f"not segmented: {report.problem}",)
        self._rows[report.name] = {
            "case": report.name,
            "seconds": f"{report.seconds:.2f}",
            **volumes,
            "agreement": "" if math.isnan(report.agreement) else f"{report.agreement:.4f}",
            "remarks": "; ".join(remarks),
        }
        self._has_results |= report.result is not None
        if self._has_results:
            self._write()

    def _write(self) -> None:
        text = io.StringIO()
        table = csv.DictWriter(text, self._columns, restval="", extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        table.writerows(row for _, row in sorted(self._rows.items()))
        with atomic_file(self._path, durable=False) as writing:
            writing.write_text(text.getvalue(), encoding="utf-8", newline="")

    def _read(self) -> dict[str, dict[str, str]]:
        """Reads the rows of an earlier run; returns none if the table is missing, or has columns of another model."""
        if not self._path.is_file():
            return {}
        with self._path.open(encoding="utf-8", errors="replace", newline="") as file:
            table = csv.DictReader(file)
            if tuple(table.fieldnames or ()) != self._columns:
                return {}
            return {row["case"]: row for row in table if None not in row.values()}


def describe_remarkable(reports: Sequence[ScanReport], table: str) -> list[str]:
    """Returns lines about the segmented scans that have remarks; none if no scan has.

    Example:
        >>> odd = ScanReport(name="scan_1", seconds=1.0, result=Path("scan_1.nii.gz"), remarks=("nothing was found",))
        >>> describe_remarkable([odd], "report.csv")
        ['1 of 1 scan deserves a look:', '  scan_1: nothing was found']

    Args:
        reports: Reports of all scans of a run.
        table: File name of the table that holds all remarks.
    """
    segmented = [report for report in reports if report.result is not None]
    flagged = [report for report in segmented if report.remarks]
    if not flagged:
        return []
    verb = "deserves" if len(flagged) == 1 else "deserve"
    lines = [f"{len(flagged)} of {len(segmented)} scan{'s' * (len(segmented) > 1)} {verb} a look:"]
    lines += [f"  {report.name}: {'; '.join(report.remarks)}" for report in flagged[:MOST_LINES]]
    if len(flagged) > MOST_LINES:
        lines.append(f"  and {len(flagged) - MOST_LINES} more, which {table} names")
    return lines
