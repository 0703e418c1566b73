"""How long a fold is trained: what a user asks for, applied to the settings of a plan.

However long it is, the learning rate anneals over all of it.
"""

from dataclasses import dataclass
from math import ceil

from autoseg.errors import ModelError, UsageError
from autoseg.models.checkpoint import Checkpoint
from autoseg.planning.plan import ConfigurationName, Plan
from autoseg.planning.settings import TrainingSettings
from autoseg.runtime.units import parse_duration

FULL_STEPS = 1000 * 250
"""Source: the reference method's trainer, 1000 epochs of 250 steps."""

QUICK_SHARE = 10
QUICK_EPOCHS = 10

BUDGETS = ("quick", "standard", "full")


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthRequest:
    """What a user asked for; at most one of the three.

    Attributes:
        epochs: So many, instead of the plan's.
        budget: "standard", as the plan says; "quick", a tenth of its epochs; "full", as many steps as the reference
            method takes; or a duration such as "2h".
        extend: Epochs, or a duration, by which a finished fold goes on.
        restart: Whether what was trained before is forgotten, which then cannot be extended.

    Raises:
        UsageError: More than one is given, or the extension is none.
    """

    epochs: int | None = None
    budget: str | None = None
    extend: str | None = None
    restart: bool = False

    def __post_init__(self) -> None:
        given = {"--epochs": self.epochs, "--budget": self.budget, "--extend": self.extend}
        names = [name for name, value in given.items() if value is not None]
        if len(names) > 1:
            raise UsageError(f"{' and '.join(names)} both say how long to train", "give one of them")
        if self.extend is not None:
            if self.restart:
                raise UsageError("--extend goes on with a fold that --restart forgets", "give one of them")
            _parse_extension(self.extend)

    @property
    def is_given(self) -> bool:
        """Whether the length of the plan is to be replaced."""
        return self.epochs is not None or self.budget is not None

    def apply(self, plan: Plan) -> Plan:
        """The plan with the length that was asked for.

        Raises:
            UsageError: The budget is none, or there is not even one epoch.
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
        """The plan of a finished fold, longer by what was asked for.

        A fold of 100 epochs that is extended by 25 goes on at 100 of 125: at four fifths of the training, with the
        learning rate that belongs there, and falls to the end again. That is a warm restart of the same schedule.
        Decision: to go on at the end of the schedule would train with a rate of zero.

        Args:
            plan: With the length that it was trained for.
            step: Steps done.
            elapsed_seconds: Spent on them.
        """
        epochs, seconds = _parse_extension(self.extend or "")
        if seconds is not None:
            return replace_length(plan, budget_seconds=elapsed_seconds + seconds)
        return replace_length(plan, epochs=ceil(step / plan.training.steps_per_epoch) + epochs)


def replace_length(plan: Plan, *, epochs: int | None = None, budget_seconds: float | None = None) -> Plan:
    """The plan with another length of training; what is None is left as it is, but a number of epochs ends a budget.

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


MEANS = ("micro_batch_size", "recompute_activations", "compile")
"""Settings of training that change how a step is calculated, and not what is learned, up to rounding."""


def copy_length(plan: Plan, training: TrainingSettings) -> Plan:
    """The plan with the length of other settings."""
    return replace_length(plan, epochs=training.epochs, budget_seconds=training.budget_seconds)


def resolve_duration(plan: Plan, former: Checkpoint, name: ConfigurationName, *, length_was_given: bool) -> Plan:
    """The plan by which a begun fold goes on. How its steps fit into the memory of a device may have changed.

    Args:
        plan: As it stands now, with the length of training that was asked for, if any.
        former: The checkpoint of the fold.
        name: The configuration.
        length_was_given: Whether the user asked for a number of epochs or a budget.

    Returns:
        `plan`, or, if no length was given, `plan` with the length of the begun run.

    Raises:
        ModelError: The fold was begun by another plan.
        UsageError: The fold was begun with another length.
    """
    anew = "add --restart to train it anew"
    begun = former.plan.training.model_copy(update={one: getattr(plan.training, one) for one in MEANS})
    if not length_was_given:
        plan = copy_length(plan, begun)
    now, before = plan.configurations[name].without_estimates, former.configuration.without_estimates
    same = (now, plan.axis_order) == (before, former.plan.axis_order)
    settings = plan.training.model_copy(update={"epochs": begun.epochs, "budget_seconds": begun.budget_seconds})
    if not same or settings != begun:
        raise ModelError(f"fold {former.fold} of {name} was begun by another plan.json", f"restore that, or {anew}")
    if plan.training != begun:
        raise UsageError(
            f"fold {former.fold} of {name} was begun with another length of training",
            f"leave out --epochs and --budget to go on, use --extend once it is finished, or {anew}",
        )
    return plan


def _parse_budget(text: str) -> float:
    try:
        return parse_duration(text)
    except UsageError as error:
        raise UsageError(error.what, f"{error.fix}, or one of {', '.join(BUDGETS)}") from error


def _parse_extension(text: str) -> tuple[int, float | None]:
    """Epochs and None, or 0 and seconds."""
    if text.isdecimal() and int(text) > 0:
        return int(text), None
    try:
        return 0, parse_duration(text)
    except UsageError as error:
        raise UsageError(f"{text!r} is neither a number of epochs nor a duration such as 30m", error.fix) from error
