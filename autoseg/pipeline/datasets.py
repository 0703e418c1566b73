"""From raw scans and masks to prepared cases: fingerprint, plan, preprocessing."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoseg.datasets.dataset import Dataset
from autoseg.datasets.fingerprint import Fingerprint
from autoseg.datasets.fingerprinting import compute_fingerprint
from autoseg.datasets.info import DatasetInfo, info_file
from autoseg.datasets.splitting import resolve_splits
from autoseg.pipeline.options import resolve_options
from autoseg.planning.plan import ConfigurationName, Plan, PresetName, RulesName
from autoseg.planning.plan_file import (
    check_names,
    choose_configurations,
    list_cases,
    list_stored_configurations,
    load_fingerprint,
    load_plan,
    open_planned,
    save_plan,
)
from autoseg.planning.planner import make_plan
from autoseg.preprocessing.dataset import prepare_cases
from autoseg.runtime.lock import run_alone
from autoseg.runtime.reporting import SILENT, Reporter
from autoseg.workspace import find_workspace

if TYPE_CHECKING:
    pass


def plan_configurations(
    number: int,
    *,
    memory: str | None = None,
    preset: PresetName | None = None,
    rules: RulesName = "autoseg",
    network: str | None = None,
    plan_name: str | None = None,
    workspace: str | os.PathLike[str] | None = None,
    reporter: Reporter = SILENT,
) -> Plan:
    """Decides how to segment a dataset, from its dataset.json and its fingerprint alone; no image is needed.

    The fingerprint may be nnU-Net's dataset_fingerprint.json. A plan that stood there and was another one is kept as
    plan_before.json.

    Args:
        number: Of the dataset.
        memory: Device memory that training may use, such as "8GB"; by default what the GPU has, up to 24 GB, or that
            of the preset.
        preset: Size of the network; by default as large as pays for the memory.
        rules: "autoseg", or "nnunet" for the plans of the reference method.
        network: One of the literature, by its name in `networks.table`, and settings that are not the paper's, as in
            "unet:padded=false,depth=4"; or one of MONAI, such as "monai:SwinUNETR"; by default the usual one.
        plan_name: Of a plan beside the usual one.
        workspace: See `find_workspace`.
        reporter: States what is not as usual.

    Returns:
        The plan, as it stands in plan.json.

    Raises:
        UsageError: There is no fingerprint, no such preset, rules or network, the memory is too small, the name
            impossible, or the network does not take such images.
        DatasetError: There is no such dataset, or its images are too small for any network.
        ArtifactError: dataset.json or the fingerprint is damaged.
    """
    folders = find_workspace(workspace).dataset(number, plan_name)
    info = DatasetInfo.load(info_file(folders.raw))
    options = resolve_options(
        folders.raw.name, memory=memory, preset=preset, rules=rules, network=network, reporter=reporter
    )
    with run_alone(folders.preprocessed):
        made = make_plan(load_fingerprint(number, folders), info, options)
        save_plan(made, folders, reporter)
    return made


def extract_fingerprint(
    number: int,
    *,
    skip: Sequence[str] = (),
    workspace: str | os.PathLike[str] | None = None,
    reporter: Reporter = SILENT,
) -> Fingerprint:
    """Looks at a dataset: reads every case once, checks it and measures it.

    After a stop, it goes on with the cases that were not read yet.

    Args:
        number: Of the dataset: 4 for "Dataset004_Hippocampus".
        skip: Cases to leave out.
        workspace: Folder that holds raw/, preprocessed/ and results/; see `find_workspace`.
        reporter: Shows progress.

    Returns:
        The fingerprint, as it stands in fingerprint.json.

    Raises:
        ProblemsError: Cases are damaged or incomplete, each with its line.
        DatasetError: There is no such dataset, or no such case to skip.
        WriteError: The disk is full, or the workspace cannot be written.
    """
    folders = find_workspace(workspace).dataset(number)
    dataset = Dataset.open(folders.raw).without(skip)
    with run_alone(folders.preprocessed):
        return compute_fingerprint(dataset, folders, reporter)


def plan_and_preprocess(
    number: int,
    *,
    configurations: Sequence[ConfigurationName] | None = None,
    memory: str | None = None,
    preset: PresetName | None = None,
    rules: RulesName = "autoseg",
    network: str | None = None,
    plan_name: str | None = None,
    groups: str | None = None,
    splits: str | os.PathLike[str] | None = None,
    skip: Sequence[str] = (),
    workspace: str | os.PathLike[str] | None = None,
    reporter: Reporter = SILENT,
) -> Plan:
    """Looks at a dataset, decides how to segment it, and prepares its cases for training.

    Nothing is decided before every case was read and found sound. A splits.json that was edited is kept.

    Args:
        number: Of the dataset: 4 for "Dataset004_Hippocampus".
        configurations: Which to prepare; by default all that the plan has.
        memory: See `plan_configurations`, here and in the next three.
        preset: Size of the network.
        rules: "autoseg" or "nnunet".
        network: Of the literature, such as "vnet" or "unet:padded=false"; see `plan_configurations`.
        plan_name: Of a plan beside the usual one.
        groups: Regular expression that finds the patient in a case's name; see `resolve_splits`.
        splits: File of folds to train by, ours or nnU-Net's; by default they are dealt.
        skip: Cases to leave out.
        workspace: Folder that holds raw/, preprocessed/ and results/; see `find_workspace`.
        reporter: Shows progress and states what was decided.

    Returns:
        The plan, as it stands in plan.json.

    Raises:
        ProblemsError: Cases are damaged or incomplete, each with its line.
        DatasetError: There is no such dataset, or no such case to skip, or the images are too small for any network.
        UsageError: There is no such configuration or preset, the memory is too small, or folds do not fit the cases.
        ArtifactError: A file of folds is damaged.
        WriteError: The disk is full, or the workspace cannot be written.
    """
    check_names(configurations)
    folders = find_workspace(workspace).dataset(number, plan_name)
    dataset = Dataset.open(folders.raw).without(skip)
    options = resolve_options(
        dataset.name, memory=memory, preset=preset, rules=rules, network=network, reporter=reporter
    )

    with run_alone(folders.preprocessed):
        facts = compute_fingerprint(dataset, folders, reporter)
        made = make_plan(facts, dataset.info, options)
        names = [case.name for case in dataset.cases]
        source = None if splits is None else Path(splits)
        folds = resolve_splits(names, folders, dataset.info, reporter, groups=groups, source=source)
        chosen = choose_configurations(made, configurations)

        save_plan(made, folders, reporter)
        folds.save(folders.splits)
        prepare_cases(dataset, made, list_stored_configurations(made, chosen), folders, reporter)
    return made


def preprocess(
    number: int,
    *,
    configurations: Sequence[ConfigurationName] | None = None,
    plan_name: str | None = None,
    groups: str | None = None,
    splits: str | os.PathLike[str] | None = None,
    workspace: str | os.PathLike[str] | None = None,
    reporter: Reporter = SILENT,
) -> Plan:
    """Prepares the cases by plan.json as it stands: after `plan_configurations`, or after the file was edited.

    Args:
        number: Of the dataset.
        configurations: Which to prepare; by default all that the plan has.
        plan_name: Of the plan, if it is not the usual one.
        groups: See `plan_and_preprocess`.
        splits: See `plan_and_preprocess`.
        workspace: See `find_workspace`.
        reporter: Shows progress.

    Returns:
        The plan.

    Raises:
        UsageError: There is no plan yet, or it has no such configuration, or dataset.json has changed since.
        ArtifactError: plan.json is damaged: the text names the field.
        ProblemsError: Cases are damaged or missing, each with its line.
    """
    folders = find_workspace(workspace).dataset(number, plan_name)
    with run_alone(folders.preprocessed):
        made = load_plan(number, folders)
        names = list_cases(folders)
        info = DatasetInfo.load(info_file(folders.raw))
        source = None if splits is None else Path(splits)
        folds = resolve_splits(names, folders, info, reporter, groups=groups, source=source)
        dataset = open_planned(number, folders, made, folds)
        chosen = choose_configurations(made, configurations)
        folds.save(folders.splits)
        prepare_cases(dataset, made, list_stored_configurations(made, chosen), folders, reporter)
    return made
