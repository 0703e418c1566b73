"""From a raw dataset to prepared cases: fingerprint, plan, preprocessing."""

import os
from collections.abc import Sequence

from autoseg.datasets.dataset import Dataset
from autoseg.datasets.fingerprint import Fingerprint
from autoseg.datasets.fingerprinting import compute_fingerprint
from autoseg.datasets.info import DatasetInfo, info_file
from autoseg.datasets.parts import choose_part
from autoseg.datasets.splitting import SplitRequest, resolve_splits
from autoseg.pipeline.options import add_speed, resolve_options
from autoseg.planning.patch_growth import PatchesName
from autoseg.planning.plan import ConfigurationName, Plan, PresetName, RulesName
from autoseg.planning.plan_file import (
    check_configuration_names,
    choose_configurations,
    configurations_to_preprocess,
    list_planned_cases,
    load_fingerprint,
    load_plan,
    open_planned_dataset,
    save_plan,
)
from autoseg.planning.planner import make_plan
from autoseg.preprocessing.case_sizes import find_too_large
from autoseg.preprocessing.dataset import prepare_cases
from autoseg.preprocessing.provenance import PreprocessingSettings
from autoseg.runtime.lock import run_alone, run_together
from autoseg.runtime.paths import as_path
from autoseg.runtime.reporting import SILENT, Reporter
from autoseg.workspace import find_workspace

FilePath = str | os.PathLike[str]


def extract_fingerprint(
    number: int,
    *,
    skip: Sequence[str] = (),
    workspace: FilePath | None = None,
    reporter: Reporter = SILENT,
) -> Fingerprint:
    """Reads every case of a dataset once, checks it and measures it; writes fingerprint.json.

    After a stop, it goes on with the cases that were not read yet.

    Args:
        number: Number of the dataset: 4 for "Dataset004_Hippocampus".
        skip: Names of cases to leave out.
        workspace: Folder that holds raw/, preprocessed/ and results/; by default $AUTOSEG_WORKSPACE, else the current
            folder.
        reporter: Shows progress.

    Returns:
        The fingerprint, as it stands in fingerprint.json.

    Raises:
        ProblemsError: Cases are damaged or incomplete, with a line for each.
        DatasetError: There is no such dataset, or no such case to skip.
        WriteError: The disk is full, or the workspace cannot be written.

    Example:
        >>> import autoseg
        >>> made = autoseg.make_demo_dataset("work/raw/Dataset001_Demo", cases=2)
        >>> fingerprint = autoseg.extract_fingerprint(1, workspace="work")
        >>> [case.name for case in fingerprint.cases], len(fingerprint.channels)
        (['demo_001', 'demo_002'], 2)
    """
    folders = find_workspace(workspace).dataset(number)
    dataset = Dataset.open(folders.raw).without(skip)
    with run_alone(folders.preprocessed):
        return compute_fingerprint(dataset, folders, reporter)


