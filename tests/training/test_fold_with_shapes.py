"""A fold whose plan asks for components and skeletons goes on where it was stopped, bit for bit."""

import math
import shutil

import pytest
import torch
from tiny_workspaces import NUMBER, edit_training, folders_of, plan_tiny, write_volumes

from autoseg.evaluation.summary import Summary, summary_file
from autoseg.models.checkpoint import load_checkpoint
from autoseg.pipeline.training import train
from autoseg.training import loop

CONFIGURATION = "3d_fullres"


@pytest.mark.slow
def test_fold_goes_on_bit_for_bit(tmp_path, monkeypatch):
    """Shapes and components follow from the number of a batch, so a stop changes nothing."""
    prepared = tmp_path / "prepared"
    write_volumes(prepared)
    plan_tiny(prepared, epochs=2, steps_per_epoch=2)
    loss = {"component_weight": 1.0, "skeleton_weight": 0.5}
    plan = edit_training(prepared, loss=loss, foreground_sampling="components")
    assert (plan.training.loss.component_weight, plan.training.foreground_sampling) == (1.0, "components")
    roots = [shutil.copytree(prepared, tmp_path / name) for name in ("straight", "stopped", "usual")]
    edit_training(roots[2], loss={}, foreground_sampling="voxels")
    step = loop.train_step

    def step_or_stop(state, *rest):
        if state.step == 2:
            raise KeyboardInterrupt
        return step(state, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", step_or_stop)
        with pytest.raises(KeyboardInterrupt):
            train(NUMBER, CONFIGURATION, [0], device="cpu", workspace=roots[1])
    for root in roots:
        train(NUMBER, CONFIGURATION, [0], device="cpu", workspace=root)
    measured = [Summary.load(summary_file(folders_of(root).model(CONFIGURATION).validation(0))) for root in roots]
    centrelines = [summary.foreground_mean.centreline_dice for summary in measured]
    assert 0 <= centrelines[0] == centrelines[1] <= 1
    assert math.isnan(centrelines[2])  # its loss has no term of skeletons
    straight, stopped, usual = (
        load_checkpoint(folders_of(root).model(CONFIGURATION).checkpoint(0)).weights for root in roots
    )
    assert all(torch.equal(value, stopped[name]) for name, value in straight.items())
    assert not all(torch.equal(value, usual[name]) for name, value in straight.items())
