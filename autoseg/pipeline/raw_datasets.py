"""Raw datasets: brought into the workspace from foreign files, and checked."""

import os
from collections.abc import Sequence
from pathlib import Path

from autoseg.datasets.dataset import Dataset, Problem
from autoseg.datasets.integrity import check_dataset
from autoseg.importing.sources import OWN, import_source
from autoseg.runtime.reporting import SILENT, Reporter
from autoseg.workspace import find_workspace

FilePath = str | os.PathLike[str]


def import_dataset(
    source: FilePath,
    number: int,
    *,
    labels: FilePath | None = None,
    name: str | None = None,
    link: bool = False,
    geometry: str = OWN,
    workspace: FilePath | None = None,
    reporter: Reporter = SILENT,
) -> Dataset:
    """Brings a dataset into the workspace, whole or not at all; the source is left as it is.

    Images without a mask are left out and named to `reporter`, and so are masks without an image. Scans in a folder
    "imagesTs" become test scans. Masks whose values are not 0, 1, 2, ... are renumbered.

    Args:
        source: A folder of the Medical Segmentation Decathlon or of nnU-Net, a folder with one folder per case, a
            folder that holds a folder of images and one of masks, or, with `labels`, a folder of images.
        number: Number of the new dataset, 1 to 999; it must be free.
        labels: Folder of masks, if `source` holds images only.
        name: Name of the new dataset; by default the name that the source states, else that of its folder.
        link: Copy nothing: the new dataset.json lists where the files are. Test scans are left out then.
        geometry: "own" leaves masks where their headers say; "image" lays each on the voxels of its image, for masks
            that were drawn on their images but have other headers.
        workspace: Folder that holds raw/, preprocessed/ and results/; by default $AUTOSEG_WORKSPACE, else the current
            folder.
        reporter: Shows progress, and is told what is left out.

    Returns:
        The dataset in the workspace; its `problems` are cases whose files are incomplete.

    Raises:
        UsageError: The kind of the source is not known, the number is taken, the name is impossible, or files that are
            to be linked must be converted or changed.
        DatasetError: The source contradicts itself, no image has a mask, or the masks are no label maps.
        ImageError: A file cannot be read.
        ArtifactError: The workspace cannot be written.

    Example:
        >>> import autoseg
        >>> made = autoseg.make_demo_dataset("source/Dataset001_Demo", cases=2)
        >>> dataset = autoseg.import_dataset(made.folder, 1, workspace="work")
        >>> dataset.name, [case.name for case in dataset.cases]
        ('Dataset001_Demo', ['demo_001', 'demo_002'])
    """
    folders = Path(source) if labels is None else (Path(source), Path(labels))
    target = find_workspace(workspace)
    return import_source(
        folders, workspace=target, number=number, name=name, link=link, geometry=geometry, reporter=reporter
    )


def check(
    number: int,
    *,
    skip: Sequence[str] = (),
    workspace: FilePath | None = None,
    reporter: Reporter = SILENT,
) -> list[Problem]:
    """Reads every case of a dataset and lists all that is wrong; one bad case never hides another.

    Args:
        number: Number of the dataset: 4 for "Dataset004_Hippocampus".
        skip: Names of cases to leave out.
        workspace: See `import_dataset`.
        reporter: Shows progress, and is told what is odd but no reason to stop.

    Returns:
        The problems: of missing files, then of each case, then of the dataset as a whole. Empty if all is well.

    Raises:
        DatasetError: There is no such dataset, its dataset.json is wrong, or there is no such case to skip.

    Example:
        >>> import autoseg
        >>> made = autoseg.make_demo_dataset("work/raw/Dataset001_Demo", cases=2)
        >>> autoseg.check(1, workspace="work")
        []
    """
    dataset = Dataset.open(find_workspace(workspace).dataset(number).raw).without(skip)
    problems = check_dataset(dataset, reporter)
    for remark in dataset.remarks:
        reporter.say(f"{dataset.name}: {remark}")
    if not problems:
        reporter.say(f"{dataset.name}: {len(dataset.cases)} cases, all sound")
    return problems
