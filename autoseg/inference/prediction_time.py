"""How long a prediction will take: said before the first scan, from the headers of the scans and a probe of the CPU."""

import math
import time
from collections.abc import Iterator, Sequence
from operator import mul

import numpy as np

from autoseg.datasets.dataset import Case
from autoseg.datasets.scan_images import find_grid
from autoseg.errors import ImageError
from autoseg.imaging.geometry import Shape, Vector
from autoseg.inference.cropped_segmenter import CroppedSegmenter
from autoseg.inference.ensemble import EnsembleSegmenter
from autoseg.inference.interfaces import ImageSegmenter
from autoseg.inference.segmenter import Segmenter
from autoseg.planning.machine_speed import count_tiles, describe_roughly, share_of_speed
from autoseg.preprocessing.target_grid import resampled_shape, target_spacing
from autoseg.runtime.arrays import NumpyDevice
from autoseg.runtime.machine import is_busy

DAY = 24 * 3600.0
SHORT_SECONDS = 2.0
"""Time in all below which nothing is said. Decision: one may as well wait for the progress bar."""
WORTH_PASSES = 20
"""Passes from which on the pass that is measured is worth its time. Decision: it is at most a twentieth of them."""
ENOUGH_SECONDS = 0.6
"""Time after which an exported network is not measured again."""
SIMILAR = 1.5
"""Ratio of the longest to the shortest scan up to which all of them are said to take equally long."""


def describe_prediction_time(segmenter: ImageSegmenter, scans: Sequence[Case]) -> Iterator[str]:
    """Yields lines on how long the networks take per scan and in all, and what to do if that is more than a day.

    The device is measured for about a second, or the exported network itself for a patch. Nothing is said if all are
    done within `SHORT_SECONDS`, on a CUDA GPU, where the progress bar soon tells, nor for a network of torch whose work
    cannot be counted.

    Args:
        segmenter: The model.
        scans: The scans, of which the headers are read; one that cannot be read does not count.
    """
    parts = list_networks(segmenter)
    if not parts or not scans or parts[0].device.type == "cuda":
        return
    passes = [numbers for numbers in (count_passes(parts, scan) for scan in scans) if numbers is not None]
    is_exported = isinstance(parts[0].device, NumpyDevice)
    probe = _time_exported if is_exported else _time_by_speed
    measured = probe(parts, sum(map(sum, passes))) if passes else None
    if measured is None:
        return
    each, precision = measured
    seconds = [sum(map(mul, numbers, each)) for numbers in passes]
    if sum(seconds) < SHORT_SECONDS:
        return
    beside = ", beside other programs" if is_busy() else ""
    most = "at most " if isinstance(segmenter, CroppedSegmenter) else ""
    where = f"here, in {precision} on {parts[0].device}{beside}"
    yield f"the networks take {most}about {_describe_scans(seconds)} {where}"
    if sum(seconds) > DAY:
        yield f"that is more than a day; instead, {'; or '.join(_list_ways_out(parts, is_exported=is_exported))}"


def _time_by_speed(parts: Sequence[Segmenter], _passes: int) -> tuple[list[float], str] | None:
    """Returns the seconds of a pass of each network, by its work and the speed of the device, and the precision.

    None if the work of a network cannot be counted.
    """
    from autoseg.models.speed import measure_prediction_speed, name_precision  # noqa: PLC0415 - it needs torch
    from autoseg.models.work import measure_patch_work  # noqa: PLC0415 - likewise

    work = [measure_patch_work(part.configuration) for part in parts]
    counted = [patch_work for patch_work in work if patch_work is not None]
    if len(counted) < len(parts):
        return None
    device, exact = parts[0].device, parts[0].exact
    speed = measure_prediction_speed(device, exact=exact)
    shares = [share_of_speed(part.configuration) for part in parts]
    seconds = [patch_work / (share * speed) for patch_work, share in zip(counted, shares, strict=True)]
    return seconds, name_precision(device, exact=exact)


