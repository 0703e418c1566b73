"""The length of training of a fold: what a user asks for, applied to the settings of a plan.

Whatever the length, the learning rate anneals over all of it.
"""

from dataclasses import dataclass
from math import ceil

from autoseg.errors import ModelError, UsageError
from autoseg.models.checkpoint import Checkpoint
from autoseg.planning.plan import ConfigurationName, Plan
from autoseg.planning.settings import TrainingSettings
from autoseg.runtime.units import parse_duration

FULL_STEPS = 1000 * 250
"""Number of steps of the budget "full". Source: the reference method's trainer, 1000 epochs of 250 steps."""

QUICK_SHARE = 10
"""The budget "quick" divides the epochs of the plan by this number."""

QUICK_EPOCHS = 10
"""Smallest number of epochs of the budget "quick", unless the plan has fewer."""

BUDGETS = ("quick", "standard", "full")
"""Names of budgets; any other budget is a duration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthRequest:
    """The length of training that a user asked for: at most one of epochs, budget and extend.

    Attributes:
        epochs: Number of epochs, instead of that of the plan.
        budget: "standard", as the plan says; "quick", a tenth of its epochs; "full", as many steps as the reference
            method takes; or a duration such as "2h".
        extend: Number of epochs, or a duration, by which the training of a finished fold is extended.
        restart: Whether an earlier training is deleted first, which then cannot be extended.

    Raises:
        UsageError: More than one is given, or the extension is neither a number of epochs nor a duration.
    """

    epochs: int | None = None
    budget: str | None = None
    extend: str | None = None
    restart: bool = False

    def __post_init__(self) -> None:
        options = {"--epochs": self.epochs, "--budget": self.budget, "--extend": self.extend}
        names = [name for name, value in options.items() if value is not None]
        if len(names) > 1:
            raise UsageError(f"{' and '.join(names)} both say how long to train", "give one of them")
        if self.extend is not None:
            if self.restart:
                raise UsageError("--extend goes on with a fold that --restart forgets", "give one of them")
            _parse_extension(self.extend)

    @property
    def is_given(self) -> bool:
        """Whether the user asked for another length than that of the plan."""
        return self.epochs is not None or self.budget is not None

    def apply(self, plan: Plan) -> Plan:
        """Returns the plan with the length that was asked for.

        Raises:
            UsageError: The budget is neither a name nor a duration, or there is not even one epoch.
        """
        if self.budget is None or self.budget == "standard":
            return replace_length(plan, epochs=self.epochs)
        training = plan.training
        if self.budget == "quick":
            return replace_length(plan, epochs=min(training.epochs, max(QUICK_EPOCHS, training.epochs // QUICK_SHARE)))
        if self.budget == "full":
            return replace_length(plan, epochs=ceil(FULL_STEPS / training.steps_per_epoch))
        return replace_length(plan, budget_seconds=_parse_budget(self.budget))

    def extend_from(self, plan: Plan, *, step: int, elapsed_seconds: float) -> Plan:
        """Returns the plan of a finished fold, longer by the extension.

        A fold of 100 epochs that is extended by 25 goes on at epoch 100 of 125: at four fifths of the training, with
        the learning rate that the schedule has there, which then falls to its end again. That is a warm restart of the
        same schedule. Decision: to go on at the end of the schedule would train with a rate of zero.

        Args:
            plan: The plan, with the length that the fold was trained for.
            step: Number of steps done.
            elapsed_seconds: Training time of these steps.
        """
        epochs, seconds = _parse_extension(self.extend or "")
        if seconds is not None:
            return replace_length(plan, budget_seconds=elapsed_seconds + seconds)
        return replace_length(plan, epochs=ceil(step / plan.training.steps_per_epoch) + epochs)


def replace_length(plan: Plan, *, epochs: int | None = None, budget_seconds: float | None = None) -> Plan:
    """Returns the plan with another length of training.

    Args:
        plan: The plan.
        epochs: Number of epochs, which replaces a limit of seconds; None leaves both.
        budget_seconds: Limit of seconds; None leaves it as it is.

    Raises:
        UsageError: There is not even one epoch.
    """
    if epochs is not None and epochs < 1:
        raise UsageError(f"training takes at least one epoch, not {epochs}", "choose another number with --epochs")
    changes: dict[str, float | None] = {}
    if epochs is not None:
        changes = {"epochs": epochs, "budget_seconds": None}
    if budget_seconds is not None:
        changes["budget_seconds"] = budget_seconds
    training = plan.training.model_validate({**plan.training.model_dump(), **changes})
    return plan.model_copy(update={"training": training})


COMPUTE_SETTINGS = ("micro_batch_size", "recompute_activations", "compile")
"""Settings of training that change how a step is calculated, but not what is learned, up to rounding."""


def copy_length(plan: Plan, training: TrainingSettings) -> Plan:
    """Returns the plan with the length of training of other settings."""
    return replace_length(plan, epochs=training.epochs, budget_seconds=training.budget_seconds)


def resolve_duration(plan: Plan, checkpoint: Checkpoint, name: ConfigurationName, *, length_was_given: bool) -> Plan:
    """Returns the plan by which a begun fold goes on. `COMPUTE_SETTINGS` and estimates of memory may have changed.

    Args:
        plan: The plan as it stands now, with the length of training that was asked for, if any.
        checkpoint: The checkpoint of the fold.
        name: Name of the configuration.
        length_was_given: Whether the user asked for a number of epochs or a budget.

    Returns:
        `plan`, or, if no length was given, `plan` with the length of the begun run.

    Raises:
        ModelError: The fold was begun by another plan.
        UsageError: The fold was begun with another length.
    """
    anew = "add --restart to train it anew"
    begun = checkpoint.plan.training.model_copy(
        update={setting: getattr(plan.training, setting) for setting in COMPUTE_SETTINGS}
    )
    if not length_was_given:
        plan = copy_length(plan, begun)
    now, before = plan.configurations[name].without_estimates, checkpoint.configuration.without_estimates
    same = (now, plan.axis_order) == (before, checkpoint.plan.axis_order)
    settings = plan.training.model_copy(update={"epochs": begun.epochs, "budget_seconds": begun.budget_seconds})
    if not same or settings != begun:
        raise ModelError(f"fold {checkpoint.fold} of {name} was begun by another plan.json", f"restore that, or {anew}")
    if plan.training != begun:
        raise UsageError(
            f"fold {checkpoint.fold} of {name} was begun with another length of training",
            f"leave out --epochs and --budget to go on, use --extend once it is finished, or {anew}",
        )
    return plan


def _parse_budget(text: str) -> float:
    try:
        return parse_duration(text)
    except UsageError as error:
        raise UsageError(error.what, f"{error.fix}, or one of {', '.join(BUDGETS)}") from error


def _parse_extension(text: str) -> tuple[int, float | None]:
    """Returns a number of epochs and None, or 0 and a number of seconds."""
    if text.isdecimal() and int(text) > 0:
        return int(text), None
    try:
        return 0, parse_duration(text)
    except UsageError as error:
        raise UsageError(f"{text!r} is neither a number of epochs nor a duration such as 30m", error.fix) from error
