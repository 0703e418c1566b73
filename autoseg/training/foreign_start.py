"""The start of a training from weights that another program trained: what is taken over, what is fitted, what is not.

Nothing in such a file says for which structures and channels its weights stand. So heads start fresh, unless they go by
the names of the network or of a file of names and have its shape; and a first convolution of another number of channels
starts as the mean of the old ones.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from autoseg.models.checkpoint import Weights
from autoseg.models.pretrained_weights import ForeignWeights
from autoseg.runtime.printable import printable
from autoseg.runtime.reporting import list_names
from autoseg.training.kernel_fitting import describe_fit, fit_kernel
from autoseg.training.weight_transfer import FIRST_CONVOLUTIONS, FITS, Fit, Report, share_taken

WARMUP_SHARE = 0.05
"""Share of the training in which the learning rate rises, if a start is foreign and the plan has no warm-up: a fresh
decoder would otherwise undo the encoder in the first steps. Source: nnU-Net v2.8.1, PretrainedTrainer, 50 epochs of
1000."""

MOST_LINES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignReport(Report):
    """The result of a transfer from a foreign file.

    Attributes:
        reasons: Why weights were fitted, or not taken although the file has them, by name.
    """

    reasons: Mapping[str, str]


def take_foreign_weights(new: Weights, foreign: ForeignWeights, *, built_in: bool) -> ForeignReport:
    """Takes over the foreign weights that fit, or can be fitted; all others stay fresh.

    Args:
        new: Fresh weights of the network of the plan, by name; they are not changed.
        foreign: The weights of the file.
        built_in: Whether the network is the built-in one, whose names tell which weights are kernels that can be
            fitted.
    """
    weights: dict[str, torch.Tensor] = {}
    fits: dict[str, Fit] = {}
    reasons: dict[str, str] = {}
    for name, fresh in new.items():
        old = foreign.weights.get(name)
        weights[name], fits[name], reason = _take(name, fresh, old, built_in=built_in)
        if reason:
            reasons[name] = reason
    return ForeignReport(weights=weights, fits=fits, reasons=reasons)


def share_of_foreign(new: Weights, foreign: ForeignWeights, *, built_in: bool) -> float:
    """Returns the share of the weights of a network that a foreign file can give, 0 to 1.

    Args:
        new: Weights of the network, of which only the shapes count.
        foreign: The weights of the file.
        built_in: See `take_foreign_weights`.
    """
    shapes = {name: value.to("meta") for name, value in new.items()}
    old = replace(foreign, weights={name: value.to("meta") for name, value in foreign.weights.items()})
    return share_taken(take_foreign_weights(shapes, old, built_in=built_in).fits, new)


def _take(name: str, fresh: torch.Tensor, old: torch.Tensor | None, *, built_in: bool) -> tuple[torch.Tensor, Fit, str]:
    """Returns the weights to begin with, how far they were taken over, and the reason if that is not plain."""
    if old is None:
        return fresh, "fresh", ""
    if not old.is_floating_point():
        return fresh, "fresh", "no weights, but whole numbers"
    if old.shape == fresh.shape:
        return old.to(fresh.dtype).clone(), "taken", ""
    if built_in and name.endswith("conv.weight"):
        kernel = fit_kernel(old.to(fresh.dtype), fresh.shape, reads_image=name in FIRST_CONVOLUTIONS)
        if kernel is not None:
            return kernel, "fitted", describe_fit(old.shape, fresh.shape)
    return fresh, "fresh", f"shape {tuple(old.shape)} in the file, {tuple(fresh.shape)} in the plan"


def describe_foreign_report(report: ForeignReport, foreign: ForeignWeights) -> Iterator[str]:
    """Yields lines for people: a table of what was taken over in each part of the network, and what was not, and why.

    Args:
        report: The result of the transfer.
        foreign: The weights of the file.
    """
    yield from draw_table(report)
    yield from _explain(report, "fitted")
    yield from _explain(report, "fresh", title="not taken")
    if foreign.unused:
        parts = Counter(printable(name.split(".")[0]) for name in foreign.unused)
        counts = list_names(f"{part} ({count})" for part, count in parts.most_common())
        yield f"tensors of the file that the network does not take: {counts}"
    yield from foreign.remarks


def draw_table(report: Report) -> Iterator[str]:
    r"""Yields the lines of a table: for each part of the network the number of tensors of each kind.

    Example:
        >>> weights = {"stem.conv.weight": torch.zeros(8, 1, 3, 3), "heads.0.bias": torch.zeros(2)}
        >>> fits = {"stem.conv.weight": "taken", "heads.0.bias": "fresh"}
        >>> print(*draw_table(Report(weights=weights, fits=fits)), sep="\n")
        part   taken  fitted  fresh  share taken
        stem       1       0      0      100.00%
        heads      0       0      1        0.00%
        all        1       0      1       97.30%
    """
    parts = list(dict.fromkeys(map(_part, report.fits)))
    rows = [["part", *FITS, "share taken"]]
    for part in (*parts, "all"):
        names = [name for name in report.fits if part in (_part(name), "all")]
        fits = {name: report.fits[name] for name in names}
        counts = Counter(fits.values())
        share = share_taken(fits, {name: report.weights[name] for name in names})
        rows.append([part, *(str(counts[fit]) for fit in FITS), f"{share:.2%}"])
    yield from _align(rows)


def _part(name: str) -> str:
    """Returns the part of the network that a weight belongs to; of encoder and decoder with the number of the level."""
    first, *rest = name.split(".")
    return f"{first}.{rest[0]}" if first in ("encoder", "decoder") and rest[0].isdecimal() else first


def _align(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for first, *numbers in rows:
        cells = (number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True))
        yield "  ".join((first.ljust(widths[0]), *cells))


def _explain(report: ForeignReport, fit: Fit, title: str = "") -> Iterator[str]:
    """Yields a line for each reason, with the names of its weights."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in report.reasons.items():
        if report.fits[name] == fit:
            by_reason.setdefault(reason, []).append(name)
    for reason, names in list(by_reason.items())[:MOST_LINES]:
        yield f"{title or fit}: {list_names(names, most=3)}: {reason}"
    if len(by_reason) > MOST_LINES:
        yield f"{title or fit}: {len(by_reason) - MOST_LINES} more kinds"
