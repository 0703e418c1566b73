"""Folders of scans: in a line, gone on with after a stop, shared among machines."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from threading import get_ident

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from phantoms import Listener, place
from small_models import small_checkpoint
from typer.testing import CliRunner

from autoseg.cli.app import app
from autoseg.datasets.dataset import Case
from autoseg.datasets.parts import choose_part
from autoseg.errors import ModelError, ProblemsError, UsageError, WriteError
from autoseg.imaging.image_files import read_label_map, write_image
from autoseg.imaging.label_files import save_result
from autoseg.imaging.postprocessing import NO_RULES, PostprocessingRules
from autoseg.inference import scan_pipeline
from autoseg.inference.continuation import PredictionProvenance, find_waiting
from autoseg.inference.ensemble import make_ensemble
from autoseg.inference.folder import name_probability_maps, segment_scans
from autoseg.inference.loading import PredictionOptions, load_segmenter
from autoseg.inference.model import load_model
from autoseg.inference.prediction_quality import choose_quality
from autoseg.inference.predictor import FunctionPredictor
from autoseg.inference.segmenter import Segmenter
from autoseg.inference.torch_segmenter import make_segmenter
from autoseg.models.checkpoint import save_checkpoint
from autoseg.pipeline.prediction import predict
from autoseg.runtime.reporting import SILENT
from autoseg.workspace import ModelFolder

CPU = torch.device("cpu")
LABELS = {"bright": 1}


@pytest.fixture
def scans(tmp_path: Path) -> list[Case]:
    """Five scans of noise, of different sizes."""
    cases = []
    for number in range(5):
        path = tmp_path / "scans" / f"scan_{number}_0000.nii.gz"
        array = np.random.default_rng(number).normal(size=(1, 9 + number, 10, 11)).astype(np.float32)
        write_image(path, place(array, spacing_mm=(1.0, 1.0, 1.0)))
        cases.append(Case(name=f"scan_{number}", images=(path,)))
    return cases


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """An empty folder for the results."""
    folder = tmp_path / "masks"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    """An untrained model."""
    return make_segmenter([small_checkpoint()], NO_RULES, CPU, quality=choose_quality("best", mirroring=False))


def names(paths) -> list[str]:
    """Without their folder."""
    return [path.name for path in paths]


class Watched:
    """Notes when each stage works on which scan, and in which thread."""

    def __init__(self, monkeypatch, seconds: float = 0.0) -> None:
        self.steps: list[tuple[str, int, int]] = []
        for stage in ("_prepare", "_predict", "_write"):
            self._watch(monkeypatch, stage, seconds)

    def _watch(self, monkeypatch, stage, seconds):
        work, seen = getattr(scan_pipeline, stage), iter(range(100))

        def watched(*arguments):
            number = next(seen)
            self.steps.append((f"{stage} begins", number, get_ident()))
            time.sleep(seconds)
            result = work(*arguments)
            self.steps.append((f"{stage} ends", number, get_ident()))
            return result

        monkeypatch.setattr(scan_pipeline, stage, watched)

    def place(self, step: str, number: int) -> int:
        """When it was."""
        return [entry[:2] for entry in self.steps].index((step, number))


def test_stages_overlap_and_results_are_those_of_one_after_the_other(segmenter, scans, output, monkeypatch):
    """A thread for reading, one for the network; the caller writes."""
    watched = Watched(monkeypatch, seconds=0.02)
    written = segment_scans(segmenter, scans, output, LABELS, SILENT)
    assert names(written) == [f"scan_{number}.nii.gz" for number in range(5)]
    threads = {stage: {ident for step, _, ident in watched.steps if step.startswith(stage)} for stage in ("_pre", "_w")}
    assert len({ident for _, _, ident in watched.steps}) == 3
    assert threads["_w"] == {get_ident()}
    assert watched.place("_predict begins", 1) < watched.place("_write ends", 0)
    assert watched.place("_prepare begins", 2) < watched.place("_write ends", 0)
    assert watched.place("_prepare begins", 4) > watched.place("_write begins", 0)  # not all at once
    for scan, path in zip(scans, written, strict=True):
        alone = segmenter.segment(scan_pipeline.read_scan(scan))
        np.testing.assert_array_equal(read_label_map(path).array, alone.array)
    assert len(list((output / "probabilities").iterdir())) == 5


def test_large_scans_do_not_meet_in_memory(segmenter, scans, output, monkeypatch):
    """The network waits until the former result is written; reading goes on."""
    monkeypatch.setattr(scan_pipeline, "free_memory_bytes", lambda: 1000)
    watched = Watched(monkeypatch, seconds=0.01)
    segment_scans(segmenter, scans, output, {}, SILENT)
    for number in range(4):
        assert watched.place("_write ends", number) < watched.place("_predict begins", number + 1)
    assert watched.place("_prepare begins", 1) < watched.place("_write ends", 0)


def test_bad_scans_have_their_lines_and_the_rest_is_done(segmenter, scans, output):
    """One that cannot be read, and one with too many channels; progress comes to its end for the others."""
    scans[1].images[0].write_bytes(b"no image")
    scans[3] = Case(name="scan_3", images=(*scans[3].images, *scans[4].images))
    listener = Listener()
    with pytest.raises(ProblemsError) as caught:
        segment_scans(segmenter, scans, output, {}, listener)
    lines = str(caught.value).splitlines()
    assert [line.split(":")[0] for line in lines] == ["case 'scan_1'", "case 'scan_3'"]
    assert sorted(names(output.glob("scan_*"))) == ["scan_0.nii.gz", "scan_2.nii.gz", "scan_4.nii.gz"]


def test_a_network_that_fails_for_one_scan_spares_the_others(segmenter, scans, output):
    """Logits that are no numbers are the scan's own problem."""

    def predict(patches):
        if 0.5 < patches.mean() < 1e6:
            raise ModelError("the network returned NaN", "look at the image")
        return torch.zeros(len(patches), 3, *patches.shape[2:])

    seen = iter(range(100))

    @FunctionPredictor
    def once(patches):
        return predict(patches + (next(seen) == 0))

    with pytest.raises(ProblemsError, match="case 'scan_0': the network returned NaN; look at the image"):
        segment_scans(replace(segmenter, predictor=once), scans, output, {}, SILENT)
    assert len(list(output.glob("scan_*"))) == 4


