"""The server answers on this machine alone, who has the token and names it by its own address, and knows no files."""

import http.client
import socket
from collections.abc import Iterator
from threading import Thread
from urllib.parse import urlsplit

import nibabel
import numpy as np
import pytest
from tiny_workspaces import NUMBER, folders_of, write_volumes

import autoseg
from autoseg.datasets.dataset import Dataset
from autoseg.errors import UsageError
from autoseg.report.loopback import LoopbackServer
from autoseg.report.served import serve_page
from autoseg.report.viewed_cases import view_dataset

pytestmark = pytest.mark.slow  # servers start and end


@pytest.fixture
def root(tmp_path):
    """A workspace of three cases."""
    write_volumes(tmp_path, cases=3)
    return tmp_path


@pytest.fixture
def address(root, monkeypatch) -> Iterator[str]:
    """The address at which a page of these cases is served."""
    servers, addresses = [], []
    begin = LoopbackServer.run
    monkeypatch.setattr(LoopbackServer, "run", lambda server: (servers.append(server), begin(server)))
    dataset = Dataset.open(folders_of(root).raw)
    page = root / "page.html"
    page.write_text("<p>the page</p>")
    cases = view_dataset(dataset, {case.name for case in dataset.cases})
    thread = Thread(target=serve_page, args=(page, cases), kwargs={"port": 0, "announce": addresses.append})
    thread.start()
    while not (addresses and servers):
        thread.join(0.01)
    yield addresses[0]
    servers[0]._server.shutdown()
    thread.join()


def ask(address: str, path: str, *, method: str = "GET", host: str | None = None) -> tuple[int, bytes, dict[str, str]]:
    """Asks for a path exactly as it is written, and returns status, content and headers."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=20)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", host if host is not None else parts.netloc)
    connection.endheaders()
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content, dict(answer.getheaders())


def test_page_and_volumes_are_served(root, address, tmp_path):
    """The volume as nibabel reads it from the file of the case, and the label map."""
    token = urlsplit(address).path
    status, content, headers = ask(address, token)
    assert (status, content) == (200, b"<p>the page</p>")
    assert headers["Cache-Control"] == "no-store"
    for place, file in ((0, "imagesTr/case_2_0000.nii.gz"), (1, "labelsTr/case_2.nii.gz")):
        status, content, _ = ask(address, f"{token}volumes/1/{place}")
        assert status == 200
        (tmp_path / "a.nii").write_bytes(content)
        served, stored = nibabel.load(tmp_path / "a.nii"), nibabel.load(folders_of(root).raw / file)
        np.testing.assert_allclose(served.affine, stored.affine, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(served.get_fdata(), stored.get_fdata(), rtol=1e-6)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/wrong/",
        "TOKEN/dataset.json",
        "TOKEN/../../etc/passwd",
        "TOKEN/%2e%2e/%2e%2e/etc/passwd",
        "TOKEN/volumes/../../page.html",
        "TOKEN/volumes/3/0",
        "TOKEN/volumes/0/2",
        "TOKEN/volumes/-1/0",
        "TOKEN/volumes/0/0/",
        "TOKEN/volumes/%31/0",
        "/etc/passwd",
        "//etc/passwd",
        "http://127.0.0.1/etc/passwd",
    ],
)
def test_nothing_else_can_be_had(address, path):
    """Neither without the token, nor a file, nor a volume that the page does not name."""
    asked = path.replace("TOKEN", urlsplit(address).path.rstrip("/"))
    status, content, _ = ask(address, asked)
    assert (status, content) == (404, b"there is nothing here")


@pytest.mark.parametrize("host", ["", "example.org", "127.0.0.1", "127.0.0.1.example.org", "example.org:80"])
def test_other_hosts_are_refused(address, host):
    """Also with the token: a page of the web whose name leads to 127.0.0.1."""
    status, content, _ = ask(address, urlsplit(address).path, host=host)
    assert (status, content) == (403, b"not for this host")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "HEAD"])
def test_only_reading_is_possible(address, method):
    """Other methods are not known."""
    assert ask(address, urlsplit(address).path, method=method)[0] == 501


def test_reason_is_told_if_a_volume_cannot_be_read(root, address):
    """In the page, in place of the volume."""
    (folders_of(root).raw / "imagesTr" / "case_1_0000.nii.gz").write_bytes(b"none")
    status, content, _ = ask(address, f"{urlsplit(address).path}volumes/0/0")
    assert status == 500
    assert b"case 'case_1'" in content


def test_listens_on_this_machine_alone(address):
    """Not on the other addresses of the machine."""
    with socket.socket() as probe, pytest.raises(OSError, match="refused"):
        probe.connect(("127.0.0.2", urlsplit(address).port))


def test_tokens_differ_and_cannot_be_guessed():
    """144 random bits."""
    with LoopbackServer({}.get, port=0) as one, LoopbackServer({}.get, port=0) as other:
        tokens = {urlsplit(server.address).path.strip("/") for server in (one, other)}
    assert len(tokens) == 2
    assert all(len(token) == 24 for token in tokens)


def test_a_server_that_is_left_ends_in_its_thread():
    """Asking a closed socket again and again would keep a processor busy until the program ends."""
    with LoopbackServer({}.get, port=0) as server:
        thread = Thread(target=server.run, daemon=True)
        thread.start()
        assert ask(server.address, "/")[0] == 404
    thread.join(10)
    assert not thread.is_alive()
    late = Thread(target=server.run, daemon=True)
    late.start()
    late.join(10)
    assert not late.is_alive()


def test_port_that_is_taken_is_said(root, monkeypatch):
    """After the page was written."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} cannot be used.*choose another one with --port"):
            autoseg.report_data(NUMBER, root / "page.html", workspace=root, serve=True, port=port)
    assert (root / "page.html").is_file()
