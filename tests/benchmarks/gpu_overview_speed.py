"""Parts of gpu_overview.py: the ceilings of a device, training steps, and where their time goes."""

import statistics
import time
from collections.abc import Callable
from itertools import product

import torch
from gpu_overview_plans import (
    Choice,
    compiled_lightly,
    describe,
    emit,
    features_of,
    make_batch,
    make_run,
    make_state,
    plans,
)
from gpu_step import find_convolutions, time_convolution
from memory_cases import CASES, Case, allocated_bytes, peak_bytes
from torch import nn

from autoseg.planning.memory import CONTEXT_BYTES, training_bytes
from autoseg.runtime.device import (
    autocast,
    forget_peak,
    free_cached_memory,
    needs_scaling,
    precision,
    wait_for,
)
from autoseg.runtime.device import peak_bytes as peak_since_forgotten
from autoseg.runtime.reporting import SILENT
from autoseg.training.loop import train_step

ROUNDS = 3
TOP_KERNELS = 15


def measure_ceilings(choice: Choice) -> None:
    """Versions, and what the device can do at best: bytes per second, matrix products and convolutions."""
    device, side = choice.device, 128 if choice.tiny else 8192
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        cudnn = torch.backends.cudnn.version()
        memory = f"{properties.total_memory / 2**30:.0f} GiB"
        emit("versions", torch=torch.__version__, cuda=str(torch.version.cuda), cudnn=str(cudnn), memory=memory)
        torch.backends.cudnn.benchmark = True
    else:
        emit("versions", torch=torch.__version__)
    source = torch.ones((1 if choice.tiny else 2048) * 2**18, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    seconds = time_calls(lambda: target.copy_(source), device, 5 if choice.tiny else 20)
    emit("copy", gb_per_second=round(2 * source.nbytes / seconds / 1e9, 1))
    for name, dtype, tf32 in (
        ("bfloat16", torch.bfloat16, False),
        ("float16", torch.float16, False),
        ("tf32", torch.float32, True),
        ("float32", torch.float32, False),
    ):
        if device.type != "cuda" and name in ("float16", "tf32"):
            continue
        torch.backends.cuda.matmul.allow_tf32 = tf32
        left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        seconds = time_calls(lambda left=left, right=right: left @ right, device, 3 if choice.tiny else 10)
        emit(f"matrix product, {name}", tflops=round(2 * side**3 / seconds / 1e12, 2))
    torch.backends.cuda.matmul.allow_tf32 = False
    _measure_one_convolution(choice)


def _measure_one_convolution(choice: Choice) -> None:
    """The convolution that does most of the work of a 3D network, in both orders of memory."""
    device, edge, features = choice.device, 16 if choice.tiny else 64, 8 if choice.tiny else 64
    for order in (torch.contiguous_format, torch.channels_last_3d):
        module = nn.Conv3d(features, features, 3, padding=1, bias=False).to(device).to(memory_format=order)
        maps = torch.randn(2, features, edge, edge, edge, device=device, dtype=precision(device))
        maps = maps.to(memory_format=order).requires_grad_()

        def forward_and_backward(module: nn.Module = module, maps: torch.Tensor = maps) -> None:
            with autocast(device):
                out = module(maps)
            out.backward(torch.ones_like(out))

        seconds = time_calls(forward_and_backward, device, 2 if choice.tiny else 20)
        products = 3 * 2 * features**2 * 27 * edge**3
        name = "channels last" if order is torch.channels_last_3d else "channels first"
        emit(f"3D convolution, {features} features, {name}", tflops=round(2 * products / seconds / 1e12, 2))


def measure_steps(choice: Choice) -> None:
    """Milliseconds and peak of a step of each plan, uncompiled and compiled, beside the convolutions alone."""
    with compiled_lightly(tiny=choice.tiny):
        cases = plans(tiny=choice.tiny)
        for case, channels_last in product(cases, (True, False)):
            _measure_step(case, choice, channels_last=channels_last, compiled=False)
        for case in cases:
            _measure_convolutions(case, choice)
        for case in cases[:1] if choice.tiny else cases:
            _measure_step(case, choice, channels_last=True, compiled=True)


def _measure_step(case: Case, choice: Choice, *, channels_last: bool, compiled: bool) -> None:
    device = choice.device
    free_cached_memory(device)
    before = allocated_bytes(device)
    run = make_run(case, choice, cases=1, compile="on" if compiled else "off")
    state, batch = make_state(run, channels_last=channels_last), make_batch(case, device)
    started = time.perf_counter()
    train_step(state, batch, run, SILENT)
    wait_for(device)
    first = time.perf_counter() - started
    forget_peak(device)
    seconds = time_calls(lambda: train_step(state, batch, run, SILENT), device, 2 if choice.tiny else 10)
    peak = peak_since_forgotten(device)
    emit(
        case.name,
        size=describe(case),
        channels_last=channels_last,
        compiled=compiled,
        ms_per_step=round(1000 * seconds, 2),
        peak_gb=None if peak is None else round((peak - before) / 1e9, 2),
        first_step_seconds=round(first, 1),
    )


def _measure_convolutions(case: Case, choice: Choice) -> None:
    found = find_convolutions(case.architecture(features_of(tiny=choice.tiny)), case.patch_size)
    seconds = sum(time_convolution(convolution, choice.device, case.batch_size) for convolution in found)
    products = 3 * case.batch_size * sum(convolution.products for convolution in found)
    emit(
        case.name,
        size=describe(case),
        convolutions_alone_ms=round(1000 * seconds, 2),
        tflops=round(2 * products / seconds / 1e12, 2),
    )


def profile_steps(choice: Choice) -> None:
    """The kernels that take most of the time of three steps of the plain network."""
    from torch.profiler import ProfilerActivity, profile

    device, case = choice.device, plans(tiny=choice.tiny)[1]
    run = make_run(case, choice, cases=1)
    state, batch = make_state(run), make_batch(case, device)
    for _ in range(3):
        train_step(state, batch, run, SILENT)
    wait_for(device)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities) as recorded:
        started = time.perf_counter()
        for _ in range(3):
            train_step(state, batch, run, SILENT)
        wait_for(device)
        wall = time.perf_counter() - started
    field = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    rows = [event for event in recorded.key_averages() if device.type == "cpu" or _runs_on_gpu(event)]
    busy = sum(getattr(event, field) for event in rows)
    emit("three steps", ms_per_step=round(1000 * wall / 3, 2), busy_share=round(busy / 1e6 / wall, 3))
    for event in sorted(rows, key=lambda event: getattr(event, field), reverse=True)[:TOP_KERNELS]:
        share = getattr(event, field) / max(busy, 1e-9)
        emit(
            event.key[:90], ms_per_step=round(getattr(event, field) / 3000, 3), share=round(share, 3), calls=event.count
        )


