"""Times one kind of work, alone and beside busy programs; the program that `busy_machine.py` starts.

    PYTHON tests/benchmarks/measure_busy_machine.py training|prediction|preprocessing SECONDS [--patch 40 56 40]

"training" takes steps of the small preset, whose patches a thread of the loader augments meanwhile; "prediction"
predicts a volume of eight patches by a sliding window; "preprocessing" resamples four images in threads. The package
chooses the number of threads. A busy program calculates without an end on one thread. Prints the mean seconds of a
step, of a volume, or of four images, alone and beside as many busy programs as there are cores, as JSON.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from smooth_scans import make_field, make_labels

from autoseg.dataloading.loader import Batches
from autoseg.dataloading.sampling import InMemoryCase
from autoseg.dataloading.threads import count_loader_threads
from autoseg.imaging.targets import Targets
from autoseg.inference.network_predictor import NetworkPredictor, count_at_once
from autoseg.inference.sliding_window import predict_volume
from autoseg.models.build import make_network
from autoseg.networks.architecture import Axes
from autoseg.planning.channel_settings import Normalization
from autoseg.planning.plan import Configuration
from autoseg.planning.presets import PRESETS
from autoseg.planning.topology import design_network
from autoseg.preprocessing.foreground import sample_foreground
from autoseg.preprocessing.resampling import resample_image
from autoseg.runtime.device import resolve_device
from autoseg.runtime.machine import count_cores
from autoseg.runtime.reporting import SILENT
from autoseg.runtime.thread_map import map_in_threads
from autoseg.training.loop import train_step
from autoseg.training.losses import Loss
from autoseg.training.state import Run, start_training

CPU = resolve_device("cpu")
STRIDES = ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))
LABELS, CASES = 2, 4
WARM_UP = 2  # Calls that are not timed


def main() -> None:
    """Repeats the work for some seconds alone, and for as many beside the busy programs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", choices=WORKS)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--patch", type=int, nargs=3, default=(40, 56, 40), metavar=("Z", "Y", "X"))
    arguments = parser.parse_args()
    work = WORKS[arguments.work](tuple(arguments.patch))
    for _ in range(WARM_UP):
        work()
    alone = time_calls(work, arguments.seconds)
    with busy_programs(count_cores()):
        beside = time_calls(work, arguments.seconds)
    print(json.dumps({"alone": alone, "beside": beside}))


def time_calls(work: Callable[[], object], least_seconds: float) -> float:
    """Returns the mean seconds of a call, over calls that take some seconds together."""
    calls, started = 0, time.perf_counter()
    while (seconds := time.perf_counter() - started) < least_seconds or not calls:
        work()
        calls += 1
    return seconds / calls


@contextmanager
def busy_programs(number: int) -> Iterator[None]:
    """Runs so many programs, each of which keeps a core busy, until the end of the context."""
    programs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        time.sleep(0.5)  # Python starts
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def make_configuration(patch: Axes) -> Configuration:
    """Returns a configuration of the small preset: its network for three classes, two patches in a step."""
    return Configuration(
        spacing_mm=(1.0, 1.0, 1.0),
        patch_size=patch,
        batch_size=2,
        median_shape=patch,
        normalization=(Normalization(scheme="zscore"),),
        batch_dice=False,
        architecture=design_network(
            STRIDES, ((3, 3, 3),) * len(STRIDES), PRESETS["small"], in_channels=1, out_channels=LABELS + 1
        ),
        estimated_bytes=10**9,
    )


def prepare_training(patch: Axes) -> Callable[[], object]:
    """Returns a function that takes the next training step."""
    configuration = make_configuration(patch)
    settings = PRESETS["small"].training
    batches = Batches(
        cases=[make_case(patch, seed) for seed in range(CASES)],
        configuration=configuration,
        foreground_fraction=settings.foreground_fraction,
        seed=(0,),
        augmented=True,
    )
    targets = Targets.of_labels({str(label): label for label in range(1, LABELS + 1)})
    run = Run(
        settings=settings,
        training=batches,
        validation=batches,
        loss=Loss(targets=targets, settings=settings.loss, batch_dice=False),
        device=CPU,
        workers=count_loader_threads(CPU),
    )
    state = start_training(make_network(configuration, seed=0), settings, CPU, scaled=False)
    supply = batches.ahead(range(10**6), workers=run.workers)
    return lambda: float(train_step(state, next(supply), run, SILENT))


def make_case(patch: Axes, seed: int) -> InMemoryCase:
    """Makes a case that is a little larger than a patch."""
    shape = tuple(size + 4 for size in patch)
    label = make_labels(shape, LABELS, seed)
    image = make_field(shape, np.random.default_rng(seed)) + label
    return InMemoryCase(image=image[np.newaxis], label=label, foreground=sample_foreground(label, [(1,), (2,)]))


def prepare_prediction(patch: Axes) -> Callable[[], object]:
    """Returns a function that predicts a volume of two patches along each axis, which overlap."""
    configuration = make_configuration(patch)
    image = make_field(tuple(3 * size // 2 for size in patch), np.random.default_rng(0))[np.newaxis]
    predictor = NetworkPredictor(network=make_network(configuration, seed=0), device=CPU)
    size = count_at_once(patch, configuration.batch_size, CPU)
    return lambda: predict_volume(image, predictor, patch_size=patch, batch_size=size, device=CPU)


def prepare_preprocessing(patch: Axes) -> Callable[[], object]:
    """Returns a function that resamples four images, of four patches along each axis, to 1.2 times their voxels."""
    old, new = (tuple(factor * size // 5 for size in patch) for factor in (20, 24))
    images = [make_field(old, np.random.default_rng(seed))[np.newaxis] for seed in range(CASES)]

    def resample(image: np.ndarray) -> None:
        resample_image(image, (1.2, 1.2, 1.2), new, (1.0, 1.0, 1.0))

    return lambda: map_in_threads(resample, images, title="", reporter=SILENT)


WORKS = {
    "training": prepare_training,
    "prediction": prepare_prediction,
    "preprocessing": prepare_preprocessing,
}

if __name__ == "__main__":
    main()
