"""Exported networks: equal to torch's, refused where they are not, and harmless if they come from a stranger."""

import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from exported_networks import WITHOUT_TORCH, small_graph, with_configuration
from literature_networks import narrow
from onnx import TensorProto, helper
from small_models import small_checkpoint, small_configuration

import autoseg
from autoseg.errors import ModelError, UsageError
from autoseg.imaging.geometry import Geometry, Volume
from autoseg.imaging.image_files import read_label_map, write_image
from autoseg.models import onnx_export, runtimes
from autoseg.models.bundle import export_model
from autoseg.models.checkpoint import save_checkpoint
from autoseg.models.onnx_checks import check_onnx
from autoseg.models.onnx_export import export_fold
from autoseg.networks.literature.table import NETWORKS
from autoseg.planning.plugin_settings import Plugin

IMAGE = np.random.default_rng(0).normal(size=(13, 11, 9)).astype(np.float32)
SPACING = (1.0, 1.0, 1.0)

REFUSED = ("cotr", "nnformer", "swin_unet")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """The same two folds as a bundle of checkpoints, and as one of exported networks."""
    folder = tmp_path_factory.mktemp("bundles")
    for fold in (0, 1):
        checkpoint = small_checkpoint()
        weights = {name: value + 0.01 * fold for name, value in checkpoint.weights.items()}
        changed = replace(checkpoint, fold=fold, weights=weights)
        save_checkpoint(changed, folder / "3d_fullres" / f"fold_{fold}" / "checkpoint.pt")
    return {
        runtime: export_model(folder / "3d_fullres", folder / f"{runtime}.zip", runtime=runtime)
        for runtime in ("torch", "onnx")
    }


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_masks_and_measures_are_those_of_torch(bundles, runtime):
    """Of an ensemble of folds with mirror images; also after a copy."""
    expected = autoseg.load_model(bundles["torch"], exact=True).analyse(IMAGE, spacing_mm=SPACING)
    model = autoseg.load_model(bundles["onnx"], runtime=runtime)
    for copied in (model, pickle.loads(pickle.dumps(model))):  # noqa: S301 - our own
        analysis = copied.analyse(IMAGE, spacing_mm=SPACING)
        assert np.array_equal(analysis.segmentation, expected.segmentation)
        assert analysis.agreement == pytest.approx(expected.agreement, nan_ok=True, abs=1e-6)
        assert np.allclose(analysis.probabilities("bright"), expected.probabilities("bright"), atol=1e-5)
        assert np.allclose(analysis.disagreement(), expected.disagreement(), atol=1e-3)


def test_prediction_imports_no_torch(bundles, tmp_path):
    """The whole command, in a process in which neither torch nor what else is left out without it can be imported."""
    (tmp_path / "scans").mkdir()
    geometry = Geometry(shape=IMAGE.shape, spacing_mm=SPACING)
    write_image(tmp_path / "scans" / "case_0000.nii.gz", Volume(array=IMAGE[None], geometry=geometry))
    options = ["-m", bundles["onnx"], "-i", tmp_path / "scans", "-o", tmp_path / "masks", "--disagreement"]
    command = [sys.executable, "-c", WITHOUT_TORCH, "predict", *map(str, options), "--probabilities", "all"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    mask = read_label_map(tmp_path / "masks" / "case.nii.gz")
    expected = autoseg.load_model(bundles["torch"], exact=True).predict(IMAGE, spacing_mm=SPACING)
    assert np.array_equal(mask.array, expected)


def test_the_card_tells_the_differences(bundles):
    """A row for each fold."""
    from autoseg.models.bundle_reading import opened_bundle

    with opened_bundle(bundles["onnx"]) as folder:
        card = (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
        assert not list(folder.rglob("*.pt"))
    assert "## Without torch" in card
    assert "| 3d_fullres | 1 |" in card


def with_network(name, **settings):
    """A fold of a network of the literature, for patches of the smallest size that it takes, and twice that."""
    spec = NETWORKS[name]
    dimensions = spec.dimensions[-1]
    values = spec.complete({**narrow(name), **settings})
    configuration = small_configuration(dimensions)
    architecture = spec.make_architecture(values, dimensions, in_channels=1, out_channels=3)
    patch = tuple(2 * edge for edge in spec.smallest_patch(values, dimensions))
    if spec.fixed_patch(spec.parse(values)):
        patch = spec.smallest_patch(values, dimensions)
    configuration = configuration.model_copy(
        update={"network": Plugin(name=name, settings=values), "architecture": architecture, "patch_size": patch}
    )
    return with_configuration(configuration)


@pytest.mark.parametrize("make", [small_checkpoint, lambda: with_configuration(small_configuration(2))])
def test_default_networks_take_any_batch_and_size(make, tmp_path):
    """In 2D and 3D."""
    described = export_fold(make(), tmp_path / "network.onnx")
    assert described.any_size
    (one, *first), (three, *second) = described.parity.patches
    assert (one, three) == (1, 3)
    assert first != second
    assert described.parity.relative_difference < 1e-4
    assert described.parity.voxels_otherwise == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in REFUSED])
