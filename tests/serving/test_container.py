"""The Dockerfile of the guide: its steps, run in environments instead of images, make one that predicts and serves."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from served_models import write_noise
from small_models import small_checkpoint

from autoseg.imaging.image_files import read_label_map
from autoseg.models.bundle import export_model
from autoseg.models.checkpoint import save_checkpoint

CHECKOUT = Path(__file__).parents[2]
PAGE = (CHECKOUT / "autoseg" / "guide" / "containers.md").read_text(encoding="utf-8")
BASE_IMAGE_MB = 150
"""More than python:3.12-slim takes, which is about 130 MB."""


def block(opening: str) -> str:
    """The code block of the page that begins with a line."""
    [text] = re.findall(rf"^```\w*\n({re.escape(opening)}.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return text


def steps(keyword: str) -> list[str]:
    """What the Dockerfile says behind a keyword, line by line."""
    return re.findall(rf"^{keyword} (.*)$", block("FROM"), re.MULTILINE)


def send_context(target: Path) -> None:
    """Copies what `.dockerignore` lets through, as `COPY . /source` does."""
    lines = block("*\n").split()
    assert lines[0] == "*"
    for name in (line.removeprefix("!") for line in lines[1:]):
        source = CHECKOUT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)


def test_the_image_has_no_root_and_no_model():
    """It runs as a numbered user, and what it copies is the package alone."""
    assert steps("USER") == ["1000:1000"]
    assert [line.split()[-2:] for line in steps("COPY")] == [[".", "/source"], ["/wheels", "/wheels"]]
    assert all(line.startswith("pip ") for line in steps("RUN"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_steps_of_the_dockerfile_make_what_predicts_and_serves(tmp_path):
    """The environment is small, segments without torch, and serves until SIGTERM, which `docker stop` sends."""
    source, wheels, environment = tmp_path / "source", tmp_path / "wheels", tmp_path / "env"
    source.mkdir()
    send_context(source)
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    scripts = environment / ("Scripts" if os.name == "nt" else "bin")
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    impatient = ["--timeout", "10", "--retries", "0", "--quiet", "--disable-pip-version-check"]
    for line in steps("RUN"):
        words = shlex.split(line.replace("/source", str(source)).replace("/wheels", str(wheels)))
        command = [str(scripts / words[0]), *words[1:], *impatient]
        ran = subprocess.run(command, env=bare, capture_output=True, text=True, check=False)
        if ran.returncode and "No matching distribution found" in ran.stderr and "--no-index" not in words:
            pytest.skip("pip reaches no index of packages")
        assert ran.returncode == 0, ran.stderr
    installed = sum(file.stat().st_size for file in environment.rglob("*") if file.is_file())
    assert installed / 1e6 + BASE_IMAGE_MB < 1000

    model = tmp_path / "model.zip"
    save_checkpoint(small_checkpoint(), tmp_path / "3d_fullres" / "fold_0" / "checkpoint.pt")
    export_model(tmp_path / "3d_fullres", model, runtime="onnx")
    (tmp_path / "home").mkdir()
    variables = dict(word.split("=", 1) for line in steps("ENV") for word in shlex.split(line))
    variables |= {"HOME": str(tmp_path / "home"), "PATH": str(scripts), "TMPDIR": str(tmp_path / "home")}
    [entry] = map(json.loads, steps("ENTRYPOINT"))
    for name in ("case_0000.nii.gz", "other_0000.nrrd"):
        write_noise(tmp_path / "scans" / name, shape=(12, 14, 10))
    command = [str(scripts / entry[0]), "predict", "-m", str(model), "-i", str(tmp_path / "scans")]
    ran = subprocess.run(
        [*command, "-o", str(tmp_path / "masks")], env=variables, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    masks = [read_label_map(tmp_path / "masks" / name).array for name in ("case.nii.gz", "other.nrrd")]
    assert np.array_equal(*masks)

    (tmp_path / "token.txt").write_text("a-token-of-24-characters")
    [arguments] = map(json.loads, steps("CMD"))
    places = {"/model.zip": str(model), "/token.txt": str(tmp_path / "token.txt"), "0.0.0.0": "127.0.0.1"}  # noqa: S104
    command = [str(scripts / entry[0]), *(places.get(word, word) for word in arguments), "--port", "0"]
    unbuffered = {**variables, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, env=unbuffered, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        try:
            line = server.stdout.readline()
            address = re.search(r"http://\S+/", line)
            assert address, line + server.stdout.read()
            with urllib.request.urlopen(f"{address[0]}health") as answer:  # noqa: S310 - of the server here
                assert json.load(answer)["status"] == "ok"
            server.send_signal(signal.SIGTERM)
            assert server.wait(60) == 0
        finally:
            server.kill()