def plan_configurations(
    number: int,
    *,
    memory: str | None = None,
    preset: PresetName | None = None,
    rules: RulesName = "autoseg",
    network: str | None = None,
    patches: PatchesName | None = None,
    plan_name: str | None = None,
    workspace: FilePath | None = None,
    reporter: Reporter = SILENT,
) -> Plan:
    """Decides how to segment a dataset, from its dataset.json and its fingerprint alone; no image is needed.

    The fingerprint may be nnU-Net's dataset_fingerprint.json. Writes plan.json; a different plan that stood there is
    kept as plan_before.json.

    Args:
        number: Number of the dataset.
        memory: Device memory that training may use, such as "8GB"; by default that of the preset, or the memory of the
            GPU, up to 24 GB.
        preset: Size of the network; by default the largest that is worth its time in this memory, or, if no memory is
            given and there is no CUDA GPU, "small", in a smaller version on a slow machine.
        rules: "autoseg", or "nnunet" for the plans of nnU-Net.
        network: Name of a network of the literature (see `list_networks`), with settings that differ from the paper's
            behind a colon, as in "unet:padded=false,depth=4"; or a network of MONAI, such as "monai:SwinUNETR"; by
            default the network of the preset.
        patches: "growing" begins the training with small patches, "fixed" does not; by default as the preset and
            the labels say. See `planning.patch_growth`.
        plan_name: Name of a plan beside the usual one.
        workspace: See `extract_fingerprint`.
        reporter: Is told what is not as usual.

    Returns:
        The plan, as it stands in plan.json.

    Raises:
        UsageError: There is no fingerprint, no such preset, rules or network, the memory is too small, the name is
            impossible, or the network does not take such images.
        DatasetError: There is no such dataset, or its images are too small for any network.
        ArtifactError: dataset.json or the fingerprint is damaged.

    Example:
        >>> import autoseg
        >>> made = autoseg.make_demo_dataset("work/raw/Dataset001_Demo", cases=2)
        >>> fingerprint = autoseg.extract_fingerprint(1, workspace="work")
        >>> plan = autoseg.plan_configurations(1, preset="small", workspace="work")
        >>> sorted(plan.configurations)
        ['2d', '3d_fullres']
    """
    folders = find_workspace(workspace).dataset(number, plan_name)
    info, fingerprint = DatasetInfo.load(info_file(folders.raw)), load_fingerprint(number, folders)
    options = resolve_options(
        folders,
        memory=memory,
        preset=preset,
        rules=rules,
        network=network,
        patches=patches,
        reporter=reporter,
    )
    with run_alone(folders.preprocessed):
        plan = make_plan(fingerprint, info, add_speed(options, folders, memory=memory, preset=preset))
        save_plan(plan, folders, reporter)
    all_settings = [PreprocessingSettings.of(plan, name, info) for name in plan.configurations]
    for line in find_too_large(all_settings, folders).values():
        reporter.say(line)
    return plan


def preprocess(
    number: int,
    *,
    configurations: Sequence[ConfigurationName] | None = None,
    plan_name: str | None = None,
    groups: str | None = None,
    splits: FilePath | None = None,
    repeats: int | None = None,
    leave_one_out: bool = False,
    part: str | None = None,
    workspace: FilePath | None = None,
    reporter: Reporter = SILENT,
) -> Plan:
    """Prepares the cases by plan.json as it stands: after `plan_configurations`, or after the file was edited.

    Args:
        number: Number of the dataset.
        configurations: Configurations to prepare; by default all that the plan has.
        plan_name: Name of the plan, if it is not the usual one.
        groups: See `plan_and_preprocess`.
        splits: See `plan_and_preprocess`, for this and the next two arguments.
        repeats: How often all cases are assigned to folds.
        leave_one_out: Whether each case is a fold of its own.
        part: "2/4" prepares the second of four parts of the cases, for four machines that share the work; "any" those
            that no other run has in work, until all are there, for machines that come and go.
        workspace: See `extract_fingerprint`.
        reporter: Shows progress.

    Returns:
        The plan.

    Raises:
        UsageError: There is no plan yet, or it has no such configuration or part, or dataset.json has changed since.
        ArtifactError: plan.json is damaged; the text names the field.
        ProblemsError: Cases are damaged or missing, with a line for each.

    Example:
        After plan.json was edited::

            autoseg.preprocess(4, configurations=["3d_fullres"])
    """
    choose_part([], part)
    request = _request_splits(groups, splits, repeats, leave_one_out=leave_one_out)
    folders = find_workspace(workspace).dataset(number, plan_name)
    lock = run_alone if part is None else run_together
    with lock(folders.preprocessed):
        plan = load_plan(number, folders)
        info = DatasetInfo.load(info_file(folders.raw))
        folds = resolve_splits(list_planned_cases(folders), folders, info, reporter, request)
        dataset = open_planned_dataset(number, folders, plan, folds)
        chosen = choose_configurations(plan, configurations)
        folds.save(folders.splits)
        prepare_cases(dataset, plan, configurations_to_preprocess(plan, chosen), folders, reporter, part)
    return plan


