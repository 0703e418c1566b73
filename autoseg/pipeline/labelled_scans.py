"""Scans that a trained configuration labels, and the dataset that they make with the cases that people labelled."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autoseg.datasets.dataset import Case, Dataset
from autoseg.datasets.machine_labels import RECORD, choose_new_scans, list_machine_labelled
from autoseg.datasets.scans import find_scans
from autoseg.datasets.splits import Splits
from autoseg.errors import ArtifactError, ProblemsError, UsageError
from autoseg.evaluation.summary import Summary, summary_file
from autoseg.planning.plan import ConfigurationName, Plan
from autoseg.planning.plan_file import choose_configurations, load_plan_and_splits, open_planned_dataset
from autoseg.runtime.reporting import Reporter
from autoseg.workspace import DatasetFolders, ModelFolder, Workspace, dataset_folder_name

if TYPE_CHECKING:
    from autoseg.model_selection.pseudo_labels import PseudoLabels
    from autoseg.model_selection.unlabelled_scans import ComparedScan, FoldModel

SUFFIX = "pseudo"
"""What the name of a dataset with labels of a model has at its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """A trained configuration of a dataset.

    Attributes:
        number: Number of the dataset.
        folders: Its folders, as its plan sees them.
        configuration: The configuration.
        plan: The plan.
        splits: The folds.
        dataset: The dataset, with the cases of its folds.
    """

    number: int
    folders: DatasetFolders
    configuration: ConfigurationName
    plan: Plan
    splits: Splits
    dataset: Dataset

    @property
    def model(self) -> ModelFolder:
        """The folder of the folds."""
        return self.folders.model(self.configuration)

    @property
    def labelled(self) -> list[str]:
        """Names of the cases that people have labelled."""
        machine = set(list_machine_labelled(self.splits.names, self.dataset.info))
        return [case.name for case in self.dataset.cases if case.name not in machine]


def open_teacher(
    place: Workspace, number: int, configuration: ConfigurationName | None, plan_name: str | None
) -> Teacher:
    """Finds the configuration whose folds are meant."""
    from autoseg.models.model_source import find_model

    folders = place.dataset(number, plan_name)
    plan, splits = load_plan_and_splits(number, folders)
    if configuration is None:
        found = find_model(number, plan_name=plan_name, with_best_model=False, workspace=place.root)
        [configuration] = choose_configurations(plan, [found.name])
    [configuration] = choose_configurations(plan, [configuration])
    dataset = open_planned_dataset(number, folders, plan, splits)
    return Teacher(
        number=number, folders=folders, configuration=configuration, plan=plan, splits=splits, dataset=dataset
    )


def refuse_what_cannot_be_labelled(teacher: Teacher) -> None:
    """Finds out before the work whether the configuration can make labels, and learn from them by itself.

    Raises:
        UsageError: Its structures have no label map, or it is a cascade.
    """
    if teacher.dataset.info.targets.as_masks:
        what = f"the structures of {teacher.dataset.name} overlap freely, and are predicted as a mask each"
        raise UsageError(what, "pseudo-labels are label maps; give the dataset a 'regions_class_order'")
    if teacher.plan.configurations[teacher.configuration].previous is not None:
        what = f"{teacher.configuration} needs another configuration that is trained before it"
        raise UsageError(what, "label with one that stands alone, such as -c 3d_fullres")


def compare_with_folds(
    teacher: Teacher, source: Path, device: str, reporter: Reporter
) -> tuple["FoldModel", list[Case], list["ComparedScan"]]:
    """Segments the scans that are not labelled by all folds; returns the folds, the scans, and what was found."""
    from autoseg.model_selection.unlabelled_scans import compare_scans, load_folds

    model = load_folds(teacher.model, device)
    scans = choose_new_scans(find_scans(source, teacher.dataset.info), teacher.dataset, reporter)
    if not scans:
        raise UsageError(f"{source} holds no scan that is not labelled", "give a folder of other scans with -i")
    compared, problems = compare_scans(model, scans, reporter)
    if not compared:
        raise ProblemsError(problems)
    for line in problems:
        reporter.say(line)
    return model, scans, compared


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRequest:
    """How scans are to be labelled.

    Attributes:
        source: Folder of the scans.
        number: Number of the new dataset; None for the next that is free.
        least_dice: Dice that is asked for of the labels; None for the median of the held-out cases.
        device: The device, as the user named it.
    """

    source: Path
    number: int | None
    least_dice: float | None
    device: str


def label_scans(
    teacher: Teacher, request: LabelRequest, reporter: Reporter
) -> tuple["PseudoLabels", dict[str, tuple[Case, Path]]]:
    """Labels scans; returns what is kept and why, and for each case that is kept its scan and its label map.

    Raises:
        UsageError: No fold is validated, or nothing is kept.
    """
    from autoseg.model_selection.pseudo_labels import JudgedScan, PseudoLabels, choose_threshold

    held_out = summary_file(teacher.model.path)
    if not held_out.is_file():
        what = f"no fold of {teacher.model.path} is validated"
        raise UsageError(what, f"run 'autoseg train -d {teacher.number} -c {teacher.configuration} -f cv' to its end")
    threshold = choose_threshold(Summary.load(held_out).cases, request.least_dice)
    model, scans, compared = compare_with_folds(teacher, request.source, request.device, reporter)
    reporter.say(threshold.describe())
    record = PseudoLabels(
        dataset=teacher.dataset.name,
        configuration=teacher.configuration,
        plan_name=teacher.folders.plan_name,
        model=model.digests,
        threshold=threshold,
        scans=tuple(
            JudgedScan(
                case=scan.case,
                reason=threshold.judge(scan),
                agreement=scan.agreement,
                fold_agreement=scan.fold_agreement,
            )
            for scan in compared
        ),
    )
    reporter.say(f"{len(record.kept)} of {len(compared)} scans are kept")
    if not record.kept:
        raise UsageError("no segmentation is kept", "ask for less with --least-dice, or train longer")
    files = {scan.case: teacher.model.unlabelled / scan.segmentation for scan in compared}
    chosen = {scan.name: (scan, files[scan.name]) for scan in scans if scan.name in set(record.kept)}
    return record, chosen


def find_place(place: Workspace, teacher: Teacher, record: "PseudoLabels", wanted: int | None) -> tuple[int, Path]:
    """Returns number and folder of the new dataset: one that an earlier run has made of the same labels, or a free one.

    Raises:
        UsageError: The number that was asked for is taken by another dataset, or none is free.
    """
    from autoseg.model_selection.pseudo_labels import PseudoLabels

    def is_same(name: str) -> bool:
        try:
            return PseudoLabels.load(place.raw / name / RECORD) == record
        except ArtifactError:
            return False

    numbers = range(teacher.number + 1, 1000) if wanted is None else [wanted]
    for number in numbers:
        names = place.names(number)
        if len(names) == 1 and is_same(names[0]):
            return number, place.raw / names[0]
    free = next((number for number in numbers if not place.names(number)), None)
    if free is None:
        taken = f"{place.raw} already holds {place.names(numbers[0])[0]}" if wanted else "no number is free"
        raise UsageError(taken, "choose another number with --as")
    name = teacher.dataset.name.partition("_")[2]
    return free, place.raw / dataset_folder_name(free, name if name.endswith(SUFFIX) else f"{name}_{SUFFIX}")
