"""Files sent to an archive: by C-STORE to a DICOM application, or by DICOMweb to an address."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from autoseg.dicom.quiet import quietly
from autoseg.errors import ImageError, TransferError, UsageError
from autoseg.pacs.peers import Peer, TlsFiles, parse_peer

MOST_CONTEXTS = 128
"""Presentation contexts of an association. Source: DICOM PS3.8, section 9.3.2.2."""

TIMEOUT_SECONDS = 30.0
"""Decision: an archive that does not answer so long is taken for dead."""

WEB_FILES = 20
"""Files of a request to store. Decision: a request of so many slices or of one large object fits into memory."""

SUCCESS, WARNINGS = 0x0000, range(0xB000, 0xC000)
"""Status of a stored file. Source: DICOM PS3.4, annex B.2.3."""


def parse_target(text: str) -> str | Peer:
    """Returns the address of a DICOMweb service, or the DICOM application, that a text names.

    Raises:
        UsageError: It is neither.

    Example:
        >>> parse_target("http://127.0.0.1:8042/dicom-web"), parse_target("ORTHANC@pacs:4242").title
        ('http://127.0.0.1:8042/dicom-web', 'ORTHANC')
    """
    return text if text.startswith(("http://", "https://")) else parse_peer(text)


def send_files(
    paths: Sequence[Path], target: str | Peer, *, title: str = "AUTOSEG", tls: TlsFiles | None = None
) -> int:
    """Sends files to an archive, each in its own transfer syntax.

    Args:
        paths: The files.
        target: Address of a DICOMweb service, such as "http://127.0.0.1:8042/dicom-web", or a DICOM application.
        title: AE title of this program.
        tls: Certificates of an encrypted connection by C-STORE; None is not encrypted.

    Returns:
        The number of files that the archive has stored.

    Raises:
        ImageError: A file is no DICOM file.
        TransferError: The archive cannot be reached, or refuses a file.
    """
    if isinstance(target, Peer):
        for part in _batches(paths):
            _send_by_association(part, target, title, tls)
    else:
        _send_by_web(paths, target)
    return len(paths)


def _batches(paths: Sequence[Path]) -> Iterable[dict[Path, tuple[str, str]]]:
    """Yields files with their SOP class and transfer syntax, at most as many kinds at once as an association has."""
    batch: dict[Path, tuple[str, str]] = {}
    for path in paths:
        meta = _read(path, headers_only=True).file_meta
        kind = (str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID))
        if kind not in batch.values() and len(set(batch.values())) == MOST_CONTEXTS:
            yield batch
            batch = {}
        batch[path] = kind
    if batch:
        yield batch


def _read(path: Path, *, headers_only: bool = False) -> Any:
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    try:
        with quietly():
            dataset = dcmread(path, specific_tags=["SOPInstanceUID"] if headers_only else None)
            dataset.file_meta.MediaStorageSOPClassUID, dataset.file_meta.TransferSyntaxUID  # noqa: B018 - are they there
    except (OSError, InvalidDicomError, AttributeError, ValueError) as error:
        raise ImageError(f"{path} is no DICOM file: {error}", "leave it out") from error
    return dataset


def _send_by_association(files: dict[Path, tuple[str, str]], peer: Peer, title: str, tls: TlsFiles | None) -> None:
    try:
        from pynetdicom import AE
    except ImportError as error:
        raise UsageError("C-STORE needs pynetdicom", "pip install 'autoseg[pacs]'") from error
    entity = AE(ae_title=title)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = entity.connection_timeout = TIMEOUT_SECONDS
    for sop_class, syntax in dict.fromkeys(files.values()):
        entity.add_requested_context(sop_class, syntax)
    arguments = {} if tls is None else {"tls_args": (tls.client(), peer.host)}
    with quietly():
        association = entity.associate(peer.host, peer.port, ae_title=peer.title, **arguments)
        if not association.is_established:
            raise _not_established(association, peer, title, list(files))
        try:
            for path in files:
                _store(association, path, peer)
        finally:
            association.release()


def _not_established(association: Any, peer: Peer, title: str, paths: Sequence[Path]) -> TransferError:
    """Returns why nothing can be sent; a peer that answers and takes none of the kinds of files is told apart."""
    if association.rejected_contexts:
        what = f"{peer} takes no files of the kind of {paths[0].name}"
        return TransferError(what, "send them in another way, such as DICOMweb, or allow their kind there")
    reason = "it refuses the titles" if association.is_rejected else "it does not answer"
    return TransferError(f"cannot send to {peer} as {title}: {reason}", "check titles, host, port and encryption")


def _store(association: Any, path: Path, peer: Peer) -> None:
    try:
        status = association.send_c_store(path)
    except (ValueError, RuntimeError, AttributeError) as error:
        what = f"{peer} does not take {path.name}: {' '.join(str(error).split())}"
        raise TransferError(what, "send it in another way, or allow its kind there") from error
    code = status.get("Status") if status else None
    if code is None:
        raise TransferError(f"{peer} broke off while {path.name} was sent", "try again")
    if code != SUCCESS and code not in WARNINGS:
        raise TransferError(f"{peer} did not store {path.name}: status {code:04X}", "look into its log")


def _send_by_web(paths: Sequence[Path], address: str) -> None:
    from autoseg.pacs.web import open_web, web_errors

    client = open_web(address)
    for start in range(0, len(paths), WEB_FILES):
        datasets = [_read(path) for path in paths[start : start + WEB_FILES]]
        with web_errors(address), quietly():
            answer = client.store_instances(datasets)
        failed = answer.get("FailedSOPSequence") if answer is not None else None
        if failed:
            code = failed[0].get("FailureReason", 0)
            raise TransferError(f"{address} did not store {len(failed)} files: reason {code:04X}", "look into its log")
