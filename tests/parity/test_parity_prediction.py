"""Networks, tiles, probabilities and label maps beside nnU-Net's."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from both_programs import PLAN_FILES, ask, shrink_configuration, shrink_network
from parity_cases import TILED_IMAGES
from parity_sets import SETS
from phantoms import write_json

from autoseg.datasets.scans import find_scans
from autoseg.imaging.image_files import read_image, read_label_map
from autoseg.imaging.postprocessing import NO_RULES
from autoseg.inference.axis_tiling import gaussian_weights, tile_starts
from autoseg.inference.ensemble import make_ensemble
from autoseg.inference.model import load_model
from autoseg.models.nnunet_names import is_duplicate
from autoseg.networks.default_unet import build_network
from autoseg.nnunet.install import install_standalone
from autoseg.nnunet.weight_names import import_weights

LARGEST_LOGIT_DIFFERENCE = 1e-5
LARGEST_PROBABILITY_DIFFERENCE = 1e-4
NEARLY_TIED = 0.05
"""nnU-Net adds tiles up in half precision, whose numbers are 0.1 % apart; at the edges of an image, where it weighs
them by 1e-6 in steps of 6e-8, it knows less. A voxel may differ if it was undecided by as much, in probability."""
SMALLEST_SHARE, SMALLEST_DICE = 0.9999, 0.9995
PAIRS = [(name, configuration) for name, one in SETS.items() for configuration in one.configurations]


def test_tile_positions(nnunet, figures):
    """Tiles start at the same voxels."""
    answer = ask(nnunet, "tile", {"images": TILED_IMAGES})
    for number, (size, patch) in enumerate(TILED_IMAGES):
        for axis, (voxels, edge) in enumerate(zip(size, patch, strict=True)):
            assert tile_starts(voxels, edge) == answer[f"{number}_{axis}"].tolist()
    figures.add("tile positions", f"{len(TILED_IMAGES)} images", "the same", "the same")


def test_gaussian(nnunet, figures):
    """A voxel weighs as much as in nnU-Net's map, whose peak is 10, and which is then rounded to half precision."""
    patches = [[64, 64, 64], [40, 56, 40], [8, 128, 96]]
    answer = ask(nnunet, "weigh", {"patches": patches})
    largest = 0.0
    for number, patch in enumerate(patches):
        z, y, x = (gaussian_weights(edge).numpy() for edge in patch)
        ours, theirs = z[:, None, None] * y[:, None] * x, answer[f"{number}_single"] / 10
        largest = max(largest, float(np.abs(ours - theirs).max()))
    assert largest < 1e-6
    figures.add("Gaussian", f"{len(patches)} tiles", f"at most {largest:.1e} of its peak apart", "the same")


@pytest.mark.parametrize("preset", PLAN_FILES)
@pytest.mark.parametrize("place", [("hippocampus", "3d_fullres"), ("ms", "3d_fullres"), ("thick", "2d")], ids="-".join)
def test_networks(bench, figures, tmp_path, place, preset):
    """With the same random weights, plain and residual networks give the same logits.

    Where nnU-Net's own are further than that from those in double precision, rounding says no more.
    """
    name, configuration = place
    made, plans = bench.make(name), bench.make(name).read_plans(preset)
    for one in plans["configurations"].values():
        shrink_network(one)
    write_json(tmp_path / "plans.json", plans)
    (tmp_path / "dataset.json").write_bytes((made.ours.raw / "dataset.json").read_bytes())
    planned = shrink_configuration(made.plan(preset).configurations[configuration])
    architecture = planned.architecture
    shape = (1, architecture.in_channels, *planned.patch_size)
    patches = np.random.default_rng(5).normal(size=shape).astype(np.float32)
    question = {"model": tmp_path, "configuration": configuration, "seed": 3}
    answer = bench.ask("ask_network", question, {"patches": patches})
    theirs, precise = answer.pop("logits"), answer.pop("precise")
    weights = {key: torch.from_numpy(value) for key, value in answer.items() if not is_duplicate(key)}
    network = build_network(architecture, torch.Generator().manual_seed(0))
    network.load_state_dict(import_weights(weights, architecture, None))
    with torch.inference_mode():
        ours = network.eval()(torch.from_numpy(patches)).numpy()
    largest, rounding = (float(np.abs(one - theirs).max()) for one in (ours, precise))
    found = f"at most {largest:.1e} apart; nnU-Net's from double precision {rounding:.1e}"
    figures.add("logits of a network", f"{name}, {configuration}, {preset}", found, "1e-5, or its rounding")
    assert theirs.std() > 0.1
    assert largest < max(LARGEST_LOGIT_DIFFERENCE, 2 * rounding)


