"""Where files live."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoseg.errors import DatasetError, UsageError
from autoseg.runtime.lock import run_alone
from autoseg.workspace import (
    FOLDER_NAME,
    ModelFolder,
    Workspace,
    dataset_folder_name,
    dataset_of,
    find_workspace,
    list_folds,
)


@given(number=st.integers(1, 999), name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,20}", fullmatch=True))
def test_folder_names_can_be_read_back(number: int, name: str) -> None:
    """Number and name are found again in the folder's name."""
    match = FOLDER_NAME.match(dataset_folder_name(number, name))
    assert match is not None
    assert (int(match[1]), match[2]) == (number, name)


@pytest.mark.parametrize(("number", "name"), [(0, "a"), (1000, "a"), (1, ""), (1, "a b"), (1, "a/b"), (1, "a\n")])
def test_impossible_folder_names_are_refused(number: int, name: str) -> None:
    """A number out of range or a name with other characters is a usage error."""
    with pytest.raises(UsageError, match="1 to 999"):
        dataset_folder_name(number, name)


def test_dataset_is_found_by_its_number(tmp_path: Path) -> None:
    """All three folders follow from the number; files and other folders do not count."""
    (tmp_path / "raw" / "Dataset004_Hippocampus").mkdir(parents=True)
    (tmp_path / "raw" / "Dataset0044_Other").mkdir()
    (tmp_path / "raw" / "Dataset005_File").touch()
    workspace = Workspace(root=tmp_path)
    folders = workspace.dataset(4)
    assert folders.raw == tmp_path / "raw" / "Dataset004_Hippocampus"
    assert folders.plan == tmp_path / "preprocessed" / "Dataset004_Hippocampus" / "plan.json"
    assert folders.model("2d").path == tmp_path / "results" / "Dataset004_Hippocampus" / "2d"
    assert {folders.plan.parent, folders.fingerprint.parent, folders.splits.parent} == {folders.preprocessed}
    assert folders.cases("2d").parent == folders.preprocessed
    assert workspace.names(5) == []


def test_missing_dataset_names_those_that_are_there(tmp_path: Path) -> None:
    """The error lists what the workspace holds."""
    with pytest.raises(DatasetError, match="no dataset at all"):
        Workspace(root=tmp_path).dataset(4)
    (tmp_path / "raw" / "Dataset001_A").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"no dataset 4.*Dataset001_A"):
        Workspace(root=tmp_path).dataset(4)


def test_two_datasets_of_one_number_are_refused(tmp_path: Path) -> None:
    """It is never guessed which of two datasets is meant."""
    for name in ("A", "B"):
        (tmp_path / "raw" / f"Dataset001_{name}").mkdir(parents=True)
    with pytest.raises(DatasetError, match="Dataset001_A and Dataset001_B"):
        Workspace(root=tmp_path).dataset(1)


def test_trained_folds_have_a_checkpoint(tmp_path: Path) -> None:
    """Folds are listed by number, "all" last, and only if they hold a checkpoint."""
    model = ModelFolder(path=tmp_path)
    for fold in (10, 2, "all"):
        model.fold(fold).mkdir()
        model.checkpoint(fold).touch()
    model.fold(3).mkdir()
    assert model.trained_folds() == [2, 10, "all"]
    assert model.progress(2, "csv").parent == model.validation(2).parent == model.fold(2)


def test_running_folds_are_held_by_a_lock(tmp_path: Path) -> None:
    """Whether they have a checkpoint yet or not; and each has its own files."""
    model = ModelFolder(path=tmp_path)
    for fold in (4, 0, "all"):
        with run_alone(model.fold(fold)):
            assert model.running_folds() == [fold]
            model.checkpoint(fold).touch()
    assert model.running_folds() == []
    paths = (model.stop_file(0), model.tensorboard(0), model.mlflow_run(0))
    assert {path.parent for path in paths} == {model.fold(0)}
    assert model.mlflow.parent == model.path


def test_a_single_fold_is_a_list_of_one() -> None:
    """Also if it is a word, which is not taken letter by letter."""
    assert [list_folds(folds) for folds in (0, "cv", (1, 2), ["all"])] == [[0], ["cv"], [1, 2], ["all"]]


def test_workspace_is_given_or_set_or_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A given path wins over AUTOSEG_WORKSPACE, which wins over the current folder."""
    monkeypatch.delenv("AUTOSEG_WORKSPACE", raising=False)
    monkeypatch.chdir(tmp_path)
    assert find_workspace().root == tmp_path
    monkeypatch.setenv("AUTOSEG_WORKSPACE", str(tmp_path / "set"))
    assert find_workspace().root == tmp_path / "set"
    assert find_workspace(tmp_path / "given").root == tmp_path / "given"


def test_a_choice_lies_beside_the_configurations_it_chose_from(tmp_path: Path) -> None:
    """Each plan has its own; in a copied folder it is found in the same way."""
    folders = Workspace(root=tmp_path).folders("Dataset001_Name")
    assert folders.best_model == tmp_path / "results" / "Dataset001_Name" / "best.json"
    named = folders.with_plan("large")
    assert named.best_model == tmp_path / "results" / "Dataset001_Name" / "large" / "best.json"
    copied = ModelFolder(path=named.models)
    assert (copied.best_model, copied.member("2d")) == (named.best_model, named.model("2d"))
    assert named.ensemble("2d+3d_fullres").parent.parent == named.models
    with pytest.raises(UsageError, match="'ensembles' cannot be the name of a plan"):
        folders.with_plan("ensembles")


def test_installed_models_have_names_of_folders(tmp_path: Path) -> None:
    """And nothing that leads elsewhere."""
    workspace = Workspace(root=tmp_path)
    assert workspace.installed("Liver_2") == tmp_path / "models" / "Liver_2"
    for name in ("", ".", "..", "../a", "a/b", "a\\b", "C:a", "-a", "a b", "a.zip", "ä", "a\n", "a" * 62):
        with pytest.raises(UsageError, match="cannot be the name of a model; take a letter"):
            workspace.installed(name)


def test_dataset_of_a_model_is_found_where_it_was_trained(tmp_path: Path) -> None:
    """From each folder of its results; a copy elsewhere has none."""
    folders = Workspace(root=tmp_path).folders("Dataset001_Name")
    for path in (folders.models, folders.model("2d").path, folders.with_plan("large").model("2d").path):
        assert dataset_of(path) == folders
    assert dataset_of(tmp_path / "copies" / "Dataset001_Name" / "2d") is None
    assert dataset_of(tmp_path) is None
