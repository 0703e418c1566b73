"""Tells the volumes apart that the frames of DICOM files hold: series, and the volumes within a series.

A series may hold a localizer of another orientation, several acquisitions, echoes, directions of diffusion or points in
time, and copies of the same file. All are told apart by what their headers say, and each volume is a `Series`.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from autoseg.dicom.copies import find_conflict, unique_frames
from autoseg.dicom.functional_groups import TELLING_APART
from autoseg.dicom.headers import IMAGE, Header
from autoseg.dicom.series import Defect, Frame, Series
from autoseg.dicom.stacking import Stack, positions_along, stack_frames
from autoseg.imaging.geometry import DIRECTION_TOLERANCE, ORIGIN_TOLERANCE, SPACING_TOLERANCE

MOST_ORIENTATIONS = 6
"""Orientations of single slices that are taken for a radial acquisition. Decision: localizers have three."""

TIMES = 2
"""Keywords at the end of `TELLING_APART` that are times of day, which differ from slice to slice."""

PLANES = ("sagittal", "coronal", "axial")
"""Names of the planes whose normals are x, y and z."""

Parts = list[tuple[str, list[Frame]]]


def group_series(headers: Iterable[Header]) -> list[Series]:
    """Returns the volumes that image files hold, ordered by Series Number and UID; each has its defect, if any.

    Args:
        headers: Headers of files of any kind; those that are no images are left out. Images that state no series, as
            some anonymised ones, are one series for each folder. Those of two patients or studies are two series, even
            if a program that removes names gave them one UID.
    """
    by_uid: dict[tuple[str, str, str], list[Header]] = {}
    for header in headers:
        if header.kind == IMAGE:
            uid = header.uid or str(header.path.parent)
            by_uid.setdefault((header.patient, header.study_uid, uid), []).append(header)
    series = [volume for same in by_uid.values() for volume in _volumes_of(same)]
    return sorted(series, key=lambda volume: (volume.number is None, volume.number or 0, volume.uid))


def _volumes_of(headers: Sequence[Header]) -> list[Series]:
    """Returns the volumes of one series."""
    by_role: dict[tuple[str, str, str], list[Header]] = {}
    for header in headers:
        by_role.setdefault((header.role, header.unsupported, header.modality), []).append(header)
    return [
        volume
        for (role, *_), same in sorted(by_role.items())
        for part in _split_by_description(same)
        for volume in _volumes_of_role(part, role)
    ]


def _split_by_description(headers: list[Header]) -> list[list[Header]]:
    """Splits files of one UID that are several series, as some programs leave them that give new UIDs.

    Decision: files of several descriptions or numbers are one series as long as they are one volume.
    """
    parts: dict[tuple[str, int | None], list[Header]] = {}
    for header in headers:
        parts.setdefault((header.description, header.number), []).append(header)
    if len(parts) == 1 or _is_volume(headers) or not all(map(_is_volume, parts.values())):
        return [headers]
    return list(parts.values())


def _is_volume(headers: Sequence[Header]) -> bool:
    """Returns whether all frames of some files are the slices of one volume."""
    frames = list(unique_frames(headers).values())
    return len(_split_by_grid(frames)) == 1 and stack_frames(frames).defect is None


def _volumes_of_role(headers: Sequence[Header], role: str) -> list[Series]:
    unique = unique_frames(headers)
    copies = sum(len(header.frames) for header in headers) - len(unique)
    remarks = (f"{copies} of its slices are there twice",) if copies else ()
    conflict = find_conflict(headers) if copies else None
    parts = _split_by_grid(list(unique.values()))
    volumes = [
        (_join(label, inner), same)
        for label, group in parts
        for inner, same in ([("", group)] if label == RADIAL else _split_repeated(group))
    ]
    series = [_make_series(headers[0], role, label, same, remarks) for label, same in volumes]
    return [replace(one, defect=conflict, geometry=None) for one in series] if conflict else series


def _make_series(header: Header, role: str, part: str, frames: list[Frame], remarks: tuple[str, ...]) -> Series:
    stack = stack_frames(frames) if part != RADIAL else Stack(frames=tuple(frames), defect=RADIAL_DEFECT)
    defect = _defect_of_files(header, role) or stack.defect
    return Series(
        uid=header.uid,
        study_uid=header.study_uid,
        patient=header.patient,
        number=header.number,
        description=header.description,
        modality=header.modality,
        part=part,
        frames=stack.frames,
        geometry=stack.geometry if defect is None else None,
        defect=defect,
        role=role,
        remarks=remarks if part else (*remarks, *_remark_on_instances(stack)),
        frame_of_reference=header.frame_of_reference,
    )


RADIAL = "slices of many orientations"
RADIAL_DEFECT = Defect(what="each of its slices has another orientation", fix="choose another series")


def _defect_of_files(header: Header, role: str) -> Defect | None:
    if header.unsupported:
        return Defect(what=header.unsupported, fix="choose another series")
    if role == "mosaic":
        return Defect(what="its slices are tiles of one picture (a mosaic)", fix="convert it with dcm2niix first")
    return None


def _split_by_grid(frames: list[Frame]) -> Parts:
    """Splits slices by size, spacing and orientation."""
    groups: list[list[Frame]] = []
    for frame in frames:
        group = next((group for group in groups if _have_one_grid(group[0], frame)), None)
        if group is None:
            groups.append([frame])
        else:
            group.append(frame)
    if len(groups) > MOST_ORIENTATIONS and Counter(map(len, groups)).most_common(1)[0][0] == 1:
        return [(RADIAL, frames)]
    if len(groups) == 1:
        return [("", frames)]
    return [(f"grid {index} of {len(groups)}{_plane(group[0])}", group) for index, group in enumerate(groups, start=1)]


def _plane(frame: Frame) -> str:
    """Returns the plane that a slice is nearest to, for a label; empty if it does not state where it lies."""
    if frame.row_cosines is None or frame.column_cosines is None:
        return ""
    return f", {PLANES[int(np.argmax(np.abs(np.cross(frame.row_cosines, frame.column_cosines))))]}"


def _have_one_grid(one: Frame, other: Frame) -> bool:
    return (
        one.size == other.size
        and _are_close(one.spacing_mm, other.spacing_mm, relative=SPACING_TOLERANCE)
        and _are_close(one.row_cosines, other.row_cosines, absolute=DIRECTION_TOLERANCE)
        and _are_close(one.column_cosines, other.column_cosines, absolute=DIRECTION_TOLERANCE)
    )


def _are_close(
    one: Sequence[float] | None, other: Sequence[float] | None, *, relative: float = 0.0, absolute: float = 0.0
) -> bool:
    if one is None or other is None:
        return one is other
    return all(abs(a - b) <= absolute + relative * abs(b) for a, b in zip(one, other, strict=True))


def _split_repeated(frames: list[Frame]) -> Parts:
    """Splits slices of one grid into volumes, if several slices lie at one position, or if distances vary."""
    if all(frame.position_mm is None and frame.number is None for frame in frames) and len(frames) > 1:
        return [(f"image {index} of {len(frames)}", [frame]) for index, frame in enumerate(frames, start=1)]
    if len(frames) == 1 or any(frame.position_mm is None or frame.row_cosines is None for frame in frames):
        return [("", frames)]
    most = _count_at_one_position(frames)
    if most == 1:
        return _split_uneven(frames)
    keys = [(key,) for key in TELLING_APART] + list(combinations(TELLING_APART[:-TIMES], 2))
    for key in keys:
        parts = _split_by(frames, key)
        if len(parts) == most and all(_count_at_one_position(part) == 1 for _, part in parts):
            return parts
    return _split_by_instance(frames, most) or [("", frames)]


def _split_uneven(frames: list[Frame]) -> Parts:
    """Splits acquisitions of different places if that makes each of them even; a missing slice stays one."""
    defect = stack_frames(frames).defect
    if defect is None or "missing" in defect.what:
        return [("", frames)]
    for key in TELLING_APART:
        parts = _split_by(frames, (key,))
        if 1 < len(parts) <= len(frames) // 2 and all(
            len(part) > 1 and stack_frames(part).defect is None for _, part in parts
        ):
            return parts
    return [("", frames)]


def _split_by(frames: Sequence[Frame], keys: Sequence[str]) -> Parts:
    parts: dict[str, list[Frame]] = {}
    for frame in frames:
        label = ", ".join(f"{key} {frame.attributes.get(key, '-')}" for key in keys)
        parts.setdefault(label, []).append(frame)
    return sorted(parts.items(), key=lambda part: _natural(part[0]))


def _natural(label: str) -> tuple[float, str]:
    try:
        return float(label.split()[1].rstrip(",")), label
    except (ValueError, IndexError):
        return float("inf"), label


def _split_by_instance(frames: Sequence[Frame], most: int) -> Parts:
    """Splits by instance number, if every position occurs equally often: the first of each position, the second, ..."""
    places = _places(frames)
    if set(Counter(places).values()) != {most} or any(frame.instance is None for frame in frames):
        return []
    parts: list[list[Frame]] = [[] for _ in range(most)]
    seen: Counter[int] = Counter()
    for place, frame in sorted(zip(places, frames, strict=True), key=_by_instance):
        parts[seen[place]].append(frame)
        seen[place] += 1
    labels = _describe_parts(parts)
    return [(f"volume {index} of {most}{labels[index - 1]}", part) for index, part in enumerate(parts, start=1)]


def _describe_parts(parts: Sequence[Sequence[Frame]]) -> list[str]:
    """Describes volumes by the first keyword that each of them has one value of, and that they do not share."""
    for key in TELLING_APART[:-TIMES]:
        values = [{frame.attributes.get(key, "-") for frame in part} for part in parts]
        if all(len(own) == 1 for own in values) and len(set[str]().union(*values)) > 1:
            return [f", {key} {next(iter(own))}" for own in values]
    return [""] * len(parts)


def _by_instance(pair: tuple[int, Frame]) -> int:
    return pair[1].instance or 0


def _count_at_one_position(frames: Sequence[Frame]) -> int:
    return max(Counter(_places(frames)).values())


def _places(frames: Sequence[Frame]) -> list[int]:
    """Returns a number for the place of each slice along the normal; slices at the same place have the same."""
    along = positions_along(frames)
    order = np.argsort(along, kind="stable")
    gaps = np.diff(along[order])
    distinct = gaps[gaps > 1e-3]  # mm; Decision: positions are written with at least three decimals
    tolerance = ORIGIN_TOLERANCE * float(np.median(distinct)) if len(distinct) else 1e-3
    numbers = np.concatenate([[0], np.cumsum(gaps > tolerance)])
    places = np.empty(len(frames), dtype=int)
    places[order] = numbers
    return [int(place) for place in places]


def _remark_on_instances(stack: Stack) -> tuple[str, ...]:
    """Says if instance numbers begin late, as where the first slices were not copied."""
    numbers = sorted({frame.instance for frame in stack.frames if frame.instance is not None})
    if len(numbers) < 3 or len(numbers) != len(stack.frames):
        return ()
    if numbers[0] <= 1 or numbers[-1] - numbers[0] != len(numbers) - 1:
        return ()
    return (f"its instance numbers begin with {numbers[0]}: slices may be missing at its start",)


def _join(label: str, inner: str) -> str:
    return ", ".join(text for text in (label, inner) if text)
