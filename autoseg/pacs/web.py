"""Series fetched from an archive by DICOMweb."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from autoseg.dicom.quiet import quietly
from autoseg.errors import TransferError, UsageError
from autoseg.pacs.received import is_uid
from autoseg.runtime.artifact import atomic_file

MOST_SHOWN = 200
"""Characters of an error of a server that are shown."""


def pull_study(address: str, study: str, folder: Path, *, series: str | None = None) -> list[Path]:
    """Fetches the files of a study, or of one of its series: folder/SERIES/INSTANCE.dcm.

    A file that was there is replaced whole or not at all, so that a fetch that was stopped can be repeated.

    Args:
        address: Address of a DICOMweb service, such as "http://127.0.0.1:8042/dicom-web".
        study: Study Instance UID.
        folder: Folder for the files; made if it is missing.
        series: Series Instance UID; None fetches all series.

    Returns:
        The paths of the files.

    Raises:
        UsageError: A UID or the address has another form.
        TransferError: The archive cannot be reached, or has no such study.
        WriteError: The folder cannot be written.
    """
    for uid in (study, *([] if series is None else [series])):
        if not is_uid(uid):
            raise UsageError(f"{uid!r} is no UID", "give numbers with dots, as the archive shows them")
    client = open_web(address)
    with web_errors(address), quietly():
        found = [series] if series else [_uid(item) for item in client.search_for_series(study)]
    paths: list[Path] = []
    for uid in found:
        with web_errors(address), quietly():
            for dataset in client.retrieve_series(study, uid, media_types=(("application/dicom", "*"),)):
                instance = str(dataset.SOPInstanceUID)
                if not is_uid(instance) or not is_uid(uid):
                    raise TransferError(f"{address} sent a file without a valid UID", "look into the archive")
                path = folder / uid / f"{instance}.dcm"
                with atomic_file(path) as writing:
                    dataset.save_as(writing, enforce_file_format=True)
                paths.append(path)
    if not paths:
        raise TransferError(f"{address} has no files of study {study}", "check the UIDs")
    return paths


def open_web(address: str) -> Any:
    """Returns a client of a DICOMweb service.

    Raises:
        UsageError: The address has another form, or the client is not installed.
    """
    try:
        from dicomweb_client.api import DICOMwebClient
    except ImportError as error:
        raise UsageError("DICOMweb needs dicomweb-client", "pip install 'autoseg[pacs]'") from error
    try:
        with quietly():
            client = DICOMwebClient(address)
            client.set_http_retry_params(retry=False)  # it would try a dead archive for half a minute
            return client
    except (ValueError, TypeError) as error:
        what = f"{address!r} is no address of a DICOMweb service"
        raise UsageError(what, "write it as http://127.0.0.1:8042/dicom-web") from error


@contextmanager
def web_errors(address: str) -> Iterator[None]:
    """Turns what goes wrong with a service into a `TransferError` in one line."""
    from requests.exceptions import ConnectionError as NoConnectionError
    from requests.exceptions import RequestException, SSLError

    try:
        yield
    except NoConnectionError as error:
        if isinstance(error, SSLError):
            raise TransferError(f"cannot use {address}: {_shorten(error)}", "check its certificate") from error
        raise TransferError(f"cannot use {address}: it does not answer", "check the address and the service") from error
    except RequestException as error:
        raise TransferError(f"cannot use {address}: {_shorten(error)}", "check the address and the service") from error


def _shorten(error: Exception) -> str:
    return " ".join(str(error).split())[:MOST_SHOWN]


def _uid(item: Any) -> str:
    return str(item["0020000E"]["Value"][0])
