"""Models with unsupported features, and ambiguous sources, are refused in one line that names them."""

import io
import json
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_nnunet import GOLDEN, change_json, unpack

from autoseg.errors import ArtifactError, AutosegError, DatasetError, ModelError, UsageError
from autoseg.nnunet.install import install_standalone
from autoseg.nnunet.plans import LIBRARY


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A recorded model folder of a plain network, to be modified."""
    return next(unpack("plain", tmp_path / "results").iterdir())


def refuse(source: Path, error: type[AutosegError] = ModelError) -> str:
    """Returns the line that says why a model is not installed; nothing is left of it."""
    with pytest.raises(error) as caught:
        install_standalone(source, source.parent / "work")
    text = str(caught.value)
    assert "\n" not in text
    assert text.isprintable()
    assert not (source.parent / "work").exists()
    return text


ONE = "configurations__3d_fullres"
NETWORK = f"{ONE}__architecture__arch_kwargs"
DATA = f"{ONE}__resampling_fn_data"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({f"{ONE}__architecture__network_class_name": "my.nets.Mamba"}, "the network 'my.nets.Mamba' is unknown here"),
        (
            {f"{ONE}__architecture__network_class_name": f"{LIBRARY}architectures.unet.ResidualUNet"},
            "ResidualUNet' is unknown here",
        ),
        ({f"{ONE}__preprocessor_name": "MyPreprocessor"}, "the preprocessor 'MyPreprocessor' is unknown here"),
        ({f"{ONE}__normalization_schemes": ["MyNorm", "MyNorm"]}, "the normalization 'MyNorm' is unknown here"),
        ({f"{ONE}__normalization_schemes": ["CTNormalization"]}, "use_mask_for_norm must have an entry for each"),
        (
            {f"{ONE}__normalization_schemes": ["CTNormalization"], f"{ONE}__use_mask_for_norm": [False]},
            "has 1 entries for 2 channels",
        ),
        ({DATA: "resample_torch_fornnunet"}, "resampling_fn_data is 'resample_torch_fornnunet', which is unknown here"),
        ({f"{DATA}_kwargs__order": 1}, "resampling_fn_data resamples by"),
        ({f"{DATA}_kwargs__force_separate_z": True}, "resampling_fn_data resamples by"),
        ({"label_manager": "MyLabels"}, "handles labels by 'MyLabels'"),
        ({"transpose_backward": [2, 0, 1]}, "transpose_backward must be the inverse of transpose_forward"),
        ({"foreground_intensity_properties_per_channel": {}}, "CT for channel 0, of which no intensities are known"),
        ({f"{NETWORK}__n_stages": 1}, "a network of one resolution has no way up"),
        ({f"{NETWORK}__n_stages": 4}, "the network has 4 stages, and a list for"),
        ({f"{NETWORK}__nonlin": "torch.nn.ReLU"}, "the activation 'torch.nn.ReLU'"),
        ({f"{NETWORK}__nonlin_kwargs": {"negative_slope": 0.2}}, "the activation 'torch.nn.LeakyReLU' with"),
        ({f"{NETWORK}__norm_op": "torch.nn.BatchNorm3d"}, "the norm 'torch.nn.BatchNorm3d' is unknown here"),
        ({f"{NETWORK}__norm_op_kwargs": {"eps": 0.1, "affine": True}}, "a norm of {'eps': 0.1"),
        ({f"{NETWORK}__conv_op": "torch.nn.Conv2d"}, "do not suit patches of 3 axes"),
        ({f"{NETWORK}__nonlin_first": True}, "a norm after the activation"),
        ({f"{NETWORK}__attention": True}, "architecture.arch_kwargs.attention: Extra inputs are not permitted"),
        ({f"{NETWORK}__kernel_sizes": [[2, 2, 2]] * 3}, "must be odd along every axis"),
        ({f"{NETWORK}__n_conv_per_stage": [2, 10**9, 2]}, "a stage has 1000000000 convolutions"),
        ({f"{NETWORK}__features_per_stage": 10**6}, "more weights than the"),
        ({f"{NETWORK}__features_per_stage": [4, 6, 9]}, "have the shape"),
        ({f"{NETWORK}__n_conv_per_stage": [2, 2, 2]}, "its weights lack 'encoder.stages.1.0.convs.1.conv.weight'"),
        ({f"{NETWORK}__n_conv_per_stage": [2, 1, 1]}, "its weights hold 'encoder.stages.2.0.convs.1.conv.bias'"),
        ({f"{ONE}__patch_size": [4, 16, 13]}, "must be divisible by"),
        ({f"{ONE}__spacing": [1.0, 1.0]}, "must have as many axes"),
        ({f"{ONE}__inherits_from": "3d_fullres"}, "'3d_fullres' follows itself"),
        ({"configurations": {"2d": {}}}, "lacks the configuration '3d_fullres'"),
        ({"dataset_name": None}, "dataset_name: Field required"),
    ],
)
def test_plans_that_cannot_be_followed_are_refused(model: Path, changes: dict[str, Any], text: str) -> None:
    """Each feature is refused with its reason."""
    change_json(model / "plans.json", **changes)
    assert text in refuse(model)


def test_residual_blocks_of_other_kinds_are_refused(tmp_path: Path) -> None:
    """Bottlenecks and a first convolution of another width are refused."""
    for key, value, text in (
        (
            "block",
            "dynamic_network_architectures.building_blocks.residual.BottleneckD",
            "BottleneckD' are unknown here",
        ),
        ("bottleneck_channels", 2, "blocks with a bottleneck"),
        ("stem_channels", 3, "a first convolution of 3 features, not 4, is unknown here"),
        ("n_blocks_per_stage", None, "it does not say how many blocks a stage has"),
    ):
        shutil.rmtree(tmp_path / "results", ignore_errors=True)
        model = next(unpack("residual", tmp_path / "results").iterdir())
        change_json(model / "plans.json", **{f"{NETWORK}__{key}": value})
        assert text in refuse(model)


def test_convolutions_without_bias_and_dropout_are_followed(model: Path, tmp_path: Path) -> None:
    """A missing bias is zero; dropout does nothing in prediction."""
    change_json(
        model / "plans.json", **{f"{NETWORK}__dropout_op": "torch.nn.Dropout3d", f"{NETWORK}__conv_bias": False}
    )
    path = model / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=False)
    weights = content["network_weights"]
    for name in [name for name in weights if name.endswith(("conv.bias", "all_modules.0.bias"))]:
        del weights[name]
    torch.save({**content, "network_weights": {f"_orig_mod.{name}": value for name, value in weights.items()}}, path)
    assert install_standalone(model, tmp_path / "work").is_dir()


def test_batch_norm_of_a_trainer_is_found_by_its_weights(model: Path) -> None:
    """Batch normalization is recognized by its running means, which its plan does not mention."""
    path = model / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=False)
    content["network_weights"]["encoder.stages.0.0.convs.0.norm.running_mean"] = torch.zeros(4)
    torch.save(content, path)
    assert "its weights hold 'encoder.stages.0.0.convs.0.norm.running_mean', which no network here has" in refuse(model)


def test_weights_that_are_no_numbers_are_refused(model: Path) -> None:
    """Weights that are not finite are refused, as in every checkpoint."""
    path = model / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=False)
    content["network_weights"]["decoder.seg_layers.0.bias"][0] = float("nan")
    torch.save(content, path)
    assert "are infinite or no numbers" in refuse(model)


def test_datasets_that_cannot_be_followed_are_refused(model: Path) -> None:
    """Each file is refused by its field; paths of cases in dataset.json are ignored."""
    change_json(
        model / "dataset.json", dataset={"case": {"images": ["/secret/patient.nii.gz"]}}, labels={"background": 1}
    )
    assert "labels: 'background' must be there and be 0" in refuse(model, DatasetError)
    (model / "dataset.json").unlink()
    assert "cannot read" in refuse(model, ArtifactError)


def test_folders_that_hold_no_model_or_several_are_refused(tmp_path: Path) -> None:
    """The message says what to give instead."""
    assert "nowhere does not exist; give a model folder of nnU-Net's, or a zip" in refuse(
        tmp_path / "nowhere", UsageError
    )
    (tmp_path / "empty").mkdir()
    assert "holds no model of nnU-Net: no folder with plans.json and fold_0/checkpoint_final.pth" in refuse(
        tmp_path / "empty"
    )
    both = tmp_path / "both"
    unpack("plain", both)
    with zipfile.ZipFile(GOLDEN / "flat.zip") as archive:
        archive.extractall(both)
    assert "holds the models of 2 datasets; give one, such as" in refuse(both, UsageError)
    results = both / "Dataset701_Plain"
    shutil.copytree(
        results / "nnUNetTrainer_onlyMirror01__nnUNetPlans__3d_fullres", results / "My__nnUNetPlans__3d_fullres"
    )
    text = refuse(results, UsageError)
    assert "holds models of My__nnUNetPlans and of nnUNetTrainer_onlyMirror01__nnUNetPlans" in text


# --- Zips -------------------------------------------------------------------------------------------------------------


def rewrite(path: Path, change: Callable[[zipfile.ZipFile, dict[str, bytes]], None]) -> Path:
    """Writes a recorded zip again, with one more entry."""
    with zipfile.ZipFile(GOLDEN / "plain.zip") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        change(archive, parts)
        for name, data in parts.items():
            archive.writestr(name, data)
    return path


def add_link(archive: zipfile.ZipFile, _parts: dict[str, bytes]) -> None:
    """Makes a link to a file of the system."""
    entry = zipfile.ZipInfo("Dataset701_Plain/link")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(entry, "/etc/passwd")


def add_twice(archive: zipfile.ZipFile, parts: dict[str, bytes]) -> None:
    """Makes two files of one name."""
    archive.writestr("Dataset701_Plain/any.json", next(iter(parts.values())))
    with pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("Dataset701_Plain/any.json", b"{}")


def add_bomb(_archive: zipfile.ZipFile, parts: dict[str, bytes]) -> None:
    """Makes a checkpoint of zeros, a thousand times as large as its packed size."""
    name = next(name for name in parts if name.endswith(".pth"))
    parts[name] = bytes(50 * 2**20)


def add_long_text(_archive: zipfile.ZipFile, parts: dict[str, bytes]) -> None:
    """Makes a text file that is too large."""
    name = next(name for name in parts if name.endswith("plans.json"))
    parts[name] = b" " * (17 * 2**20)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda archive, _: archive.writestr("../../evil.json", "{}"), "'../../evil.json', which leads elsewhere"),
        (lambda archive, _: archive.writestr("/etc/evil.json", "{}"), "which leads elsewhere"),
        (lambda archive, _: archive.writestr("a\\..\\evil.json", "{}"), "which leads elsewhere"),
        (add_link, "as a link or a device"),
        (add_twice, "holds two files of one name"),
        (add_bomb, "which no model needs"),
        (add_long_text, "which no model needs"),
    ],
)
def test_zips_that_were_made_to_do_harm_are_refused(tmp_path: Path, change: Callable, text: str) -> None:
    """They are refused before any file is unpacked."""
    assert text in refuse(rewrite(tmp_path / "m.zip", change))
    assert {path.name for path in tmp_path.rglob("*")} == {"m.zip"}


def test_errors_name_the_zip_and_not_where_it_was_unpacked(tmp_path: Path) -> None:
    """Files that are not needed, such as pictures and masks, are not unpacked."""

    def spoil(archive: zipfile.ZipFile, parts: dict[str, bytes]) -> None:
        archive.writestr("Dataset701_Plain/x__y__z/fold_0/validation/case 1.nii.gz", b"masks")
        name = next(name for name in parts if name.endswith("plans.json"))
        parts[name] = json.dumps({**json.loads(parts[name]), "label_manager": "Mine"}).encode()

    text = refuse(rewrite(tmp_path / "m.zip", spoil))
    assert text.startswith(str(tmp_path / "m.zip" / "Dataset701_Plain"))


def test_damaged_zips_are_refused(tmp_path: Path) -> None:
    """Truncated, modified and other files are refused."""
    whole = (GOLDEN / "plain.zip").read_bytes()
    for content in (b"", b"PK", whole[:-100], whole[: len(whole) // 2] + b"12345678" + whole[len(whole) // 2 + 8 :]):
        (tmp_path / "m.zip").write_bytes(content)
        assert "is no zip, or a damaged or cut off one" in refuse(tmp_path / "m.zip")
    buffer = io.BytesIO()
    torch.save({}, buffer)
    (tmp_path / "m.zip").write_bytes(buffer.getvalue())
    assert "holds no model of nnU-Net" in refuse(tmp_path / "m.zip")
