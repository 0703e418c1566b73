"""Installing a model that nnU-Net trained, as if it were one of this program's."""

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
from autoseg.nnunet.folders import NnunetFolder, beside, find_choice_rules, find_folders, read_choice
from autoseg.nnunet.models import NnunetModel, make_checkpoints, name_models, read_model
from autoseg.nnunet.postprocessing_file import read_rules
from autoseg.nnunet.zip_source import opened_source
from autoseg.planning.plan import ConfigurationName
from autoseg.runtime.artifact import read_text
from autoseg.runtime.reporting import SILENT, Reporter
from autoseg.workspace import MODEL_NAME, ModelFolder, find_workspace

Models = Mapping[ConfigurationName, NnunetModel]

PREFERRED: tuple[ConfigurationName, ...] = ("3d_fullres", "3d_cascade_fullres", "3d_lowres", "2d")
"""Which of several configurations predicts, unless nnU-Net chose. Decision: that which is asked for most often."""


def install_nnunet(
    source: str | os.PathLike[str],
    workspace: str | os.PathLike[str] | None = None,
    *,
    name: str | None = None,
    replace: bool = False,
    reporter: Reporter = SILENT,
) -> Path:
    """Puts a model that nnU-Net v2 trained into the workspace, as an ordinary model.

    It predicts as nnU-Net does. Nothing of its files is run: they are read as tensors and plain values. What this
    program cannot do as nnU-Net does, such as networks and preprocessors of somebody's own, is refused.

    Args:
        source: A model folder, such as ``nnUNetTrainer__nnUNetPlans__3d_fullres``; the results of a dataset, with
            several of them; or a zip, as nnUNetv2_export_model_to_zip writes it. Of a cascade, both parts are needed.
        workspace: See `find_workspace`.
        name: By which `predict` finds it; by default that of its dataset.
        replace: Whether a model of that name may be replaced.
        reporter: Is told what people should know about the model.

    Returns:
        Its folder, models/NAME in the workspace.

    Raises:
        ModelError: The model is damaged, was made to do harm, or does something that this program does not.
        DatasetError: Its dataset.json is not as it must be.
        UsageError: There is no such model, there are several, or the name is taken or cannot be one.
        WriteError: The disk is full, or the workspace cannot be written.
    """
    with opened_models(Path(source)) as models:
        named = name or _default_name(next(iter(models.values())))
        target = find_workspace(workspace).installed(named)
        with installing(target, replace=replace) as folder:
            _fill(ModelFolder(path=folder), models, named)
        for model in models.values():
            for line in model.list_remarks():
                reporter.say(line)
    return target


@contextmanager
def opened_models(source: Path) -> Iterator[dict[ConfigurationName, NnunetModel]]:
    """Reads the configurations of a model; their folders are there until the context ends.

    Args:
        source: See `install_nnunet`, here and in what is raised. Inside the context, errors name it, and not a folder
            that it was unpacked into.
    """
    with opened_source(source) as root, _naming(source, root):
        yield name_models(_read_models(find_folders(root)))


def _read_models(folders: list[NnunetFolder]) -> list[NnunetModel]:
    """All of them, and what a cascade follows if that lies beside it."""
    models = [read_model(folder) for folder in folders]
    if len(models) == 1 and (former := models[0].their_previous) is not None:
        found = beside(folders[0], former)
        models += [] if found is None else [read_model(found)]
    return models


def _default_name(model: NnunetModel) -> str:
    """That of the dataset, without its number."""
    name = re.sub(r"^Dataset\d{3}_", "", model.plans.dataset_name)
    return name if MODEL_NAME.match(name) else "model"


def _fill(root: ModelFolder, models: Models, name: str) -> None:
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
    names = _choose(root, models, checkpoints)
    metadata = CardMetadata(name=name, cases=_count_cases(models[names[0]]), about=_describe_origin(models[names[0]]))
    add_card(root, names, metadata).save(root.path / MANIFEST)


def _choose(root: ModelFolder, models: Models, checkpoints: list[Checkpoint]) -> tuple[ConfigurationName, ...]:
    """The configurations that predict: those that nnU-Net chose, if all are there; else one.

    Two, or one with postprocessing of its own, are noted in best.json.
    """
    ours = {model.their_name: name for name, model in models.items()}
    folders = [model.folder for model in models.values()]
    chosen = read_choice(folders)
    names = tuple(ours[name] for name in chosen if name in ours)
    folds: dict[str, tuple[BestModelFold, ...]] = {
        name: tuple(
            BestModelFold(fold=one.fold, weights=digest_weights(one.weights))
            for one in checkpoints
            if one.configuration_name == name and isinstance(one.fold, int)
        )
        for name in names
    }
    if not names or len(names) < len(chosen) or not all(folds.values()):
        return (next(name for name in PREFERRED if name in models),)
    if len(names) == 1:
        return names
    together = find_choice_rules(folders, chosen)
    first = models[names[0]]
    rules = None if together is None else read_rules(together, first.info.targets)
    BestModel(
        dataset=first.plans.dataset_name,
        configurations=names,
        folds=folds,
        rules=rules or NO_RULES,
        candidates=(),
    ).save(root.best_model)
    return names


def _state_orientation(orientation: str) -> TrainingStatistics:
    """Says where axes must lead; nothing else is known of the training cases, so that nothing looks unlike them."""
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
    """As dataset.json tells it."""
    count = json.loads(read_text(model.folder.path / "dataset.json")).get("numTraining")
    return count if type(count) is int and count > 0 else None


def _describe_origin(model: NnunetModel) -> str:
    return f"Trained by nnU-Net v2 ({model.first.trainer}, {model.plans.plans_name}), and installed from there."


@contextmanager
def _naming(source: Path, root: Path) -> Iterator[None]:
    """Lets errors name the zip, and not the folder that it was unpacked into."""
    try:
        yield
    except ProblemsError:
        raise
    except AutosegError as error:
        raise type(error)(error.what.replace(str(root), str(source)), error.fix) from error
