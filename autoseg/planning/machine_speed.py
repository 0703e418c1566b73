"""The measured speed of a machine without a CUDA GPU, and what steps, folds and scans take at that speed.

Work is counted in multiply-adds (of convolutions, linear layers and attention), so it is known before anything is
calculated. Where patches grow during the training, a step is the mean of the stages, which have equal shares of it.
"""

from collections.abc import Sequence
from math import ceil, log2, prod
from typing import Self

from autoseg.networks.architecture import PositiveFloat, count_multiply_adds
from autoseg.planning.plan import Configuration, ConfigurationName, Plan
from autoseg.planning.settings import TrainingSettings
from autoseg.runtime.artifact import Artifact
from autoseg.runtime.units import describe_duration

TRAINING_PASSES = 3
"""Multiply-adds of a training step, relative to those of a forward pass: the gradients of the maps and those of the
weights take as many each."""

STEP_OVERHEAD = 1.25
"""Time of a training step relative to forward and backward pass of the network alone: loss, optimizer, average of the
weights, and patches that are augmented on the same cores. Decision: 1.1 was measured in float32, and 1.3 in bfloat16
(tests/benchmarks/RESULTS.md); rather too long than too short."""

NARROW_FEATURES, NARROW_SHARE = 8, 0.6
"""Most features at full resolution of a narrow network, and the share that it reaches of the speed of the preset
`small`, which has 16: with so few, a convolution moves more numbers than it calculates. Source: 0.62 with AVX2 and 0.51
with AVX-512, both in float32 (tests/benchmarks/RESULTS.md)."""

OVERLAP_STEP = 0.5
"""Largest distance of neighbouring tiles, as a fraction of a tile. Source: the reference method."""


class MachineSpeed(Artifact):
    """The speed at which a device calculates the networks of this project; machine_speed.json.

    Attributes:
        machine: The machine that was measured; see `runtime.machine.identify_machine`.
        device: Type of the device: "cpu" or "mps".
        precision: Number format in which networks calculate there, such as "float32".
        training: Multiply-adds per second in training, where a step takes three times those of the forward pass.
        prediction: Multiply-adds per second in prediction.
    """

    machine: str
    device: str
    precision: str
    training: PositiveFloat
    prediction: PositiveFloat

    @property
    def rounded(self) -> "MachineSpeed":
        """The speed in coarse steps, each 1.4 times the last, since measurements of one machine differ a little.

        >>> speed = MachineSpeed(
        ...     machine="any, 2 cores", device="cpu", precision="float32", training=43e9, prediction=8.1e10
        ... )
        >>> speed.rounded.training, speed.rounded.prediction
        (45000000000.0, 91000000000.0)
        """
        update = {"training": _round_coarsely(self.training), "prediction": _round_coarsely(self.prediction)}
        return self.model_copy(update=update)

    def describe(self) -> str:
        """Returns the speed in training as text, such as "45 billion multiply-adds per second in float32"."""
        billions = self.training / 1e9
        number = f"{billions:.0f}" if billions >= 10 else f"{billions:.2g}"
        return f"{number} billion multiply-adds per second in {self.precision}"

    def of_network(self, configuration: Configuration) -> Self:
        """Returns the speed that the network of a configuration reaches; see `share_of_speed`."""
        share = share_of_speed(configuration)
        update = {"training": share * self.training, "prediction": share * self.prediction}
        return self if share == 1 else self.model_copy(update=update)

    def step_seconds(self, patch_work: float, batch_size: int) -> float:
        """Returns the seconds of a training step.

        Args:
            patch_work: Multiply-adds of the forward pass of a patch; see `count_patch_work`.
            batch_size: Number of patches of the step.
        """
        return TRAINING_PASSES * STEP_OVERHEAD * patch_work * batch_size / self.training


def share_of_speed(configuration: Configuration) -> float:
    """Returns the share of a machine's speed that a network reaches: `NARROW_SHARE` if it has few features, else 1."""
    is_narrow = configuration.network is None and configuration.architecture.stages[0].features <= NARROW_FEATURES
    return NARROW_SHARE if is_narrow else 1.0


def count_patch_work(configuration: Configuration, patch_size: Sequence[int] | None = None) -> int | None:
    """Returns the multiply-adds of the forward pass of a patch.

    Args:
        configuration: The configuration.
        patch_size: Size of the patch; left out, that of the configuration.

    Returns:
        None for a network of MONAI or of an installed package, about which planning knows nothing; see
        `models.work.measure_patch_work`.
    """
    size = tuple(configuration.patch_size if patch_size is None else patch_size)
    if configuration.network is None:
        return count_multiply_adds(configuration.architecture, size)
    spec = configuration.spec
    if spec is None:
        return None
    return spec.count(configuration.network.settings, configuration.architecture, size).multiply_adds


