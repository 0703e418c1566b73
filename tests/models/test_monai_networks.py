"""Networks of MONAI, by their names alone: built with what a plan says, or refused in one line."""

import copy
import inspect
import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from custom_parts import own_run
from monai_settings import NARROW
from pydantic import ValidationError
from small_models import small_checkpoint, small_configuration, small_plan, small_state, usual_loss

from autoseg.errors import ModelError, UsageError
from autoseg.models.build import check_network, make_network
from autoseg.models.checkpoint import load_checkpoint, save_checkpoint
from autoseg.models.monai_networks import Monai, build_monai, count_monai, list_settings
from autoseg.networks.monai import MonaiSpec
from autoseg.networks.monai_table import TABLE
from autoseg.planning.plan import Configuration
from autoseg.planning.plugin_settings import Plugin
from autoseg.training.plugin_checks import try_out

OUTPUTS = {"BasicUNetPlusPlus": 4, "DynUNet": 3, "SegResNetDS": 2, "SegResNetDS2": 4, "MedNeXt": 3}
"""Of training, by `NARROW`; all others have one."""


def configuration_with(name, dimensions=3, times=2, **settings):
    """A small one with a network of MONAI, its patch so many times what must divide it."""
    given = {"name": f"monai:{name}", "settings": settings}
    divisor = MonaiSpec(given["name"]).smallest_patch(settings, dimensions)
    patch = tuple(times * edge for edge in divisor)
    known = small_configuration(dimensions).model_dump() | {"patch_size": patch, "network": given}
    return Configuration.model_validate(known)


# --- Building ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "dimensions"), [("UNet", 2), ("BasicUNetPlusPlus", 2), ("DynUNet", 3), ("UNETR", 3)])
def test_small_networks_learn(name, dimensions):
    """See `assert_learns`."""
    assert_learns(configuration_with(name, dimensions, **NARROW[name]), OUTPUTS.get(name, 1))


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("dimensions", [2, 3])
def test_every_network_of_the_table_learns(name, dimensions):
    """With the settings that they are planned with, on patches that their documentation allows."""
    settings = {} if name in ("AHNet", "UNETR") and dimensions == 2 else NARROW.get(name, {})
    if name == "AHNet" and dimensions == 3:
        settings = {"psp_block_num": 1}
    assert_learns(configuration_with(name, dimensions, **settings), OUTPUTS.get(name, 1) if settings else 1)


def assert_learns(configuration, outputs):
    """A network gives logits as training and prediction want them, and a step changes all its weights but idle ones."""
    network = make_network(configuration, seed=3)
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(2, 1, *configuration.patch_size, generator=generator)
    label = torch.randint(3, (2, *configuration.patch_size), generator=generator)
    found = network(image)
    assert isinstance(found, list)
    assert len(found) == outputs
    assert found[0].shape == (2, 3, *configuration.patch_size)
    loss = usual_loss(3)(found, label)
    loss.backward()
    learning = [one for one in network.parameters() if one.grad is not None and one.grad.abs().sum() > 0]
    assert len(learning) > 0.5 * len(list(network.parameters()))
    assert all(one.grad.isfinite().all() for one in learning)
    with torch.no_grad():
        logits = network.eval()(image)
    assert logits.shape == (2, 3, *configuration.patch_size)
    again = make_network(configuration, seed=3)
    assert all(
        torch.equal(value, again.state_dict()[key])
        for key, value in make_network(configuration, 3).state_dict().items()
    )
    again.load_state_dict(network.state_dict())
    torch.testing.assert_close(copy.deepcopy(again).eval()(image), logits)
    assert count_monai(configuration) == sum(one.numel() for one in network.parameters())


def test_several_outputs_come_the_finest_first():
    """Stacked, in lists or in lists of lists; of the nested U-Nets the deepest predicts."""
    image = torch.arange(1.0, 33.0).reshape(2, 1, 4, 4)
    give = {"one": image, "stacked": torch.stack([image, 2 * image], dim=1), "nested": [[image, 2 * image], 3 * image]}
    for output, expected in (("one", 1), ("stacked", 2), ("nested", 3)):
        network = Monai(torch.nn.Identity())
        network.network.forward = lambda _, output=output: give[output]
        assert [one.flatten()[0] / image.flatten()[0] for one in network(image)] == list(range(1, expected + 1))
        assert torch.equal(network.eval()(image), image)
    last = Monai(torch.nn.Identity(), predicts_last=True)
    last.network.forward = lambda _: [image, 2 * image]
    assert torch.equal(last(image)[0], 2 * image)
    nested = build_monai(configuration_with("BasicUNetPlusPlus", 2, **NARROW["BasicUNetPlusPlus"]))
    torch.nn.init.constant_(nested.network.final_conv_0_4.bias, 100.0)
    logits = nested(torch.randn(1, 1, 32, 32))
    assert logits[0].mean() > 50 > logits[-1].mean()


