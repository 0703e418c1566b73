"""Everything in one call: each step in its turn, none twice, whatever ended the calls before."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from phantoms import Listener, write_json
from tiny_workspaces import files_in, write_volumes

import autoseg
from autoseg.errors import AutosegError, ProblemsError, Stopped, UsageError
from autoseg.imaging.postprocessing import NO_RULES
from autoseg.pipeline import run, stop_run
from autoseg.pipeline.run_context import RunContext
from autoseg.pipeline.run_record import RunRecord
from autoseg.planning.machine_speed import MachineSpeed
from autoseg.planning.plan import Plan
from autoseg.runtime.lock import run_alone
from autoseg.workspace import Workspace

NUMBER = 4
NAME = "Dataset004_Tiny"
STEPS = ["import", "check", "plan", "preprocess", "train", "find_best", "report"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Takes fewer samples, and does not measure the machine, which takes a second each."""
    speed = MachineSpeed(machine="any", device="cpu", precision="float32", training=5e10, prediction=1e11)
    monkeypatch.setattr("autoseg.datasets.fingerprint.FOREGROUND_SAMPLES", 10_000)
    monkeypatch.setattr("autoseg.models.speed.measure_speed", lambda _device: speed)


@pytest.fixture
def source(tmp_path):
    """Returns a folder of five scans and masks that is no workspace yet."""
    return Path(shutil.move(write_volumes(tmp_path / "made", cases=5).raw, tmp_path / "source"))


@pytest.fixture
def root(tmp_path):
    """Returns the folder of a workspace that does not exist yet."""
    return tmp_path / "work"


@pytest.fixture
def trained(monkeypatch):
    """Lets folds look trained as soon as they are to be trained; returns the calls."""
    calls = []

    def train(number, name, folds, *, workspace, **options):
        calls.append((name, list(folds), {key: value for key, value in options.items() if value is not None}))
        for fold in folds:
            write_json(Workspace(root=workspace).dataset(number).model(name).validation(fold) / "summary.json", {})

    monkeypatch.setattr("autoseg.pipeline.training.train", train)
    return calls


@pytest.fixture
def chosen(monkeypatch):
    """Lets find_best choose the first configuration; returns the calls."""
    calls = []

    def find_best(number, *, configurations, workspace, **options):
        calls.append(configurations)
        folders = Workspace(root=workspace).dataset(number)
        candidate = {"configurations": configurations[:1], "cases": 5, "mean_dice": 0.9, "dice": {}, "chosen": True}
        best = {
            "dataset": NAME,
            "configurations": configurations[:1],
            "folds": {configurations[0]: [{"fold": 0, "weights": "0" * 16}]},
            "rules": NO_RULES.model_dump(mode="json"),
            "candidates": [{**candidate, "configurations": [name], "reason": "made up"} for name in configurations],
            "left_out": [],
        }
        write_json(folders.best_model, best)
        from autoseg.models.best_model import BestModel

        return BestModel.load(folders.best_model)

    def report_model(number, *, workspace, **_options):
        Workspace(root=workspace).dataset(number).model_report.write_text("<html>")

    monkeypatch.setattr("autoseg.pipeline.scores.find_best", find_best)
    monkeypatch.setattr("autoseg.pipeline.reports.report_model", report_model)
    return calls


def said(listener: Listener) -> list[str]:
    """What was said of each step."""
    return [line.split(": ", 1)[1].split(":")[0] for line in listener.lines if line.startswith("step ")]


