"""Pages as single HTML files: templates, styles and scripts of this room, with all values escaped.

A page loads nothing: its pictures are inside, and its policy forbids the browser to fetch anything but from the program
that serves the page, if one does. So it can be kept, sent and opened anywhere, and a name such as "<script>" in a
dataset shows as text.
"""

from base64 import b64encode
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup

from autoseg._version import __version__
from autoseg.errors import UsageError
from autoseg.runtime.artifact import atomic_file


def picture_address(picture: bytes, kind: str = "webp") -> str:
    """Returns the address of a picture inside the page.

    Example:
        >>> picture_address(b"abc", "png")
        'data:image/png;base64,YWJj'
    """
    return f"data:image/{kind};base64,{b64encode(picture).decode()}"


ROWS_SHOWN = 1000
"""Rows of the table of cases that are shown at a time; a button shows as many more. Decision: a browser lays so many
out in no time, and nobody reads more."""


def render_page(template: str, values: Mapping[str, Any]) -> str:
    """Renders a page.

    Args:
        template: File in `templates`, which extends base.html.
        values: What the template shows; all texts are escaped.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415 - needed for reports only

    environment = Environment(
        loader=PackageLoader("autoseg.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["picture_address"] = picture_address
    script = Markup("\n").join(map(_read, ("tables.js", "viewer.js")))
    return environment.get_template(template).render(
        **values, rows_shown=ROWS_SHOWN, style=_read("style.css"), script=script, version=__version__
    )


def check_page(path: Path) -> Path:
    """Returns the path of a page if one may be written there.

    Raises:
        UsageError: It is a folder, or does not end in ".html".

    Example:
        >>> check_page(Path("report.html")).name
        'report.html'
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder", f"give a file, such as {path / 'report.html'}")
    if path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{path} is no page", f"give a name that ends in .html, such as {path.name}.html")
    return path


def write_page(path: Path, html: str) -> None:
    """Writes a page, whole or not at all.

    Raises:
        WriteError: The path cannot be written.
    """
    with atomic_file(path) as writing:
        writing.write_text(html, encoding="utf-8", errors="replace")


def _read(name: str) -> Markup:
    """Returns a style sheet or a script of this room as it is."""
    return Markup(files("autoseg.report").joinpath("templates", name).read_text(encoding="utf-8"))  # noqa: S704 - our file
