"""Networks with a margin: the patches that they take, their training and their predictions."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from literature_networks import build
from margin_cases import TARGETS, batches_of, configuration_of
from phantoms import Listener
from tiny_workspaces import NUMBER, TRAINING, dice, edit_training, folders_of, plan_tiny, write_volumes
from torch import nn
from torch.nn import functional as F

import autoseg
from autoseg.dataloading.sampling import InMemoryCase
from autoseg.errors import ArtifactError, UsageError
from autoseg.imaging.image_files import read_image
from autoseg.imaging.mirror_padding import mirror_indices
from autoseg.inference.predictor import FunctionPredictor
from autoseg.inference.sliding_window import predict_volume
from autoseg.inference.tiling import tile_image
from autoseg.models.checkpoint import load_checkpoint
from autoseg.networks.feature_map import FeatureMap
from autoseg.networks.literature.table import NETWORKS
from autoseg.networks.patch_sizes import PatchSizeError, PatchSizes, measure_patch_sizes
from autoseg.networks.shape_ops import ShapeOps
from autoseg.pipeline.datasets import plan_configurations
from autoseg.pipeline.patch_pictures import draw_augmentations
from autoseg.planning.loss_settings import LossSettings
from autoseg.planning.plan import Plan
from autoseg.preprocessing.foreground import sample_foreground
from autoseg.training.losses import Loss

CPU = torch.device("cpu")
VALID = {"padded": False}
FORMS = [("unet", 2), ("unet_3d", 3)]


def patches_of(name, **given):
    """Returns the patch sizes of a network without padding."""
    spec = NETWORKS[name]
    return spec.patches(spec.complete({**VALID, **given}), spec.dimensions[0])


def valid(name, **given):
    """Builds a small network without padding, with two resolutions."""
    return build(name, **{**VALID, "depth": 2, **given})


# --- What a network takes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "patch", "logits", "channels", "classes", "weights"),
    [
        ("unet", (572, 572), (388, 388), 1, 2, 31_030_658),
        ("unet_3d", (132, 132, 116), (44, 44, 28), 3, 3, 19_069_955),
    ],
)
def test_patch_of_the_paper_becomes_the_logits_of_the_paper(name, patch, logits, channels, classes, weights):
    """The network has as many weights as the padded one."""
    spec = NETWORKS[name]
    given = spec.complete(VALID)
    shape_ops = ShapeOps(len(patch))
    [found] = spec.forward(shape_ops, FeatureMap(channels, patch), classes, spec.parse(given))
    assert (found.channels, found.size) == (classes, logits)
    patches = patches_of(name)
    assert patches.centre(patch) == logits
    assert patches.find_problem(patch) is None
    architecture = spec.make_architecture(given, len(patch), in_channels=channels, out_channels=classes)
    assert spec.count(given, architecture, patch).weights == weights
    padded = spec.make_architecture({}, len(patch), in_channels=channels, out_channels=classes)
    assert spec.count({}, padded, spec.smallest_patch({}, len(patch))).weights == weights


@pytest.mark.parametrize(
    ("name", "depth", "smallest", "step", "margin"),
    [
        ("unet", 5, 188, 16, 92),
        ("unet", 4, 92, 8, 44),
        ("unet", 2, 18, 2, 8),
        ("unet_3d", 4, 92, 8, 44),
        ("unet_3d", 3, 44, 4, 20),
        ("unet_3d", 2, 18, 2, 8),
    ],
)
def test_sizes_follow_from_shape_ops(name, depth, smallest, step, margin):
    """The network takes exactly the edges from the smallest in whole steps; each axis is independent."""
    found, axes = patches_of(name, depth=depth), NETWORKS[name].dimensions[0]
    assert (found.smallest, found.step, found.margin) == ((smallest,) * axes, (step,) * axes, (margin,) * axes)
    spec = NETWORKS[name]
    for edge in range(smallest - step, smallest + 2 * step + 1):
        patch = (edge, *(smallest + step,) * (axes - 1))
        shape_ops = ShapeOps(axes)
        try:
            [logits] = spec.forward(shape_ops, FeatureMap(1, patch), 2, spec.parse({**VALID, "depth": depth}))
            assert logits.size == found.centre(patch)
            misfits = frozenset()
        except PatchSizeError as error:
            misfits = error.axes
        assert misfits == (set() if found.find_problem(patch) is None else {0})


def test_networks_with_padding_have_no_margin():
    """Padded networks have no margin and take the patches that their strides divide."""
    for name, spec in NETWORKS.items():
        for dimensions in spec.dimensions:
            patches = spec.patches({}, dimensions)
            assert not patches.has_margin, name
            assert patches.step == spec.divisor({}, dimensions)
            if spec.fixed_patch(spec.parse({})) is None:
                assert patches == PatchSizes.divisible_by(spec.divisor({}, dimensions))


@given(edges=st.lists(st.integers(1, 60), min_size=2, max_size=3))
@settings(max_examples=50, deadline=None)
def test_cover_is_the_smallest_patch_whose_centre_suffices(edges):
    """A patch that is one step smaller does not cover the image, unless there is no smaller one."""
    axes = len(edges)
    patches = PatchSizes(smallest=(18,) * axes, step=(2,) * axes, margin=(8,) * axes)
    found = patches.cover(edges)
    assert patches.find_problem(found) is None
    assert all(inner >= edge for inner, edge in zip(patches.centre(found), edges, strict=True))
    assert all(
        whole == 18 or inner - 2 < edge for whole, inner, edge in zip(found, patches.centre(found), edges, strict=True)
    )


def test_axes_are_measured_by_themselves():
    """Axes may differ; a network that takes no patch is reported."""

    def uneven(patch):
        shape_ops = ShapeOps(2)
        x = shape_ops.conv(FeatureMap(1, patch), 1, (5, 1), "first", padded=False)
        return shape_ops.upsample(shape_ops.max_pool(x, 2), 2).size

    assert measure_patch_sizes(uneven, (2, 2), (2, 2)) == PatchSizes(smallest=(6, 2), step=(2, 2), margin=(2, 0))
    with pytest.raises(ValueError, match="do not lie in the middle of a patch"):
        measure_patch_sizes(lambda patch: tuple(edge - 1 for edge in patch), (4, 4), (1, 1))

    def never(patch):
        raise PatchSizeError([0], "too small")

    with pytest.raises(PatchSizeError, match="too small"):
        measure_patch_sizes(never, (4000, 4), (1, 1))


def test_constraints_name_the_margin():
    """The text for people names edges and margin; networks without a margin have another text."""
    assert NETWORKS["unet"].describe_constraints(VALID) == (
        "edges of 188, 204, 220, ... voxels, of which 92 on each side are margin"
    )
    assert NETWORKS["unet"].describe_constraints({}) == "edges divisible by 16"


@pytest.mark.parametrize(("name", "dimensions"), FORMS)
def test_tensors_have_the_shapes_of_shape_ops(name, dimensions):
    """The tensors have the shapes of `ShapeOps`, and autograd keeps what it counts."""
    network = valid(name, features=8, depth=3 if dimensions == 2 else 2)
    patches = network.spec.patches(network.settings.model_dump(mode="json"), dimensions)
    edges = [edge + 4 * (2 - axis) * patches.step[axis] for axis, edge in enumerate(patches.smallest)]
    image = torch.randn(2, 1, *edges)
    known = {one.untyped_storage().data_ptr() for one in [image, *network.parameters(), *network.buffers()]}
    kept = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage, tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        [logits] = network(image)
    assert tuple(logits.shape[2:]) == patches.centre(edges)
    given = network.settings.model_dump(mode="json")
    architecture = network.spec.make_architecture(given, dimensions, in_channels=1, out_channels=2)
    count = network.spec.count(given, architecture, tuple(edges))
    found = sum(storage.nbytes() for storage, _ in kept.values()) - image.nbytes
    assert 2 * (4 * count.saved_elements + 8 * count.pooling_indices) == pytest.approx(found, rel=0.05)
    assert logits.shape[2:].numel() == count.outputs[0]


@pytest.mark.parametrize(("name", "depth", "nearest", "furthest"), [("unet", 5, 188, 204), ("unet_3d", 4, 92, 100)])
def test_receptive_field_lies_within_the_margin(name, depth, nearest, furthest, monkeypatch):
    """Every voxel of the logits sees as far as the margin at most, depending on its position in the pooled blocks.

    The number of axes changes nothing; with two it takes a moment.
    """
    monkeypatch.setattr(F, "max_pool2d", F.avg_pool2d)
    network = build("unet", **VALID, depth=depth, features=1).eval().double()
    for weights in network.parameters():
        nn.init.constant_(weights, 0.01)
    patches = patches_of(name)
    step, margin = patches.step[0], patches.margin[0]
    patch = patches.smallest[0] + step
    spans = []
    for voxel in range(patch - 2 * margin):
        image = torch.ones(1, 1, patch, patches.smallest[0], requires_grad=True, dtype=torch.float64)
        network(image)[0, 0, voxel, 0].backward()
        seen = image.grad.abs().sum(dim=(0, 1, 3)).nonzero()
        spans.append(int(seen.max() - seen.min()) + 1)
    assert (min(spans), max(spans)) == (nearest, furthest)


# --- Tiles ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "depth", "patch", "shape"),
    [
        ("unet", 3, (60, 48), (2, 44, 40)),
        ("unet_3d", 2, (20, 22, 24), (10, 18, 14)),
        ("unet_3d", 2, (26, 22, 24), (4, 6, 2)),
    ],
)
def test_tiles_are_what_one_pass_over_the_whole_image_is(name, depth, patch, shape):
    """Tiles agree voxel by voxel, up to rounding, without seams; images are padded by reflection, repeatedly."""
    network = valid(name, depth=depth, classes=3, features=2).eval()
    patches = patches_of(name, depth=depth)
    axes = len(patches.margin)
    image = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        tiled = predict_volume(
            image, FunctionPredictor(network), patch_size=patch, batch_size=2, device=CPU, patches=patches
        )
        layout = tile_image(image, patch, patches)
        wide = image.numpy()[0]
        for axis, (inside, whole) in enumerate(zip(layout.inside, layout.shape, strict=True)):
            margin = patches.margin[axis - (3 - axes)] if axis >= 3 - axes else 0
            order = mirror_indices(-inside.start - margin, whole + 2 * margin, wide.shape[axis])
            wide = wide.take(order, axis)
        whole = torch.from_numpy(wide)
        once = network(whole[:, None]).movedim(0, 1) if axes == 2 else network(whole[None, None])[0]
    assert tiled.shape == (3, *shape)
    torch.testing.assert_close(tiled, once[(slice(None), *layout.inside)], rtol=1e-4, atol=1e-5)


# --- Sparse annotation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "loss",
    [
        LossSettings(overlap="none", voxelwise="cross_entropy", class_weights=(0.2, 1.0, 3.0)),
        LossSettings(),
        LossSettings(overlap="none", voxelwise="focal"),
    ],
    ids=["weighted cross entropy", "usual", "focal"],
)
def test_unlabelled_voxels_have_no_gradient(loss):
    """The margin has no effect: loss and gradient of the other voxels do not depend on it."""
    targets = replace(TARGETS, ignore=3)
    judge = Loss(targets=targets, settings=loss, batch_dice=False)
    labels = torch.randint(0, 4, (2, 4, 4, 12), generator=torch.Generator().manual_seed(0))
    network = valid("unet_3d", classes=3)
    with torch.no_grad():
        [logits] = network(torch.randn(2, 1, 20, 20, 28, generator=torch.Generator().manual_seed(1)))
    unlabelled = (labels == 3).unsqueeze(1).expand_as(logits)
    found = []
    for change in (0.0, 5.0):
        given = (logits + change * torch.randn(logits.shape) * unlabelled).requires_grad_()
        value = judge([given], labels)
        [gradient] = torch.autograd.grad(value, given)
        assert (gradient[unlabelled] == 0).all()
        assert (gradient[~unlabelled] != 0).any()
        found.append((value.detach(), gradient))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


# --- From plan to bundle ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Returns a workspace with preprocessed cases and the default plan."""
    root = tmp_path_factory.mktemp("margins")
    write_volumes(root)
    plan_tiny(root, momentum=0.9)
    return root


