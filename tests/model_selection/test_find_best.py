"""Choice of the best configuration or pair, and prediction by the choice."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from phantoms import Listener
from tiny_workspaces import NUMBER, dice, edit_training, files_in, folders_of, plan_tiny, write_splits, write_volumes
from typer.testing import CliRunner

import autoseg
from autoseg.cli.app import app
from autoseg.cli.terminal import console
from autoseg.datasets.dataset import Dataset
from autoseg.errors import ArtifactError, ModelError, ProblemsError, UsageError
from autoseg.evaluation.summary import Summary, summarize
from autoseg.imaging.geometry import Volume
from autoseg.imaging.image_files import read_image, read_label_map, write_label_map
from autoseg.imaging.postprocessing import NO_RULES
from autoseg.inference.ensemble import EnsembleSegmenter, make_ensemble
from autoseg.inference.loading import PredictionOptions, load_segmenter
from autoseg.model_selection import ensemble_validation
from autoseg.models.best_model import BestModel
from autoseg.pipeline.prediction import predict
from autoseg.pipeline.scores import find_best
from autoseg.pipeline.training import train
from autoseg.workspace import ENSEMBLES, DatasetFolders, ModelFolder

PAIR = "2d+3d_fullres"
CASES = ("case_1", "case_2", "case_3", "case_4")
SPLITS = [(CASES[2:], CASES[:2]), (CASES[:2], CASES[2:])]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace of two configurations, both trained in both folds."""
    root = tmp_path_factory.mktemp("selection")
    write_volumes(root, cases=4)
    plan_tiny(root, epochs=3)
    write_splits(root, SPLITS)
    for name in ("2d", "3d_fullres"):
        train(NUMBER, name, "cv", workspace=root, device="cpu")
    return root


