"""Models in int8: judged on the cases that each fold held out, refused where a label loses, and used without torch."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk
from exported_networks import WITHOUT_TORCH
from tiny_workspaces import LABELS, NUMBER, dice, folders_of
from typer.testing import CliRunner

import autoseg
from autoseg.cli.app import app
from autoseg.errors import ModelError, UsageError
from autoseg.imaging.image_files import read_label_map
from autoseg.model_selection import int8_export
from autoseg.models.bundle_reading import opened_bundle
from autoseg.models.fold_files import load_exported
from autoseg.workspace import ModelFolder

pytestmark = pytest.mark.slow

CONFIGURATION = "3d_fullres"
ANY_LOSS = 1.0


def export(root, file, *, folds=0, **options):
    """Exports folds in int8."""
    options = {"runtime": "onnx", "precision": "int8", "largest_dice_loss": ANY_LOSS, **options}
    return autoseg.export_model(NUMBER, file, folds=folds, workspace=root, **options)


@pytest.fixture(scope="module")
def bundle(trained_volumes, tmp_path_factory):
    """Both folds in int8."""
    return export(trained_volumes, tmp_path_factory.mktemp("int8") / "tiny.zip", folds=[0, 1])


def test_dice_is_that_of_the_held_out_cases(trained_volumes, bundle, tmp_path):
    """Before int8 that of the float32 export, and after it that of the bundle, both measured from files."""
    folders = folders_of(trained_volumes)
    exported = {
        "float32": export(trained_volumes, tmp_path / "float32.zip", precision="float32", largest_dice_loss=None)
    }
    exported["int8"] = export(trained_volumes, tmp_path / "int8.zip")
    held_out = json.loads(folders.splits.read_text())["folds"][0]["validation"]
    with opened_bundle(exported["int8"]) as folder:
        int8 = load_exported(ModelFolder(path=folder / CONFIGURATION), 0).int8
    assert int8.cases == len(held_out)
    found = {found.runtime: found.dice for found in int8.runtimes}
    assert set(found) == {"onnx", "openvino"}
    for name, expected in {"float32": int8.dice, "int8": found["onnx"]}.items():
        model = autoseg.load_model(exported[name], runtime="onnx", postprocessing=False)
        scores = {label: [] for label in LABELS if label != "background"}
        for case in held_out:
            truth = read_label_map(folders.raw / "labelsTr" / f"{case}.nii.gz").array
            mask = model.predict(folders.raw / "imagesTr" / f"{case}_0000.nii.gz")
            for label, values in scores.items():
                values.append(dice(truth, sitk.GetArrayFromImage(mask), LABELS[label]))
        for label, values in scores.items():
            assert expected[label] == pytest.approx(np.mean(values), abs=5e-3)


def test_the_card_tells_what_int8_changed(bundle):
    """For each fold: convolutions, size, time and Dice."""
    with opened_bundle(bundle) as folder:
        card = (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
        exports = [load_exported(ModelFolder(path=folder / CONFIGURATION), fold) for fold in (0, 1)]
        sizes = [(folder / CONFIGURATION / f"fold_{fold}" / "network.onnx").stat().st_size for fold in (0, 1)]
        assert len(list(folder.rglob("*.onnx"))) == 2
    for fold, exported in enumerate(exports):
        assert f"### 3d_fullres, fold {fold} in int8" in card
        assert exported.int8.bytes_after == sizes[fold] < exported.int8.bytes_before
        assert exported.int8.int8_convolutions > exported.int8.float32_convolutions
        assert f"{exported.int8.dice['bright']:.4f} | {exported.int8.dice['dark']:.4f} |" in card
    assert "weights of 7 bits" in card


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_prediction_needs_no_torch(trained_volumes, bundle, tmp_path, runtime):
    """The command, in a process in which torch cannot be imported, writes the masks that the bundle has here."""
    scans = folders_of(trained_volumes).raw / "imagesTs"
    options = ["-m", bundle, "-i", scans, "-o", tmp_path / "masks", "--runtime", runtime]
    command = [sys.executable, "-c", WITHOUT_TORCH, "predict", *map(str, options)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    [path] = (tmp_path / "masks").glob("*.nii.gz")
    expected = autoseg.load_model(bundle, runtime=runtime).predict(next(scans.iterdir()))
    assert np.array_equal(read_label_map(path).array, sitk.GetArrayFromImage(expected))


def test_a_label_that_loses_too_much_is_refused(trained_volumes, tmp_path, monkeypatch):
    """Calibrated on patches without contrast, int8 cuts off every feature; no file is left."""
    drawn = int8_export.draw_patches
    monkeypatch.setattr(int8_export, "draw_patches", lambda job, number: (1e-4 * patch for patch in drawn(job, number)))
    monkeypatch.setattr(int8_export, "compare_dice", keep_losses(int8_export.compare_dice))
    with pytest.raises(ModelError, match=r"in int8 fold 0 of 3d_fullres finds \w+ with Dice .* more than 0 with"):
        export(trained_volumes, tmp_path / "tiny.zip", largest_dice_loss=0)
    assert not list(tmp_path.iterdir())


def keep_losses(compare):
    """Takes what a barely trained network happens to gain by noise as a Dice that stayed the same."""

    def compared(*arguments):
        before, *after = compare(*arguments)
        assert any(dice[label] != before[label] for dice in after for label in before)
        low = {label: min([before[label], *(dice[label] for dice in after)]) for label in before}
        high = {label: max([before[label], *(dice[label] for dice in after)]) for label in before}
        return [high, *(low for _ in after)]

    return compared


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int4"}, "there is no precision 'int4'; choose from float32, int8"),
        ({"runtime": "torch"}, "models for torch are not packed in int8; add --runtime onnx"),
        ({"precision": "float32"}, "without int8 no label loses Dice; add --precision int8"),
        ({"largest_dice_loss": -0.1}, "cannot lose a Dice of -0.1; give a number from 0 to 1"),
        ({"largest_dice_loss": math.nan}, "cannot lose a Dice of nan"),
        ({"folds": "all"}, "fold all of 3d_fullres holds no case out, by which int8 is judged; name folds"),
    ],
)
def test_what_cannot_be_is_one_line(trained_volumes, tmp_path, options, message):
    """And nothing is left."""
    with pytest.raises(UsageError, match=message):
        export(trained_volumes, tmp_path / "tiny.zip", **options)
    assert not list(tmp_path.iterdir())


def test_a_model_without_its_dataset_is_refused(trained_volumes, tmp_path):
    """As is the exact prediction of one in int8."""
    torch_bundle = autoseg.export_model(NUMBER, tmp_path / "torch.zip", folds=0, workspace=trained_volumes)
    folder = autoseg.install_model(torch_bundle, tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=r"which is not beside .*; name the model by -d"):
        autoseg.export_model(folder, tmp_path / "int8.zip", runtime="onnx", precision="int8")


def test_exact_prediction_is_refused(bundle):
    """The networks have no other precision."""
    with pytest.raises(UsageError, match="were exported in int8, and do not calculate in float32; leave out --exact"):
        autoseg.load_model(bundle, exact=True)


def test_command(trained_volumes, tmp_path):
    """Says what int8 changes, and for nnU-Net refuses it."""
    arguments = ["export", "-d", str(NUMBER), "-w", str(trained_volumes), "-f", "0", "--precision", "int8"]
    onnx = ["--runtime", "onnx", "--largest-dice-loss", "1", "-o", str(tmp_path / "tiny.zip")]
    done = CliRunner().invoke(app, [*arguments, *onnx])
    assert done.exit_code == 0, done.output
    assert "int8 by openvino" in done.output + done.stderr
    refused = CliRunner().invoke(app, [*arguments, "--format", "nnunet", "-o", str(tmp_path / "nnunet")])
    assert refused.exit_code == 2
    assert "--precision is for bundles, which nnU-Net does not read" in refused.output + refused.stderr
