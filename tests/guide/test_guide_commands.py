"""The commands and the Python of the guide: they exist, and what can run here is run on a tiny dataset."""

import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import SimpleITK as sitk
import typer
from command_lines import all_commands, find_command, parse
from dicom_files import make_series, write_series
from dicom_masks import make_segmentation, save
from guide_blocks import ALL, GUIDE, README, blocks, commands, name_of, read
from phantoms import write_json
from small_nnunet import unpack
from small_segment_anything import random_network, save_weights
from tiny_workspaces import write_volumes
from typer.testing import CliRunner

import autoseg
from autoseg.cli.app import app
from autoseg.cli.terminal import console
from autoseg.imaging.image_files import read_image

NUMBER, NAME = 4, "Dataset004_Hippocampus"
TRAINING = {"epochs": 1, "steps_per_epoch": 2, "validation_steps": 1}

NOT_RUN = {
    "clusters": "needs Slurm; tests/cluster runs such commands",
    "distillation": "trains for long; tests/pipeline/test_distillation.py runs it",
    "several_gpus": "needs two GPUs",
    "watching_training": "needs the packages of autoseg[track]; tests/training/test_tracking.py runs it",
}
"""Pages whose commands are parsed only, and why."""

OF_DOCKER = {"--cpus", "--from", "--memory", "--network", "--read-only", "--rm", "--tmpfs", "--user"}
"""Options of Docker, which the page on containers names."""

COMPARED = "tests/report/test_comparison_report.py compares such runs"

FOREIGN = "tests/training/test_foreign_start.py begins with such files"

REFINED = "tests/pipeline/test_refinement.py runs it"

PACS = "tests/pacs/test_listen.py runs it with an archive"

CROPS = "tests/inference/test_crop.py crops by models of both kinds"

LINES_NOT_RUN = {
    (
        "runtimes",
        "export -d 4 --runtime onnx --precision int8 -o Hippocampus_int8.zip",
    ): "tests/model_selection/test_int8_export.py exports a network that has learned; int8 harms others at random",
    ("README", "train -d 4 -c 3d_fullres 2d -f cv --on slurm"): "tests/cluster/test_slurm.py runs such a line",
    **{
        (page, command): "tests/pipeline/test_whole_run.py runs it"
        for page in ("README", "own_data")
        for command in (
            "run Task04_Hippocampus -d 4",
            *(("run Task04_Hippocampus -d 4 --dry-run", "run -d 4", "stop -d 4") if page == "own_data" else ()),
        )
    },
    ("fine_tuning", "plan_and_preprocess -d 5 --rules nnunet --preset resenc_l"): FOREIGN,
    ("fine_tuning", "train -d 5 -c 3d_fullres -f 0 --init ResEncL-OpenMind-MAE/checkpoint_final.pth"): FOREIGN,
    ("fine_tuning", "train -d 5 -c 3d_fullres -f 0 --init resnet.pth --init-names names.json"): FOREIGN,
    ("README", "refine -d 4 -i corrected/ --machine masks/"): REFINED,
    ("refine", "refine -d 4 -i corrected/ --scans scans/ --machine masks/"): REFINED,
    ("difficult_data", "pseudo_label -d 4 -i unlabelled/ --rounds 2"): "tests/pipeline/test_few_labels.py runs it",
    ("difficult_data", "suggest -d 4 -i unlabelled/ --count 20 -o next.csv"): "tests/pipeline/test_few_labels.py does",
    ("README", "watch -d 4"): "tests/pipeline/test_watching.py runs it",
    ("README", "find_best -d 4"): "README trains one fold only; the page find_best runs it",
    (
        "dicom",
        "import studies/ -d 6 --labels masks/ --series 'portal*'",
    ): "tests/importing runs it",
    ("dicom", "dicom pull http://127.0.0.1:8042/dicom-web -o examination/ --study 1.2.3"): PACS,
    ("dicom", "dicom push masks/dicom --to ORTHANC@127.0.0.1:4242"): PACS,
    (
        "dicom",
        "dicom listen --queue queue/ --to ORTHANC@127.0.0.1:4242 -m Liver.zip --modality CT --description 'portal*'",
    ): PACS,
    ("dicom", "predict -d 5 -i patients/ -o masks/ --channels 't2*' 'adc*'"): "tests/inference/test_dicom.py runs it",
    ("quality", "predict -d 4 -i scans/ -o masks/ --crop-by 3d_lowres"): CROPS,
    ("quality", "predict -m liver.zip -i scans/ -o masks/ --crop-by body.zip --crop-margin 30"): CROPS,
    ("serving", "serve Hippocampus.zip"): "tests/serving/test_program.py runs it",
    ("serving", "serve Hippocampus.zip --host 0.0.0.0 --token-file token.txt"): "tests/serving/test_program.py runs it",
    ("reports", "report scans masks/ --serve"): "it ends by Ctrl-C only; tests/report/test_served.py serves a page",
    ("nnunet", "install_nnunet RESULTS_OF_DATASET -d 4"): "tests/nnunet/test_nnunet_taken_over.py runs it",
    ("nnunet", "export -d 4 --format nnunet -o FOLDER"): "tests/cli/test_nnunet_commands.py runs it",
    (
        "reports",
        "compare results/Dataset004_Hippocampus/2d results/Dataset004_Hippocampus/3d_fullres --report compared.html",
    ): COMPARED,
    ("reports", "compare masks/ other_masks/ --report compared.html -d 4"): COMPARED,
}
"""Lines of other pages that are parsed only, and why."""

