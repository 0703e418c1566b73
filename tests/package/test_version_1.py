"""Files that version 0.1.0 wrote work for ever: plans, workspaces, checkpoints, bundles, predictions.

They lie in `golden/version_1`, with the segmentations that it made with them. Here they are opened as users open them,
by commands and public Python names alone, so that no change inside of the package touches these tests.
"""

import csv
import json
import os
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

import autoseg
from autoseg.cli.app import app

GOLDEN = Path(__file__).parents[1] / "golden" / "version_1"
NUMBER, NAME = 1, "Dataset001_Tiny"
SCAN, OTHER_SCAN = "case_5", "case_6"

RENAMED: dict[str, str] = {"own": "custom"}
"""Keys in JSON files that are written by another name today: the old name to the new one."""

LEAST_DICE = 0.99
"""Of a segmentation and the one that was stored: processors round differently, which moves a voxel in a thousand."""

PREDICTIONS = {
    "best": "",
    "2d": "-c 2d",
    "3d_fullres": "-c 3d_fullres",
    "one_fold": "-c 3d_fullres -f 1 --no-mirroring",
    "3d_lowres": "-c 3d_lowres",
    "cascade": "-c 3d_cascade_fullres",
    "literature": "--plan literature",
    "custom": "--plan custom",
    "nnunet": "--plan nnunet",
}
"""Stored segmentations, and the options by which the workspace makes them."""

NETWORKS = (
    "unet", "unet_3d", "vnet", "resnet_unet", "attention_unet", "unet_plus_plus", "unet_3plus", "conresnet",
    "high_resolution", "cotr", "transunet", "nnformer", "swin_unet", "BasicUNet", "SegResNet", "regions", "structures",
)  # fmt: skip
QUICK_NETWORKS = ("vnet", "unet", "regions", "structures")


