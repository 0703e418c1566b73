"""A workspace in which both programs work on the same datasets, and nnU-Net answers questions."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from parity_cases import SMALL_CASES
from parity_sets import SETS, ParitySet
from phantoms import write_json

from autoseg.datasets.fingerprint import Fingerprint
from autoseg.models.checkpoint import load_checkpoint
from autoseg.nnunet.weight_names import export_weights
from autoseg.pipeline.datasets import extract_fingerprint, plan_configurations, preprocess
from autoseg.pipeline.training import train
from autoseg.planning.plan import Configuration, ConfigurationName, Plan
from autoseg.planning.planner import PlanningOptions, make_plan
from autoseg.planning.presets import PRESETS
from autoseg.workspace import DatasetFolders, ModelFolder, Workspace

PROGRAM = Path(__file__).with_name("reference.py")
CPU_LIMITS = {"nnUNet_def_n_proc": "2", "nnUNet_n_proc_DA": "2"}
PLAN_FILES = {
    "plain": "nnUNetPlans.json",
    "resenc_m": "nnUNetResEncUNetMPlans.json",
    "resenc_l": "nnUNetResEncUNetLPlans.json",
    "resenc_xl": "nnUNetResEncUNetXLPlans.json",
}
TRAINING = {
    "epochs": 2,
    "steps_per_epoch": 100,
    "validation_steps": 1,
    "optimizer": "adamw",
    "learning_rate": 0.005,
    "foreground_fraction": 0.8,
}
BATCH_VOXELS = 2**17
"""Voxels of all patches of a training step."""

Arrays = dict[str, np.ndarray]


def ask(
    python: Path,
    task: str,
    question: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Arrays:
    """Runs `reference.py` in nnU-Net's environment and returns its answer.

    Args:
        python: Interpreter of nnU-Net's environment.
        task: Name of a function of `reference.py`.
        question: What the function gets, without arrays.
        arrays: Arrays that the function gets.
        environment: Further environment variables.

    Raises:
        RuntimeError: nnU-Net failed.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "question.json").write_text(json.dumps(question, default=str))
        if arrays:
            np.savez(folder / "question.npz", **arrays)
        whole = {**os.environ, **CPU_LIMITS, "OMP_NUM_THREADS": "2", **(environment or {})}
        command = [str(python), "-W", "ignore", str(PROGRAM), task, name]
        done = subprocess.run(command, env=whole, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"nnU-Net could not {task}: {done.stderr[-3000:]}")
        with np.load(folder / "answer.npz") as answer:
            return dict(answer)


