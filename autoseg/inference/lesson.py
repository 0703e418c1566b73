"""The lesson of a student: what a teacher predicts for its training cases and for scans without labels, on disk."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autoseg.datasets.dataset import Case, Dataset
from autoseg.datasets.splits import Splits
from autoseg.errors import UsageError
from autoseg.inference.loading import PredictionOptions
from autoseg.inference.teacher import load_teacher
from autoseg.models.model_source import ResolvedModel
from autoseg.planning.plan import Plan
from autoseg.preprocessing.soft_predictions import is_predicted
from autoseg.preprocessing.store import StoredCase, open_stored
from autoseg.preprocessing.unlabelled import prepare_unlabelled
from autoseg.runtime.reporting import Reporter
from autoseg.workspace import DatasetFolders, Fold


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What a teacher has to predict for its student.

    Attributes:
        plan: The plan of the student.
        folders: The folders of the dataset, as that plan sees them.
        dataset: The labelled cases.
        splits: Their folds.
        scans: The scans without labels.
        teacher: The model that teaches.
        options: How it predicts.
    """

    plan: Plan
    folders: DatasetFolders
    dataset: Dataset
    splits: Splits
    scans: Sequence[Case]
    teacher: ResolvedModel
    options: PredictionOptions

    def teach(self, folds: Sequence[Fold], reporter: Reporter, *, restart: bool) -> None:
        """Writes the predictions for the training cases of some folds and for scans without labels.

        Those of an earlier run that are up to date are kept.

        Raises:
            UsageError: The teacher of a fold has changed since its student was begun.
            ProblemsError: Scans are damaged, with a line for each.
        """
        [name] = self.plan.configurations
        if self.scans:
            unlabelled = self.folders.unlabelled_cases
            prepare_unlabelled(self.scans, self.plan, name, self.dataset.info, unlabelled, reporter)
        for fold in folds:
            training = set(self.splits.fold(fold).training)
            cases = [case for case in self.dataset.cases if case.name in training]
            stored = open_stored(self.folders.cases(name), [case.name for case in cases])
            stored |= open_stored(self.folders.unlabelled_cases, [scan.name for scan in self.scans])
            self._teach_fold(
                fold, [*cases, *self.scans], stored, reporter, is_begun=not restart and self._is_begun(fold)
            )

    def _is_begun(self, fold: Fold) -> bool:
        """Returns whether the student of a fold was begun."""
        [name] = self.plan.configurations
        return self.folders.model(name).checkpoint(fold).is_file()

    def _teach_fold(
        self, fold: Fold, cases: Sequence[Case], stored: Mapping[str, StoredCase], reporter: Reporter, *, is_begun: bool
    ) -> None:
        """Writes the predictions of a fold for some cases."""
        [configuration] = self.plan.configurations.values()
        target, structures = self.folders.soft_predictions(fold), len(self.dataset.info.targets.structures)
        teacher, patch_size = load_teacher(self.teacher, fold, self.options), configuration.patch_size
        contents = {case.name: teacher.describe_case(stored[case.name], structures) for case in cases}
        missing = [case for case in cases if not is_predicted(target, case.name, contents[case.name])]
        if missing and is_begun:
            what = f"fold {fold} of the student was begun, and its teacher or its cases have changed since"
            raise UsageError(what, "add --restart to train it anew, or choose another name with --for")
        with reporter.task(f"teacher of fold {fold}", len(cases)) as task:
            task.advance(len(cases) - len(missing))
            for case in missing:
                teacher.teach(case, stored[case.name], target, patch_size, task.advance)
        for scan in self.scans:
            teacher.label(stored[scan.name], target, self.folders.soft_labels(fold), patch_size)
