"""A server for the browser on this machine: it listens on 127.0.0.1 alone, and answers only who has its address.

The address holds a random token, which other users of the machine cannot guess. Requests with another Host header are
refused, so that no page of the web can reach the server by a name that leads to 127.0.0.1 (DNS rebinding). What is
answered is a table of known paths, never a path of the file system.
"""

import hmac
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from types import TracebackType
from typing import Self

from autoseg.errors import UsageError

HOST = "127.0.0.1"
TOKEN_BYTES = 18
SECONDS_TO_SEND_REQUEST = 30

SECONDS_TO_END = 0.1
"""Interval at which a server that runs looks whether it is to end."""

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Headers of each answer: nothing is kept, embedded elsewhere, or told to other pages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a request gets.

    Attributes:
        content: The bytes.
        kind: Their media type.
        status: Status of HTTP.
    """

    content: bytes
    kind: str = "text/plain; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK


class LoopbackServer:
    """Serves on this machine what a function answers.

    Example:
        >>> from urllib.request import urlopen
        >>> from threading import Thread
        >>> with LoopbackServer(lambda path: Answer(content=path.encode()), port=0) as server:
        ...     Thread(target=server.run, daemon=True).start()
        ...     urlopen(server.address + "a/b").read()
        b'a/b'
    """

    def __init__(self, answer: Callable[[str], Answer | None], *, port: int) -> None:
        """Begins to listen.

        Args:
            answer: Answers a path behind the token, such as "" or "volumes/0/0"; None if there is nothing. Called in
                several threads.
            port: Where to listen; 0 for any port that is free.

        Raises:
            UsageError: The port is taken, or may not be used.
        """
        self._token = secrets.token_urlsafe(TOKEN_BYTES)
        try:
            self._server = ThreadingHTTPServer((HOST, port), self._make_handler(answer))
        except (OSError, OverflowError) as error:
            fix = "choose another one with --port, or leave it out"
            raise UsageError(f"port {port} cannot be used: {error}", fix) from error
        self._server.daemon_threads = True
        self._lock = Lock()
        self._is_closed = self._is_running = False

    @property
    def address(self) -> str:
        """Address for the browser, with the token; ends in a slash."""
        return f"http://{HOST}:{self._server.server_port}/{self._token}/"

    def run(self) -> None:
        """Answers until Ctrl-C is pressed, or `__exit__` is called in another thread."""
        with self._lock:
            if self._is_closed:
                return
            self._is_running = True
        try:
            with suppress(KeyboardInterrupt):
                self._server.serve_forever(SECONDS_TO_END)
        finally:
            self._is_running = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._is_closed = True
        if self._is_running:
            self._server.shutdown()  # else the other thread asks the closed socket for ever, as fast as it can
        self._server.server_close()

    def _make_handler(self, answer: Callable[[str], Answer | None]) -> type[BaseHTTPRequestHandler]:
        def find_answer(handler: BaseHTTPRequestHandler) -> Answer:
            hosts = (f"{HOST}:{self._server.server_port}", f"localhost:{self._server.server_port}")
            if handler.headers.get("Host") not in hosts:
                return Answer(content=b"not for this host", status=HTTPStatus.FORBIDDEN)
            token, slash, path = handler.path.removeprefix("/").partition("/")
            is_known = slash and hmac.compare_digest(token.encode(), self._token.encode())
            found = answer(path.partition("?")[0]) if is_known else None
            return found or Answer(content=b"there is nothing here", status=HTTPStatus.NOT_FOUND)

        class Handler(BaseHTTPRequestHandler):
            timeout = SECONDS_TO_SEND_REQUEST

            def version_string(self) -> str:
                return "autoseg"

            def do_GET(self) -> None:
                reply = find_answer(self)
                self.send_response(reply.status)
                self.send_header("Content-Type", reply.kind)
                self.send_header("Content-Length", str(len(reply.content)))
                for name, value in HEADERS.items():
                    self.send_header(name, value)
                self.end_headers()
                with suppress(ConnectionError, TimeoutError):  # the browser has gone on
                    self.wfile.write(reply.content)

            def log_message(self, *_: object) -> None:
                """Writes nothing: each request is one of the page."""

        return Handler
