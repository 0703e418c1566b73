"""An Orthanc archive of its own for a test, on free ports of this machine."""

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
START_SECONDS = 30


@dataclass(frozen=True)
class Orthanc:
    """A running archive: its ports for HTTP and for DICOM."""

    http: int
    dicom: int

    @property
    def web(self) -> str:
        """The address of its DICOMweb service."""
        return f"http://127.0.0.1:{self.http}/dicom-web"

    @property
    def peer(self) -> str:
        """Its name as a DICOM application."""
        return f"ORTHANC@127.0.0.1:{self.dicom}"

    def call(self, path: str, body=None, method=None):
        """Calls its own interface; returns the answer."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}{path}", data=data, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - this machine
            return json.loads(answer.read() or b"null")

    def send_all_to(self, title: str, port: int, *, tls: bool = False) -> None:
        """Lets the archive send everything that it holds to a DICOM application, by C-STORE."""
        peer = {"AET": title, "Host": "127.0.0.1", "Port": port, "UseDicomTls": tls}
        self.call("/modalities/listener", peer, "PUT")
        self.call("/modalities/listener/store", {"Resources": self.call("/studies"), "Synchronous": True})


def free_port() -> int:
    """Returns a port that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def run_orthanc(folder: Path, **further: object) -> Iterator[Orthanc]:
    """Runs an archive with further settings; skips the test where it is not installed."""
    program = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
    if program is None or not PLUGIN.exists():
        pytest.skip("Orthanc with its DICOMweb plugin is not installed (orthanc, orthanc-dicomweb)")
    archive = Orthanc(http=free_port(), dicom=free_port())
    settings = {
        "Name": "test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": archive.http,
        "DicomPort": archive.dicom,
        "DicomAet": "ORTHANC",
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "UnknownSopClassAccepted": True,
        "Plugins": [str(PLUGIN)],
        **further,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen([program, str(folder / "orthanc.json")], stdout=log, stderr=log)
    try:
        _wait(archive, process, folder)
        yield archive
    finally:
        process.terminate()
        process.wait(timeout=30)


def _wait(archive: Orthanc, process: subprocess.Popen, folder: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            archive.call("/system")
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
        else:
            return
    raise AssertionError((folder / "log.txt").read_text())
