"""The pages of the guide: their form, their index, their links, and those that follow from the code."""

import re
from pathlib import Path

import pytest
from generated_pages import PAGES as GENERATED
from guide_blocks import ALL, CHECKOUT, GUIDE, INDEX, PAGES, README, blocks, name_of, prose, read

import autoseg
from autoseg.cli.guide import list_pages

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
LONGEST_README_BYTES = 12_000


def headings(text: str) -> list[str]:
    """The anchors of a page, as code-hosting sites make them from its headings."""
    titles = re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]


def test_readme_is_short():
    """It is read in one sitting; the rest is in the guide."""
    assert len(README.read_bytes()) <= LONGEST_README_BYTES


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_page_begins_with_title_and_purpose(path: Path):
    """The second paragraph is one sentence."""
    title, blank, purpose, after = read(path).splitlines()[:4]
    assert re.fullmatch(r"# \S.*", title)
    assert blank == after == ""
    assert re.fullmatch(r"[A-Z].*[^.]\.", purpose)


def test_index_lists_every_page_once():
    """With the title and the purpose that the page states."""
    listed = list_pages()
    assert sorted(page.name for page in listed) == [path.stem for path in PAGES]
    assert [*dict.fromkeys(page.kind for page in listed)] == ["How-to", "Reference", "Explanation", "Contributing"]
    index = read(INDEX)
    for page in listed:
        title, _, purpose = read(GUIDE / f"{page.name}.md").splitlines()[:3]
        assert page.purpose == purpose
        assert f"- [{title.removeprefix('# ')}]({page.name}.md): {purpose}\n" in index


def test_readme_links_every_page():
    """So that who reads it on a site finds them all."""
    linked = {Path(target).stem for target in LINK.findall(read(README)) if target.startswith("autoseg/guide/")}
    assert {path.stem for path in PAGES} <= linked


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_links_lead_somewhere(path: Path):
    """To files that exist, and to headings that they have; those of the guide stay inside the package."""
    for target in LINK.findall(prose(read(path))):
        assert not re.match(r"\w+:", target), f"{target} is not inside this project"
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked.is_file(), f"{name_of(path)} links {target}, which does not exist"
        assert path == README or linked.parent == GUIDE, f"{name_of(path)} links {target}, which is not shipped"
        assert not anchor or anchor in headings(read(linked)), (
            f"{name_of(path)} links {target}, which has no such heading"
        )


@pytest.mark.parametrize("name", GENERATED)
def test_generated_page_is_up_to_date(name: str):
    """If this fails: python tests/guide/generated_pages.py."""
    assert read(GUIDE / f"{name}.md") == GENERATED[name]()


def test_python_page_names_all_that_is_public():
    """And nothing else."""
    page = read(GUIDE / "python.md")
    named = set(re.findall(r"`autoseg\.(\w+)`", page))
    assert named == set(autoseg.__all__) - {"__version__"}


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_python_blocks_are_python(path: Path):
    """Each can be compiled by itself."""
    for block in blocks(read(path), "python"):
        compile(block, name_of(path), "exec")


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_files_of_the_package_exist(path: Path):
    """Python files that a page names, in running text and in drawings, are where it says."""
    for name in re.findall(r"(?<![\w./-])((?:[a-z_0-9]+/)+[a-z_0-9]+\.py)\b", read(path)):
        assert (CHECKOUT / name).is_file() or (CHECKOUT / "autoseg" / name).is_file(), f"there is no file {name}"


def test_rooms_are_those_of_the_package():
    """README and the page on contributing name every folder of the package, and no other, in the same order."""
    drawn = re.findall(r"^  (\w+)/ ", read(README), re.MULTILINE)
    rooms = re.findall(r"^\| `(\w+)/` \|", read(GUIDE / "contributing.md"), re.MULTILINE)
    assert drawn == rooms
    assert set(rooms) == {path.name for path in (CHECKOUT / "autoseg").iterdir() if path.is_dir()} - {"__pycache__"}
