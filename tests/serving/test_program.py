"""The command itself: the examples of the guide, its page in a browser, its errors, and its end by signals."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import nibabel
import numpy as np
import pytest
from served_models import load_small, served, write_noise, write_small_model

from autoseg.errors import UsageError
from autoseg.pipeline import serve

GUIDE = Path(__file__).parents[2] / "autoseg" / "guide" / "serving.md"
TOKEN = "a-token-of-24-characters"  # noqa: S105 - of a test


@contextmanager
def program(model: Path, folder: Path, *options: str):
    """Runs the command; gives the process, its address and its temporary folder."""
    temporary = folder / "temporary"
    temporary.mkdir(exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "autoseg", "serve", str(model), "--port", "0", "--device", "cpu", *options],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "TMPDIR": str(temporary)},
    )  # fmt: skip
    try:
        line = process.stdout.readline()
        match = re.search(r"http://(\S+)/", line)
        assert match, line + process.stdout.read()
        yield process, match[0], temporary
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def blocks(language: str) -> list[str]:
    """The examples of the page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.mark.slow
def test_examples_of_the_guide_run(model, tmp_path, monkeypatch):
    """Those for curl and for Python, and they give the same mask; then SIGTERM ends the server and leaves no file."""
    monkeypatch.chdir(tmp_path)
    write_noise(tmp_path / "scan.nii.gz")
    with program(model, tmp_path) as (process, address, temporary):
        [shell], [python] = blocks("shell"), blocks("python")
        for line in shell.splitlines():
            if shutil.which("curl"):
                command = line.replace("http://127.0.0.1:8000/", address)
                subprocess.run(command, shell=True, check=True, capture_output=True)  # noqa: S602 - the page's example
        exec(python.replace("http://127.0.0.1:8000/", address), {})  # noqa: S102 - likewise
        masks = [tmp_path / "served_scan.nii.gz", *tmp_path.glob("mask.nii.gz")]
        arrays = [np.asarray(nibabel.load(mask).dataobj) for mask in masks]
        assert all(np.array_equal(array, arrays[0]) for array in arrays)
        process.send_signal(signal.SIGTERM)
        output = process.stdout.read()
        assert process.wait(30) == 0, output
        assert output.count("1 segmented") == (3 if shutil.which("curl") else 1)
        assert list(temporary.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_the_server_ends_in_the_middle_of_a_scan(tmp_path, number):
    """A scan of thousands of tiles is dropped; nothing is left, and the exit code is 0."""
    model, scan = write_small_model(tmp_path / "3d_fullres"), write_noise(tmp_path / "a.nii", shape=(160, 160, 160))
    (tmp_path / "token").write_text(TOKEN)
    with program(model, tmp_path, "--token-file", str(tmp_path / "token")) as (process, address, temporary):
        command = ["curl", "-s", "-H", f"Authorization: Bearer {TOKEN}", "-F", f"scan=@{scan}", f"{address}segment"]
        if shutil.which("curl") is None:
            pytest.skip("no curl is installed")
        client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        end = time.monotonic() + 60
        while not list(temporary.glob("*/place_*/result")) and time.monotonic() < end:
            time.sleep(0.02)
        time.sleep(1.0)
        process.send_signal(number)
        answer = client.communicate(timeout=60)[0]
        output = process.stdout.read()
        assert process.wait(60) == 0, output
    assert "the server is ending" in answer
    assert list(temporary.iterdir()) == []
    assert TOKEN not in output


def test_options_that_cannot_be(model, tmp_path, monkeypatch):
    """One line each, before the model is loaded or a port is taken."""
    for options, part in (
        ({"host": "0.0.0.0"}, "anyone there could send scans"),  # noqa: S104 - refused
        ({"most_waiting": -1}, "--queue cannot be -1"),
        ({"voxels": 0}, "--voxels cannot be 0"),
        ({"token": "short"}, "the token is not 16 or more"),
        ({"host": "256.1.1.1", "token": TOKEN}, "the server cannot listen at 256.1.1.1:8000"),
    ):
        with pytest.raises(UsageError, match=re.escape(part)):
            serve(model, device="cpu", **options)
    with served(load_small(model)) as (client, _, _lines), pytest.raises(UsageError, match="choose another --port"):
        serve(model, device="cpu", port=client.base_url.port)
    monkeypatch.setattr("autoseg.pipeline.serving.find_spec", lambda _name: None)
    with pytest.raises(UsageError, match=re.escape("pip install 'autoseg[server]'")):
        serve(model)


@pytest.mark.slow
def test_the_page_in_a_browser(model, tmp_path, browser):
    """The token is asked for; a scan is chosen, its mask and volumes come; names and errors show as text."""
    scan = write_noise(tmp_path / "<img src=x onerror=alert(1)>.nii.gz")
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"no image")
    complaints, asked = [], []
    with served(load_small(model), token=TOKEN) as (client, _, _lines):
        page = browser.new_page(viewport={"width": 900, "height": 900})
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(str(client.base_url))
        page.fill("#token", TOKEN)
        page.click("#access button")
        page.wait_for_selector("#upload:not([hidden])")
        assert page.inner_text("#model") == "Dataset001_Small"
        page.set_input_files("#files", broken)
        page.click("#send")
        page.wait_for_selector("#state.error")
        assert page.inner_text("#state").startswith("broken.nii.gz")
        page.set_input_files("#files", scan)
        assert "<img" in page.inner_text("#chosen")
        assert page.locator("#chosen img").count() == 0
        page.click("#send")
        page.wait_for_selector("#result:not([hidden])")
        assert "bright" in page.inner_text("#scans table")
        with page.expect_download() as download:
            page.click("#downloads a")
        assert np.asarray(nibabel.load(shutil.copy(download.value.path(), tmp_path / "m.nii.gz")).dataobj).any()
        if "AUTOSEG_SCREENSHOT" in os.environ:
            page.screenshot(path=os.environ["AUTOSEG_SCREENSHOT"])
        page.close()
    assert complaints == []
    assert all(address.startswith((str(client.base_url), "blob:", "data:")) for address in asked)
