"""Models of nnU-Net become ordinary models that predict the same, and are exported again unchanged."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import SMALL_INFO
from small_nnunet import GOLDEN, REGIONS, change_json, plain_configuration, residual_configuration, save_model, unpack

from autoseg.datasets.dataset import Dataset
from autoseg.datasets.splits import Split
from autoseg.errors import ModelError, UsageError
from autoseg.imaging.postprocessing import PostprocessingRules, SmallestSize
from autoseg.imaging.structure_masks import structure_channels
from autoseg.imaging.targets import Targets
from autoseg.inference.model import load_model
from autoseg.models.best_model import BestModel
from autoseg.models.build import make_network
from autoseg.models.bundle import describe_installed, export_model, install_model
from autoseg.models.checkpoint import load_checkpoint
from autoseg.models.training_statistics import TrainingStatistics
from autoseg.nnunet.architectures import describe_architecture, read_architecture
from autoseg.nnunet.export import export_nnunet
from autoseg.nnunet.install import install_standalone
from autoseg.nnunet.plans import ArchitecturePlan
from autoseg.nnunet.weight_names import export_weights, import_weights, regroup_input, separate_input
from autoseg.runtime import device
from autoseg.runtime.reporting import Silent
from autoseg.training.fold_job import FoldJob
from autoseg.training.initial_weights import InitialWeightsRequest
from autoseg.training.initialization import check_initial_weights, find_initial_weights
from autoseg.workspace import DatasetFolders, ModelFolder


class Listener(Silent):
    """Records messages."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        """Records a message."""
        self.lines.append(line)


# --- Recorded models --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "configuration", "fold", "recorded"),
    [
        ("plain", "3d_fullres", 0, "plain_3d"),
        ("residual", "3d_fullres", "all", "residual_3d"),
        ("former", "2d", 1, "plain_2d"),
        ("flat", "2d", 0, "residual_2d"),
        ("cascade", "3d_lowres", 0, "cascade_lowres"),
        ("cascade", "3d_cascade_fullres", 0, "cascade"),
    ],
)
def test_logits_are_those_of_nnunet(
    tmp_path: Path, source: str, configuration: str, fold: object, recorded: str
) -> None:
    """Logits agree within 1e-5 in float32 with recorded ones; a cascade gets the recorded coarse segmentation."""
    folder = install_standalone(GOLDEN / f"{source}.zip", tmp_path)
    checkpoint = load_checkpoint(folder / configuration / f"fold_{fold}" / "checkpoint.pt")
    known = np.load(GOLDEN / f"{recorded}.npz")
    image = torch.from_numpy(known["image"])
    if "former" in known:
        masks = structure_channels(torch.from_numpy(known["former"])[None], checkpoint.info.targets.structures.values())
        image = torch.cat([image, masks], dim=1)
    network = make_network(checkpoint.configuration, seed=0)
    network.load_state_dict(dict(checkpoint.weights))
    with torch.no_grad():
        logits = network.eval()(image).numpy()
    assert np.ptp(known["logits"]) > 0.5
    np.testing.assert_allclose(logits, known["logits"], rtol=0, atol=1e-5)


def test_plan_tells_what_nnunet_decided(tmp_path: Path) -> None:
    """Geometry, batch, normalization, mirroring and labels are those of its plan, training settings are defaults."""
    folder = install_standalone(GOLDEN / "plain.zip", tmp_path)
    checkpoint = load_checkpoint(folder / "3d_fullres/fold_0/checkpoint.pt")
    plan, one = checkpoint.plan, checkpoint.configuration
    assert (plan.dataset, plan.rules, plan.preset, plan.axis_order) == (
        "Dataset701_Plain",
        "nnunet",
        "plain",
        (1, 0, 2),
    )
    assert (plan.training.epochs, plan.training.steps_per_epoch) == (1000, 250)
    assert (one.spacing_mm, one.patch_size, one.batch_size) == ((2.0, 1.0, 1.0), (4, 16, 12), 2)
    assert one.median_shape == (7, 28, 21)
    assert one.augmentation.mirror_axes == (0, 1)
    assert one.augmentation.rotation_axes == (0,)
    ct, mr = one.normalization
    assert (ct.scheme, ct.lower, ct.upper, ct.mean, ct.std) == ("ct", -80.0, 310.0, 120.5, 55.25)
    assert (mr.scheme, mr.only_nonzero) == ("zscore", True)
    assert [stage.decoder_convolutions for stage in one.architecture.stages] == [1, 2, None]
    assert checkpoint.info.targets.ignore == 3
    assert checkpoint.finished
    assert any("trained by nnU-Net's nnUNetTrainer_onlyMirror01" in line for line in plan.why)


def test_installed_model_is_an_ordinary_one(tmp_path: Path) -> None:
    """It can be described, predicts, is exported as a bundle, and provides initial weights."""
    folder = install_standalone(GOLDEN / "residual.zip", tmp_path)
    assert folder == tmp_path / "models" / "Residual"
    rows = dict(describe_installed(folder))
    assert rows["segments"] == "whole, core, active"
    assert rows["learned from"] == "Dataset702_Residual"
    card = (folder / "MODEL_CARD.md").read_text()
    assert "Trained by nnU-Net v2 (nnUNetTrainer, nnUNetResEncUNetLPlans)" in card
    assert "Dataset702_Residual, 7 labelled cases" in card
    image = np.random.default_rng(0).normal(size=(2, 9, 14, 17)).astype(np.float32)
    found = load_model(folder, device="cpu").predict(image, spacing_mm=(1, 1, 1))
    assert found.shape == (9, 14, 17)
    again = install_model(export_model(folder, tmp_path / "again.zip"), tmp_path)
    np.testing.assert_array_equal(load_model(again, device="cpu").predict(image, spacing_mm=(1, 1, 1)), found)
    checkpoint = load_checkpoint(folder / "3d_fullres/fold_all/checkpoint.pt")
    job = FoldJob(
        dataset=Dataset(folder=tmp_path / "Dataset001_New", info=checkpoint.info, cases=()),
        plan=checkpoint.plan.model_copy(update={"dataset": "Dataset001_New"}),
        configuration_name=checkpoint.configuration_name,
        fold=0,
        split=Split(training=("case_1",), validation=()),
        folders=DatasetFolders(raw=tmp_path, preprocessed=tmp_path, results=tmp_path),
        cases_folder=tmp_path,
        device=torch.device("cpu"),
        initial_weights=InitialWeightsRequest(path=folder / "3d_fullres"),
    )
    check_initial_weights(job, None)
    begun = find_initial_weights(job).weights
    assert begun is not None
    assert all(torch.equal(begun[name], value) for name, value in checkpoint.weights.items())


def test_cascade_is_found_beside_its_folder(tmp_path: Path) -> None:
    """If the first stage lies beside the second, both are installed; without it the model is refused."""
    results = unpack("cascade", tmp_path / "results")
    cascade = results / "nnUNetTrainer__nnUNetPlans__3d_cascade_fullres"
    folder = install_standalone(cascade, tmp_path / "work")
    image = np.random.default_rng(0).normal(size=(2, 12, 14, 17)).astype(np.float32)
    found = load_model(folder, device="cpu").predict(image, spacing_mm=(1, 1, 1))
    whole = install_standalone(results, tmp_path / "work", name="whole")
    np.testing.assert_array_equal(load_model(whole, device="cpu").predict(image, spacing_mm=(1, 1, 1)), found)
    shutil.rmtree(results / "nnUNetTrainer__nnUNetPlans__3d_lowres")
    with pytest.raises(ModelError, match="is a cascade, which needs the model of 3d_lowres beside it; give the folder"):
        install_standalone(cascade, tmp_path / "work", name="alone")
    assert not (tmp_path / "work/models/alone").exists()


def test_reorienting_models_get_turned_scans(tmp_path: Path) -> None:
    """Scans are reoriented as by nnU-Net's reader, and no quality check warns."""
    results = unpack("plain", tmp_path / "results")
    change_json(next(results.iterdir()) / "plans.json", image_reader_writer="NibabelIOWithReorient")
    folder = install_standalone(results, tmp_path)
    assert TrainingStatistics.load(folder / "3d_fullres/training_statistics.json").orientation == "SAR"
    image = np.random.default_rng(0).normal(size=(2, 12, 14, 17)).astype(np.float32)
    assert load_model(folder, device="cpu").analyse(image, spacing_mm=(1, 1, 9)).remarks == []


