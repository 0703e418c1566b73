"""Archives of DICOM (PACS): studies fetched, files sent, and a service that segments what it receives."""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from autoseg.dicom.selection import SeriesChoice
from autoseg.errors import UsageError
from autoseg.runtime.paths import as_path
from autoseg.runtime.reporting import SILENT, Reporter

POLL_SECONDS = 0.5
"""Time between two looks into the queue."""


def pull_dicom(address: str, output: str | os.PathLike[str], *, study: str, series: str | None = None) -> list[Path]:
    """Fetches a study, or one of its series, from an archive by DICOMweb.

    Args:
        address: Address of the service, such as "http://127.0.0.1:8042/dicom-web".
        output: Folder for the files: SERIES/INSTANCE.dcm; made if it is missing.
        study: Study Instance UID.
        series: Series Instance UID; None fetches all series.

    Returns:
        The paths of the files.

    Raises:
        UsageError: A UID or the address has another form, or dicomweb-client is not installed.
        TransferError: The archive cannot be reached, or has no such study.
        WriteError: The folder cannot be written.

    Example:
        ::

            autoseg.pull_dicom("http://127.0.0.1:8042/dicom-web", "examination", study="1.2.3")
    """
    from autoseg.pacs.web import pull_study

    return pull_study(address, study, as_path(output, "output"), series=series)


def push_dicom(
    sources: Sequence[str | os.PathLike[str]],
    target: str,
    *,
    title: str = "AUTOSEG",
    tls_certificate: str | os.PathLike[str] | None = None,
    tls_key: str | os.PathLike[str] | None = None,
    tls_authorities: str | os.PathLike[str] | None = None,
) -> int:
    """Sends DICOM files to an archive.

    Args:
        sources: Files, and folders whose DICOM files are sent, those in subfolders included.
        target: A DICOM application, "TITLE@HOST:PORT", which gets them by C-STORE; or the address of a DICOMweb
            service, such as "http://127.0.0.1:8042/dicom-web".
        title: AE title of this program.
        tls_certificate: Certificate of this machine for encrypted connections by C-STORE, in PEM format.
        tls_key: Its private key.
        tls_authorities: Certificates that the other side's must be signed by; encrypts as well.

    Returns:
        The number of files.

    Raises:
        UsageError: The target has another form, there are no files, or a package is not installed.
        ImageError: A file is no DICOM file.
        TransferError: The archive cannot be reached, or refuses a file.

    Example:
        ::

            autoseg.push_dicom(["masks/dicom"], "ORTHANC@127.0.0.1:4242")
    """
    from autoseg.dicom.search import list_dicom_files
    from autoseg.pacs.peers import check_title, choose_tls
    from autoseg.pacs.sending import parse_target, send_files

    paths = [path for source in sources for path in list_dicom_files(as_path(source, "sources"))]
    if not paths:
        raise UsageError(f"{', '.join(map(str, sources))} holds no DICOM files", "check the path")
    tls = choose_tls(tls_certificate, tls_key, tls_authorities)
    return send_files(paths, parse_target(target), title=check_title(title), tls=tls)