@pytest.fixture(scope="module")
def compared(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same workspace after the comparison."""
    root = shutil.copytree(trained, tmp_path_factory.mktemp("compared") / "workspace")
    find_best(NUMBER, workspace=root, device="cpu")
    return root


@pytest.fixture
def own(compared: Path, tmp_path: Path) -> DatasetFolders:
    """A copy that a test may change."""
    return folders_of(shutil.copytree(compared, tmp_path / "workspace"))


def root_of(folders: DatasetFolders) -> Path:
    """Returns the workspace."""
    return folders.raw.parents[1]


def load(folder: ModelFolder, folds: int | None = None):
    """Loads the segmenter of a folder."""
    return load_segmenter(folder.path, PredictionOptions(folds=folds, device="cpu"), say=print, warn=print)


def set_score(folder: Path, value: float, metric: str = "dice") -> None:
    """Sets a score of all cases in a summary, and so the means of the labels."""
    path = folder / "summary.json"
    summary = Summary.load(path)
    cases = [
        case.model_copy(
            update={"scores": {name: scores.model_copy(update={metric: value}) for name, scores in case.scores.items()}}
        )
        for case in summary.cases
    ]
    summarize(cases, tuple(summary.mean)).save(path)


def set_scores(folders: DatasetFolders, scores: dict[str, float]) -> None:
    """Sets the Dice of configurations and of the pair."""
    for name, value in scores.items():
        if name != PAIR:
            for fold in range(2):
                set_score(folders.model(name).validation(fold), value)
            continue
        for path in (folders.ensemble(PAIR) / ".judged").glob("*.json"):
            content = json.loads(path.read_text())
            for label in content["result"]["scores"].values():
                label["dice"] = value
            path.write_text(json.dumps(content))


@pytest.mark.slow
def test_each_case_is_segmented_by_those_that_never_saw_it(compared: Path) -> None:
    """The pair is the mean of the two folds that held the case out, on the grid of its image."""
    folders = folders_of(compared)
    summary = Summary.load(folders.ensemble(PAIR) / "summary.json")
    assert tuple(case.name for case in summary.cases) == CASES
    for case, fold in [(summary.cases[0], 0), (summary.cases[3], 1)]:
        image = read_image((folders.raw / "imagesTr" / f"{case.name}_0000.nii.gz",))
        voices = [load(folders.model(name), fold) for name in ("2d", "3d_fullres")]
        expected = make_ensemble(voices, NO_RULES).segment(image)
        written = read_label_map(folders.ensemble(PAIR) / case.prediction_file)
        assert written.geometry.difference(expected.geometry) is None
        assert (written.array != expected.array).mean() < 1e-3  # what was stored for training is of less precision
        ground_truth = read_label_map(folders.raw / "labelsTr" / f"{case.name}.nii.gz").array
        assert case.scores["bright"].dice == pytest.approx(dice(ground_truth, written.array, 1))
    assert files_in(folders.results / ENSEMBLES) == {
        *(f"{PAIR}/{name}.nii.gz" for name in CASES),
        *(f"{PAIR}/.judged/{name}.json" for name in CASES),
        f"{PAIR}/summary.json",
        f"{PAIR}/summary.csv",
    }


def test_the_choice_holds_its_evidence(compared: Path) -> None:
    """Every candidate has the scores of its summary, single configurations come first; the folds have their digests."""
    folders = folders_of(compared)
    choice = BestModel.load(folders.best_model)
    assert [one.name for one in choice.candidates] == ["2d", "3d_fullres", PAIR]
    for one in choice.candidates:
        folder = folders.ensemble(PAIR) if one.name == PAIR else folders.model(one.name).path
        summary = Summary.load(folder / "summary.json")
        assert one.mean_dice == pytest.approx(summary.foreground_mean.dice)
        assert one.dice == pytest.approx({name: mean.dice for name, mean in summary.mean.items()})
        assert one.cases == 4
    best = max(choice.candidates, key=lambda one: one.mean_dice)
    assert (choice.winner, choice.name) == (best, best.name)
    assert {name: [one.fold for one in folds] for name, folds in choice.folds.items()} == {
        name: [0, 1] for name in best.configurations
    }
    assert choice.describe().startswith(f"{best.name}, mean Dice {best.mean_dice:.4f} on 4 held-out cases (the largest")


@pytest.mark.parametrize(
    ("scores", "best", "reasons"),
    [
        ({"2d": 0.5, "3d_fullres": 0.75, PAIR: 0.625}, "3d_fullres", ["0.2500 below", "the largest mean Dice"]),
        ({"2d": 0.5, "3d_fullres": 0.5, PAIR: 0.75}, PAIR, ["0.2500 below", "0.2500 below", "the largest mean Dice"]),
        (
            {"2d": 0.5, "3d_fullres": 0.5, PAIR: 0.5},
            "2d",
            ["the largest mean Dice", *2 * ["no better, and tried later"]],
        ),
        ({"2d": float("nan"), "3d_fullres": 0.0, PAIR: 0.0}, "3d_fullres", ["its Dice is undefined"]),
    ],
)
def test_the_largest_mean_wins_and_of_equals_the_first(
    own: DatasetFolders, scores: dict[str, float], best: str, reasons: list[str]
) -> None:
    """Single configurations come before pairs, and an undefined score loses."""
    set_scores(own, scores)
    choice = find_best(NUMBER, workspace=root_of(own), device="cpu")
    assert choice.name == best
    assert choice == BestModel.load(own.best_model)
    assert [one.reason for one in choice.candidates][: len(reasons)] == reasons
    assert [one.name for one in choice.candidates if one.chosen] == [best]


def test_a_stopped_comparison_goes_on(
    trained: Path, compared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is decided before the end; finished cases are reused; the result is the same."""
    root = shutil.copytree(trained, tmp_path / "workspace")
    folders, written = folders_of(root), []
    save = ensemble_validation.save_result

    def stop_at_third(prediction, path):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path.name)
        return save(prediction, path)

    with monkeypatch.context() as patch:
        patch.setattr(ensemble_validation, "save_result", stop_at_third)
        with pytest.raises(KeyboardInterrupt):
            find_best(NUMBER, workspace=root, device="cpu")
    assert not folders.best_model.exists()
    listener = Listener()
    choice = find_best(NUMBER, workspace=root, device="cpu", reporter=listener)
    assert "2 of 4 segmentations by pairs were made by an earlier run" in listener.lines
    assert listener.totals["pairs on held-out cases"] == 4  # two cases, two configurations
    assert listener.advanced["pairs on held-out cases"] == pytest.approx(4)
    assert choice == BestModel.load(folders_of(compared).best_model)
    again = Listener()
    find_best(NUMBER, workspace=root, device="cpu", reporter=again)
    assert "4 of 4 segmentations by pairs were made by an earlier run" in again.lines
    assert "pairs on held-out cases" not in again.totals


def test_what_other_weights_made_is_made_anew(own: DatasetFolders) -> None:
    """Cases are segmented again for a fold that was trained further, and for results that were removed or damaged."""
    edit_training(root_of(own), epochs=3)
    train(NUMBER, "2d", 1, extend="1", workspace=root_of(own), device="cpu")
    (own.ensemble(PAIR) / "case_1.nii.gz").unlink()
    listener = Listener()
    find_best(NUMBER, workspace=root_of(own), device="cpu", reporter=listener)
    assert "1 of 4 segmentations by pairs were made by an earlier run" in listener.lines
    (own.ensemble(PAIR) / ".judged" / "case_2.json").write_text("{")
    find_best(NUMBER, workspace=root_of(own), device="cpu", reporter=listener)
    assert listener.lines[-1] == "3 of 4 segmentations by pairs were made by an earlier run"