def test_full_disk_ends_the_run_at_once(segmenter, scans, output, monkeypatch):
    """Its line comes once, and what was written stays."""
    done = []

    def save(prediction, path):
        if len(done) == 2:
            raise WriteError(f"cannot write {path}: No space left on device", "free some space")
        done.append(path)
        return save_result(prediction, path)

    monkeypatch.setattr(scan_pipeline, "save_result", save)
    with pytest.raises(ProblemsError) as caught:
        segment_scans(segmenter, scans, output, {}, SILENT)
    assert str(caught.value).count("No space left") == 1
    assert len(done) == 2


def test_nobody_waits_for_a_network_after_a_stop(segmenter, scans, output, monkeypatch):
    """It ends between two batches of tiles, not after the whole scan."""
    batches = []

    @FunctionPredictor
    def slow(patches):
        batches.append(len(patches))
        time.sleep(0.02)
        return torch.zeros(len(patches), 3, *patches.shape[2:])

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(scan_pipeline, "save_result", interrupted)
    large = replace(segmenter, predictor=slow, tiles_at_once=1)
    array = np.random.default_rng(0).normal(size=(1, 60, 60, 60)).astype(np.float32)
    write_image(scans[1].images[0], place(array, spacing_mm=(1.0, 1.0, 1.0)))
    with pytest.raises(KeyboardInterrupt):
        segment_scans(large, scans, output, {}, SILENT)
    ended = len(batches)
    assert ended < 100  # of 2744 of the second scan
    time.sleep(0.1)
    assert len(batches) == ended


def waiting_scans(segmenter, scans, output, labels):
    """The scans that a run with --continue segments."""
    return find_waiting(segmenter, scans, output, name_probability_maps(scans, labels)).scans


