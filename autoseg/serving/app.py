"""The addresses of the server, and what each of them answers."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from http import HTTPStatus
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from autoseg._version import __version__
from autoseg.report.loopback import HEADERS
from autoseg.runtime.units import describe_memory
from autoseg.serving.access import Access
from autoseg.serving.answers import ANSWERS, make_answer
from autoseg.serving.jobs import Job, JobQueue, Result
from autoseg.serving.limits import Refusal
from autoseg.serving.segmentation import DICOM_CHOICES, UploadSegmenter
from autoseg.serving.uploads import Upload, check_headers, drain, keep_upload, note_end, receive_form

LOG = logging.getLogger(__name__)

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
"""What the page may load: nothing but its own script and style."""

PAGE = {
    "/": ("page.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}
"""Paths of the page, each with its file and media type."""

BROKEN = "the server failed at this scan, and goes on; its log says why"


class Guard:
    """Lets through what may be answered, and adds the headers that each answer has.

    Args:
        app: What answers.
        access: Who may use the server.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            return

        receive = note_end(scope, receive)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update({**HEADERS, "Content-Security-Policy": POLICY})
            await send(message)

        try:
            self._access.check(scope["path"], Headers(scope=scope))
        except Refusal as refusal:
            await drain(Request(scope, receive))
            await _refuse(refusal)(scope, receive, send_with_headers)
            return
        await self._app(scope, receive, send_with_headers)


def make_app(
    segmenter: UploadSegmenter, queue: JobQueue, access: Access, folder: Path, say: Callable[[str], None]
) -> Guard:
    """Returns the application that uvicorn serves.

    Args:
        segmenter: Segments uploads.
        queue: Its queue.
        access: Who may use the server.
        folder: Folder for temporary files.
        say: Gets a line for each scan, without any name of an upload.
    """
    app = FastAPI(title="autoseg", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    model = segmenter.describe_model()

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "scans": queue.size}

    @app.get("/model")
    async def describe_model() -> dict[str, Any]:
        return model

    for path, (name, kind) in PAGE.items():
        content = files("autoseg.serving").joinpath("page", name).read_bytes()
        app.add_api_route(path, partial(_show, content, kind), methods=["GET"], include_in_schema=False)

    @app.post("/segment", response_model=None)
    async def segment(request: Request) -> Response:
        return await _segment(request, segmenter=segmenter, queue=queue, folder=folder, say=say)

    @app.exception_handler(HTTPException)
    async def refuse(_request: Request, error: HTTPException) -> Response:
        return _refuse(Refusal(error.status_code, f"{error.detail}; see /".lower(), dict(error.headers or {})))

    return Guard(app, access)


async def _segment(
    request: Request, *, segmenter: UploadSegmenter, queue: JobQueue, folder: Path, say: Callable[[str], None]
) -> Response:
    """Answers a request with a scan; for the other arguments see `make_app`."""
    try:
        options = _read_options(request)
        check_headers(request, segmenter.limits)
        with queue.admit() as job:
            upload = await _receive(request, segmenter, job)
            work = partial(_work, segmenter, upload, job, options, folder)
            response, line = await _wait(request, job, queue.run(job, work))
    except Refusal as refusal:
        say(f"refused with {refusal.status}")
        if refusal.status != HTTPStatus.REQUEST_TIMEOUT:  # else nothing more comes
            await drain(request)
        return _refuse(refusal)
    except ModuleNotFoundError as error:
        return _refuse(Refusal(415, f"scans of this kind need {error.name}, which this server lacks; send NIfTI"))
    except Exception:
        LOG.exception("a scan could not be segmented")
        return _refuse(Refusal(500, BROKEN))
    say(line)
    return response


async def _receive(request: Request, segmenter: UploadSegmenter, job: Job) -> Upload:
    """Receives an upload, and keeps its files in the folder of the job."""
    uploads = job.folder / "upload"
    uploads.mkdir()
    try:
        form = await receive_form(request, segmenter.limits)
        try:
            return await asyncio.to_thread(keep_upload, form, uploads)
        finally:
            await form.close()
    except OSError as error:
        line = f"the server cannot keep the upload: {error.strerror}; ask whoever runs the server"
        raise Refusal(507, line) from error


def _work(
    segmenter: UploadSegmenter, upload: Upload, job: Job, options: tuple[str, str], folder: Path
) -> tuple[Response, str]:
    """Segments an upload, in the thread of the queue; returns the answer, and a line for the log."""
    answer, dicom = options
    result = segmenter.segment(upload, job.folder / "result", dicom, job.dropped)
    line = f"{len(result.report['scans'])} segmented, {describe_memory(upload.size)}, {result.report['seconds']:.1f} s"
    return make_answer(result, answer, folder), line


async def _wait(request: Request, job: Job, running: Coroutine[Any, Any, Result]) -> Result:
    """Waits for a job, and drops it when the client has gone or the server gives up waiting."""

    async def wait_for_end() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    work, gone = asyncio.ensure_future(running), asyncio.ensure_future(wait_for_end())
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            job.dropped.set()
        return await work
    finally:
        job.dropped.set()
        gone.cancel()


def _read_options(request: Request) -> tuple[str, str]:
    """Returns what is asked for behind the question mark of the address: the kind of the answer, and of DICOM objects.

    Raises:
        Refusal: There is no such option or kind.
    """
    kinds, chosen = {"answer": ANSWERS, "dicom": DICOM_CHOICES}, request.query_params
    for name, value in chosen.items():
        if name not in kinds:
            raise Refusal(422, f"there is no option {name[:40]!r}; leave it out, or choose from {', '.join(kinds)}")
        if value not in kinds[name]:
            raise Refusal(422, f"{name} cannot be {value[:40]!r}; choose from {', '.join(kinds[name])}")
    return chosen.get("answer", ANSWERS[0]), chosen.get("dicom", DICOM_CHOICES[0])


async def _show(content: bytes, kind: str) -> Response:
    return Response(content, media_type=kind)


def _refuse(refusal: Refusal) -> Response:
    return JSONResponse({"error": refusal.line}, refusal.status, refusal.headers)
