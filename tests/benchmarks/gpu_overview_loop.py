"""Parts of gpu_overview.py: the loop with its loader, tiles, the tests for GPUs, and two minutes of training."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch
from gpu_overview_plans import (
    HIPPOCAMPUS,
    Choice,
    compiled_lightly,
    describe,
    emit,
    features_of,
    make_run,
    make_state,
    plans,
    voxels_of,
)
from memory_cases import Case

from autoseg.dataloading.threads import count_loader_threads
from autoseg.inference.network_predictor import NetworkPredictor
from autoseg.inference.sliding_window import predict_volume
from autoseg.inference.tiling import tile_image
from autoseg.networks.default_unet import build_network
from autoseg.runtime.device import forget_peak, peak_bytes, wait_for
from autoseg.runtime.machine import count_cores
from autoseg.runtime.reporting import SILENT
from autoseg.runtime.tensor_copies import TensorCopies
from autoseg.training.loop import train_fold, train_step
from autoseg.training.state import Run, TrainState, pack_state

CHECKOUT = Path(__file__).parents[2]
FEW_CORES = 4
WARM_UP = 4
STEPS = {"hippocampus": 60, "plain": 25}
CLASSES = (3, 25)
REAL_SECONDS, TINY_SECONDS = 120, 2
GPU_MARK = "mark.gpu"


def measure_loop(choice: Choice) -> None:
    """Training steps with their loader: batches that the device or the CPU augments, with all cores and with four."""
    cores = sorted(os.sched_getaffinity(0))
    few = cores[: min(FEW_CORES, max(1, len(cores) // 2))]
    with compiled_lightly(tiny=choice.tiny):
        for case in plans(tiny=choice.tiny)[:2]:
            run = make_run(case, choice, compile="on")
            state = make_state(run)
            for chosen in (cores, few):
                os.sched_setaffinity(0, chosen)  # the loader's threads inherit it
                try:
                    for on_device in (True, False):
                        _measure_loop(case, choice, run, state, on_device=on_device)
                finally:
                    os.sched_setaffinity(0, cores)
            _measure_copy(case, state)


def _measure_loop(case: Case, choice: Choice, run: Run, state: TrainState, *, on_device: bool) -> None:
    device = choice.device
    batches = replace(run.training, augmentation_device=device if on_device else None)
    steps, warm_up = (2, 1) if choice.tiny else (STEPS[case.name], WARM_UP)
    workers, waited, started = count_loader_threads(device), 0.0, 0.0
    with closing(batches.ahead(range(warm_up + steps), workers=workers, device=device)) as supply:
        for number in range(warm_up + steps):
            if number == warm_up:
                wait_for(device)
                started, waited = time.perf_counter(), 0.0
            asked = time.perf_counter()
            batch = next(supply)
            waited += time.perf_counter() - asked
            train_step(state, batch, run, SILENT)
        wait_for(device)
        seconds = time.perf_counter() - started
    emit(
        case.name,
        size=describe(case),
        cores=count_cores(),
        augmented_on="device" if on_device else "cpu",
        ms_per_step=round(1000 * seconds / steps, 2),
        ms_until_batch=round(1000 * waited / steps, 2),
        voxels=voxels_of(case),
    )


def _measure_copy(case: Case, state: TrainState) -> None:
    """Measures how long the end of an epoch holds the loop, while the state is copied for a checkpoint."""
    copies, device = TensorCopies(), next(state.network.parameters()).device
    for _ in range(2):  # pinned memory is taken in the first round
        wait_for(device)
        started = time.perf_counter()
        copied = copies.take((state.weights, pack_state(state)))
        seconds = time.perf_counter() - started
    momentum = copied[1]["optimizer"]["state"].values()
    tensors = [*copied[0].values(), *(value for kept in momentum for value in kept.values() if torch.is_tensor(value))]
    megabytes = sum(tensor.nbytes for tensor in tensors) / 1e6
    emit(f"{case.name}, state copied for a checkpoint", megabytes=round(megabytes), seconds=round(seconds, 4))


def measure_tiles(choice: Choice) -> None:
    """Tiles per second of the sliding window with few and with many classes, without mirroring."""
    case, device = plans(tiny=choice.tiny)[1], choice.device
    shape = tuple(2 * size for size in case.patch_size)
    image = torch.randn(case.channels, *shape, generator=torch.Generator().manual_seed(0))
    tiles = len(tile_image(image, case.patch_size).tiles)
    for classes in CLASSES:
        architecture = replace(case, classes=classes).architecture(features_of(tiny=choice.tiny))
        network = build_network(architecture, torch.Generator().manual_seed(0)).to(device).eval()
        predictor = NetworkPredictor(network, device)
        seconds = []
        for _ in range(1 if choice.tiny else 3):  # cuDNN tries its kernels in the first round
            wait_for(device)
            forget_peak(device)
            started = time.perf_counter()
            predict_volume(image, predictor, patch_size=case.patch_size, batch_size=1, device=device)
            wait_for(device)
            seconds.append(time.perf_counter() - started)
        peak = peak_bytes(device)
        emit(
            f"{classes} classes",
            tile=" x ".join(map(str, case.patch_size)),
            tiles=tiles,
            tiles_per_second=round(tiles / min(seconds), 2),
            peak_gb=None if peak is None else round(peak / 1e9, 2),
        )


def run_gpu_tests(choice: Choice) -> None:
    """The tests that need a GPU; they need no SimpleITK, and are skipped where there is no GPU."""
    if importlib.util.find_spec("pytest") is None or importlib.util.find_spec("pytest_timeout") is None:
        emit("pytest -m gpu", note="not run: pytest and pytest-timeout are not both installed")
        return
    files = [path for path in (CHECKOUT / "tests").glob("*/**/test_*.py") if GPU_MARK in path.read_text("utf-8")]
    files = [path for path in files if "benchmarks" not in path.parts]
    if importlib.util.find_spec("hypothesis") is None:
        emit("pytest -m gpu", note="not run: hypothesis is not installed")
        return
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "-rfE", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=CHECKOUT)
    lines = done.stdout.strip().splitlines()
    for line in lines:
        if line.startswith(("FAILED", "ERROR")):
            emit(line[:300])
    emit("pytest -m gpu", result=(lines or done.stderr.splitlines() or ["no output"])[-1])


def train_for_a_while(choice: Choice) -> None:
    """Two minutes of training: of real hippocampus if its prepared workspace is named, else of made-up cases."""
    seconds = TINY_SECONDS if choice.tiny else REAL_SECONDS
    if choice.hippocampus is not None:
        _train_workspace(Path(choice.hippocampus), choice, seconds)
        return
    case = plans(tiny=choice.tiny)[0]
    run = make_run(case, choice, cases=20, budget_seconds=seconds, steps_per_epoch=50, validation_steps=5)
    state = make_state(run)
    with compiled_lightly(tiny=choice.tiny):
        train_fold(state, run, SILENT, lambda _: None)
    last = state.reports[-1]
    emit(
        f"{HIPPOCAMPUS.name}, made up",
        seconds=round(state.elapsed_seconds, 1),
        steps=state.step,
        pseudo_dice=round(last.mean_pseudo_dice, 4),
        waiting_share=round(last.waiting_share, 3),
    )


def _train_workspace(source: Path, choice: Choice, seconds: int) -> None:
    if importlib.util.find_spec("blosc2") is None:
        emit("hippocampus", note="not measured: blosc2, which reads prepared cases, is not installed")
        return
    from autoseg.training.duration import LengthRequest
    from autoseg.training.fold import hold_fold, train_to_end
    from autoseg.training.jobs import TrainingRequest, make_jobs
    from autoseg.workspace import Workspace

    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(source, Path(folder) / "workspace")
        workspace = Workspace(root=Path(folder) / "workspace")
        [planned] = list(workspace.root.glob("*/Dataset*/plan.json"))[:1]
        number = int(planned.parent.name[7:10])
        request = TrainingRequest(
            number=number,
            folders=workspace.dataset(number),
            configuration="3d_fullres",
            folds=(0,),
            length=LengthRequest(budget=f"{seconds}s", restart=True),
            device=str(choice.device),
        )
        [job] = make_jobs(request)
        with hold_fold(job, SILENT) as stop:
            checkpoint = train_to_end(job, stop, SILENT)
    last = checkpoint.training["reports"][-1]
    dice = list(last["pseudo_dice"].values())
    emit(
        planned.parent.name,
        seconds=round(last["elapsed_seconds"], 1),
        steps=checkpoint.training["step"],
        pseudo_dice=round(sum(dice) / len(dice), 4),
        waiting_share=round(last["waiting_share"], 3),
    )
