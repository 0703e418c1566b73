"""Which model is meant, and which folds of it; the same answer for prediction, `load_model` and export."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from autoseg.errors import ModelError, UsageError
from autoseg.models.model_source import choose_source, find_model, select_folds
from autoseg.workspace import DatasetFolders, Fold, ModelFolder, Workspace


def with_folds(folder: ModelFolder, *folds: Fold) -> ModelFolder:
    """A model folder with empty files in place of checkpoints."""
    for fold in folds:
        folder.fold(fold).mkdir(parents=True)
        folder.checkpoint(fold).touch()
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> DatasetFolders:
    """A dataset of which nothing is trained, by the usual plan and by one that is named."""
    folders = Workspace(root=tmp_path).folders("Dataset001_Tiny")
    for folder in (folders.raw, folders.models, folders.preprocessed / "large"):
        folder.mkdir(parents=True)
    folders.with_plan("large").plan.touch()
    return folders


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ((), [0, 2]),
        (("cv",), [0, 2]),
        ((2, 0, 2), [2, 0]),
        (("all",), ["all"]),
        (("cv", "all"), [0, 2, "all"]),
    ],
)
def test_folds_are_those_asked_for_or_all_numbers(tmp_path: Path, asked: Sequence[Fold], expected: list[Fold]) -> None:
    """In the order in which they are named, each once."""
    assert select_folds(with_folds(ModelFolder(path=tmp_path), 0, 2, "all"), asked) == expected


def test_a_model_of_all_cases_is_taken_if_it_is_the_only_one(tmp_path: Path) -> None:
    """Also where the numbered folds are asked for; a fold that is missing is named, with those that are there."""
    folder = with_folds(ModelFolder(path=tmp_path), "all")
    assert select_folds(folder) == select_folds(folder, ["cv"]) == ["all"]
    with pytest.raises(ModelError, match=r"fold 1 of .* is not trained \(there: all\); choose with -f"):
        select_folds(folder, [1])


def test_a_model_is_named_in_one_way() -> None:
    """By its path or by the number of its dataset; a path leaves nothing else to say."""
    assert choose_source("folder", None, None, None) == "folder"
    assert choose_source(None, 4, "2d", "large") == 4
    for model, number in (("folder", 4), (None, None)):
        with pytest.raises(UsageError, match="give either -m FOLDER or -d NUMBER"):
            choose_source(model, number, None, None)
    with pytest.raises(UsageError, match="holds one configuration of one plan"):
        choose_source("folder", None, "2d", None)
    with pytest.raises(UsageError, match="holds one plan; leave out --plan"):
        find_model("folder", plan_name="large")


def test_the_only_trained_configuration_of_a_dataset_is_meant(folders: DatasetFolders, tmp_path: Path) -> None:
    """Of several the default, or an error; best.json comes before them, and a name before best.json."""
    with pytest.raises(ModelError, match=r"holds no trained configuration; train one with 'autoseg train -d 1'"):
        find_model(1, workspace=tmp_path)
    two = with_folds(folders.model("2d"), 0).path
    assert find_model(1, workspace=tmp_path) == two
    volumes = with_folds(folders.model("3d_fullres"), 0).path
    assert find_model(1, default="3d_fullres", workspace=tmp_path) == volumes
    with pytest.raises(UsageError, match=r"holds 2d and 3d_fullres; choose one with -c"):
        find_model(1, workspace=tmp_path)
    folders.best_model.touch()
    assert find_model(1, workspace=tmp_path) == folders.models
    assert find_model(1, with_best_model=False, default="3d_fullres", workspace=tmp_path) == volumes
    assert find_model(1, "2d", workspace=tmp_path) == two


def test_a_plan_that_was_trained_in_place_of_the_usual_one_is_named(folders: DatasetFolders, tmp_path: Path) -> None:
    """Whether or not a configuration is named."""
    large = with_folds(folders.with_plan("large").model("2d"), 0).path
    for configuration in (None, "2d"):
        with pytest.raises(UsageError, match=r"by the usual plan of Dataset001_Tiny, but by large; add --plan large"):
            find_model(1, configuration, default="3d_fullres", workspace=tmp_path)
    assert find_model(1, plan_name="large", workspace=tmp_path) == large


def test_what_lies_at_a_path_comes_before_an_installed_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is neither stays a path, so that the error can say what is missing."""
    monkeypatch.chdir(tmp_path)
    assert find_model("liver", workspace=tmp_path / "work") == Path("liver")
    installed = tmp_path / "work" / "models" / "liver"
    installed.mkdir(parents=True)
    assert find_model("liver", workspace=tmp_path / "work") == installed
    assert find_model("liver", "2d", workspace=tmp_path / "work") == installed / "2d"
    Path("liver").mkdir()
    assert find_model("liver", workspace=tmp_path / "work") == Path("liver")


def test_a_folder_of_configurations_names_one_that_is_trained(tmp_path):
    """The folder of a dataset holds none itself, as long as nothing says which configuration is the best."""
    with_folds(ModelFolder(path=tmp_path / "model" / "3d_fullres"), 0)
    (tmp_path / "model" / "2d").mkdir()
    with pytest.raises(ModelError, match=r"give the configuration, such as .*model/3d_fullres"):
        select_folds(ModelFolder(path=tmp_path / "model"))
