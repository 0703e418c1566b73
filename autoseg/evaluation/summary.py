"""Scores of a segmented case, and the summary of many cases: summary.json for programs, summary.csv for tables."""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict, model_validator

from autoseg.errors import ArtifactError, DatasetError
from autoseg.evaluation.repeats import average_repeats, mean_of_defined, mean_of_repeats
from autoseg.evaluation.scores import (
    DEFAULT_TOLERANCE_MM,
    METRICS,
    UNDEFINED,
    USUAL_MEASURES,
    LabelScores,
    Measures,
    score_labels,
)
from autoseg.evaluation.statistics import SEED, Interval, bootstrap_means, draw_resamples
from autoseg.imaging.affine_geometry import describe_difference
from autoseg.imaging.geometry import Volume
from autoseg.imaging.targets import Targets
from autoseg.runtime.artifact import Artifact, Score, atomic_file

if TYPE_CHECKING:
    import pandas as pd


def summary_file(folder: Path) -> Path:
    """Returns the path of the summary.json of a folder of segmentations, or of a model folder."""
    return folder / "summary.json"


def summary_folder(prediction: Path, output: Path | None) -> Path | None:
    """Returns the folder for the scores of segmentations: the one that is given, else theirs; None for one file."""
    return output or (prediction if prediction.is_dir() else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentedCase:
    """A case with its reference and a segmentation of it. It is scored, and postprocessing rules are tried on it.

    Attributes:
        name: Name of the case.
        reference: Label map, shape (z, y, x).
        prediction: Label map of the same shape, before any postprocessing.
        targets: Structures of both label maps. If structures overlap freely, the label maps may have more numbers than
            those of the dataset, one for each combination.
        unannotated: Names of the structures that were not annotated in the reference; they are not scored.
        reference_file, prediction_file: Names of the files that hold the two, for the record.
    """

    name: str
    reference: Volume
    prediction: Volume
    targets: Targets
    unannotated: Collection[str] = ()
    reference_file: str = ""
    prediction_file: str = ""


class CaseResult(BaseModel):
    """Scores of one case.

    Attributes:
        name: Name of the case.
        scores: Label name to its scores.
        reference_file, prediction_file: Names of the files that were compared.
        agreement: How far the votes of the model that segmented it agree, 0 to 1, see `inference.agreement`; undefined
            for segmentations of other programs, with a single vote, and in files of earlier versions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    scores: dict[str, LabelScores]
    reference_file: str = ""
    prediction_file: str = ""
    agreement: Score = math.nan

    @property
    def mean_dice(self) -> float:
        """Mean Dice over the labels whose Dice is defined; NaN if there is none."""
        return mean_of_defined(scores.dice for scores in self.scores.values())


class MeanScores(BaseModel):
    """Mean scores of one label over the cases where they are defined; the metrics are those of `LabelScores`.

    Attributes:
        intervals: Name of a metric to the 95 % confidence interval of its mean; undefined with fewer than two cases.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dice: Score
    iou: Score
    nsd: Score = math.nan
    hd95_mm: Score = math.nan
    assd_mm: Score = math.nan
    lesion_f1: Score = math.nan
    centreline_dice: Score = math.nan
    volume_error_mm3: Score = math.nan
    relative_volume_error: Score = math.nan
    intervals: dict[str, Interval] = {}


class Summary(Artifact):
    """Scores of a set of cases; summary.json.

    Attributes:
        tolerance_mm: Tolerance at which NSD was measured; undefined in files of earlier versions.
        foreground_mean: Mean over the labels of `mean`; a label that occurs in no case is left out.
        mean: Label name to its mean scores.
        cases: Scores of each case, in the order in which the cases were given. Of a repeated cross-validation, each
            case has as many results.
    """

    tolerance_mm: Score = math.nan
    foreground_mean: MeanScores
    mean: dict[str, MeanScores]
    cases: tuple[CaseResult, ...]

    @model_validator(mode="after")
    def _each_case_has_all_labels(self) -> "Summary":
        for case in self.cases:
            if missing := [label for label in self.mean if label not in case.scores]:
                raise ValueError(f"case {case.name!r} has no scores of {missing[0]!r}, of which there is a mean")
        return self

    @property
    def repeats(self) -> tuple[float, ...]:
        """Mean Dice of the foreground in each repeat of a cross-validation; empty if there is one, or part of one.

        >>> from autoseg.evaluation.scores import UNDEFINED
        >>> def result(name, dice):
        ...     return CaseResult(name=name, scores={"liver": UNDEFINED.model_copy(update={"dice": dice})})
        >>> cases = [result("a", 0.8), result("b", 0.6), result("b", 0.7), result("a", 0.9)]
        >>> [round(dice, 2) for dice in summarize(cases, ["liver"]).repeats]
        [0.7, 0.8]
        """
        scores = [(case.name, [case.scores[label].dice for label in self.mean]) for case in self.cases]
        return mean_of_repeats(scores)

    def table(self) -> "pd.DataFrame":
        """Returns one row per case and label, with the columns case, label and the fields of `LabelScores`."""
        import pandas as pd  # noqa: PLC0415 - importing pandas takes longer than most uses of this module

        columns = ["case", "label", *LabelScores.model_fields]
        rows = [
            {"case": case.name, "label": label, **scores.model_dump()}
            for case in self.cases
            for label, scores in case.scores.items()
        ]
        return pd.DataFrame(rows, columns=columns)

    def save_csv(self, path: Path) -> None:
        """Writes `table` as a CSV file, atomically; undefined scores are empty."""
        with atomic_file(path) as writing:
            self.table().to_csv(writing, index=False)

    def write(self, folder: Path) -> None:
        """Writes summary.json and, as a table, summary.csv into a folder."""
        self.save(summary_file(folder))
        self.save_csv(summary_file(folder).with_suffix(".csv"))

    def ranked(self) -> list[str]:
        """Returns the names of the cases from the worst to the best mean Dice; ties are ordered by name.

        Cases whose Dice is undefined come last: reference and prediction are empty.
        """
        return [case.name for case in self.ranked_cases()]

    def ranked_cases(self) -> list[CaseResult]:
        """Returns the results in the order of `ranked`."""
        return sorted(self.cases, key=_rank)


def score_case(case: SegmentedCase, measures: Measures = USUAL_MEASURES) -> CaseResult:
    """Compares the segmentation of one case with its reference.

    >>> import numpy as np
    >>> from autoseg.imaging.geometry import Geometry
    >>> geometry = Geometry(shape=(1, 1, 4), spacing_mm=(1.0, 1.0, 1.0))
    >>> reference = Volume(array=np.array([[[1, 1, 2, 0]]], dtype=np.uint8), geometry=geometry)
    >>> prediction = Volume(array=np.array([[[1, 0, 2, 0]]], dtype=np.uint8), geometry=geometry)
    >>> targets = Targets.of_labels({"liver": 1, "tumour": 2})
    >>> result = score_case(SegmentedCase(name="a", reference=reference, prediction=prediction, targets=targets))
    >>> round(result.scores["liver"].dice, 3), result.scores["tumour"].dice
    (0.667, 1.0)

    Args:
        case: The reference and the segmentation.
        measures: How it is measured.

    Returns:
        The scores of all structures; those of unannotated structures are undefined.

    Raises:
        DatasetError: The two lie on different grids.
    """
    geometry = case.reference.geometry
    difference = describe_difference(geometry, case.prediction.geometry)
    if difference is not None:
        raise DatasetError(
            f"case {case.name!r}: reference and prediction lie on different grids: {difference}",
            "predict from the image that the reference was drawn on",
        )
    scores = score_labels(case.reference.array, case.prediction.array, case.targets, geometry, measures)
    return CaseResult(
        name=case.name,
        scores=scores | dict.fromkeys(case.unannotated, UNDEFINED),
        reference_file=case.reference_file,
        prediction_file=case.prediction_file,
    )


def summarize(
    cases: Sequence[CaseResult], labels: Iterable[str], *, tolerance_mm: float = DEFAULT_TOLERANCE_MM
) -> Summary:
    """Computes the mean scores of many cases, with bootstrap confidence intervals.

    The mean of a label is taken over the cases where its score is defined, the foreground mean over the labels whose
    mean is defined. A mean over no values is undefined (NaN). A case that was judged several times counts once, by its
    averages. Source: the reference method (nnU-Net v2.8.1, evaluate_predictions). Decision: there, a label that occurs
    in no case makes the foreground mean undefined.

    >>> from autoseg.evaluation.scores import UNDEFINED
    >>> def result(name, dice):
    ...     return CaseResult(name=name, scores={"liver": UNDEFINED.model_copy(update={"dice": dice})})
    >>> summary = summarize([result("a", 0.8), result("b", 0.6), result("c", math.nan)], ["liver"])
    >>> round(summary.mean["liver"].dice, 3), summary.ranked()
    (0.7, ['b', 'a', 'c'])
    >>> low, high = summary.mean["liver"].intervals["dice"]
    >>> round(low, 3), round(high, 3)
    (0.6, 0.8)

    Args:
        cases: Results of the cases; each has scores of all labels.
        labels: Names of the labels.
        tolerance_mm: Tolerance at which NSD was measured.

    Raises:
        ArtifactError: A case has no scores of a label.
    """
    names = tuple(labels)
    missing = ((case.name, name) for case in cases for name in names if name not in case.scores)
    if (first := next(missing, None)) is not None:
        what = f"the scores of the case {first[0]!r} lack the label {first[1]!r} of the dataset"
        raise ArtifactError(what, "remove its folder 'validation', and run 'autoseg train' again, which makes it anew")
    case_names = [case.name for case in cases]
    resamples = draw_resamples(len(set(case_names)), np.random.default_rng(SEED))
    means: list[dict[str, float]] = [{} for _ in names]
    intervals: list[dict[str, Interval]] = [{} for _ in names]
    foreground: dict[str, float] = {}
    foreground_intervals: dict[str, Interval] = {}
    for metric in METRICS:
        values = np.array([[getattr(case.scores[name], metric) for name in names] for case in cases], dtype=float)
        values = average_repeats(values.reshape(len(cases), len(names)), case_names)
        label_intervals, foreground_intervals[metric] = bootstrap_means(values, resamples)
        for column, interval in enumerate(label_intervals):
            means[column][metric] = mean_of_defined(values[:, column])
            intervals[column][metric] = interval
        foreground[metric] = mean_of_defined(mean[metric] for mean in means)
    return Summary(
        tolerance_mm=tolerance_mm,
        foreground_mean=MeanScores(**foreground, intervals=foreground_intervals),
        mean={
            name: MeanScores(**mean, intervals=of_metrics)
            for name, mean, of_metrics in zip(names, means, intervals, strict=True)
        },
        cases=tuple(cases),
    )


def _rank(case: CaseResult) -> tuple[bool, float, str]:
    """Returns the sort key of a case: cases with an undefined Dice come last, since NaN cannot be ordered."""
    dice = case.mean_dice
    return (True, 0.0, case.name) if np.isnan(dice) else (False, dice, case.name)
