"""Folders of small models on disk: a fold, a cascade, and configurations that predict together."""

from dataclasses import replace
from pathlib import Path

import torch
from small_models import small_checkpoint

from autoseg.imaging.postprocessing import PostprocessingRules
from autoseg.models.best_model import BestModel, BestModelFold, CandidateScores
from autoseg.models.checkpoint import load_checkpoint, save_checkpoint
from autoseg.models.weight_digest import digest_weights
from autoseg.planning.plan import Plan
from autoseg.workspace import ModelFolder


def model_in(root: Path, name: str = "3d_fullres", **changes: object) -> ModelFolder:
    """A small model of one fold, which is trained to its end, in a folder of its own."""
    folder = ModelFolder(path=root / name)
    trained = replace(small_checkpoint(), training={"step": 6, "secret": "patient_7"}, configuration_name=name)
    save_checkpoint(replace(trained, **changes), folder.checkpoint(trained.fold))
    return folder


def cascade_in(root: Path) -> ModelFolder:
    """A cascade, beside the coarser model that it follows."""
    plan = small_checkpoint().plan
    coarse = plan.configurations["3d_fullres"]
    network = coarse.architecture.model_copy(update={"in_channels": 3})
    fine = coarse.model_copy(update={"previous": "3d_lowres", "architecture": network})
    plan = Plan.model_validate(
        plan.model_copy(update={"configurations": {"3d_lowres": coarse, "3d_cascade_fullres": fine}}).model_dump()
    )
    weights = dict(small_checkpoint().weights)
    first = "encoder.0.blocks.0.conv.weight"
    weights[first] = weights[first].repeat(1, 3, 1, 1, 1)
    model_in(root, "3d_lowres", plan=plan)
    return model_in(root, "3d_cascade_fullres", plan=plan, weights=weights)


def choose(root: Path, *names: str) -> BestModel:
    """Writes a best.json that says that all folds of these configurations predict together."""
    folds = {}
    for name in names:
        folder = ModelFolder(path=root / name)
        weights = {fold: load_checkpoint(folder.checkpoint(fold)).weights for fold in folder.trained_folds()}
        folds[name] = tuple(BestModelFold(fold=fold, weights=digest_weights(one)) for fold, one in weights.items())
    candidate = CandidateScores(configurations=names, cases=3, mean_dice=0.5, dice={}, chosen=True, reason="it is")
    choice = BestModel(
        dataset="Dataset001_Small",
        configurations=names,
        folds=folds,
        rules=PostprocessingRules(keep_largest=((1,),)),
        candidates=(candidate,),
        left_out=("2d lacks case_7",),
    )
    choice.save(root / "best.json")
    return choice


def two_in(root: Path) -> None:
    """Two configurations that predict together."""
    one = small_checkpoint().plan.configurations["3d_fullres"]
    plan = small_checkpoint().plan.model_copy(update={"configurations": {"3d_lowres": one, "3d_fullres": one}})
    weights = dict(small_checkpoint().weights)
    weights["heads.0.bias"] = torch.tensor([0.5, -0.5, 0.3])
    model_in(root, "3d_lowres", plan=plan, weights=weights)
    model_in(root, "3d_fullres", plan=plan, weights=weights)
    choose(root, "3d_fullres", "3d_lowres")
