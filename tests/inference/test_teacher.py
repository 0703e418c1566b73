"""A teacher is the networks of one fold, which have seen no held-out case, and its probabilities lie on any grid."""

from dataclasses import replace

import numpy as np
import pytest
from small_model_folders import cascade_in, model_in, two_in
from small_models import SMALL_INFO, small_checkpoint

from autoseg.datasets.splits import Split, Splits
from autoseg.errors import ModelError
from autoseg.imaging.postprocessing import NO_RULES
from autoseg.imaging.targets import Targets
from autoseg.inference.ensemble import EnsembleSegmenter
from autoseg.inference.loading import PredictionOptions
from autoseg.inference.teacher import decide_labels, describe_teacher, load_teacher
from autoseg.models.checkpoint import load_checkpoint, save_checkpoint
from autoseg.models.model_source import resolve_members

SPLIT = Split(training=("a", "b"), validation=("c",))
SPLITS = Splits(folds=(SPLIT, Split(training=("c",), validation=("a", "b"))))
OPTIONS = PredictionOptions(device="cpu")


def describe(root, folds=(0,), splits=SPLITS, info=SMALL_INFO):
    """What is found out about the teacher in a folder."""
    return describe_teacher(resolve_members(root), folds, splits, info)


def test_a_fold_that_has_seen_no_held_out_case_may_teach(tmp_path):
    """The digest of its cases is that of the fold."""
    folder = model_in(tmp_path, cases=SPLIT.digest)
    [described] = describe(folder.path)
    assert described.configuration_name == "3d_fullres"


def test_a_fold_of_other_cases_is_refused(tmp_path):
    """It may have been trained on what the student holds out."""
    folder = model_in(tmp_path, cases=SPLITS.folds[1].digest)
    with pytest.raises(ModelError, match=r"fold 0 .* was trained on other cases than splits.json gives it now"):
        describe(folder.path)
    describe(folder.path, folds=["all"])  # which holds nothing out


def test_half_trained_and_foreign_teachers_are_refused(tmp_path):
    """One that is not trained to its end, or on other labels; and a fold that is not trained at all."""
    half = model_in(tmp_path / "half", cases=SPLIT.digest, finished=False)
    with pytest.raises(ModelError, match=r"fold 0 .* is not trained to its end"):
        describe(half.path)
    whole = model_in(tmp_path / "whole", cases=SPLIT.digest)
    info = SMALL_INFO.model_copy(update={"labels": {"background": 0, "bright": 1}})
    with pytest.raises(ModelError, match="was trained on other channels or labels"):
        describe(whole.path, info=info)
    with pytest.raises(ModelError, match=r"fold 1 .* is not trained"):
        describe(whole.path, folds=[0, 1])


def test_the_coarse_network_of_a_cascade_counts_as_well(tmp_path):
    """Its work is a part of the teacher's, and it must not have seen held-out cases either."""
    folder = cascade_in(tmp_path)
    with pytest.raises(ModelError, match="other cases"):
        describe(folder.path)
    described = describe(folder.path, folds=["all"])
    assert [one.configuration_name for one in described] == ["3d_cascade_fullres", "3d_lowres"]
    segmenter = load_teacher(resolve_members(folder.path), 0, OPTIONS).segmenter
    assert segmenter.previous is not None
    assert segmenter.previous.votes == segmenter.votes


def test_configurations_teach_together(tmp_path):
    """Those of best.json, each by its network of the fold, without the rules that held-out cases chose."""
    two_in(tmp_path)
    teacher = load_teacher(resolve_members(tmp_path), 0, OPTIONS)
    assert isinstance(teacher.segmenter, EnsembleSegmenter)
    assert teacher.segmenter.rules == NO_RULES
    assert all(member.temperatures is None for member in teacher.segmenter.members)


def test_a_fold_teaches_alone(tmp_path):
    """Of several trained folds, only the one of the student; all of them teach the student of all cases."""
    folder = model_in(tmp_path)
    other = {name: value + 0.01 for name, value in small_checkpoint().weights.items()}
    save_checkpoint(replace(load_checkpoint(folder.checkpoint(0)), fold=1, weights=other), folder.checkpoint(1))
    model = resolve_members(folder.path)
    digests = [load_teacher(model, fold, OPTIONS).segmenter.networks for fold in (0, 1, "all")]
    assert digests[0] != digests[1]
    assert digests[2] == f"{digests[0]} {digests[1]}"


def test_labels_of_regions_follow_their_order():
    """A later region overwrites an earlier one, above one half."""
    regions = Targets(structures={"whole": (1, 2), "core": (2,)}, exclusive=False, region_class_order=(1, 2))
    probabilities = np.array([[[[0, 128, 255, 127]]], [[[0, 127, 128, 255]]]], np.uint8)
    assert decide_labels(probabilities, regions).tolist() == [[[0, 1, 2, 2]]]