def test_best_checkpoint_stands_in_for_the_last(tmp_path: Path) -> None:
    """A best checkpoint is reported, and so is a custom trainer; the final checkpoint has priority."""
    results = unpack("plain", tmp_path / "results")
    fold = next(results.iterdir()) / "fold_0"
    shutil.copy(fold / "checkpoint_final.pth", fold / "checkpoint_best.pth")
    heard = Listener()
    install_standalone(results, tmp_path, reporter=heard)
    assert heard.lines == []
    content = torch.load(fold / "checkpoint_final.pth", weights_only=False)
    torch.save({**content, "trainer_name": "MyTrainer"}, fold / "checkpoint_best.pth")
    (fold / "checkpoint_final.pth").unlink()
    install_standalone(results, tmp_path, replace=True, reporter=heard)
    trainer, best = heard.lines
    assert trainer.startswith("mind that 'MyTrainer', which trained this model, is no trainer of nnU-Net's: what it ")
    assert best == "of fold 0 the best checkpoint is taken, since there is no last one"


def test_names_are_taken_once(tmp_path: Path) -> None:
    """A model of that name is replaced only on request."""
    install_standalone(GOLDEN / "flat.zip", tmp_path, name="mine")
    with pytest.raises(UsageError, match="mine exists; choose another name with --name, or add --replace"):
        install_standalone(GOLDEN / "former.zip", tmp_path, name="mine")
    folder = install_standalone(GOLDEN / "former.zip", tmp_path, name="mine", replace=True)
    assert load_checkpoint(folder / "2d/fold_1/checkpoint.pt").plan.dataset == "Dataset703_Former"


