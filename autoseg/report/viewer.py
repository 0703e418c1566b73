"""Cases that a click opens in the viewer of a page: small copies of their volumes inside it, the others beside it.

The viewer is niivue, whose script lies in `vendored` and is put into the page packed.
"""

import gzip
import json
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from markupsafe import Markup

from autoseg.errors import AutosegError
from autoseg.evaluation.overlay import label_colour
from autoseg.imaging.geometry import Volume
from autoseg.report.viewed_volumes import choose_blocks, encode_image, encode_mask
from autoseg.runtime.reporting import Reporter

PAGE_BYTES, FEWEST_BYTES = 12 * 2**20, 2 * 2**20
"""Bytes of the pictures and volumes of a page, as text, and those that volumes may take however many pictures there
are. Decision: a page of 15 MB opens at once and fits into an e-mail; script and tables take two of them."""

MOST_VOXELS, FEWEST_VOXELS = 1_000_000, 150_000
"""Voxels of the copies of a case. Decision: of few cases 100 along each side, of many half of it, which show where a
mask is wrong."""

BYTES_PER_VOXEL = 1.0
"""Of a packed image as text. Source: 0.7 for hippocampus MR, 0.9 for the noise of CT."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewedVolumes:
    """The volumes of a case, in memory.

    Attributes:
        images: Each channel, shape (z, y, x).
        masks: Label maps of `number_structures` on the same grid.
    """

    images: tuple[Volume, ...]
    masks: tuple[Volume, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewedCase:
    """A case that the viewer can show.

    Attributes:
        name: Name of the case, as the table of the page has it.
        images: Title of each channel.
        masks: Title of each mask, such as "reference" and "prediction".
        read: Reads the volumes, in the order of the titles.
    """

    name: str
    images: tuple[str, ...]
    masks: tuple[str, ...]
    read: Callable[[], ViewedVolumes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewer:
    """What a template needs for the viewer; see `templates/viewer.html`.

    Attributes:
        script: niivue, packed with gzip, as base64.
        cases: The cases and their copies as JSON that may stand inside of a page.
        embedded: Number of cases whose copies are inside the page.
        total: Number of cases.
    """

    script: str
    cases: Markup
    embedded: int
    total: int


def make_viewer(
    cases: Sequence[ViewedCase],
    structures: Iterable[str],
    *,
    first: Sequence[str],
    other_bytes: int,
    reporter: Reporter,
) -> Viewer | None:
    """Reads cases again, as many as fit into the page, and makes small copies of their volumes.

    Args:
        cases: All cases that can be shown. Their order says which number a case has beside the page.
        structures: Names of the structures, in the order of their numbers.
        first: Names of cases in the order in which they get room; the others follow.
        other_bytes: Bytes of the pictures of the page.
        reporter: Shows progress.

    Returns:
        The viewer; None if there are no cases.
    """
    if not cases:
        return None
    places = {name: place for place, name in enumerate(first)}
    order = sorted(range(len(cases)), key=lambda number: places.get(cases[number].name, len(places)))
    room = max(FEWEST_BYTES, PAGE_BYTES - other_bytes * 4 // 3)
    copies = _make_copies([(number, cases[number]) for number in order], room, reporter)
    entries = {
        case.name: {
            "number": number,
            "images": case.images,
            "masks": case.masks,
            **copies.get(number, {"reduced": False, "volumes": None}),
        }
        for number, case in enumerate(cases)
    }
    colours = [(name, label_colour(number)) for number, name in enumerate(structures, start=1)]
    return Viewer(
        script=_encode(gzip.compress(_read_script(), mtime=0)),
        cases=_embed_json({"structures": colours, "cases": entries}),
        embedded=len(copies),
        total=len(cases),
    )


def _make_copies(
    cases: Sequence[tuple[int, ViewedCase]], room: int, reporter: Reporter
) -> dict[int, Mapping[str, Any]]:
    """Makes copies until there is no more room; a case that cannot be read has none.

    Returns:
        Number of a case, to its entry in the page.
    """
    most_voxels = int(min(MOST_VOXELS, max(FEWEST_VOXELS, room / BYTES_PER_VOXEL / len(cases))))
    copies: dict[int, Mapping[str, Any]] = {}
    with reporter.task("copying scans into the page", total=len(cases)) as task:
        for number, case in cases:
            try:
                entry = _make_copy(case, most_voxels)
            except AutosegError:
                continue
            size = sum(map(len, entry["volumes"]))
            if size > room:
                break
            room -= size
            copies[number] = entry
            task.advance()
    return copies


def _make_copy(case: ViewedCase, most_voxels: int) -> dict[str, Any]:
    volumes = case.read()
    blocks = choose_blocks(volumes.images[0].geometry, most_voxels // len(volumes.images))
    packed = [encode_image(image, blocks) for image in volumes.images]
    packed += [encode_mask(mask, blocks) for mask in volumes.masks]
    return {"reduced": blocks.is_reduced, "volumes": [_encode(content) for content in packed]}


def _read_script() -> bytes:
    return files("autoseg.report").joinpath("vendored", "niivue.umd.js").read_bytes()


def _encode(content: bytes) -> str:
    return b64encode(content).decode()


def _embed_json(value: object) -> Markup:
    """Returns JSON in which nothing can end the script element around it."""
    text = json.dumps(value, separators=(",", ":")).replace("<", "\\u003c").replace("&", "\\u0026")
    return Markup(text)  # noqa: S704 - nothing in it is markup
