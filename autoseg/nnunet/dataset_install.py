"""Models that nnU-Net trained on a dataset of the workspace, taken over as if they had been trained here.

    nnUNetTrainer__nnUNetPlans__3d_fullres/         here, for `--plan nnunet`
        plans.json                               -> preprocessed/Dataset004_Name/nnunet/plan.json
        fold_0/checkpoint_final.pth              -> results/Dataset004_Name/nnunet/3d_fullres/fold_0/checkpoint.pt
        fold_0/validation/CASE.nii.gz            -> .../fold_0/validation/CASE.nii.gz, judged anew: summary.json

Then `find_best` compares them, alone and in pairs, with what was trained here, fold by fold on the same held-out cases.

Decision: they belong to a plan beside the usual one. nnU-Net's spacings, patches and intensities are its own, and no
plan, no prepared case and no model that is here already is touched by them.

Decision: segmentations of held-out cases are taken over, not made anew, if all are there: they are what nnU-Net itself
found, and to make them again takes as long as all of its validation did. They are judged by the labels and the metrics
of here, so that all scores are comparable. What is missing is segmented here, by the very code that follows `train`.

Decision: nothing is believed that can be seen. Channels, labels and the turning of scans must be those of the dataset,
each fold must be trained to its end and lie in its own folder, and the cases that it held out must be those of
splits.json. Otherwise its scores would be those of cases that it knows.
"""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from autoseg.datasets.dataset import Dataset
from autoseg.datasets.splits import Splits
from autoseg.errors import ProblemsError, UsageError
from autoseg.model_selection.validation import is_validated, pool_validation, validate_fold, validate_masks
from autoseg.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from autoseg.models.training_statistics import save_training_statistics
from autoseg.models.weight_digest import digest_weights
from autoseg.nnunet.dataset_plan import check_agreement, convert_plan, resolve_nnunet_folds
from autoseg.nnunet.held_out import read_held_out
from autoseg.nnunet.install import Models, opened_models
from autoseg.nnunet.install import install_nnunet as install_apart
from autoseg.nnunet.models import NnunetModel
from autoseg.planning.plan import ConfigurationName, Plan
from autoseg.planning.plan_file import save_plan, with_own_cases
from autoseg.preprocessing.dataset import prepare_cases
from autoseg.runtime.artifact import atomic_folder
from autoseg.runtime.device import resolve_device
from autoseg.runtime.lock import run_alone
from autoseg.runtime.reporting import SILENT, Reporter
from autoseg.training.jobs import TrainingRequest, make_jobs, prepare_cascade_labels
from autoseg.workspace import DatasetFolders, ModelFolder, find_workspace

USUAL_PLAN_NAME = "nnunet"


