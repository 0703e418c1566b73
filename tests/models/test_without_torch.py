"""Exported models where torch is missing: in an environment that is made as the guide says, and without telemetry."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_models import small_checkpoint

import autoseg
from autoseg.imaging.geometry import Geometry, Volume
from autoseg.imaging.image_files import read_label_map, write_image
from autoseg.models.bundle import export_model
from autoseg.models.checkpoint import save_checkpoint
from autoseg.models.runtimes import TELEMETRY_PACKAGE, describe_choice, list_installed, telemetry_off

CHECKOUT = Path(__file__).parents[2]
GUIDE = CHECKOUT / "autoseg" / "guide" / "runtimes.md"
IMAGE = np.random.default_rng(0).normal(size=(20, 28, 22)).astype(np.float32)
SPACING = (1.0, 1.0, 1.0)
EQUAL_VOXELS = 0.9999
NOT_NEEDED = ("torch", "SimpleITK", "skimage", "PIL", "tifffile", "pandas", "matplotlib", "jinja2", "blosc2")
"""Modules of packages that are dependencies of autoseg, and that scans in NIfTI do not need without torch."""

LARGEST_MB = 500
IMPATIENT = ("--timeout", "10", "--retries", "0", "--quiet", "--disable-pip-version-check")

OPEN_NETWORK = """
import sys
from pathlib import Path
calls = []
sys.addaudithook(lambda event, _: calls.append(event) if event.startswith("socket.") else None)
import numpy as np
from autoseg.models.runtimes import ExportedNetwork
network = ExportedNetwork(sys.argv[1], Path(sys.argv[2]).read_bytes(), "the network")
network(np.zeros((1, 1, 8, 8, 8), np.float32))
assert "openvino_telemetry" not in sys.modules
print(calls)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with a bundle for torch, one without it, the network of the latter, and a scan."""
    root = tmp_path_factory.mktemp("without_torch")
    save_checkpoint(small_checkpoint(), root / "3d_fullres" / "fold_0" / "checkpoint.pt")
    for runtime in ("torch", "onnx"):
        export_model(root / "3d_fullres", root / f"{runtime}.zip", runtime=runtime)
    shutil.unpack_archive(root / "onnx.zip", root / "unpacked")
    (root / "scans").mkdir()
    geometry = Geometry(shape=IMAGE.shape, spacing_mm=SPACING)
    write_image(root / "scans" / "case_0000.nii.gz", Volume(array=IMAGE[None], geometry=geometry))
    return root


def run(command: list[str], home: Path, path: str = "") -> subprocess.CompletedProcess[str]:
    """Runs a program of a user whose home is empty."""
    home.mkdir(exist_ok=True)
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_runtimes_tell_nobody(folder, tmp_path, runtime):
    """They call no network, and keep nothing in the home of the user, as both do when they are imported plainly."""
    [network] = (folder / "unpacked").rglob("network.onnx")
    ran = run([sys.executable, "-c", OPEN_NETWORK, runtime, str(network)], tmp_path / "home", str(CHECKOUT))
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "[]"
    assert list((tmp_path / "home").rglob("*")) == []


def test_telemetry_of_others_is_left_as_it_was(monkeypatch):
    """A module that the program imported before is there again afterwards."""
    monkeypatch.setitem(sys.modules, TELEMETRY_PACKAGE, sys)
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    with telemetry_off():
        assert sys.modules[TELEMETRY_PACKAGE] is None
        assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
    assert sys.modules[TELEMETRY_PACKAGE] is sys


@pytest.mark.parametrize(
    ("installed", "words"),
    [
        ([], "none is installed for exported models"),
        (["onnx"], "the only one that is installed"),
        (["onnx", "openvino"], "the faster one for the network"),
    ],
)
def test_doctor_says_which_runtime_is_taken(monkeypatch, installed, words):
    """With its version, whatever is installed."""
    assert set(list_installed()) == {"onnx", "openvino"}
    monkeypatch.setattr("autoseg.models.runtimes.list_installed", lambda: installed)
    described = describe_choice()
    assert words in described
    assert all(re.search(rf"{name} \(\w+ \d+\.\d+", described) for name in installed)


WITHOUT_PACKAGES = """
import sys
for name in sys.argv.pop(1).split(","):
    sys.modules[name] = None
from autoseg.__main__ import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ending", "options", "missing"),
    [(".nii.gz", (), None), (".nrrd", (), "SimpleITK"), (".nii.gz", ("--meshes", "stl"), "scikit-image")],
)
def test_scans_in_nifti_need_few_packages(folder, tmp_path, ending, options, missing):
    """What other scans and meshes need is said in one line, before the work."""
    scans = tmp_path / "scans"
    geometry = Geometry(shape=(6, 8, 8), spacing_mm=SPACING)
    write_image(scans / f"case_0000{ending}", Volume(array=IMAGE[None, :6, :8, :8], geometry=geometry))
    paths = ["-m", str(folder / "onnx.zip"), "-i", str(scans), "-o", str(tmp_path / "masks"), "--quality", "fast"]
    command = [sys.executable, "-c", WITHOUT_PACKAGES, ",".join(NOT_NEEDED), "predict", *paths, *options]
    ran = run(command, tmp_path / "home", str(CHECKOUT))
    if missing is None:
        assert ran.returncode == 0, ran.stderr
        assert read_label_map(tmp_path / "masks" / "case.nii.gz").array.shape == (6, 8, 8)
        return
    assert ran.returncode == 2
    assert ran.stderr == f"error: this needs {missing}, which is not installed; pip install {missing}\n"
    assert not (tmp_path / "masks" / "report.csv").exists()


def guide_commands() -> list[list[str]]:
    """The arguments of pip in the guide's commands that make an environment without torch."""
    lines = re.findall(r"^pip install .*$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    return [shlex.split(line)[2:] for line in lines]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_environment_as_in_the_guide_predicts(folder, tmp_path):
    """The masks are those of torch, the environment is small, and what needs torch says so in one line."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "env")], check=True)
    python = str(tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin") / "python")
    pip = [python, "-m", "pip", "install", *IMPATIENT]
    if subprocess.run([*pip, "threadpoolctl"], capture_output=True, check=False).returncode:
        pytest.skip("pip reaches no index of packages")
    without, needed = guide_commands()
    assert without == ["--no-deps", "autoseg"]
    source = tmp_path / "source"
    shutil.copytree(CHECKOUT / "autoseg", source / "autoseg", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, source)
    subprocess.run([*pip, "--no-deps", str(source)], check=True)
    subprocess.run([*pip, *needed], check=True)

    def predict(bundle: str) -> subprocess.CompletedProcess[str]:
        options = ["--disagreement", "--probabilities", "all"]
        paths = ["-m", str(folder / bundle), "-i", str(folder / "scans"), "-o", str(tmp_path / "masks")]
        return run([python, "-m", "autoseg", "predict", *paths, *options], tmp_path / "home")

    ran = predict("onnx.zip")
    assert ran.returncode == 0, ran.stderr
    mask = read_label_map(tmp_path / "masks" / "case.nii.gz").array
    expected = autoseg.load_model(folder / "torch.zip", exact=True).predict(IMAGE, spacing_mm=SPACING)
    assert (mask == expected).mean() >= EQUAL_VOXELS
    installed = sum(file.stat().st_size for file in (tmp_path / "env").rglob("*") if file.is_file())
    assert installed < LARGEST_MB * 1e6
    assert list((tmp_path / "home").rglob("*")) == []
    ran = predict("torch.zip")
    assert (ran.returncode, ran.stderr) == (2, "error: this needs torch, which is not installed; pip install torch\n")
