"""Who may use the server: this machine alone, or whoever has the token.

On a loopback address, requests with a Host header of another name are refused, so that no page of the web can reach the
server by a name that leads to 127.0.0.1 (DNS rebinding). Requests that a browser sends for a page of another origin are
refused everywhere. The token is compared in constant time, and is neither printed nor part of an address.
"""

import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autoseg.errors import UsageError
from autoseg.runtime.os_errors import reason_of
from autoseg.serving.limits import Refusal

SHORTEST_TOKEN = 16
"""Decision: 16 letters at random cannot be guessed by requests."""

OPEN_PATHS = frozenset({"/", "/page.js", "/page.css", "/health"})
"""Paths that are answered without the token: the empty page, and whether the server is alive."""

SCHEME = "bearer "
MAKE_ONE = "make one by: python -c 'import secrets; print(secrets.token_urlsafe())'"


def is_loopback(host: str) -> bool:
    """Returns whether an address is reached from this machine alone; a name other than localhost is taken to be not.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0"), is_loopback("workstation")
        (True, True, False, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def join_address(host: str, port: int) -> str:
    """Returns an address as browsers write it.

    Example:
        >>> join_address("127.0.0.1", 8000), join_address("::1", 8000)
        ('127.0.0.1:8000', '[::1]:8000')
    """
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def choose_token(host: str, token: str | None, file: Path | None) -> str | None:
    """Returns the token that requests must have; None if none is needed.

    Args:
        host: Address at which the server listens.
        token: The token itself.
        file: A file that holds it, in its only line.

    Raises:
        UsageError: The address can be reached from other machines and there is no token; or it is short, has letters
            that no header holds, or was stated twice; or the file cannot be read.
    """
    if token is not None and file is not None:
        raise UsageError("the token is stated twice", "give either --token or --token-file")
    if file is not None:
        try:
            token = file.read_text(encoding="utf-8").strip()
        except UnicodeDecodeError as error:
            raise UsageError(f"{file} is no text, so it holds no token", MAKE_ONE) from error
        except OSError as error:
            raise UsageError(f"cannot read {file}: {reason_of(error)}", "check the path of --token-file") from error
    if token is None:
        if not is_loopback(host):
            raise UsageError(f"other machines reach {host}, and anyone there could send scans", "give a --token-file")
        return None
    if len(token) < SHORTEST_TOKEN or not all("!" <= letter <= "~" for letter in token):
        what = f"the token is not {SHORTEST_TOKEN} or more letters, digits and signs of ASCII without a space"
        raise UsageError(what, MAKE_ONE)
    return token


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Decides about requests by their headers.

    Attributes:
        token: Token that requests must have; None if none is needed.
        host: Address at which the server listens.
        port: Port at which it listens.
    """

    token: str | None
    host: str
    port: int

    def check(self, path: str, headers: Mapping[str, str]) -> None:
        """Checks a request.

        Args:
            path: Path of its address.
            headers: Its headers, by name in small letters.

        Raises:
            Refusal: It may not be answered.

        Example:
            >>> access = Access(token=None, host="127.0.0.1", port=8000)
            >>> access.check("/health", {"host": "localhost:8000"})
            >>> access.check("/health", {"host": "pages.example"})
            Traceback (most recent call last):
            autoseg.serving.limits.Refusal: this server answers at 127.0.0.1:8000 alone; use that address
        """
        host = headers.get("host", "").lower()
        if is_loopback(self.host) and host not in self._list_names():
            raise Refusal(403, f"this server answers at {join_address(self.host, self.port)} alone; use that address")
        origin = headers.get("origin")
        is_foreign = origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}")
        if is_foreign or headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            raise Refusal(403, "a page of another origin may not use this server; open the page of the server itself")
        if self.token is not None and path not in OPEN_PATHS and not self._has_token(headers, self.token):
            line = "this server wants its token; send it as 'Authorization: Bearer TOKEN'"
            raise Refusal(401, line, {"WWW-Authenticate": "Bearer"})

    def _list_names(self) -> set[str]:
        """Returns the Host headers by which a browser of this machine reaches the server; port 80 is not written."""
        names = {self.host.lower(), "127.0.0.1", "localhost", "::1"}
        addresses = {join_address(name, self.port) for name in names}
        return addresses | ({address.removesuffix(":80") for address in addresses} if self.port == 80 else set())

    @staticmethod
    def _has_token(headers: Mapping[str, str], token: str) -> bool:
        text = headers.get("authorization", "")
        stated = text[len(SCHEME) :].strip() if text.lower().startswith(SCHEME) else ""
        return hmac.compare_digest(stated.encode("utf-8", "replace"), token.encode())
