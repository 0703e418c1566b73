"""The calibration of a model: temperatures of its labels, and how reliable its probabilities are; calibration.json.

`model_selection.calibration_fit` fits it on held-out cases. It is passed on with the model, and names no case.
"""

from typing import Annotated

from pydantic import Field

from autoseg.evaluation.reliability import BINS, HIGHEST_TEMPERATURE, LOWEST_TEMPERATURE, Reliability
from autoseg.imaging.targets import Targets
from autoseg.runtime.artifact import Artifact, Score
from autoseg.workspace import ModelFolder

BACKGROUND = "background"

BIN_EDGES = tuple(number / BINS for number in range(BINS + 1))

Temperature = Annotated[float, Field(ge=LOWEST_TEMPERATURE, le=HIGHEST_TEMPERATURE)]


class Calibration(Artifact):
    """Temperatures of a model, and the reliability of its probabilities before and after; calibration.json.

    Attributes:
        adopted: Whether probabilities are divided by the temperatures; they are not if that did not lower the error.
        temperatures: Name of each label, the background first where labels exclude each other, to its temperature;
            fitted on all held-out cases. See `evaluation.reliability`.
        cases: Number of held-out cases behind it.
        voxels: Number of their voxels that were looked at.
        bin_edges: Edges of the bins of the reliabilities, from 0 to 1.
        error_before: Mean over the structures of the expected calibration error without temperatures.
        error_after: The same with temperatures that were fitted on the other half of the cases; undefined for a single
            case.
        before, after: Name of each structure to its reliability, without temperatures and with those of the other half
            of the cases; `after` is empty for a single case.
    """

    adopted: bool
    temperatures: dict[str, Temperature]
    cases: Annotated[int, Field(ge=1)]
    voxels: Annotated[int, Field(ge=0)]
    bin_edges: Annotated[tuple[float, ...], Field(min_length=BINS + 1, max_length=BINS + 1)] = BIN_EDGES
    error_before: Score
    error_after: Score
    before: dict[str, Reliability]
    after: dict[str, Reliability]

    def describe(self) -> str:
        """Returns the calibration in one line."""
        change = f"expected calibration error {self.error_before:.4f}"
        if not self.after:
            return f"calibration: none; {change}, with a single held-out case"
        change += f" -> {self.error_after:.4f}"
        if not self.adopted:
            return f"calibration: none; {change} on held-out cases"
        temperatures = ", ".join(f"{name} {value:.2f}" for name, value in self.temperatures.items())
        return f"calibration: {change}; temperatures {temperatures}"

    def temperatures_of(self, targets: Targets) -> tuple[float, ...] | None:
        """Returns the temperature of each output of the network.

        Returns:
            None if the temperatures were not adopted, or are those of other labels.
        """
        names = name_outputs(targets)
        if not self.adopted or set(names) != set(self.temperatures):
            return None
        return tuple(self.temperatures[name] for name in names)


def name_outputs(targets: Targets) -> tuple[str, ...]:
    """Returns the name of what each output of a network stands for.

    Example:
        >>> name_outputs(Targets.of_labels({"kidney": 1}))
        ('background', 'kidney')
    """
    return (BACKGROUND, *targets.names) if targets.exclusive else targets.names


def load_calibration(folder: ModelFolder) -> Calibration | None:
    """Loads the calibration of a configuration, if it has one.

    Raises:
        ArtifactError: The file is damaged.
    """
    return Calibration.load(folder.calibration) if folder.calibration.is_file() else None