def test_configurations_are_left_out_with_the_reason(own: DatasetFolders) -> None:
    """Each exclusion has its line and the command that helps; the others are compared."""
    root, model = root_of(own), own.model("3d_fullres")

    def lines() -> list[str]:
        listener = Listener()
        choice = find_best(NUMBER, workspace=root, device="cpu", reporter=listener)
        assert choice.name == "2d"
        assert [one.reason for one in choice.candidates] == ["the only candidate"]
        assert list(choice.left_out) == [line.removeprefix("left out: ") for line in listener.lines]
        return list(choice.left_out)

    model.validation(1).rename(own.results / "away")
    what = "3d_fullres: fold 1 is not trained to the end and judged; run 'autoseg train -d 1 -c 3d_fullres -f 1'"
    assert lines() == [what]
    (own.results / "away").rename(model.validation(1))
    model.checkpoint(0).rename(own.results / "away")
    assert lines() == ["3d_fullres: fold 0 is not trained; run 'autoseg train -d 1 -c 3d_fullres -f 0'"]
    model.checkpoint(0).write_bytes(b"no checkpoint")
    [line] = lines()
    assert "fold_0/checkpoint.pt is damaged or no checkpoint" in line
    (own.results / "away").replace(model.checkpoint(0))

    plan = json.loads(own.plan.read_text())
    plan["configurations"]["3d_fullres"]["spacing_mm"] = [1.25, 1.25, 1.25]
    own.plan.write_text(json.dumps(plan))
    [line] = lines()
    assert line == (
        "3d_fullres: folds 0 1 are trained for other voxels than plan.json says now; "
        "run 'autoseg train -d 1 -c 3d_fullres -f cv --restart'"
    )


def test_nothing_to_compare_is_said_line_by_line(own: DatasetFolders) -> None:
    """Folds that were trained with other cases than those of splits.json are excluded."""
    before = own.best_model.read_bytes()
    write_splits(root_of(own), [SPLITS[0], ((CASES[0],), CASES[2:])])
    with pytest.raises(ProblemsError) as caught:
        find_best(NUMBER, workspace=root_of(own), device="cpu")
    what = "fold 1 is trained with other cases than splits.json says now; run 'autoseg train -d 1 -c"
    assert caught.value.lines == tuple(f"{name}: {what} {name} -f 1 --restart'" for name in ("2d", "3d_fullres"))
    assert own.best_model.read_bytes() == before


def test_options_restrict_the_candidates(own: DatasetFolders) -> None:
    """Only some configurations, or no pairs, are compared; then nothing is predicted."""
    root, listener = root_of(own), Listener()
    shutil.rmtree(own.results / ENSEMBLES)
    alone = find_best(NUMBER, ensembles=False, workspace=root, device="cpu", reporter=listener)
    assert [one.name for one in alone.candidates] == ["2d", "3d_fullres"]
    one = find_best(NUMBER, configurations=["3d_fullres"], workspace=root, device="cpu", reporter=listener)
    assert (one.name, len(one.candidates)) == ("3d_fullres", 1)
    assert set(listener.totals) == {"postprocessing", "morphology"}
    assert not (own.results / ENSEMBLES).exists()
    with pytest.raises(UsageError, match="no configuration '3d_lowres'"):
        find_best(NUMBER, configurations=["3d_lowres"], workspace=root, device="cpu")


def test_postprocessing_is_found_for_the_best(own: DatasetFolders) -> None:
    """Rules are found on its held-out segmentations; islands in them make rules that its configuration lacked."""
    set_scores(own, {"2d": 1.0, "3d_fullres": 0.0, PAIR: 0.0})
    for fold in range(2):
        folder = own.model("2d").validation(fold)
        for case in Summary.load(folder / "summary.json").cases:
            label = read_label_map(own.raw / "labelsTr" / f"{case.name}.nii.gz")
            array = label.array.copy()
            array[0, 0, -2:] = 1
            write_label_map(folder / case.prediction_file, Volume(array=array, geometry=label.geometry))
    choice = find_best(NUMBER, workspace=root_of(own), device="cpu")
    assert choice.name == "2d"
    assert choice.rules.keep_largest_foreground or choice.rules.keep_largest == ((1,),)
    assert load(ModelFolder(path=own.models)).rules == choice.rules


def scans_of(folders: DatasetFolders) -> Path:
    """Returns the folder of the new scan."""
    return folders.raw / "imagesTs"


