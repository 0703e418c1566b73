"""A page with all its volumes at full resolution, served on this machine."""

import re
from collections.abc import Callable, Sequence
from http import HTTPStatus
from pathlib import Path
from threading import Lock

from autoseg.errors import AutosegError
from autoseg.report.loopback import Answer, LoopbackServer
from autoseg.report.viewed_volumes import encode_whole
from autoseg.report.viewer import ViewedCase, ViewedVolumes

MOST_SERVED_VOXELS = 2**27
"""Voxels of a volume, as of 512 x 512 x 512. Decision: more do not fit into the memory of many graphics cards."""

VOLUME = re.compile(r"volumes/(\d{1,9})/(\d{1,4})", re.ASCII)


def serve_page(page: Path, cases: Sequence[ViewedCase], *, port: int, announce: Callable[[str], None]) -> None:
    """Serves a page and the volumes of its cases until Ctrl-C is pressed; nothing else of the disk can be had.

    Args:
        page: The page, as it was written.
        cases: The cases that `make_viewer` got.
        port: Where to listen on 127.0.0.1; 0 for any port that is free.
        announce: Is given the address.

    Raises:
        UsageError: The port cannot be used.
    """
    volumes, html = _Volumes(cases), page.read_bytes()

    def answer(path: str) -> Answer | None:
        if not path:
            return Answer(content=html, kind="text/html; charset=utf-8")
        match = VOLUME.fullmatch(path)
        return None if match is None else volumes.answer(int(match[1]), int(match[2]))

    with LoopbackServer(answer, port=port) as server:
        announce(server.address)
        server.run()


class _Volumes:
    """Reads cases as they are asked for, and keeps the last one, whose volumes are asked for one after the other."""

    def __init__(self, cases: Sequence[ViewedCase]) -> None:
        self._cases, self._lock = cases, Lock()
        self._last: tuple[int, ViewedVolumes] | None = None

    def answer(self, number: int, place: int) -> Answer | None:
        """Returns a volume as a NIfTI file, the reason why it cannot be read, or None if there is no such one."""
        if number >= len(self._cases) or place >= len(self._cases[number].images) + len(self._cases[number].masks):
            return None
        try:
            volumes = self._read(number)
        except AutosegError as error:
            return Answer(content=str(error).encode(), status=HTTPStatus.INTERNAL_SERVER_ERROR)
        volume = (*volumes.images, *volumes.masks)[place]
        return Answer(content=encode_whole(volume, MOST_SERVED_VOXELS), kind="application/octet-stream")

    def _read(self, number: int) -> ViewedVolumes:
        with self._lock:
            if self._last is None or self._last[0] != number:
                self._last = None  # so that two cases are never in memory
                self._last = number, self._cases[number].read()
            return self._last[1]
