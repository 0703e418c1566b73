"""What a user prompts, as structures: which slices are prompted, and which are reached from there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from autoseg.errors import UsageError
from autoseg.prompting.planes import SlicedGrid, SlicePrompt
from autoseg.prompting.prompts import PromptBox, PromptPoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompted:
    """One structure.

    Attributes:
        prompts: Number of a slice to what is prompted on it.
        reach: Slices that may be segmented from there on; it holds those that are prompted, or is empty.
    """

    prompts: Mapping[int, SlicePrompt]
    reach: range = range(0)

    @property
    def slices(self) -> int:
        """The most slices that are segmented."""
        return len({*self.prompts, *self.reach})


def arrange_structures(
    boxes: Sequence[PromptBox],
    points: Sequence[PromptPoint],
    grid: SlicedGrid,
    *,
    propagate: bool = False,
    limits: tuple[int, int] | None = None,
) -> list[Prompted]:
    """Arranges prompts by structures and slices.

    Each box is a structure. All points are one structure, and so are a single box and points. Without propagation a box
    prompts each of its slices. With it, a box prompts its middle slice, and from there its others are reached, or, if
    it has just one, all slices of the volume; from points all slices are.

    Args:
        boxes: The boxes.
        points: The points.
        grid: The slices of the volume.
        propagate: Whether slices are reached that are not prompted.
        limits: The first and the last voxel, along the axis of the file that slices lie across, to segment; None for
            all.

    Raises:
        UsageError: There is no prompt, points do not say which of several boxes they belong to, a slice has nothing but
            points of the background, or prompts lie beyond the limits.
    """
    if not boxes and not points:
        raise UsageError("nothing is prompted", "give a box around the structure, or a point in it")
    if len(boxes) > 1 and points:
        raise UsageError(f"points could belong to any of {len(boxes)} boxes", "prompt one structure after the other")
    allowed = _limit(grid, limits)
    on_slices = grid.cut_points(points)
    structures = [_arrange_box(box, grid, allowed, propagate=propagate) for box in boxes]
    if not structures:
        structures = [Prompted(prompts={}, reach=allowed if propagate else range(0))]
    if on_slices:
        structures = [_add_points(structures[0], on_slices)]
    for structure in structures:
        _check(structure, allowed, grid)
    return structures


def _limit(grid: SlicedGrid, limits: tuple[int, int] | None) -> range:
    """Returns the slices that may be segmented."""
    count = grid.shape[0]
    if limits is None:
        return range(count)
    if not all(0 <= number < count for number in limits):
        what = f"the slices {limits[0]} to {limits[1]} are not all among those of the scan"
        raise UsageError(what, f"choose from 0 to {count - 1}")
    first, last = sorted(grid.place_slice(number) for number in limits)
    return range(first, last + 1)


def _arrange_box(box: PromptBox, grid: SlicedGrid, allowed: range, *, propagate: bool) -> Prompted:
    held, prompt = grid.cut_box(box)
    numbers = range(max(held.start, allowed.start), min(held.stop, allowed.stop))
    if not numbers:
        raise _beyond(held.start, grid)
    if not propagate:
        return Prompted(prompts=dict.fromkeys(numbers, prompt))
    return Prompted(prompts={numbers[len(numbers) // 2]: prompt}, reach=numbers if len(held) > 1 else allowed)


def _add_points(structure: Prompted, on_slices: Mapping[int, SlicePrompt]) -> Prompted:
    """Adds points to a structure; on the slices of a box they stand beside it."""
    boxes = {number: prompt.box for number, prompt in structure.prompts.items()}
    known = next(iter(boxes.values()), None)
    added = {
        number: replace(prompt, box=boxes.get(number, known if number in structure.reach else None))
        for number, prompt in on_slices.items()
    }
    return replace(structure, prompts={**structure.prompts, **added})


def _check(structure: Prompted, allowed: range, grid: SlicedGrid) -> None:
    for number, prompt in structure.prompts.items():
        if number not in allowed or (structure.reach and number not in structure.reach):
            raise _beyond(number, grid)
        if prompt.box is None and not any(inside for _, _, inside in prompt.points):
            what = f"slice {grid.place_slice(number)} has points of the background alone"
            raise UsageError(what, "add a point in the structure, or a box around it")


def _beyond(number: int, grid: SlicedGrid) -> UsageError:
    what = f"a prompt lies on slice {grid.place_slice(number)}, beyond the slices that are asked for"
    return UsageError(what, "widen them, or prompt one of them")
