"""The steps of `run`: how each finds out that it is done, does its work, and tells what it would do."""

from collections.abc import Callable
from typing import Protocol

from autoseg.errors import AutosegError, ProblemsError
from autoseg.pipeline.run_context import RunContext
from autoseg.pipeline.run_record import digest_raw_files
from autoseg.planning.plan import Plan
from autoseg.planning.plan_file import configurations_to_preprocess, load_plan_and_splits
from autoseg.runtime.reporting import list_names


class RunStep(Protocol):
    """A step of a run.

    Attributes:
        name: Its name.
        purpose: What it does, in a few words.
        trains: Whether it trains; how long that takes is known, see `run_time`.
    """

    name: str
    purpose: str
    trains: bool

    @property
    def ask_to_end(self) -> Callable[[], bool] | None:
        """What asks the work to end, if it handles SIGTERM itself and is not to be interrupted; see `interruptible`."""

    def find_done(self, context: RunContext) -> str:
        """Returns what is done, in a few words; empty if it is not done."""

    def do(self, context: RunContext) -> None:
        """Does the work, from where it was."""

    def describe(self, context: RunContext) -> str:
        """Returns what is done or would be done."""


class _Step:
    """What most steps have in common."""

    name, purpose, trains = "", "", False
    ask_to_end: Callable[[], bool] | None = None

    def find_done(self, _context: RunContext) -> str:
        return ""

    def describe(self, context: RunContext) -> str:
        done = self.find_done(context)
        return f"done: {done}" if done else f"to do: {self.purpose}"


class _Importing(_Step):
    """Brings the dataset into the workspace."""

    name, purpose = "import", "bring scans and masks into the workspace"

    def find_done(self, context: RunContext) -> str:
        return context.workspace.names(context.number)[0] if context.is_imported else ""

    def do(self, context: RunContext) -> None:
        from autoseg.pipeline import import_dataset

        record = context.record
        dataset = import_dataset(
            record.source or "",
            context.number,
            **record.importing.model_dump(),
            workspace=context.workspace.root,
            reporter=context.reporter,
        )
        context.remember(dataset=dataset.name)


class _Checking(_Step):
    """Reads every case once: checks and measures it. The page of the dataset is written whether all is well or not."""

    name, purpose = "check", "read and measure every case, and show them in a page"

    def find_done(self, context: RunContext) -> str:
        if not context.is_imported or not context.folders.fingerprint.is_file():
            return ""
        dataset = context.dataset
        is_same = context.record.checked == digest_raw_files(dataset)
        return f"{len(dataset.cases)} cases are sound" if is_same else ""

    def do(self, context: RunContext) -> None:
        from autoseg.pipeline import extract_fingerprint, report_data

        digest, skip = digest_raw_files(context.dataset), context.record.options.skip
        had_plan = context.folders.plan.is_file()
        problems: ProblemsError | None = None
        try:
            extract_fingerprint(context.number, skip=skip, workspace=context.workspace.root, reporter=context.reporter)
        except ProblemsError as error:
            problems = error
        page = report_data(context.number, skip=skip, workspace=context.workspace.root, reporter=context.reporter)
        if problems is not None:
            raise ProblemsError([*problems.lines, f"the cases could not be used as they are; {page} shows them"])
        if had_plan:
            context.reporter.say(f"{context.folders.plan} was made before, and stays as it is; remove it to plan anew")
        context.remember(checked=digest)


class _Planning(_Step):
    """Decides how to segment the dataset."""

    name, purpose = "plan", "decide how to segment them"

    def find_done(self, context: RunContext) -> str:
        if not context.is_imported or not context.folders.plan.is_file():
            return ""
        plan = Plan.load(context.folders.plan)
        return f"{list_names(plan.configurations)}, by preset {plan.preset}"

    def do(self, context: RunContext) -> None:
        from autoseg.pipeline import plan_configurations

        options = context.record.options
        plan = plan_configurations(
            context.number,
            memory=options.memory,
            preset=options.preset,
            workspace=context.workspace.root,
            reporter=context.reporter,
        )
        context.reporter.say(f"to be trained: {list_names(context.keep_configurations(plan))}")


class _Preprocessing(_Step):
    """Prepares the cases; those that are up to date are kept."""

    name, purpose = "preprocess", "prepare the cases for training"

    def find_done(self, context: RunContext) -> str:
        return "all folds are trained" if _Training().find_done(context) else ""

    def do(self, context: RunContext) -> None:
        from autoseg.pipeline import preprocess

        options = context.record.options
        preprocess(
            context.number,
            configurations=context.keep_configurations(Plan.load(context.folders.plan)),
            groups=options.groups,
            splits=options.splits,
            workspace=context.workspace.root,
            reporter=context.reporter,
        )

    def describe(self, context: RunContext) -> str:
        if not context.is_imported or not context.folders.plan.is_file():
            return super().describe(context)
        plan, dataset = Plan.load(context.folders.plan), context.dataset
        counts = []
        for name in configurations_to_preprocess(plan, context.find_configurations(plan)):
            folder = context.folders.cases(name)
            prepared = sum((folder / f"{case.name}.zip").is_file() for case in dataset.cases)
            counts.append(f"{name}: {prepared} of {len(dataset.cases)} cases are there")
        return f"{'done' if self.find_done(context) else 'to do or to check'}: {', '.join(counts)}"


