"""Few labels: scans that a model labels for its own training, and scans that people should label next."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autoseg.datasets.dataset import Dataset
from autoseg.datasets.extended_splits import extend_splits
from autoseg.errors import UsageError
from autoseg.evaluation.summary import Summary, summary_file
from autoseg.importing.machine_labels import write_extended
from autoseg.pipeline.datasets import extract_fingerprint, preprocess
from autoseg.pipeline.labelled_scans import (
    LabelRequest,
    Teacher,
    compare_with_folds,
    find_place,
    label_scans,
    open_teacher,
    refuse_what_cannot_be_labelled,
)
from autoseg.planning.plan import ConfigurationName
from autoseg.planning.plan_file import configurations_to_preprocess, save_plan
from autoseg.preprocessing.prepared_check import check_prepared
from autoseg.runtime.paths import as_path
from autoseg.runtime.reporting import SILENT, Reporter
from autoseg.runtime.writable import check_place
from autoseg.workspace import Workspace, find_workspace

if TYPE_CHECKING:
    from autoseg.model_selection.pseudo_labels import PseudoLabels
    from autoseg.model_selection.suggestions import Suggestions

FilePath = str | os.PathLike[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class PseudoLabelRound:
    """What became of a round.

    Attributes:
        dataset: The dataset with the labels that the model made.
        record: Which scans were kept, and why others were not.
        before: Scores of the held-out cases before the round.
        after: Their scores after it; None if nothing was trained. They are a little too good: the labels of the scans
            were made by all folds together, most of which have learned from a case that one of them holds out.
    """

    dataset: Dataset
    record: "PseudoLabels"
    before: Summary
    after: Summary | None


def pseudo_label(
    number: int,
    source: FilePath,
    *,
    configuration: ConfigurationName | None = None,
    new_number: int | None = None,
    rounds: int = 1,
    least_dice: float | None = None,
    training: bool = True,
    from_scratch: bool = False,
    epochs: int | None = None,
    budget: str | None = None,
    device: str = "auto",
    plan_name: str | None = None,
    workspace: FilePath | None = None,
    reporter: Reporter = SILENT,
) -> list[PseudoLabelRound]:
    """Lets the folds of a configuration label scans, keeps what they agree on, and trains them on with it.

    In each round all scans are segmented by all folds; see `model_selection.pseudo_labels` for what is kept. The scans
    that are kept become cases of a new dataset, beside those that people have labelled. Its dataset.json says which
    cases a model has labelled, and its pseudo_labels.json why; images stay where they are. The plan and the folds are
    those of before, so that each fold holds out the cases it has held out, and never one that a model has labelled. A
    run that was stopped goes on with the same call.

    Args:
        number: Number of the dataset whose folds are trained.
        source: Folder of scans without labels, which may be a folder of DICOM files; or one file that holds a scan.
        configuration: Configuration of the folds; by default the only one that is trained.
        new_number: Number of the dataset of the first round; each further round has the next. By default the next
            numbers that are free.
        rounds: Number of rounds; the folds of each make the labels of the next. Rounds end early if a round makes the
            held-out cases worse.
        least_dice: Dice that is asked for of the labels; by default the median of the held-out cases.
        training: Whether the folds are trained on the new dataset; if not, it is prepared for that.
        from_scratch: Whether training begins with random weights, and not with those of the same fold of before.
        epochs: See `train`, for this and the next argument.
        budget: Length of training.
        device: "auto", "cpu", "cuda" or "mps".
        plan_name: Name of the plan, if it is not the usual one.
        workspace: Folder that holds raw/, preprocessed/ and results/; by default $AUTOSEG_WORKSPACE, else the current
            folder.
        reporter: Shows progress, and is told what is kept and what it brought.

    Returns:
        What became of each round.

    Raises:
        UsageError: Fewer than two folds are trained, a number is taken, no agreement promises the Dice, nothing is
            kept, or the configuration cannot be trained by itself.
        ProblemsError: Scans could not be segmented, with a line for each, and none that was is kept.
        DatasetError: There is no such dataset, or no scan.
        AutosegError: As `train` raises it.

    Example:
        After all folds of dataset 4 were trained::

            [outcome] = autoseg.pseudo_label(4, "unlabelled", epochs=10)
            outcome.record.kept, outcome.after.foreground_mean.dice
    """
    from autoseg.model_selection.validation import list_validated_folds
    from autoseg.pipeline import train

    if rounds < 1 or (rounds > 1 and not training):
        raise UsageError(f"{rounds} rounds are impossible", "take one or more, several only with training")
    place, scans_folder = find_workspace(workspace), as_path(source, "source")
    teacher = open_teacher(place, number, configuration, plan_name)
    refuse_what_cannot_be_labelled(teacher)
    outcomes: list[PseudoLabelRound] = []
    for round_number in range(1, rounds + 1):
        if rounds > 1:
            reporter.say(f"round {round_number} of {rounds}")
        wanted = None if new_number is None else new_number + round_number - 1
        request = LabelRequest(source=scans_folder, number=wanted, least_dice=least_dice, device=device)
        student, record = _make_student(place, teacher, request, reporter)
        before, after = Summary.load(summary_file(teacher.model.path)), None
        if training:
            after = train(
                student.number,
                student.configuration,
                list_validated_folds(teacher.model),
                epochs=epochs,
                budget=budget,
                init=None if from_scratch else teacher.model.path,
                device=device,
                workspace=place.root,
                reporter=reporter,
            )
        outcomes.append(PseudoLabelRound(dataset=student.dataset, record=record, before=before, after=after))
        if after is not None and not _say_gain(before, after, student.dataset.name, reporter):
            break
        teacher = student
    return outcomes


def suggest(
    number: int,
    source: FilePath,
    *,
    count: int = 20,
    output: FilePath | None = None,
    configuration: ConfigurationName | None = None,
    device: str = "auto",
    plan_name: str | None = None,
    workspace: FilePath | None = None,
    reporter: Reporter = SILENT,
) -> "Suggestions":
    """Suggests which scans to label next: such that the folds disagree on, and that are unlike each other.

    The scans are segmented by all folds; their segmentations are kept in the folder of the model, and may be corrected
    instead of drawing labels anew. See `model_selection.suggestions` for how scans are chosen.

    Args:
        number: Number of the dataset whose folds are trained.
        source: Folder of scans without labels, which may be a folder of DICOM files; or one file that holds a scan.
        count: Number of scans to suggest.
        output: File for the suggestions: .csv for the table, .json for everything.
        configuration: Configuration of the folds; by default the only one that is trained.
        device: "auto", "cpu", "cuda" or "mps".
        plan_name: Name of the plan, if it is not the usual one.
        workspace: See `pseudo_label`.
        reporter: Shows progress, and is told which scans could not be segmented.

    Returns:
        The suggestions; `table()` returns them as a table of pandas.

    Raises:
        UsageError: Fewer than two folds are trained, `output` ends neither in .csv nor in .json, or the dataset is not
            preprocessed as its plan says.
        ProblemsError: No scan could be segmented, with a line for each.
        DatasetError: There is no such dataset, or no scan.

    Example:
        After all folds of dataset 4 were trained::

            table = autoseg.suggest(4, "unlabelled", count=20).table()
            table[["case", "disagreement", "share_to_correct"]]
    """
    from autoseg.model_selection.suggestions import CorrectionEstimate, Suggestions, describe_labelled, suggest_scans

    if count < 1:
        raise UsageError(f"{count} suggestions are impossible", "ask for one or more with --count")
    path = None if output is None else as_path(output, "output")
    if path is not None:
        if path.suffix.lower() not in (".csv", ".json"):
            raise UsageError(f"{path} ends neither in .csv nor in .json", "give such a file with -o")
        check_place(path)
    place, scans_folder = find_workspace(workspace), as_path(source, "source")
    teacher = open_teacher(place, number, configuration, plan_name)
    [owner] = configurations_to_preprocess(teacher.plan, [teacher.configuration])
    check_prepared(teacher.dataset, teacher.plan, owner, teacher.folders, number)
    model, _, compared = compare_with_folds(teacher, scans_folder, device, reporter)
    held_out = summary_file(teacher.model.path)
    correction = CorrectionEstimate.fit(Summary.load(held_out).cases if held_out.is_file() else ())
    labelled = describe_labelled(teacher.folders.cases(owner), teacher.labelled, teacher.dataset.info)
    suggestions = Suggestions(
        dataset=teacher.dataset.name,
        model=model.digests,
        scans=len(compared),
        suggestions=tuple(suggest_scans(compared, labelled, count, correction, teacher.model.unlabelled)),
    )
    if path is not None:
        (suggestions.save if path.suffix.lower() == ".json" else suggestions.save_csv)(path)
    return suggestions


def _make_student(
    place: Workspace, teacher: Teacher, request: LabelRequest, reporter: Reporter
) -> tuple[Teacher, "PseudoLabels"]:
    """Labels scans, and returns the dataset that they make with the labelled cases, which is ready for training."""
    record, chosen = label_scans(teacher, request, reporter)
    number, folder = find_place(place, teacher, record, request.number)
    if not folder.exists():
        write_extended(teacher.dataset.only(teacher.labelled), chosen, folder, record, reporter)
    return _prepare_student(place, teacher, number, reporter), record


def _prepare_student(place: Workspace, teacher: Teacher, number: int, reporter: Reporter) -> Teacher:
    """Plans and prepares a dataset with labels of a model, by the plan and the folds of before."""
    folders = place.dataset(number)
    extract_fingerprint(number, workspace=place.root, reporter=reporter)
    dataset = Dataset.open(folders.raw)
    plan = teacher.plan.model_copy(update={"dataset": dataset.name})
    splits = extend_splits(teacher.splits, teacher.labelled, dataset)
    if not folders.plan.is_file():
        save_plan(plan, folders, reporter)
    splits.save(folders.splits)
    preprocess(number, configurations=[teacher.configuration], workspace=place.root, reporter=reporter)
    return open_teacher(place, number, teacher.configuration, None)


def _say_gain(before: Summary, after: Summary, name: str, reporter: Reporter) -> bool:
    """Says what a round has brought; returns whether it did not make the held-out cases worse."""
    first, second = before.foreground_mean.dice, after.foreground_mean.dice
    reporter.say(
        f"mean Dice of held-out cases {first:.4f} before, {second:.4f} after; the labels come from all folds, so the "
        "second is a little too good"
    )
    if second < first:
        reporter.say(f"{name} made the held-out cases worse: stay with the model of before")
    return second >= first
