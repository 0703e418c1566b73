"""Folds begin with weights of other programs: fitted where that is sensible, listed part by part, with a warm-up."""

from dataclasses import replace

import pytest
import torch
from phantoms import Listener, write_json
from pretrained_files import drawn_weights, write_nnssl
from small_models import SMALL_INFO, small_checkpoint, small_plan
from small_nnunet import plain_configuration, replace_stage, residual_configuration
from tiny_workspaces import NUMBER, edit_training, folders_of, plan_tiny, write_volumes

from autoseg.datasets.dataset import Dataset
from autoseg.datasets.splits import Split
from autoseg.errors import ModelError, UsageError
from autoseg.models.checkpoint import load_checkpoint, save_checkpoint
from autoseg.models.pretrained_weights import match_foreign_weights
from autoseg.planning.plan import Plan
from autoseg.training.fold_job import FoldJob
from autoseg.training.foreign_start import WARMUP_SHARE, take_foreign_weights
from autoseg.training.initial_weights import FROZEN, InitialWeights, InitialWeightsRequest
from autoseg.training.initialization import check_initial_weights, find_initial_weights, warm_up
from autoseg.workspace import DatasetFolders, ModelFolder

RESIDUAL = residual_configuration()


def job_of(tmp_path, configuration=RESIDUAL, *, warmup_share=0.0, **request):
    """Returns the job of fold 0; `request` are the initial weights that are asked for."""
    plan = small_plan(warmup_share=warmup_share).model_copy(update={"configurations": {"3d_fullres": configuration}})
    return FoldJob(
        dataset=Dataset(folder=tmp_path / plan.dataset, info=SMALL_INFO, cases=()),
        plan=plan,
        configuration_name="3d_fullres",
        fold=0,
        split=Split(training=("case_1",), validation=("case_2",)),
        folders=DatasetFolders(raw=tmp_path, preprocessed=tmp_path, results=tmp_path / "results"),
        cases_folder=tmp_path,
        device=torch.device("cpu"),
        initial_weights=InitialWeightsRequest(**request),
    )


def with_architecture(configuration, stages=None, **changes):
    """Returns a configuration of another architecture."""
    stages = configuration.architecture.stages if stages is None else tuple(stages)
    architecture = configuration.architecture.model_copy(update={"stages": stages, **changes})
    return configuration.model_copy(update={"architecture": architecture})


def begin(tmp_path, configuration=RESIDUAL, source=RESIDUAL, **request):
    """Returns how a fold begins with a file of nnssl."""
    path = write_nnssl(tmp_path / "pretrained" / "checkpoint_final.pth", source)
    job = job_of(tmp_path, configuration, path=path, **request)
    check_initial_weights(job, None)
    return find_initial_weights(warm_up(job, None))


def test_encoder_is_taken_and_the_rest_stays_fresh(tmp_path):
    """The table has a line for each part, and the lines say what the file holds besides."""
    start = begin(tmp_path, freeze="encoder")
    drawn = drawn_weights(RESIDUAL)
    for name, value in start.weights.items():
        assert torch.equal(value, drawn[name]) == name.startswith(FROZEN["encoder"]), name
    text = "\n".join(start.lines)
    assert start.lines[0].endswith("checkpoint_final.pth: encoder of ResEncL, pretrained with nnssl")
    rows = {row[0]: row[1:] for row in map(str.split, start.lines) if row[0] in ("stem", "encoder.0", "heads", "all")}
    assert rows["stem"] == ["4", "0", "0", "100.00%"]
    assert rows["encoder.0"] == ["8", "0", "0", "100.00%"]
    assert rows["heads"] == ["0", "0", "4", "0.00%"]
    assert "tensors of the file that the network does not take: decoder (" in text
    assert "its authors ask to cite: Author, A. (2024). A title." in text
    assert "frozen (encoder): " in text
    assert "the learning rate rises during the first 5% of the training" in text
    assert start.warmup_share == WARMUP_SHARE


