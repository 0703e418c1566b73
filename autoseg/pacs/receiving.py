"""The service that receives files by C-STORE and keeps them in a queue on disk."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from autoseg.dicom.quiet import quietly
from autoseg.errors import UsageError
from autoseg.pacs.peers import LOOPBACK, TlsFiles
from autoseg.pacs.received import StudyQueue, is_uid

SUCCESS, OUT_OF_RESOURCES, NOT_UNDERSTOOD = 0x0000, 0xA700, 0xC000
"""Status of a file that was sent. Source: DICOM PS3.4, annex B.2.3."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Where the service listens, and to whom.

    Attributes:
        title: Its AE title; calls to another are refused.
        host: Address to listen at; by default this machine alone reaches it.
        port: Port; 0 takes a free one.
        callers: AE titles that may call; empty allows all.
        tls: Certificates of encrypted connections; None is not encrypted.
    """

    title: str = "AUTOSEG"
    host: str = LOOPBACK
    port: int = 11112
    callers: tuple[str, ...] = ()
    tls: TlsFiles | None = None


@contextmanager
def receive(service: Service, queue: StudyQueue) -> Iterator[int]:
    """Receives files into a queue, in threads of its own, as long as it is needed; gives the port.

    Raises:
        UsageError: The port is taken, or pynetdicom is not installed.
    """
    try:
        from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt
    except ImportError as error:
        raise UsageError("C-STORE needs pynetdicom", "pip install 'autoseg[pacs]'") from error
    entity = AE(ae_title=service.title)
    entity.require_called_aet = True
    entity.require_calling_aet = list(service.callers)
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(context.abstract_syntax, list(ALL_TRANSFER_SYNTAXES))
    entity.add_supported_context("1.2.840.10008.1.1")  # verification, C-ECHO
    context = None if service.tls is None else service.tls.server()
    handlers: Sequence[Any] = [(evt.EVT_C_STORE, lambda event: _keep(event, queue))]
    try:
        server: Any = entity.start_server(
            (service.host, service.port), block=False, ssl_context=context, evt_handlers=list(handlers)
        )
    except (OSError, OverflowError) as error:
        what = f"cannot listen at {service.host}:{service.port}: {error}"
        raise UsageError(what, "choose another --port or --host") from error
    with quietly():
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()


def _keep(event: Any, queue: StudyQueue) -> int:
    """Keeps a file that was sent; returns the status that its sender is told."""
    try:
        dataset = event.dataset
        uids = [str(dataset.get(name) or "") for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")]
        content = event.encoded_dataset(include_meta=True)
    except Exception:  # noqa: BLE001 - whatever was sent, the sender is told that it is not understood
        return NOT_UNDERSTOOD
    if not all(map(is_uid, uids)):
        return NOT_UNDERSTOOD
    study, series, instance = uids
    try:
        queue.add(study, series, instance, content)
    except OSError:
        return OUT_OF_RESOURCES
    return SUCCESS