def _ask_trainings() -> bool:
    """Asks the trainings of this process to end, once they have saved all; returns whether there are any."""
    from autoseg.training.stopping import BY_FILE, ask_this_process

    return ask_this_process(BY_FILE)


class _Training(_Step):
    """Trains and validates all folds of each configuration, here."""

    name, purpose, trains = "train", "train all folds, each judged on the cases that it has not seen", True

    ask_to_end = staticmethod(_ask_trainings)

    def find_done(self, context: RunContext) -> str:
        if not context.is_imported:
            return ""
        try:
            plan, splits = load_plan_and_splits(context.number, context.folders)
        except AutosegError:
            return ""
        names = context.find_configurations(plan)
        if any(context.list_open_folds(name) for name in names):
            return ""
        return f"{len(splits.folds)} folds of {list_names(names)}"

    def do(self, context: RunContext) -> None:
        from autoseg.pipeline import train

        options = context.record.options
        for name in context.find_configurations(Plan.load(context.folders.plan)):
            folds = context.list_open_folds(name)
            if folds:
                train(
                    context.number,
                    name,
                    folds,
                    epochs=options.epochs,
                    budget=options.budget,
                    device=context.device,
                    gpus=context.gpus,
                    workspace=context.workspace.root,
                    reporter=context.reporter,
                )


class _Choosing(_Step):
    """Finds the best of what was trained."""

    name, purpose = "find_best", "find the configuration, or the pair of them, that is best on unseen cases"

    def find_done(self, context: RunContext) -> str:
        if not context.is_imported or not context.folders.best_model.is_file():
            return ""
        if not _Training().find_done(context):
            return ""
        from autoseg.models.best_model import BestModel

        names, folders = context.find_configurations(Plan.load(context.folders.plan)), context.folders
        best = BestModel.load(folders.best_model)
        compared = {name for candidate in best.candidates for name in candidate.configurations}
        made_at = folders.best_model.stat().st_mtime_ns
        scores = [path for name in names for path in folders.model(name).path.glob("fold_*/validation/summary.json")]
        is_newer = all(path.stat().st_mtime_ns <= made_at for path in scores)
        return best.name if is_newer and compared.issuperset(names) else ""

    def do(self, context: RunContext) -> None:
        from autoseg.pipeline import find_best

        best = find_best(
            context.number,
            configurations=context.find_configurations(Plan.load(context.folders.plan)),
            device=context.device,
            workspace=context.workspace.root,
            reporter=context.reporter,
        )
        context.reporter.say(best.describe())


class _Reporting(_Step):
    """Shows what was trained in a page."""

    name, purpose = "report", "show in a page how good the models are, and where they fail"

    def find_done(self, context: RunContext) -> str:
        if not _Choosing().find_done(context) or not context.folders.model_report.is_file():
            return ""
        best, page = context.folders.best_model, context.folders.model_report
        return page.name if page.stat().st_mtime_ns >= best.stat().st_mtime_ns else ""

    def do(self, context: RunContext) -> None:
        from autoseg.pipeline import report_model

        report_model(context.number, workspace=context.workspace.root, reporter=context.reporter)


class _Jobs(_Step):
    """Trains all folds, finds the best of them and shows them, as jobs on this machine or on a cluster."""

    name, purpose, trains = "jobs", "train all folds, find the best of them and show them in a page, as jobs", True

    ask_to_end = staticmethod(_ask_trainings)

    def find_done(self, context: RunContext) -> str:
        return _Choosing().find_done(context) if _Reporting().find_done(context) else ""

    def do(self, context: RunContext) -> None:
        from autoseg.pipeline import make_training_jobs, run_jobs

        options = context.record.options
        graph = make_training_jobs(
            context.number,
            context.find_configurations(Plan.load(context.folders.plan)),
            "cv",
            epochs=options.epochs,
            budget=options.budget,
            device=context.device,
            gpus=context.gpus,
            workspace=context.workspace.root,
            reporter=context.reporter,
        )
        context.submitted = run_jobs(
            graph,
            context.where or "",
            device=context.device,
            workspace=context.workspace.root,
            reporter=context.reporter,
        )


def list_steps(context: RunContext) -> list[RunStep]:
    """Returns the steps of a run."""
    first: list[RunStep] = [_Importing(), _Checking(), _Planning(), _Preprocessing()]
    return [*first, *([_Jobs()] if context.where is not None else [_Training(), _Choosing(), _Reporting()])]
