"""Pages in a real browser, which may write nothing to its console."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def open_page(browser) -> Iterator[Callable[[Path], Any]]:
    """Opens pages; nothing may be written to the console, and nothing asked of the network, while they are used.

    What the driver of WebGL without a graphics card says of itself does not count.
    """
    pages, complaints = [], []

    def open_one(path: Path) -> Any:
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: complaints.append(request.url) if request.url.startswith("http") else None)
        page.goto(path.as_uri())
        pages.append(page)
        return page

    yield open_one
    for page in pages:
        page.close()
    assert [text for text in complaints if "GL Driver Message" not in text] == []
