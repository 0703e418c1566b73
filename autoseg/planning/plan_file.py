"""The plan of a dataset on disk: made from its fingerprint within a blink, without torch or images."""

from collections.abc import Sequence

from autoseg.datasets.dataset import Dataset
from autoseg.datasets.fingerprint import Fingerprint
from autoseg.datasets.info import info_file
from autoseg.datasets.nnunet_files import read_fingerprint
from autoseg.datasets.splits import Splits
from autoseg.errors import UsageError
from autoseg.planning.plan import CONFIGURATION_NAMES, ConfigurationName, Plan
from autoseg.runtime.reporting import Reporter
from autoseg.workspace import DatasetFolders


def load_fingerprint(number: int, folders: DatasetFolders) -> Fingerprint:
    """The fingerprint that was taken here, else the one that nnU-Net took.

    Raises:
        UsageError: There is none.
        ArtifactError: It is damaged.
    """
    if folders.fingerprint.is_file():
        return Fingerprint.load(folders.fingerprint)
    if folders.nnunet_fingerprint.is_file():
        return read_fingerprint(folders.nnunet_fingerprint)
    raise UsageError(f"{folders.raw.name} has no fingerprint", f"run 'autoseg fingerprint -d {number}' first")


def save_plan(plan: Plan, folders: DatasetFolders, reporter: Reporter) -> None:
    """Writes plan.json; one that stood there and was another is kept beside it, because it may have been edited."""
    if folders.plan.is_file() and folders.plan.read_bytes() != plan.to_json().encode():
        folders.plan.replace(folders.replaced_plan)
        reporter.say(f"the plan that stood there is now {folders.replaced_plan}")
    plan.save(folders.plan)


def load_plan(number: int, folders: DatasetFolders) -> Plan:
    """Reads plan.json.

    Raises:
        UsageError: There is none.
        ArtifactError: It is damaged.
    """
    if not folders.plan.is_file():
        what = f"{folders.raw.name} has no plan{'' if folders.plan_name is None else f' {folders.plan_name!r}'}"
        raise UsageError(what, f"run 'autoseg plan_and_preprocess -d {number}{folders.plan_option}' first")
    return Plan.load(folders.plan)


def load_decisions(number: int, folders: DatasetFolders) -> tuple[Plan, Splits]:
    """Reads what `plan_and_preprocess` decided.

    Raises:
        UsageError: It has not been run.
        ArtifactError: plan.json or splits.json is damaged.
    """
    plan = load_plan(number, folders)
    if not folders.splits.is_file():
        raise UsageError(
            f"{folders.raw.name} has no splits.json", f"run 'autoseg preprocess -d {number}{folders.plan_option}' first"
        )
    return plan, Splits.load(folders.splits)


def list_cases(folders: DatasetFolders) -> list[str]:
    """Names of the cases that were planned for; all of the dataset if nnU-Net took the fingerprint, which has none."""
    if folders.fingerprint.is_file():
        return [case.name for case in Fingerprint.load(folders.fingerprint).cases]
    return [case.name for case in Dataset.open(folders.raw).cases]


def open_planned(number: int, folders: DatasetFolders, plan: Plan, splits: Splits) -> Dataset:
    """The cases of splits.json, which must be what the plan was made for.

    Raises:
        ProblemsError: Cases are missing, each with its line.
        UsageError: dataset.json names other channels or labels than the plan.
    """
    dataset = Dataset.open(folders.raw).only(splits.names)
    configurations = plan.configurations.values()
    if {(one.image_channels, one.architecture.out_channels) for one in configurations} != {
        (dataset.info.channels, dataset.info.targets.outputs)
    }:
        what = f"{info_file(folders.raw)} names other channels or labels than those that plan.json was made for"
        raise UsageError(
            what, f"restore the file, or run 'autoseg plan_and_preprocess -d {number}{folders.plan_option}' again"
        )
    return dataset


def check_names(configurations: Sequence[str] | None) -> None:
    """Refuses a misspelt configuration before hours of reading.

    Raises:
        UsageError: There is none of that name.
    """
    for name in configurations or ():
        if name not in CONFIGURATION_NAMES:
            raise UsageError(f"there is no configuration {name!r}", f"choose from {', '.join(CONFIGURATION_NAMES)}")


def list_stored_configurations(plan: Plan, names: Sequence[ConfigurationName]) -> list[ConfigurationName]:
    """Returns the configurations whose prepared cases these use; a cascade uses those of "3d_fullres"."""
    stored: list[ConfigurationName] = [
        "3d_fullres" if plan.configurations[name].previous is not None else name for name in names
    ]
    return list(dict.fromkeys(stored))


def choose_configurations(plan: Plan, names: Sequence[str] | None) -> list[ConfigurationName]:
    """The configurations of the plan with these names; all of them if there are no names.

    Raises:
        UsageError: The plan has none of that name.
    """
    unknown = sorted(set(names or ()) - set(plan.configurations))
    if unknown:
        known = ", ".join(plan.configurations)
        raise UsageError(f"{plan.dataset} has no configuration {unknown[0]!r}", f"choose from {known}")
    return [name for name in plan.configurations if not names or name in names]
