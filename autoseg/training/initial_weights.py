"""The weights that training begins with, random or of a trained model, and which of them stay frozen."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from torch import nn

from autoseg.errors import ModelError, UsageError
from autoseg.models.checkpoint import Checkpoint, Weights, load_checkpoint
from autoseg.models.pretrained_weights import is_foreign
from autoseg.workspace import Fold, ModelFolder, checkpoint_file

Freeze = Literal["encoder", "decoder", "all_but_heads"]

FROZEN: dict[Freeze, tuple[str, ...]] = {
    "encoder": ("stem.", "encoder."),
    "decoder": ("upsampling.", "decoder."),
    "all_but_heads": ("stem.", "encoder.", "upsampling.", "decoder."),
}
"""Parts of the network that can be frozen, to the prefixes of the names of their weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialWeights:
    """The weights that a run began with.

    Attributes:
        digest: Digest of the weights that were given; empty if the run began with random weights.
        freeze: The part of the network that stays frozen.
        weights: Weights to begin with, by name; None if they are random, or the run has begun already.
        warmup_share: Share of the training in which the learning rate rises although the plan has no warm-up; see
            `foreign_start`.
        lines: Lines for people that say which weights were taken over.
    """

    digest: str = ""
    freeze: Freeze | None = None
    warmup_share: float = 0.0
    weights: Weights | None = field(default=None, repr=False)
    lines: tuple[str, ...] = ()

    def apply(self, network: nn.Module) -> None:
        """Loads the weights into a network, and freezes its part: no gradients, and unknown to the optimizer."""
        if self.weights is not None:
            network.load_state_dict(dict(self.weights))
        for name in list_frozen(dict(network.named_parameters()), self.freeze):
            network.get_parameter(name).requires_grad_(False)

    def pack(self) -> dict[str, Any]:
        """Returns digest, frozen part and warm-up as plain values, for a checkpoint."""
        packed = {"digest": self.digest, "freeze": self.freeze}
        return packed | ({"warmup_share": self.warmup_share} if self.warmup_share else {})

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "InitialWeights":
        """Returns how the fold of a checkpoint began: with random weights if an older checkpoint does not say."""
        packed = checkpoint.training.get("origin", {})
        freeze = packed.get("freeze")
        return cls(
            digest=str(packed.get("digest", "")),
            freeze=None if freeze is None else parse_freeze(freeze),
            warmup_share=float(packed.get("warmup_share", 0)),
        )


FOREIGN_CHECKPOINT = "checkpoint_final.pth"
"""Name of the file that nnU-Net and nnssl write at the end of a training."""

RANDOM = InitialWeights()
"""Random weights, none of them frozen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialWeightsRequest:
    """The initial weights that a user asked for.

    Attributes:
        path: Path of a model folder, of the folder of one of its folds, of a checkpoint, or of a file that another
            program wrote, see `models.pretrained_weights`; None for random weights, or for those of the checkpoint that
            the fold has already.
        names: Path of a file that says how the weights of another program are called here, see
            `models.weight_patterns`.
        freeze: Name of the part of the network that stays frozen; see `FROZEN`.

    Raises:
        UsageError: No part of the network has that name, or names are given without a file of weights.
    """

    path: Path | None = None
    names: Path | None = None
    freeze: str | None = None

    def __post_init__(self) -> None:
        if self.freeze is not None:
            parse_freeze(self.freeze)
        if self.names is not None and self.path is None:
            raise UsageError("--init-names names the weights of a file that --init gives", "add --init FILE")

    def find_foreign(self) -> Path | None:
        """Returns the path of a file of weights that another program wrote; None if none was asked for.

        In a folder without a model of this program, that is the file of nnU-Net's and nnssl's name.

        Raises:
            ModelError: The file is damaged or no container of torch's.
            UsageError: Names are given for a model of this program, whose weights have them already.
        """
        path = self.path
        if path is None:
            return None
        inside = path / FOREIGN_CHECKPOINT
        is_own_folder = checkpoint_file(path).is_file() or bool(ModelFolder(path=path).trained_folds())
        file = path if path.is_file() else inside if inside.is_file() and not is_own_folder else None
        if file is not None and is_foreign(file):
            return file
        if self.names is not None:
            what = f"{path} is no file of another program, so its weights have names"
            raise UsageError(what, "leave out --init-names")
        return None

    def find(self, fold: Fold, own: Path) -> tuple[Path, Checkpoint]:
        """Returns path and content of the checkpoint to begin with, mapped to its file.

        In a model folder, that is the fold of the same number, or else the first one; in either case one that is
        trained to its end, because another may change while it is read, and never the fold that is to be trained.

        Args:
            fold: The fold that is to be trained.
            own: Path of its checkpoint.

        Raises:
            UsageError: The fold would begin with its own weights.
            ModelError: There is no such checkpoint, or it is damaged.
        """
        path = Path() if self.path is None else self.path
        if path.is_file() or checkpoint_file(path).is_file():
            path = path if path.is_file() else checkpoint_file(path)
            if path.resolve() == own.resolve():
                raise UsageError(f"fold {fold} cannot begin with its own weights", "use --extend to train it on")
            return path, load_checkpoint(path, mapped=True)
        folder = ModelFolder(path=path)
        folds = sorted(folder.trained_folds(), key=lambda trained: trained != fold)
        for candidate in map(folder.checkpoint, folds):
            if candidate.resolve() == own.resolve():
                continue
            checkpoint = load_checkpoint(candidate, mapped=True)
            if checkpoint.finished:
                return candidate, checkpoint
        what = f"--init {path} holds no fold that is trained to its end"
        raise ModelError(what, "check the path, or name a checkpoint.pt")


def parse_freeze(name: str) -> Freeze:
    """Returns the part of the network that has this name.

    Raises:
        UsageError: No part has it.
    """
    if name not in get_args(Freeze):
        raise UsageError(f"--freeze {name!r} is no part of the network", f"choose from {', '.join(FROZEN)}")
    return cast(Freeze, name)


def list_frozen(weights: Mapping[str, torch.Tensor], freeze: Freeze | None) -> list[str]:
    """Returns the names of the weights that stay frozen."""
    return [] if freeze is None else [name for name in weights if name.startswith(FROZEN[freeze])]
