"""What a screen reader and a keyboard need, in every page: names, headers, a visible focus, and order."""

import shutil

import pytest
from tiny_workspaces import NUMBER, folders_of, write_volumes

import autoseg

pytestmark = pytest.mark.slow  # a browser starts

PAGES = ("data", "model", "comparison")

UNNAMED = """() => [...document.querySelectorAll("button, input, a, svg[role=img]")].filter(element =>
  !(element.textContent.trim() || element.getAttribute("aria-label") || element.closest("label")?.textContent.trim())
).map(element => element.outerHTML)"""
"""Finds what can be used or seen, and has no name."""

WITHOUT_SCOPE = """() => [...document.querySelectorAll("main > section th")].filter(cell =>
  cell.scope !== (cell.closest("thead") ? "col" : "row")).map(cell => cell.outerHTML)"""

UNTITLED = """() => [...document.querySelectorAll("main > section")].map(section =>
  document.getElementById(section.getAttribute("aria-labelledby"))?.textContent.trim()).filter(title => !title)"""

DUPLICATES = """() => { const all = [...document.querySelectorAll("[id]")].map(element => element.id);
  return all.filter((name, place) => all.indexOf(name) !== place); }"""


@pytest.fixture(scope="module")
def pages(trained_volumes, tmp_path_factory):
    """A page of each kind."""
    folder = tmp_path_factory.mktemp("pages")
    write_volumes(folder / "work", cases=3)
    model = folders_of(trained_volumes).model("3d_fullres").path
    shutil.copy(model / "summary.json", folder / "summary.json")
    autoseg.report_data(NUMBER, folder / "data.html", workspace=folder / "work")
    autoseg.report_model(NUMBER, folder / "model.html", workspace=trained_volumes)
    autoseg.compare(model, folder, report=folder / "comparison.html")
    return {name: folder / f"{name}.html" for name in PAGES}


@pytest.mark.parametrize("name", PAGES)
def test_page_has_names_headers_and_a_visible_focus(open_page, pages, name):
    """Everything that is used has a name, each cell of a head a scope, each section a title, each identifier once."""
    page = open_page(pages[name])
    for question in (UNNAMED, WITHOUT_SCOPE, UNTITLED, DUPLICATES):
        assert page.evaluate(question) == []
    assert page.get_attribute("html", "lang") == "en"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"  # leads past the head
    page.locator("#filter").focus()
    page.keyboard.press("Tab")
    outline = page.evaluate("getComputedStyle(document.activeElement).outline")
    assert "3px" in outline
    assert "solid" in outline


@pytest.mark.parametrize("name", PAGES)
def test_page_is_printed_whole(open_page, pages, name):
    """Without tools, and with no part that would have to be scrolled."""
    page = open_page(pages[name])
    page.emulate_media(media="print")
    assert not page.locator(".tools").first.is_visible()
    assert page.evaluate("[...document.querySelectorAll('.scroll')].every(e => e.scrollHeight <= e.clientHeight + 1)")
