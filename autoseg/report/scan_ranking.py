"""The order in which segmented scans deserve a look, each with the reasons."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from math import inf, isnan
from statistics import median

from autoseg.report.outliers import COMMON_SHARE, FEWEST_CASES, MODIFIED_Z, describe_extremes, robust_scores
from autoseg.report.segmented_scan import ScanMeasures

AGREEMENT_DISTANCE = 0.05
"""Distance from the median that an agreement must exceed as well, to be called lower than elsewhere. Decision: smaller
differences say nothing, however alike the others are."""


class Urgency(IntEnum):
    """How urgent a look at a scan is; lower numbers come first."""

    UNUSABLE = 0
    REMARKED = 1
    UNUSUAL = 2
    USUAL = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedScan:
    """A scan with its place in the order.

    Attributes:
        scan: The scan.
        rank: Its place, from 1.
        urgency: Why it has this place.
        reasons: What deserves a look; empty for usual scans.
    """

    scan: ScanMeasures
    rank: int
    urgency: Urgency
    reasons: tuple[str, ...]


def rank_scans(scans: Sequence[ScanMeasures], structures: Iterable[str]) -> list[RankedScan]:
    """Orders scans: those without a usable mask, those with a remark, those unlike the other scans, and the rest.

    Within each group the scan with the lowest agreement comes first.

    Args:
        scans: All scans of a folder.
        structures: Names of the structures of the model.

    Example:
        >>> sure = ScanMeasures(name="a", volumes_ml={"liver": 1500.0}, agreement=0.99)
        >>> odd = ScanMeasures(name="b", volumes_ml={"liver": 0.0}, agreement=0.99, remarks=("nothing was found",))
        >>> [(ranked.rank, ranked.scan.name, ranked.urgency.name) for ranked in rank_scans([sure, odd], ["liver"])]
        [(1, 'b', 'REMARKED'), (2, 'a', 'USUAL')]
    """
    unusual = find_unusual(scans, structures)
    entries = []
    for scan in scans:
        others = unusual.get(scan.name, ())
        groups = (scan.problems, scan.remarks, others)
        urgency = next((Urgency(place) for place, texts in enumerate(groups) if texts), Urgency.USUAL)
        entries.append(
            (urgency, inf if isnan(scan.agreement) else scan.agreement, scan, (*scan.problems, *scan.remarks, *others))
        )
    entries.sort(key=lambda entry: (entry[0], entry[1], entry[2].name))
    return [
        RankedScan(scan=scan, rank=rank, urgency=urgency, reasons=reasons)
        for rank, (urgency, _, scan, reasons) in enumerate(entries, start=1)
    ]


def find_unusual(scans: Sequence[ScanMeasures], structures: Iterable[str]) -> dict[str, list[str]]:
    """Finds what is unlike the other scans of the folder: volumes, missing structures, low agreement.

    Returns:
        Name of a scan to reasons. Fewer than eight scans do not show what is usual.
    """
    usable = [scan for scan in scans if not scan.problems]
    if len(usable) < FEWEST_CASES:
        return {}
    reasons: dict[str, list[str]] = {}
    for structure in structures:
        volumes = {scan.name: scan.volumes_ml.get(structure, 0.0) for scan in usable}
        texts = describe_extremes(f"volume of {structure}", "ml", volumes) | _find_absent(structure, volumes)
        for name, text in texts.items():
            reasons.setdefault(name, []).append(text)
    for name, text in _find_low_agreement(usable).items():
        reasons.setdefault(name, []).append(text)
    return reasons


def _find_absent(structure: str, volumes: Mapping[str, float]) -> dict[str, str]:
    present = sum(volume > 0 for volume in volumes.values())
    if present < COMMON_SHARE * len(volumes):
        return {}
    text = f"has no {structure}, which {present} of {len(volumes)} scans have"
    return {name: text for name, volume in volumes.items() if volume <= 0}


def _find_low_agreement(scans: Sequence[ScanMeasures]) -> dict[str, str]:
    known = [scan for scan in scans if not isnan(scan.agreement)]
    if len(known) < FEWEST_CASES:
        return {}
    usual = median(scan.agreement for scan in known)
    scores = robust_scores([scan.agreement for scan in known])
    return {
        scan.name: f"folds and mirror images agree less than elsewhere: {scan.agreement:.2f}, usually {usual:.2f}"
        for scan, score in zip(known, scores, strict=True)
        if score < -MODIFIED_Z and scan.agreement < usual - AGREEMENT_DISTANCE
    }
