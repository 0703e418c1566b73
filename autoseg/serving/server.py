"""The server itself: it listens, answers until it is asked to end, and leaves nothing behind."""

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

import uvicorn

from autoseg.errors import UsageError
from autoseg.serving.access import Access, join_address
from autoseg.serving.app import make_app
from autoseg.serving.jobs import JobQueue
from autoseg.serving.segmentation import UploadSegmenter

SECONDS_TO_END = 10
"""Time that answers and uploads get to end when the server is asked to end. Decision: Docker waits as long."""

MOST_CONNECTIONS = 500
"""Connections that are open at the same time. Decision: each takes a file of the process, which may have 1024."""


def open_socket(host: str, port: int) -> socket.socket:
    """Begins to listen.

    Args:
        host: An address of this machine, or its name.
        port: The port; 0 for any that is free.

    Raises:
        UsageError: The address is none of this machine, or the port is taken or may not be used.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family)
    except (OSError, OverflowError, UnicodeError) as error:
        what = f"the server cannot listen at {join_address(host, port)}: {error}"
        raise UsageError(what, "choose another --port or --host") from error


def serve_model(
    segmenter: UploadSegmenter, listening: socket.socket, host: str, token: str | None, say: Callable[[str], None]
) -> None:
    """Serves until Ctrl-C or SIGTERM, or until the calling program sets `should_exit`; closes the socket.

    A running scan is dropped then at its next batch of tiles, those that wait are refused, and temporary files are
    removed.

    Args:
        segmenter: Segments uploads.
        listening: See `open_socket`.
        host: Address at which it listens.
        token: Token that requests must have; None if none is needed.
        say: Gets a line for each scan.
    """
    with TemporaryDirectory(prefix="autoseg_serve_") as name, listening:
        queue = JobQueue(Path(name), segmenter.limits)
        access = Access(token=token, host=host, port=listening.getsockname()[1])
        app = make_app(segmenter, queue, access, Path(name), say)
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            limit_concurrency=MOST_CONNECTIONS,
            timeout_graceful_shutdown=SECONDS_TO_END,
        )
        try:
            _Server(config, queue).run(sockets=[listening])
        finally:
            queue.stop()
            queue.close()


class _Server(uvicorn.Server):
    """A server that gives up its jobs when it is asked to end, and does not end the process by the signal itself."""

    def __init__(self, config: uvicorn.Config, queue: JobQueue) -> None:
        super().__init__(config)
        self._queue = queue

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handles Ctrl-C and SIGTERM, where they can be handled, while the server runs."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        former = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Ends the server; a second Ctrl-C does not wait for answers."""
        self._queue.stop()
        super().handle_exit(sig, frame)
