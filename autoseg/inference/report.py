"""What became of each scan of a folder, as a table beside the segmentations: report.csv."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from autoseg.inference.scan_pipeline import ScanReport
from autoseg.runtime.artifact import atomic_file

MOST_LINES = 20
"""Scans that are named on the terminal. Decision: the table has them all."""


def name_table(part: str | None) -> str:
    """The file of the table: machines that share a folder have one each, such as report_2_of_4.csv for "2/4"."""
    return "report.csv" if part is None else f"report_{part.replace('/', '_of_')}.csv"


class ScanTable:
    """The table of a folder: a row per scan with seconds, volumes in ml, agreement and remarks; see `ScanReport`.

    It is written anew after each scan, whole or not at all; so it is complete wherever a run is stopped. A folder in
    which nothing was segmented gets none.
    """

    def __init__(self, path: Path, structures: Sequence[str], *, keep: bool) -> None:
        """Begins a table.

        Args:
            path: Of the file.
            structures: Of the model.
            keep: Whether rows that are there stay, until a scan of their name is added.
        """
        self._path = path
        self._columns = ("case", "seconds", *(f"{name}_ml" for name in structures), "agreement", "remarks")
        self._rows = self._read() if keep else {}
        self._is_wanted = bool(self._rows)

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
        self._is_wanted |= report.result is not None
        if self._is_wanted:
            self._write()

    def _write(self) -> None:
        text = io.StringIO()
        table = csv.DictWriter(text, self._columns, restval="", extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        table.writerows(row for _, row in sorted(self._rows.items()))
        with atomic_file(self._path, durable=False) as writing:
            writing.write_text(text.getvalue(), encoding="utf-8", newline="")

    def _read(self) -> dict[str, dict[str, str]]:
        """The rows of an earlier run; none if the table is missing, or is not of this model."""
        if not self._path.is_file():
            return {}
        with self._path.open(encoding="utf-8", errors="replace", newline="") as file:
            table = csv.DictReader(file)
            if tuple(table.fieldnames or ()) != self._columns:
                return {}
            return {row["case"]: row for row in table if None not in row.values()}


def describe_remarkable(reports: Sequence[ScanReport], table: str) -> list[str]:
    """Lines about segmented scans that deserve a look; none if there is none.

    Args:
        reports: Of all scans of a run.
        table: Name of the file that holds all remarks.
    """
    done = [report for report in reports if report.result is not None]
    flagged = [report for report in done if report.remarks]
    if not flagged:
        return []
    verb = "deserves" if len(flagged) == 1 else "deserve"
    lines = [f"{len(flagged)} of {len(done)} scan{'s' * (len(done) > 1)} {verb} a look:"]
    lines += [f"  {report.name}: {'; '.join(report.remarks)}" for report in flagged[:MOST_LINES]]
    if len(flagged) > MOST_LINES:
        lines.append(f"  and {len(flagged) - MOST_LINES} more, which {table} names")
    return lines
