"""Addresses of DICOM applications, and the certificates of encrypted connections to them."""

import os
import re
import ssl
from dataclasses import dataclass
from pathlib import Path

from autoseg.errors import UsageError

LOOPBACK = "127.0.0.1"

PEER = re.compile(r"^(?P<title>[^@\\\x00-\x1f]{1,16})@(?P<host>\[[0-9a-fA-F:.]+\]|[^@:\s]+):(?P<port>\d{1,5})\Z")

TITLE = re.compile(r"^(?=.*[^ ])[^\\\x00-\x1f]{1,16}\Z")
"""Source: value representation AE of DICOM PS3.5, section 6.2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A DICOM application that receives files by C-STORE.

    Attributes:
        title: Its application entity (AE) title.
        host: Name or address of its machine.
        port: Its port.
    """

    title: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.title}@{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """Files in PEM format for encrypted connections.

    Attributes:
        certificate: The certificate of this machine; None if it has none.
        key: Its private key; None if it is in the same file.
        authorities: Certificates that the other side's must be signed by; None takes those of the system.
    """

    certificate: Path | None = None
    key: Path | None = None
    authorities: Path | None = None

    def client(self) -> ssl.SSLContext:
        """Returns what a connection to another machine needs.

        Raises:
            UsageError: A file is missing or holds no certificate.
        """
        return self._load(ssl.create_default_context(ssl.Purpose.SERVER_AUTH))

    def server(self) -> ssl.SSLContext:
        """Returns what a service needs; others must show a certificate if `authorities` are named.

        Raises:
            UsageError: A file is missing or holds no certificate, or there is none for this machine.
        """
        if self.certificate is None:
            raise UsageError("an encrypted service needs a certificate", "give it with --tls-certificate")
        context = self._load(ssl.create_default_context(ssl.Purpose.CLIENT_AUTH))
        if self.authorities is not None:
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _load(self, context: ssl.SSLContext) -> ssl.SSLContext:
        try:
            if self.authorities is not None:
                context.load_verify_locations(self.authorities)
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as error:
            names = ", ".join(str(path) for path in (self.certificate, self.key, self.authorities) if path is not None)
            raise UsageError(f"cannot use the certificates {names}: {error}", "give files in PEM format") from error
        return context


def choose_tls(
    certificate: str | os.PathLike[str] | None,
    key: str | os.PathLike[str] | None,
    authorities: str | os.PathLike[str] | None,
) -> TlsFiles | None:
    """Returns the files of encrypted connections; None if none is named.

    Raises:
        UsageError: A key has no certificate.
    """
    if key is not None and certificate is None:
        raise UsageError(f"{os.fspath(key)} is the key of no certificate", "give --tls-certificate as well")
    files = [None if path is None else Path(path) for path in (certificate, key, authorities)]
    if files == [None, None, None]:
        return None
    return TlsFiles(certificate=files[0], key=files[1], authorities=files[2])


def parse_peer(text: str) -> Peer:
    """Returns the application that a text such as "ORTHANC@127.0.0.1:4242" names.

    Raises:
        UsageError: The text has another form.

    Example:
        >>> parse_peer("ORTHANC@127.0.0.1:4242").port
        4242
    """
    match = PEER.match(text)
    if match is None or not 0 < int(match["port"]) < 2**16:
        raise UsageError(f"{text!r} is no DICOM application", "write TITLE@HOST:PORT, such as ORTHANC@127.0.0.1:4242")
    return Peer(title=check_title(match["title"]), host=match["host"].strip("[]"), port=int(match["port"]))


def check_title(title: str) -> str:
    """Returns an AE title.

    Raises:
        UsageError: It is longer than 16 characters, empty, or has others than the standard allows.
    """
    if TITLE.match(title) is None or not title.isascii():
        raise UsageError(f"{title!r} is no AE title", "give 1 to 16 letters, digits or underscores")
    return title