def predicted(folders: DatasetFolders, output: Path, **options) -> tuple[np.ndarray, list[str]]:
    """Predicts the new scan; returns its mask and the messages."""
    listener = Listener()
    if "model" not in options:
        options |= {"number": NUMBER, "workspace": root_of(folders)}
    [path] = predict(scans_of(folders), output, device="cpu", reporter=listener, **options)
    return read_label_map(path).array, listener.lines


def test_prediction_goes_by_the_choice(own: DatasetFolders, tmp_path: Path) -> None:
    """The choice predicts without options, from a copied folder, and from Python; one line says why."""
    set_scores(own, {"2d": 0.5, "3d_fullres": 0.5, PAIR: 0.75})
    choice = find_best(NUMBER, workspace=root_of(own), device="cpu")
    mask, lines = predicted(own, tmp_path / "out")
    assert lines == [f"as best.json chose: {choice.describe()}"]
    assert lines[0].startswith(f"as best.json chose: {PAIR}, mean Dice 0.7500 on 4 held-out cases (the largest mean")
    away = shutil.copytree(own.models, tmp_path / "anywhere")
    np.testing.assert_array_equal(predicted(own, tmp_path / "by_folder", model=away)[0], mask)
    model = autoseg.load_model(away, device="cpu")
    assert isinstance(model.segmenter, EnsembleSegmenter)
    [scan] = scans_of(own).iterdir()
    voxels = read_image((scan,))
    np.testing.assert_array_equal(model.predict(voxels.array, spacing_mm=voxels.geometry.spacing_mm), mask)
    assert model.labels == {"background": 0, "bright": 1, "dark": 2}


def test_what_is_asked_for_comes_before_the_choice(own: DatasetFolders, tmp_path: Path) -> None:
    """Configurations or folds that are named predict with their own rules, without a message."""
    set_scores(own, {"2d": 1.0, "3d_fullres": 0.5, PAIR: 0.5})
    find_best(NUMBER, workspace=root_of(own), device="cpu")
    chosen, _ = predicted(own, tmp_path / "chosen")
    named, lines = predicted(own, tmp_path / "named", configuration="3d_fullres")
    assert lines == []
    assert (named != chosen).any()
    folder = predicted(own, tmp_path / "folder", model=own.model("3d_fullres").path)[0]
    np.testing.assert_array_equal(named, folder)
    of_one_fold, lines = predicted(own, tmp_path / "fold", folds=1)
    assert lines == []
    by_name = predicted(own, tmp_path / "both", folds=1, configuration="3d_fullres")[0]
    np.testing.assert_array_equal(of_one_fold, by_name)
    with pytest.raises(UsageError, match=r"best\.json says which folds predict; leave out -f, or choose a conf"):
        predicted(own, tmp_path / "refused", model=own.models, folds=1)


def test_a_choice_that_no_longer_holds_is_said_in_one_line(own: DatasetFolders, tmp_path: Path) -> None:
    """Folds that changed since predict with a warning; a configuration that is missing is an error."""
    set_scores(own, {"2d": 0.5, "3d_fullres": 0.5, PAIR: 0.75})
    find_best(NUMBER, workspace=root_of(own), device="cpu")
    line = "fold 1 of 2d changed since best.json was written; 'autoseg find_best' chooses anew"
    shutil.copy(own.model("2d").checkpoint(1), tmp_path / "kept.pt")
    shutil.copy(own.model("2d").checkpoint(0), own.model("2d").checkpoint(1))
    assert predicted(own, tmp_path / "out")[1][0] == line
    shutil.copy(tmp_path / "kept.pt", own.model("2d").checkpoint(0))
    assert predicted(own, tmp_path / "out")[1][0] == line.replace("fold 1", "folds 0 1")
    with pytest.warns(UserWarning, match=r"folds 0 1 of 2d changed since best\.json was written"):
        autoseg.load_model(own.models, device="cpu")
    own.model("2d").checkpoint(1).unlink()
    with pytest.raises(ModelError, match=r"fold 1 of .*2d is not trained \(there: 0\)"):
        predicted(own, tmp_path / "out")
    shutil.rmtree(own.model("2d").path)
    with pytest.raises(
        ModelError, match=r"chose 2d\+3d_fullres, but .*2d holds no trained fold; restore it, run 'auto"
    ):
        predicted(own, tmp_path / "out")
    assert len(predicted(own, tmp_path / "out", configuration="3d_fullres")) == 2
    own.best_model.write_text('{"format_version": 1}')
    with pytest.raises(ArtifactError, match=r"best\.json: dataset: Field required"):
        predicted(own, tmp_path / "out")