@dataclass(frozen=True)
class Agreement:
    """How alike label maps of several cases are: of all voxels the share that is equal, and the lowest Dice."""

    share: float
    dice: float
    differing: int
    voxels: int

    def describe(self) -> str:
        """In a cell of the table."""
        return (
            f"{self.differing} of {self.voxels:,} voxels differ ({100 * self.share:.4f} %), Dice from {self.dice:.5f}"
        )


def agree(pairs, structures) -> Agreement:
    """Compares pairs of label maps; Dice is the lowest of all structures and cases."""
    dices, shares, differing, voxels = [1.0], [1.0], 0, 0
    for ours, theirs in pairs:
        assert ours.shape == theirs.shape
        wrong = int(np.count_nonzero(ours != theirs))
        shares.append(1 - wrong / ours.size)
        differing, voxels = differing + wrong, voxels + ours.size
        for numbers in structures:
            first, second = np.isin(ours, numbers), np.isin(theirs, numbers)
            if first.any() or second.any():
                dices.append(float(2 * (first & second).sum() / (first.sum() + second.sum())))
    return Agreement(share=min(shares), dice=min(dices), differing=differing, voxels=voxels)


def our_predictions(bench, name, configuration):
    """Case name to what this program says of it, without the postprocessing that was found after training."""
    model = load_model(bench.train(name, configuration).ours.path, device="cpu")
    segmenter = replace(model.segmenter, rules=NO_RULES)
    scans = find_scans(bench.make(name).ours.raw / "imagesTs", segmenter.info)
    return {scan.name: segmenter.predict(read_image(scan.images)) for scan in scans}


def their_label_map(folder: Path, case: str, ending: str) -> np.ndarray:
    """What nnU-Net wrote."""
    return read_label_map(folder / f"{case}{ending}").array


@dataclass(frozen=True)
class Beside:
    """What both programs say of the test cases.

    Attributes:
        agreement: Of the label maps.
        farthest: Difference of probabilities, at most.
        undecided: Of the voxels that differ, how far our probabilities are from a tie, at most.
    """

    agreement: Agreement
    farthest: float
    undecided: float


def put_beside(bench, name, configuration, *, single=False) -> Beside:
    """Segments the test cases by both programs, and compares."""
    kind, folder = bench.make(name).kind, bench.segment(name, configuration, single=single)
    found = our_predictions(bench, name, configuration)
    assert len(found) == 3
    targets, pairs, farthest, undecided = kind.info.targets, [], 0.0, 0.0
    for case, one in found.items():
        ours, theirs = one.segmentation().array, their_label_map(folder, case, kind.info.file_ending)
        assert theirs.any()
        pairs.append((ours, theirs))
        their_maps = np.load(folder / f"{case}.npz")["probabilities"]
        maps = np.stack([volume.array for volume in one.probabilities(range(len(their_maps)))])
        farthest = max(farthest, float(np.abs(maps - their_maps).max()))
        undecided = max(undecided, float(margins(maps, targets)[ours != theirs].max(initial=0.0)))
    return Beside(agree(pairs, targets.structures.values()), farthest, undecided)


def margins(maps, targets):
    """How far each voxel is from a tie: of the two likeliest labels, or of the region that is nearest to one half."""
    if not targets.exclusive:
        return np.abs(maps - 0.5).min(axis=0)
    second, first = np.sort(maps, axis=0)[-2:]
    return first - second