def test_what_follows_from_the_plan_is_filled_in():
    """Channels, axes and, where it is asked for, the size of the patch; lists come as tuples."""
    network = build_monai(configuration_with("UNETR", 2, times=3, **NARROW["UNETR"])).network
    assert network.patch_size == (16, 16)
    assert network.feat_size == (3, 3)
    assert network.out.conv.conv.out_channels == 3
    assert isinstance(network.encoder1.layer.conv1.conv, torch.nn.Conv2d)
    pooled = build_monai(configuration_with("UNet", 2, **NARROW["UNet"], norm=["group", {"num_groups": 1}]))
    norms = [one.num_groups for one in pooled.modules() if isinstance(one, torch.nn.GroupNorm)]
    assert set(norms) == {1}


def test_all_settings_are_shown_but_those_that_follow_or_fetch():
    """With the defaults of the installed MONAI, and ours where it has none."""
    settings = list_settings("monai:UNet")
    assert settings["channels"] == [16, 32, 64, 128, 256]
    assert settings["act"] == "PRELU"
    assert not {"in_channels", "out_channels", "spatial_dims"} & settings.keys()
    assert "pretrained" not in list_settings("monai:AHNet")
    assert "img_size" not in list_settings("monai:UNETR")
    assert "norm_layer" not in list_settings("monai:SwinUNETR")  # a class, which no plan can hold
    assert json.loads(json.dumps(settings)) == settings


def test_volumes_thinner_than_a_kernel_learn_in_16_bits():
    """Where the gradients of torch alone are noise on some CPUs."""
    configuration = configuration_with("SegResNet", 3, times=2, **NARROW["SegResNet"])
    image, gradients = torch.randn(2, 1, *configuration.patch_size), []
    for _ in range(2):
        network = make_network(configuration, seed=3)
        torch.full((1_000_000,), float("nan"))  # so that what is read without having been written is not 0
        with torch.autocast("cpu", torch.bfloat16):
            outputs = network(image)
        sum((one.float().square().mean() for one in outputs), start=torch.zeros(())).backward()
        gradients.append([one.grad for one in network.parameters()])
    assert all(torch.equal(one, other) and one.isfinite().all() for one, other in zip(*gradients, strict=True))


def test_state_of_a_run_holds_what_monai_builds():
    """So that copies, averages and checkpoints of it work as of any other."""
    run_of_one = own_run(None)
    configuration = configuration_with("DynUNet", 3, **NARROW["DynUNet"])
    run_of_one = replace(run_of_one, training=replace(run_of_one.training, configuration=configuration))
    state = small_state(run_of_one)
    assert state.network.state_dict().keys() == state.weights.keys()


# --- Refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings", "text"),
    [
        ("monai:SwinUNTR", {}, r"MONAI has no network 'SwinUNTR' here; did you mean monai:SwinUNETR\?"),
        ("monai:Unet", {}, r"MONAI has no network 'Unet' here; did you mean monai:UNet\?"),  # which is the same class
        ("monai:Conv", {}, "MONAI has no network 'Conv' here"),
        (
            "monai:ResNet",
            {},
            "monai:ResNet makes no logits of images: it does not ask for in_channels and out_channels",
        ),
        ("monai:UNet", {"width": 3}, "monai:UNet has no settings.width; choose from channels, strides, kernel_size"),
        ("monai:UNet", {"in_channels": 3}, "settings.in_channels of monai:UNet follows from the plan; leave it out"),
        ("monai:AHNet", {"pretrained": True}, "settings.pretrained of monai:AHNet would load weights; leave it out"),
        ("monai:SPADENet", {}, "monai:SPADENet needs settings.label_nc; add it to plan.json"),
    ],
)
@pytest.mark.parametrize("error", [UsageError, ModelError])
def test_networks_and_settings_that_are_not_there_are_named(name, settings, text, error):
    """Before anything is built, as whoever asks wants to be told."""
    with pytest.raises(error, match=text):
        check_network(Plugin(name=name, settings=settings), error)


@pytest.mark.parametrize(
    "name", ["monai:", "monai:os.system", "monai:_private", "monai:UNet()", "monai:nets.UNet", "torch:nn", "Monai:UNet"]
)
def test_names_are_no_code(name):
    """A class that MONAI lists as a network, by its own name, or nothing."""
    with pytest.raises(ValidationError, match="name"):
        Plugin(name=name)


