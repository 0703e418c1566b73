"""A card is true, plain, and safe to show, whoever wrote the model."""

from dataclasses import replace

import pytest
from small_models import SMALL_INFO, small_checkpoint, small_plan

from autoseg.imaging.postprocessing import NO_RULES, PostprocessingRules
from autoseg.models.checkpoint import Checkpoint
from autoseg.models.model_card import write_card
from autoseg.models.model_facts import MemberFacts, ModelFacts, sanitize
from autoseg.planning.channel_settings import Normalization
from autoseg.planning.plugin_settings import Plugin


def facts_of(checkpoint: Checkpoint, **changes: object) -> ModelFacts:
    """What there is to tell of a model of one configuration."""
    member = MemberFacts(checkpoint=checkpoint, folds=[0], scores=None, rules=NO_RULES)
    return ModelFacts(**{"name": "m", "members": [member], "scores": None, "rules": NO_RULES, **changes})


def changed(**changes: object) -> Checkpoint:
    """The small checkpoint with other fields in its configuration."""
    plan = small_plan()
    one = plan.configurations["3d_fullres"].model_copy(update=changes)
    return replace(small_checkpoint(), plan=plan.model_copy(update={"configurations": {"3d_fullres": one}}))


def test_ct_comes_with_its_window_and_a_warning() -> None:
    """Whoever gives windowed images must know."""
    ct = Normalization(scheme="ct", lower=-100, upper=250.5, mean=1, std=2)
    card = write_card(facts_of(changed(normalization=(ct,))))
    assert "- channel 0: MR (CT in Hounsfield units, clipped to -100 to 250.5)" in card
    assert "CT must come in Hounsfield units" in card
    assert "Hounsfield" not in write_card(facts_of(small_checkpoint()))


def test_network_that_must_be_installed_is_named() -> None:
    """Without its package nothing can be predicted."""
    card = write_card(facts_of(changed(network=Plugin(name="two_layers"))))
    assert "network 'two_layers', which an installed package must offer" in card


def test_time_that_training_took_is_told() -> None:
    """If it was given instead of epochs."""
    plan = small_plan(budget_seconds=300)
    assert "5 min 00 s of training per fold" in write_card(facts_of(replace(small_checkpoint(), plan=plan)))


def test_rules_and_cases_are_told() -> None:
    """As far as they are known."""
    card = write_card(facts_of(small_checkpoint(), cases=260, rules=PostprocessingRules(keep_largest=((1,),))))
    assert "- Dataset001_Small, 260 labelled cases" in card
    assert "Done to each result: postprocessing: keep the largest component of label 1." in card
    assert "labelled cases" not in write_card(facts_of(small_checkpoint()))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("liver", "liver"),
        ("a\nb\tc", "a b c"),
        ("\x1b[31mred\x07\u202e", "[31mred"),
        ("x" * 300, "x" * 200 + "..."),
        ("", ""),
        ("肝脏", "肝脏"),
    ],
)
def test_texts_of_strangers_are_plain(text: str, shown: str) -> None:
    """On one line, without what terminals obey, and not endless; also in a card."""
    assert sanitize(text) == shown
    info = SMALL_INFO.model_copy(update={"labels": {"background": 0, text or "x": 1}})
    card = write_card(facts_of(replace(small_checkpoint(), info=info), about=text))
    assert all(sign.isprintable() or sign == "\n" for sign in card)


def test_names_of_strangers_are_no_html() -> None:
    """Nor are other texts: a viewer of Markdown would run it."""
    card = write_card(facts_of(small_checkpoint(), about="<img src=x onerror=alert(1)>", licence="<script>"))
    assert "<" not in card
    assert "&lt;img src=x onerror=alert(1)>" in card
