"""The length of training, as the user asks for it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_models import small_plan

from autoseg.errors import UsageError
from autoseg.training.duration import LengthRequest, copy_length, replace_length


def length_of(plan):
    """Returns the epochs and seconds of a plan."""
    return plan.training.epochs, plan.training.budget_seconds


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, (410, None)),
        ({"epochs": 7}, (7, None)),
        ({"budget": "standard"}, (410, None)),
        ({"budget": "quick"}, (41, None)),
        ({"budget": "full"}, (1000, None)),
        ({"budget": "2h"}, (410, 7200.0)),
        ({"budget": "90s"}, (410, 90.0)),
    ],
)
def test_length_is_what_was_asked_for(asked, expected):
    """A plan of 410 epochs of 250 steps gets the length, and nothing else changes."""
    plan = small_plan(epochs=410, steps_per_epoch=250)
    asked_for = LengthRequest(**asked)
    longer = asked_for.apply(plan)
    assert length_of(longer) == expected
    assert copy_length(longer, plan.training) == plan
    assert asked_for.is_given == bool(asked)


@pytest.mark.parametrize(("standard", "quick"), [(1000, 100), (100, 10), (60, 10), (10, 10), (4, 4)])
def test_quick_is_a_tenth_of_standard(standard, quick):
    """It is at least ten epochs, but never more than standard."""
    assert LengthRequest(budget="quick").apply(small_plan(epochs=standard)).training.epochs == quick


@given(st.integers(1, 1000))
def test_full_takes_the_steps_of_the_reference(steps_per_epoch):
    """There are 250,000 steps, in epochs of any length."""
    training = LengthRequest(budget="full").apply(small_plan(steps_per_epoch=steps_per_epoch)).training
    assert 250_000 <= training.epochs * training.steps_per_epoch < 250_000 + steps_per_epoch


def test_named_budgets_end_a_budget_of_seconds():
    """A named budget replaces a limit of seconds, but "standard" is what plan.json says."""
    plan = small_plan(epochs=50, budget_seconds=60)
    assert length_of(LengthRequest(budget="quick").apply(plan)) == (10, None)
    assert length_of(LengthRequest(budget="standard").apply(plan)) == (50, 60)
    assert length_of(LengthRequest(epochs=3).apply(plan)) == (3, None)


@given(st.integers(1, 2000), st.integers(1, 2000), st.integers(1, 300))
def test_extension_by_epochs_goes_on_at_the_share_that_is_done(epochs, more, steps_per_epoch):
    """A finished fold has done old / (old + more) of the longer schedule."""
    plan = small_plan(epochs=epochs, steps_per_epoch=steps_per_epoch)
    request = LengthRequest(extend=str(more))
    assert not request.is_given
    longer = request.extend_from(plan, step=epochs * steps_per_epoch, elapsed_seconds=1.0)
    assert length_of(longer) == (epochs + more, None)


def test_extension_may_change_the_measure():
    """Epochs after a limit of seconds count from the steps done; seconds from those used."""
    plan = small_plan(epochs=9, steps_per_epoch=4, budget_seconds=60)
    assert length_of(LengthRequest(extend="5").extend_from(plan, step=10, elapsed_seconds=61)) == (3 + 5, None)
    assert length_of(LengthRequest(extend="30m").extend_from(plan, step=10, elapsed_seconds=61)) == (9, 1861)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"epochs": 5, "budget": "5m"}, "--epochs and --budget both say how long to train; give one of them"),
        ({"epochs": 5, "extend": "5"}, "--epochs and --extend both say how long"),
        ({"budget": "full", "extend": "5"}, "--budget and --extend both say how long"),
        ({"extend": "5", "restart": True}, "--extend goes on with a fold that --restart forgets; give one"),
        ({"extend": "0"}, "'0' is neither a number of epochs nor a duration such as 30m; use one of the units"),
        ({"extend": "-3"}, "'-3' is neither"),
        ({"extend": "soon"}, "'soon' is neither"),
    ],
)
def test_contradictions_are_refused(asked, message):
    """The error is one line, before anything is done."""
    with pytest.raises(UsageError, match=message):
        LengthRequest(**asked)


def test_unknown_budgets_are_refused():
    """The error names the budgets that can be chosen."""
    with pytest.raises(UsageError, match=r"'fast' is not a duration .*, or one of quick, standard, full"):
        LengthRequest(budget="fast").apply(small_plan())
    with pytest.raises(UsageError, match="at least one epoch, not 0"):
        replace_length(small_plan(), epochs=0)
