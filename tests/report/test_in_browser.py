"""Pages in a real browser: they sort, filter and open a case, by mouse and by keyboard, and the console stays empty."""

from typing import Any

import pytest
from tiny_workspaces import NUMBER, write_volumes

import autoseg

pytestmark = pytest.mark.slow  # a browser starts


@pytest.fixture(scope="module")
def data_page(tmp_path_factory):
    """The page of a dataset of six cases."""
    root = tmp_path_factory.mktemp("workspace")
    write_volumes(root, cases=6)
    return autoseg.report_data(NUMBER, root / "page.html", workspace=root)


@pytest.fixture
def page(open_page, data_page) -> Any:
    """That page, opened."""
    return open_page(data_page)


def names(page) -> list[str]:
    """Returns the names of the rows that are shown, in order."""
    return [text.strip() for text in page.locator("#cases tbody tr:visible .open").all_inner_texts()]


def test_columns_sort_both_ways(page):
    """As a number where it is one; the header says in which direction."""
    title = page.locator("#cases thead th").nth(6)
    volumes = page.locator("#cases tbody td:nth-child(7)")
    title.locator("button").click()
    rising = [float(cell.get_attribute("data-value")) for cell in volumes.all()]
    assert rising == sorted(rising)
    assert title.get_attribute("aria-sort") == "ascending"
    title.locator("button").click()
    assert [float(cell.get_attribute("data-value")) for cell in volumes.all()] == rising[::-1]
    assert title.get_attribute("aria-sort") == "descending"


def test_names_sort_by_their_numbers(page):
    """And back."""
    button = page.locator("#cases thead th button").first
    button.click()
    assert names(page) == [f"case_{number}" for number in range(1, 7)]
    button.click()
    assert names(page) == [f"case_{number}" for number in range(6, 0, -1)]


def test_filter_shows_what_is_typed(page):
    """The count is announced."""
    page.fill("#filter", "CASE_3")
    assert names(page) == ["case_3"]
    assert page.inner_text("#shown") == "1 shown"
    page.fill("#filter", "")
    assert len(names(page)) == 6


def test_many_rows_are_shown_in_turns(open_page, tmp_path, monkeypatch):
    """Sorted by a column, the first ones of all are shown; those that are typed are found wherever they are."""
    monkeypatch.setattr("autoseg.report.page.ROWS_SHOWN", 4)
    write_volumes(tmp_path, cases=6)
    page = open_page(autoseg.report_data(NUMBER, tmp_path / "page.html", workspace=tmp_path))
    assert names(page) == [f"case_{number}" for number in range(1, 5)]
    assert page.inner_text("#shown") == "4 of 6 shown"
    button = page.locator("#cases thead th button").first
    button.click()
    button.click()
    assert names(page) == [f"case_{number}" for number in range(6, 2, -1)]
    page.fill("#filter", "case_1")
    assert names(page) == ["case_1"]
    assert page.inner_text("#shown") == "1 shown"
    assert not page.locator("#more").is_visible()
    page.fill("#filter", "")
    page.click("#more")
    assert names(page) == [f"case_{number}" for number in range(6, 0, -1)]
    assert page.inner_text("#shown") == "6 shown"


def test_case_opens_by_keyboard_and_closes_by_escape(page):
    """With its picture and its facts; the focus comes back."""
    button = page.locator("#cases .open").nth(1)
    button.focus()
    page.keyboard.press("Enter")
    viewer = page.locator("#viewer")
    assert viewer.is_visible()
    assert page.inner_text("#viewer-title") == "case_2"
    assert page.evaluate("document.getElementById('viewer-picture').naturalWidth") > 50
    assert "spacing, mm" in page.inner_text("#viewer-facts")
    page.keyboard.press("Escape")
    assert not viewer.is_visible()
    assert page.evaluate("document.activeElement.dataset.name") == "case_2"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_both_schemes(browser, data_page, scheme):
    """The contrast of text with the page is at least 7. Source: WCAG 2.2, level AAA."""
    page = browser.new_page(color_scheme=scheme)
    page.goto(data_page.as_uri())
    colours = page.evaluate("(({color, backgroundColor}) => [color, backgroundColor])(getComputedStyle(document.body))")
    page.close()
    lighter, darker = sorted((luminance(colour) for colour in colours), reverse=True)
    assert (lighter + 0.05) / (darker + 0.05) >= 7


def luminance(colour: str) -> float:
    """Returns the relative luminance of a colour such as "rgb(20, 23, 27)". Source: WCAG 2.2."""
    parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_every_picture_has_a_text_or_is_decoration(page):
    """And every button has a name."""
    assert page.evaluate("[...document.images].every(image => image.hasAttribute('alt'))")
    assert page.evaluate(
        "[...document.querySelectorAll('button')].every(b => b.textContent.trim() || b.getAttribute('aria-label'))"
    )
