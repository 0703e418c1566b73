"""Plans, checkpoints and cases that train in a second, for tests."""

from dataclasses import replace

import numpy as np
import torch

from autoseg.dataloading.loader import Batches
from autoseg.dataloading.sampling import InMemoryCase
from autoseg.datasets.info import DatasetInfo
from autoseg.imaging.targets import Targets
from autoseg.models.build import make_network
from autoseg.models.checkpoint import Checkpoint
from autoseg.networks.architecture import Architecture, Stage
from autoseg.networks.auxiliary_outputs import AuxiliaryOutput
from autoseg.planning.channel_settings import Normalization
from autoseg.planning.loss_settings import LossSettings
from autoseg.planning.plan import Configuration, Plan
from autoseg.planning.settings import TrainingSettings
from autoseg.preprocessing.foreground import Foreground
from autoseg.runtime.device import precision
from autoseg.training.losses import Loss
from autoseg.training.state import Run, TrainState, start_training

SMALL_INFO = DatasetInfo(
    channel_names={"0": "MR"}, labels={"background": 0, "bright": 1, "dark": 2}, file_ending=".nii.gz"
)


PRECISIONS = tuple(dict.fromkeys((torch.float32, precision(torch.device("cpu")))))
"""In which networks calculate on this CPU: in float32, as on every CPU, and in bfloat16 if it has that."""


def small_configuration(dimensions: int = 3) -> Configuration:
    """Two stages of four and eight features, patches of 8 voxels along each axis, batches of two."""
    ones, twos, threes = (1,) * dimensions, (2,) * dimensions, (3,) * dimensions
    stages = (
        Stage(features=4, kernel=threes, stride=ones, convolutions=1),
        Stage(features=8, kernel=threes, stride=twos, convolutions=2),
    )
    return Configuration(
        spacing_mm=(1.0,) * dimensions,
        patch_size=(8,) * dimensions,
        batch_size=2,
        median_shape=(10,) * dimensions,
        normalization=(Normalization(scheme="zscore"),),
        batch_dice=False,
        architecture=Architecture(residual="stage", in_channels=1, out_channels=3, stages=stages),
        estimated_bytes=10**6,
    )


def small_plan(**training) -> Plan:
    """A plan of one small 3D configuration; `training` changes its settings."""
    settings = {"epochs": 2, "steps_per_epoch": 3, "validation_steps": 2, "average_decay": 0.9, **training}
    return Plan(
        dataset="Dataset001_Small",
        preset="small",
        memory_budget_bytes=10**9,
        axis_order=(0, 1, 2),
        configurations={"3d_fullres": small_configuration()},
        training=TrainingSettings(**settings),
    )


def small_checkpoint() -> Checkpoint:
    """An untrained fold; the same weights each time."""
    plan = small_plan()
    network = make_network(plan.configurations["3d_fullres"], seed=0)
    return Checkpoint(
        plan=plan,
        info=SMALL_INFO,
        configuration_name="3d_fullres",
        fold=0,
        cases="0123456789abcdef",
        weights=network.state_dict(),
        finished=True,
        training={},
    )


def small_cases(count: int = 3) -> list[InMemoryCase]:
    """Noisy cases with a bright and a dark cube, each labelled."""
    random = np.random.default_rng(0)
    cases = []
    for _ in range(count):
        image = random.normal(0, 0.2, (1, 10, 10, 10)).astype(np.float32)
        label = np.zeros((10, 10, 10), dtype=np.int8)
        label[1:5, 1:5, 1:5], label[5:9, 5:9, 5:9] = 1, 2
        image[0] += 2.0 * (label == 1) - 2.0 * (label == 2)
        foreground = [np.argwhere(label == number) for number in (1, 2)]
        cases.append(InMemoryCase(image=image, label=label, foreground=Foreground.of(foreground)))
    return cases


def usual_loss(outputs: int, auxiliary_outputs: tuple[AuxiliaryOutput, ...] = ()) -> Loss:
    """Dice of each patch and cross entropy, for a network with so many exclusive classes, and what else it tells."""
    structures = {str(number): (number,) for number in range(1, outputs)}
    return Loss(
        targets=Targets(structures=structures),
        settings=LossSettings(),
        batch_dice=False,
        auxiliary_outputs=auxiliary_outputs,
    )


def small_run(*, augmented: bool = True, workers: int = 1, **training) -> Run:
    """A run over small cases on the CPU; `training` changes the settings."""
    plan = small_plan(**training)
    batches = Batches(
        cases=small_cases(),
        configuration=plan.configurations["3d_fullres"],
        foreground_fraction=0.5,
        seed=(1, 0),
        augmented=augmented,
    )
    return Run(
        settings=plan.training,
        training=batches,
        validation=replace(batches, augmented=False),
        loss=Loss(targets=SMALL_INFO.targets, settings=plan.training.loss, batch_dice=False),
        device=torch.device("cpu"),
        workers=workers,
    )


def small_state(run: Run, *, seed: int = 5, scaled: bool = False) -> TrainState:
    """A run's state before its first step."""
    network = make_network(run.training.configuration, seed)
    return start_training(network, run.settings, run.device, scaled=scaled)
