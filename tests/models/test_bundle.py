"""A model that is passed on predicts as it did at home, and one from a stranger can do no harm."""

import json
import os
import shutil
import stat
import zipfile
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from small_model_folders import cascade_in, model_in, two_in
from small_models import SMALL_INFO, small_checkpoint
from tiny_workspaces import NUMBER, folders_of

import autoseg
from autoseg.errors import AutosegError, ModelError, UsageError, WriteError
from autoseg.inference.model import load_model
from autoseg.models.bundle import describe_installed, install_model
from autoseg.models.bundle_format import CARD, LARGEST_TEXT_BYTES, MANIFEST, SCORES
from autoseg.models.checkpoint import load_checkpoint, save_checkpoint
from autoseg.models.model_facts import HeldOutScores
from autoseg.models.model_source import opened_model
from autoseg.pipeline.prediction import predict
from autoseg.pipeline.sharing import export_model
from autoseg.workspace import ModelFolder

CHECKPOINT = "3d_fullres/fold_0/checkpoint.pt"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound bundle of a small model."""
    root = tmp_path_factory.mktemp("sound")
    return export_model(model_in(root).path, root / "small.zip")


def content_of(bundle: Path) -> dict[str, bytes]:
    """Name to bytes of what a bundle holds."""
    with zipfile.ZipFile(bundle) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path: Path, content: dict[str, bytes], *, sealed: bool = True, **manifest: object) -> Path:
    """Writes a bundle as `pack` does; sealed with the right sizes and checksums, and with changes in its manifest."""
    known = json.loads(content[MANIFEST])
    if sealed:
        others = {name: data for name, data in content.items() if name != MANIFEST}
        known["files"] = {
            name: {"size": len(data), "sha256": sha256(data).hexdigest()} for name, data in others.items()
        }
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**content, MANIFEST: json.dumps({**known, **manifest}).encode()}.items():
            archive.writestr(name, data)
    return path


def refuse(bundle: Path, tmp_path: Path) -> str:
    """Makes sure that a bundle is refused, opened or installed, with the same line; nothing is left of it."""
    scratch, workspace = tmp_path / "scratch", tmp_path / "workspace"
    scratch.mkdir()
    before = os.environ.get("TMPDIR")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(scratch))
        with pytest.raises(AutosegError) as opened, opened_model(bundle):
            pytest.fail("it was opened")
        with pytest.raises(AutosegError) as installed:
            install_model(bundle, workspace)
    assert os.environ.get("TMPDIR") == before
    assert not any(scratch.iterdir())
    assert not workspace.exists() or not any(workspace.iterdir())
    text = str(installed.value).replace(str(workspace), "")
    assert str(opened.value) == str(installed.value)
    assert isinstance(opened.value, ModelError)
    assert str(bundle) in text
    assert "\n" not in text
    assert text.isprintable()
    return text


# --- There and back ---------------------------------------------------------------------------------------------------


def test_folder_bundle_and_installed_model_predict_the_same(trained_volumes: Path, tmp_path: Path) -> None:
    """Of two folds with postprocessing: the same masks from all three, and through `load_model`."""
    home = folders_of(trained_volumes)
    work = tmp_path / "work"
    bundle = export_model(NUMBER, tmp_path / "Tiny.zip", workspace=trained_volumes)
    assert install_model(bundle, work) == work / "models" / "Tiny"
    scans, masks = home.raw / "imagesTs", {}
    for name, model in {"folder": home.model("3d_fullres").path, "bundle": bundle, "installed": "Tiny"}.items():
        [path] = predict(scans, tmp_path / name, model=model, device="cpu", workspace=work)
        masks[name] = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    assert len(np.unique(masks["folder"])) > 1
    for name in ("bundle", "installed"):
        np.testing.assert_array_equal(masks[name], masks["folder"])
    [scan] = scans.iterdir()
    loaded = sitk.GetArrayFromImage(load_model(bundle, device="cpu").predict(scan))
    np.testing.assert_array_equal(loaded, masks["folder"])


def test_bundle_needs_no_workspace(trained_volumes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an empty folder, with nothing but the file."""
    bundle = export_model(folders_of(trained_volumes).model("3d_fullres").path, tmp_path / "a b.zip", folds=[0])
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert load_model(bundle, device="cpu").labels == {"background": 0, "bright": 1, "dark": 2}
    assert not any(Path.cwd().iterdir())


