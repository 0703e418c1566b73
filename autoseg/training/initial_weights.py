"""Where the weights of a run come from: chance, or a trained model; and which of them stay as they are.

A run that goes on keeps its origin, whose digest stands in its checkpoint: it never begins a second time, and what was
frozen stays so to the end.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from torch import nn

from autoseg.errors import ModelError, UsageError
from autoseg.models.checkpoint import Checkpoint, Weights, load_checkpoint
from autoseg.workspace import Fold, ModelFolder

Freeze = Literal["encoder", "decoder", "all_but_heads"]

FROZEN: dict[Freeze, tuple[str, ...]] = {
    "encoder": ("stem.", "encoder."),
    "decoder": ("upsampling.", "decoder."),
    "all_but_heads": ("stem.", "encoder.", "upsampling.", "decoder."),
}
"""With what the names of weights begin that each keeps as they are."""


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

    def apply(self, network: nn.Module) -> None:
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
            return path, load_checkpoint(path, mapped=True)
        folder = ModelFolder(path=path)
        folds = sorted(folder.trained_folds(), key=lambda one: one != fold)
        for candidate in (folder.checkpoint(one) for one in folds):
            if (
                candidate.resolve() != own.resolve()
                and (checkpoint := load_checkpoint(candidate, mapped=True)).finished
            ):
                return candidate, checkpoint
        what = f"--init {path} holds no fold that is trained to its end"
        raise ModelError(what, "check the path, or name a checkpoint.pt")


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