@pytest.mark.parametrize(("name", "configuration"), PAIRS)
def test_label_maps(bench, figures, exact, name, configuration):
    """The same scans become the same label maps, from file to file, but for voxels that rounding decides."""
    beside, data = put_beside(bench, name, configuration), f"{name}, {configuration}"
    tied = f"; there within {beside.undecided:.0e} of a tie" if beside.agreement.differing else ""
    figures.add("label maps", data, beside.agreement.describe() + tied, "99.99 %, Dice over 0.9995 or tied")
    figures.add("probabilities", data, f"at most {beside.farthest:.1e} apart", "half precision")
    assert beside.agreement.share >= SMALLEST_SHARE
    assert beside.agreement.dice > SMALLEST_DICE or beside.undecided < NEARLY_TIED


@pytest.mark.parametrize(("name", "configuration"), PAIRS)
def test_label_maps_in_single_precision(bench, figures, exact, name, configuration):
    """If nnU-Net adds tiles up in single precision, hardly a voxel differs."""
    beside, data = put_beside(bench, name, configuration, single=True), f"{name}, {configuration}"
    figures.add("label maps, its tiles in float32", data, beside.agreement.describe(), "99.99 %, Dice over 0.9995")
    figures.add("probabilities, its tiles in float32", data, f"at most {beside.farthest:.1e} apart", "1e-4")
    assert beside.agreement.share >= SMALLEST_SHARE
    assert beside.agreement.dice > SMALLEST_DICE
    assert beside.farthest < LARGEST_PROBABILITY_DIFFERENCE


@pytest.mark.parametrize(("name", "configuration"), PAIRS)
def test_label_maps_as_predicted_by_default(bench, figures, name, configuration):
    """What bfloat16 does, if the CPU has it, changes few voxels."""
    beside = put_beside(bench, name, configuration)
    figures.add("label maps in bfloat16", f"{name}, {configuration}", beside.agreement.describe(), "-")
    assert beside.agreement.share > 0.99


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_models_that_were_trained_there(bench, figures, exact, tmp_path, configuration):
    """What nnU-Net's own trainer learned on real scans is installed here, and gives the same masks."""
    model, name = bench.train_there("hippocampus", configuration), "hippocampus"
    scans = bench.make(name).ours.raw / "imagesTs"
    question = {"model": str(model), "scans": str(scans), "output": str(tmp_path / "there"), "single": False}
    bench.ask("predict", question)
    installed = install_standalone(model, tmp_path / "work")
    segmenter = replace(load_model(installed, device="cpu").segmenter, rules=NO_RULES)
    pairs = [
        (
            segmenter.predict(read_image(scan.images)).segmentation().array,
            their_label_map(tmp_path / "there", scan.name, ".nii.gz"),
        )
        for scan in find_scans(scans, segmenter.info)
    ]
    assert all(theirs.any() for _, theirs in pairs)
    agreement = agree(pairs, segmenter.info.targets.structures.values())
    data = f"hippocampus, {configuration}, trained by nnU-Net"
    figures.add("label maps", data, agreement.describe(), "99.99 %, Dice over 0.9995")
    assert agreement.share >= SMALLEST_SHARE
    assert agreement.dice > SMALLEST_DICE


def test_ensembles(bench, figures, exact, tmp_path):
    """Probabilities of two configurations are averaged to the same label maps."""
    names = ("2d", "3d_fullres")
    folders = [str(bench.segment("hippocampus", name)) for name in names]
    bench.ask("ensemble", {"folders": folders, "output": str(tmp_path)})
    members = [load_model(bench.train("hippocampus", name).ours.path, device="cpu").segmenter for name in names]
    joint = make_ensemble(members, NO_RULES)
    scans = find_scans(bench.make("hippocampus").ours.raw / "imagesTs", joint.info)
    pairs = [
        (joint.segment(read_image(scan.images)).array, their_label_map(tmp_path, scan.name, ".nii.gz"))
        for scan in scans
    ]
    agreement = agree(pairs, joint.info.targets.structures.values())
    figures.add("label maps of an ensemble", "hippocampus, 2d and 3d_fullres", agreement.describe(), "99.99 %")
    assert agreement.share >= SMALLEST_SHARE
    assert agreement.dice > SMALLEST_DICE
