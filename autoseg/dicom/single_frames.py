"""Enhanced files that hold a single slice each, which objects refer to as to any other file of one slice."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any

STAND_INS = {
    "1.2.840.10008.5.1.4.1.1.2.1": "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.2.2": "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.4.1": "1.2.840.10008.5.1.4.1.1.4",
    "1.2.840.10008.5.1.4.1.1.4.4": "1.2.840.10008.5.1.4.1.1.4",
    "1.2.840.10008.5.1.4.1.1.130": "1.2.840.10008.5.1.4.1.1.128",
    "1.2.840.10008.5.1.4.1.1.128.1": "1.2.840.10008.5.1.4.1.1.128",
}
"""SOP classes of enhanced and converted images of CT, MR and PET, to those of single slices. Source: PS3.4, annex B.5.

highdicom takes every file of an enhanced class for one that holds all slices, and refuses a second one.
"""


def stand_in(headers: Sequence[Any]) -> list[Any]:
    """Returns headers of files of one slice, those of an enhanced class as if they were of the class of slices."""
    if str(headers[0].SOPClassUID) not in STAND_INS:
        return list(headers)
    replaced = [deepcopy(header) for header in headers]
    for header in replaced:
        header.SOPClassUID = STAND_INS.get(str(header.SOPClassUID), header.SOPClassUID)
    return replaced


def restore_classes(written: Any, headers: Sequence[Any]) -> None:
    """Gives the references of an object the SOP classes of the files that they name; see `stand_in`."""
    if str(headers[0].SOPClassUID) not in STAND_INS:
        return
    classes = {str(header.SOPInstanceUID): header.SOPClassUID for header in headers}
    for reference in _references(written):
        reference.ReferencedSOPClassUID = classes[str(reference.ReferencedSOPInstanceUID)]


def _references(written: Any) -> Iterator[Any]:
    for series in written.ReferencedSeriesSequence:
        yield from series.ReferencedInstanceSequence
    for frame in written.PerFrameFunctionalGroupsSequence:
        for derivation in frame.get("DerivationImageSequence") or ():
            yield from derivation.SourceImageSequence
