"""Preparation of a cascade: the coarse segmentation of each training case, made by a fold that did not train on it.

A network that was given segmentations of cases on which the coarser network had been trained would learn to trust them,
and fail on new scans. So each case gets the segmentation that `train` made of it when it was held out, brought to the
grid of the finer configuration.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from autoseg._version import __version__
from autoseg.datasets.dataset import Case, Dataset
from autoseg.errors import UsageError
from autoseg.evaluation.summary import Summary, summary_file
from autoseg.imaging.label_encoding import CaseLabels, code_base, encode_cascade
from autoseg.imaging.label_files import load_result
from autoseg.planning.plan import ConfigurationName, Plan
from autoseg.planning.plan_file import configurations_to_preprocess
from autoseg.preprocessing.case import PreprocessedCase, preprocess_segmentation
from autoseg.preprocessing.provenance import PreprocessingSettings, Provenance
from autoseg.preprocessing.store import StoredCase, is_up_to_date, save_case
from autoseg.runtime.artifact import state_of_files
from autoseg.runtime.lock import run_alone
from autoseg.runtime.reporting import Reporter, list_names
from autoseg.runtime.thread_map import map_in_threads, results_or_raise
from autoseg.workspace import DatasetFolders, ModelFolder


def write_cascade_labels(
    dataset: Dataset, plan: Plan, name: ConfigurationName, folders: DatasetFolders, number: int, reporter: Reporter
) -> None:
    """Stores label map and held-out coarse segmentation of each case of a cascade, as `CascadeCodes`.

    Cases of an earlier run are kept unless their segmentation has changed since. A configuration that is no cascade
    needs nothing.

    Args:
        dataset: The cases to train on.
        plan: The plan of the dataset.
        name: Name of the cascade's configuration.
        folders: Where cases and models are.
        number: Number of the dataset, for messages.
        reporter: Shows progress.

    Raises:
        UsageError: Cases have no segmentation by the coarser configuration.
        ProblemsError: A segmentation cannot be read, or has another grid than its image; one line for each.
    """
    configuration = plan.configurations[name]
    if configuration.previous is None:
        return
    paths = _find_held_out(folders.model(configuration.previous))
    missing = [case.name for case in dataset.cases if case.name not in paths]
    if missing:
        named = list_names(missing, most=3, count_rest=False)
        message = (
            f"{name} needs the segmentations of held-out cases by {configuration.previous}, which {len(missing)} of "
        )
        message += f"{len(dataset.cases)} cases lack ({named})"
        raise UsageError(
            message, f"run 'autoseg train -d {number} -c {configuration.previous} -f cv{folders.plan_option}' first"
        )
    [owner] = configurations_to_preprocess(plan, [name])
    settings = PreprocessingSettings.of(plan, name, dataset.info).model_copy(update={"structures": ()})
    targets, source, target = dataset.info.targets, folders.cases(owner), folders.cases(name)

    def prepare(case: Case) -> None:
        files = state_of_files([*case.files, paths[case.name]])
        provenance = Provenance(recipe=settings, program=__version__, files=files)
        if is_up_to_date(target, case.name, provenance):
            return
        stored = StoredCase.open(source, case.name)
        segmentation, _ = load_result(paths[case.name], targets)
        label, previous = CaseLabels(stored.load_label()), preprocess_segmentation(segmentation, stored.record)
        codes = encode_cascade(label, previous, code_base(targets))
        without_image = np.zeros((0, *stored.shape), dtype=np.float32)
        prepared = PreprocessedCase(image=without_image, label=codes, record=stored.record)
        save_case(target, case.name, prepared, patch_size=configuration.patch_size, provenance=provenance)

    title = f"segmentations of {configuration.previous}"
    with run_alone(folders.preprocessed, waiting=reporter.say):  # several folds may begin at once
        results_or_raise(map_in_threads(prepare, dataset.cases, title=title, reporter=reporter))


def _find_held_out(model: ModelFolder) -> Mapping[str, Path]:
    """Returns the path of the segmentation of each case that a validated fold held out.

    If several folds held out a case, the last fold counts.
    """
    paths = {}
    for fold in model.trained_folds():
        folder = model.validation(fold)
        if summary_file(folder).is_file():
            cases = Summary.load(summary_file(folder)).cases
            paths.update({case.name: folder / case.prediction_file for case in cases})
    return paths
