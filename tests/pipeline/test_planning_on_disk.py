"""Plans on disk: made from a fingerprint alone, named, edited, replaced, and obeyed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from phantoms import Listener
from tiny_workspaces import NUMBER, files_in, folders_of, plan_tiny, write_splits, write_volumes

from autoseg.errors import ModelError, UsageError
from autoseg.pipeline import options
from autoseg.pipeline.datasets import extract_fingerprint, plan_and_preprocess, plan_configurations, preprocess
from autoseg.pipeline.prediction import predict
from autoseg.pipeline.training import train
from autoseg.planning.machine_speed import MachineSpeed
from autoseg.planning.plan import Plan
from autoseg.runtime import device
from autoseg.runtime.machine import identify_machine
from autoseg.workspace import DatasetFolders

GOLDEN = Path(__file__).parents[1] / "golden" / "plans"


@pytest.fixture(autouse=True)
def _few_samples(monkeypatch):
    """Draws thousands of voxels rather than millions."""
    monkeypatch.setattr("autoseg.datasets.fingerprint.FOREGROUND_SAMPLES", 3000)


def golden_workspace(root: Path, name: str) -> DatasetFolders:
    """A workspace of nothing but the dataset.json and the nnU-Net fingerprint of a golden dataset."""
    folders = folders_of(root)
    for folder, file in ((folders.raw, "dataset.json"), (folders.preprocessed, "dataset_fingerprint.json")):
        folder.mkdir(parents=True)
        shutil.copy(GOLDEN / name / file, folder)
    return folders


def test_a_plan_needs_no_images(tmp_path):
    """dataset.json and nnU-Net's fingerprint are enough; plan.json then holds every configuration by name."""
    folders = golden_workspace(tmp_path, "LiverCT")
    plan = plan_configurations(NUMBER, memory="8GB", workspace=tmp_path)
    content = json.loads(folders.plan.read_text())
    assert list(content["configurations"]) == ["2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres"]
    for configuration in content["configurations"].values():
        assert {"patch_size", "batch_size", "spacing_mm", "architecture", "estimated_bytes"} <= configuration.keys()
    assert Plan.load(folders.plan) == plan


def test_the_reference_is_planned_by_name(tmp_path):
    """By the rules of the reference method, the plan is that of its default planner, or of the preset asked for."""
    golden_workspace(tmp_path, "LiverCT")
    plain = plan_configurations(NUMBER, rules="nnunet", workspace=tmp_path)
    assert (plain.rules, plain.preset, plain.memory_budget_bytes) == ("nnunet", "plain", 8 * 10**9)
    assert plain.configurations["3d_fullres"].patch_size == (128, 128, 128)
    large = plan_configurations(NUMBER, rules="nnunet", preset="resenc_l", workspace=tmp_path)
    assert large.memory_budget_bytes == 24 * 10**9
    assert large.configurations["3d_fullres"].patch_size == (160, 224, 192)


def test_our_own_fingerprint_comes_first(tmp_path):
    """Of two fingerprints that of this program counts, and it is enough without the images."""
    folders = write_volumes(tmp_path)
    facts = extract_fingerprint(NUMBER, workspace=tmp_path)
    shutil.copy(GOLDEN / "LiverCT" / "dataset_fingerprint.json", folders.nnunet_fingerprint)
    shutil.rmtree(folders.raw / "imagesTr")
    plan = plan_configurations(NUMBER, preset="small", workspace=tmp_path)
    assert plan.configurations["3d_fullres"].median_shape == facts.cases[0].shape


def test_without_fingerprint_there_is_no_plan(tmp_path):
    """The error says which command takes it."""
    write_volumes(tmp_path)
    with pytest.raises(UsageError, match=r"has no fingerprint; run 'autoseg fingerprint -d 1' first"):
        plan_configurations(NUMBER, workspace=tmp_path)


@pytest.mark.parametrize(
    ("gigabytes", "budget", "remark"),
    [(11.8, int(11.8 * 10**9), None), (85, 24 * 10**9, "the GPU has 85.0 GB: planned for 24.0 GB")],
)
def test_the_gpu_decides_where_nobody_does(tmp_path, monkeypatch, gigabytes, budget, remark):
    """Its memory is used, though no more than is worth while, and nothing is measured."""
    folders = golden_workspace(tmp_path, "LiverCT")
    monkeypatch.setattr(device, "gpu_memory_bytes", lambda: int(gigabytes * 10**9))
    monkeypatch.setattr(options, "may_have_gpu", lambda: True)
    listener = Listener()
    plan = plan_configurations(NUMBER, workspace=tmp_path, reporter=listener)
    assert plan.memory_budget_bytes == budget
    assert listener.text == "" if remark is None else remark in listener.text
    assert not folders.machine_speed.exists()