def test_stem_is_repeated_and_kernels_are_adapted(tmp_path):
    """Four channels instead of one, a flat kernel in the first stage, and a stage more than was pretrained."""
    first, *others = RESIDUAL.architecture.stages
    stages = (replace_stage(first, kernel=(1, 3, 3)), *others, replace_stage(others[-1], stride=(2, 2, 2)))
    start = begin(tmp_path, with_architecture(RESIDUAL, stages, in_channels=4))
    drawn = drawn_weights(RESIDUAL)
    stem = drawn["stem.conv.weight"].sum(2, keepdim=True).repeat(1, 4, 1, 1, 1) / 4
    torch.testing.assert_close(start.weights["stem.conv.weight"], stem)
    flat = drawn["encoder.0.0.first.conv.weight"].sum(2, keepdim=True)
    torch.testing.assert_close(start.weights["encoder.0.0.first.conv.weight"], flat)
    text = "\n".join(start.lines)
    assert "fitted: stem.conv.weight: 1 channel becomes 4, the kernel 3x3x3 becomes 1x3x3" in text
    assert "encoder.0.0.second.conv.weight: the kernel 3x3x3 becomes 1x3x3" in text
    assert next(line.split() for line in start.lines if line.startswith("encoder.3"))[1:3] == ["0", "0"]


def test_planar_weights_are_inflated(tmp_path):
    """A 2D encoder begins a 3D one."""
    flat = residual_configuration(dimensions=2)
    start = begin(tmp_path, RESIDUAL, flat)
    kernel = drawn_weights(flat)["encoder.0.0.first.conv.weight"]
    inflated = kernel[:, :, None].repeat(1, 1, 3, 1, 1) / 3
    torch.testing.assert_close(start.weights["encoder.0.0.first.conv.weight"], inflated)
    assert any(line.startswith("fitted: stem.conv.weight") and "3x3 becomes 3x3x3" in line for line in start.lines)


def test_what_does_not_fit_is_named(tmp_path):
    """A stage of other features stays fresh, with both shapes in the line."""
    *others, last = RESIDUAL.architecture.stages
    source = with_architecture(RESIDUAL, (*others, replace_stage(last, features=16)))
    start = begin(tmp_path, RESIDUAL, source)
    line = next(line for line in start.lines if line.startswith("not taken: encoder.2.0.first.conv.weight"))
    assert line.endswith("shape (16, 6, 3, 3, 3) in the file, (6, 6, 3, 3, 3) in the plan")
    assert len([line for line in start.lines if line.startswith("not taken: ")]) <= 11


def test_file_of_another_network_is_refused(tmp_path):
    """The line says what share fits and which plan would fit better; names may be wrong as well."""
    with pytest.raises(UsageError, match=r"gives 0\.0% of the weights .* plain stages") as refused:
        begin(tmp_path, plain_configuration())
    assert "plan with --rules nnunet --preset resenc_l" in str(refused.value)
    write_json(tmp_path / "names.json", {"names": {"encoder.stem.convs.0.norm.bias": "stem.norm.bias"}})
    with pytest.raises(UsageError, match="or correct the file of names"):
        begin(tmp_path, names=tmp_path / "names.json")
    with pytest.raises(UsageError, match="add --init FILE"):
        InitialWeightsRequest(names=tmp_path / "names.json")
    save_checkpoint(small_checkpoint(), tmp_path / "own.pt")
    with pytest.raises(UsageError, match=r"own\.pt is no file of another program, .*; leave out --init-names"):
        check_initial_weights(job_of(tmp_path, path=tmp_path / "own.pt", names=tmp_path / "names.json"), None)
    (tmp_path / "harm.pth").write_bytes(b"no file of torch")
    with pytest.raises(ModelError, match=r"harm\.pth is damaged or no checkpoint"):
        check_initial_weights(job_of(tmp_path, path=tmp_path / "harm.pth"), None)


def test_folder_of_a_download_is_enough(tmp_path):
    """A folder with checkpoint_final.pth stands for that file, unless it holds a model of this program."""
    path = write_nnssl(tmp_path / "download" / "checkpoint_final.pth", RESIDUAL)
    assert InitialWeightsRequest(path=path.parent).find_foreign() == path
    save_checkpoint(small_checkpoint(), ModelFolder(path=path.parent).checkpoint(0))
    assert InitialWeightsRequest(path=path.parent).find_foreign() is None
    assert InitialWeightsRequest().find_foreign() is None


