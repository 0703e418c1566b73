"""Reading of nnU-Net's checkpoints without running any code from them; see `models.foreign_weights`."""

from dataclasses import dataclass
from pathlib import Path

from autoseg.errors import ModelError
from autoseg.models.foreign_weights import open_container, read_weights
from autoseg.models.nnunet_names import is_duplicate
from autoseg.models.pickles import CHECKPOINT_NAMES, DAMAGED, read_pickle
from autoseg.nnunet.weight_names import Weights
from autoseg.workspace import Fold


@dataclass(frozen=True, slots=True, kw_only=True)
class NnunetCheckpoint:
    """The content of a checkpoint that is used.

    Attributes:
        trainer: Name of the trainer class.
        configuration: Name of the configuration in plans.json.
        fold: Fold; None if it is not stored.
        epochs: Number of epochs of training; None if it is not stored.
        mirror_axes: Axes of a patch that may be flipped in prediction.
        weights: Weights by nnU-Net's main names, each once.
    """

    trainer: str
    configuration: str
    fold: Fold | None
    epochs: int | None
    mirror_axes: tuple[int, ...]
    weights: Weights


def read_nnunet_checkpoint(path: Path) -> NnunetCheckpoint:
    """Reads a checkpoint to the CPU.

    Raises:
        ModelError: The file is damaged, is no checkpoint of nnU-Net v2, or holds more than tensors and plain values,
            which the text then names.
    """
    with open_container(path) as container:
        content = read_pickle(container.read_description(), CHECKPOINT_NAMES, str(path))
        tensors = content.get("network_weights") if isinstance(content, dict) else None
        settings = content.get("init_args") if isinstance(content, dict) else None
        if not isinstance(tensors, dict) or not isinstance(settings, dict):
            raise ModelError(f"{path} is no checkpoint of nnU-Net v2", "check the path")
        epochs = content.get("current_epoch")
        return NnunetCheckpoint(
            trainer=_text(content.get("trainer_name"), path),
            configuration=_text(settings.get("configuration"), path),
            fold=_fold(settings.get("fold")),
            epochs=epochs if type(epochs) is int else None,
            mirror_axes=_axes(content.get("inference_allowed_mirroring_axes"), path),
            weights=read_weights(tensors, container, is_duplicate),
        )


def _text(value: object, path: Path) -> str:
    if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= 200:
        raise ModelError(f"{path} does not name its trainer and configuration", "check the path")
    return value


def _fold(value: object) -> Fold | None:
    """Returns a number, which nnU-Net may have stored as text, or "all"; None for anything else.

    >>> _fold("3"), _fold(3), _fold("all"), _fold(None)
    (3, 3, 'all', None)
    """
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    return value if type(value) is int or value == "all" else None


def _axes(value: object, path: Path) -> tuple[int, ...]:
    """Returns the axes of mirroring; None, which means no mirroring in nnU-Net, becomes no axes."""
    axes = () if value is None else value
    if not isinstance(axes, tuple | list) or any(type(axis) is not int for axis in axes):
        raise ModelError(f"{path} mirrors along axes that are no numbers", DAMAGED)
    return tuple(axes)