def unpack(name: str, folder: Path) -> Path:
    """Unpacks an archive; all of its files are of the same time."""
    with zipfile.ZipFile(GOLDEN / f"{name}.zip") as archive:
        archive.extractall(folder)
    for path in folder.rglob("*"):
        os.utime(path, (1e9, 1e9))
    return folder


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace of datasets without images, with plans of every kind; not to be changed but by new plans."""
    return unpack("plans", tmp_path_factory.mktemp("plans"))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained workspace; not to be changed."""
    return unpack("workspace", tmp_path_factory.mktemp("workspace"))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The trained workspace, for tests that change it."""
    return unpack("workspace", tmp_path / "workspace")


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The segmentations that the version made."""
    return unpack("expected", tmp_path_factory.mktemp("expected"))


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of all networks, and what they made of a scan."""
    return unpack("networks", tmp_path_factory.mktemp("networks"))


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is installed whose parts a plan names."""
    shutil.copy(GOLDEN / "version_1_parts.py", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    import version_1_parts

    version_1_parts.describe_package(tmp_path)


def run(command: str) -> str:
    """Runs a command, and gives back what it printed."""
    result = CliRunner().invoke(app, shlex.split(command), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def read(path: Path) -> np.ndarray:
    """The array of an image."""
    return sitk.GetArrayFromImage(sitk.ReadImage(path))


def read_json(path: Path):
    """The content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def raw(root: Path, folder: str) -> Path:
    """A folder of the raw dataset."""
    return root / "raw" / NAME / folder


def model(root: Path, name: str) -> Path:
    """The folder of trained folds: of "3d_fullres", or of "PLAN/3d_fullres"."""
    return root / "results" / NAME / name


def scan(root: Path, name: str = SCAN) -> Path:
    """A scan that no fold was trained on."""
    return raw(root, "imagesTs") / f"{name}_0000.nii.gz"


def assert_same_mask(found: Path, expected: Path) -> None:
    """Two label maps are the same but for a voxel here and there, and both know several labels."""
    one, other = read(found), read(expected)
    labels = set(np.unique(other))
    assert set(np.unique(one)) == labels
    assert len(labels) > 1
    for label in labels - {0}:
        overlap = 2 * ((one == label) & (other == label)).sum() / ((one == label).sum() + (other == label).sum())
        assert overlap >= LEAST_DICE, f"label {label} of {expected}"


def assert_kept(old, new, renamed: dict[str, str], where: str = "") -> None:
    """All that was in a file is there today, by its name or the one that it has now; more may be there.

    What stands below "settings" is not this program's to rename.
    """
    if isinstance(old, dict):
        for key, value in old.items():
            name = renamed.get(key, key)
            assert name in new, f"{where}.{key}"
            if key == "format_version":
                assert new[name] >= value
            else:
                assert_kept(value, new[name], {} if key == "settings" else renamed, f"{where}.{key}")
    elif isinstance(old, list):
        assert len(old) == len(new), where
        for number, (one, other) in enumerate(zip(old, new, strict=True)):
            assert_kept(one, other, renamed, f"{where}[{number}]")
    elif isinstance(old, float):
        assert new == pytest.approx(old, rel=1e-6, abs=1e-9), where
    else:
        assert new == old, where


# --- Plans ------------------------------------------------------------------------------------------------------------


def test_plans_of_every_kind_are_read(plans: Path, workspace: Path, tmp_path: Path) -> None:
    """With every value that the file has; written and read again they are the same."""
    files = [*plans.glob("preprocessed/*/*/plan.json"), *workspace.glob("preprocessed/*/**/plan.json")]
    assert len(files) > 50
    for path in files:
        plan = autoseg.Plan.load(path)
        assert_kept(read_json(path), plan.model_dump(mode="json"), RENAMED, str(path))
        plan.save(tmp_path / "plan.json")
        assert autoseg.Plan.load(tmp_path / "plan.json") == plan


def test_every_kind_of_dataset_is_planned_again(plans: Path) -> None:
    """From its dataset.json and its fingerprint, with a reason for every decision."""
    for number in range(1, 14):
        run(f"plan -d {number} -w {plans} --plan again --memory 8GB --explain")
        [path] = plans.glob(f"preprocessed/Dataset{number:03d}_*/again/plan.json")
        assert autoseg.Plan.load(path).why


# --- Trained models ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PREDICTIONS)
@pytest.mark.usefixtures("parts")
def test_trained_models_segment_as_before(workspace: Path, expected: Path, tmp_path: Path, name: str) -> None:
    """Alone, as the pair that best.json names, after a coarse one; and of other plans."""
    options = f"-d {NUMBER} -w {workspace} {PREDICTIONS[name]} --exact --device cpu"
    told = run(f"predict {options} -i {scan(workspace)} -o {tmp_path / 'masks'}")
    assert_same_mask(tmp_path / "masks" / f"{SCAN}.nii.gz", expected / f"{name}.nii.gz")
    assert "find_best" not in told  # which would be advised if the folds seemed to have changed since


@pytest.mark.slow
def test_rules_and_expectations_of_a_model_are_read(workspace: Path, tmp_path: Path) -> None:
    """Its postprocessing is applied, and a scan unlike those of training is remarked upon."""
    image = sitk.ReadImage(scan(workspace))
    usual = image.GetSpacing()
    for name, factor in (("usual", 1), ("coarse", 6)):
        image.SetSpacing([factor * size for size in usual])
        (tmp_path / "scans").mkdir(exist_ok=True)
        sitk.WriteImage(image, tmp_path / "scans" / f"{name}_0000.nii.gz")
    masks = tmp_path / "masks"
    run(f"predict -m {model(workspace, '2d')} -i {tmp_path / 'scans'} -o {masks} --device cpu")
    assert "none" not in read_json(masks / "prediction.json")["postprocessing"]
    with (masks / "report.csv").open() as file:
        remarks = {row["case"]: row["remarks"] for row in csv.DictReader(file)}
    assert not remarks["usual"]
    assert remarks["coarse"]


def test_bundle_predicts(expected: Path, tmp_path: Path, workspace: Path) -> None:
    """As a file, installed by its name, and in Python."""
    bundle, options = GOLDEN / "bundle.zip", f"-i {scan(workspace)} --exact --device cpu"
    run(f"predict -m {bundle} {options} -o {tmp_path / 'by_file'}")
    run(f"install {bundle} -w {tmp_path / 'elsewhere'}")
    run(f"predict -m Version1 -w {tmp_path / 'elsewhere'} {options} -o {tmp_path / 'by_name'}")
    for folder in ("by_file", "by_name"):
        assert_same_mask(tmp_path / folder / f"{SCAN}.nii.gz", expected / "best.nii.gz")
    loaded = autoseg.load_model(bundle, device="cpu", exact=True)
    sitk.WriteImage(loaded.predict(scan(workspace)), tmp_path / "python.nii.gz")
    assert_same_mask(tmp_path / "python.nii.gz", expected / "best.nii.gz")


@pytest.mark.parametrize("name", ["best", "2d", "custom"])
@pytest.mark.usefixtures("parts")
def test_prediction_goes_on(workspace: Path, tmp_path: Path, name: str) -> None:
    """In a folder with the first of two scans: it is not segmented again, and stays in the table."""
    masks = unpack("begun", tmp_path / "begun") / name
    first, row = (masks / f"{SCAN}.nii.gz").stat().st_mtime_ns, (masks / "report.csv").read_text().splitlines()[1]
    options = f"-d {NUMBER} -w {workspace} {PREDICTIONS[name]} --exact --device cpu --continue"
    run(f"predict {options} -i {raw(workspace, 'imagesTs')} -o {masks}")
    assert (masks / f"{SCAN}.nii.gz").stat().st_mtime_ns == first
    assert (masks / f"{OTHER_SCAN}.nii.gz").is_file()
    _, *rows = (masks / "report.csv").read_text().splitlines()
    assert rows[0] == row
    assert len(rows) == 2


@pytest.mark.parametrize(
    "name", [name if name in QUICK_NETWORKS else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS]
)
def test_weights_find_their_places_in_every_network(networks: Path, workspace: Path, tmp_path: Path, name: str) -> None:
    """Of the literature and of MONAI, and for structures that may overlap."""
    folder = networks / "models" / name
    run(f"predict -m {folder} -i {scan(workspace)} -o {tmp_path} --no-mirroring --exact --device cpu")
    files = sorted((networks / "masks" / name).rglob("*.nii.gz"))
    assert files
    for path in files:
        assert_same_mask(tmp_path / path.relative_to(networks / "masks" / name), path)


# --- Training and judging ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_stopped_fold_is_trained_to_its_end(copy: Path, expected: Path, tmp_path: Path) -> None:
    """From the step that it had reached, to what it would have become."""
    options = f"-d {NUMBER} -w {copy} --plan stopped --device cpu"
    run(f"train {options} -c 3d_fullres -f 0")
    folder = model(copy, "stopped/3d_fullres")
    lines = (folder / "fold_0" / "progress.jsonl").read_text().splitlines()
    stored = (expected / "resumed.jsonl").read_text().splitlines()
    assert lines[0] == stored[0]  # of the epoch before the stop
    reports, others = [json.loads(line) for line in lines], [json.loads(line) for line in stored]
    assert [report["epoch"] for report in reports] == [0, 1]
    assert reports[1]["training_loss"] == pytest.approx(others[1]["training_loss"], abs=0.01)
    run(f"predict {options} -i {scan(copy)} -o {tmp_path / 'masks'} --exact")
    assert_same_mask(tmp_path / "masks" / f"{SCAN}.nii.gz", expected / "resumed.nii.gz")
    assert (folder / "fold_0" / "validation" / "summary.json").is_file()


@pytest.mark.slow
def test_finished_folds_are_known_as_finished(copy: Path) -> None:
    """They are neither trained nor validated again, until they are extended."""
    folder = model(copy, "3d_fullres")
    checkpoints = [folder / f"fold_{fold}" / "checkpoint.pt" for fold in (0, 1)]
    before = [path.read_bytes() for path in checkpoints]
    run(f"train -d {NUMBER} -w {copy} -c 3d_fullres -f cv --device cpu")
    assert [path.read_bytes() for path in checkpoints] == before
    run(f"train -d {NUMBER} -w {copy} -c 3d_fullres -f 0 --device cpu --extend 1")
    lines = (folder / "fold_0" / "progress.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [0, 1]


@pytest.mark.slow
def test_training_begins_with_a_trained_fold(copy: Path) -> None:
    """Its weights are worth more than an epoch from random ones."""
    folder = model(copy, "3d_fullres")
    scratch = json.loads((folder / "fold_0" / "progress.jsonl").read_text().splitlines()[0])
    run(f"train -d {NUMBER} -w {copy} -c 3d_fullres -f all --device cpu --init {folder / 'fold_0'}")
    begun = json.loads((folder / "fold_all" / "progress.jsonl").read_text().splitlines()[0])
    assert begun["training_loss"] < scratch["training_loss"] - 0.2


@pytest.mark.slow
def test_cascade_is_trained_after_the_folds_before_it(copy: Path) -> None:
    """On the segmentations of held-out cases by the coarse model."""
    run(f"train -d {NUMBER} -w {copy} -c 3d_cascade_fullres -f 1 --device cpu")
    summary = read_json(model(copy, "3d_cascade_fullres") / "summary.json")
    assert len(summary["cases"]) == 4


def test_same_pair_is_best_again(copy: Path) -> None:
    """By the same scores, as long as there is no other plan."""
    shutil.rmtree(copy / "preprocessed" / NAME / "nnunet")
    path = model(copy, "best.json")
    before = read_json(path)
    path.unlink()
    run(f"find_best -d {NUMBER} -w {copy} -c 2d 3d_fullres --device cpu")
    assert before["configurations"] == ["2d", "3d_fullres"]
    after = {**read_json(path), "left_out": []}
    after["rules"]["evidence"] = after["rules"]["evidence"][: len(before["rules"]["evidence"])]  # later trials are new
    assert_kept({**before, "left_out": []}, after, RENAMED)


@pytest.mark.slow
def test_models_of_other_plans_are_compared(copy: Path) -> None:
    """That of nnU-Net, which is trained in all folds, is tried too."""
    run(f"preprocess -d {NUMBER} -w {copy} --plan nnunet")
    run(f"find_best -d {NUMBER} -w {copy} --device cpu")
    tried = [candidate["configurations"] for candidate in read_json(model(copy, "best.json"))["candidates"]]
    assert ["nnunet/3d_fullres"] in tried
    assert ["3d_lowres"] in tried


def test_scores_are_the_same(copy: Path) -> None:
    """Evaluated again, and compared with others."""
    folder = model(copy, "2d") / "fold_0" / "validation"
    before = read_json(folder / "summary.json")
    run(f"evaluate {raw(copy, 'labelsTr')} {folder}")
    assert_kept(before, read_json(folder / "summary.json"), RENAMED)
    run(f"compare {model(copy, '2d')} {model(copy, '3d_fullres')} -o {copy / 'comparison.json'}")
    assert (copy / "comparison.json").is_file()


def test_workspace_is_prepared_and_planned_again(copy: Path) -> None:
    """The fingerprint is the same; the former plan is kept; cases are prepared by either."""
    folder = copy / "preprocessed" / NAME
    fingerprint, plan = read_json(folder / "fingerprint.json"), (folder / "plan.json").read_bytes()
    run(f"check -d {NUMBER} -w {copy}")
    run(f"preprocess -d {NUMBER} -w {copy}")
    assert (folder / "plan.json").read_bytes() == plan
    run(f"augmentations -d {NUMBER} -w {copy} -c 2d -o {copy / 'patches.png'} --count 2")
    run(f"fingerprint -d {NUMBER} -w {copy}")
    assert_kept(fingerprint, read_json(folder / "fingerprint.json"), RENAMED)
    run(f"plan_and_preprocess -d {NUMBER} -w {copy} --preset small --explain")
    assert (folder / "plan_before.json").read_bytes() == plan


def test_trained_models_are_passed_on(workspace: Path, expected: Path, tmp_path: Path) -> None:
    """As a bundle, and to nnU-Net and back."""
    run(f"export -d {NUMBER} -w {workspace} -o {tmp_path / 'Again.zip'}")
    run(f"export {model(workspace, '3d_fullres')} --format nnunet -o {tmp_path / 'theirs'}")
    run(f"install_nnunet {tmp_path / 'theirs'} -w {tmp_path} --name back")
    for name, given in (("best", f"-m {tmp_path / 'Again.zip'}"), ("nnunet", f"-m back -w {tmp_path}")):
        run(f"predict {given} -i {scan(workspace)} -o {tmp_path / name} --exact --device cpu")
        assert_same_mask(tmp_path / name / f"{SCAN}.nii.gz", expected / f"{name}.nii.gz")


@pytest.mark.slow
def test_results_are_the_same_on_an_older_processor() -> None:
    """All of the above, with the instructions that processors of 2013 have."""
    chosen = ["-m", "not gpu", "-k", "not older_processor", "-p", "no:cacheprovider"]
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    command = [sys.executable, "-m", "pytest", "-q", *chosen, __file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
