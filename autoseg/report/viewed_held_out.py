"""The held-out cases of trained configurations as the viewer shows them: the scan, its reference and what was found."""

from collections.abc import Sequence

from autoseg.datasets.dataset import Case, Dataset
from autoseg.datasets.info import DatasetInfo
from autoseg.imaging.image_files import read_image
from autoseg.imaging.label_files import load_result
from autoseg.model_selection.held_out_cases import pair_with_label
from autoseg.report.held_out import ExaminedCase
from autoseg.report.model_runs import ModelRun
from autoseg.report.viewed_cases import split_channels
from autoseg.report.viewed_volumes import number_structures
from autoseg.report.viewer import ViewedCase, ViewedVolumes


def view_held_out(dataset: Dataset, runs: Sequence[ModelRun], cases: Sequence[ExaminedCase]) -> list[ViewedCase]:
    """Returns the held-out cases whose files can be read, by their keys; each is read when it is shown.

    Args:
        dataset: The dataset with the scans and labels.
        runs: The configurations.
        cases: Their held-out cases, the worst first.
    """
    files, by_member = {case.name: case for case in dataset.cases}, {run.member: run for run in runs}
    return [
        _view(case, by_member[case.member], files[case.result.name], dataset.info)
        for case in cases
        if case.confusion is not None
    ]


def _view(examined: ExaminedCase, run: ModelRun, case: Case, info: DatasetInfo) -> ViewedCase:
    path = run.model.validation(examined.fold) / examined.result.prediction_file

    def read() -> ViewedVolumes:
        pair = pair_with_label(case, (path, *load_result(path, info.targets)), info)
        masks = (number_structures(pair.reference, pair.targets), number_structures(pair.prediction, pair.targets))
        return ViewedVolumes(images=split_channels(read_image(case.images, case.time_point)), masks=masks)

    channels = tuple(info.channel_names.values())
    return ViewedCase(name=examined.key, images=channels, masks=("truth", "found"), read=read)
