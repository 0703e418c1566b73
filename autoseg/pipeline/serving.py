"""Serving: a model answers whoever sends it a scan, from a browser or a program."""

import os
from importlib.util import find_spec

from autoseg.errors import UsageError
from autoseg.runtime.paths import as_path
from autoseg.runtime.reporting import SILENT, Reporter

PACKAGES = ("fastapi", "uvicorn", "python_multipart")


def serve(
    model: str | os.PathLike[str],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    token_file: str | os.PathLike[str] | None = None,
    most_waiting: int = 8,
    upload_bytes: int = 2**30,
    voxels: int = 2**28,
    quality: str = "best",
    mirroring: bool | None = None,
    runtime: str = "auto",
    device: str = "auto",
    reporter: Reporter = SILENT,
) -> None:
    """Serves a model until Ctrl-C or SIGTERM: a scan is sent, and its mask, volumes and remarks come back.

    The model is loaded once. Scans are segmented one after the other; a few may wait, further ones are refused with
    status 503. A scan that cannot be segmented is refused with the line that `predict` has for it. The page on
    [serving](serving.md) of the guide lists the addresses.

    Args:
        model: A model folder, a folder of several that holds best.json, a bundle, or the name of an installed model.
        host: Address to listen at; by default other machines cannot reach it. Any other needs a token.
        port: Port to listen at; 0 takes a free one.
        token: Token that requests must have, as "Authorization: Bearer TOKEN".
        token_file: A file that holds the token, which other users of the machine then do not see.
        most_waiting: Number of scans that wait, or are being sent, while another one is segmented.
        upload_bytes: Largest upload.
        voxels: Most voxels of a scan, with all channels, as it is stored and at the spacing of the model.
        quality: "fast", "balanced" or "best", as for `predict`.
        mirroring: Whether to average over all mirror images or none, as for `predict`.
        runtime: What calculates the networks, as for `predict`.
        device: "auto", "cpu", "cuda" or "mps".
        reporter: Is given the address, and a line for each scan.

    Raises:
        UsageError: An option has a value that cannot be, the port is taken, another address is chosen without a token,
            or a package is not installed.
        ModelError: The model is missing or damaged.

    Example:
        ::

            autoseg.serve("Hippocampus.zip", reporter=Terminal())
    """
    if any(find_spec(package) is None for package in PACKAGES):
        raise UsageError("the server needs FastAPI, uvicorn and python-multipart", "pip install 'autoseg[server]'")
    from autoseg.imaging.label_files import check_mask_names
    from autoseg.inference.loading import PredictionOptions, load_segmenter
    from autoseg.models.model_source import choose_source, find_model
    from autoseg.serving.access import choose_token, join_address
    from autoseg.serving.limits import Limits
    from autoseg.serving.segmentation import UploadSegmenter
    from autoseg.serving.server import open_socket, serve_model

    for name, number, least in (("queue", most_waiting, 0), ("upload-limit", upload_bytes, 1), ("voxels", voxels, 1)):
        if number < least:
            raise UsageError(f"--{name} cannot be {number}", f"give {least} or more")
    chosen_token = choose_token(host, token, None if token_file is None else as_path(token_file, "token_file"))
    path = find_model(
        choose_source(model, None, None, None), None, with_best_model=True, default="3d_fullres", workspace=None
    )
    options = PredictionOptions(device=device, quality=quality, mirroring=mirroring, runtime=runtime)
    segmenter = load_segmenter(path, options, say=reporter.say, warn=reporter.say)
    check_mask_names(segmenter.info.targets)
    limits = Limits(upload_bytes=upload_bytes, voxels=voxels, waiting=most_waiting)
    with open_socket(host, port) as listening:
        address = join_address(host, listening.getsockname()[1])
        reporter.say(f"{segmenter.dataset} is served at http://{address}/ until Ctrl-C")
        served = UploadSegmenter(segmenter=segmenter, limits=limits)
        serve_model(served, listening, host, chosen_token, reporter.say)