def plan_and_preprocess(
    number: int,
    *,
    configurations: Sequence[ConfigurationName] | None = None,
    memory: str | None = None,
    preset: PresetName | None = None,
    rules: RulesName = "autoseg",
    network: str | None = None,
    patches: PatchesName | None = None,
    plan_name: str | None = None,
    groups: str | None = None,
    splits: FilePath | None = None,
    repeats: int | None = None,
    leave_one_out: bool = False,
    skip: Sequence[str] = (),
    workspace: FilePath | None = None,
    reporter: Reporter = SILENT,
) -> Plan:
    """Measures a dataset, decides how to segment it, and prepares its cases for training.

    Nothing is decided before every case was read and found sound. A splits.json that was edited is kept.

    Args:
        number: Number of the dataset: 4 for "Dataset004_Hippocampus".
        configurations: Configurations to prepare; by default all that the plan has.
        memory: See `plan_configurations`, for this and the next five arguments.
        preset: Size of the network.
        rules: "autoseg" or "nnunet".
        network: Name of a network of the literature, such as "vnet" or "unet:padded=false".
        patches: "growing" or "fixed".
        plan_name: Name of a plan beside the usual one.
        groups: Regular expression that finds the patient in a case's name; see `resolve_splits`.
        splits: File of folds to train by, in this program's format or nnU-Net's; by default the cases are assigned.
        repeats: How often all cases are assigned to folds, each time otherwise, so that each is held out as often; by
            default as before, else once. Scores of small datasets vary by chance, and repeats say how much.
        leave_one_out: Whether each case, or each group, is a fold of its own.
        skip: Names of cases to leave out.
        workspace: See `extract_fingerprint`.
        reporter: Shows progress and states what was decided.

    Returns:
        The plan, as it stands in plan.json.

    Raises:
        ProblemsError: Cases are damaged or incomplete, with a line for each.
        DatasetError: There is no such dataset, or no such case to skip, or the images are too small for any network.
        UsageError: There is no such configuration or preset, the memory is too small, or folds do not fit the cases.
        ArtifactError: A file of folds is damaged.
        WriteError: The disk is full, or the workspace cannot be written.

    Example:
        >>> import autoseg
        >>> made = autoseg.make_demo_dataset("work/raw/Dataset001_Demo", cases=2)
        >>> plan = autoseg.plan_and_preprocess(1, preset="small", configurations=["3d_fullres"], workspace="work")
        >>> plan.configurations["3d_fullres"].image_channels
        2
    """
    check_configuration_names(configurations)
    request = _request_splits(groups, splits, repeats, leave_one_out=leave_one_out)
    folders = find_workspace(workspace).dataset(number, plan_name)
    dataset = Dataset.open(folders.raw).without(skip)
    options = resolve_options(
        folders,
        memory=memory,
        preset=preset,
        rules=rules,
        network=network,
        patches=patches,
        reporter=reporter,
    )

    with run_alone(folders.preprocessed):
        fingerprint = compute_fingerprint(dataset, folders, reporter)
        names = [case.name for case in dataset.cases]
        folds = resolve_splits(names, folders, dataset.info, reporter, request)
        plan = make_plan(fingerprint, dataset.info, add_speed(options, folders, memory=memory, preset=preset))
        chosen = choose_configurations(plan, configurations)

        save_plan(plan, folders, reporter)
        folds.save(folders.splits)
        prepare_cases(dataset, plan, configurations_to_preprocess(plan, chosen), folders, reporter)
    return plan


def _request_splits(
    groups: str | None, splits: FilePath | None, repeats: int | None, *, leave_one_out: bool
) -> SplitRequest:
    source = None if splits is None else as_path(splits, "splits")
    return SplitRequest(groups=groups, source=source, repeats=repeats, leave_one_out=leave_one_out)