# --- There and back ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [plain_configuration, residual_configuration])
@pytest.mark.parametrize(("dimensions", "info"), [(3, SMALL_INFO), (2, SMALL_INFO), (3, REGIONS)])
def test_there_and_back_nothing_changes(tmp_path: Path, make, dimensions: int, info) -> None:
    """Weights are equal bit by bit; so are the configuration except for estimates, labels, rules, and masks."""
    name = "2d" if dimensions == 2 else "3d_fullres"
    model = save_model(tmp_path, {name: make(dimensions, info)}, info, folds=(0, 3, "all"))
    rules = PostprocessingRules(keep_largest_foreground=True, keep_largest=((2,), (2, 3)))
    rules.save(model.postprocessing)
    [folder] = export_nnunet(model.path, tmp_path / "theirs")
    installed = ModelFolder(path=install_standalone(folder, tmp_path / "work") / name)
    assert installed.trained_folds() == [0, 3, "all"]
    for fold in installed.trained_folds():
        before, after = load_checkpoint(model.checkpoint(fold)), load_checkpoint(installed.checkpoint(fold))
        assert before.weights.keys() == after.weights.keys()
        assert all(torch.equal(value, after.weights[key]) for key, value in before.weights.items())
        kept = {"architecture", "normalization", "patch_size", "spacing_mm", "batch_size", "median_shape", "batch_dice"}
        assert before.configuration.model_dump(include=kept) == after.configuration.model_dump(include=kept)
        assert before.configuration.augmentation.mirror_axes == after.configuration.augmentation.mirror_axes
        assert before.plan.axis_order == after.plan.axis_order
        assert before.info.targets == after.info.targets
    assert PostprocessingRules.load(installed.postprocessing) == rules
    image = np.random.default_rng(0).normal(50, 60, size=(info.channels, 9, 12, 11)).astype(np.float32)
    first, second = (
        load_model(one.path, device="cpu").predict(image, spacing_mm=(1, 1, 1)) for one in (model, installed)
    )
    assert len(np.unique(first)) > 1
    np.testing.assert_array_equal(first, second)


