"""The page that follows a training: before its first epoch, with each epoch, and after its end; in a browser too."""

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

import pytest
from phantoms import Listener
from tiny_workspaces import NUMBER, folders_of, write_volumes

import autoseg
from autoseg.errors import UsageError
from autoseg.pipeline import watch
from autoseg.report.live import LivePage


@pytest.fixture
def open_live(monkeypatch) -> Callable[[Path], LivePage]:
    """Gives the page that would be served for a workspace."""
    pages: list[LivePage] = []
    monkeypatch.setattr("autoseg.report.live.serve_live", lambda page, **_options: pages.append(page))

    def open_one(root: Path) -> LivePage:
        watch(NUMBER, workspace=root)
        return pages[-1]

    return open_one


def ask(page: LivePage, path: str) -> str:
    """What the page answers."""
    answer = page.answer(path)
    assert answer is not None
    return answer.content.decode()


def test_a_page_before_the_first_epoch(open_live, tmp_path):
    """It says so, and shows the states as text, whatever they hold."""
    write_volumes(tmp_path)
    page = open_live(tmp_path)
    assert "No epoch is done yet." in ask(page, "")
    assert json.loads(ask(page, "state"))["states"] == []
    assert page.answer("other") is None
    hostile = LivePage("t", lambda: None, lambda: [("<img src=x onerror=alert(1)>", "failed", "", "")], list)
    assert "<img" not in ask(hostile, "")


def test_a_page_is_made_anew_with_each_epoch_and_no_more(open_live, trained_volumes, tmp_path, monkeypatch):
    """Held-out cases are read once; an epoch of a fold that another machine trains changes the page."""
    root = Path(shutil.copytree(trained_volumes, tmp_path / "work"))
    monkeypatch.setattr("autoseg.report.live.REST", 0.0)
    made = []
    original = LivePage._make
    monkeypatch.setattr(LivePage, "_make", lambda page, version: made.append(version) or original(page, version))
    page = open_live(root)
    first = ask(page, "")
    assert ask(page, "") == first
    assert json.loads(ask(page, "state"))["version"] == made[-1]
    assert "fold 0" in first
    assert json.loads(ask(page, "state"))["states"][0][:2] == ["3d_fullres, fold 0", "done"]
    model = folders_of(root).model("3d_fullres")
    shutil.copytree(model.fold(0), model.fold(2))
    (model.checkpoint(2)).unlink()
    shutil.rmtree(model.validation(2))
    second = ask(page, "")
    assert "fold 2: 2 of 2 epochs trained" in second
    with model.progress(2, "jsonl").open("a") as log:
        log.write(model.progress(2, "jsonl").read_text().splitlines()[-1].replace('"epoch": 1', '"epoch": 2') + "\n")
    assert "fold 2: 3 of 2 epochs trained" in ask(page, "")
    assert len(made) == 3


def test_pages_are_not_made_too_often(tmp_path, monkeypatch):
    """While it is too early for the next one, browsers are told of the last one, and do not ask for it again."""
    file = tmp_path / "progress.jsonl"
    file.write_text("1")
    page = LivePage("t", lambda: f'<main id="main">{file.read_text()}', list, lambda: [file])
    monkeypatch.setattr("autoseg.report.live.REST", 1e9)
    version = page.find_version()
    assert '<main id="main">' in ask(page, "")
    file.write_text("two")
    assert json.loads(ask(page, "state"))["version"] == version != page.find_version()
    assert ask(page, "").endswith("1")
    page._due_at = 0.0
    assert ask(page, "").endswith("two")


def test_what_cannot_be_watched_is_refused(tmp_path):
    """In one line."""
    write_volumes(tmp_path)
    with pytest.raises(UsageError, match="no configuration '4d'"):
        watch(NUMBER, configurations=["4d"], workspace=tmp_path)
    with pytest.raises(UsageError, match="port 70000 cannot be used"):
        watch(NUMBER, port=70000, workspace=tmp_path)


@pytest.fixture
def served(trained_volumes, tmp_path):
    """A program that watches a workspace; its address, and the workspace."""
    root = Path(shutil.copytree(trained_volumes, tmp_path / "work"))
    command = [sys.executable, "-u", "-m", "autoseg", "watch", "-d", str(NUMBER), "-w", str(root)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    found = re.search(r"http://127\.0\.0\.1:\d+/\S+/", process.stdout.readline())
    assert found is not None
    yield found[0], root, process
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_ctrl_c_ends_it(served):
    """With nothing left behind."""
    address, root, process = served
    before = {path for path in root.rglob("*") if path.is_file()}
    assert urlopen(f"{address}state").status == 200  # noqa: S310 - our own address
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in output) == (0, False)
    assert {path for path in root.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_an_open_page_follows_the_training(served, browser):
    """It reloads by itself when an epoch is done, and says so when the watching has ended."""
    address, root, process = served
    complaints: list[str] = []
    page = browser.new_page()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(address, timeout=120_000)
    page.locator("#now td", has_text="3d_fullres, fold 0").wait_for()
    model = folders_of(root).model("3d_fullres")
    shutil.copytree(model.fold(0), model.fold(2), ignore=shutil.ignore_patterns("validation", "checkpoint.pt"))
    page.get_by_text("fold 2: 2 of 2 epochs trained").wait_for(timeout=120_000)
    process.send_signal(signal.SIGINT)
    process.wait(60)
    page.get_by_text("has ended; this is what was known last").wait_for(timeout=60_000)
    page.close()
    assert complaints == []


def test_the_address_is_said(trained_volumes, monkeypatch):
    """By the reporter, before the first request."""
    listener = Listener()
    monkeypatch.setattr("autoseg.report.loopback.LoopbackServer.run", lambda _server: None)
    autoseg.watch(NUMBER, workspace=trained_volumes, reporter=listener)
    assert re.fullmatch(
        r"open http://127\.0\.0\.1:\d+/\S+/ in a browser on this machine; Ctrl-C ends it", listener.text
    )
