"""A held-out case: its preprocessed image, and its segmentation paired with its label."""

from pathlib import Path

from autoseg.datasets.dataset import Case
from autoseg.datasets.info import DatasetInfo
from autoseg.errors import DatasetError
from autoseg.evaluation.metrics import case_overlaps
from autoseg.evaluation.summary import SegmentedCase
from autoseg.imaging.geometry import Volume
from autoseg.imaging.image_files import read_label_map
from autoseg.imaging.label_combinations import number_masks
from autoseg.imaging.label_encoding import CascadeCodes, code_base, decode_previous
from autoseg.imaging.targets import Targets
from autoseg.inference.cascade_channels import show_previous
from autoseg.inference.prediction import Prediction
from autoseg.preprocessing.case import PreprocessedCase
from autoseg.preprocessing.store import StoredCase

WrittenSegmentation = tuple[Path, Volume, Targets]
"""The file or folder of a segmentation, its label map, and the structures of that; as `save_result` returns it."""


def load_preprocessed(
    name: str, targets: Targets, cases_folder: Path, cascade_labels_folder: Path | None
) -> PreprocessedCase:
    """Loads a preprocessed case.

    For a cascade, the coarse segmentation is appended to the image as channels. It was made by the fold of the first
    stage that held the case out.

    Args:
        name: Name of the case.
        targets: Structures of the dataset.
        cases_folder: Folder of the preprocessed image.
        cascade_labels_folder: Folder of the coarse segmentations, for a cascade; see `preprocessing.cascade`.
    """
    stored = StoredCase.open(cases_folder, name)
    preprocessed = PreprocessedCase(image=stored.load()[0], label=None, record=stored.record)
    if cascade_labels_folder is None:
        return preprocessed
    codes = CascadeCodes(StoredCase.open(cascade_labels_folder, name).load_label())
    return show_previous(preprocessed, decode_previous(codes, code_base(targets)), targets)


def label_file(case: Case) -> Path:
    """Returns the label map of a case.

    Raises:
        DatasetError: The case has none.
    """
    if case.label is None:
        raise DatasetError(f"case {case.name!r} has no label", "only labelled cases can be trained on or judged")
    return case.label


def pair_with_label(
    case: Case, segmentation: WrittenSegmentation, info: DatasetInfo, *, reference: Volume | None = None
) -> SegmentedCase:
    """Pairs the segmentation of a case with its label, to score it or to try postprocessing rules on it.

    Args:
        case: A labelled case.
        segmentation: Its segmentation, before postprocessing.
        info: The dataset's description; it says which structures were not annotated.
        reference: Label map of the case; read from its file if it is not given.

    Raises:
        DatasetError: The case has no label.
        ImageError: The label cannot be read.
    """
    path, prediction, targets = segmentation
    return SegmentedCase(
        name=case.name,
        reference=read_label_map(label_file(case)) if reference is None else reference,
        prediction=prediction,
        targets=targets,
        unannotated=info.unannotated_in(case.name),
        reference_file=label_file(case).name,
        prediction_file=path.name,
    )


def measure_dice(case: Case, prediction: Prediction) -> dict[str, float]:
    """Returns the Dice of each structure of a held-out case; NaN where it neither is nor was found.

    Args:
        case: The case, whose label is read.
        prediction: Its prediction, on the grid of the label, before postprocessing.

    Raises:
        DatasetError: The case has no label.
        ImageError: The label cannot be read.
    """
    reference, targets = read_label_map(label_file(case)), prediction.targets
    if targets.as_masks:
        masks = (mask.array for mask in prediction.masks())
        label, targets = number_masks(masks, prediction.geometry.shape, targets)
    else:
        label = prediction.segmentation().array
    return {name: overlap.dice for name, overlap in case_overlaps(reference.array, label, targets).items()}