def test_every_step_is_done_once(source, root, trained, chosen):
    """And the second call, which needs no options any more, does nothing."""
    first, second = Listener(), Listener()
    outcome = run(source, NUMBER, name="Tiny", preset="small", epochs=3, workspace=root, reporter=first)
    assert [name for name, _ in outcome.steps] == STEPS
    assert outcome.model == root / "results" / NAME
    assert [page.name for page in outcome.reports] == ["data.html", "model.html"]
    assert len(said(first)) == 7
    assert "done before" not in said(first)
    assert trained == [("3d_fullres", [0, 1, 2, 3, 4], trained[0][2])]
    assert trained[0][2]["epochs"] == 3
    before = {name: (root / name).stat().st_mtime_ns for name in files_in(root)}
    assert run(None, NUMBER, workspace=root, reporter=second) == outcome
    assert said(second) == ["done before"] * 7
    after = {name: (root / name).stat().st_mtime_ns for name in files_in(root)}
    assert {name: time for name, time in after.items() if "runs" not in name} == {
        name: time for name, time in before.items() if "runs" not in name
    }
    assert (len(trained), len(chosen)) == (1, 1)


def test_what_is_missing_is_done_again(source, root, trained, chosen):
    """Folds that lost their scores, another configuration, and the choice between both."""
    run(source, NUMBER, name="Tiny", preset="small", workspace=root)
    shutil.rmtree(Workspace(root=root).folders(NAME).model("3d_fullres").fold(2))
    run(None, NUMBER, workspace=root)
    assert [entry[:2] for entry in trained[1:]] == [("3d_fullres", [2])]
    run(None, NUMBER, configurations=["2d", "3d_fullres"], workspace=root)
    assert [entry[:2] for entry in trained[2:]] == [("2d", [0, 1, 2, 3, 4])]
    assert chosen == [["3d_fullres"], ["3d_fullres"], ["2d", "3d_fullres"]]


def test_a_changed_source_is_noticed(source, root, trained, chosen):
    """Whatever else is asked for; the dataset that was imported stays, and goes on without SOURCE."""
    run(source, NUMBER, name="Tiny", preset="small", workspace=root)
    moved = Path(shutil.copytree(source, source.with_name("copy")))
    run(moved, NUMBER, workspace=root)  # the same files elsewhere
    (source / "imagesTr" / "case_9_0000.nii.gz").write_bytes(b"new")
    for _ in range(2):
        with pytest.raises(
            UsageError, match=r"source has changed since Dataset004_Tiny was imported from it \(12 files"
        ):
            run(source, NUMBER, workspace=root)
    with pytest.raises(UsageError, match=r"was imported from .*source, and not from .*made; leave SOURCE out"):
        run(source.with_name("made"), NUMBER, workspace=root)
    with pytest.raises(UsageError, match="was imported with another --name"):
        run(moved, NUMBER, name="Other", workspace=root)
    run(None, NUMBER, workspace=root)
    assert len(trained) == 1


def test_raw_files_that_changed_are_checked_again(source, root, trained, chosen):
    """The plan stays, and that is said."""
    run(source, NUMBER, name="Tiny", preset="small", workspace=root)
    folders, listener = Workspace(root=root).folders(NAME), Listener()
    case = folders.raw / "imagesTr" / "case_1_0000.nii.gz"
    os.utime(case)
    plan = folders.plan.read_bytes()
    run(None, NUMBER, workspace=root, reporter=listener)
    assert said(listener)[:3] == ["done before", "read and measure every case, and show them in a page", "done before"]
    assert "was made before, and stays as it is" in listener.text
    assert folders.plan.read_bytes() == plan


def test_bad_cases_are_shown_and_can_be_left_out(source, root, trained, chosen):
    """The page is there; the next call needs no source."""
    (source / "imagesTr" / "case_2_0000.nii.gz").write_bytes(b"nothing")
    with pytest.raises(AutosegError, match="case_2"):
        run(source, NUMBER, name="Tiny", preset="small", workspace=root)
    if not Workspace(root=root).names(NUMBER):
        return  # the import itself refused it
    with pytest.raises(ProblemsError, match=r"data.html shows them"):
        run(None, NUMBER, workspace=root)
    run(None, NUMBER, skip=["case_2"], workspace=root)
    run(None, NUMBER, workspace=root)
    assert len(trained) == 1


