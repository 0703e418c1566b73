"""Times training steps of one program; the program that `training_step.py` starts.

    PYTHON tests/benchmarks/measure_training_step.py autoseg|nnunet FOLDER STEPS

FOLDER holds network.json (features, kernels, strides, classes) and batch.npz (images, labels). nnU-Net's run leaves its
initial weights there as weights.npz, and autoseg's begins with them if they are there, so that both must have the same
first loss. Prints the seconds and losses of all steps as JSON.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

THREADS = 2


def main() -> None:
    """Runs the steps on the CPU."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", choices=("autoseg", "nnunet"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("steps", type=int)
    arguments = parser.parse_args()
    folder = arguments.folder
    torch.set_num_threads(THREADS)
    network = json.loads((folder / "network.json").read_text())
    batch = np.load(folder / "batch.npz")
    images, labels = torch.from_numpy(batch["images"]), torch.from_numpy(batch["labels"])
    make_step = {"autoseg": make_our_step, "nnunet": make_their_step}[arguments.program]
    step = make_step(network, images, labels, folder)
    seconds, losses = [], []
    for _ in range(arguments.steps):
        started = time.perf_counter()
        losses.append(step())
        seconds.append(time.perf_counter() - started)
    print(json.dumps({"seconds": seconds, "losses": losses}))


def make_our_step(network: dict, images: torch.Tensor, labels: torch.Tensor, folder: Path):
    """Returns autoseg's training step: forward, loss, backward, clipping, optimizer; in the precision of the CPU."""
    from single_batch_run import make_single_batch_run

    from autoseg.dataloading.batch import Batch
    from autoseg.imaging.targets import Targets
    from autoseg.networks.architecture import Architecture, Stage
    from autoseg.networks.default_unet import build_network
    from autoseg.planning.loss_settings import LossSettings
    from autoseg.planning.settings import TrainingSettings
    from autoseg.runtime.reporting import SILENT
    from autoseg.training.loop import train_step
    from autoseg.training.losses import Loss
    from autoseg.training.state import start_training

    stages = zip(network["features"], network["kernels"], network["strides"], strict=True)
    architecture = Architecture(
        residual="none",
        in_channels=images.shape[1],
        out_channels=network["classes"],
        stages=tuple(Stage(features=f, kernel=tuple(k), stride=tuple(s), convolutions=2) for f, k, s in stages),
    )
    settings = TrainingSettings()
    state = start_training(build_network(architecture), settings, torch.device("cpu"), scaled=False)
    if (folder / "weights.npz").is_file():
        weights = np.load(folder / "weights.npz")
        state.network.load_state_dict({name: torch.from_numpy(weights[name]) for name in weights.files})
    targets = Targets.of_labels({str(label): label for label in range(1, network["classes"])})
    run = make_single_batch_run(
        architecture,
        Loss(targets=targets, settings=LossSettings(), batch_dice=False),
        patch=tuple(images.shape[2:]),
        batch_size=len(images),
        device=torch.device("cpu"),
        settings=settings,
    )
    batch = Batch(images=images, labels=labels)
    return lambda: float(train_step(state, batch, run, SILENT))


def make_their_step(network: dict, images: torch.Tensor, labels: torch.Tensor, folder: Path):
    """Returns the step of nnU-Net's trainer on a CPU: its network, loss and optimizer, in float32."""
    from dynamic_network_architectures.architectures.unet import PlainConvUNet
    from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
    from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
    from nnunetv2.utilities.network_initialization import InitWeights_He

    stages = len(network["features"])
    torch.manual_seed(0)
    model = PlainConvUNet(
        images.shape[1], stages, network["features"], torch.nn.Conv3d, network["kernels"], network["strides"],
        [2] * stages, network["classes"], [2] * (stages - 1), conv_bias=True, norm_op=torch.nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True}, nonlin=torch.nn.LeakyReLU, nonlin_kwargs={"inplace": True},
        deep_supervision=True,
    )  # fmt: skip
    model.apply(InitWeights_He(1e-2))
    np.savez(folder / "weights.npz", **rename(model.state_dict(), stages))
    dice = {"batch_dice": False, "smooth": 1e-5, "do_bg": False, "ddp": False}
    loss = DC_and_CE_loss(dice, {}, weight_ce=1, weight_dice=1, dice_class=MemoryEfficientSoftDiceLoss)
    weights = np.array([1 / 2**level for level in range(stages - 1)])
    weights[-1] = 0
    loss = DeepSupervisionWrapper(loss, weights / weights.sum())
    optimizer = torch.optim.SGD(model.parameters(), 1e-2, weight_decay=3e-5, momentum=0.99, nesterov=True)
    target = labels.unsqueeze(1).float()
    sizes = [output.shape[2:] for output in model(images)]
    targets = [torch.nn.functional.interpolate(target, size=size, mode="nearest-exact") for size in sizes]

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        value = loss(model(images), targets)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 12)
        optimizer.step()
        return float(value.detach())

    return step


def rename(weights: dict[str, torch.Tensor], stages: int) -> dict[str, np.ndarray]:
    """Returns nnU-Net's weights under autoseg's names; nnU-Net counts its decoder from the coarsest level."""
    renamed = {}
    for name, value in weights.items():
        parts = name.split(".")
        if "all_modules" in name or name.startswith("decoder.encoder"):
            continue  # the same tensors once more
        if parts[0] == "encoder":
            new = f"encoder.{parts[2]}.blocks.{'.'.join(parts[5:])}"
        else:
            level = stages - 2 - int(parts[2])
            kind = {"stages": "decoder", "transpconvs": "upsampling", "seg_layers": "heads"}[parts[1]]
            new = f"{kind}.{level}." + (f"blocks.{'.'.join(parts[4:])}" if kind == "decoder" else parts[3])
        renamed[new] = value.detach().numpy().copy()
    return renamed


if __name__ == "__main__":
    main()
