"""Loads and saves the plan of a dataset and what belongs to it: fingerprint, splits and cases."""

from collections.abc import Sequence

from autoseg.datasets.dataset import Dataset
from autoseg.datasets.fingerprint import Fingerprint
from autoseg.datasets.hu_windows import find_window_problem
from autoseg.datasets.nnunet_files import read_fingerprint
from autoseg.datasets.splits import Splits
from autoseg.errors import UsageError
from autoseg.planning.plan import CONFIGURATION_NAMES, ConfigurationName, Plan
from autoseg.runtime.artifact import atomic_file
from autoseg.runtime.lock import change_alone
from autoseg.runtime.reporting import Reporter
from autoseg.workspace import DatasetFolders


def load_fingerprint(number: int, folders: DatasetFolders) -> Fingerprint:
    """Loads the fingerprint of a dataset, else the one that nnU-Net extracted.

    Args:
        number: Number of the dataset, for error messages.
        folders: The folders of the dataset.

    Raises:
        UsageError: There is no fingerprint.
        ArtifactError: The fingerprint is damaged.
    """
    if folders.fingerprint.is_file():
        return Fingerprint.load(folders.fingerprint)
    if folders.nnunet_fingerprint.is_file():
        return read_fingerprint(folders.nnunet_fingerprint)
    raise UsageError(f"{folders.raw.name} has no fingerprint", f"run 'autoseg fingerprint -d {number}' first")


def save_plan(plan: Plan, folders: DatasetFolders, reporter: Reporter) -> None:
    """Saves plan.json; a different plan that was there is kept beside it, because it may have been edited."""
    with change_alone(folders.plan):
        if folders.plan.is_file() and folders.plan.read_bytes() != plan.to_json().encode():
            with atomic_file(folders.replaced_plan) as writing:  # so that there is a plan at every moment
                writing.write_bytes(folders.plan.read_bytes())
            reporter.say(f"the plan that stood there is now {folders.replaced_plan}")
        plan.save(folders.plan)


def load_plan(number: int, folders: DatasetFolders) -> Plan:
    """Loads plan.json.

    Args:
        number: Number of the dataset, for error messages.
        folders: The folders of the dataset.

    Raises:
        UsageError: There is no plan.
        ArtifactError: The plan is damaged.
    """
    if not folders.plan.is_file():
        problem = f"{folders.raw.name} has no plan{'' if folders.plan_name is None else f' {folders.plan_name!r}'}"
        raise UsageError(problem, f"run 'autoseg plan_and_preprocess -d {number}{folders.plan_option}' first")
    return Plan.load(folders.plan)


def load_plan_and_splits(number: int, folders: DatasetFolders) -> tuple[Plan, Splits]:
    """Loads the plan and the splits, which `plan_and_preprocess` makes.

    Args:
        number: Number of the dataset, for error messages.
        folders: The folders of the dataset.

    Raises:
        UsageError: The plan or the splits do not exist.
        ArtifactError: plan.json or splits.json is damaged.
    """
    plan = load_plan(number, folders)
    if not folders.splits.is_file():
        raise UsageError(
            f"{folders.raw.name} has no splits.json", f"run 'autoseg preprocess -d {number}{folders.plan_option}' first"
        )
    return plan, Splits.load(folders.splits)


def list_planned_cases(folders: DatasetFolders) -> list[str]:
    """Returns the names of the planned cases; all of the dataset if the fingerprint is from nnU-Net, without names."""
    if folders.fingerprint.is_file():
        return [case.name for case in Fingerprint.load(folders.fingerprint).cases]
    return [case.name for case in Dataset.open(folders.raw).cases]


def open_planned_dataset(number: int, folders: DatasetFolders, plan: Plan, splits: Splits) -> Dataset:
    """Opens the dataset with the cases of splits.json, and checks that it is the one that the plan was made for.

    Args:
        number: Number of the dataset, for error messages.
        folders: The folders of the dataset.
        plan: The plan of the dataset.
        splits: The splits of the dataset.

    Raises:
        ProblemsError: Cases are missing, each with its line.
        UsageError: dataset.json names other channels or labels than the plan, or the plan has windows of Hounsfield
            units for a channel that is not CT.
    """
    dataset = Dataset.open(folders.raw).only(splits.names)
    configurations = plan.configurations.values()
    if {(len(entry.normalization), entry.architecture.out_channels) for entry in configurations} != {
        (dataset.info.channels, dataset.info.targets.outputs)
    }:
        problem = (
            f"{folders.raw / 'dataset.json'} names other channels or labels than those that plan.json was made for"
        )
        raise UsageError(
            problem, f"restore the file, or run 'autoseg plan_and_preprocess -d {number}{folders.plan_option}' again"
        )
    for name, entry in plan.configurations.items():
        windows = {str(channel): True for channel, n in enumerate(entry.normalization) if n.window_hu is not None}
        if found := find_window_problem(windows, dataset.info.channel_names):
            raise UsageError(f"configurations.{name}.normalization in plan.json: {found}", "use another scheme there")
    return dataset


def check_configuration_names(configurations: Sequence[str] | None) -> None:
    """Checks the names of configurations, so that a misspelt one is reported before hours of preprocessing.

    Raises:
        UsageError: There is no configuration of that name.
    """
    for name in configurations or ():
        if name not in CONFIGURATION_NAMES:
            raise UsageError(f"there is no configuration {name!r}", f"choose from {', '.join(CONFIGURATION_NAMES)}")


def configurations_to_preprocess(plan: Plan, names: Sequence[ConfigurationName]) -> list[ConfigurationName]:
    """Returns the configurations whose cases must be preprocessed for these: a cascade uses those of "3d_fullres"."""
    owners: list[ConfigurationName] = [
        "3d_fullres" if plan.configurations[name].previous is not None else name for name in names
    ]
    return list(dict.fromkeys(owners))


def choose_configurations(plan: Plan, names: Sequence[str] | None) -> list[ConfigurationName]:
    """Returns the configurations of the plan with these names; all of them if there are no names.

    Raises:
        UsageError: The plan has no configuration of that name.
    """
    unknown = sorted(set(names or ()) - set(plan.configurations))
    if unknown:
        choices = ", ".join(plan.configurations)
        raise UsageError(f"{plan.dataset} has no configuration {unknown[0]!r}", f"choose from {choices}")
    return [name for name in plan.configurations if not names or name in names]
