"""A trained fold in one file: weights, and everything that says what they are. Opened without running any code of it.

The file is torch's own container, read with `weights_only=True`: tensors and plain values only, so that a file from a
stranger can be refused but can do no harm.
"""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch

from autoseg.artifact import atomic_file
from autoseg.errors import AutosegError, ModelError
from autoseg.info import DatasetInfo
from autoseg.plan import Configuration, ConfigurationName, Plan
from autoseg.workspace import Fold

FORMAT_VERSION = 2
ANEW = "get a sound copy, or train that fold anew with --restart"

Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        plan: The plan that the fold was trained by.
        info: Channels and labels of the dataset.
        configuration_name: Which configuration of the plan.
        fold: Which fold.
        cases: Digest of its cases; see `Split.digest`. Their names stay at home when a model is passed on.
        weights: Of the network that predicts, by name.
        finished: Whether training came to its end.
        training: What resuming needs, in tensors and plain values; see `training.state`.
    """

    plan: Plan
    info: DatasetInfo
    configuration_name: ConfigurationName
    fold: Fold
    cases: str
    weights: Weights
    finished: bool
    training: dict[str, Any]

    @property
    def configuration(self) -> Configuration:
        """The configuration that was trained."""
        return self.plan.configurations[self.configuration_name]


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Writes a checkpoint, atomically: a crash in between leaves the former one.

    Raises:
        ArtifactError: The disk is full or the folder cannot be written.
    """
    content = {
        "format_version": FORMAT_VERSION,
        "plan": checkpoint.plan.model_dump_json(),
        "dataset": checkpoint.info.model_dump_json(),
        "configuration": checkpoint.configuration_name,
        "fold": checkpoint.fold,
        "cases": checkpoint.cases,
        "weights": dict(checkpoint.weights),
        "finished": checkpoint.finished,
        "training": checkpoint.training,
    }
    with atomic_file(path) as writing:
        try:
            torch.save(content, writing)
        except RuntimeError as error:  # torch's own writer says so when the disk is full
            raise OSError(None, f"writing failed, the disk may be full ({_first_line(error)})") from error


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint to the CPU.

    Raises:
        ModelError: The file is missing, damaged, holds more than tensors and plain values, or is of another version.
    """
    if not path.is_file():
        raise ModelError(f"{path} does not exist", "train that fold first")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(f"{path} is damaged or holds more than weights", ANEW) from error
    except (RuntimeError, EOFError, OSError, KeyError, ValueError) as error:
        raise ModelError(f"{path} is damaged or no checkpoint", ANEW) from error
    return _from_content(content, path)


def _from_content(content: Any, path: Path) -> Checkpoint:
    if not isinstance(content, dict) or "format_version" not in content:
        raise ModelError(f"{path} is no checkpoint of this program", "check the path")
    if content["format_version"] != FORMAT_VERSION:
        raise ModelError(
            f"{path} has format version {content['format_version']}, this program reads {FORMAT_VERSION}",
            "use the version of autoseg that wrote it",
        )
    try:
        checkpoint = Checkpoint(
            plan=Plan.parse(content["plan"], source=str(path)),
            info=DatasetInfo.model_validate_json(content["dataset"]),
            configuration_name=content["configuration"],
            fold=content["fold"],
            cases=str(content["cases"]),
            weights=_read_weights(content["weights"]),
            finished=content["finished"],
            training=content["training"],
        )
    except (KeyError, TypeError, ValueError, AutosegError) as error:
        raise ModelError(f"{path} is damaged: {_first_line(error)}", ANEW) from error
    if checkpoint.configuration_name not in get_args(ConfigurationName):
        raise ModelError(f"{path} is of an unknown configuration {checkpoint.configuration_name!r}", "check the path")
    return checkpoint


def _read_weights(weights: Any) -> Weights:
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise TypeError("its weights are no tensors")
    return weights


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