def listen_dicom(
    queue: str | os.PathLike[str],
    target: str,
    *,
    model: str | os.PathLike[str],
    kinds: Sequence[str] = ("seg",),
    modality: str = "",
    description: str = "*",
    channels: Sequence[str] = (),
    resample_tilt: bool = False,
    title: str = "AUTOSEG",
    host: str = "127.0.0.1",
    port: int = 11112,
    callers: Sequence[str] = (),
    settle_seconds: float = 30.0,
    tls_certificate: str | os.PathLike[str] | None = None,
    tls_key: str | os.PathLike[str] | None = None,
    tls_authorities: str | os.PathLike[str] | None = None,
    device: str = "auto",
    reporter: Reporter = SILENT,
    until: Callable[[], bool] = lambda: False,
) -> None:
    """Receives studies by C-STORE, segments them with a model, and stores the objects.

    A file is on disk before its sender is told that it is stored, and a study stays there until its objects are stored:
    a service that was killed goes on where it was. Studies that cannot be segmented are put aside, in failed/.

    Args:
        queue: Folder for the studies; made if it is missing.
        target: Where objects are stored: "TITLE@HOST:PORT", or the address of a DICOMweb service.
        model: A model folder, a bundle, or the name of an installed model.
        kinds: The objects: "seg", "labelmap", "rtstruct".
        modality: Modality of the series that are segmented; empty takes all.
        description: Pattern of the descriptions of the series that are segmented.
        channels: For a model of several channels: patterns of the descriptions of the series of a study that are its
            channels, in their order. Series on other grids are resampled onto the first, which the objects lie on.
        resample_tilt: Whether slices of a tilted gantry are resampled to a straight grid.
        title: AE title of this service, which calls must name.
        host: Address to listen at; by default other machines cannot reach it.
        port: Port to listen at; 0 takes a free one.
        callers: AE titles that may call; empty allows all.
        settle_seconds: Time without a further file after which a study counts as complete.
        tls_certificate: Certificate of this machine in PEM format, for encrypted connections.
        tls_key: Its private key.
        tls_authorities: Certificates that the other side's must be signed by; then callers must have one.
        device: "auto", "cpu", "cuda" or "mps".
        reporter: Gets one line for each study.
        until: Ends the service between two studies when it returns True.

    Raises:
        UsageError: An option has another form, the port is taken, another service works in the folder, or channels are
            given that are not those of the model.
        ModelError: The model is missing or damaged.
        WriteError: The disk is full.

    Example:
        ::

            autoseg.listen_dicom("queue", "ORTHANC@127.0.0.1:4242", model="Liver.zip", modality="CT")
    """
    from autoseg.pacs.peers import check_title, choose_tls
    from autoseg.pacs.received import StudyQueue
    from autoseg.pacs.receiving import Service, receive
    from autoseg.pacs.sending import parse_target
    from autoseg.pacs.service import Destination, Rule, StudyWorker
    from autoseg.runtime.lock import run_alone

    folder, tls = as_path(queue, "queue"), choose_tls(tls_certificate, tls_key, tls_authorities)
    destination = Destination(target=parse_target(target), title=check_title(title), tls=tls)
    service = Service(title=check_title(title), host=host, port=port, callers=tuple(map(check_title, callers)), tls=tls)
    if channels and (modality or description != "*"):
        what = "--channels says which series are meant, as --modality and --description do for a model of one channel"
        raise UsageError(what, "leave those out")
    choice = SeriesChoice(channels=tuple(channels), resample_tilt=resample_tilt)
    segment = _load_segment(as_path(model, "model"), kinds, choice, device, reporter)
    with run_alone(folder):
        studies = StudyQueue(folder)
        rule = Rule(modality=modality, description=description, channels=choice.channels)
        worker = StudyWorker(studies, rule, segment, destination, reporter.say)
        with receive(service, studies) as opened:
            reporter.say(f"{service.title} listens at {host}:{opened}; studies in {folder}")
            while not until():
                worker.work(settle_seconds)
                time.sleep(POLL_SECONDS)


def _load_segment(
    model: Path, kinds: Sequence[str], choice: SeriesChoice, device: str, reporter: Reporter
) -> Callable[[Path, Path], Sequence[Path]]:
    """Loads a model; returns what segments the folder of a series, or of a study, and returns the objects."""
    from autoseg.datasets.dicom_scans import check_number_of_channels
    from autoseg.datasets.scans import DICOM_FOLDER, find_scans
    from autoseg.inference.dicom_objects import check_kinds, choose_objects
    from autoseg.inference.folder import make_output_folder, segment_scans
    from autoseg.inference.loading import PredictionOptions, load_segmenter
    from autoseg.models.model_source import choose_source, find_model

    path = find_model(
        choose_source(model, None, None, None), None, with_best_model=True, default="3d_fullres", workspace=None
    )
    segmenter = load_segmenter(path, PredictionOptions(device=device), say=reporter.say, warn=reporter.say)
    check_kinds(kinds, segmenter)
    check_number_of_channels(choice, segmenter.info)

    def segment(series: Path, output: Path) -> list[Path]:
        scans = find_scans(series, segmenter.info, choice)
        objects = choose_objects(kinds, segmenter, scans)
        make_output_folder(output, series)
        segment_scans(segmenter, scans, output, {}, SILENT, () if objects is None else (objects,))
        return sorted((output / DICOM_FOLDER).iterdir())

    return segment
