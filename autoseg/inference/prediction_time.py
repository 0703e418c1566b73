"""How long a prediction will take: said before the first scan, from the headers of the scans and a probe of the CPU."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from autoseg.datasets.dataset import Case
from autoseg.datasets.scan_images import find_grid
from autoseg.errors import ImageError
from autoseg.imaging.geometry import Shape, Vector
from autoseg.inference.cropped_segmenter import CroppedSegmenter
from autoseg.inference.ensemble import EnsembleSegmenter
from autoseg.inference.interfaces import ImageSegmenter
from autoseg.inference.segmenter import Segmenter
from autoseg.planning.machine_speed import MachineSpeed, describe_roughly, scan_seconds
from autoseg.preprocessing.target_grid import resampled_shape, target_spacing
from autoseg.runtime.arrays import NumpyDevice
from autoseg.runtime.machine import is_busy

DAY = 24 * 3600.0
SHORT_SECONDS = 2.0
"""Time in all below which nothing is said. Decision: one may as well wait for the progress bar."""
SIMILAR = 1.5
"""Ratio of the longest to the shortest scan up to which all of them are said to take equally long."""


def describe_prediction_time(segmenter: ImageSegmenter, scans: Sequence[Case]) -> Iterator[str]:
    """Yields lines on how long the networks take per scan and in all, and what to do if that is more than a day.

    The device is measured for about a second. Nothing is said if all are done within `SHORT_SECONDS`, on a CUDA GPU,
    where the progress bar soon tells, nor for a network whose work cannot be counted or that was exported.

    Args:
        segmenter: The model.
        scans: The scans, of which the headers are read; one that cannot be read does not count.
    """
    parts = list_networks(segmenter)
    if not parts or not scans or parts[0].device.type == "cuda" or isinstance(parts[0].device, NumpyDevice):
        return
    from autoseg.models.speed import measure_speed  # noqa: PLC0415 - it needs torch
    from autoseg.models.work import measure_patch_work  # noqa: PLC0415 - likewise

    work = [measure_patch_work(part.configuration) for part in parts]
    counted = [(part, patch_work) for part, patch_work in zip(parts, work, strict=True) if patch_work is not None]
    if len(counted) < len(parts):
        return
    speed = measure_speed(parts[0].device, exact=parts[0].exact)
    model = CountedModel(parts=tuple(counted), speed=speed)
    seconds = [value for value in (model.estimate(scan) for scan in scans) if value is not None]
    if sum(seconds) < SHORT_SECONDS:
        return
    beside = ", beside other programs" if is_busy() else ""
    most = "at most " if isinstance(segmenter, CroppedSegmenter) else ""
    where = f"here, in {speed.precision} on {speed.device}{beside}"
    yield f"the networks take {most}about {_describe_scans(seconds)} {where}"
    if sum(seconds) > DAY:
        yield f"that is more than a day; instead, {'; or '.join(_list_ways_out(parts))}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedModel:
    """The configurations that segment a scan one after the other, with their work.

    Attributes:
        parts: Each configuration with the multiply-adds of the forward pass of a patch.
        speed: The speed of the device.
    """

    parts: tuple[tuple[Segmenter, int], ...]
    speed: MachineSpeed

    def estimate(self, scan: Case) -> float | None:
        """Returns the seconds in which the networks predict a scan; None if its header cannot be read.

        The scan is taken as it lies in its file, without the border of zeros being cut off.
        """
        try:
            shape, spacing_mm = find_grid(scan)
        except ImageError:
            return None
        total = 0.0
        for part, work in self.parts:
            size = find_network_shape(part, shape, spacing_mm)
            step = part.quality.overlap_step
            total += scan_seconds(part.configuration, size, self.speed, work, votes=part.votes, overlap_step=step)
        return total


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


def _list_ways_out(parts: Sequence[Segmenter]) -> Iterator[str]:
    """Yields what shortens a prediction that would take more than a day."""
    images = max(part.quality.count_images(len(part.configuration.augmentation.averaged_axes)) for part in parts)
    if images > 1:
        yield f"--quality fast, which takes about 1/{images} of the time or less"
    yield "--part 1/4 and so on, on several machines"
    yield "a machine with a GPU"