def mean_step_seconds(configuration: Configuration, speed: MachineSpeed, patch_work: int) -> float:
    """Returns the seconds of a training step, in the mean over the stages of patches that grow.

    Args:
        configuration: The configuration.
        speed: The speed of the machine.
        patch_work: Multiply-adds of the forward pass of a full patch; see `count_patch_work`. Where planning cannot
            count those of smaller patches, they are taken to be as much less as their voxels.
    """
    full, seconds = count_patch_work(configuration), []
    speed = speed.of_network(configuration)
    for stage in configuration.stages:
        work = count_patch_work(configuration, stage.patch_size)
        share = prod(stage.patch_size) / configuration.patch_voxels if work is None or full is None else work / full
        seconds.append(speed.step_seconds(share * patch_work, stage.batch_size))
    return sum(seconds) / len(seconds)


def fold_seconds(
    configuration: Configuration, training: TrainingSettings, speed: MachineSpeed, patch_work: int
) -> float:
    """Returns the seconds of the training of a fold, with the held-out patches that are measured after each epoch.

    Args:
        configuration: The configuration.
        training: Gives the number of epochs and of steps.
        speed: The speed of the machine.
        patch_work: See `mean_step_seconds`.
    """
    step = mean_step_seconds(configuration, speed, patch_work)
    prediction = speed.of_network(configuration).prediction
    held_out = training.validation_steps * configuration.batch_size * patch_work / prediction
    return training.epochs * (training.steps_per_epoch * step + held_out)


def scan_seconds(
    configuration: Configuration,
    shape: Sequence[float],
    speed: MachineSpeed,
    patch_work: int,
    *,
    votes: int,
    overlap_step: float = OVERLAP_STEP,
) -> float:
    """Returns the seconds in which the networks predict a scan; reading, resampling and writing are not counted.

    Args:
        configuration: The configuration.
        shape: Shape (z, y, x) of the scan at the spacing of the configuration, in the order of the plan's axes; for a
            2D configuration, the first axis is that of the slices.
        speed: The speed of the machine.
        patch_work: See `count_patch_work`.
        votes: Number of predictions of each tile that are averaged: mirror images times folds.
        overlap_step: Largest distance of neighbouring tiles, as a fraction of a tile.
    """
    tiles = count_tiles(configuration, shape, overlap_step)
    return tiles * votes * patch_work / speed.of_network(configuration).prediction


def typical_shape(plan: Plan, name: ConfigurationName) -> tuple[int, ...]:
    """Returns the shape (z, y, x) of a typical image at the spacing of a configuration, with the slices of a 2D one."""
    shape, full = plan.configurations[name].median_shape, plan.configurations.get("3d_fullres")
    if len(shape) == 3:
        return shape
    return (1 if full is None else full.median_shape[0], *shape)


def validation_seconds(plan: Plan, name: ConfigurationName, speed: MachineSpeed, patch_work: int) -> float:
    """Returns the seconds in which the networks of a fold predict a typical image with all mirror images."""
    configuration = plan.configurations[name]
    votes = 2 ** len(configuration.augmentation.averaged_axes)
    return scan_seconds(configuration, typical_shape(plan, name), speed, patch_work, votes=votes)


def count_tiles(configuration: Configuration, shape: Sequence[float], overlap_step: float = OVERLAP_STEP) -> int:
    """Returns the number of tiles that a scan is divided into; see `inference.tiling`.

    Args:
        configuration: Gives the size of the tiles.
        shape: Shape (z, y, x) of the scan; see `scan_seconds`.
        overlap_step: See `scan_seconds`.
    """
    patches, tile = configuration.patches, configuration.centre_size
    slices = [1] * (3 - len(tile))
    if patches.has_margin:
        distances = [float(max(step, size // step * step)) for size, step in zip(tile, patches.step, strict=True)]
    else:
        distances = [max(1.0, size * overlap_step) for size in tile]
    axes = zip(shape, (*slices, *tile), (*map(float, slices), *distances), strict=True)
    return prod(ceil(max(0.0, round(length) - size) / distance) + 1 for length, size, distance in axes)


def describe_roughly(seconds: float) -> str:
    """Returns a duration as an estimate deserves it, in one or two digits.

    >>> [describe_roughly(seconds) for seconds in (0.063, 0.58, 1.72, 47, 1640, 9100, 200_000)]
    ['0.06 s', '0.6 s', '1.7 s', '50 s', '25 min', '2 h 30 min', '2.3 days']
    """
    if seconds < 10:
        return f"{float(f'{seconds:.1g}' if seconds < 1 else f'{seconds:.2g}'):g} s"
    if seconds < 90:
        return f"{round(seconds, -1):.0f} s"
    minutes = seconds / 60
    if minutes < 10:
        return f"{minutes:.0f} min"
    if minutes < 60:
        return f"{5 * round(minutes / 5):.0f} min"
    if minutes < 24 * 60:
        return describe_duration(600 * round(minutes / 10))
    return f"{minutes / 24 / 60:.2g} days"


def _round_coarsely(per_second: float) -> float:
    """Returns the nearest power of the square root of two, in two digits of billions."""
    billions = 2 ** (round(2 * log2(per_second / 1e9)) / 2)
    return float(f"{billions:.2g}") * 1e9
