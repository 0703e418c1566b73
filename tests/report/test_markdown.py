"""The model card as elements of a page holds the texts that its authors wrote."""

from small_models import small_checkpoint

from autoseg.imaging.postprocessing import NO_RULES
from autoseg.models.model_card import write_card
from autoseg.models.model_facts import MemberFacts, ModelFacts
from autoseg.report.markdown import read_blocks


def test_every_line_of_a_card_is_in_a_block():
    """With the signs that the card writes as entities."""
    checkpoint = small_checkpoint()
    member = MemberFacts(checkpoint=checkpoint, folds=[0], scores=None, rules=NO_RULES)
    about = "Segments <b>both</b> & nothing else; &amp; stays."
    card = write_card(ModelFacts(name="Small", members=[member], scores=None, rules=NO_RULES, about=about))
    blocks = read_blocks(card)
    assert blocks[0].lines == ("Small",)
    assert blocks[0].level == 1
    assert about in [line for block in blocks if block.kind == "paragraph" for line in block.lines]
    [labels] = [block for block in blocks if block.kind == "table"]
    assert labels.rows == (("label", "number"), ("bright", "1"), ("dark", "2"))
    [commands] = [block for block in blocks if block.kind == "code"]
    assert commands.lines[0] == "autoseg install Small.zip"
    assert not any(line.startswith("- ") for block in blocks if block.kind == "list" for line in block.lines)


def test_headings_that_follow_each_other_are_two():
    """And a bar in a cell is a bar."""
    blocks = read_blocks("# a\n## b\n| x\\|y | z |\n")
    assert [(block.lines, block.level) for block in blocks[:2]] == [(("a",), 1), (("b",), 2)]
    assert blocks[2].rows == (("x|y", "z"),)