FROM_NOTHING = {"README", "own_data", "nnunet"}
"""Pages that begin with the import of the dataset."""

FROM_RAW = {"folds", "python", "first_masks"}
"""Pages that begin with a dataset that is imported."""

FROM_PREPARED = {"training_length"}
"""Pages that begin with a dataset that is prepared. All others begin with one that is trained."""

SLOW = {"README", "find_best", "fine_tuning", "training_length"}
"""Pages whose commands take more than three seconds."""


def group():
    """The program as its parser sees it."""
    return typer.main.get_command(app)


def run(command: str) -> str:
    """Runs a command and gives back what it printed."""
    result = CliRunner().invoke(app, shlex.split(command), catch_exceptions=False)
    assert result.exit_code == 0, f"autoseg {command}: {result.output}"
    return result.output


def shorten(command: str) -> str:
    """The command with a second or two epochs in place of the time or the epochs that it asks for."""
    return re.sub(r"--epochs \d+", "--epochs 2", re.sub(r"(--budget|--extend) \d+[mh]", r"\1 1s", command))


def shorten_training(root: Path) -> None:
    """Changes plans, as a user would, so that training takes a moment."""
    for path in root.glob("preprocessed/*/**/plan.json"):
        plan = json.loads(path.read_text(encoding="utf-8"))
        plan["training"] |= TRAINING
        write_json(path, plan)


@pytest.fixture(autouse=True)
def wide_and_quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A console that breaks no line, and a fingerprint that takes no second."""
    monkeypatch.setattr(console, "_width", 200)
    monkeypatch.delenv("AUTOSEG_WORKSPACE", raising=False)
    with patch("autoseg.datasets.fingerprint.FOREGROUND_SAMPLES", 10_000):
        yield


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the pages assume it: datasets, scans, references, and two folders of masks."""
    root = tmp_path_factory.mktemp("sources")
    raw = write_volumes(root / "made").raw
    info = json.loads((raw / "dataset.json").read_text(encoding="utf-8"))
    write_json(raw / "dataset.json", {**info, "labels": {"background": 0, "Anterior": 1, "Posterior": 2}})
    shutil.copytree(raw, root / "Task04_Hippocampus")
    shutil.copytree(raw, root / "nnUNet_raw" / NAME)
    shutil.copytree(raw / "imagesTr", root / "scans")
    for name in ("references", "masks", "other_masks"):
        shutil.copytree(raw / "labelsTr", root / name)
        shutil.copy(raw / "dataset.json", root / name)
    autoseg.evaluate(root / "references", root / "other_masks")
    shutil.copy(root / "scans" / "case_1_0000.nii.gz", root / "scan.nii.gz")
    model = next(unpack("plain", root / "unpacked").iterdir())
    shutil.copytree(model, root / "nnUNetTrainer__nnUNetPlans__3d_fullres")
    shutil.rmtree(root / "unpacked")
    shutil.rmtree(root / "made")
    write_examination(root / "examination", root / "scan.nii.gz")
    for name in ("sam_vit_b.pth", "medsam_vit_b.pth"):
        save_weights(random_network(), root / name)
    return root


def write_examination(folder: Path, scan: Path) -> None:
    """Writes a scan as a series of DICOM files, beside a localizer."""
    voxels = np.rint(read_image((scan,)).array[0]).astype(np.int16)
    series = make_series(voxels, description="T2 axial", number=2)
    localizer = make_series(voxels[:1], description="survey", number=1, study=series[0])
    localizer[0].ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    write_series(folder / "2", series)
    write_series(folder / "1", localizer)
    studies = folder.with_name("studies")
    mask = make_segmentation(series, {"Hippocampus": voxels > voxels.mean()})
    write_series(studies / "patient_1", series)
    save(studies / "patient_1", mask, "seg.dcm")


