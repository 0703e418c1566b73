"""Models that nnU-Net wrote, or could have, for tests."""

import json
import zipfile
from pathlib import Path
from typing import Any

import torch
from small_models import SMALL_INFO, small_plan

from autoseg.datasets.info import DatasetInfo
from autoseg.imaging.geometry import Volume
from autoseg.imaging.image_files import write_label_map
from autoseg.models.build import make_network
from autoseg.models.checkpoint import Checkpoint, save_checkpoint
from autoseg.networks.architecture import Architecture, Stage
from autoseg.planning.channel_settings import Normalization
from autoseg.planning.plan import Configuration
from autoseg.workspace import ModelFolder

GOLDEN = Path(__file__).parents[1] / "golden" / "nnunet_models"

REGIONS = DatasetInfo(
    channel_names={"0": "T1", "1": "CT"},
    labels={"background": 0, "whole": (1, 2, 3), "core": (2, 3), "active": 3},
    regions_class_order=(1, 2, 3),
    file_ending=".nii.gz",
)


def unpack(name: str, folder: Path) -> Path:
    """The folder of a recorded dataset's results."""
    with zipfile.ZipFile(GOLDEN / f"{name}.zip") as archive:
        archive.extractall(folder)
    return next(folder.iterdir())


def write_held_out(model: Path, fold: int, masks: dict[str, Volume], ending: str = ".nii.gz") -> Path:
    """Writes what nnU-Net leaves of the cases that a fold held out: segmentations, and a summary that names them."""
    folder = model / f"fold_{fold}" / "validation"
    for name, mask in masks.items():
        write_label_map(folder / f"{name}{ending}", mask)
    cases = [{"prediction_file": f"/home/somebody/results/{name}{ending}", "metrics": {}} for name in masks]
    (folder / "summary.json").write_text(json.dumps({"metric_per_case": cases}))
    return folder


def change_json(path: Path, **changes: Any) -> None:
    """Changes keys of a file; of nested ones the names are joined by two underscores; None takes one out."""
    content = json.loads(path.read_text())
    for name, value in changes.items():
        *above, key = name.split("__")
        inner = content
        for one in above:
            inner = inner[one]
        if value is None:
            inner.pop(key)
        else:
            inner[key] = value
    path.write_text(json.dumps(content))


def plain_configuration(dimensions: int = 3, info: DatasetInfo = SMALL_INFO, **changes: Any) -> Configuration:
    """A plain network of three stages, of different convolutions on the way down and up."""
    ones, twos, threes = (1,) * dimensions, (2,) * dimensions, (3,) * dimensions
    stages = (
        Stage(features=4, kernel=threes, stride=ones, convolutions=2, decoder_convolutions=1),
        Stage(features=6, kernel=(1, *threes[1:]), stride=(1, *twos[1:]), convolutions=1, decoder_convolutions=2),
        Stage(features=6, kernel=threes, stride=twos, convolutions=2),
    )
    return Configuration(
        **{
            "spacing_mm": (1.0,) * dimensions,
            "patch_size": (8,) * dimensions,
            "batch_size": 2,
            "median_shape": (10,) * dimensions,
            "normalization": (
                Normalization(scheme="zscore", only_nonzero=True),
                Normalization(scheme="ct", lower=-100.0, upper=200.0, mean=20.0, std=50.0),
            )[: info.channels],
            "batch_dice": False,
            "architecture": Architecture(
                residual="none", in_channels=info.channels, out_channels=info.targets.outputs, stages=stages
            ),
            "estimated_bytes": 10**6,
            **changes,
        }
    )


def residual_configuration(dimensions: int = 3, info: DatasetInfo = SMALL_INFO) -> Configuration:
    """A residual encoder, of which one stage strides without widening, and one widens."""
    one = plain_configuration(dimensions, info)
    stages = [
        replace_stage(stage, convolutions=2, blocks=number + 1, decoder_convolutions=1)
        for number, stage in enumerate(one.architecture.stages)
    ]
    return one.model_copy(
        update={"architecture": one.architecture.model_copy(update={"residual": "block", "stages": tuple(stages)})}
    )


def replace_stage(stage: Stage, **changes: Any) -> Stage:
    """The same stage with other numbers."""
    return Stage(**{**stage.model_dump(), **changes})


def save_model(
    root: Path, configurations: dict[str, Configuration], info: DatasetInfo = SMALL_INFO, folds: tuple = (0,)
) -> ModelFolder:
    """A model folder for each configuration, of weights that are all random; returns that of the first."""
    plan = small_plan().model_copy(update={"configurations": configurations, "axis_order": (1, 0, 2)})
    for name, configuration in configurations.items():
        for seed, fold in enumerate(folds):
            network = make_network(configuration, seed)
            generator = torch.Generator().manual_seed(seed)
            weights = {
                key: key.endswith("norm.weight") + torch.randn(value.shape, generator=generator) * 0.3
                for key, value in network.state_dict().items()
            }
            weights["heads.0.bias"].zero_()  # lest one structure win everywhere
            checkpoint = Checkpoint(
                plan=plan, info=info, configuration_name=name, fold=fold, cases="", weights=weights, finished=True,
                training={},
            )  # fmt: skip
            save_checkpoint(checkpoint, ModelFolder(path=root / name).checkpoint(fold))
    return ModelFolder(path=root / next(iter(configurations)))