@pytest.fixture
def measured(monkeypatch):
    """Pretends to be a machine without a GPU; returns the speeds, in billions, that its measurements will give."""
    speeds: list[float] = []

    def measure() -> MachineSpeed:
        training = speeds.pop(0) * 1e9
        return MachineSpeed(
            machine=options.identify_machine(),
            device="cpu",
            precision="float32",
            training=training,
            prediction=1.3 * training,
        )

    monkeypatch.setattr(options, "may_have_gpu", lambda: False)
    monkeypatch.setattr(options, "_measure_speed", measure)
    return speeds


def test_without_a_gpu_the_plan_is_for_this_machine(tmp_path, measured):
    """It is that of the preset "small", the user is told how to plan for a GPU, and the figure is in the plan."""
    golden_workspace(tmp_path, "LiverCT")
    listener = Listener()
    measured.append(47)
    plan = plan_configurations(NUMBER, workspace=tmp_path, reporter=listener)
    assert "no CUDA GPU here: planned for this machine, by preset small" in listener.text
    assert "--memory 24GB" in listener.text
    assert any("calculates about 45 billion multiply-adds per second in float32" in text for text in plan.why)
    named = plan_configurations(NUMBER, preset="small", plan_name="named", workspace=tmp_path)
    assert (plan.configurations, plan.training) == (named.configurations, named.training)


def test_a_machine_is_measured_once(tmp_path, measured):
    """So planning again gives the same plan, though the machine may be busy then; another machine is measured anew."""
    folders = golden_workspace(tmp_path, "LiverCT")
    measured.extend([47, 3])
    first = plan_configurations(NUMBER, workspace=tmp_path)
    assert plan_configurations(NUMBER, workspace=tmp_path) == first
    assert measured == [3]
    MachineSpeed.load(folders.machine_speed).model_copy(update={"machine": "another"}).save(folders.machine_speed)
    slow = plan_configurations(NUMBER, workspace=tmp_path)
    assert measured == []
    assert slow.configurations["3d_fullres"].step_voxels < first.configurations["3d_fullres"].step_voxels


def test_a_damaged_measurement_is_taken_again(tmp_path, measured):
    """It is no decision of the user, so it is no error."""
    folders = golden_workspace(tmp_path, "Hippo")
    folders.machine_speed.write_text("{")
    measured.append(47)
    plan_configurations(NUMBER, workspace=tmp_path)
    assert MachineSpeed.load(folders.machine_speed).training == 47e9


@pytest.mark.parametrize(
    "chosen", [{"memory": "24GB"}, {"preset": "small"}, {"preset": "8gb"}, {"rules": "nnunet"}], ids=str
)
def test_who_chooses_is_not_measured(tmp_path, measured, chosen):
    """A memory, a preset, and the rules of the reference method give the same plan on every machine."""
    folders = golden_workspace(tmp_path, "Hippo")
    listener = Listener()
    plan_configurations(NUMBER, **chosen, workspace=tmp_path, reporter=listener)
    assert listener.text == ""
    assert not folders.machine_speed.exists()


def test_without_fingerprint_nothing_is_measured(tmp_path, measured):
    """What is wrong comes first."""
    write_volumes(tmp_path)
    with pytest.raises(UsageError, match="has no fingerprint"):
        plan_configurations(NUMBER, workspace=tmp_path)