def _runs_on_gpu(event: object) -> bool:
    """Returns whether a row of the profile is a kernel or a copy of the GPU, not the call that started it."""
    return "CUDA" in str(getattr(event, "device_type", ""))


def measure_memory(choice: Choice) -> None:
    """The peak of each network beside the estimate of planning."""
    for case in CASES[:2] if choice.tiny else CASES:
        if choice.tiny:
            peak_bytes(case, choice.device, features=2, patch_size=case.small_patch, steps=2)
            emit(case.name, estimated_mb=None, measured_mb=None, note="a CPU tells no peak; the steps were done")
            continue
        estimate = training_bytes(case.architecture(), case.patch_size, case.batch_size) - CONTEXT_BYTES
        measured = peak_bytes(case, choice.device)
        emit(
            case.name,
            size=describe(case),
            estimated_mb=round(estimate / 1e6),
            measured_mb=round(measured / 1e6),
            measured_by_estimated=round(measured / estimate, 3),
        )


def measure_nnunet_step(choice: Choice) -> None:
    """nnU-Net's network, loss and optimizer take a step with the batch of the plain plan, if they are installed."""
    try:
        from dynamic_network_architectures.architectures.unet import PlainConvUNet
    except ImportError:
        emit("nnU-Net's network", note="not measured: dynamic_network_architectures is not installed")
        return
    device, case = choice.device, plans(tiny=choice.tiny)[1]
    stages = case.architecture(features_of(tiny=choice.tiny)).stages
    network = PlainConvUNet(
        case.channels,
        len(stages),
        [stage.features for stage in stages],
        nn.Conv3d,
        [stage.kernel for stage in stages],
        [stage.stride for stage in stages],
        [stage.convolutions for stage in stages],
        case.classes,
        [stage.convolutions for stage in stages[:-1]],
        conv_bias=True,
        norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
    ).to(device)
    optimizer = torch.optim.SGD(network.parameters(), 1e-2, momentum=0.99, nesterov=True, weight_decay=3e-5)
    scaler = torch.amp.GradScaler(device.type, enabled=device.type == "cuda" or needs_scaling(device))
    batch, loss = make_batch(case, device), make_run(case, choice, cases=1).loss
    forward = torch.compile(network) if device.type == "cuda" else network

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.float16 if device.type == "cuda" else torch.bfloat16):
            outputs = forward(batch.images)
        scaler.scale(loss(outputs, batch.labels, None)).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(network.parameters(), 12)
        scaler.step(optimizer)
        scaler.update()

    torch.backends.cudnn.benchmark = True
    step()
    seconds = time_calls(step, device, 2 if choice.tiny else 10)
    emit("nnU-Net's network, autoseg's loss", size=describe(case), ms_per_step=round(1000 * seconds, 2))


def time_calls(work: Callable[[], object], device: torch.device, calls: int) -> float:
    """Returns the seconds of a call, the median of some rounds of calls that follow each other without waiting."""
    for _ in range(min(3, calls)):
        work()
    rounds = []
    for _ in range(ROUNDS):
        wait_for(device)
        started = time.perf_counter()
        for _ in range(calls):
            work()
        wait_for(device)
        rounds.append((time.perf_counter() - started) / calls)
    return statistics.median(rounds)
