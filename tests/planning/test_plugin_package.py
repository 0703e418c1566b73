"""The plugin package of the guide, installed as it is described, trains and predicts."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from custom_parts import build_pyramid
from phantoms import Listener
from tiny_workspaces import LABELS, NUMBER, boxes, dice, folders_of, plan_tiny, write_volumes

import autoseg
from autoseg.errors import ModelError, UsageError
from autoseg.imaging.image_files import read_image
from autoseg.models.checkpoint import load_checkpoint
from autoseg.planning import plugins

pytestmark = pytest.mark.slow

PAGE = Path(autoseg.__file__).parent / "guide" / "plugins.md"
CONFIGURATION = "3d_fullres"


def read_example(language):
    """Returns the block of code in a language, from the guide's page about plugins."""
    [block] = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return block


def install_example(folder):
    """Puts the package where Python finds it, with the metadata that pip writes."""
    project = tomllib.loads(read_example("toml"))["project"]
    described = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    described.mkdir(parents=True)
    name, version = project["name"], project["version"]
    (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    groups = project["entry-points"].items()
    lines = [f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in one.items()) for group, one in groups]
    (described / "entry_points.txt").write_text("\n".join(lines))
    (folder / "my_parts.py").write_text(read_example("python"))


def merge(content, changes):
    """Writes the lines of an example into its file."""
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(content.get(key), dict):
            merge(content[key], value)
        else:
            assert key in content, f"a plan has no {key}"
            content[key] = value


def edit_plan(root):
    """Writes the names of the example into plan.json, as a user would."""
    path = folders_of(root).plan
    content = json.loads(path.read_text(encoding="utf-8"))
    merge(content, json.loads(read_example("json")))
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Returns a workspace whose plan names the plugins of the example, and a folder with the package."""
    root = tmp_path_factory.mktemp("own")
    write_volumes(root / "workspace")
    plan_tiny(root / "workspace", epochs=2, steps_per_epoch=30, average_decay=0.5, momentum=0.9)
    edit_plan(root / "workspace")
    install_example(root / "site")
    return root / "workspace", root / "site"


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch):
    """Resets the loaded plugins, as in a new process."""
    monkeypatch.setattr(plugins, "_REGISTERED", {})
    monkeypatch.setattr(plugins, "_LOADED", {})
    monkeypatch.delitem(sys.modules, "my_parts", raising=False)


@pytest.fixture
def installed(prepared, monkeypatch):
    """Returns the workspace, in a process that finds the package."""
    monkeypatch.syspath_prepend(prepared[1])
    return prepared[0]


def train(root, **options):
    """Trains fold 0 and returns the messages."""
    listener = Listener()
    autoseg.train(NUMBER, CONFIGURATION, [0], device="cpu", workspace=root, reporter=listener, **options)
    return listener


@pytest.fixture(scope="module")
def trained(prepared):
    """Returns the workspace after training and validation in a process of its own, and the messages."""
    command = [sys.executable, "-m", "autoseg", *f"train -d {NUMBER} -c {CONFIGURATION} -f 0 --device cpu -w".split()]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(prepared[1]), str(PAGE.parents[2])])}
    done = subprocess.run([*command, str(prepared[0])], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return prepared[0], " ".join((done.stdout + done.stderr).split())


def test_example_trains_and_is_validated(trained):
    """It trains its network, whose weights are in the checkpoint, and reports on memory."""
    root, said = trained
    assert said.count("no estimate of memory in plan.json applies to it") == 1
    model = folders_of(root).model(CONFIGURATION)
    checkpoint = load_checkpoint(model.checkpoint(0))
    assert checkpoint.finished
    assert set(checkpoint.weights) == {f"{layer}.{one}" for layer in ("first", "second") for one in ("weight", "bias")}
    assert checkpoint.weights["first.weight"].shape[0] == 8
    losses = [report["training_loss"] for report in checkpoint.training["reports"]]
    assert 1 > losses[0] > losses[1] > 0  # one minus an overlap; the built-in sum would be below zero in the end
    assert (model.validation(0) / "summary.json").is_file()


def test_example_predicts(trained, installed, tmp_path):
    """Where its package is installed, the bright and the dark structure are segmented."""
    scans = folders_of(installed).raw / "imagesTs"
    [path] = autoseg.predict(scans, tmp_path, number=NUMBER, device="cpu", workspace=installed)
    found = read_image((path,)).array[0]
    for label in LABELS.values():
        assert dice(found, boxes(found.shape), label) > 0.6


def test_model_without_its_package_is_one_line(trained, tmp_path):
    """The error names the network and what to install; nothing that was trained is lost."""
    root, _ = trained
    with pytest.raises(
        ModelError, match=r"there is no network 'two_layers' here \(available: none\); install the package"
    ):
        autoseg.load_model(folders_of(root).model(CONFIGURATION).path, device="cpu")
    with pytest.raises(UsageError, match="there is no network 'two_layers' here"):
        train(root, restart=True)
    assert folders_of(root).model(CONFIGURATION).checkpoint(0).is_file()


def test_other_version_of_the_package_is_one_line(trained):
    """The checkpoint does not fit the network that is installed now."""
    autoseg.register_network("two_layers", lambda architecture, _: build_pyramid(architecture, {}))
    with pytest.raises(ModelError, match="do not fit the network 'two_layers' that is installed; install the version"):
        autoseg.load_model(folders_of(trained[0]).model(CONFIGURATION).path, device="cpu")


def test_example_can_be_the_start_of_another(trained, installed, tmp_path):
    """Its weights are transferred by name and shape; its parts have no names to freeze them by."""
    root = tmp_path / "workspace"
    shutil.copytree(installed, root)
    shutil.rmtree(folders_of(root).model(CONFIGURATION).path)
    start = folders_of(installed).model(CONFIGURATION).checkpoint(0)
    with pytest.raises(UsageError, match="--freeze does not know the parts of the network 'two_layers'; leave it out"):
        train(root, init=start, freeze="encoder")
    listener = train(root, init=start, epochs=1)
    assert "taken: 4 tensors, 100.00% of the weights" in listener.text


def test_network_of_another_kind_is_no_start(trained, installed, trained_volumes):
    """No weight fits; the error names those of both networks."""
    root, start = installed, folders_of(trained_volumes).model(CONFIGURATION).checkpoint(0)
    with pytest.raises(UsageError, match=r"0.0% of the weights .* the plan's has the layers of 'two_layers'; name the"):
        train(root, init=start, restart=True)


def test_own_transforms_stay_on_the_cpu(trained, installed):
    """Unsupported options are refused in one line."""
    with pytest.raises(UsageError, match="the transform 'haze' changes patches on a CPU only; choose --augment-on cpu"):
        train(installed, augment_on="device", restart=True)
