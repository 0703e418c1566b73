"""Weights of other programs get the names of the network of a plan, and what cannot be matched is named."""

import pytest
import torch
from phantoms import write_json
from pretrained_files import drawn_weights, nnssl_content, write_nnssl
from small_models import small_checkpoint
from small_nnunet import plain_configuration, residual_configuration

from autoseg.errors import AutosegError, ModelError, UsageError
from autoseg.models.checkpoint import save_checkpoint
from autoseg.models.pretrained_weights import is_foreign, match_foreign_weights
from autoseg.nnunet.weight_names import export_weights

RESIDUAL = residual_configuration()
NAMES = list(drawn_weights(RESIDUAL))
ENCODER = {name for name in NAMES if name.startswith(("stem.", "encoder."))}


def match(path, configuration=RESIDUAL, patterns=None):
    """Reads a file for the network of a configuration."""
    return match_foreign_weights(path, drawn_weights(configuration), configuration.architecture, patterns)


def refuse(path, error=UsageError, patterns=None):
    """Returns the line that says why a file is refused."""
    with pytest.raises(error) as caught:
        match(path, patterns=patterns)
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize("prefix", ["", "online_"])
def test_encoder_of_nnssl_is_found(tmp_path, prefix):
    """Encoder and stem are read under the keys that the file names; the decoder and copies of names are not."""
    found = match(write_nnssl(tmp_path / "c.pth", RESIDUAL, prefix=prefix))
    drawn = drawn_weights(RESIDUAL)
    assert found.kind == "encoder of ResEncL, pretrained with nnssl"
    assert found.is_pretrained_encoder
    assert found.weights.keys() == ENCODER
    assert all(torch.equal(found.weights[name], drawn[name]) for name in ENCODER)
    assert found.unused
    assert {name.split(".")[0] for name in found.unused} == {f"{prefix}decoder"}
    assert not any("encoder.stages" in name.removeprefix(f"{prefix}decoder.") for name in found.unused)
    assert found.remarks == ("its authors ask to cite: Author, A. (2024). A title.",)


def test_first_files_of_nnssl_are_read(tmp_path):
    """Their keys had other names, and citations were texts or missing."""
    content = nnssl_content(RESIDUAL)
    plan = content["nnssl_adaptation_plan"]
    content["nnssl_adaptation_plan"] = {
        "architecture_name": "NoSkipResEncL",
        "state_dict_key_to_encoder": plan["key_to_encoder"],
        "state_dict_key_to_stem": plan["key_to_stem"],
    }
    content["citations"] = ["One\n  paper", 3, {"apa_citations": None}]
    torch.save(content, tmp_path / "c.pth")
    found = match(tmp_path / "c.pth")
    assert found.kind == "encoder of NoSkipResEncL, pretrained with nnssl"
    assert found.weights.keys() == ENCODER
    assert found.remarks == ("its authors ask to cite: One paper",)


def test_stem_may_lie_in_the_encoder(tmp_path):
    """A plain network has no stem: its first convolution is that of the first stage."""
    plain = plain_configuration()
    path = write_nnssl(tmp_path / "c.pth", plain, key_to_stem="encoder.stages.0")
    assert match(path, plain).weights.keys() == {name for name in drawn_weights(plain) if name.startswith("encoder.")}


def test_plain_state_dicts_are_matched_by_name(tmp_path):
    """Our own names come first, then nnU-Net's, without the heads, whose structures are not known."""
    drawn = drawn_weights(RESIDUAL)
    torch.save({f"module.{name}": value for name, value in drawn.items()}, tmp_path / "own.pth")
    torch.save({"network_weights": export_weights(drawn, RESIDUAL.architecture, None)}, tmp_path / "nnunet.pth")
    own, theirs = match(tmp_path / "own.pth"), match(tmp_path / "nnunet.pth")
    assert (own.kind, theirs.kind) == ("weights by the names of the network", "weights by nnU-Net's names")
    assert own.weights.keys() == set(NAMES)
    assert theirs.weights.keys() == {name for name in NAMES if not name.startswith("heads.")}
    assert all(torch.equal(theirs.weights[name], drawn[name]) for name in theirs.weights)


def test_file_of_names_renames(tmp_path):
    """The key of the weights is named; what no pattern names stays in the file, and idle patterns are named."""
    drawn = drawn_weights(RESIDUAL)
    foreign = {f"net.{name.replace('encoder.', 'layer')}": value for name, value in drawn.items()}
    torch.save({"teacher": {}, "student": foreign, "ema": foreign}, tmp_path / "c.pth")
    names = {"net.layer*.**": "encoder.*.**", "net.stem.**": "stem.**", "head.**": "heads.0.**"}
    write_json(tmp_path / "names.json", {"weights": "student", "names": names})
    found = match(tmp_path / "c.pth", patterns=tmp_path / "names.json")
    assert found.weights.keys() == ENCODER
    assert all(torch.equal(found.weights[name], drawn[name]) for name in ENCODER)
    assert found.remarks == ("no weight of the file matches 'head.**'",)
    assert {name.split(".")[1] for name in found.unused} == {"upsampling", "decoder", "heads"}


def test_what_cannot_be_matched_is_one_line(tmp_path):
    """Names that mean nothing, a key that is not there, and two weights of one name."""
    path, names = tmp_path / "c.pth", tmp_path / "names.json"
    torch.save({"backbone.conv1.weight": torch.ones(2), "backbone.conv2.weight": torch.ones(2)}, path)
    assert "no weight that the network of the plan has by that name (there: backbone.conv1.weight," in refuse(path)
    write_json(names, {"names": {"backbone.*.weight": "*"}, "weights": "net"})
    assert "holds no weights under 'net'; correct the key" in refuse(path, ModelError, names)
    write_json(names, {"names": {"backbone.conv1.**": "stem.**", "backbone.conv2.**": "stem.**"}})
    text = refuse(path, UsageError, names)
    assert "'backbone.conv1.weight' and 'backbone.conv2.weight' of" in text
    assert "the same name 'stem.weight'" in text


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"nnssl_adaptation_plan": 3}, "its nnssl_adaptation_plan is none"),
        ({"nnssl_adaptation_plan": {"key_to_encoder": 3}}, "names its encoder by something else than text"),
        ({"network_weights": 3}, "holds no weights under 'network_weights'"),
        ({"network_weights": {"encoder.stem.convs.0.conv.weight": 3}}, "which is no tensor"),
        ({"network_weights": {"encoder.stem.convs.0.conv.bias": torch.tensor([torch.nan])}}, "infinite or no numbers"),
    ],
)
def test_damaged_files_of_nnssl_are_one_line(tmp_path, changes, text):
    """The line names the file."""
    torch.save({**nnssl_content(RESIDUAL), **changes}, tmp_path / "c.pth")
    line = refuse(tmp_path / "c.pth", ModelError)
    assert text in line
    assert str(tmp_path / "c.pth") in line


def test_own_checkpoints_are_not_foreign(tmp_path):
    """They are known by their first key; what is neither is refused, and old files say how to save them again."""
    save_checkpoint(small_checkpoint(), tmp_path / "own.pt")
    assert not is_foreign(tmp_path / "own.pt")
    assert is_foreign(write_nnssl(tmp_path / "c.pth", RESIDUAL))
    torch.save({"a": torch.ones(1)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(AutosegError, match=r"old\.pth was written by torch before version 1\.6, .*; load it"):
        is_foreign(tmp_path / "old.pth")