def install_nnunet(
    source: str | os.PathLike[str],
    workspace: str | os.PathLike[str] | None = None,
    *,
    number: int | None = None,
    name: str | None = None,
    plan_name: str | None = None,
    splits: str | os.PathLike[str] | None = None,
    replace: bool = False,
    device: str = "auto",
    reporter: Reporter = SILENT,
) -> Path:
    """Puts a model that nnU-Net v2 trained into the workspace: as a model of its own, or among those of a dataset.

    It predicts as nnU-Net does. Nothing of its files is run: they are read as tensors and plain values. What this
    program cannot do as nnU-Net does, such as networks and preprocessors of somebody's own, is refused.

    Among the models of a dataset it is as if it had been trained here, by a plan beside the usual one. Its held-out
    cases are judged, by the segmentations that nnU-Net left of them, or, if some are missing, by those that are made
    now. A run that was stopped while it made them goes on.

    Args:
        source: A model folder, such as ``nnUNetTrainer__nnUNetPlans__3d_fullres``; the results of a dataset, with
            several of them; or a zip, as nnUNetv2_export_model_to_zip writes it. Of a cascade, both parts are needed.
        workspace: See `find_workspace`.
        number: Of the dataset in the workspace that it was trained on; None for a model of its own.
        name: Of a model of its own: by which `predict` finds it; by default that of its dataset.
        plan_name: Of a dataset: what the plan is called; by default "nnunet". A plan that is there is added to.
        splits: Of a dataset that has no splits.json: a file of folds; see `pipeline.plan_and_preprocess`.
        replace: Whether a model of that name, or trained folds of that plan, may be replaced.
        device: Of a dataset: where held-out cases are segmented if nnU-Net's masks are missing.
        reporter: Is told what people should know about the model, and shows progress.

    Returns:
        Its folder: models/NAME in the workspace; or, of a dataset, that of its configurations.

    Raises:
        ModelError: The model is damaged, was made to do harm, or does something that this program does not.
        DatasetError: Its dataset.json is not as it must be, or there is no such dataset.
        UsageError: There is no such model, there are several, or the name is taken or cannot be one. Or the model was
            trained on other channels, labels or folds than those of the dataset, or not to its end.
        ProblemsError: Cases of the dataset are missing, each with its line.
        WriteError: The disk is full, or the workspace cannot be written.
    """
    if number is None:
        if plan_name is not None or splits is not None:
            what = "a model of its own has no plan and no folds here"
            raise UsageError(what, "name the dataset that it was trained on with -d, or leave --plan and --splits out")
        return install_apart(source, workspace, name=name, replace=replace, reporter=reporter)
    if name is not None:
        raise UsageError(
            "--name is for a model that belongs to no dataset", "name the plan with --plan, or leave out -d"
        )
    place = resolve_device(device)
    folders = find_workspace(workspace).dataset(number, plan_name or USUAL_PLAN_NAME)
    with opened_models(Path(source)) as models:
        taken = _examine(models, number, folders, None if splits is None else Path(splits), reporter)
        names = taken.list_new(replace=replace, reporter=reporter)
        if names:
            with _leaving_nothing(folders), run_alone(folders.preprocessed), run_alone(folders.models):
                taken.write(names, reporter)
        for line in (line for model in models.values() for line in model.list_remarks()):
            reporter.say(line)
    _judge_rest(taken, place, reporter)
    return folders.models


@dataclass(frozen=True, slots=True, kw_only=True)
class _DatasetInstall:
    """What is taken over, after all of it was examined.

    Attributes:
        number: Of the dataset.
        dataset: The cases of its splits.
        folders: Where it goes.
        splits: Which cases each fold holds out.
        plan: nnU-Net's, and what the plan of that name had before.
        models: As nnU-Net left them.
        checkpoints: Configuration to its folds.
    """

    number: int
    dataset: Dataset
    folders: DatasetFolders
    splits: Splits
    plan: Plan
    models: Models
    checkpoints: Mapping[ConfigurationName, Sequence[Checkpoint]]

    def list_new(self, *, replace: bool, reporter: Reporter) -> list[ConfigurationName]:
        """The configurations that no earlier run took over; all of them if that is to be replaced.

        Raises:
            UsageError: Other folds are there, and are not to be replaced; or a run is at work on them.
        """
        names = []
        for name, checkpoints in self.checkpoints.items():
            there = self.folders.model(name)
            if there.trained_folds() and not replace:
                if not _are_there(checkpoints, there):
                    what = f"{there.path} holds other trained folds"
                    raise UsageError(what, "choose another plan with --plan NAME, or add --replace")
                reporter.say(f"{name} was taken over already: {there.path}")
                continue
            for fold in there.running_folds():
                with run_alone(there.fold(fold)):
                    pass  # nobody is at work there; the last run was killed
            names.append(name)
        return names

    def write(self, names: Sequence[ConfigurationName], reporter: Reporter) -> None:
        """Writes plan, folds and all that is known of held-out cases; everything or nothing."""
        with ExitStack() as stack:
            for name in names:
                place = stack.enter_context(atomic_folder(self.folders.model(name).path))
                self._fill(ModelFolder(path=place), name, reporter)
            self.splits.save(self.folders.splits)
            save_plan(self.plan, self.folders, reporter)

    def _fill(self, folder: ModelFolder, name: ConfigurationName, reporter: Reporter) -> None:
        """Writes the folder of a configuration."""
        model = self.models[name]
        for checkpoint in self.checkpoints[name]:
            save_checkpoint(checkpoint, folder.checkpoint(checkpoint.fold))
            if isinstance(checkpoint.fold, int):
                reporter.say(
                    f"{name}, fold {checkpoint.fold}: {self._take_masks(model, checkpoint.fold, folder, reporter)}"
                )
        save_training_statistics(self.folders.fingerprint, self.dataset.info, folder.training_statistics)
        if any(is_validated(folder, fold) for fold in folder.trained_folds()):
            pool_validation(self.dataset, folder)
        elif model.rules is not None:
            model.rules.save(folder.postprocessing)

    def _take_masks(self, model: NnunetModel, fold: int, folder: ModelFolder, reporter: Reporter) -> str:
        """Takes over what nnU-Net made of the held-out cases, if it made all, and says in words what became of it."""
        names = self.splits.folds[fold].validation
        found = read_held_out(model.folder.path, fold, model.info.file_ending)
        here = "its held-out cases are segmented here"
        if not found.masks and found.scored is None:
            return "nothing tells which cases it held out; taken to be those of splits.json, which are segmented here"
        if not found.holds_all(frozenset(names)):
            return f"nnU-Net's segmentations are not all there; {here}"
        place = folder.validation(fold)
        place.mkdir()
        try:
            scores = validate_masks(self.dataset, {case: found.masks[case] for case in names}, place, reporter)
        except ProblemsError as error:
            shutil.rmtree(place)
            return f"nnU-Net's segmentations do not suit its labels ({error.lines[0]}); {here}"
        return f"mean Dice of nnU-Net's segmentations of held-out cases {scores.foreground_mean.dice:.4f}"


