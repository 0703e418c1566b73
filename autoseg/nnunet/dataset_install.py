"""Installation of models that nnU-Net trained on a dataset of the workspace, as if they had been trained here.

    nnUNetTrainer__nnUNetPlans__3d_fullres/         in the workspace, for `--plan nnunet`
        plans.json                               -> preprocessed/Dataset004_Name/nnunet/plan.json
        fold_0/checkpoint_final.pth              -> results/Dataset004_Name/nnunet/3d_fullres/fold_0/checkpoint.pt
        fold_0/validation/CASE.nii.gz            -> .../fold_0/validation/CASE.nii.gz, scored again: summary.json

Then `find_best` compares them, alone and in pairs, with the models that were trained here, on the same held-out cases.

Decision: they belong to a named plan of their own. Their spacings, patch sizes and intensities differ from those of the
default plan, and existing plans, preprocessed cases and models stay untouched.

Decision: if nnU-Net's segmentations of the held-out cases are complete, they are copied and not made again, because
they are the results of nnU-Net itself, and segmenting takes as long as its whole validation. They are scored here with
the labels and metrics of this package, so that all scores are comparable. The held-out cases of other folds are
segmented here, by the same code as after `train`.

Decision: everything that can be checked is checked. Channels, labels and the reorientation of scans must agree with the
dataset, each fold must be trained to its end and lie in its own folder, and the cases that it held out must be those of
splits.json. Otherwise scores might be those of training cases.
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
from autoseg.nnunet.install import Models, install_standalone, opened_models
from autoseg.nnunet.models import NnunetModel
from autoseg.planning.plan import ConfigurationName, Plan
from autoseg.planning.plan_file import configurations_to_preprocess, save_plan
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
    """Installs a model that nnU-Net v2 trained in the workspace: as a standalone model, or among those of a dataset.

    It predicts as nnU-Net does. No code from its files is run: they are read as tensors and plain values. A model that
    cannot be reproduced exactly, for example one with a custom network or preprocessor, is refused.

    Among the models of a dataset it is treated as if it had been trained here, by a named plan of its own. Its held-out
    cases are scored: by the segmentations of nnU-Net, or, if some of a fold are missing, by segmentations that are made
    now. A run that was stopped continues.

    Args:
        source: A model folder, such as ``nnUNetTrainer__nnUNetPlans__3d_fullres``; the results of a dataset with
            several model folders; or a zip written by nnUNetv2_export_model_to_zip. For a cascade, both stages are
            needed.
        workspace: Path of the workspace; see `find_workspace`.
        number: Number of the dataset in the workspace on which it was trained; None for a standalone model.
        name: Name by which `predict` finds a standalone model; by default the name of its dataset.
        plan_name: Name of the plan in the dataset; by default "nnunet". Configurations are added to an existing plan.
        splits: File of folds, for a dataset without splits.json; see `pipeline.plan_and_preprocess`.
        replace: Whether a model of that name, or trained folds of that plan, may be replaced.
        device: Device on which held-out cases of a dataset are segmented if nnU-Net's segmentations are missing.
        reporter: Reports what users should know about the model, and shows progress.

    Returns:
        Path of the installed model, models/NAME in the workspace; for a dataset, the folder of the plan's results.

    Raises:
        ModelError: The model is damaged or malicious, or uses a feature that this package lacks.
        DatasetError: Its dataset.json is invalid, or there is no such dataset.
        UsageError: There is no such model, there are several, or the name is taken or invalid. Or the model was trained
            on other channels, labels or folds than those of the dataset, or not to its end.
        ProblemsError: Cases of the dataset are missing, each with its line.
        WriteError: The disk is full, or the workspace cannot be written.

    Example:
        As a model of its own, or among the trained models of dataset 4::

            autoseg.install_nnunet("nnUNetTrainer__nnUNetPlans__3d_fullres")
            autoseg.install_nnunet("nnUNet_results/Dataset004_Hippocampus", number=4)
    """
    if number is None:
        if plan_name is not None or splits is not None:
            what = "a model of its own has no plan and no folds here"
            raise UsageError(what, "name the dataset that it was trained on with -d, or leave --plan and --splits out")
        return install_standalone(source, workspace, name=name, replace=replace, reporter=reporter)
    if name is not None:
        raise UsageError(
            "--name is for a model that belongs to no dataset", "name the plan with --plan, or leave out -d"
        )
    resolved_device = resolve_device(device)
    folders = find_workspace(workspace).dataset(number, plan_name or USUAL_PLAN_NAME)
    with opened_models(Path(source)) as models:
        installation = _examine(models, number, folders, None if splits is None else Path(splits), reporter)
        names = installation.list_new(replace=replace, reporter=reporter)
        if names:
            with _removing_empty_folders(folders), run_alone(folders.preprocessed), run_alone(folders.models):
                installation.write(names, reporter)
        for line in (line for model in models.values() for line in model.list_remarks()):
            reporter.say(line)
    _validate_remaining(installation, resolved_device, reporter)
    return folders.models


@dataclass(frozen=True, slots=True, kw_only=True)
class _DatasetInstall:
    """Models of nnU-Net that were checked against a dataset, ready to be installed.

    Attributes:
        number: Number of the dataset.
        dataset: The dataset, with the cases of its splits.
        folders: Folders of the dataset, as the plan of the models sees them.
        splits: The cases that each fold holds out.
        plan: nnU-Net's plan, joined with an existing plan of that name.
        models: The models as nnU-Net wrote them.
        checkpoints: Configuration to the checkpoints of its folds.
    """

    number: int
    dataset: Dataset
    folders: DatasetFolders
    splits: Splits
    plan: Plan
    models: Models
    checkpoints: Mapping[ConfigurationName, Sequence[Checkpoint]]

    def list_new(self, *, replace: bool, reporter: Reporter) -> list[ConfigurationName]:
        """Lists the configurations that no earlier run has installed; all of them if those may be replaced.

        Raises:
            UsageError: Other trained folds exist and may not be replaced, or a run is training them.
        """
        names = []
        for name, checkpoints in self.checkpoints.items():
            target = self.folders.model(name)
            if target.trained_folds() and not replace:
                if not _are_installed(checkpoints, target):
                    what = f"{target.path} holds other trained folds"
                    raise UsageError(what, "choose another plan with --plan NAME, or add --replace")
                reporter.say(f"{name} was taken over already: {target.path}")
                continue
            for fold in target.running_folds():
                with run_alone(target.fold(fold)):
                    pass  # no run holds the lock: the last run was killed
            names.append(name)
        return names

    def write(self, names: Sequence[ConfigurationName], reporter: Reporter) -> None:
        """Writes plan, splits, checkpoints and the results of held-out cases; everything or nothing."""
        with ExitStack() as stack:
            for name in names:
                folder = stack.enter_context(atomic_folder(self.folders.model(name).path))
                self._write_configuration(ModelFolder(path=folder), name, reporter)
            self.splits.save(self.folders.splits)
            save_plan(self.plan, self.folders, reporter)

    def _write_configuration(self, folder: ModelFolder, name: ConfigurationName, reporter: Reporter) -> None:
        """Writes the folder of a configuration."""
        model = self.models[name]
        for checkpoint in self.checkpoints[name]:
            save_checkpoint(checkpoint, folder.checkpoint(checkpoint.fold))
            if isinstance(checkpoint.fold, int):
                outcome = self._copy_masks(model, checkpoint.fold, folder, reporter)
                reporter.say(f"{name}, fold {checkpoint.fold}: {outcome}")
        save_training_statistics(self.folders.fingerprint, self.dataset.info, folder.training_statistics)
        if any(is_validated(folder, fold) for fold in folder.trained_folds()):
            pool_validation(self.dataset, folder)
        elif model.rules is not None:
            model.rules.save(folder.postprocessing)

    def _copy_masks(self, model: NnunetModel, fold: int, folder: ModelFolder, reporter: Reporter) -> str:
        """Copies and scores nnU-Net's segmentations of held-out cases if they are complete.

        Returns:
            The outcome in words.
        """
        names = self.splits.folds[fold].validation
        held_out = read_held_out(model.folder.path, fold, model.info.file_ending)
        here = "its held-out cases are segmented here"
        if not held_out.masks and held_out.scored is None:
            return "nothing tells which cases it held out; taken to be those of splits.json, which are segmented here"
        if not held_out.holds_all(frozenset(names)):
            return f"nnU-Net's segmentations are not all there; {here}"
        validation = folder.validation(fold)
        validation.mkdir()
        try:
            scores = validate_masks(self.dataset, {case: held_out.masks[case] for case in names}, validation, reporter)
        except ProblemsError as error:
            shutil.rmtree(validation)
            return f"nnU-Net's segmentations do not suit its labels ({error.lines[0]}); {here}"
        return f"mean Dice of nnU-Net's segmentations of held-out cases {scores.foreground_mean.dice:.4f}"


def _examine(
    models: Models, number: int, folders: DatasetFolders, source: Path | None, reporter: Reporter
) -> _DatasetInstall:
    """Checks that models were trained on a dataset and converts their plan. Nothing is written."""
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


def _are_installed(checkpoints: Sequence[Checkpoint], model: ModelFolder) -> bool:
    """Tells whether an earlier run has installed these folds; the folder may hold more folds."""
    if not {checkpoint.fold for checkpoint in checkpoints} <= set(model.trained_folds()):
        return False
    installed = [load_checkpoint(model.checkpoint(checkpoint.fold)) for checkpoint in checkpoints]
    return all(
        (checkpoint.cases, digest_weights(checkpoint.weights)) == (other.cases, digest_weights(other.weights))
        for checkpoint, other in zip(checkpoints, installed, strict=True)
    )


@contextmanager
def _removing_empty_folders(folders: DatasetFolders) -> Iterator[None]:
    """Removes the folders that were made and are empty after an error."""
    try:
        yield
    except BaseException:
        for folder in (folders.models, folders.plan.parent, folders.results, folders.preprocessed):
            for empty in (folder, folder.parent):
                with suppress(OSError):
                    empty.rmdir()
        raise


def _validate_remaining(installation: _DatasetInstall, device: torch.device, reporter: Reporter) -> None:
    """Validates the folds that are not validated yet, as after training; cascades last."""
    plan, folders, dataset = installation.plan, installation.folders, installation.dataset
    for name in sorted(installation.checkpoints, key=lambda name: plan.configurations[name].previous is not None):
        model, first_stage = folders.model(name), plan.configurations[name].previous
        trained = [checkpoint.fold for checkpoint in installation.checkpoints[name] if checkpoint.fold != "all"]
        folds = [fold for fold in trained if not is_validated(model, fold)]
        if not folds:
            continue
        if first_stage is not None and not _is_validated_in_all_folds(folders.model(first_stage), installation.splits):
            reporter.say(f"{name} is not judged: that takes all folds of {first_stage}")
            continue
        prepare_cases(dataset, plan, configurations_to_preprocess(plan, [name]), folders, reporter)
        request = TrainingRequest(
            number=installation.number,
            folders=folders,
            configuration=name,
            folds=tuple(folds),
            device=str(device),
        )
        jobs = make_jobs(request)
        prepare_cascade_labels(jobs[0], installation.number, SILENT)
        for job in jobs:
            validate_fold(job, load_checkpoint(model.checkpoint(job.fold)), reporter)
        pool_validation(dataset, model)


def _is_validated_in_all_folds(model: ModelFolder, splits: Splits) -> bool:
    return all(is_validated(model, fold) for fold in range(len(splits.folds)))
