"""Models move between both programs, and segment the same scans alike in either; by nnU-Net's own commands."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from figures import Figures
from scipy import ndimage
from small_models import SMALL_INFO
from small_nnunet import REGIONS, change_json, plain_configuration, residual_configuration, save_model, unpack

from autoseg.imaging.geometry import Geometry, Volume
from autoseg.imaging.image_files import read_label_map, write_image
from autoseg.nnunet.export import export_nnunet
from autoseg.nnunet.install import install_standalone
from autoseg.pipeline.prediction import predict

pytestmark = pytest.mark.usefixtures("exact")

SHARE = 0.999
"""Of voxels that must have the same label. Networks of random weights leave some of the ten thousand nearly tied."""

NEARLY_TIED = 0.05
"""Within this, in probability, a voxel that differs must have been undecided there. Along the edges of an image nnU-Net
knows no more: there it weighs small tiles by about 1e-6 in 16 bit, in steps of 6e-8, so logits have steps of 0.05."""


def with_usual_trainer(model: Path) -> Path:
    """The same model of nnU-Net's usual trainer: it finds others only where all that any of them needs is installed."""
    for path in model.glob("fold_*/checkpoint_final.pth"):
        content = torch.load(path, weights_only=False)
        torch.save({**content, "trainer_name": "nnUNetTrainer"}, path)
    return model


def write_scans(folder: Path, channels: int) -> Path:
    """Two smooth scans of random values, in a frame of zeros, of thick slices and on an origin of their own."""
    random = np.random.default_rng(0)
    for number, shape in enumerate([(14, 22, 19), (11, 17, 24)]):
        geometry = Geometry(shape=shape, spacing_mm=(1.4, 0.9, 1.1), origin_mm=(10.0, -20.0, 30.0))
        for channel in range(channels):
            values = ndimage.gaussian_filter(random.normal(0, 1000, shape), 1.5).astype(np.float32) + 20
            values[:2] = 0
            write_image(folder / f"case_{number}_{channel:04d}.nii.gz", Volume(array=values[None], geometry=geometry))
    return folder


def predict_there(
    python: Path, model: Path, scans: Path, output: Path, *, fold: str = "0", former: Path | None = None
) -> Path:
    """Segments scans by nnU-Net's command."""
    command = [python.with_name("nnUNetv2_predict_from_modelfolder"), "-m", model, "-i", scans, "-o", output]
    command += ["-f", fold, "-device", "cpu", "-npp", "1", "-nps", "1", "--save_probabilities"]
    command += [] if former is None else ["-prev_stage_predictions", former]
    places = dict.fromkeys(("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"), str(output.parent))
    whole = {**os.environ, **places, "nnUNet_def_n_proc": "2", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(list(map(str, command)), env=whole, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return output


def compare(ours: list[Path], theirs: Path, what: str, figures: Figures) -> None:
    """Makes sure that label maps are alike, hold more than one label, and differ only where nothing is decided."""
    pairs = [(read_label_map(path).array, read_label_map(theirs / path.name).array) for path in ours]
    assert len({label for first, _ in pairs for label in np.unique(first)}) > 1
    equal = sum(int((first == second).sum()) for first, second in pairs) / sum(first.size for first, _ in pairs)
    figures.add("label maps of models that moved", what, f"{equal:.4%} of voxels the same", f"{SHARE:.1%}")
    assert equal >= SHARE
    for path, (first, second) in zip(ours, pairs, strict=True):
        probabilities = np.load(theirs / path.name.replace(".nii.gz", ".npz"))["probabilities"].astype(float)
        assert margin(probabilities)[first != second].max(initial=0) < NEARLY_TIED


def margin(probabilities: np.ndarray) -> np.ndarray:
    """How clearly each voxel is decided, among labels, whose probabilities add up to one, or of each region."""
    if np.allclose(probabilities.sum(axis=0), 1, atol=0.01):
        second, first = np.sort(probabilities, axis=0)[-2:]
        return first - second
    return np.abs(probabilities - 0.5).min(axis=0)


@pytest.mark.parametrize(
    ("name", "make", "info"),
    [
        ("3d_fullres", plain_configuration, REGIONS),
        ("3d_fullres", residual_configuration, SMALL_INFO),
        ("2d", plain_configuration, SMALL_INFO),
        ("2d", residual_configuration, REGIONS),
    ],
)
def test_exported_models_predict_there_as_here(
    nnunet: Path, tmp_path: Path, figures: Figures, name: str, make, info
) -> None:
    """Plain networks and residual encoders, of volumes and planes, labels and regions; the axes are reordered."""
    model = save_model(tmp_path / "ours", {name: make(int(name[0]), info)}, info)
    scans = write_scans(tmp_path / "scans", info.channels)
    [folder] = export_nnunet(model.path, tmp_path / "theirs")
    there = predict_there(nnunet, folder, scans, tmp_path / "there")
    here = predict(scans, tmp_path / "here", model=model.path, device="cpu")
    kind = make.__name__.partition("_")[0]
    compare(here, there, f"{kind} {name}, {info.channels} channels, exported", figures)


def test_exported_cascades_predict_there_as_here(nnunet: Path, tmp_path: Path, figures: Figures) -> None:
    """Of regions: the former segmentation is shown label by label there."""
    low = plain_configuration(info=REGIONS, spacing_mm=(2.0, 2.0, 2.0))
    seeing = low.architecture.model_copy(update={"in_channels": 5})
    cascade = plain_configuration(info=REGIONS, architecture=seeing, previous="3d_lowres")
    model = save_model(tmp_path / "ours", {"3d_cascade_fullres": cascade, "3d_lowres": low}, REGIONS)
    scans = write_scans(tmp_path / "scans", 2)
    second, first = export_nnunet(model.path, tmp_path / "theirs")
    former = predict_there(nnunet, first, scans, tmp_path / "former")
    there = predict_there(nnunet, second, scans, tmp_path / "there", former=former)
    here = predict(scans, tmp_path / "here", model=model.path, device="cpu")
    compare(here, there, "cascade of regions, exported", figures)


@pytest.mark.parametrize(("name", "fold"), [("plain", "0"), ("residual", "all"), ("former", "1")])
def test_installed_models_predict_here_as_there(
    nnunet: Path, tmp_path: Path, figures: Figures, name: str, fold: str
) -> None:
    """Those that nnU-Net's trainer wrote, of which the recorded logits are, too."""
    results = unpack(name, tmp_path / "results")
    scans = write_scans(tmp_path / "scans", 2)
    there = predict_there(nnunet, with_usual_trainer(next(results.iterdir())), scans, tmp_path / "there", fold=fold)
    installed = install_standalone(results, tmp_path / "work")
    here = predict(scans, tmp_path / "here", model=installed, device="cpu")
    compare(here, there, f"{name}, of nnU-Net's trainer, installed", figures)


def test_scans_are_turned_as_there(nnunet: Path, tmp_path: Path, figures: Figures) -> None:
    """A model whose reader turns every scan to the right, the front and the head gets scans that lie otherwise."""
    results = unpack("plain", tmp_path / "results")
    model = with_usual_trainer(next(results.iterdir()))
    change_json(model / "plans.json", image_reader_writer="NibabelIOWithReorient")
    scans = write_scans(tmp_path / "scans", 2)
    there = predict_there(nnunet, model, scans, tmp_path / "there")
    installed = install_standalone(model, tmp_path / "work")
    here = predict(scans, tmp_path / "here", model=installed, device="cpu")
    compare(here, there, "plain, of a reader that turns scans, installed", figures)
