"""A model that is served on this machine, for tests: by uvicorn, in a thread of the test's own process."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import numpy as np
import torch
import uvicorn
from small_models import small_checkpoint

from autoseg.imaging.geometry import Geometry, Volume
from autoseg.imaging.image_files import write_image
from autoseg.inference.loading import PredictionOptions, load_segmenter
from autoseg.models.build import make_network
from autoseg.models.checkpoint import save_checkpoint
from autoseg.serving.access import Access
from autoseg.serving.app import make_app
from autoseg.serving.jobs import JobQueue
from autoseg.serving.limits import Limits
from autoseg.serving.segmentation import UploadSegmenter
from autoseg.serving.server import open_socket
from autoseg.workspace import ModelFolder

SHAPE = (12, 16, 14)


def write_small_model(folder: Path, channels: int = 1) -> Path:
    """Writes an untrained model of one fold, which finds both of its labels in noise, and returns its folder."""
    checkpoint = small_checkpoint()
    plan = checkpoint.plan
    configuration = plan.configurations["3d_fullres"]
    configuration = configuration.model_copy(
        update={
            "architecture": configuration.architecture.model_copy(update={"in_channels": channels}),
            "normalization": configuration.normalization * channels,
        }
    )
    weights = make_network(configuration, seed=0).state_dict()
    head = weights["heads.0.weight"]
    head[0], head[2] = 0, -head[1]
    weights["heads.0.bias"].copy_(
        torch.tensor([0.0, -0.93, 0.93])
    )  # minus the mean of the first label's logit, and plus
    names = {str(number): f"MR {number}" for number in range(channels)}
    fold = replace(
        checkpoint,
        plan=plan.model_copy(update={"configurations": {"3d_fullres": configuration}}),
        info=checkpoint.info.model_copy(update={"channel_names": names}),
        weights=weights,
    )
    save_checkpoint(fold, ModelFolder(path=folder).checkpoint(0))
    return folder


def write_noise(path: Path, *, shape=SHAPE, spacing_mm=(1.0, 1.0, 1.0), seed: int = 0) -> Path:
    """Writes a scan of noise, and returns its path."""
    array = np.random.default_rng(seed).normal(0, 1, (1, *shape)).astype(np.float32)
    write_image(path, Volume(array=array, geometry=Geometry(shape=shape, spacing_mm=spacing_mm)))
    return path


def load_small(folder: Path, limits: Limits = Limits()) -> UploadSegmenter:  # noqa: B008 - it cannot change
    """Loads the model of a folder for a server."""
    return UploadSegmenter(segmenter=load_segmenter(folder, PredictionOptions(device="cpu")), limits=limits)


@contextmanager
def served(segmenter: UploadSegmenter, *, token: str | None = None) -> Iterator[tuple[httpx.Client, Path, list[str]]]:
    """Serves a model; gives a client, the server's folder of temporary files, and the lines of its log."""
    lines: list[str] = []
    with TemporaryDirectory() as name, open_socket("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        queue = JobQueue(Path(name), segmenter.limits)
        access = Access(token=token, host="127.0.0.1", port=port)
        app = make_app(segmenter, queue, access, Path(name), lines.append)
        server = uvicorn.Server(
            uvicorn.Config(
                app, log_config=None, access_log=False, lifespan="off", ws="none", timeout_graceful_shutdown=5
            )
        )
        thread = threading.Thread(target=lambda: server.run(sockets=[listening]))
        thread.start()
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
                wait_until(lambda: server.started)
                yield client, Path(name), lines
        finally:
            queue.stop()
            server.should_exit = True
            thread.join(20)
            queue.close()


def wait_until(holds, seconds: float = 30.0) -> None:
    """Waits until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)