def test_a_dry_run_writes_nothing(source, root):
    """And says how long the training takes, before there is a plan."""
    outcome = run(source, NUMBER, name="Tiny", epochs=2, dry_run=True, workspace=root)
    lines = dict(outcome.steps)
    assert list(lines) == STEPS
    assert lines["train"].startswith("to do: 5 folds of 3d_fullres, about ")
    assert lines["train"].endswith(" on this machine, by the sizes of the images")
    assert not root.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"where": "moon"}, "cannot be run on 'moon'; choose --on local or slurm"),
        ({"configurations": ["4d"]}, "no configuration '4d'"),
        ({"preset": "huge"}, "no preset 'huge'"),
        ({"memory": "much"}, "much"),
        ({"epochs": 1, "budget": "2h"}, "both say how long to train"),
        ({"splits": "nowhere.json"}, "nowhere.json does not exist"),
        ({"labels": "nowhere"}, "nowhere does not exist"),
    ],
)
def test_options_that_cannot_be_followed_are_refused_at_once(source, root, options, message):
    """Nothing is written."""
    with pytest.raises(UsageError, match=message):
        run(source, NUMBER, workspace=root, **options)
    assert not root.exists()


def test_a_dataset_that_was_there_before_goes_on_without_a_source(source, root, trained, chosen):
    """With its plan, unless that is to be another one."""
    with pytest.raises(AutosegError, match="no dataset 4"):
        run(None, NUMBER, workspace=root)
    autoseg.import_dataset(source, NUMBER, name="Tiny", workspace=root)
    with pytest.raises(UsageError, match=r"already holds Dataset004_Tiny, which 'autoseg run' did not import"):
        run(source, NUMBER, workspace=root)
    with pytest.raises(UsageError, match="--link says how SOURCE is imported; name SOURCE as well"):
        run(None, NUMBER, link=True, workspace=root)
    autoseg.plan_and_preprocess(NUMBER, configurations=["2d"], preset="small", workspace=root)
    with pytest.raises(UsageError, match="is planned already, without this --preset; leave --preset out"):
        run(None, NUMBER, preset="8gb", workspace=root)
    run(None, NUMBER, configurations=["2d"], workspace=root)
    assert trained[0][0] == "2d"


def test_an_import_that_was_not_recorded_any_more_counts(source, root, trained, chosen):
    """The program may be killed between the import and the record of it."""
    run(source, NUMBER, name="Tiny", preset="small", workspace=root)
    path = Workspace(root=root).run(NUMBER).record
    RunRecord.load(path).model_copy(update={"dataset": None}).save(path)
    listener = Listener()
    run(source, NUMBER, workspace=root, reporter=listener)
    assert said(listener) == ["done before"] * 7


def test_a_second_run_is_refused(source, root):
    """One at a time works on a dataset."""
    folder = Workspace(root=root).run(NUMBER).path
    code = "import sys; from pathlib import Path; from autoseg.runtime.lock import run_alone\n"
    code += "with run_alone(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    with pytest.raises(UsageError, match="another run is at work on Dataset004"):
        run(source, NUMBER, workspace=root)
    assert stop_run(NUMBER, workspace=root) == ["the run"]
    process.communicate("")
    with pytest.raises(UsageError, match="nothing is being done for dataset 4"):
        stop_run(NUMBER, workspace=root)


def test_a_run_that_is_asked_to_stop_ends_at_its_next_step(source, root, monkeypatch):
    """And within a step, as by Ctrl-C."""
    file = Workspace(root=root).run(NUMBER).stop_file
    original = RunContext.remember

    def remember(context, **changes):
        original(context, **changes)
        file.touch()

    monkeypatch.setattr(RunContext, "remember", remember)
    with pytest.raises(Stopped, match="stopped by 'autoseg stop'"):
        run(source, NUMBER, name="Tiny", preset="small", workspace=root)
    assert not file.exists()
    assert Workspace(root=root).names(NUMBER) == [NAME]
    assert not Workspace(root=root).folders(NAME).fingerprint.exists()

    def wait(*_arguments, **_options):
        file.touch()
        time.sleep(60)

    monkeypatch.setattr("autoseg.pipeline.datasets.extract_fingerprint", wait)
    with pytest.raises(Stopped, match="stopped by 'autoseg stop'"):
        run(None, NUMBER, workspace=root)


