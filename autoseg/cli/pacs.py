"""The commands that exchange DICOM with an archive (PACS)."""

from pathlib import Path
from typing import Annotated

import typer

from autoseg.cli.options import Device, ResampleTilt

Title = Annotated[str, typer.Option("--ae-title", help="AE title of this program.", metavar="TITLE")]
Certificate = Annotated[
    Path | None,
    typer.Option("--tls-certificate", help="Certificate of this machine, which encrypts C-STORE.", metavar="FILE"),
]
Key = Annotated[Path | None, typer.Option("--tls-key", help="Private key of the certificate.", metavar="FILE")]
Authorities = Annotated[
    Path | None,
    typer.Option("--tls-authorities", help="Certificates that sign those of the other side.", metavar="FILE"),
]


def pull(
    address: Annotated[str, typer.Argument(help="A DICOMweb service: http://HOST:PORT/dicom-web.", metavar="URL")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the files.", metavar="PATH")],
    study: Annotated[str, typer.Option("--study", help="Study Instance UID.", metavar="UID")],
    series: Annotated[
        str | None, typer.Option("--series", help="Series Instance UID. [default: all series]", metavar="UID")
    ] = None,
) -> None:
    """Fetches a study from an archive by DICOMweb."""
    from autoseg.cli.terminal import console
    from autoseg.pipeline import pull_dicom

    paths = pull_dicom(address, output, study=study, series=series)
    console.print(f"{len(paths)} files: {output}")


def push(
    sources: Annotated[list[Path], typer.Argument(help="DICOM files, or folders of them.", metavar="PATH...")],
    target: Annotated[
        str,
        typer.Option("--to", help="TITLE@HOST:PORT for C-STORE, or the URL of a DICOMweb service.", metavar="ARCHIVE"),
    ],
    title: Title = "AUTOSEG",
    tls_certificate: Certificate = None,
    tls_key: Key = None,
    tls_authorities: Authorities = None,
) -> None:
    """Sends DICOM files to an archive."""
    from autoseg.cli.terminal import console
    from autoseg.pipeline import push_dicom

    count = push_dicom(
        sources,
        target,
        title=title,
        tls_certificate=tls_certificate,
        tls_key=tls_key,
        tls_authorities=tls_authorities,
    )
    console.print(f"{count} files stored at {target}")


def listen(
    queue: Annotated[Path, typer.Option("--queue", help="Folder that keeps the studies.", metavar="PATH")],
    target: Annotated[
        str,
        typer.Option("--to", help="TITLE@HOST:PORT for C-STORE, or the URL of a DICOMweb service.", metavar="ARCHIVE"),
    ],
    model: Annotated[
        Path, typer.Option("-m", "--model", help="A model folder, a bundle, or an installed model.", metavar="MODEL")
    ],
    kinds: Annotated[
        list[str] | None,
        typer.Option("--dicom", help="Objects: seg, labelmap, rtstruct. [default: seg]", metavar="KIND..."),
    ] = None,
    modality: Annotated[
        str, typer.Option("--modality", help="Segment series of this modality alone.", metavar="NAME")
    ] = "",
    description: Annotated[
        str, typer.Option("--description", help="Segment series with such a description alone.", metavar="PATTERN")
    ] = "*",
    channels: Annotated[
        list[str] | None,
        typer.Option(
            "--channels", help="Descriptions of the series of a study, for each channel.", metavar="PATTERN..."
        ),
    ] = None,
    resample_tilt: ResampleTilt = False,
    title: Title = "AUTOSEG",
    host: Annotated[
        str, typer.Option("--host", help="Address to listen at; 0.0.0.0 opens it to others.", metavar="ADDRESS")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port to listen at.", metavar="NUMBER")] = 11112,
    callers: Annotated[
        list[str] | None,
        typer.Option("--only-from", help="AE titles that may call. [default: all]", metavar="TITLE..."),
    ] = None,
    settle_seconds: Annotated[
        float,
        typer.Option("--settle", min=0, help="Seconds without a further file that end a study.", metavar="SECONDS"),
    ] = 30.0,
    tls_certificate: Certificate = None,
    tls_key: Key = None,
    tls_authorities: Authorities = None,
    device: Device = "auto",
) -> None:
    """Receives studies by C-STORE, segments them, and stores the objects.

    Every study is one line. It stays on disk until its objects are stored, so the service may be stopped or killed at
    any time, and goes on when it is started again. Studies that cannot be segmented are put aside, in failed/ of the
    queue. Only this machine reaches the service unless --host says otherwise.
    """
    from autoseg.cli.terminal import Terminal
    from autoseg.pipeline import listen_dicom

    listen_dicom(
        queue,
        target,
        model=model,
        kinds=kinds or ("seg",),
        modality=modality,
        description=description,
        channels=channels or (),
        resample_tilt=resample_tilt,
        title=title,
        host=host,
        port=port,
        callers=callers or (),
        settle_seconds=settle_seconds,
        tls_certificate=tls_certificate,
        tls_key=tls_key,
        tls_authorities=tls_authorities,
        device=device,
        reporter=Terminal(),
    )
