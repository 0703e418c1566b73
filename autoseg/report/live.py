"""The report of trained configurations while they are being trained: served on this machine, and kept up to date."""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from threading import Lock

from autoseg.errors import AutosegError
from autoseg.report.loopback import Answer, LoopbackServer
from autoseg.report.page import render_page
from autoseg.runtime.artifact import state_of_files

HTML = "text/html; charset=utf-8"

StateRow = tuple[str, str, str, str]
"""Name of a fold or a job, its state, where it runs, and how far it is."""

REST, MOST_REST_SECONDS = 300.0, 60.0
"""How many times as long as a page took to be made the next one is waited for, at most so many seconds. Decision: a
page takes a tenth of a second, and a training with epochs of five seconds gave a hundredth of its time for it with half
of that rest (tests/benchmarks/RESULTS.md)."""


class LivePage:
    """A page that is made anew when the files that it shows have changed, and asked for.

    Args:
        title: Title of the page while there is nothing to show.
        make_page: Makes the page of what is trained so far; None if there is nothing yet.
        list_states: Lists the states of folds and jobs.
        list_files: Lists the files whose changes are shown.
    """

    def __init__(
        self,
        title: str,
        make_page: Callable[[], str | None],
        list_states: Callable[[], Sequence[StateRow]],
        list_files: Callable[[], Iterable[Path]],
    ) -> None:
        self._title, self._make_page = title, make_page
        self._list_states, self._list_files = list_states, list_files
        self._lock = Lock()
        self._version, self._html, self._due_at = "", "", 0.0

    def answer(self, path: str) -> Answer | None:
        """Answers the page for "", and for "state" its version and the states of folds and jobs as JSON."""
        if path == "state":
            content = {"version": self._find_due_version(), "states": self._read_states()}
            return Answer(content=json.dumps(content).encode(), kind="application/json")
        return Answer(content=self.read_page().encode(errors="replace"), kind=HTML) if not path else None

    def find_version(self) -> str:
        """Returns a digest that changes when an epoch is done, a fold is validated, or a model is chosen."""
        digest = sha256()
        for path in sorted(self._list_files()):
            digest.update(f"{path}\0{state_of_files([path])}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()[:16]

    def read_page(self) -> str:
        """Returns the page; it is made anew only if its version has changed, and not too often."""
        with self._lock:
            version, began_at = self._find_due_version(), time.monotonic()
            if version != self._version:
                self._html, self._version = self._make(version), version
                now = time.monotonic()
                self._due_at = now + min(REST * (now - began_at), MOST_REST_SECONDS)
            return self._html

    def _find_due_version(self) -> str:
        """Returns the version of the files; that of the page that was made while it is too early for the next one."""
        return self._version if time.monotonic() < self._due_at else self.find_version()

    def _make(self, version: str) -> str:
        try:
            page = self._make_page()
        except AutosegError as error:  # a file that is being written; the next version shows it
            page = render_page("waiting.html", {"title": self._title, "reason": str(error)})
        if page is None:
            page = render_page("waiting.html", {"title": self._title, "reason": "No epoch is done yet."})
        live = render_page("live.html", {"live_version": version, "states": self._read_states()})
        return page.replace('<main id="main">', f'<main id="main">\n{live}', 1)

    def _read_states(self) -> Sequence[StateRow]:
        try:
            return self._list_states()
        except AutosegError:  # a file that is being written
            return ()


def serve_live(page: LivePage, *, port: int, announce: Callable[[str], None]) -> None:
    """Serves a page until Ctrl-C is pressed.

    Args:
        page: The page.
        port: Where to listen on 127.0.0.1; 0 for any port that is free.
        announce: Is given the address.

    Raises:
        UsageError: The port cannot be used.
    """
    with LoopbackServer(page.answer, port=port) as server:
        announce(server.address)
        server.run()
