"""Cases that are unlike the others of their dataset, each with the reason in words."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import log
from statistics import median

from autoseg.datasets.info import DatasetInfo
from autoseg.planning.normalization import SCHEMES
from autoseg.planning.sides import pair_sides_by_name
from autoseg.report.case_measures import CaseMeasures

FEWEST_CASES = 8
"""Cases below which nothing is called unlike the others. Decision: of fewer, the usual cannot be told."""

MODIFIED_Z = 3.5
"""Distance from the median, in robust standard deviations, beyond which a value stands out. Source: Iglewicz and
Hoaglin, How to Detect and Handle Outliers, 1993."""

FACTOR = 1.5
"""Ratio to the median that a value must exceed as well. Decision: what differs by less surprises nobody, however alike
the others are."""

RARE_SHARE = 0.05
"""Share of the cases above which values that stand out are a group of their own, such as the scans of another machine,
rather than outliers; the histograms show them."""

COMMON_SHARE = 0.8
"""Share of the cases that must have a structure for its absence to stand out."""

ONE_SIDED = 0.1
"""Distance from the middle, as a share of the width, from which on a structure counts as one of a side."""


def find_outliers(cases: Sequence[CaseMeasures], info: DatasetInfo) -> dict[str, list[str]]:
    """Finds what stands out in each case; cases with problems are not counted.

    Args:
        cases: All cases of the dataset.
        info: The content of dataset.json.

    Returns:
        Name of a case to reasons, each a short phrase. Cases without any are left out.
    """
    sound = [case for case in cases if case.facts is not None]
    reasons: dict[str, list[str]] = {case.name: [] for case in cases}
    if len(sound) >= FEWEST_CASES:
        for title, unit, values in _list_measures(sound, info):
            for name, text in describe_extremes(title, unit, values).items():
                reasons[name].append(text)
        for name, text in (*_find_absent(sound, info), *_find_mirrored(sound, info)):
            reasons[name].append(text)
    for name, text in _find_swapped(sound, info):
        reasons[name].append(text)
    return {name: texts for name, texts in reasons.items() if texts}


def robust_scores(values: Sequence[float]) -> list[float]:
    """Returns the distance of each value from the median, in robust standard deviations.

    These are 1.4826 times the median distance; if more than half of the values are equal, 1.2533 times the mean
    distance. Source: Iglewicz and Hoaglin, 1993.

    Example:
        >>> [round(score, 1) for score in robust_scores([1.0, 2.0, 3.0, 4.0, 50.0])]
        [-1.3, -0.7, 0.0, 0.7, 31.7]
    """
    middle = median(values)
    distances = [abs(value - middle) for value in values]
    deviation = 1.4826 * median(distances) or 1.2533 * sum(distances) / len(distances)
    return [(value - middle) / deviation if deviation else 0.0 for value in values]


def _list_measures(cases: Sequence[CaseMeasures], info: DatasetInfo) -> Iterable[tuple[str, str, Mapping[str, float]]]:
    """Yields measures of which only the ratio counts: title, unit, and the value of each case that has it."""

    def of_facts(value: Callable[..., float]) -> dict[str, float]:
        return {case.name: value(case.facts) for case in cases}

    yield "smallest voxel side", "mm", of_facts(lambda facts: min(facts.spacing_mm))
    yield "largest voxel side", "mm", of_facts(lambda facts: max(facts.spacing_mm))
    yield "number of voxels", "", of_facts(lambda facts: facts.shape[0] * facts.shape[1] * facts.shape[2])
    for number, channel in enumerate(info.channel_names.values()):
        if SCHEMES.get(channel.casefold()) == "ct":  # elsewhere intensities have no unit
            yield (
                f"range of intensities of {channel}",
                "HU",
                of_facts(lambda facts, number=number: facts.intensities[number][1] - facts.intensities[number][0]),
            )
    for structure in info.targets.structures:
        volumes = {case.name: case.structures[structure].volume_ml for case in cases if structure in case.structures}
        yield f"volume of {structure}", "ml", volumes


def describe_extremes(title: str, unit: str, values: Mapping[str, float]) -> dict[str, str]:
    """Describes values that are far from the others, of which only the ratio counts.

    Args:
        title: What is measured.
        unit: Its unit; empty without one.
        values: Name of a case to its value; those that are not positive are left out.

    Returns:
        Name of a case to a phrase, of the cases that stand out; none if there are few cases, or many that stand out.

    Example:
        >>> volumes = {str(number): 1500.0 + number for number in range(9)} | {"x": 30}
        >>> describe_extremes("volume of liver", "ml", volumes)
        {'x': 'volume of liver is small: 30 ml, usually 1504 ml'}
    """
    positive = {name: value for name, value in values.items() if value > 0}
    if len(positive) < FEWEST_CASES:
        return {}
    scores = robust_scores([log(value) for value in positive.values()])
    middle = median(positive.values())
    texts = {}
    for (name, value), score in zip(positive.items(), scores, strict=True):
        ratio = max(value / middle, middle / value)
        if abs(score) > MODIFIED_Z and ratio > FACTOR:
            kind = "large" if value > middle else "small"
            numbers = f"{value:.4g} {unit}".strip(), f"{middle:.4g} {unit}".strip()
            texts[name] = f"{title} is {kind}: {numbers[0]}, usually {numbers[1]}"
    return texts if len(texts) <= max(1, RARE_SHARE * len(positive)) else {}


def _find_absent(cases: Sequence[CaseMeasures], info: DatasetInfo) -> Iterable[tuple[str, str]]:
    for structure in info.targets.structures:
        annotated = [case for case in cases if structure not in info.unannotated_in(case.name)]
        present = sum(structure in case.structures for case in annotated)
        if len(annotated) >= FEWEST_CASES and present >= COMMON_SHARE * len(annotated):
            for case in annotated:
                if structure not in case.structures:
                    yield case.name, f"has no {structure}, which {present} of {len(annotated)} cases have"


def _find_mirrored(cases: Sequence[CaseMeasures], info: DatasetInfo) -> Iterable[tuple[str, str]]:
    """Yields structures on the other side of the body than in nearly all other cases."""
    for structure in info.targets.structures:
        sides = {
            case.name: case.structures[structure].leftness
            for case in cases
            if structure in case.structures and case.structures[structure].leftness is not None
        }
        known = [side for side in sides.values() if side is not None]
        if len(known) < FEWEST_CASES:
            continue
        usual = median(known) - 0.5
        for name, side in sides.items():
            if side is not None and abs(usual) > ONE_SIDED and (side - 0.5) * usual < 0 and abs(side - 0.5) > ONE_SIDED:
                here, there = ("left", "right") if side > 0.5 else ("right", "left")
                yield name, f"{structure} lies on the {here}, usually on the {there}"


def _find_swapped(cases: Sequence[CaseMeasures], info: DatasetInfo) -> Iterable[tuple[str, str]]:
    """Yields pairs of which the structure that is called left lies right of the other."""
    pairs, _ = pair_sides_by_name(info)
    names = {output: name for name, output in info.targets.output_of.items()}
    for case in cases:
        for pair in pairs:
            left, right = names[pair[0]], names[pair[1]]
            sides = [case.structures[name].leftness if name in case.structures else None for name in (left, right)]
            if sides[0] is not None and sides[1] is not None and sides[0] < sides[1]:
                yield case.name, f"{left} lies right of {right}: exchanged, or the orientation of the file is wrong"