def test_only_networks_of_monai_itself_can_be_named():
    """Whatever else its module holds: what it imports, functions, and classes under other names."""
    from monai.networks import nets

    for name, found in vars(nets).items():
        if inspect.isclass(found) and found.__module__.startswith("monai.networks.nets.") and found.__name__ == name:
            continue
        if re.fullmatch("[A-Z][A-Za-z0-9]*", name):
            with pytest.raises(UsageError, match="MONAI has no network"):
                check_network(Plugin(name=f"monai:{name}"))


def test_construction_that_fails_is_one_line():
    """For what MONAI says."""
    configuration = configuration_with("SegResNet", blocks_down=[1, 1], init_filters=3)
    with pytest.raises(ModelError, match=r"MONAI cannot build monai:SegResNet with these settings: .*; change"):
        make_network(configuration, 0, ModelError)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"strides": [2, "x"]}, "settings of monai:UNet: strides is 'x', no whole number above 0"),
        ({"strides": 2}, "settings of monai:UNet: strides is 2, no list"),
        ({"strides": [2, 2]}, "settings of monai:UNet: 5 resolutions have features, 3 a size"),
        ({"channels": [8, 8], "strides": [[1, 2]]}, r"\(1, 2\) has 2 values, the image has 3 axes"),
    ],
)
def test_settings_that_make_no_resolutions_are_named(settings, text):
    """When the plan is read, without MONAI."""
    known = small_configuration().model_dump() | {"network": {"name": "monai:UNet", "settings": settings}}
    with pytest.raises(ValidationError, match=text):
        Configuration.model_validate(known)


@pytest.mark.parametrize(
    ("name", "settings", "times", "text"),
    [
        ("SegResNetVAE", {"blocks_down": [1, 1], "blocks_up": [1]}, 1, "coarser resolution gives logits of shape"),
        (
            "DenseNet",
            {"block_config": [1, 1]},
            1,
            "in evaluation mode gives logits of shape (2, 3), not (2, 3, 32, 32)",
        ),
        ("HyenaNDUNETR", {"hyena_stages": [False] * 4}, 1, None),
        ("RegUNet", {"num_channel_initial": 4, "depth": 6}, 1, "cannot look at patches of 32 x 32 voxels: "),
    ],
)
def test_trial_says_in_one_line_what_does_not_fit(name, settings, times, text):
    """On noise, when a fold begins; and what to do about it."""
    configuration = configuration_with("HighResNet", 2, times=8)
    network = Plugin(name=f"monai:{name}", settings=settings)
    configuration = configuration.model_copy(update={"network": network})
    run = own_run(None)
    run = replace(run, training=replace(run.training, configuration=configuration))
    if text is None:
        with pytest.raises(UsageError, match=f"MONAI cannot build monai:{name} with these settings"):
            make_network(configuration, 0)
        return
    with pytest.raises(UsageError) as caught:
        try_out(make_network(configuration, 0), run)
    assert text in str(caught.value)
    assert "the settings of the network" in caught.value.fix or "change its settings in plan.json" in caught.value.fix


def test_without_monai_it_is_one_line(monkeypatch):
    """That says what to install; plans can be read all the same."""
    configuration = configuration_with("UNet", **NARROW["UNet"])
    monkeypatch.setitem(sys.modules, "monai.networks", None)
    with pytest.raises(
        ModelError, match=r"'monai:UNet' is MONAI's, which is not installed here; pip install autoseg\["
    ):
        make_network(configuration, 0, ModelError)
    assert count_monai(configuration) is None
    assert Configuration.model_validate_json(configuration.model_dump_json()) == configuration


def test_monai_is_imported_only_when_it_is_needed():
    """Neither by the program nor by a plan that names it."""
    code = (
        "import sys, autoseg; from autoseg.cli.app import app; from autoseg.models.build import make_network\n"
        "from autoseg.networks.monai import make_architecture\n"
        "assert make_architecture('monai:UNETR', {}, 3, in_channels=1, out_channels=2).divisor == (16, 16, 16)\n"
        "assert 'monai' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("channels", "sound"), [([4, 8, 16], True), ([4096, 8192, 16384], False)])
def test_model_with_far_fewer_weights_than_its_network_is_refused(tmp_path, channels, sound):
    """Before memory is taken for trillions of weights of a stranger's file."""
    configuration = configuration_with("UNet", **{**NARROW["UNet"], "channels": channels})
    plan = small_plan().model_copy(update={"configurations": {"3d_fullres": configuration}})
    weights = make_network(configuration, 0).state_dict() if sound else small_checkpoint().weights
    save_checkpoint(replace(small_checkpoint(), plan=plan, weights=weights), tmp_path / "checkpoint.pt")
    if sound:
        assert load_checkpoint(tmp_path / "checkpoint.pt").plan == plan
        return
    with pytest.raises(ModelError, match="less than a part of the network that its plan describes"):
        load_checkpoint(tmp_path / "checkpoint.pt")