@pytest.mark.slow
@pytest.mark.parametrize(("name", "configuration"), [("unet", "2d"), ("unet_3d", "3d_fullres")])
def test_network_without_padding_goes_all_the_way(prepared, tmp_path, monkeypatch, name, configuration):
    """Planned by name and settings, trained, validated and exported; results have the size of the scans."""
    monkeypatch.setattr(
        "autoseg.training.monitoring.log_files.draw_progress", lambda *_, **__: None
    )  # takes half of the time
    root = shutil.copytree(prepared, tmp_path / "work")
    asked = f"{name}:padded=false,depth=2,features=4"
    plan_configurations(NUMBER, preset="small", network=asked, workspace=root)
    plan = edit_training(root, **{**TRAINING, "momentum": 0.9})
    one = plan.configurations[configuration]
    assert one.network.settings["padded"] is False
    assert one.patches.has_margin
    assert all(size >= typical for size, typical in zip(one.centre_size, one.median_shape, strict=True))
    listener = Listener()
    autoseg.train(NUMBER, configuration, [0], device="cpu", workspace=root, reporter=listener)
    model = folders_of(root).model(configuration)
    checkpoint = load_checkpoint(model.checkpoint(0))
    assert checkpoint.finished
    assert all(np.isfinite(report["training_loss"]) for report in checkpoint.training["reports"])
    assert (model.validation(0) / "summary.json").is_file()
    scans = folders_of(root).raw / "imagesTs"
    [here] = autoseg.predict(scans, tmp_path / "here", model=model.path, device="cpu")
    [scan] = scans.iterdir()
    assert read_image((here,)).array.shape == read_image((scan,)).array.shape
    bundle = autoseg.export_model(NUMBER, tmp_path / "model.zip", configuration=configuration, workspace=root)
    autoseg.install_model(bundle, tmp_path / "elsewhere")
    [there] = autoseg.predict(scans, tmp_path / "there", model="model", workspace=tmp_path / "elsewhere", device="cpu")
    assert np.array_equal(read_image((here,)).array, read_image((there,)).array)
    picture = draw_augmentations(NUMBER, configuration, tmp_path / "patches.png", count=3, workspace=root)
    assert picture.is_file()


