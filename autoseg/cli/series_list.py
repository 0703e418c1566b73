"""The command that lists series of DICOM files."""

from pathlib import Path
from typing import Annotated

import typer

from autoseg.cli.command import EXIT_ERROR


def series(
    source: Annotated[
        Path, typer.Argument(help="A folder of DICOM files, a zip file of it, or a DICOMDIR.", metavar="SOURCE")
    ],
) -> None:
    """Lists series of DICOM files, and what is wrong with them.

    Each examination has a table; the number of a series is what --series of 'predict' and 'import' takes. No voxel is
    read. The exit code is 2 if a series cannot be read as a volume.
    """
    from autoseg.cli.terminal import Terminal, print_table
    from autoseg.dicom.selection import COLUMNS, list_rows
    from autoseg.pipeline import list_series

    examinations = list_series(source, reporter=Terminal())
    for examination in examinations:
        print_table(examination.name, COLUMNS, list_rows(examination.series))
    if any(one.defect is not None and not one.role for examination in examinations for one in examination.series):
        raise typer.Exit(EXIT_ERROR)
