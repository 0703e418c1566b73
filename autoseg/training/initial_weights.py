"""Where the weights of a run come from: chance, or a trained model; and which of them stay as they are.

A run that goes on keeps its origin, whose digest stands in its checkpoint: it never begins a second time, and what was
frozen stays so to the end.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from torch import nn

from autoseg.datasets.info import DatasetInfo
from autoseg.errors import ModelError, UsageError
from autoseg.models.build import make_network
from autoseg.models.checkpoint import Checkpoint, Weights, load_checkpoint
from autoseg.networks.default_unet import UNet
from autoseg.planning.plan import Configuration
from autoseg.training.weight_transfer import (
    Matching,
    describe_group,
    describe_report,
    match_networks,
    share_taken,
    sort_weights,
    take_weights,
)
from autoseg.workspace import Fold, ModelFolder

Freeze = Literal["encoder", "decoder", "all_but_heads"]

FROZEN: dict[Freeze, tuple[str, ...]] = {
    "encoder": ("stem.", "encoder."),
    "decoder": ("upsampling.", "decoder."),
    "all_but_heads": ("stem.", "encoder.", "upsampling.", "decoder."),
}
"""With what the names of weights begin that each keeps as they are."""

LEAST_SHARE = 0.1
"""Of the weights must fit. Decision: less are the norms and a few small layers of a network of another size, which are
no better start than random weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialWeights:
    """Where a run comes from.

    Attributes:
        digest: Of the weights that it began with; empty if these were random.
        freeze: What stays as it is.
        weights: What it begins with, by name; None if these are random, or the run has begun already.
        lines: What was taken over, for people.
    """

    digest: str = ""
    freeze: Freeze | None = None
    weights: Weights | None = field(default=None, repr=False)
    lines: tuple[str, ...] = ()

    def settle(self, network: nn.Module) -> None:
        """Gives a network the weights, and freezes what is to stay as it is: neither gradients nor the optimizer."""
        if self.weights is not None:
            network.load_state_dict(dict(self.weights))
        for name in list_frozen(dict(network.named_parameters()), self.freeze):
            network.get_parameter(name).requires_grad_(False)

    def pack(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return {"digest": self.digest, "freeze": self.freeze}

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "InitialWeights":
        """How the fold of a checkpoint was begun; at random if that was not noted, as in older ones."""
        packed = checkpoint.training.get("origin", {})
        freeze = packed.get("freeze")
        return cls(digest=str(packed.get("digest", "")), freeze=None if freeze is None else parse_freeze(freeze))


RANDOM = InitialWeights()


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialWeightsRequest:
    """What a user asked for.

    Attributes:
        path: A model folder, the folder of one of its folds, or a checkpoint; None for random weights, or for those
            that the fold has by now.
        freeze: What stays as it is.

    Raises:
        UsageError: Nothing is called like what is to be frozen.
    """

    path: Path | None = None
    freeze: str | None = None

    def __post_init__(self) -> None:
        if self.freeze is not None:
            parse_freeze(self.freeze)

    def find(self, fold: Fold, own: Path) -> tuple[Path, Checkpoint]:
        """The checkpoint to begin with.

        Of a model folder the fold of the same number, else the first one; in either case one that is trained to its
        end, because another may change while it is looked at, and never the fold that is to be trained.

        Args:
            fold: To be trained.
            own: Its checkpoint.

        Raises:
            UsageError: It would begin with itself.
            ModelError: There is none, or it is damaged.
        """
        path = Path() if self.path is None else self.path
        if path.is_file() or (path / "checkpoint.pt").is_file():
            path = path if path.is_file() else path / "checkpoint.pt"
            if path.resolve() == own.resolve():
                raise UsageError(f"fold {fold} cannot begin with its own weights", "use --extend to train it on")
            return path, load_checkpoint(path)
        folder = ModelFolder(path=path)
        folds = sorted(folder.trained_folds(), key=lambda one: one != fold)
        for candidate in (folder.checkpoint(one) for one in folds):
            if candidate.resolve() != own.resolve() and (checkpoint := load_checkpoint(candidate)).finished:
                return candidate, checkpoint
        what = f"--init {path} holds no fold that is trained to its end"
        raise ModelError(what, "check the path, or name a checkpoint.pt")


NOTHING_ASKED = InitialWeightsRequest()


def parse_freeze(name: str) -> Freeze:
    """The part of the network of this name.

    Raises:
        UsageError: There is none.
    """
    if name not in get_args(Freeze):
        raise UsageError(f"--freeze {name!r} is no part of the network", f"choose from {', '.join(FROZEN)}")
    return cast(Freeze, name)


def list_frozen(weights: Mapping[str, torch.Tensor], freeze: Freeze | None) -> list[str]:
    """Names of the weights that stay as they are."""
    return [] if freeze is None else [name for name in weights if name.startswith(FROZEN[freeze])]


def digest_weights(weights: Weights) -> str:
    """Tells weights apart: 16 hexadecimal digits that follow from names, shapes and values."""
    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFold:
    """The fold that is to begin.

    Attributes:
        fold: Its number.
        configuration: What is trained.
        info: Channels and labels of its dataset.
        dataset: Name of that.
        cases: Digest of its cases; see `Split.digest`.
        checkpoint: Where its own is, or will be.
    """

    fold: Fold
    configuration: Configuration
    info: DatasetInfo
    dataset: str
    cases: str
    checkpoint: Path


def check_initial_weights(wanted: InitialWeightsRequest, new: NewFold, begun: InitialWeights | None) -> None:
    """Makes sure that a fold can begin as asked for, or began so.

    Args:
        wanted: What was asked for.
        new: The fold.
        begun: How it began, if it did.

    Raises:
        UsageError: It began otherwise, the weights do not fit, or random ones are to be frozen.
        ModelError: There is no such model.
    """
    if wanted.path is None and begun is None and wanted.freeze is not None:
        raise UsageError("--freeze would keep random weights as they are", "add --init MODEL")
    if wanted.freeze is not None and new.configuration.network is not None:
        what = f"--freeze does not know the parts of the network {new.configuration.network.name!r}"
        raise UsageError(what, "leave it out")
    if wanted.path is not None:
        path, old = wanted.find(new.fold, new.checkpoint)
        if begun is None:
            _check_fit(path, old, new)
        elif begun.digest != digest_weights(old.weights):
            there = "other weights than" if begun.digest else "random weights, not"
            what = f"fold {new.fold} was begun with {there} those of {path}"
            raise UsageError(what, "leave --init out to go on, or add --restart to train it anew")
    if begun is not None and wanted.freeze not in (None, begun.freeze):
        what = f"fold {new.fold} was begun {f'with --freeze {begun.freeze}' if begun.freeze else 'without --freeze'}"
        raise UsageError(what, "leave --freeze out to go on, or add --restart to train it anew")


def find_initial_weights(wanted: InitialWeightsRequest, new: NewFold, seed: int) -> InitialWeights:
    """The weights that a fold begins with.

    Args:
        wanted: What was asked for, and passed `check_initial_weights`.
        new: The fold.
        seed: Of the weights that do not fit.
    """
    if wanted.path is None:
        return RANDOM
    path, old = wanted.find(new.fold, new.checkpoint)
    freeze = None if wanted.freeze is None else parse_freeze(wanted.freeze)
    fresh = make_network(new.configuration, seed).state_dict()
    matching = _match(old, new)
    report = take_weights(fresh, old.weights, matching)
    lines = [f"begins with {path}: {old.configuration_name}, fold {old.fold} of {old.plan.dataset}"]
    lines += describe_report(report, new.info, matching)
    if freeze is not None:
        lines.append(describe_group(f"frozen ({freeze})", list_frozen(fresh, freeze), fresh))
    lines += _warn_of_leak(old, new)
    return InitialWeights(digest=digest_weights(old.weights), freeze=freeze, weights=report.weights, lines=tuple(lines))


def _match(old: Checkpoint, new: NewFold) -> Matching:
    return match_networks(
        new.info,
        old.info,
        previous=new.configuration.previous_channels,
        old_previous=old.configuration.previous_channels,
    )


def _check_fit(path: Path, old: Checkpoint, new: NewFold) -> None:
    shapes = _find_shapes(new.configuration)
    share = share_taken(sort_weights(shapes, old.weights, _match(old, new)), shapes)
    if share >= LEAST_SHARE:
        return
    there, here = _describe_network(old.configuration), _describe_network(new.configuration)
    what = f"{share:.1%} of the weights of {path} fit: its network has {there}, the plan's has {here}"
    if old.configuration.network is not None or new.configuration.network is not None:
        raise UsageError(what, "name the same network, with the same settings, in plan.json")
    rules = "" if old.plan.rules == "autoseg" else f" --rules {old.plan.rules}"
    raise UsageError(
        what,
        f"plan with --preset {old.plan.preset}{rules} as that model was, or copy the architecture into plan.json",
    )


def _find_shapes(configuration: Configuration) -> Weights:
    """Weights of the shapes that a network has; those of the built-in one take no memory."""
    if configuration.network is not None:
        return make_network(configuration, seed=0).state_dict()
    with torch.device("meta"):
        return UNet(configuration.architecture).state_dict()


def _describe_network(configuration: Configuration) -> str:
    architecture, own = configuration.architecture, configuration.network
    if own is not None:
        return f"the layers of {own.name!r}"
    kinds = {"stage": "residual stages", "block": "stages of residual blocks", "none": "plain stages"}
    stages, features = len(architecture.stages), ", ".join(str(stage.features) for stage in architecture.stages)
    return f"{stages} {kinds[architecture.residual]} of {features} features in {architecture.dimensions}D"


def _warn_of_leak(old: Checkpoint, new: NewFold) -> Iterator[str]:
    """Scores of held-out cases that the old network was trained on are worth nothing."""
    if old.plan.dataset == new.dataset and old.cases != new.cases:
        yield (
            f"mind that these weights were learned from another fold of {new.dataset}, and may know the cases that "
            f"fold {new.fold} holds out: its scores will look better than they are"
        )