def _time_exported(parts: Sequence[Segmenter], passes: int) -> tuple[list[float], str] | None:
    """Returns the seconds of a pass of each exported network, which are measured, and the precision.

    None if there are so few passes that those of the measurement would be noticed.
    """
    if passes < WORTH_PASSES * len(parts):
        return None
    return [_time_vote(part) for part in parts], "float32" if all(part.exact for part in parts) else "int8"


def _time_vote(part: Segmenter) -> float:
    """Returns the seconds in which the first of the networks calculates a patch: once, or a few times if it is fast."""
    shape = (1, part.configuration.architecture.in_channels, *part.configuration.patch_size)
    patch = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    begin, fastest = time.perf_counter(), math.inf
    while fastest == math.inf or time.perf_counter() - begin + fastest < ENOUGH_SECONDS:
        started = time.perf_counter()
        next(part.predictor.list_votes(patch))
        fastest = min(fastest, time.perf_counter() - started)
    return fastest


def count_passes(parts: Sequence[Segmenter], scan: Case) -> tuple[int, ...] | None:
    """Returns the number of passes through each network for a scan; None if its header cannot be read.

    The scan is taken as it lies in its file, without the border of zeros being cut off.
    """
    try:
        shape, spacing_mm = find_grid(scan)
    except ImageError:
        return None
    sizes = [find_network_shape(part, shape, spacing_mm) for part in parts]
    tiles = [
        count_tiles(part.configuration, size, part.quality.overlap_step)
        for part, size in zip(parts, sizes, strict=True)
    ]
    return tuple(part.votes * count for part, count in zip(parts, tiles, strict=True))


def find_network_shape(part: Segmenter, shape: Shape, spacing_mm: Vector) -> Shape:
    """Returns the shape of a scan, in the order of the plan's axes, at the spacing of a configuration.

    Args:
        part: The configuration.
        shape: Shape (z, y, x) of the scan.
        spacing_mm: Its spacing (z, y, x).
    """
    first, second, third = part.axis_order
    step_mm = spacing_mm[first], spacing_mm[second], spacing_mm[third]
    target_mm = target_spacing(part.configuration.spacing_mm, step_mm)
    return resampled_shape((shape[first], shape[second], shape[third]), step_mm, target_mm)


def list_networks(segmenter: ImageSegmenter) -> list[Segmenter]:
    """Returns the configurations whose networks run, each once, with the coarser ones of cascades."""
    if isinstance(segmenter, CroppedSegmenter):
        both = [*list_networks(segmenter.segmenter), *list_networks(segmenter.coarse)]
        return list({id(part): part for part in both}.values())
    members = segmenter.members if isinstance(segmenter, EnsembleSegmenter) else (segmenter,)
    networks: dict[int, Segmenter] = {}
    for member in members:
        if isinstance(member, Segmenter):
            networks[id(member)] = member
            if member.previous is not None:
                networks[id(member.previous)] = member.previous
    return list(networks.values())


def _describe_scans(seconds: Sequence[float]) -> str:
    """Returns the time of each scan and of all, in words."""
    shortest, longest = min(seconds), max(seconds)
    if len(seconds) == 1:
        return f"{describe_roughly(longest)} for the scan"
    each = describe_roughly(sum(seconds) / len(seconds))
    if longest > SIMILAR * shortest:
        each = f"{describe_roughly(shortest)} to {describe_roughly(longest)}"
    return f"{each} per scan, {describe_roughly(sum(seconds))} for all {len(seconds)}"


def _list_ways_out(parts: Sequence[Segmenter], *, is_exported: bool) -> Iterator[str]:
    """Yields what shortens a prediction that would take more than a day."""
    images = max(part.quality.count_images(len(part.configuration.augmentation.averaged_axes)) for part in parts)
    if images > 1:
        yield f"--quality fast, which takes about 1/{images} of the time or less"
    yield "--part 1/4 and so on, on several machines"
    yield "a machine with more cores" if is_exported else "a machine with a GPU"
