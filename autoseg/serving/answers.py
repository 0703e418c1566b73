"""What a request for a segmentation gets: a zip file of masks and report, the mask alone, or all of it as JSON."""

import json
import zipfile
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, BinaryIO, cast

from starlette.responses import JSONResponse, Response, StreamingResponse

from autoseg.imaging.formats import split_ending
from autoseg.serving.limits import Refusal

if TYPE_CHECKING:
    from autoseg.serving.segmentation import Segmentation

ANSWERS = ("zip", "mask", "json")
"""Kinds of answers: the first one by default."""

REPORT = "report.json"
BLOCK_BYTES = 2**20
DICOM_TYPE, BYTES_TYPE = "application/dicom", "application/octet-stream"


def make_answer(result: "Segmentation", kind: str, folder: Path) -> Response:
    """Returns the answer to a request; the files of the result are not needed any more.

    Args:
        result: The result.
        kind: A kind of `ANSWERS`.
        folder: Where a temporary file may lie, which has no name and ends with the answer.

    Raises:
        Refusal: The mask alone is asked for, and there are several.
    """
    if kind == "json":
        files = {path.as_posix(): _encode(result.folder / path) for path in result.files}
        return JSONResponse({**result.report, "files": files})
    if kind == "mask":
        return _send_mask(result)
    file = cast("BinaryIO", TemporaryFile(dir=folder))  # noqa: SIM115 - the answer closes it
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(REPORT, json.dumps(result.report, indent=2))
        for path in result.files:
            archive.write(result.folder / path, path.as_posix())
    return _send(file, "application/zip", "masks.zip")


def _send_mask(result: "Segmentation") -> Response:
    if len(result.masks) != 1:
        what = f"the result is {len(result.masks)} files, which are no single mask"
        raise Refusal(422, f"{what}; ask for answer=zip or answer=json")
    [path] = result.masks
    ending = split_ending(path)[1] or path.suffix
    kind = DICOM_TYPE if ending == ".dcm" else BYTES_TYPE
    return _send((result.folder / path).open("rb"), kind, f"mask{ending}")


def _send(file: BinaryIO, kind: str, name: str) -> Response:
    """Returns the answer that sends an open file, from its beginning, and closes it; its name may be gone by then."""
    size = file.seek(0, 2)
    headers = {"Content-Length": str(size), "Content-Disposition": f'attachment; filename="{name}"'}
    file.seek(0)

    async def read() -> AsyncIterator[bytes]:
        with file:
            while block := file.read(BLOCK_BYTES):
                yield block

    return StreamingResponse(read(), media_type=kind, headers=headers)


def _encode(path: Path) -> str:
    return b64encode(path.read_bytes()).decode()
