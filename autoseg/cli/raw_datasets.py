"""The commands that bring a dataset into the workspace, and check and straighten images."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoseg.cli.command import EXIT_ERROR
from autoseg.cli.options import (
    ChannelsOption,
    DatasetNumber,
    Link,
    MaskGeometry,
    MasksFolder,
    NewName,
    ResampleTilt,
    SeriesOption,
    Skip,
    WorkspacePath,
)
from autoseg.errors import UsageError

if TYPE_CHECKING:
    from autoseg.datasets.dataset import Problem


def import_dataset(
    source: Annotated[
        Path, typer.Argument(help="A Decathlon or nnU-Net folder, or a folder of images.", metavar="SOURCE")
    ],
    number: DatasetNumber,
    labels: MasksFolder = None,
    name: NewName = None,
    link: Link = False,
    geometry: MaskGeometry = "own",
    series: SeriesOption = None,
    channels: ChannelsOption = None,
    resample_tilt: ResampleTilt = False,
    workspace: WorkspacePath = None,
) -> None:
    """Brings a dataset into the workspace.

    With -d 4 it becomes raw/Dataset004_Name: images as CASE_0000.nii.gz in imagesTr, masks as CASE.nii.gz in labelsTr.
    An image of several volumes holds channels; if its mask has as many volumes, they are points in time, and each
    becomes a case. SOURCE is left as it is. It may also hold series of DICOM files, beside DICOM-SEG or RTSTRUCT that
    were drawn on them, or be a zip file of them or a DICOMDIR.
    """
    from autoseg.cli.series_table import show_series
    from autoseg.cli.terminal import Terminal, console
    from autoseg.pipeline import import_dataset

    with show_series():
        dataset = import_dataset(
            source,
            number,
            labels=labels,
            name=name,
            link=link,
            geometry=geometry,
            series=series,
            channels=channels or (),
            resample_tilt=resample_tilt,
            workspace=workspace,
            reporter=Terminal(),
        )
    console.print(f"{dataset.folder}: {len(dataset.cases)} cases")
    for problem in dataset.problems:
        console.print(f"left out: {problem}")


def check(
    source: Annotated[
        Path | None,
        typer.Argument(
            help="Instead of -d: a folder of images and masks, or of DICOM files, before its import.", metavar="SOURCE"
        ),
    ] = None,
    number: Annotated[
        int | None,
        typer.Option("-d", "--dataset", min=1, max=999, help="Number of a dataset to check.", metavar="NUMBER"),
    ] = None,
    labels: MasksFolder = None,
    skip: Skip = None,
    fix: Annotated[
        bool,
        typer.Option("--fix", help="Write a copy with what can be mended without judgement, and check that."),
    ] = False,
    copy_number: Annotated[
        int | None,
        typer.Option(
            "--as",
            min=1,
            max=999,
            help="With --fix: number of the copy. [default: the next free one]",
            metavar="NUMBER",
        ),
    ] = None,
    workspace: WorkspacePath = None,
) -> None:
    """Lists all that is wrong with a dataset, or with files before they are imported.

    Of images and masks, SOURCE, all is listed that a check of the imported dataset would list; nothing is kept.

    Of DICOM files, SOURCE, every series and every mask is read: a table shows the series of each examination and what
    was drawn on them. Missing slices, a tilted gantry, damaged files, and masks that refer to nothing are problems.

    --fix mends in a copy, and lists in its fixes.csv: channels and label maps whose headers differ from that of their
    image by less than half a voxel; letters and endings of file names, and files of other formats; label maps with a
    palette, with equal channels or saved as floats; masks of 0 and 255 in a dataset of one label; the encoding of
    dataset.json, its list of files and its number of cases. It does not touch what somebody has to decide: missing
    files, other grids, unknown labels, damaged files. The dataset itself stays as it is.
    """
    from autoseg.cli.terminal import Terminal
    from autoseg.dicom.detection import holds_dicom
    from autoseg.pipeline import check
    from autoseg.workspace import find_workspace

    if source is not None:
        if number is not None or skip or fix or copy_number is not None:
            raise UsageError(
                "-d, --skip, --fix and --as are for a dataset of the workspace",
                "import SOURCE first, or leave them out",
            )
        check_source = _check_files if source.is_dir() and not holds_dicom(source) else _check_dicom
        check_source(source, labels)
        return
    if number is None:
        raise UsageError("nothing says what to check", "give the number of a dataset with -d, or a folder of files")
    if labels is not None:
        raise UsageError(
            "--labels says where the masks of SOURCE are", "give the folder of its images, or leave it out"
        )
    if fix:
        number = _write_mended(number, copy_number, workspace)
    elif copy_number is not None:
        raise UsageError("--as is the number of the copy that --fix writes", "add --fix, or leave --as out")
    problems = check(number, skip=skip or (), workspace=workspace, reporter=Terminal())
    if not problems:
        return
    dataset_name = find_workspace(workspace).dataset(number).raw.name
    _show_problems(dataset_name, problems)


def _check_files(source: Path, labels: Path | None) -> None:
    """Shows what is wrong with images and masks."""
    from autoseg.cli.terminal import Terminal
    from autoseg.pipeline import check_files

    if problems := check_files(source, labels=labels, reporter=Terminal()):
        _show_problems(str(source), problems)


def _check_dicom(source: Path, labels: Path | None) -> None:
    """Shows the series of DICOM files with their masks, and what is wrong with them."""
    from autoseg.cli.series_table import show_checked
    from autoseg.cli.terminal import Terminal, console
    from autoseg.pipeline import check_dicom

    checked = check_dicom(source, labels=labels, reporter=Terminal())
    show_checked(str(source), checked)
    if checked.problems:
        _show_problems(str(source), checked.problems)
    count = len(checked.examinations)
    console.print(f"{source}: {count} examination{'' if count == 1 else 's'}, all sound")


def _show_problems(name: str, problems: "Sequence[Problem]") -> None:
    """Shows problems in a table, and ends the command."""
    from autoseg.cli.terminal import print_table

    rows = [(problem.case or "–", problem.what, problem.fix) for problem in problems]  # noqa: RUF001
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    print_table(f"{name}: {count}", ("case", "problem", "what to do"), rows)
    raise typer.Exit(EXIT_ERROR)


def _write_mended(number: int, copy_number: int | None, workspace: Path | None) -> int:
    """Writes the mended copy, prints what was mended, and returns its number; without one that of the dataset."""
    from autoseg.cli.terminal import Terminal, console, print_table
    from autoseg.pipeline import fix

    mended = fix(number, copy_number, workspace=workspace, reporter=Terminal())
    if mended is None:
        console.print("There is nothing that can be mended without judgement, and no copy was written.")
        return number
    dataset, fixes = mended
    count = "1 change" if len(fixes) == 1 else f"{len(fixes)} changes"
    print_table(f"{dataset.name}: {count}", ("file", "change"), [(change.file, change.change) for change in fixes])
    console.print(f"{dataset.folder}: the mended copy; fixes.csv lists the changes")
    return int(dataset.name[len("Dataset") :].partition("_")[0])


def straighten(
    source: Annotated[
        Path, typer.Argument(help="An image, a folder of images, or the folder of a dataset.", metavar="SOURCE")
    ],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help="Folder for the copies; or for one image a file.", metavar="PATH"),
    ],
    masks: Annotated[bool, typer.Option("--masks", help="All files are masks, whatever their names say.")] = False,
) -> None:
    """Resamples sheared images and their masks, as of a tilted gantry, to a straight grid.

    SOURCE is left as it is. Slices stay in their planes: only where each begins changes, and nothing is interpolated
    across slices. Images are interpolated linearly; masks, which are files in folders such as labelsTr, labels, masks
    or segmentations, or named CASE_mask, CASE_seg or CASE_label, keep their labels. An image and its mask get the same
    grid. Files that are straight are copied as they are.
    """
    from autoseg.cli.terminal import Terminal, console
    from autoseg.pipeline import straighten

    straightened = straighten(source, output, masks=masks, reporter=Terminal())
    console.print(f"{output}: {len(straightened)} straightened")