def _examine(
    models: Models, number: int, folders: DatasetFolders, source: Path | None, reporter: Reporter
) -> _DatasetInstall:
    """Makes sure that a model belongs to a dataset. Nothing is written."""
    dataset = Dataset.open(folders.raw)
    for model in models.values():
        check_agreement(model, dataset, folders)
    splits = resolve_nnunet_folds(models, dataset, folders, source, reporter)
    dataset = dataset.only(splits.names)
    plan, checkpoints = convert_plan(models, dataset, splits, folders)
    return _DatasetInstall(
        number=number,
        dataset=dataset,
        folders=folders,
        splits=splits,
        plan=plan,
        models=models,
        checkpoints=checkpoints,
    )


def _are_there(checkpoints: Sequence[Checkpoint], model: ModelFolder) -> bool:
    """Whether these very folds were taken over before; there may be more of them."""
    if not {one.fold for one in checkpoints} <= set(model.trained_folds()):
        return False
    pairs = [(one, load_checkpoint(model.checkpoint(one.fold))) for one in checkpoints]
    return all(
        (one.cases, digest_weights(one.weights)) == (other.cases, digest_weights(other.weights)) for one, other in pairs
    )


@contextmanager
def _leaving_nothing(folders: DatasetFolders) -> Iterator[None]:
    """After an error, folders that were made and are empty go."""
    try:
        yield
    except BaseException:
        for folder in (folders.models, folders.plan.parent, folders.results, folders.preprocessed):
            for empty in (folder, folder.parent):
                with suppress(OSError):
                    empty.rmdir()
        raise


def _judge_rest(taken: _DatasetInstall, device: torch.device, reporter: Reporter) -> None:
    """Segments and judges the held-out cases of folds that are not judged yet, as after training."""
    plan, folders, dataset = taken.plan, taken.folders, taken.dataset
    for name in sorted(taken.checkpoints, key=lambda one: plan.configurations[one].previous is not None):
        model, former = folders.model(name), plan.configurations[name].previous
        folds = [one.fold for one in taken.checkpoints[name] if one.fold != "all" and not is_validated(model, one.fold)]
        if not folds:
            continue
        if former is not None and not _is_judged(folders.model(former), taken.splits):
            reporter.say(f"{name} is not judged: that takes all folds of {former}")
            continue
        prepare_cases(dataset, plan, with_own_cases(plan, [name]), folders, reporter)
        request = TrainingRequest(
            number=taken.number,
            folders=folders,
            configuration=name,
            folds=tuple(folds),
            device=str(device),
        )
        jobs = make_jobs(request)
        prepare_cascade_labels(jobs[0], taken.number, SILENT)
        for job in jobs:
            validate_fold(job, load_checkpoint(model.checkpoint(job.fold)), reporter)
        pool_validation(dataset, model)


def _is_judged(model: ModelFolder, splits: Splits) -> bool:
    return all(is_validated(model, fold) for fold in range(len(splits.folds)))