def test_finished_scans_are_left_out(segmenter, scans, output):
    """Of this model only, with all maps that are wanted; a model with other rules makes them anew."""
    assert waiting_scans(segmenter, scans, output, {}) == scans
    segment_scans(segmenter, scans[:2], output, LABELS, SILENT)
    assert waiting_scans(segmenter, scans, output, {}) == scans[2:]
    assert waiting_scans(segmenter, scans, output, LABELS) == scans[2:]
    assert waiting_scans(segmenter, scans, output, {"dark": 2}) == scans
    (output / "scan_0.nii.gz").unlink()
    assert waiting_scans(segmenter, scans, output, {}) == [scans[0], *scans[2:]]
    other = replace(segmenter, rules=PostprocessingRules(keep_largest_foreground=True))
    assert waiting_scans(other, scans, output, {}) == scans


def test_results_of_a_former_model_are_made_anew(segmenter, scans, output):
    """Also after a stop in the middle: they are older than what says which model is at work."""
    other = replace(segmenter, rules=PostprocessingRules(keep_largest_foreground=True))
    segment_scans(other, scans, output, {}, SILENT)
    for path in output.iterdir():
        os.utime(path, (time.time() - 60, time.time() - 60))
    segment_scans(segmenter, scans[:2], output, {}, SILENT)
    assert waiting_scans(segmenter, scans, output, {}) == scans[2:]
    segment_scans(segmenter, scans[2:4], output, {}, SILENT)
    assert waiting_scans(segmenter, scans, output, {}) == scans[4:]


def test_models_are_told_apart(segmenter):
    """By weights, plan and postprocessing; the same checkpoint is the same model."""
    checkpoint = small_checkpoint()
    again = make_segmenter([checkpoint], NO_RULES, CPU)
    weights = {name: value + 1 for name, value in checkpoint.weights.items()}
    trained = make_segmenter([replace(checkpoint, weights=weights)], NO_RULES, CPU)
    ruled = replace(segmenter, rules=PostprocessingRules(keep_largest_foreground=True))
    both = make_ensemble([segmenter, trained], NO_RULES)
    mirrored = make_segmenter([checkpoint], NO_RULES, CPU)
    assert again.digest == mirrored.digest
    assert len({one.digest for one in (segmenter, mirrored, trained, ruled, both)}) == 5
    assert PredictionProvenance.of(both).dataset == "Dataset001_Small"


@pytest.mark.parametrize(
    ("part", "expected"),
    [(None, [0, 1, 2, 3, 4]), ("1/1", [0, 1, 2, 3, 4]), ("1/2", [0, 2, 4]), ("2/2", [1, 3]), ("7/9", [])],
)
def test_parts_share_the_scans(scans, part, expected):
    """Every second one for two machines; each scan has one machine."""
    assert choose_part(scans, part) == [scans[number] for number in expected]


@pytest.mark.parametrize("part", ["0/2", "3/2", "1", "a/b", "1/2/3", "-1/2", ""])
def test_what_is_no_part_is_refused(scans, part):
    """With an example."""
    with pytest.raises(UsageError, match="is no part of a whole; write 1/4, 2/4"):
        choose_part(scans, part)


KILLED = """
import os, signal, sys
from typer.testing import CliRunner

from autoseg.inference import scan_pipeline as segmenting
from autoseg.models.checkpoint import save_checkpoint
from autoseg.cli.app import app
from autoseg.inference.loading import PredictionOptions, load_segmenter
from autoseg.inference.model import load_model
from autoseg.pipeline.prediction import predict

write, seen = segmenting._write, []

def dying(*arguments):
    report = write(*arguments)
    seen.append(report)
    if len(seen) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return report

segmenting._write = dying
predict(sys.argv[2], sys.argv[3], model=sys.argv[1], device="cpu")
"""