def test_cascade_goes_there_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cascade of regions, which nnU-Net passes label by label, gives the same masks after export and import."""
    monkeypatch.setattr(device, "_cpu_has_bfloat16", lambda: False)
    low = plain_configuration(info=REGIONS, spacing_mm=(2.0, 2.0, 2.0))
    seeing = low.architecture.model_copy(update={"in_channels": 5})
    cascade = plain_configuration(info=REGIONS, architecture=seeing, previous="3d_lowres")
    model = save_model(tmp_path / "ours", {"3d_cascade_fullres": cascade, "3d_lowres": low}, REGIONS)
    folders = export_nnunet(model.path, tmp_path / "theirs")
    names = ["nnUNetTrainer__nnUNetPlans__3d_cascade_fullres", "nnUNetTrainer__nnUNetPlans__3d_lowres"]
    assert [folder.name for folder in folders] == names
    installed = install_standalone(tmp_path / "theirs", tmp_path / "work")
    before = load_checkpoint(model.checkpoint(0)).weights
    after = load_checkpoint(installed / "3d_cascade_fullres/fold_0/checkpoint.pt").weights
    for key, value in before.items():
        torch.testing.assert_close(after[key], value, rtol=0, atol=1e-6)
    image = np.random.default_rng(0).normal(50, 60, size=(2, 13, 12, 14)).astype(np.float32)
    first, second = (
        load_model(path, device="cpu").predict(image, spacing_mm=(1, 1, 1)) for path in (model.path, installed)
    )
    assert len(np.unique(first)) > 1
    np.testing.assert_array_equal(first, second)


@settings(max_examples=20, deadline=None)
@given(order=st.permutations([(1, 2, 3), (2, 3), (3,)]), channels=st.integers(0, 2), seed=st.integers(0, 100))
def test_first_convolution_sees_labels_or_regions_alike(order: list[tuple[int, ...]], channels: int, seed: int) -> None:
    """The convolution of label masks equals that of region masks, and the conversion back is the inverse."""
    targets = Targets(structures={str(numbers): numbers for numbers in order}, exclusive=False)
    generator = torch.Generator().manual_seed(seed)
    theirs = torch.randn(4, channels + 3, 3, generator=generator)
    ours = regroup_input(theirs, targets, channels)
    labels = torch.randint(0, 4, (1, 9), generator=generator)
    image = torch.randn(1, channels, 9, generator=generator)
    of_labels = torch.stack([labels == number for number in (1, 2, 3)], dim=1).float()
    of_regions = torch.stack([torch.isin(labels, torch.tensor(numbers)) for numbers in order], dim=1).float()
    seen = [torch.nn.functional.conv1d(torch.cat([image, masks], 1), kernel, padding=1)
            for masks, kernel in ((of_labels, theirs), (of_regions, ours))]  # fmt: skip
    torch.testing.assert_close(seen[0], seen[1], rtol=0, atol=1e-5)
    torch.testing.assert_close(separate_input(ours, targets, channels), theirs, rtol=0, atol=1e-6)


def test_labels_that_regions_do_not_tell_apart_are_refused() -> None:
    """No kernel of a region could equal the kernels of both labels."""
    targets = Targets(structures={"both": (1, 2), "none": (1, 2)}, exclusive=False)
    with pytest.raises(ModelError, match="labels of the coarse segmentation that belong to the same regions"):
        regroup_input(torch.ones(1, 2, 3), targets, 0)


def test_every_name_of_nnunet_is_written() -> None:
    """A plain network of three stages has the 136 names counted in nnU-Net; all are read back."""
    architecture = plain_configuration().architecture
    stages = tuple(
        stage.model_copy(update={"convolutions": 2, "decoder_convolutions": None}) for stage in architecture.stages
    )
    architecture = architecture.model_copy(update={"stages": stages})
    own = make_network(plain_configuration(architecture=architecture), seed=0).state_dict()
    theirs = export_weights(own, architecture, None)
    assert len(theirs) == 136
    assert (
        theirs["decoder.encoder.stages.1.0.convs.0.all_modules.1.bias"]
        is theirs["encoder.stages.1.0.convs.0.norm.bias"]
    )
    only = {name: value for name, value in theirs.items() if ".all_modules." not in name and "r.enc" not in name}
    assert import_weights(only, architecture, None).keys() == own.keys()


def test_heads_that_were_not_trained_are_zero() -> None:
    """nnU-Net has heads on all levels, and predicts with the finest one alone."""
    architecture = plain_configuration().architecture.model_copy(update={"deep_supervision": False})
    own = make_network(plain_configuration(architecture=architecture), seed=0).state_dict()
    theirs = export_weights(own, architecture, None)
    assert torch.equal(theirs["decoder.seg_layers.1.weight"], own["heads.0.weight"])
    assert theirs["decoder.seg_layers.0.weight"].shape == (3, 6, 1, 1, 1)
    assert not theirs["decoder.seg_layers.0.weight"].any()


def test_architectures_are_described_and_read_alike() -> None:
    """Networks in 2D and 3D, plain and with residual blocks, are described and read back."""
    for make in (plain_configuration, residual_configuration):
        for dimensions in (2, 3):
            architecture = make(dimensions).architecture
            found = ArchitecturePlan.model_validate(describe_architecture(architecture))
            assert read_architecture(found, (1, 3), dimensions, "here") == architecture


# --- What nnU-Net cannot do -------------------------------------------------------------------------------------------


def test_residual_stages_are_refused_with_what_can_be_exported(tmp_path: Path) -> None:
    """The residual stages of V-Net, which are the default, do not exist in nnU-Net; nothing is written."""
    stage = plain_configuration().architecture.model_copy(update={"residual": "stage"})
    model = save_model(tmp_path / "ours", {"3d_fullres": plain_configuration(architecture=stage)})
    with pytest.raises(ModelError, match=r"residual stages as V-Net has, .*a plan by --rules nnunet"):
        export_nnunet(model.path, tmp_path / "theirs")
    assert not (tmp_path / "theirs").exists()
    alone = tuple(one.model_copy(update={"convolutions": 1, "decoder_convolutions": 1}) for one in stage.stages)
    described = describe_architecture(stage.model_copy(update={"stages": alone}))  # nothing is added to anything
    assert described["network_class_name"].endswith(".PlainConvUNet")


def test_what_is_lost_is_said(tmp_path: Path) -> None:
    """Swapped sides, sizes of components, orientation, and unsupported files are reported."""
    augmentation = {"mirror_axes": (0, 2), "swap_axis": 2, "swapped_labels": ((1, 2),)}
    configuration = plain_configuration(augmentation=augmentation)
    info = SMALL_INFO.model_copy(update={"file_ending": ".mhd"})
    model = save_model(tmp_path / "ours", {"3d_fullres": configuration}, info)
    PostprocessingRules(smallest=(SmallestSize(structure=(1,), mm3=20.0),)).save(model.postprocessing)
    anything = {"lowest": 0, "low": 0, "median": 1, "high": 2, "highest": 3}
    TrainingStatistics.model_validate(
        {"cases": 1, "empty_cases": 0, "orientations": {"SPL": 1}, "spacing_mm": [anything] * 3,
         "size_mm": [anything] * 3, "channels": {}, "structures": {}}
    ).save(model.training_statistics)  # fmt: skip
    heard = Listener()
    [folder] = export_nnunet(model.path, tmp_path / "theirs", reporter=heard)
    assert heard.lines == [
        "lost: components of 1 below 20 mm3 are not removed there",
        "lost: mirroring along axis 2, since nnU-Net cannot exchange left and right",
        "nnU-Net reads no .mhd files; give it .nii.gz",
        "lost: nnU-Net turns no scans; the axes of each must lead SPL, as in training",
    ]
    assert not list(folder.glob("crossval*"))
    back = install_standalone(folder, tmp_path / "work")
    assert load_checkpoint(back / "3d_fullres/fold_0/checkpoint.pt").configuration.augmentation.mirror_axes == (0,)


def test_masks_and_full_folders_are_refused(tmp_path: Path) -> None:
    """nnU-Net writes one label map; and a folder with files is never overwritten."""
    info = SMALL_INFO.model_copy(update={"masks": True})
    configuration = plain_configuration()
    one = configuration.architecture.model_copy(update={"out_channels": 2})
    model = save_model(tmp_path / "ours", {"3d_fullres": configuration.model_copy(update={"architecture": one})}, info)
    with pytest.raises(ModelError, match="writes a mask for each structure, and nnU-Net one label map"):
        export_nnunet(model.path, tmp_path / "theirs")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.txt").touch()
    with pytest.raises(UsageError, match="theirs is not empty; give a new folder with -o"):
        export_nnunet(model.path, tmp_path / "theirs")


def test_ensemble_that_nnunet_chose_predicts(tmp_path: Path) -> None:
    """The two configurations that nnU-Net chose predict with their postprocessing, by best.json."""
    save_model(tmp_path, {"2d": plain_configuration(2), "3d_fullres": plain_configuration()})
    results = tmp_path / "results"
    for name in ("2d", "3d_fullres"):
        export_nnunet(tmp_path / name, results / f"nnUNetTrainer__nnUNetPlans__{name}")
    chosen = [{"configuration": name, "trainer": "nnUNetTrainer", "plans_identifier": "nnUNetPlans"}
              for name in ("2d", "3d_fullres")]  # fmt: skip
    information = results / "inference_information.json"
    information.write_text("{}")
    folder = install_standalone(results, tmp_path / "work", name="alone")
    assert not (folder / "best.json").exists()
    change_json(information, best_model_or_ensemble={"selected_model_or_models": chosen})
    together = "ensemble___nnUNetTrainer__nnUNetPlans__2d___nnUNetTrainer__nnUNetPlans__3d_fullres___0_1"
    (results / "ensembles" / together).mkdir(parents=True)
    function = "remove_all_but_largest_component_from_segmentation"
    (results / "ensembles" / together / "postprocessing.json").write_text("{}")
    change_json(
        results / "ensembles" / together / "postprocessing.json",
        postprocessing_fns=[function],
        postprocessing_kwargs=[{"labels_or_regions": 2}],
    )
    folder = install_standalone(results, tmp_path / "work")
    choice = BestModel.load(folder / "best.json")
    assert choice.configurations == ("2d", "3d_fullres")
    assert choice.rules.keep_largest == ((2,),)
    image = np.random.default_rng(0).normal(size=(1, 9, 12, 11)).astype(np.float32)
    assert load_model(folder, device="cpu").predict(image, spacing_mm=(1, 1, 1)).shape == (9, 12, 11)
