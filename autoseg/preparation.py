"""A dataset on disk before training: read and checked, decided on, prepared."""

from collections.abc import Sequence

from autoseg.artifact import atomic_folder
from autoseg.data.splits import Splits, make_splits
from autoseg.data.store import save_case
from autoseg.dataset import Case, Dataset
from autoseg.errors import ProblemsError, UsageError
from autoseg.fingerprint import CaseSample, Fingerprint, fingerprint_case, fingerprint_dataset
from autoseg.integrity import Inspection, find_problems, inspect_case, load_case
from autoseg.parallel import all_sound, work_on_each
from autoseg.plan import CONFIGURATION_NAMES, PRESET_NAMES, ConfigurationName, Plan
from autoseg.preprocessing.case import preprocess_case
from autoseg.reporting import Reporter
from autoseg.workspace import DatasetFolders


def take_fingerprint(dataset: Dataset, reporter: Reporter) -> Fingerprint:
    """Reads every case once: checks it, and takes its facts.

    Raises:
        ProblemsError: Cases are damaged or incomplete, each with its line.
    """

    def inspect(case: Case) -> tuple[Inspection, CaseSample | None]:
        inspection = inspect_case(case, dataset.info)
        if inspection.problems or inspection.image is None or inspection.label is None:
            return inspection.without_voxels(), None
        sample = fingerprint_case(case.name, inspection.image, inspection.label, number_of_cases=len(dataset.cases))
        return inspection.without_voxels(), sample

    inspected = all_sound(work_on_each(inspect, dataset.cases, title="reading cases", reporter=reporter))
    problems = find_problems(dataset, [inspection for inspection, _ in inspected])
    if problems:
        raise ProblemsError([str(problem) for problem in problems])
    return fingerprint_dataset([sample for _, sample in inspected if sample is not None])


def settle_splits(names: Sequence[str], folders: DatasetFolders, reporter: Reporter) -> Splits:
    """The folds of splits.json if it holds these cases and no others, else new ones."""
    usual = make_splits(names)
    present = Splits.load(folders.splits) if folders.splits.is_file() else usual
    if present == usual:
        return usual
    if present.names == set(names):
        reporter.say(f"kept the folds of {folders.splits}; remove it to have the cases dealt anew")
        return present
    reporter.say(f"dealt the cases anew, because {folders.splits} held others")
    return usual


def prepare_cases(
    dataset: Dataset, plan: Plan, name: ConfigurationName, folders: DatasetFolders, reporter: Reporter
) -> None:
    """Prepares all cases for one configuration; its folder appears when all are done, with the plan they follow.

    Raises:
        ProblemsError: Cases cannot be prepared, each with its line.
        WriteError: The disk is full, or the folder cannot be written.
    """
    configuration = plan.configurations[name]

    with atomic_folder(folders.cases(name)) as folder:

        def prepare(case: Case) -> None:
            image, label = load_case(case, dataset.info)
            prepared = preprocess_case(image, label, axis_order=plan.axis_order, configuration=configuration)
            save_case(folder, case.name, prepared, patch_size=configuration.patch_size)

        all_sound(work_on_each(prepare, dataset.cases, title=f"preprocessing {name}", reporter=reporter))
        plan.save(folder / folders.plan.name)


def load_decisions(number: int, folders: DatasetFolders) -> tuple[Plan, Splits]:
    """Reads what `plan_and_preprocess` decided.

    Raises:
        UsageError: It has not been run.
        ArtifactError: plan.json or splits.json is damaged.
    """
    if not folders.plan.is_file() or not folders.splits.is_file():
        raise UsageError(f"{folders.raw.name} has no plan", f"run 'autoseg plan_and_preprocess -d {number}' first")
    return Plan.load(folders.plan), Splits.load(folders.splits)


def open_planned(number: int, folders: DatasetFolders, plan: Plan, splits: Splits) -> Dataset:
    """The cases of splits.json, which must be what the plan was made for.

    Raises:
        ProblemsError: Cases are missing, each with its line.
        UsageError: dataset.json names other channels or labels than the plan.
    """
    dataset = Dataset.open(folders.raw).only(splits.names)
    networks = (configuration.architecture for configuration in plan.configurations.values())
    if {(network.in_channels, network.out_channels) for network in networks} != {
        (dataset.info.channels, dataset.info.classes)
    }:
        what = f"{folders.raw / 'dataset.json'} names other channels or labels than those that plan.json was made for"
        raise UsageError(what, f"restore the file, or run 'autoseg plan_and_preprocess -d {number}' again")
    return dataset


def check_prepared(plan: Plan, name: ConfigurationName, folders: DatasetFolders, number: int) -> None:
    """Makes sure that the cases were prepared as the plan says now.

    Raises:
        UsageError: They were not.
    """
    prepared = folders.cases(name) / folders.plan.name
    fix = f"run 'autoseg preprocess -d {number} -c {name}' first"
    if not prepared.is_file():
        raise UsageError(f"{plan.dataset} is not preprocessed for {name}", fix)
    former = Plan.load(prepared)
    now, then = plan.configurations[name], former.configurations[name]
    if (now.spacing_mm, now.normalization, plan.axis_order) != (then.spacing_mm, then.normalization, former.axis_order):
        raise UsageError(f"plan.json has changed since {plan.dataset} was preprocessed for {name}", fix)


def check_names(configurations: Sequence[str] | None, preset: str) -> None:
    """Refuses a misspelt configuration or preset before hours of reading.

    Raises:
        UsageError: There is none of that name.
    """
    if preset not in PRESET_NAMES:
        raise UsageError(f"there is no preset {preset!r}", f"choose from {', '.join(PRESET_NAMES)}")
    for name in configurations or ():
        if name not in CONFIGURATION_NAMES:
            raise UsageError(f"there is no configuration {name!r}", f"choose from {', '.join(CONFIGURATION_NAMES)}")


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