def test_installed_model_is_found_by_name_in_the_workspace(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By `load_model` too, in the workspace that the environment names; a folder of that name comes first."""
    install_model(bundle, tmp_path / "work", name="mine")
    monkeypatch.setenv("AUTOSEG_WORKSPACE", str(tmp_path / "work"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert load_model("mine", device="cpu").labels == SMALL_INFO.labels
    (tmp_path / "here" / "mine").mkdir()
    with pytest.raises(ModelError, match="mine holds no trained fold"):
        load_model("mine", device="cpu")


def test_names_are_taken_once(bundle: Path, tmp_path: Path) -> None:
    """A second model of the name is refused unless it shall replace the first."""
    folder = install_model(bundle, tmp_path)
    assert folder.name == "small"
    (folder / "mark").touch()
    with pytest.raises(UsageError, match=r"models.small exists; choose another name with --name, or add --replace"):
        install_model(bundle, tmp_path)
    assert (folder / "mark").exists()
    assert install_model(bundle, tmp_path, replace=True) == folder
    assert not (folder / "mark").exists()
    assert install_model(bundle, tmp_path, name="other").name == "other"
    assert {path.name for path in folder.parent.iterdir()} == {"small", "other"}
    for name in ("../up", "a/b", "", ".", "-x", "a" * 62):
        if name:
            with pytest.raises(UsageError, match="cannot be the name of a model"):
                install_model(bundle, tmp_path, name=name)


def test_installed_model_can_be_passed_on_again(trained_volumes: Path, tmp_path: Path) -> None:
    """With all that the first bundle held, to the byte but for what names the program's files."""
    first = export_model(NUMBER, tmp_path / "one.zip", workspace=trained_volumes)
    install_model(first, tmp_path)
    second = export_model("one", tmp_path / "again" / "one.zip", workspace=tmp_path)
    one, two = content_of(first), content_of(second)
    assert one.keys() == two.keys()
    for name in ("scores", "postprocessing", "training_statistics", "calibration"):
        assert one[f"3d_fullres/{name}.json"] == two[f"3d_fullres/{name}.json"]


# --- What a bundle holds ----------------------------------------------------------------------------------------------


def test_bundle_holds_what_prediction_needs_and_no_names(trained_volumes: Path, tmp_path: Path) -> None:
    """Neither names of cases nor what training goes on with; weights bit for bit."""
    home = folders_of(trained_volumes).model("3d_fullres")
    bundle = export_model(home.path, tmp_path / "tiny.zip")
    content = content_of(bundle)
    folds = {f"3d_fullres/fold_{fold}/checkpoint.pt" for fold in (0, 1, "all")}
    texts = {
        MANIFEST,
        CARD,
        *(f"3d_fullres/{name}.json" for name in ("postprocessing", "training_statistics", "scores", "calibration")),
    }
    assert content.keys() == folds | texts
    for data in content.values():
        assert b"case_" not in data
        assert str(trained_volumes).encode() not in data
    folder = ModelFolder(path=install_model(bundle, tmp_path) / "3d_fullres")
    mine, given = load_checkpoint(home.checkpoint(1)), load_checkpoint(folder.checkpoint(1))
    assert mine.training
    assert not given.training
    assert replace(given, weights={}) == replace(mine, weights={}, training={})
    assert all(torch.equal(given.weights[name], value) for name, value in mine.weights.items())
    assert folder.checkpoint(1).stat().st_size < 0.6 * home.checkpoint(1).stat().st_size


def test_names_of_patients_in_older_checkpoints_are_left_out(tmp_path: Path) -> None:
    """Groups and annotated cases of the dataset."""
    info = SMALL_INFO.model_copy(update={"groups": {"case_1": "Smith"}, "annotated": {"Smith": ("bright",)}})
    bundle = export_model(model_in(tmp_path, info=info).path, tmp_path / "m.zip")
    assert b"Smith" in (tmp_path / CHECKPOINT).read_bytes()
    assert b"Smith" not in content_of(bundle)[CHECKPOINT]
    assert b"patient_7" not in content_of(bundle)[CHECKPOINT]


def test_scores_are_those_of_the_folds_that_are_passed_on(trained_volumes: Path, tmp_path: Path) -> None:
    """Means and spread over the cases that these held out."""
    home = folders_of(trained_volumes).model("3d_fullres")
    for folds, cases in ((None, 2), ([0], 1)):
        bundle = export_model(home.path, tmp_path / "m.zip", folds=folds)
        scores = HeldOutScores.parse(content_of(bundle)[f"3d_fullres/{SCORES}"].decode(), source="")
        assert scores.cases == cases
        dice = [
            case["scores"]["bright"]["dice"]
            for fold in range(cases)
            for case in json.loads((home.validation(fold) / "summary.json").read_text())["cases"]
        ]
        assert scores.labels["bright"].dice == pytest.approx(np.mean(dice))
        assert scores.labels["bright"].dice_lowest == min(dice)
        if cases > 1:
            assert scores.labels["bright"].dice_std == pytest.approx(np.std(dice, ddof=1))


def test_card_explains_the_model(trained_volumes: Path, tmp_path: Path) -> None:
    """Labels, channels, cases, spacing, folds, scores, limits, licence, authors and two commands."""
    bundle = export_model(
        NUMBER,
        tmp_path / "Tiny.zip",
        licence="CC BY 4.0",
        about="Made by us.\n\nSee \x1b[2Jour paper.",
        workspace=trained_volumes,
    )
    card = content_of(bundle)[CARD].decode()
    for text in (
        "# Tiny\n\nMade by us.\n\nSee [2Jour paper.\n",
        "| bright | 1 |",
        "channel 0: channel_0 (each image brought to mean 0 and deviation 1)",
        "Dataset001_Tiny, 3 labelled cases",
        "3d_fullres (folds 0, 1, all): 2 epochs of 4 steps per fold",
        "on 2 held-out cases",
        "not a medical device",
        "postprocessing: ",
        "autoseg install Tiny.zip\nautoseg predict -m Tiny -i scans/ -o masks/",
        "## Licence\n\nCC BY 4.0",
    ):
        assert text in card, text
    assert "\x1b" not in card


def test_card_says_what_is_not_known(tmp_path: Path) -> None:
    """No held-out case, no licence; labels that would break its table do not."""
    info = SMALL_INFO.model_copy(update={"labels": {"background": 0, "a|b": 1, "c\x1b]0;d": 2}})
    card = content_of(export_model(model_in(tmp_path, info=info).path, tmp_path / "m.zip"))[CARD].decode()
    assert "No cases were held out, so nobody knows." in card
    assert "Not stated: ask its authors" in card
    assert "| a\\|b | 1 |" in card
    assert "| c ]0;d | 2 |" in card
    folder = install_model(tmp_path / "m.zip", tmp_path)
    assert dict(describe_installed(folder))["segments"] == "a|b, c ]0;d"


def test_unfinished_folds_stay_at_home(tmp_path: Path) -> None:
    """Unless they are asked for, which is refused; and so is a model that has no other."""
    folder = model_in(tmp_path)
    begun = replace(small_checkpoint(), fold=1, finished=False)
    save_checkpoint(begun, folder.checkpoint(1))
    assert "3d_fullres/fold_1/checkpoint.pt" not in content_of(export_model(folder.path, tmp_path / "m.zip"))
    with pytest.raises(ModelError, match=r"fold 1 of .* is not trained to its end; train it to its end, or leave"):
        export_model(folder.path, tmp_path / "n.zip", folds=[1])
    with pytest.raises(ModelError, match=r"fold 7 of .* is not trained \(there: 0, 1\)"):
        export_model(folder.path, tmp_path / "n.zip", folds=7)
    save_checkpoint(replace(begun, fold=0), folder.checkpoint(0))
    with pytest.raises(ModelError, match="holds no fold that is trained to its end"):
        export_model(folder.path, tmp_path / "n.zip")
    assert not list(tmp_path.glob("*n.zip*"))
    assert not list(tmp_path.glob(".writing*"))


def test_cascade_takes_the_coarser_model_along(tmp_path: Path) -> None:
    """And predicts from the bundle; without it a bundle is refused."""
    bundle = export_model(cascade_in(tmp_path / "home").path, tmp_path / "c.zip")
    content = content_of(bundle)
    assert {"3d_lowres/fold_0/checkpoint.pt", "3d_cascade_fullres/fold_0/checkpoint.pt"} <= content.keys()
    assert load_model(bundle, device="cpu").segmenter.previous is not None
    assert "3d_cascade_fullres (fold 0); 3d_lowres (fold 0)" in str(describe_installed(install_model(bundle, tmp_path)))
    del content["3d_lowres/fold_0/checkpoint.pt"]
    text = refuse(write(tmp_path / "half.zip", content), tmp_path)
    assert "half.zip lacks the weights of 3d_lowres; get a sound copy" in text


def test_what_find_best_chose_is_passed_on(tmp_path: Path) -> None:
    """Both configurations and best.json, without lines that name cases; predicts the same."""
    two_in(tmp_path / "home")
    bundle = export_model(tmp_path / "home", tmp_path / "best.zip")
    content = content_of(bundle)
    assert {"best.json", CHECKPOINT, "3d_lowres/fold_0/checkpoint.pt"} <= content.keys()
    assert b"case_7" not in content["best.json"]
    noise = np.random.default_rng(0).normal(size=(12, 12, 12))
    masks = [
        load_model(path, device="cpu").predict(noise, spacing_mm=(1, 1, 1))
        for path in (tmp_path / "home", bundle, install_model(bundle, tmp_path))
    ]
    assert len(np.unique(masks[0])) > 1
    np.testing.assert_array_equal(masks[1], masks[0])
    np.testing.assert_array_equal(masks[2], masks[0])
    single = export_model(tmp_path / "home", tmp_path / "one.zip", configuration="3d_lowres")
    assert not {"best.json", CHECKPOINT} & content_of(single).keys()
    with pytest.raises(UsageError, match=r"best.json says which folds predict; leave out -f, or choose"):
        export_model(tmp_path / "home", tmp_path / "n.zip", folds=[0])
    torn = {name: data for name, data in content.items() if name != "best.json"}
    assert "does not say how 3d_fullres and 3d_lowres predict" in refuse(write(tmp_path / "t.zip", torn), tmp_path)


def test_folds_that_changed_since_they_were_chosen_are_not_passed_on(tmp_path: Path) -> None:
    """The choice would be of other weights."""
    two_in(tmp_path)
    other = {name: value + 1 for name, value in small_checkpoint().weights.items()}
    model_in(tmp_path, weights=other)
    with pytest.raises(ModelError, match=r"fold 0 of .*3d_fullres changed since best.json was written; run 'autoseg f"):
        export_model(tmp_path, tmp_path / "n.zip")


def test_what_is_to_be_passed_on_must_be_clear(trained_volumes: Path, bundle: Path, tmp_path: Path) -> None:
    """Several trained configurations, none, no folder, a bundle, another ending."""
    work = tmp_path / "work"
    for name in ("raw", "results"):
        shutil.copytree(trained_volumes / name, work / name)
    results = folders_of(work).results
    shutil.copytree(results / "3d_fullres", results / "2d")
    with pytest.raises(UsageError, match=r"holds 2d and 3d_fullres; choose one with -c, or let 'autoseg find_best"):
        export_model(NUMBER, tmp_path / "n.zip", workspace=work)
    assert export_model(NUMBER, tmp_path / "m.zip", configuration="3d_fullres", workspace=work).is_file()
    shutil.rmtree(results)
    with pytest.raises(ModelError, match="holds no trained configuration; train one"):
        export_model(NUMBER, tmp_path / "n.zip", workspace=work)
    with pytest.raises(ModelError, match="holds no trained fold"):
        export_model(tmp_path / "missing", tmp_path / "n.zip")
    with pytest.raises(UsageError, match="is a file; give a model folder; a bundle is passed on as it is"):
        export_model(bundle, tmp_path / "n.zip")
    with pytest.raises(UsageError, match=r"n.pt is no name of a bundle; give one that ends in .zip"):
        export_model(tmp_path, tmp_path / "n.pt")
    assert not (tmp_path / "n.zip").exists()


# --- From a stranger --------------------------------------------------------------------------------------------------


class Hostile:
    """Would make a file named "harmed" when unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        """Runs code."""
        return open, ("harmed", "w")


def test_code_in_a_bundle_is_not_run(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint whose pickle calls a function, with right checksums."""
    monkeypatch.chdir(tmp_path)
    content = torch.load(ModelFolder(path=bundle.parent / "3d_fullres").checkpoint(0), weights_only=True)
    torch.save({**content, "training": Hostile()}, tmp_path / "hostile.pt")
    data = {**content_of(bundle), CHECKPOINT: (tmp_path / "hostile.pt").read_bytes()}
    text = refuse(write(tmp_path / "m.zip", data), tmp_path)
    assert f"m.zip/{CHECKPOINT} is damaged or holds more than weights; get a sound copy from where" in text
    assert not (tmp_path / "harmed").exists()
    torch.load(tmp_path / "hostile.pt", weights_only=False)["training"].close()  # it would have
    assert (tmp_path / "harmed").exists()


@pytest.mark.parametrize(
    "name",
    [
        "../evil.txt",
        "/etc/evil",
        "C:/evil",
        "3d_fullres\\evil",
        "3d_fullres/../../evil",
        "3d_fullres/fold_0/../fold_0/checkpoint.pt",
        "3d_fullres/fold_00/checkpoint.pt",
        "3d_fullres/fold_٣/checkpoint.pt",
        "3d_fullres/fold_0/",
        "3d_fullres/fold_0/evil.py",
        "4d/fold_0/checkpoint.pt",
        "evil\x1b[2J.txt",
        "MODEL_CARD.md\n",
        "manifest.json ",
    ],
)
def test_other_names_are_refused(bundle: Path, tmp_path: Path, name: str) -> None:
    """Only those that a bundle has lead anywhere; the line shows them without signs that terminals obey."""
    text = refuse(write(tmp_path / "m.zip", {**content_of(bundle), name: b"evil"}), tmp_path)
    assert "which no model needs; do not use it" in text
    assert not list(tmp_path.parent.rglob("*evil*"))


def test_link_in_a_bundle_is_refused(bundle: Path, tmp_path: Path) -> None:
    """Even under a name that belongs there."""
    content = content_of(bundle)
    write(tmp_path / "m.zip", content)
    card = zipfile.ZipInfo(CARD)
    card.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        for name, data in content.items():
            archive.writestr(card if name == CARD else name, data)
    assert "as a link or a device; do not use it" in refuse(tmp_path / "m.zip", tmp_path)


def test_two_files_of_one_name_are_refused(bundle: Path, tmp_path: Path) -> None:
    """One could be checked and the other used."""
    path = write(tmp_path / "m.zip", content_of(bundle))
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(CARD, b"other")
    assert "holds two files of one name" in refuse(path, tmp_path)


def change_directory(path: Path, name: str, change: Callable[[bytearray, int], None]) -> None:
    """Changes what a zip's table of contents says of a file: `change` gets the bytes, and where its entry begins."""
    data = bytearray(path.read_bytes())
    start = data.index(b"PK\x01\x02")
    while data[start + 46 : start + 46 + len(name)] != name.encode():
        start = data.index(b"PK\x01\x02", start + 4)
    change(data, start)
    path.write_bytes(data)


def test_encrypted_bundle_is_refused(bundle: Path, tmp_path: Path) -> None:
    """In words."""
    path = write(tmp_path / "m.zip", content_of(bundle))

    def encrypt(data: bytearray, start: int) -> None:
        data[start + 8] |= 1

    change_directory(path, CARD, encrypt)
    assert "is encrypted; ask for one that is not" in refuse(path, tmp_path)


@pytest.mark.parametrize("name", [CHECKPOINT, CARD])
def test_strange_packing_is_refused(bundle: Path, tmp_path: Path, name: str) -> None:
    """Checkpoints are stored as they are, so that nothing large unpacks to more than it is; texts are deflated."""
    content = content_of(bundle)
    packed = zipfile.ZIP_DEFLATED if name == CHECKPOINT else zipfile.ZIP_LZMA
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        for other, data in content.items():
            archive.writestr(other, data, packed if other == name else None)
    assert "packed in a way that 'autoseg export' does not" in refuse(tmp_path / "m.zip", tmp_path)


def test_bombs_are_refused(bundle: Path, tmp_path: Path) -> None:
    """A text of megabytes of nothing, and one that says that it is shorter than it is."""
    content = content_of(bundle)
    with zipfile.ZipFile(write(tmp_path / "m.zip", content), "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("best.json", bytes(LARGEST_TEXT_BYTES + 1))
    assert "holds best.json of 4194305 bytes, too large for a text" in refuse(tmp_path / "m.zip", tmp_path)
    shutil.rmtree(tmp_path / "scratch")
    files = json.loads(content[MANIFEST])["files"] | {"best.json": {"size": 9, "sha256": sha256(bytes(9)).hexdigest()}}
    path = write(tmp_path / "lie.zip", {**content, "best.json": bytes(10**6)}, sealed=False, files=files)

    def lie(data: bytearray, start: int) -> None:
        data[start + 24 : start + 28] = (9).to_bytes(4, "little")

    assert "is damaged: best.json is not what its manifest says" in refuse(path, tmp_path)
    shutil.rmtree(tmp_path / "scratch")
    change_directory(path, "best.json", lie)
    assert "damaged" in refuse(path, tmp_path)


def test_files_that_share_their_bytes_are_refused(bundle: Path, tmp_path: Path) -> None:
    """A zip that says that it holds more than its own size."""
    path = write(tmp_path / "m.zip", content_of(bundle))
    size = path.stat().st_size

    def grow(data: bytearray, start: int) -> None:
        data[start + 20 : start + 24] = size.to_bytes(4, "little")
        data[start + 24 : start + 28] = size.to_bytes(4, "little")

    change_directory(path, CHECKPOINT, grow)
    assert "says that it holds more than its own size" in refuse(path, tmp_path)


@pytest.mark.parametrize("keep", [0, 100, 5000, -30])
def test_cut_off_bundle_is_refused(bundle: Path, tmp_path: Path, keep: int) -> None:
    """A download that broke off."""
    path = tmp_path / "m.zip"
    path.write_bytes(bundle.read_bytes()[:keep])
    assert "is no zip, or a damaged or cut off one; get a sound copy from where it came" in refuse(path, tmp_path)


def test_changed_bytes_are_found(bundle: Path, tmp_path: Path) -> None:
    """By their checksum, or by the zip's own; and files that are missing or too many by the manifest."""
    content = content_of(bundle)
    data = bytearray(content[CHECKPOINT])
    data[len(data) // 2] ^= 1
    text = refuse(write(tmp_path / "m.zip", {**content, CHECKPOINT: bytes(data)}, sealed=False), tmp_path)
    assert f"is damaged: {CHECKPOINT} is not what its manifest says" in text
    shutil.rmtree(tmp_path / "scratch")
    flipped = bytearray(bundle.read_bytes())
    flipped[len(flipped) // 2] ^= 1
    (tmp_path / "n.zip").write_bytes(flipped)
    assert "damaged" in refuse(tmp_path / "n.zip", tmp_path)
    for other in ({**content, SCORES: b"{}"}, {name: data for name, data in content.items() if name != CARD}):
        shutil.rmtree(tmp_path / "scratch")
        text = refuse(write(tmp_path / "o.zip", other, sealed=False), tmp_path)
        assert "holds other files than its manifest says" in text
    shutil.rmtree(tmp_path / "scratch")
    text = refuse(write(tmp_path / "p.zip", {**content, CARD: b"#"}, sealed=False), tmp_path)
    assert f"is damaged: {CARD} is not what its manifest says" in text


@pytest.mark.parametrize(
    ("manifest", "text"),
    [
        (
            {"format_version": 2, "new": 1},
            "was written by a newer autoseg, in format 2; this one reads 1; update autoseg",
        ),
        ({"kind": "something"}, "is no model bundle; make one with 'autoseg export'"),
        ({"name": "../up"}, "manifest.json: name: String should match"),
        ({"autoseg": "\x1b[2J"}, "manifest.json: autoseg: String should match"),
        ({"configurations": ["4d"]}, "manifest.json: configurations.0: Input should be"),
        ({"configurations": ["2d"]}, "lacks the weights of 2d"),
        ({"further": 1}, "manifest.json: further: Extra inputs are not permitted"),
    ],
)
def test_manifest_is_read_strictly(bundle: Path, tmp_path: Path, manifest: dict[str, object], text: str) -> None:
    """Of a newer program, or of no program."""
    assert text in refuse(write(tmp_path / "m.zip", content_of(bundle), **manifest), tmp_path)


def test_a_key_that_is_there_twice_is_refused(bundle: Path, tmp_path: Path) -> None:
    """In the manifest and in each other text, since readers take one of both in silence."""
    content = content_of(bundle)
    for number, name in enumerate(name for name in (MANIFEST, "training_statistics.json") if name in content):
        twice = content[name].replace(b"{", b'{"format_version": 1,\n', 1)
        path = tmp_path / f"{number}.zip"
        with zipfile.ZipFile(write(path, {**content, name: twice} if name != MANIFEST else content)) as archive:
            entries = {entry: archive.read(entry) for entry in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for entry, data in {**entries, **({name: twice} if name == MANIFEST else {})}.items():
                archive.writestr(entry, data)
        assert f"{name} has the key 'format_version' twice in one object " in refuse(path, tmp_path)


@pytest.mark.parametrize("manifest", [b"", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_manifest_that_is_none_is_refused(bundle: Path, tmp_path: Path, manifest: bytes) -> None:
    """Whatever it is instead."""
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        for name, data in {**content_of(bundle), MANIFEST: manifest}.items():
            archive.writestr(name, data)
    assert "manifest" in (text := refuse(tmp_path / "m.zip", tmp_path)) or "no model bundle" in text


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (
            ["Dataset004_H/nnUNetTrainer__nnUNetPlans__3d_fullres/fold_0/checkpoint_final.pth"],
            "looks like a model of nnU-Net; use 'autoseg install_nnunet'",
        ),
        (["plans.json", "fold_0/checkpoint_best.pth"], "looks like a model of nnU-Net"),
        (["archive/data.pkl", "archive/version"], "is a single checkpoint; give the model folder that holds"),
        (["readme.txt"], "is no model bundle; make one with 'autoseg export'"),
        ([], "is no model bundle"),
    ],
)
def test_other_zips_are_named(tmp_path: Path, names: list[str], text: str) -> None:
    """With what to do instead."""
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        for name in names:
            archive.writestr(name, b"")
    assert text in refuse(tmp_path / "m.zip", tmp_path)


def test_checkpoint_must_be_where_it_belongs(bundle: Path, tmp_path: Path) -> None:
    """Under the name of its configuration and fold."""
    content = content_of(bundle)
    data = content.pop(CHECKPOINT)
    text = refuse(write(tmp_path / "m.zip", {**content, "3d_fullres/fold_1/checkpoint.pt": data}), tmp_path)
    assert "m.zip/3d_fullres/fold_1/checkpoint.pt is of 3d_fullres/fold_0" in text
    shutil.rmtree(tmp_path / "scratch")
    moved = {**content, "2d/fold_0/checkpoint.pt": data}
    text = refuse(write(tmp_path / "m.zip", moved, configurations=["2d"]), tmp_path)
    assert "m.zip/2d/fold_0/checkpoint.pt is of 3d_fullres/fold_0" in text


@pytest.mark.parametrize(
    "name", [*(f"3d_fullres/{name}.json" for name in ("postprocessing", "training_statistics", "scores")), "best.json"]
)
def test_texts_of_a_bundle_are_read_strictly(bundle: Path, tmp_path: Path, name: str) -> None:
    """A file that is not what its name says is refused before it is used."""
    with (
        pytest.raises(AutosegError, match=name),
        opened_model(write(tmp_path / "m.zip", {**content_of(bundle), name: b'{"run": "me"}'})),
    ):
        pytest.fail("it was opened")


def test_bundle_that_is_not_there(tmp_path: Path) -> None:
    """Missing, or a folder."""
    with pytest.raises(ModelError, match=r"m.zip does not exist; check the path"):
        install_model(tmp_path / "m.zip", tmp_path)
    with pytest.raises(ModelError, match="is no file"):
        install_model(tmp_path, tmp_path)


def test_full_disk_is_said(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line, and nothing is left."""

    def fill(source: object, target: object, limit: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("autoseg.models.bundle_format._copy", fill)
    with pytest.raises(
        WriteError,
        match=r"cannot unpack .* into .*: No space left on device; free some space or choose another disk, or let",
    ):
        load_model(bundle)
    with pytest.raises(WriteError, match="No space left on device; free some space"):
        install_model(bundle, tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_functions_are_public() -> None:
    """Under the package's own name."""
    assert autoseg.export_model is export_model
    assert autoseg.install_model is install_model