def test_networks_of_the_literature_are_exported(name, tmp_path):
    """Each that can be, with free sizes unless it has attention."""
    described = export_fold(with_network(name), tmp_path / "network.onnx")
    assert described.any_size == (name != "transunet")


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_networks_that_cannot_be_exported_are_refused_by_name(name, tmp_path):
    """Whether an operator is missing or a runtime cannot calculate the result."""
    with pytest.raises(UsageError, match=f"the network '{name}' cannot be exported to ONNX"):
        export_fold(with_network(name), tmp_path / "network.onnx")


class CountsSamples(torch.nn.Module):
    """A network whose logits depend on the number of samples, which tracing takes for a constant."""

    def forward(self, x):
        """Maps one channel to three."""
        return torch.cat([x, 2 * x, 3 * x], dim=1) * float(len(x))


def test_what_tracing_bakes_in_is_refused(monkeypatch, tmp_path):
    """The batches that are compared have other numbers of samples than the traced one."""
    monkeypatch.setattr(onnx_export, "restore_network", lambda _: CountsSamples())
    with pytest.raises(ModelError, match="the default network of fold 0 calculates something else in ONNX"):
        export_fold(small_checkpoint(), tmp_path / "network.onnx")


def hide(monkeypatch, *names):
    """Lets only these runtimes be installed."""
    monkeypatch.setattr(runtimes, "list_installed", lambda: list(names))


@pytest.mark.parametrize(
    ("bundle", "options", "installed", "message"),
    [
        ("onnx", {"runtime": "torch"}, ("onnx",), "no weights that torch reads"),
        ("torch", {"runtime": "onnx"}, ("onnx",), "holds checkpoints, which torch calculates, not onnx"),
        ("onnx", {"runtime": "fast"}, ("onnx",), "there is no runtime 'fast'"),
        ("onnx", {"runtime": "openvino"}, ("onnx",), r"openvino is not installed; pip install 'autoseg\[openvino\]'"),
        ("onnx", {}, (), "none is installed; pip install"),
        ("onnx", {"device": "cuda"}, ("onnx",), "exported for the CPU, not for cuda"),
    ],
)
def test_what_cannot_be_is_one_line(bundles, monkeypatch, bundle, options, installed, message):
    """With what to do about it."""
    hide(monkeypatch, *installed)
    with pytest.raises(UsageError, match=message):
        autoseg.load_model(bundles[bundle], **options)


def test_runtime_of_an_export_is_checked(tmp_path):
    """Before anything is read."""
    with pytest.raises(UsageError, match="not packed for a runtime 'fast'; choose from torch, onnx"):
        export_model(tmp_path, tmp_path / "model.zip", runtime="fast")


def test_a_model_without_checkpoints_cannot_be_exported_again(bundles, tmp_path):
    """It has no weights that torch reads; the line says which model has."""
    folder = autoseg.install_model(bundles["onnx"], tmp_path)
    with pytest.raises(ModelError, match="holds a network for other runtimes, and no checkpoint"):
        export_model(folder, tmp_path / "again.zip")


def point_elsewhere(model):
    """Lets the weights lie in another file."""
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def name_library(model):
    """Takes an operator of a library."""
    model.graph.node[0].domain = "some.library"


def repeat(model):
    """Takes an operator that repeats a part."""
    model.graph.node[0].op_type = "Loop"


def nest(model):
    """Puts a network into an attribute."""
    model.graph.node[0].attribute.append(helper.make_attribute("body", model.graph))


def claim_more(model):
    """Claims weights of an exabyte."""
    model.graph.initializer[0].dims[0] = 2**60


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (point_elsewhere, "has weights in another file"),
        (name_library, "holds the operator 'Mul'"),
        (repeat, "holds the operator 'Loop'"),
        (nest, "holds a network within the network"),
        (claim_more, "larger than what is stored"),
        (lambda model: model.graph.output[0].__setattr__("name", "other"), "other inputs or outputs"),
    ],
)
def test_networks_that_could_do_harm_are_refused(change, message, tmp_path):
    """Before any runtime opens them; the same network without the change is taken."""
    path = tmp_path / "network.onnx"
    path.write_bytes(small_graph(lambda _: None).SerializeToString())
    assert check_onnx(path)
    path.write_bytes(small_graph(change).SerializeToString())
    with pytest.raises(ModelError, match=message):
        check_onnx(path)


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 100, b"PK\x03\x04", onnx.ModelProto().SerializeToString() + b"\xff"]
)
def test_what_is_no_network_is_refused(content, tmp_path):
    """Damaged files and others."""
    path = tmp_path / "network.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="network"):
        check_onnx(path)
    with pytest.raises(ModelError, match="missing"):
        check_onnx(Path(tmp_path / "none.onnx"))


def test_the_faster_runtime_is_taken(monkeypatch):
    """Both are timed with a patch of the model."""
    hide(monkeypatch, "onnx", "openvino")
    monkeypatch.setattr(runtimes, "time_runtime", lambda name, _data, _shape: {"onnx": 2.0, "openvino": 1.0}[name])
    assert runtimes.choose_runtime("auto", b"", (1, 1, 8, 8, 8)) == "openvino"
    hide(monkeypatch, "onnx")
    assert runtimes.choose_runtime("auto", b"", (1, 1, 8, 8, 8)) == "onnx"