def test_nothing_loads_torch_before_training_where_the_speed_is_known(tmp_path):
    """It takes a second, more than small datasets take."""
    folders = write_volumes(tmp_path)
    MachineSpeed(machine=identify_machine(), device="cpu", precision="float32", training=45e9, prediction=64e9).save(
        folders.machine_speed
    )
    script = """
import sys
from pathlib import Path
from autoseg.runtime import machine
machine.DEVICES = Path(sys.argv[1])
from autoseg.pipeline.datasets import plan_and_preprocess
plan_and_preprocess(int(sys.argv[2]), workspace=sys.argv[1])
print("torch" in sys.modules)
"""
    command = [sys.executable, "-c", script, str(tmp_path), str(NUMBER)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_plan_that_is_replaced_is_kept(tmp_path):
    """An edited plan is not lost when the dataset is planned again; one that stays the same is left alone."""
    folders = write_volumes(tmp_path)
    first = plan_tiny(tmp_path, epochs=7)
    listener = Listener()
    second = plan_configurations(NUMBER, preset="small", workspace=tmp_path, reporter=listener)
    assert str(folders.replaced_plan) in listener.text
    assert Plan.load(folders.replaced_plan) == first
    assert Plan.load(folders.plan) == second
    again = Listener()
    plan_configurations(NUMBER, preset="small", workspace=tmp_path, reporter=again)
    assert again.text == ""
    assert Plan.load(folders.replaced_plan) == first


def test_three_commands_do_what_one_does(tmp_path):
    """Fingerprint, plan and preprocess leave the files that plan_and_preprocess leaves."""
    apart, together = tmp_path / "apart", tmp_path / "together"
    for root in (apart, together):
        write_volumes(root)
    extract_fingerprint(NUMBER, workspace=apart)
    plan_configurations(NUMBER, preset="small", workspace=apart)
    preprocess(NUMBER, workspace=apart)
    plan_and_preprocess(NUMBER, preset="small", workspace=together)
    left, right = (files_in(folders_of(root).preprocessed) for root in (apart, together))
    assert left == right
    for name in ("fingerprint.json", "plan.json", "splits.json"):
        one, other = (folders_of(root).preprocessed / name for root in (apart, together))
        assert one.read_text() == other.read_text()


def test_named_plans_live_side_by_side(tmp_path):
    """Each has its plan.json, its cases and its models; the fingerprint and the folds are shared."""
    folders = write_volumes(tmp_path)
    usual = plan_tiny(tmp_path)
    named = folders.with_plan("coarse")
    plan_configurations(NUMBER, preset="small", plan_name="coarse", workspace=tmp_path)
    content = json.loads(named.plan.read_text())
    content["configurations"]["3d_fullres"]["spacing_mm"] = [2.0, 2.0, 2.0]
    content["training"] |= {"epochs": 1, "steps_per_epoch": 1, "validation_steps": 1}
    named.plan.write_text(json.dumps(content))
    with pytest.raises(UsageError, match="'autoseg preprocess -d 1 -c 3d_fullres --plan coarse' first"):
        train(NUMBER, "3d_fullres", [0], plan_name="coarse", device="cpu", workspace=tmp_path)
    preprocess(NUMBER, configurations=["3d_fullres"], plan_name="coarse", workspace=tmp_path)
    train(NUMBER, "3d_fullres", [0], plan_name="coarse", device="cpu", workspace=tmp_path)
    assert named.model("3d_fullres").trained_folds() == [0]
    assert not folders.model("3d_fullres").trained_folds()
    assert Plan.load(folders.plan) == usual
    masks = tmp_path / "masks"
    written = predict(
        folders.raw / "imagesTs", masks, number=NUMBER, plan_name="coarse", device="cpu", workspace=tmp_path
    )
    assert [path.name for path in written] == ["case_4.nii.gz"]
    with pytest.raises(UsageError, match="nothing is trained by the usual plan of Dataset001_Tiny, but by coarse; add"):
        predict(folders.raw / "imagesTs", masks, number=NUMBER, device="cpu", workspace=tmp_path)


def test_a_cascade_is_planned_and_its_cases_prepared(tmp_path):
    """It shares the cases of 3d_fullres; the low resolution has its own."""
    folders = write_volumes(tmp_path, shape=(128, 128, 128), cases=2)
    extract_fingerprint(NUMBER, workspace=tmp_path)
    plan = plan_configurations(NUMBER, preset="small", workspace=tmp_path)
    assert plan.configurations["3d_cascade_fullres"].previous == "3d_lowres"
    preprocess(NUMBER, configurations=["3d_cascade_fullres", "3d_lowres"], workspace=tmp_path)
    assert folders.cases("3d_fullres").is_dir()
    assert folders.cases("3d_lowres").is_dir()
    assert not folders.cases("3d_cascade_fullres").exists()
    with pytest.raises(UsageError, match="needs the segmentations of held-out cases by 3d_lowres, which 2 of 2 cases"):
        train(NUMBER, "3d_cascade_fullres", [0], device="cpu", workspace=tmp_path)


@pytest.mark.slow
def test_a_fold_never_goes_on_with_other_cases(tmp_path):
    """After the folds changed, a begun fold would be validated on cases that it learned from; so it is refused."""
    folders = write_volumes(tmp_path, cases=4)
    plan_tiny(tmp_path, epochs=1)
    write_splits(tmp_path, [(["case_1", "case_2"], ["case_3", "case_4"])])
    train(NUMBER, "3d_fullres", [0], device="cpu", workspace=tmp_path)
    write_splits(tmp_path, [(["case_1", "case_3"], ["case_2", "case_4"])])
    with pytest.raises(ModelError, match=r"was begun with other cases than splits\.json gives it now"):
        train(NUMBER, "3d_fullres", [0], device="cpu", workspace=tmp_path)
    train(NUMBER, "3d_fullres", [0], device="cpu", restart=True, workspace=tmp_path)
    assert sorted(path.name for path in folders.model("3d_fullres").validation(0).glob("case_*")) == [
        "case_2.nii.gz",
        "case_4.nii.gz",
    ]


def test_patients_never_travel_with_a_model(tmp_path):
    """Groups keep scans of one patient together in planning and training, and stay at home."""
    folders = write_volumes(tmp_path, cases=4)
    info = json.loads((folders.raw / "dataset.json").read_text())
    info["groups"] = {"case_1": "Miller", "case_2": "Miller"}
    (folders.raw / "dataset.json").write_text(json.dumps(info))
    plan_tiny(tmp_path, epochs=1)
    train(NUMBER, "3d_fullres", [0], device="cpu", workspace=tmp_path)
    assert b"Miller" not in folders.model("3d_fullres").checkpoint(0).read_bytes()
    write_splits(tmp_path, [(["case_1", "case_3"], ["case_2", "case_4"])])
    with pytest.raises(UsageError, match="which both belong to the group 'Miller'"):
        train(NUMBER, "3d_fullres", [0], device="cpu", restart=True, workspace=tmp_path)
