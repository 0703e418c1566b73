"""The command that serves a model."""

from pathlib import Path
from typing import Annotated

import typer

from autoseg.cli.options import Device, Mirroring, Quality, Runtime


def serve(
    model: Annotated[
        Path, typer.Argument(help="A model folder, a bundle, model.zip; or an installed model.", metavar="MODEL")
    ],
    host: Annotated[
        str,
        typer.Option(
            "--host", help="Address to listen at; any but this machine's own needs a token.", metavar="ADDRESS"
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port to listen at; 0 takes a free one.", metavar="NUMBER")
    ] = 8000,
    token: Annotated[
        str | None,
        typer.Option("--token", help="Token that requests must have; others may see it in 'ps'.", metavar="TEXT"),
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", help="File that holds the token.", metavar="FILE")
    ] = None,
    queue: Annotated[
        int, typer.Option("--queue", min=0, help="Scans that may wait; further ones are refused.", metavar="NUMBER")
    ] = 8,
    upload_limit: Annotated[
        str, typer.Option("--upload-limit", help="Largest upload, such as 500MB.", metavar="AMOUNT")
    ] = "1GiB",
    voxels: Annotated[
        int,
        typer.Option(
            "--voxels",
            min=1,
            help="Most voxels of a scan, with all channels, stored or at the spacing of the model.",
            metavar="NUMBER",
        ),
    ] = 2**28,
    quality: Quality = "best",
    mirroring: Mirroring = None,
    runtime: Runtime = "auto",
    device: Device = "auto",
) -> None:
    """Serves a model to browsers and programs: a scan is sent, and its mask, volumes and remarks come back.

    Open the address that is printed, or send a scan by a program; see 'autoseg guide serving'. The model is loaded
    once, and scans are segmented one after the other. Only this machine reaches the server unless --host says
    otherwise, which needs a token. Names of scans are neither kept nor printed. Ctrl-C and SIGTERM end the server.
    """
    from autoseg.cli.terminal import Terminal
    from autoseg.pipeline import serve
    from autoseg.runtime.units import parse_memory

    serve(
        model,
        host=host,
        port=port,
        token=token,
        token_file=token_file,
        most_waiting=queue,
        upload_bytes=parse_memory(upload_limit),
        voxels=voxels,
        quality=quality,
        mirroring=mirroring,
        runtime=runtime,
        device=device,
        reporter=Terminal(),
    )
