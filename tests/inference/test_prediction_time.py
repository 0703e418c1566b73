"""What a prediction says of its end; speeds are values."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from phantoms import Listener
from tiny_workspaces import NUMBER, folders_of

from autoseg.datasets.dataset import Case
from autoseg.datasets.scans import find_scans
from autoseg.imaging.postprocessing import NO_RULES
from autoseg.inference import prediction_time
from autoseg.inference.ensemble import EnsembleSegmenter
from autoseg.inference.loading import PredictionOptions, load_segmenter
from autoseg.inference.prediction_time import describe_prediction_time
from autoseg.inference.predictor import FunctionPredictor, MirroringPredictor
from autoseg.models import speed, work
from autoseg.pipeline.prediction import predict
from autoseg.runtime.arrays import NumpyDevice

PATCH_SECONDS = 0.5


@pytest.fixture(scope="module")
def segmenter(trained_volumes):
    """One fold with eight mirror images."""
    path = folders_of(trained_volumes).model("3d_fullres").path
    return load_segmenter(path, PredictionOptions(folds=0, device="cpu"))


@pytest.fixture(scope="module")
def scans(trained_volumes, segmenter):
    """The three training images and the one of imagesTs, each smaller than a tile or as large."""
    folders = folders_of(trained_volumes)
    return [
        *find_scans(folders.raw / "imagesTr", segmenter.info),
        *find_scans(folders.raw / "imagesTs", segmenter.info),
    ]


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A patch takes half a second, times a factor; returns the factor, which tests may change."""
    factor = [1.0]

    monkeypatch.setattr(speed, "measure_prediction_speed", lambda *_, **__: 10**6 / PATCH_SECONDS / factor[0])
    monkeypatch.setattr(speed, "name_precision", lambda *_, **__: "float32")
    monkeypatch.setattr(work, "measure_patch_work", lambda _: 10**6)
    monkeypatch.setattr(prediction_time, "is_busy", lambda: False)
    return factor


def test_a_scan_takes_its_tiles_and_mirror_images(segmenter, scans):
    """One tile and eight mirror images of half a second each."""
    [line] = describe_prediction_time(segmenter, scans[:1])
    assert line == "the networks take about 4 s for the scan here, in float32 on cpu"


def test_what_takes_no_time_needs_no_word(segmenter, scans, machine):
    """Nothing is said of two seconds or less in all."""
    machine[0] = 0.4
    assert list(describe_prediction_time(segmenter, scans[:1])) == []
    assert len(list(describe_prediction_time(segmenter, scans[:1] * 2))) == 1


def test_a_busy_machine_is_said_to_be(segmenter, scans, monkeypatch):
    """The scans may become quicker when the other programs end."""
    monkeypatch.setattr(prediction_time, "is_busy", lambda: True)
    [line] = describe_prediction_time(segmenter, scans[:1])
    assert line.endswith("in float32 on cpu, beside other programs")


def test_many_scans_take_their_sum(segmenter, scans):
    """Per scan and in all."""
    [line] = describe_prediction_time(segmenter, scans[:1] * 30)
    assert line == "the networks take about 4 s per scan, 2 min for all 30 here, in float32 on cpu"


def test_scans_of_many_sizes_take_from_to(segmenter, scans, monkeypatch):
    """The shortest and the longest."""
    sizes = iter([((14, 16, 18), (1.0, 1.0, 1.0)), ((14, 16, 18), (1.0, 1.0, 9.0))])
    monkeypatch.setattr(prediction_time, "find_grid", lambda _: next(sizes))
    [line] = describe_prediction_time(segmenter, scans[:2])
    assert line.startswith("the networks take about 4 s to ")


def test_an_ensemble_takes_the_time_of_all_its_networks(segmenter, scans):
    """The coarser one of a cascade runs once, also if it is a member itself."""
    other = replace(segmenter, previous=segmenter)
    both = EnsembleSegmenter(members=(segmenter, other), rules=NO_RULES)
    [cascade] = describe_prediction_time(other, scans[:1])
    [ensemble] = describe_prediction_time(both, scans[:1])
    assert cascade == ensemble == "the networks take about 8 s for the scan here, in float32 on cpu"


def test_more_than_a_day_says_what_to_do(segmenter, scans, machine):
    """Fewer mirror images, several machines, or a GPU."""
    machine[0] = 100_000
    lines = list(describe_prediction_time(segmenter, scans[:1]))
    assert lines[1] == (
        "that is more than a day; instead, --quality fast, which takes about 1/8 of the time or less; or --part 1/4 "
        "and so on, on several machines; or a machine with a GPU"
    )


def test_without_mirror_images_they_are_not_offered(trained_volumes, scans, machine):
    """What is done already is no way out."""
    path = folders_of(trained_volumes).model("3d_fullres").path
    plain = load_segmenter(path, PredictionOptions(folds=0, device="cpu", mirroring=False))
    machine[0] = 1_000_000
    assert "--quality" not in list(describe_prediction_time(plain, scans[:1]))[1]


def test_nothing_is_said_where_it_cannot_be_known(segmenter, scans, tmp_path, monkeypatch):
    """On a GPU, without scans, for damaged scans, and for networks whose work cannot be counted."""
    damaged = tmp_path / "scan.nii.gz"
    damaged.write_bytes(b"no image")
    assert list(describe_prediction_time(replace(segmenter, device=torch.device("cuda")), scans)) == []
    assert list(describe_prediction_time(segmenter, [])) == []
    assert list(describe_prediction_time(segmenter, [Case(name="scan", images=(damaged,))])) == []
    monkeypatch.setattr(work, "measure_patch_work", lambda _: None)
    assert list(describe_prediction_time(segmenter, scans)) == []


def test_an_exported_network_is_timed_itself(segmenter, scans, monkeypatch):
    """A pass of half a second; with so few passes that one more would be noticed, nothing is said."""
    clock = iter(number * PATCH_SECONDS for number in range(100))
    monkeypatch.setattr(prediction_time, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    shapes = []

    def calculate(patches):
        shapes.append(patches.shape)
        return patches

    predictor = MirroringPredictor(FunctionPredictor(calculate), axes=(0, 1, 2))
    exported = replace(segmenter, device=NumpyDevice(), predictor=predictor, exact=False)
    assert list(describe_prediction_time(exported, scans[:1] * 2)) == []
    assert shapes == []
    [line] = describe_prediction_time(exported, scans[:1] * 3)
    assert line == "the networks take about 4 s per scan, 10 s for all 3 here, in int8 on cpu"
    assert shapes == [(1, 1, *segmenter.configuration.patch_size)]


def test_predict_says_it_first(trained_volumes, tmp_path):
    """Before the first scan."""
    listener = Listener()
    source = folders_of(trained_volumes).raw / "imagesTs"
    predict(
        source, tmp_path / "masks", number=NUMBER, folds=0, device="cpu", workspace=trained_volumes, reporter=listener
    )
    assert any(line.startswith("the networks take about") for line in listener.lines)