def test_plan_that_is_edited_by_hand_is_told_which_patches_there_are(prepared, tmp_path):
    """Settings without effect are refused in one line."""
    root = shutil.copytree(prepared, tmp_path / "work")
    plan_configurations(NUMBER, preset="small", network="unet", workspace=root)
    path = folders_of(root).plan
    content = json.loads(path.read_text())
    content["configurations"]["2d"]["network"]["settings"]["padded"] = False
    path.write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match=r"edges of 188, 204, 220, \.\.\. voxels"):
        Plan.load(path)
    content["configurations"]["2d"]["patch_size"] = [188, 204]
    path.write_text(json.dumps(content))
    assert Plan.load(path).configurations["2d"].centre_size == (4, 20)
    for asked, text in (
        ("unet:width=3", r"settings.width of U-Net: .*; write it as in unet:padded=false,depth=4"),
        ("unet:padded=perhaps", "Expecting value"),
        ("unet:depth=1", "settings.depth of U-Net"),
        ("unet:depth=3,depth=4", "unet:depth=3,depth=4: it has depth twice"),
        ('unet:depth={"a":1,"a":2}', "the value of depth has the key 'a' twice"),
    ):
        with pytest.raises(UsageError, match=text):
            plan_configurations(NUMBER, preset="small", network=asked, workspace=root)
    made = plan_configurations(
        NUMBER,
        preset="small",
        network="vnet:features=4,convolutions=[1,1,2],decoder_convolutions=[1,1]",
        workspace=root,
    )
    assert made.configurations["3d_fullres"].network.settings["convolutions"] == [1, 1, 2]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "dimensions"), FORMS)