def test_a_cascade_brings_its_coarser_network(tmp_path):
    """Which is trained first."""
    from planning_cases import golden_fingerprint, golden_info, plan_of

    plan = plan_of(golden_fingerprint("LiverCT"), golden_info("LiverCT"))
    write_volumes(tmp_path)
    record = RunRecord.model_validate({"options": {"configurations": ["3d_cascade_fullres", "2d"]}})
    context = RunContext(
        number=1, workspace=Workspace(root=tmp_path), reporter=Listener(), device="cpu", gpus=None, where=None
    )
    context.record = record
    assert isinstance(plan, Plan)
    assert context.find_configurations(plan) == ["3d_lowres", "2d", "3d_cascade_fullres"]


def begin(source: Path, root: Path) -> "subprocess.Popen[str]":
    """Starts the command as a user would."""
    command = [sys.executable, "-u", "-m", "autoseg", "run", str(source), "-d", str(NUMBER), "--name", "Tiny"]
    options = ["--preset", "small", "--epochs", "1", "--device", "cpu", "-w", str(root)]
    return subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(process: "subprocess.Popen[str]", *texts: str) -> str:
    """Reads what the program prints until a line has one of the texts, and returns that text."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        for text in texts:
            if text in line:
                return text
    raise AssertionError("".join(lines))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_that_is_ended_at_each_step_gives_what_one_that_was_not_gives(source, root, tmp_path):
    """By Ctrl-C, SIGTERM, 'autoseg stop', or killed: at each step by each of them."""
    whole = begin(source, tmp_path / "whole")
    assert "segment new scans" in whole.communicate(timeout=900)[0]
    ends = {"kill": -signal.SIGKILL, "Ctrl-C": 130, "SIGTERM": 143, "stop": 0}
    for position, step in enumerate(STEPS, start=1):
        for how, expected in ends.items():
            if step in ("train", "find_best", "report") or how in ("kill", "stop"):
                process = begin(source, root)
                wait_for(process, f"step {position} of 7, {step}: ")
                # A fast machine has trained all folds before it is ended in the last way.
                if step == "train" and wait_for(process, "step takes about", "step 6 of 7") == "step takes about":
                    time.sleep(0.5)
                if how == "stop":
                    try:
                        stop_run(NUMBER, workspace=root)
                    except UsageError:
                        assert process.wait(60) == 0  # it was done before
                else:
                    process.send_signal({"kill": signal.SIGKILL, "Ctrl-C": signal.SIGINT}.get(how, signal.SIGTERM))
                output, _ = process.communicate(timeout=120)
                # Once all is done and said, Python leaves, and lets signals end the process.
                leaving = [-signal.SIGINT, -signal.SIGTERM] if "segment new scans" in output else []
                assert process.returncode in (expected, 0, *leaving), (step, how, output)
                assert "Traceback" not in output, (step, how, output)
    last = begin(source, root)
    output = last.communicate(timeout=900)[0]
    assert last.returncode == 0, output
    assert "step 1 of 7, import: done before: Dataset004_Tiny" in output
    masks = {name for name in files_in(root) if name.endswith(".nii.gz") and "results" in name}
    assert len(masks) == 5
    assert all((root / name).read_bytes() == (tmp_path / "whole" / name).read_bytes() for name in masks)
    leftovers = [name for name in files_in(root) if ".running" in name or "unfinished" in name or name.endswith("stop")]
    assert leftovers == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_by_jobs_on_this_machine(source, root):
    """Each fold in a process of its own; a stop ends all of them, and the same command goes on."""
    options = {"name": "Tiny", "preset": "small", "epochs": 1, "where": "local", "device": "cpu", "workspace": root}
    with run_alone(root / "elsewhere"):
        outcome = run(source, NUMBER, **options)
    assert [name for name, _ in outcome.steps] == [*STEPS[:4], "jobs"]
    assert outcome.model == root / "results" / NAME
    assert run(None, NUMBER, workspace=root, where="local").model == outcome.model
