"""What lies on disk of the trained configurations of a dataset: curves of each fold, and scores of held-out cases."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from autoseg.datasets.info import DatasetInfo
from autoseg.errors import UsageError
from autoseg.evaluation.summary import CaseResult, Summary, summarize, summary_file
from autoseg.models.best_model import BestModel, MemberName, name_member, split_member
from autoseg.planning.plan import Plan
from autoseg.training.monitoring.progress import EpochReport, read_lines
from autoseg.workspace import DatasetFolders, Fold, ModelFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldRun:
    """A fold of a configuration, trained to its end or not.

    Attributes:
        fold: Its number, or "all".
        epochs: The report of each epoch so far.
        planned_epochs: How many epochs the plan states; 0 if it trains for a time.
        scores: Scores of its held-out cases; empty until it is validated.
        tolerance_mm: Tolerance at which NSD was measured.
    """

    fold: Fold
    epochs: Sequence[EpochReport]
    planned_epochs: int
    scores: Sequence[CaseResult] = ()
    tolerance_mm: float = float("nan")

    @property
    def state(self) -> str:
        """How far the fold is, in words."""
        if self.scores:
            return "trained and validated"
        planned = f" of {self.planned_epochs}" if self.planned_epochs else ""
        return f"{len(self.epochs)}{planned} epochs trained"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRun:
    """A configuration of which folds are trained or being trained.

    Attributes:
        member: Its name: with that of its plan if this is not the usual one.
        model: Its folder.
        plan: Its plan.
        folds: Its folds.
        summary: Scores of the held-out cases of all folds; None if no fold is validated.
    """

    member: MemberName
    model: ModelFolder
    plan: Plan
    folds: Sequence[FoldRun]
    summary: Summary | None

    @property
    def cases(self) -> list[tuple[Fold, CaseResult]]:
        """The held-out cases, each with the fold that held it out."""
        return [(run.fold, result) for run in self.folds for result in run.scores]


def find_runs(
    folders: DatasetFolders, info: DatasetInfo, names: Sequence[str] | None, *, number: int
) -> list[ModelRun]:
    """Finds the configurations of which there is something to show.

    Args:
        folders: Folders of the dataset, as its plan sees them; of the usual plan, the named plans take part as well.
        info: The content of dataset.json.
        names: The configurations that are meant; None for all.
        number: Number of the dataset.

    Returns:
        The configurations, the best first; those without scores come last.

    Raises:
        UsageError: There is nothing to show of what is meant.
        ArtifactError: A file of the results is damaged.
    """
    members = dict(_list_members(folders))
    wanted = [member for member in members if not names or split_member(member)[1] in names]
    known = {split_member(member)[1] for member in members}
    if unknown := sorted(set(names or ()) - known):
        raise UsageError(
            f"nothing is trained of {unknown[0]!r}" + (f"; there is {', '.join(sorted(known))}" if known else ""),
            f"run 'autoseg train -d {number} -c {unknown[0]}{folders.plan_option}' first, or name another with -c",
        )
    if not wanted:
        advice = f"run 'autoseg train -d {number} -c 3d_fullres -f cv{folders.plan_option}' first"
        raise UsageError(f"nothing is trained in {folders.models}", advice)
    runs = [load_run(member, *members[member], info) for member in wanted]
    return sorted(runs, key=lambda run: -_score(run))


def load_best(folders: DatasetFolders) -> BestModel | None:
    """Returns what `find_best` decided; None if it did not run yet."""
    return BestModel.load(folders.best_model) if folders.best_model.is_file() else None


def load_run(member: MemberName, model: ModelFolder, plan: Plan, info: DatasetInfo) -> ModelRun:
    """Loads the curves and scores of a configuration.

    Args:
        member: Its name.
        model: Its folder.
        plan: Its plan.
        info: The content of dataset.json.

    Raises:
        ArtifactError: A file is damaged, or a case lacks the scores of a label.
    """
    folds = [_load_fold(model, fold, plan) for fold in _list_folds(model)]
    results = [result for run in folds for result in run.scores]
    tolerance = next((run.tolerance_mm for run in folds if run.scores), float("nan"))
    summary = summarize(results, info.targets.names, tolerance_mm=tolerance) if results else None
    return ModelRun(member=member, model=model, plan=plan, folds=folds, summary=summary)


def _list_members(folders: DatasetFolders) -> Iterator[tuple[MemberName, tuple[ModelFolder, Plan]]]:
    others = () if folders.plan_name is not None else folders.named_plans
    for place in (folders, *map(folders.with_plan, others)):
        if place.plan.is_file():
            plan = Plan.load(place.plan)
            for name in plan.configurations:
                if _list_folds(place.model(name)):
                    own = place.plan_name == folders.plan_name
                    yield name_member(None if own else place.plan_name, name), (place.model(name), plan)


def _list_folds(model: ModelFolder) -> list[Fold]:
    """Lists the folds that have a checkpoint or at least one epoch: numbers in order, then "all"."""
    names = {path.parent.name.removeprefix("fold_") for path in model.path.glob("fold_*/progress.jsonl")}
    begun: list[Fold] = [int(name) if name.isdigit() else name for name in names]
    return sorted({*begun, *model.trained_folds()}, key=lambda fold: (isinstance(fold, str), fold))


def _load_fold(model: ModelFolder, fold: Fold, plan: Plan) -> FoldRun:
    path, training = summary_file(model.validation(fold)), plan.training
    summary = Summary.load(path) if path.is_file() else None
    return FoldRun(
        fold=fold,
        epochs=read_lines(model.progress(fold, "jsonl")),
        planned_epochs=training.epochs if training.budget_seconds is None else 0,
        scores=() if summary is None else summary.cases,
        tolerance_mm=float("nan") if summary is None else summary.tolerance_mm,
    )


def _score(run: ModelRun) -> float:
    dice = -1.0 if run.summary is None else run.summary.foreground_mean.dice
    return dice if dice == dice else -1.0  # noqa: PLR0124 - whether it is a number


def count_states(runs: Sequence[ModelRun]) -> Mapping[str, int]:
    """Counts the folds that are validated, and all.

    Example:
        >>> count_states([])
        {'validated': 0, 'all': 0}
    """
    folds = [fold for run in runs for fold in run.folds]
    return {"validated": sum(bool(fold.scores) for fold in folds), "all": len(folds)}
