"""The page of a model in a real browser: the worst case opens, the next one follows, and cases can be left out."""

import pytest
from tiny_workspaces import NUMBER

from autoseg.pipeline.reports import report_model

pytestmark = pytest.mark.slow  # a browser starts


@pytest.fixture(scope="module")
def model_page(trained_volumes, tmp_path_factory):
    """The page of the tiny workspace."""
    return report_model(NUMBER, tmp_path_factory.mktemp("page") / "model.html", workspace=trained_volumes)


@pytest.fixture
def page(open_page, model_page):
    """That page, opened."""
    return open_page(model_page)


CAPTION_BESIDE_PICTURE = """
document.getElementById("viewer-picture").hidden === (document.getElementById("viewer-caption").offsetParent === null)
"""
"""The picture has a caption; the viewer, which takes its place, has none, since it shows no errors."""


def names(page) -> list[str]:
    """Names of the rows that are shown, in order."""
    return [text.strip() for text in page.locator("#cases tbody tr:visible .open").all_inner_texts()]


def test_worst_case_opens_by_one_click_and_the_next_by_a_key(page):
    """With its picture and the scores of its labels."""
    worst, following = names(page)
    page.locator("#worst .open").first.click()
    assert page.inner_text("#viewer-title") == worst
    assert page.evaluate("document.getElementById('viewer-picture').naturalWidth") > 500
    assert page.evaluate(CAPTION_BESIDE_PICTURE)
    assert page.locator("#viewer-details tbody th").all_inner_texts() == ["bright", "dark"]
    assert page.locator("#viewer-details thead th").first.get_attribute("scope") == "col"
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#viewer-title") == following
    page.keyboard.press("ArrowRight")  # there is none
    assert page.inner_text("#viewer-title") == following
    page.click("#previous")
    assert page.inner_text("#viewer-title") == worst
    page.keyboard.press("Escape")
    assert not page.locator("#viewer").is_visible()


def test_cases_below_a_dice_are_shown(page):
    """The others come back when the field is emptied."""
    values = [float(cell.get_attribute("data-value")) for cell in page.locator("#cases tbody td:nth-child(3)").all()]
    assert values == sorted(values)
    page.fill("#below", str(sum(values) / 2))
    assert len(names(page)) == 1
    assert page.inner_text("#shown") == "1 shown"
    page.fill("#below", "")
    assert len(names(page)) == 2


def test_order_of_the_page_is_announced(page):
    """The column of Dice says that it is sorted."""
    assert page.locator("#cases th[aria-sort=ascending]").inner_text().startswith("mean Dice")
