"""Installation of a model that nnU-Net trained, as an ordinary model of this package."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from autoseg.errors import AutosegError, ProblemsError
from autoseg.imaging.postprocessing import NO_RULES
from autoseg.models.best_model import BestModel, BestModelFold
from autoseg.models.bundle import add_card, installing
from autoseg.models.bundle_format import MANIFEST
from autoseg.models.checkpoint import Checkpoint, save_checkpoint
from autoseg.models.model_facts import CardMetadata
from autoseg.models.training_statistics import Spread, TrainingStatistics
from autoseg.models.weight_digest import digest_weights
from autoseg.nnunet.model_folders import NnunetFolder, find_choice_rules, find_folders, find_sibling, read_choice
from autoseg.nnunet.models import NnunetModel, make_checkpoints, name_models, read_model
from autoseg.nnunet.postprocessing_file import read_rules
from autoseg.nnunet.zip_source import opened_source
from autoseg.planning.plan import ConfigurationName
from autoseg.runtime.json_text import read_json_text
from autoseg.runtime.reporting import SILENT, Reporter
from autoseg.workspace import MODEL_NAME, ModelFolder, find_workspace

Models = Mapping[ConfigurationName, NnunetModel]

PREFERRED: tuple[ConfigurationName, ...] = ("3d_fullres", "3d_cascade_fullres", "3d_lowres", "2d")
"""Order in which one of several configurations is chosen to predict, unless nnU-Net chose. Decision: the most common
one is first."""


def install_standalone(
    source: str | os.PathLike[str],
    workspace: str | os.PathLike[str] | None = None,
    *,
    name: str | None = None,
    replace: bool = False,
    reporter: Reporter = SILENT,
) -> Path:
    """Puts a model that nnU-Net v2 trained into the workspace, as an ordinary model.

    It predicts as nnU-Net does. No code from its files is run: they are read as tensors and plain values. A model that
    cannot be reproduced exactly, for example one with a custom network or preprocessor, is refused.

    Args:
        source: A model folder, such as ``nnUNetTrainer__nnUNetPlans__3d_fullres``; the results of a dataset with
            several model folders; or a zip written by nnUNetv2_export_model_to_zip. For a cascade, both stages are
            needed.
        workspace: Path of the workspace; see `find_workspace`.
        name: Name by which `predict` finds the model; by default the name of its dataset.
        replace: Whether a model of that name may be replaced.
        reporter: Reports what users should know about the model.

    Returns:
        Path of the installed model, models/NAME in the workspace.

    Raises:
        ModelError: The model is damaged or malicious, or uses a feature that this package lacks.
        DatasetError: Its dataset.json is invalid.
        UsageError: There is no such model, there are several, or the name is taken or invalid.
        WriteError: The disk is full, or the workspace cannot be written.
    """
    with opened_models(Path(source)) as models:
        model_name = name or _default_name(next(iter(models.values())))
        target = find_workspace(workspace).installed(model_name)
        with installing(target, replace=replace) as folder:
            _write_files(ModelFolder(path=folder), models, model_name)
        for model in models.values():
            for line in model.list_remarks():
                reporter.say(line)
    return target


@contextmanager
def opened_models(source: Path) -> Iterator[dict[ConfigurationName, NnunetModel]]:
    """Reads the configurations of a model. A zip is unpacked into a temporary folder until the context ends.

    Args:
        source: A model folder, the results of a dataset, or a zip; see `install_standalone`, also for the errors.
            Inside the context, errors name this path in place of the temporary folder.
    """
    with opened_source(source) as root, _naming_source(source, root):
        yield name_models(_read_models(find_folders(root)))


def _read_models(folders: list[NnunetFolder]) -> list[NnunetModel]:
    """Reads all models; for a single second stage of a cascade also its first stage, if that lies beside it."""
    models = [read_model(folder) for folder in folders]
    if len(models) == 1 and (first_stage := models[0].nnunet_previous) is not None:
        sibling = find_sibling(folders[0], first_stage)
        models += [] if sibling is None else [read_model(sibling)]
    return models


def _default_name(model: NnunetModel) -> str:
    """Returns the name of the dataset without its number."""
    name = re.sub(r"^Dataset\d{3}_", "", model.plans.dataset_name)
    return name if MODEL_NAME.match(name) else "model"


def _write_files(root: ModelFolder, models: Models, name: str) -> None:
    """Writes all files of an installed model."""
    checkpoints = make_checkpoints(models)
    for checkpoint in checkpoints:
        save_checkpoint(checkpoint.to_pass_on(), root.member(checkpoint.configuration_name).checkpoint(checkpoint.fold))
    for configuration, model in models.items():
        member = root.member(configuration)
        if model.rules is not None:
            model.rules.save(member.postprocessing)
        if model.orientation is not None:
            _state_orientation(model.orientation).save(member.training_statistics)
    names = _choose_configurations(root, models, checkpoints)
    metadata = CardMetadata(name=name, cases=_count_cases(models[names[0]]), about=_describe_origin(models[names[0]]))
    add_card(root, names, metadata).save(root.path / MANIFEST)


def _choose_configurations(
    root: ModelFolder, models: Models, checkpoints: list[Checkpoint]
) -> tuple[ConfigurationName, ...]:
    """Chooses the configurations that predict: those that nnU-Net chose if all are installed, else a single one.

    The choice of two configurations is written to best.json.
    """
    ours = {model.nnunet_name: name for name, model in models.items()}
    folders = [model.folder for model in models.values()]
    chosen = read_choice(folders)
    names = tuple(ours[name] for name in chosen if name in ours)
    folds: dict[str, tuple[BestModelFold, ...]] = {
        name: tuple(
            BestModelFold(fold=checkpoint.fold, weights=digest_weights(checkpoint.weights))
            for checkpoint in checkpoints
            if checkpoint.configuration_name == name and isinstance(checkpoint.fold, int)
        )
        for name in names
    }
    if not names or len(names) < len(chosen) or not all(folds.values()):
        return (next(name for name in PREFERRED if name in models),)
    if len(names) == 1:
        return names
    rules_folder = find_choice_rules(folders, chosen)
    first = models[names[0]]
    rules = None if rules_folder is None else read_rules(rules_folder, first.info.targets)
    BestModel(
        dataset=first.plans.dataset_name,
        configurations=names,
        folds=folds,
        rules=rules or NO_RULES,
        candidates=(),
    ).save(root.best_model)
    return names


def _state_orientation(orientation: str) -> TrainingStatistics:
    """Makes training statistics that hold an orientation only, and ranges so wide that no scan is outside of them."""
    anything = Spread(lowest=0, low=0, median=1, high=1e9, highest=1e9)
    return TrainingStatistics(
        cases=1,
        empty_cases=1,
        orientations={orientation: 1},
        spacing_mm=(anything, anything, anything),
        size_mm=(anything, anything, anything),
        channels={},
        structures={},
    )


def _count_cases(model: NnunetModel) -> int | None:
    """Returns the number of training cases from dataset.json; None if it is not given."""
    count = json.loads(read_json_text(model.folder.path / "dataset.json")).get("numTraining")
    return count if type(count) is int and count > 0 else None


def _describe_origin(model: NnunetModel) -> str:
    """Describes the origin of a model for its model card."""
    return f"Trained by nnU-Net v2 ({model.first.trainer}, {model.plans.plans_name}), and installed from there."


@contextmanager
def _naming_source(source: Path, root: Path) -> Iterator[None]:
    """Replaces, in errors, the temporary folder of a zip by the path of the zip."""
    try:
        yield
    except ProblemsError:
        raise
    except AutosegError as error:
        raise type(error)(error.what.replace(str(root), str(source)), error.fix) from error