def test_networks_without_padding_learn_a_phantom(name, dimensions):
    """Both structures are learned with a Dice of more than 0.95, as by padded networks, and evaluated in tiles."""
    network = valid(name, classes=3, features=8)
    random = np.random.default_rng(0)
    label = np.zeros((16, 24, 24), np.int16)
    label[2:9, 3:14, 3:10], label[8:14, 12:21, 12:22] = 1, 2
    image = (2.0 * (label == 1) - 2.0 * (label == 2) + random.normal(0, 0.3, label.shape)).astype(np.float32)
    case = InMemoryCase(image=image[None], label=label, foreground=sample_foreground(label))
    configuration = configuration_of(name, (32,) * dimensions, batch_size=4)
    batches = batches_of(configuration, [case])
    judge = Loss(targets=TARGETS.with_ignore, settings=LossSettings(), batch_dice=False)
    optimizer, found = torch.optim.Adam(network.parameters(), lr=3e-3), []
    for step in range(300):
        batch = batches.make(step)
        network.train()
        optimizer.zero_grad()
        judge(network(batch.images), batch.labels).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 12)
        optimizer.step()
        if step % 25 == 24:
            with torch.no_grad():
                logits = predict_volume(
                    image[None],
                    FunctionPredictor(network.eval()),
                    patch_size=configuration.patch_size,
                    batch_size=4,
                    device=CPU,
                    patches=configuration.patches,
                )
            segmentation = logits.argmax(0).numpy()
            found.append(min(dice(segmentation, label, one) for one in (1, 2)))
            if found[-1] > 0.95:
                return
    pytest.fail(f"the Dice went {found}")