def test_a_killed_run_goes_on(scans, output, tmp_path):
    """After `kill -9` two results are whole, of which one has no row yet; two machines do that one and the rest."""
    model = ModelFolder(path=tmp_path / "model")
    save_checkpoint(small_checkpoint(), model.checkpoint(0))
    source = scans[0].images[0].parent
    arguments = [model.path, source, output]
    killed = subprocess.run([sys.executable, "-c", KILLED, *map(str, arguments)], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert sorted(names(output.glob("scan*"))) == ["scan_0.nii.gz", "scan_1.nii.gz"]
    before = {path: path.stat().st_mtime_ns for path in output.glob("scan*")}
    listener = Listener()
    written = predict(source, output, model=model.path, resume=True, part="1/2", device="cpu", reporter=listener)
    assert names(written) == ["scan_2.nii.gz", "scan_4.nii.gz"]
    assert listener.lines == ["1 of 3 scans are segmented already"]
    assert listener.advanced["segmenting"] == pytest.approx(2)
    written = predict(source, output, model=model.path, resume=True, part="2/2", device="cpu")
    assert names(written) == ["scan_1.nii.gz", "scan_3.nii.gz"]
    assert (output / "scan_0.nii.gz").stat().st_mtime_ns == before[output / "scan_0.nii.gz"]
    assert predict(source, output, model=model.path, resume=True, device="cpu") == []
    assert len(predict(source, output, model=model.path, device="cpu")) == 5


def test_memory_that_is_full_is_the_scans_own_problem(segmenter, scans, output, monkeypatch):
    """Whatever asks for too much: one line, and the others are done."""
    prepare, calls = scan_pipeline._prepare, iter(range(100))
    errors = {
        0: MemoryError(),
        1: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        2: RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    }

    def greedy(*arguments):
        if (error := errors.get(next(calls))) is not None:
            raise error
        return prepare(*arguments)

    monkeypatch.setattr(scan_pipeline, "_prepare", greedy)
    with pytest.raises(ProblemsError) as caught:
        segment_scans(segmenter, scans, output, {}, SILENT)
    lines = str(caught.value).splitlines()
    assert [line.split(";")[0] for line in lines] == [
        "case 'scan_0': the memory of the device cpu is full",
        "case 'scan_1': the memory of the GPU is full",
        "case 'scan_2': the memory of the device cpu is full",
    ]
    assert len(list(output.glob("scan_*"))) == 2


def test_what_cannot_fit_is_refused_before_the_system_ends_the_program(segmenter, scans, output, monkeypatch):
    """An image at an absurdly fine spacing, and a tile as large as a house, as a stranger's plan may want them."""
    for change in ({"spacing_mm": (1e-4, 1e-4, 1e-4)}, {"patch_size": (2**20, 2**20, 8)}):
        configuration = segmenter.configuration.model_copy(update=change)
        with pytest.raises(ProblemsError, match=r"case 'scan_0': .* are free; c.*machine with more memory"):
            segment_scans(replace(segmenter, configuration=configuration), scans[:1], output, {}, SILENT)


def test_float32_can_be_asked_for(scans, output, tmp_path):
    """From the command line and from Python; what was made otherwise is not gone on with."""
    model = ModelFolder(path=tmp_path / "model")
    save_checkpoint(small_checkpoint(), model.checkpoint(0))
    usual, exact = (load_segmenter(model.path, PredictionOptions(device="cpu", exact=exact)) for exact in (False, True))
    assert usual.digest != exact.digest
    command = ["predict", "-m", model.path, "-i", scans[0].images[0], "-o", output, "--exact", "--device", "cpu"]
    assert CliRunner().invoke(app, [str(part) for part in command]).exit_code == 0
    alone = load_model(model.path, device="cpu", exact=True)
    assert alone.segmenter.digest == exact.digest
    found = sitk.GetArrayFromImage(alone.predict(scans[0].images[0]))
    np.testing.assert_array_equal(read_label_map(output / "scan_0.nii.gz").array, found)


def test_mirroring_can_be_left_out(scans, output, tmp_path):
    """From the command line, and then the agreement of mirror images is not known."""
    model = ModelFolder(path=tmp_path / "model")
    save_checkpoint(small_checkpoint(), model.checkpoint(0))
    votes = {
        mirroring: load_segmenter(model.path, PredictionOptions(device="cpu", mirroring=mirroring)).votes
        for mirroring in (True, False)
    }
    assert votes == {True: 8, False: 1}
    command = ["predict", "-m", model.path, "-i", scans[0].images[0], "-o", output, "--no-mirroring", "--device", "cpu"]
    assert CliRunner().invoke(app, [str(part) for part in command]).exit_code == 0
    alone = load_model(model.path, device="cpu", mirroring=False).predict(scans[0].images[0])
    np.testing.assert_array_equal(read_label_map(output / "scan_0.nii.gz").array, sitk.GetArrayFromImage(alone))