@pytest.fixture(scope="session")
def raw(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, with dataset 4 imported, and dataset 5 beside it."""
    root = tmp_path_factory.mktemp("raw") / "workspace"
    shutil.copytree(sources, root)
    shutil.copytree(root / "Task04_Hippocampus", root / "raw" / NAME)
    shutil.copytree(root / "Task04_Hippocampus", root / "raw" / "Dataset005_Other")
    return root


@pytest.fixture(scope="session")
def trained(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, with dataset 4 prepared and 3d_fullres trained in all folds."""
    root = tmp_path_factory.mktemp("trained") / "workspace"
    shutil.copytree(raw, root)
    with patch("autoseg.datasets.fingerprint.FOREGROUND_SAMPLES", 10_000):
        autoseg.plan_and_preprocess(NUMBER, preset="small", workspace=root)
    shorten_training(root)
    autoseg.train(NUMBER, "3d_fullres", "cv", device="cpu", workspace=root)
    return root


@pytest.fixture
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what a page, which is the parameter of the test, begins with; it is the current folder."""
    page = request.node.callspec.params["page"]
    begin = "sources" if page in FROM_NOTHING else "raw" if page in FROM_RAW else "trained"
    root = tmp_path / "workspace"
    shutil.copytree(request.getfixturevalue(begin), root)
    if page in FROM_PREPARED:
        shutil.rmtree(root / "results")
    monkeypatch.chdir(root)
    monkeypatch.setenv("nnUNet_raw", str(root / "nnUNet_raw"))
    return root


def runnable() -> list[object]:
    """Pages with commands that can run here."""
    pages = [name_of(path) for path in ALL if commands(read(path)) and name_of(path) not in NOT_RUN]
    return [pytest.param(page, marks=[pytest.mark.slow] if page in SLOW else []) for page in pages]


@pytest.mark.parametrize("path", [path for path in ALL if commands(read(path))], ids=name_of)
def test_commands_exist(path: Path) -> None:
    """Every line is understood, options and all."""
    for command in commands(read(path)):
        parse(command)


def spellings_of(parser: Any) -> set[str]:
    """The options of a command, by each of their names."""
    return {spelling for option in parser.params for spelling in (*option.opts, *option.secondary_opts)}


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_commands_and_options_in_text_exist(path: Path) -> None:
    """In running text, tables and comments too, but for those of other programs."""
    text = read(path)
    for command in re.findall(r"`autoseg ([a-z][^`]*)`", text):
        _, parser, words = find_command(command.split())
        options = {word for word in words if re.match(r"--?[a-z]", word)}
        assert options <= spellings_of(parser) | {"--help"}, command
    mine = re.sub(r"^.*(pip|python3?|torchrun|tensorboard) .*$", "", text, flags=re.MULTILINE)
    mentioned = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", mine)) - {"--strict"} - OF_DOCKER
    assert mentioned <= set().union(*map(spellings_of, all_commands().values())) | {"--help", "--version"}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", runnable())
def test_commands_run(page: str, folder: Path) -> None:
    """One after the other, as someone would type them."""
    path = README if page == "README" else GUIDE / f"{page}.md"
    for command in commands(read(path)):
        if (page, command) in LINES_NOT_RUN:
            continue
        run(shorten(os.path.expandvars(command)))
        shorten_training(folder)


@pytest.mark.slow
@pytest.mark.parametrize("page", ["python"])
def test_python_runs(page: str, folder: Path) -> None:
    """The blocks do what they say, one after the other."""
    scan = sitk.ReadImage("scan.nii.gz")
    names = {"array": sitk.GetArrayFromImage(scan), "nibabel": pytest.importorskip("nibabel")}
    first, *others = blocks(read(GUIDE / f"{page}.md"), "python")
    assert 'budget="5m"' in first
    exec(first.replace('budget="5m"', 'budget="1s"'), names)  # noqa: S102 - the page's own example
    assert names["mask"].shape == names["array"].shape[::-1]
    assert names["result"].segmentation.GetSize() == scan.GetSize()
    for block in others:
        exec(block, names)  # noqa: S102 - likewise
    assert names["model"].predict("scan.nii.gz").GetSize() == scan.GetSize()


@pytest.mark.parametrize("page", ["first_masks"])
def test_python_of_first_masks_runs(page: str, folder: Path) -> None:
    """It writes the mask."""
    for block in blocks(read(GUIDE / f"{page}.md"), "python"):
        exec(block, {})  # noqa: S102 - the page's own example
    assert sitk.ReadImage("mask.nii.gz").GetSize() == sitk.ReadImage("scan.nii.gz").GetSize()


def test_lines_that_are_not_run_are_there() -> None:
    """Lines and pages that are left out exist, so that none is left out by mistake."""
    lines = {(name_of(path), command) for path in ALL for command in commands(read(path))}
    assert set(LINES_NOT_RUN) <= lines
    assert set(NOT_RUN) | SLOW <= {page for page, _ in lines}