def ask_about_cases(python: Path) -> dict[str, Arrays]:
    """Lets nnU-Net preprocess and export the small made-up cases.

    Returns:
        For each case image, label and box of preprocessing, and segmentation and probabilities of the export.
    """
    arrays = {}
    for number, case in enumerate(SMALL_CASES.values()):
        image, label = case.make()
        arrays |= {f"{number}_image": image.array, f"{number}_label": label.array.astype(np.int16)}
        arrays[f"{number}_logits"] = case.make_logits()
    question = {"cases": [case.question() for case in SMALL_CASES.values()]}
    answer = {**ask(python, "preprocess", question, arrays), **ask(python, "export", question, arrays)}
    return {
        name: {key.partition("_")[2]: value for key, value in answer.items() if key.startswith(f"{number}_")}
        for number, name in enumerate(SMALL_CASES)
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A dataset that both programs fingerprinted, planned and preprocessed.

    Attributes:
        kind: Description of the dataset.
        ours: Folders of this program.
        theirs: Folder of nnU-Net's preprocessed dataset.
        fingerprint: Fingerprint that this program extracted.
    """

    kind: ParitySet
    ours: DatasetFolders
    theirs: Path
    fingerprint: Fingerprint

    def read_plans(self, preset: str = "plain") -> dict[str, Any]:
        """Reads nnU-Net's plans."""
        return json.loads((self.theirs / PLAN_FILES[preset]).read_text())

    def plan(self, preset: str, fingerprint: Fingerprint | None = None) -> Plan:
        """Plans by the same rules in this program, from its own fingerprint or another."""
        options = PlanningOptions(
            dataset=self.ours.raw.name,
            memory_budget_bytes=PRESETS[preset].memory_bytes,
            preset=preset,
            rules="nnunet",
        )
        return make_plan(fingerprint or self.fingerprint, self.kind.info, options)


@dataclass(frozen=True, slots=True, kw_only=True)
class Twins:
    """The same network with the same weights in both programs.

    Attributes:
        ours: Model folder of this program.
        theirs: Model folder of nnU-Net.
    """

    ours: ModelFolder
    theirs: Path


@dataclass
class Bench:
    """A workspace of both programs, which prepares each dataset and model when it is first asked for.

    Attributes:
        root: Folder of the workspace.
        python: Interpreter of nnU-Net's environment.
    """

    root: Path
    python: Path
    _made: dict[str, Made] = field(default_factory=dict)
    _twins: dict[tuple[str, str], Twins] = field(default_factory=dict)
    _trained_there: dict[tuple[str, str], Path] = field(default_factory=dict)
    _segmented: dict[str, Path] = field(default_factory=dict)

    def ask(self, task: str, question: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None) -> Arrays:
        """Lets nnU-Net answer a question in this workspace."""
        places = {
            "nnUNet_raw": self.root / "raw",
            "nnUNet_preprocessed": self.root / "nnunet_preprocessed",
            "nnUNet_results": self.root / "nnunet_results",
        }
        for place in places.values():
            place.mkdir(parents=True, exist_ok=True)
        return ask(self.python, task, question, arrays, {key: str(place) for key, place in places.items()})

    def make(self, name: str) -> Made:
        """Lets both programs prepare a dataset, each from the raw files."""
        if name not in self._made:
            kind = SETS[name]
            folders = Workspace(root=self.root).folders(f"Dataset{kind.number:03d}_{name.title()}")
            kind.write(folders.raw)
            question = {"number": kind.number, "presets": list(PLAN_FILES), "configurations": kind.configurations}
            self.ask("prepare", question)
            theirs = self.root / "nnunet_preprocessed" / folders.raw.name
            fingerprint = self._prepare_here(kind, folders, theirs / folders.nnunet_fingerprint.name)
            self._made[name] = Made(kind=kind, ours=folders, theirs=theirs, fingerprint=fingerprint)
        return self._made[name]

    def _prepare_here(self, kind: ParitySet, folders: DatasetFolders, their_fingerprint: Path) -> Fingerprint:
        """Extracts the fingerprint, then plans and preprocesses by nnU-Net's, whose intensities are a random sample."""
        fingerprint = extract_fingerprint(kind.number, workspace=self.root)
        folders.fingerprint.unlink()
        shutil.copy(their_fingerprint, folders.nnunet_fingerprint)
        plan_configurations(kind.number, preset="plain", rules="nnunet", workspace=self.root)
        preprocess(kind.number, configurations=kind.configurations, workspace=self.root)
        return fingerprint

    def train(self, name: str, configuration: ConfigurationName) -> Twins:
        """Trains a small network here for a few steps, and writes it as a model of nnU-Net."""
        if (name, configuration) not in self._twins:
            made = self.make(name)
            _shrink_plan(made.ours.plan)
            train(made.kind.number, configuration, [0], device="cpu", workspace=self.root)
            ours = made.ours.model(configuration)
            theirs = self.root / "nnunet_results" / made.ours.raw.name / configuration
            self._give(ours, theirs, made)
            self._twins[name, configuration] = Twins(ours=ours, theirs=theirs)
        return self._twins[name, configuration]

    def _give(self, model: ModelFolder, folder: Path, made: Made) -> None:
        fold = load_checkpoint(model.checkpoint(0))
        plans = made.read_plans()
        for one in plans["configurations"].values():
            shrink_network(one)
        write_json(folder / "plans.json", plans)
        write_json(folder / "dataset.json", json.loads((made.ours.raw / "dataset.json").read_text()))
        weights = export_weights(fold.weights, fold.configuration.architecture, None)
        question = {
            "model": folder,
            "configuration": fold.configuration_name,
            "fold": 0,
            "mirror_axes": fold.configuration.augmentation.mirror_axes,
        }
        self.ask("save_model", question, {key: value.numpy() for key, value in weights.items()})

    def train_there(self, name: str, configuration: ConfigurationName) -> Path:
        """Lets nnU-Net's own trainer train a small network for a few steps; returns the model folder."""
        if (name, configuration) not in self._trained_there:
            made = self.make(name)
            plans = made.read_plans()
            for one in plans["configurations"].values():
                shrink_network(one)
            one = plans["configurations"][configuration]
            one["batch_size"] = max(2, BATCH_VOXELS // int(np.prod(one["patch_size"])))
            dataset = json.loads((made.ours.raw / "dataset.json").read_text())
            question = {"plans": plans, "dataset": dataset, "configuration": configuration, **TRAINING}
            answer = self.ask("train", question)
            self._trained_there[name, configuration] = Path(str(answer["model"]))
        return self._trained_there[name, configuration]

    def segment(self, name: str, configuration: ConfigurationName, *, single: bool = False) -> Path:
        """Lets nnU-Net segment the test cases, with probabilities; `predict` in reference.py explains `single`."""
        key = f"{name}_{configuration}" + "_single" * single
        if key not in self._segmented:
            twins, output = self.train(name, configuration), self.root / "segmented" / key
            question = {
                "model": str(twins.theirs),
                "scans": str(self.make(name).ours.raw / "imagesTs"),
                "output": str(output),
                "single": single,
            }
            self.ask("predict", question)
            self._segmented[key] = output
        return self._segmented[key]


def shrink(features: int) -> int:
    """Returns a smaller number of features of a stage, which two cores train within seconds."""
    return min(features // 4, 32)


def shrink_network(configuration: dict[str, Any]) -> None:
    """Makes the network of a configuration in nnU-Net's plans smaller, in place."""
    if "architecture" in configuration:
        network = configuration["architecture"]["arch_kwargs"]
        network["features_per_stage"] = [shrink(features) for features in network["features_per_stage"]]


def _shrink_plan(path: Path) -> None:
    """Edits plan.json, as a user would: few features, small batches, a short training."""
    plan = Plan.load(path)
    if plan.training.epochs == TRAINING["epochs"]:
        return
    configurations = {name: shrink_configuration(one) for name, one in plan.configurations.items()}
    training = plan.training.model_validate({**plan.training.model_dump(), **TRAINING})
    plan.model_copy(update={"training": training, "configurations": configurations}).save(path)


def shrink_configuration(configuration: Configuration) -> Configuration:
    """Returns a configuration of this program with a smaller network, and with another batch size."""
    stages = tuple(
        stage.model_copy(update={"features": shrink(stage.features)}) for stage in configuration.architecture.stages
    )
    network = configuration.architecture.model_copy(update={"stages": stages})
    batch_size = max(2, BATCH_VOXELS // configuration.patch_voxels)
    return configuration.model_copy(update={"architecture": network, "batch_size": batch_size})
