"""Whole models whose networks are exported: cascades, ensembles, regions and two dimensions segment as with torch."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_model_folders import cascade_in, model_in, two_in
from small_models import SMALL_INFO, small_checkpoint, small_configuration

import autoseg
from autoseg.models.build import make_network
from autoseg.models.bundle import export_model
from autoseg.models.checkpoint import load_checkpoint, save_checkpoint

IMAGE = np.random.default_rng(0).normal(size=(12, 11, 10)).astype(np.float32)
EQUAL_VOXELS = 0.9999


def balance(root: Path) -> None:
    """Changes the last layer of every fold so that fresh weights do not decide for one label everywhere."""
    for path in root.rglob("checkpoint.pt"):
        fold = load_checkpoint(path)
        head = fold.weights["heads.0.weight"]
        balanced = {"heads.0.weight": head - head.mean(dim=1, keepdim=True), "heads.0.bias": torch.zeros(len(head))}
        save_checkpoint(replace(fold, weights={**fold.weights, **balanced}), path)


def write_cascade(root: Path) -> Path:
    """A cascade, whose second network sees the segmentation of the first."""
    folder = cascade_in(root).path
    balance(root)
    return folder


def write_ensemble(root: Path) -> Path:
    """Two configurations, with a rule of postprocessing."""
    two_in(root)
    return root


def write_regions(root: Path) -> Path:
    """Two regions, one within the other."""
    labels = {"background": 0, "whole": [1, 2], "core": 2}
    info = SMALL_INFO.model_validate({**SMALL_INFO.model_dump(), "labels": labels, "regions_class_order": [1, 2]})
    return write_changed(root, small_configuration(), info=info, out_channels=2)


def write_flat(root: Path) -> Path:
    """A network of two dimensions."""
    return write_changed(root, small_configuration(2), name="2d")


def write_changed(root: Path, configuration, name: str = "3d_fullres", out_channels: int = 3, **changes) -> Path:
    """A model of a changed configuration, with fresh weights."""
    architecture = configuration.architecture.model_copy(update={"out_channels": out_channels})
    configuration = configuration.model_copy(update={"architecture": architecture})
    plan = small_checkpoint().plan.model_copy(update={"configurations": {name: configuration}})
    weights = make_network(configuration, seed=0).state_dict()
    folder = model_in(root, name, plan=plan, weights=weights, **changes).path
    balance(root)
    return folder


@pytest.mark.parametrize("write", [write_cascade, write_ensemble, write_regions, write_flat])
def test_masks_are_those_of_torch(write: Callable[[Path], Path], tmp_path: Path) -> None:
    """By each runtime, and with more than one label in the mask."""
    source = write(tmp_path / "home")
    bundle = export_model(source, tmp_path / "exported.zip", runtime="onnx")
    expected = autoseg.load_model(source, device="cpu", exact=True).predict(IMAGE, spacing_mm=(1, 1, 1))
    assert len(np.unique(expected)) > 1
    for runtime in ("onnx", "openvino"):
        mask = autoseg.load_model(bundle, runtime=runtime).predict(IMAGE, spacing_mm=(1, 1, 1))
        assert (mask == expected).mean() >= EQUAL_VOXELS