def test_a_choice_names_the_folds_of_its_configurations() -> None:
    """An edited file that contradicts itself is refused by its field."""
    text = (
        '{"dataset": "D", "configurations": ["2d"], "folds": {"3d_fullres": [{"fold": 0, "weights": ""}]},'
        '"rules": {}, "candidates": []}'
    )
    with pytest.raises(ArtifactError, match="folds must name those of each of the configurations, and of no other"):
        BestModel.parse(text, source="best.json")
    choice = BestModel.parse(text.replace("3d_fullres", "2d"), source="best.json")
    assert choice.describe() == "2d; postprocessing: none"


def test_dataset_of_the_comparison_is_left_alone(trained: Path, compared: Path) -> None:
    """Only best.json and the ensembles are written."""
    folders = folders_of(compared)
    new = files_in(folders.results) - files_in(folders_of(trained).results)
    assert {name for name in new if not name.startswith(ENSEMBLES)} == {"best.json"}
    assert len(Dataset.open(folders.raw).cases) == 4


def test_the_decision_is_shown_as_a_table(own: DatasetFolders, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row for each candidate with its Dice and the reason, a line for each trial, and the path of the decision."""
    monkeypatch.setattr(console, "_width", 100)
    set_scores(own, {"2d": 0.5, "3d_fullres": 0.75, PAIR: 0.625})
    arguments = ["find_best", "-d", str(NUMBER), "-w", str(root_of(own)), "--device", "cpu"]
    shown = CliRunner().invoke(app, arguments, catch_exceptions=False).output
    assert "Dataset001_Tiny, 4 held-out cases: mean Dice" in shown
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines() if line.startswith("│")]
    assert rows == [
        ["2d", "0.5000", "0.5000", "0.5000", "0.2500 below"],
        ["* 3d_fullres", "0.7500", "0.7500", "0.7500", "the largest mean Dice"],
        [PAIR, "0.6250", "0.6250", "0.6250", "0.1250 below"],
    ]
    choice = BestModel.load(own.best_model)
    for line in (*(f"- {trial.describe()}" for trial in choice.rules.evidence), choice.rules.describe()):
        assert line in shown.splitlines()
    assert f"{own.best_model}: 'autoseg predict -d 1' goes by it" in shown
    alone = CliRunner().invoke(app, [*arguments, "--no-ensembles", "-c", "2d"], catch_exceptions=False).output
    assert [line.split("│")[1].strip() for line in alone.splitlines() if line.startswith("│")] == ["* 2d"]
    assert "the only candidate" in alone
    refused = CliRunner().invoke(app, [*arguments, "-c", "3d_lowres"])
    assert refused.exit_code == 2
    assert "has no configuration '3d_lowres'; choose from 2d, 3d_fullres" in refused.output


@pytest.mark.parametrize("metric", ["nsd", "lesion_f1"])
def test_another_metric_may_decide(own: DatasetFolders, metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the largest Dice loses; the table and the file say what decided, and the Dice stands there as well."""
    for name, (dice_value, value) in {"2d": (0.9, 0.25), "3d_fullres": (0.5, 0.75)}.items():
        for fold in range(2):
            set_score(own.model(name).validation(fold), dice_value)
            set_score(own.model(name).validation(fold), value, metric)
    command = f"find_best -d {NUMBER} --metric {metric} --no-ensembles -w {root_of(own)}"
    monkeypatch.setattr(console, "_width", 200)  # the console may have been made before, at another width
    shown = CliRunner().invoke(app, command.split())
    assert shown.exit_code == 0, shown.output
    choice = BestModel.load(own.best_model)
    title = {"nsd": "NSD", "lesion_f1": "lesion F1"}[metric]
    assert (choice.name, choice.metric) == ("3d_fullres", metric)
    assert {one.name: (one.mean_dice, one.score, one.reason) for one in choice.candidates} == {
        "2d": (pytest.approx(0.9), pytest.approx(0.25), "0.5000 below"),
        "3d_fullres": (pytest.approx(0.5), pytest.approx(0.75), f"the largest mean {title}"),
    }
    assert choice.describe().startswith(f"3d_fullres, mean {title} 0.7500 on 4 held-out cases")
    assert f"mean {title}" in shown.output


def test_an_unknown_metric_is_refused(own: DatasetFolders) -> None:
    """Before any work, with those that there are."""
    with pytest.raises(UsageError, match="there is no metric 'hd95_mm' to choose by; choose from dice, nsd, lesion_f1"):
        find_best(NUMBER, metric="hd95_mm", workspace=root_of(own), device="cpu")
