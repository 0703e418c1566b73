"""The queue: one scan at a time, a few that wait, further ones refused, and what is dropped."""

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from served_models import load_small, served, wait_until

from autoseg.serving.limits import Limits
from autoseg.serving.segmentation import UploadSegmenter


@dataclasses.dataclass(frozen=True, kw_only=True)
class Halting(UploadSegmenter):
    """Waits before each scan until it may go on; fails at scans that are called so."""

    may_go: threading.Event = dataclasses.field(default_factory=threading.Event)
    began: threading.Semaphore = dataclasses.field(default_factory=lambda: threading.Semaphore(0))
    seen: list = dataclasses.field(default_factory=list)

    def segment(self, upload, output, dicom, dropped):
        self.began.release()
        self.seen.append(dropped)
        while not self.may_go.wait(0.01) and not dropped.is_set():
            pass
        if upload.names[0] == "bug.nii.gz":
            raise ZeroDivisionError("a bug")
        return super().segment(upload, output, dicom, dropped)


@pytest.fixture
def halting(model):
    """A segmenter that halts, of a queue in which two may wait."""
    plain = load_small(model)
    return Halting(segmenter=plain.segmenter, limits=Limits(waiting=2))


def test_a_full_queue_refuses(halting, scan):
    """With a time after which to try again; when a place is free, scans are taken again. None is lost."""
    content = scan.read_bytes()

    def send(client):
        return client.post("/segment", files={"scan": ("a.nii.gz", content)})

    with served(halting) as (client, folder, lines), ThreadPoolExecutor(8) as pool:
        first = pool.submit(send, client)
        halting.began.acquire()
        waiting = [pool.submit(send, client) for _ in range(2)]
        wait_until(lambda: client.get("/health").json()["scans"] == 3)
        refused = send(client)
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) >= 1
        line = refused.json()["error"]
        assert line == "2 scans are waiting already, which is the limit; try again in 1 s"
        halting.may_go.set()
        assert [future.result().status_code for future in (first, *waiting)] == [200] * 3
        assert send(client).status_code == 200
        assert list(folder.iterdir()) == []
        assert len(lines) == 5


def test_a_bug_ends_no_server(halting, scan):
    """It is told in a line, without the text of the error."""
    halting.may_go.set()
    with served(halting) as (client, folder, _):
        failed = client.post("/segment", files={"scan": ("bug.nii.gz", scan.read_bytes())})
        assert (failed.status_code, failed.json()["error"]) == (
            500, "the server failed at this scan, and goes on; its log says why",
        )  # fmt: skip
        assert client.post("/segment", files={"scan": ("a.nii.gz", scan.read_bytes())}).status_code == 200
        assert list(folder.iterdir()) == []


def test_who_goes_away_is_dropped(halting, scan):
    """Whether the scan is being segmented or waits; the next one has its turn."""
    content = scan.read_bytes()
    with served(halting) as (client, folder, _):
        for _ in range(2):
            with pytest.raises(httpx.ReadTimeout):
                client.post("/segment", files={"scan": ("a.nii.gz", content)}, timeout=0.5)
        wait_until(lambda: client.get("/health").json()["scans"] == 0)
        assert halting.seen[0].is_set()
        halting.may_go.set()
        assert client.post("/segment", files={"scan": ("a.nii.gz", content)}).status_code == 200
        assert list(folder.iterdir()) == []


def test_a_server_that_ends_drops_what_it_has(halting, scan):
    """The running scan and those that wait are refused, and no file is left."""
    content = scan.read_bytes()

    def send(address):
        return httpx.post(f"{address}/segment", files={"scan": ("a.nii.gz", content)}, timeout=60, trust_env=False)

    with ThreadPoolExecutor(4) as pool:
        with served(halting) as (client, folder, _):
            futures = [pool.submit(send, str(client.base_url).rstrip("/")) for _ in range(3)]
            wait_until(lambda: client.get("/health").json()["scans"] == 3)
            halting.began.acquire()
        answers = [future.result() for future in futures]
    assert [answer.status_code for answer in answers] == [503] * 3, answers
    lines = {answer.json()["error"] for answer in answers}
    assert lines == {"the server is ending; send the scan again when it is back"}
    assert not folder.exists()
