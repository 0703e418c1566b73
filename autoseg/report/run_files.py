"""The files behind a summary of scores: segmentations in its folder or in the folds below it, and the scans."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from autoseg.datasets.dataset import Case, Dataset
from autoseg.datasets.names import compose
from autoseg.errors import DatasetError
from autoseg.evaluation.summary import CaseResult
from autoseg.imaging.image_files import read_image
from autoseg.imaging.label_files import load_result
from autoseg.model_selection.held_out_cases import pair_with_label
from autoseg.report.error_pictures import ComparedMaps, draw_errors
from autoseg.workspace import DatasetFolders, ModelFolder, Workspace, dataset_of


def find_dataset(runs: Sequence[Path], number: int | None, workspace: Workspace) -> Dataset | None:
    """Finds the dataset whose cases were segmented: the one that is named, else that whose results hold a run.

    Args:
        runs: Folders of the summaries.
        number: Number of the dataset, if it is named.
        workspace: Where to look for that number.

    Returns:
        None if it is not named and neither run lies in the results of a dataset that is still there.

    Raises:
        DatasetError: There is no dataset of that number, or its dataset.json is wrong.
    """
    if number is not None:
        return Dataset.open(workspace.dataset(number).raw)
    places: Iterator[DatasetFolders] = (place for place in map(dataset_of, runs) if place is not None)
    return next((Dataset.open(place.raw) for place in places if place.raw.is_dir()), None)


def find_segmentation(run: Path, result: CaseResult) -> Path:
    """Finds the segmentation of a case: in the folder of the summary, or in the validation of a fold below it.

    Raises:
        DatasetError: It is not there.
    """
    name = result.prediction_file
    model = ModelFolder(path=run)
    places = [run, *(model.validation(fold) for fold in model.trained_folds())]
    for folder in places if name else ():
        if (folder / name).exists():
            return folder / name
    raise DatasetError(f"the segmentation {name!r} is not in {run} any more", "evaluate it again")


def draw_difference(case: Case, runs: Sequence[tuple[Path, CaseResult]], dataset: Dataset) -> bytes:
    """Draws a case with the segmentations of two runs, through the slices where these differ the most.

    Args:
        case: The case.
        runs: Folder of the summary, and scores of the case, of each run.
        dataset: The dataset.

    Raises:
        AutosegError: A file is missing or damaged.
    """
    info = dataset.info
    paths = [find_segmentation(folder, result) for folder, result in runs]
    first, second = (pair_with_label(case, (path, *load_result(path, info.targets)), info) for path in paths)
    if first.targets != second.targets:
        raise DatasetError("the two runs number overlapping structures differently", "compare their scores alone")
    maps = ComparedMaps(
        reference=first.reference, predictions=[first.prediction, second.prediction], targets=first.targets
    )
    return draw_errors(read_image(case.images, case.time_point), maps)


def cases_by_name(dataset: Dataset) -> dict[str, Case]:
    """Returns the cases of a dataset by their names, as summaries compare them."""
    return {compose(case.name): case for case in dataset.cases}
