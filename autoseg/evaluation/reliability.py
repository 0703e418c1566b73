"""Calibration of probabilities: temperatures that are fitted to voxels of held-out cases, and reliability in bins.

Networks that are trained on Dice and cross entropy are too sure of themselves: of the voxels to which one gives a
probability of 0.9, fewer than nine in ten are right. Dividing the logits by a temperature above 1 mends that.

Decision: a voxel has the temperature of the label that wins there. All its logits are divided by the same number, so
their order stays, and with it every mask. A temperature for each logit would change which of them is the highest. A
region has its own temperature; dividing its logit by a positive number leaves it on its side of 0.

    logits of background, liver, spleen   0   3   1      liver wins: divided by the temperature of the liver, 2
    divided                               0  1.5  0.5
    softmax before, after                 0.04 0.84 0.11     0.14 0.63 0.23

Source of temperatures: Guo et al. 2017, "On calibration of modern neural networks". Source of the error: the expected
calibration error of the same paper, here of the map of each structure.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np
import scipy
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from autoseg.runtime.artifact import Score

BINS = 10
"""Number of bins of equal width from 0 to 1. Decision: a diagram of ten bars is read at a glance."""

LEAST_PROBABILITY = 0.01
"""Voxels to which a structure has at least this probability, before calibration, count for its error. Decision: most
voxels of a scan are far from the structure; they would make every error look small."""

LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.25, 10.0
"""Range in which temperatures are sought. Decision: those of trained networks lie between 0.5 and 5."""

Values = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledVoxels:
    """Some voxels of labelled cases, with the logits that a network gives them.

    Attributes:
        logits: Shape (n, outputs), float32.
        truth: Shape (n, outputs), int8: 1 where the voxel is of the class or region of the output, 0 where it is not,
            -1 where nobody knows.
        weights: How many voxels of the case each of them stands for, shape (n,), float32.
        exclusive: Whether the outputs are classes that exclude each other, the background first, or regions.
    """

    logits: Values
    truth: NDArray[np.int8]
    weights: Values
    exclusive: bool

    @property
    def outputs(self) -> int:
        """Number of outputs of the network."""
        return int(self.logits.shape[1])

    @property
    def structure_outputs(self) -> range:
        """The outputs that stand for structures."""
        return range(int(self.exclusive), self.outputs)

    @classmethod
    def join(cls, parts: Sequence["LabelledVoxels"]) -> "LabelledVoxels":
        """Joins the voxels of several cases of one dataset."""
        return cls(
            logits=np.concatenate([part.logits for part in parts]),
            truth=np.concatenate([part.truth for part in parts]),
            weights=np.concatenate([part.weights for part in parts]),
            exclusive=parts[0].exclusive,
        )


def find_winners(logits: NDArray[np.floating]) -> NDArray[np.intp]:
    """Returns the class with the highest logit, the first of several; (n,) from (n, classes)."""
    return np.asarray(logits.argmax(axis=1))


def calibrated_probabilities(logits: Values, temperatures: Sequence[float], *, exclusive: bool) -> Values:
    """Returns the probabilities of logits that are divided by temperatures.

    Args:
        logits: Shape (n, outputs).
        temperatures: A temperature for each output. Of classes that exclude each other, that of the highest logit is
            used for all logits of a voxel.
        exclusive: Whether the outputs are classes that exclude each other, or regions.

    Returns:
        Shape (n, outputs), float32, 0 to 1.

    Example:
        >>> logits = np.array([[0.0, 3.0, 1.0]], dtype=np.float32)
        >>> calibrated_probabilities(logits, (1.0, 2.0, 1.0), exclusive=True).round(2).tolist()
        [[0.14000000059604645, 0.6299999952316284, 0.23000000417232513]]
    """
    factors = np.asarray(temperatures, dtype=np.float32)
    if not exclusive:
        return np.asarray(0.5 * (1 + np.tanh(0.5 * logits / factors)), dtype=np.float32)
    shifted = (logits - logits.max(axis=1, keepdims=True)) / factors[find_winners(logits)][:, np.newaxis]
    exponentials = np.exp(shifted)
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True), dtype=np.float32)


def fit_temperatures(voxels: LabelledVoxels) -> tuple[float, ...]:
    """Fits the temperature of each output; 1 for an output for which there is nothing to go by.

    The temperature of a class minimizes the cross entropy of the voxels where this class wins, that of a region the
    cross entropy of its own logit. Each is the minimum of a function of one number.

    Example: a network that is always as sure, and right in three of four voxels.
        >>> truth = np.array([[1, 0], [0, 1], [0, 1], [0, 1]], dtype=np.int8)
        >>> logits = np.array([[0.0, 4.0]] * 4, dtype=np.float32)
        >>> voxels = LabelledVoxels(logits=logits, truth=truth, weights=np.ones(4, np.float32), exclusive=True)
        >>> temperatures = fit_temperatures(voxels)
        >>> calibrated_probabilities(logits, temperatures, exclusive=True)[0].round(2).tolist()
        [0.25, 0.75]
    """
    fit = _fit_class if voxels.exclusive else _fit_region
    return tuple(fit(voxels, output) for output in range(voxels.outputs))


def _fit_class(voxels: LabelledVoxels, output: int) -> float:
    """Fits the temperature of the voxels where a class wins."""
    won = find_winners(voxels.logits) == output
    logits, weights = voxels.logits[won].astype(np.float64), voxels.weights[won].astype(np.float64)
    if not won.any() or voxels.truth[won, output].all():
        return 1.0  # the class wins nowhere, or is right wherever it does
    shifted = logits - logits.max(axis=1, keepdims=True)
    right = np.take_along_axis(shifted, voxels.truth[won].argmax(axis=1)[:, np.newaxis], axis=1)[:, 0]

    def cross_entropy(temperature: float) -> float:
        return float(weights @ (np.log(np.exp(shifted / temperature).sum(axis=1)) - right / temperature))

    return _minimize(cross_entropy)


def _fit_region(voxels: LabelledVoxels, output: int) -> float:
    """Fits the temperature of a region."""
    known = voxels.truth[:, output] >= 0
    logits, weights = voxels.logits[known, output].astype(np.float64), voxels.weights[known].astype(np.float64)
    signed = np.where(voxels.truth[known, output] == 1, -logits, logits)
    if not (signed > 0).any():
        return 1.0  # no voxel is known, or all of them are right

    def cross_entropy(temperature: float) -> float:
        return float(weights @ np.logaddexp(0, signed / temperature))

    return _minimize(cross_entropy)


def _minimize(cross_entropy: Callable[[float], float]) -> float:
    """Returns the temperature of the lowest cross entropy, which has one minimum."""
    bounds = (math.log(LOWEST_TEMPERATURE), math.log(HIGHEST_TEMPERATURE))
    found = scipy.optimize.minimize_scalar(
        lambda exponent: cross_entropy(math.exp(exponent)), bounds=bounds, method="bounded"
    )
    return math.exp(found.x)


class Reliability(BaseModel):
    """How often voxels are of a structure, in bins of the probability that they are given.

    Attributes:
        error: Expected calibration error, 0 to 1: the mean over the voxels of the difference between confidence and
            accuracy of their bin; undefined without voxels.
        counts: For each bin, how many voxels have such a probability; not whole, because some voxels stand for many.
        confidences: Mean probability of the voxels of each bin; undefined in an empty bin.
        accuracies: Share of the voxels of each bin that are of the structure; undefined in an empty bin.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    error: Score
    counts: Annotated[tuple[float, ...], Field(min_length=BINS, max_length=BINS)]
    confidences: Annotated[tuple[Score, ...], Field(min_length=BINS, max_length=BINS)]
    accuracies: Annotated[tuple[Score, ...], Field(min_length=BINS, max_length=BINS)]

    @classmethod
    def measure(cls, probabilities: Values, present: NDArray[np.bool_], weights: Values) -> Self:
        """Measures the reliability of the probabilities of one structure.

        Args:
            probabilities: Shape (n,), 0 to 1.
            present: Whether each voxel is of the structure, shape (n,).
            weights: How many voxels each of them stands for, shape (n,).

        Example: two voxels of probability 0.75, of which one is of the structure.
            >>> two = np.full(2, 0.75, np.float32)
            >>> Reliability.measure(two, np.array([True, False]), np.ones(2, np.float32)).error
            0.25
        """
        bins = np.minimum((probabilities * BINS).astype(np.intp), BINS - 1)
        counts, sums, hits = (
            np.bincount(bins, weights=weights * values, minlength=BINS) for values in (1.0, probabilities, present)
        )
        filled = np.maximum(counts, np.finfo(float).tiny)
        total = counts.sum()
        return cls(
            error=float(np.abs(sums - hits).sum() / total) if total else math.nan,
            counts=tuple(counts.tolist()),
            confidences=tuple(np.where(counts > 0, sums / filled, math.nan).tolist()),
            accuracies=tuple(np.where(counts > 0, hits / filled, math.nan).tolist()),
        )


def measure_reliabilities(voxels: LabelledVoxels, probabilities: Values) -> list[Reliability]:
    """Measures the reliability of each structure over the voxels where it is in question; see `LEAST_PROBABILITY`.

    Args:
        voxels: The voxels. Their logits say where a structure is in question, whatever the probabilities.
        probabilities: Their probabilities, shape (n, outputs), calibrated or not.
    """
    before = calibrated_probabilities(voxels.logits, (1.0,) * voxels.outputs, exclusive=voxels.exclusive)
    reliabilities = []
    for output in voxels.structure_outputs:
        counted = (before[:, output] >= LEAST_PROBABILITY) & (voxels.truth[:, output] >= 0)
        reliabilities.append(
            Reliability.measure(
                probabilities[counted, output], voxels.truth[counted, output] == 1, voxels.weights[counted]
            )
        )
    return reliabilities