def test_begun_fold_keeps_its_warm_up(tmp_path):
    """It is known from the checkpoint; a warm-up of the plan comes first, and other weights are refused."""
    begun = begin(tmp_path)
    stored = replace(small_checkpoint(), training={"origin": begun.pack()})
    assert InitialWeights.of(stored).warmup_share == WARMUP_SHARE
    assert warm_up(job_of(tmp_path), InitialWeights.of(stored)).plan.training.warmup_share == WARMUP_SHARE
    path = tmp_path / "pretrained"
    assert warm_up(job_of(tmp_path, path=path, warmup_share=0.2), None).plan.training.warmup_share == 0.2
    assert warm_up(job_of(tmp_path), None).plan.training.warmup_share == 0
    check_initial_weights(job_of(tmp_path, path=path), begun)
    other = write_nnssl(tmp_path / "other.pth", RESIDUAL, seed=4)
    with pytest.raises(UsageError, match="fold 0 was begun with other weights than those of"):
        check_initial_weights(job_of(tmp_path, path=other), begun)


def test_networks_of_packages_take_equal_shapes_alone(tmp_path):
    """Their names do not say which weights are kernels."""
    path = write_nnssl(tmp_path / "c.pth", RESIDUAL)
    fresh = {"stem.conv.weight": torch.zeros(4, 2, 3, 3, 3), "stem.norm.bias": torch.zeros(4)}
    foreign = match_foreign_weights(path, fresh, RESIDUAL.architecture)
    fits = take_foreign_weights(fresh, foreign, built_in=False).fits
    assert fits == {"stem.conv.weight": "fresh", "stem.norm.bias": "taken"}
    assert take_foreign_weights(fresh, foreign, built_in=True).fits["stem.conv.weight"] == "fitted"


@pytest.mark.slow  # trains a fold
def test_training_begins_and_goes_on(tmp_path):
    """The command takes the file, the checkpoint keeps the warm-up, and the fold is extended without the file."""
    from autoseg.pipeline.training import train

    write_volumes(tmp_path, channels=2)
    plan = plan_tiny(tmp_path, patches="fixed", epochs=2, steps_per_epoch=3)
    path = folders_of(tmp_path).plan
    wide = plan.configurations["3d_fullres"]
    stages = [replace_stage(stage, convolutions=2, blocks=1) for stage in wide.architecture.stages]
    residual = with_architecture(wide, stages, residual="block")
    configurations = {**plan.configurations, "3d_fullres": residual}
    Plan.load(path).model_copy(update={"configurations": configurations}).save(path)
    source = with_architecture(residual, in_channels=1)
    file = write_nnssl(tmp_path / "pretrained" / "checkpoint_final.pth", source)
    listener = Listener()
    options = {"device": "cpu", "workspace": tmp_path, "reporter": listener}
    train(NUMBER, "3d_fullres", [0], init=file, freeze="encoder", **options)
    assert "fitted: stem.conv.weight: 1 channel becomes 2" in listener.text
    learned = load_checkpoint(folders_of(tmp_path).model("3d_fullres").checkpoint(0))
    assert learned.plan.training.warmup_share == WARMUP_SHARE
    drawn = drawn_weights(source)
    assert torch.equal(learned.weights["encoder.0.0.first.conv.weight"], drawn["encoder.0.0.first.conv.weight"])
    train(NUMBER, "3d_fullres", [0], extend="1", **options)
    assert "trained to its end" in run_again(options, listener)
    edit_training(tmp_path, warmup_share=0.3)
    with pytest.raises(ModelError, match=r"was begun by another plan\.json"):
        train(NUMBER, "3d_fullres", [0], **options)


def run_again(options, listener):
    """Asks for the same fold again, and returns what was said."""
    from autoseg.pipeline.training import train

    train(NUMBER, "3d_fullres", [0], init=options["workspace"] / "pretrained", **options)
    return listener.text
