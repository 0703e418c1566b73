"""Made networks.zip in this folder, at commit 7b480b6: a trained fold for each network of the literature, and its mask.

    OMP_NUM_THREADS=1 PYTHONPATH=.:tests:tests/networks:tests/golden/version_1 \
        python tests/golden/version_1/make_networks.py

The weights were not learned: each tensor repeats a few random numbers, so that the archive is small. What matters
is that they find their places in the network. It is kept to show how they were made. It uses modules as they were named
at that commit, and need not run later.
"""

import json
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from autoseg.architecture import Architecture
from autoseg.checkpoint import Checkpoint, save_checkpoint
from autoseg.decisions import plan_configurations
from autoseg.imageio import read_label_map
from autoseg.info import DatasetInfo
from autoseg.network.making import make_network
from autoseg.networks.table import NETWORKS
from autoseg.plan import Plan
from make import HERE, network, pack, run
from narrow import narrow
from small_models import small_configuration, small_plan
from tiny_workspaces import NUMBER, folders_of

PERIOD = 61
"""A prime number, so that no two channels are alike."""

LEAST_SHARE = 0.2
"""Of a mask, for all labels but the most frequent one."""

LABELS = {
    "regions": {"labels": {"background": 0, "whole": [1, 2], "core": 2}, "regions_class_order": [1, 2]},
    "structures": {"labels": {"background": 0, "lung": [1, 2], "nodule": [2], "left vessel": [3]}, "masks": True},
}

SMALLER = {
    "vnet": {"convolutions": [1, 1, 1], "decoder_convolutions": [1, 1]},
    "resnet_unet": {"layers": 50},
    "unet": {"depth": 3},
    "unet_3d": {"depth": 3},
    "attention_unet": {"depth": 3},
}
MONAI = ("monai:BasicUNet:features=[8,8,16,16,32,8]", "monai:SegResNet:blocks_down=[1,1],blocks_up=[1]")


def fill(untrained: torch.nn.Module, seed: int) -> dict[str, torch.Tensor]:
    """Weights with the variance that keeps that of feature maps; biases and norms stay as they begin."""
    values = torch.randn(PERIOD, generator=torch.Generator().manual_seed(seed))
    weights = {}
    for name, tensor in untrained.state_dict().items():
        weights[name] = tensor
        if tensor.dim() > 1 and tensor.is_floating_point():
            repeated = values.repeat(tensor.numel() // PERIOD + 1)[: tensor.numel()].reshape(tensor.shape)
            weights[name] = repeated * (2 / tensor[0].numel()) ** 0.5
    return weights


def plan_for(root: Path, wanted: str) -> Plan:
    """Plans for a network, in a narrow form."""
    plan_configurations(NUMBER, preset="small", network=wanted, workspace=root)
    path = folders_of(root).plan
    if wanted in NETWORKS:
        content = json.loads(path.read_text())
        for one in content["configurations"].values():
            known = one["network"]["settings"]
            small = narrow(wanted, features=8, **SMALLER.get(wanted, {}))
            known |= {key: value for key, value in small.items() if key in known and key != "patch"}
        path.write_text(json.dumps(content))
    return Plan.load(path)


def make_network_model(root: Path, folder: Path, wanted: str) -> None:
    """Makes the model of a network that a plan names."""
    name = wanted.removeprefix("monai:").split(":")[0]
    make_model(root, folder, name, plan_for(root, wanted), DatasetInfo.load(folders_of(root).raw / "dataset.json"))


def make_label_model(root: Path, folder: Path, name: str, labels: dict) -> None:
    """Makes the model of a usual network for structures that may overlap."""
    info = DatasetInfo.model_validate({"channel_names": {"0": "MR"}, "file_ending": ".nii.gz", **labels})
    architecture = Architecture.model_validate({**network("stage"), "out_channels": info.targets.outputs})
    one = small_configuration().model_copy(update={"architecture": architecture})
    make_model(root, folder, name, small_plan().model_copy(update={"configurations": {"3d_fullres": one}}), info)


def make_model(root: Path, folder: Path, name: str, plan: Plan, info: DatasetInfo) -> None:
    """Writes a model folder, and its segmentation of a scan, in which several labels must have many voxels."""
    configuration = "3d_fullres" if "3d_fullres" in plan.configurations else "2d"
    model, masks = folder / "models" / name, folder / "masks" / name
    for seed in range(100):
        untrained = make_network(plan.configurations[configuration], seed=0)
        checkpoint = Checkpoint(
            plan=plan, info=info, configuration_name=configuration, fold=0, cases="", weights=fill(untrained, seed),
            finished=True, training={},
        )  # fmt: skip
        save_checkpoint(checkpoint, model / "fold_0" / "checkpoint.pt")
        scan = folders_of(root).raw / "imagesTs" / "case_5_0000.nii.gz"
        run(f"predict -m {model} -i {scan} -o {masks} --no-mirroring --exact --device cpu")
        found = [read_label_map(path).array for path in sorted(masks.rglob("*.nii.gz"))]
        if all(np.sort(np.bincount(one.ravel()))[:-1].sum() / one.size > LEAST_SHARE for one in found):
            break
    else:
        raise RuntimeError(f"{name} found one label only")
    for path in [*masks.glob("*.json"), *masks.glob("*.csv")]:
        path.unlink()


def main() -> None:
    """Makes all, and writes it beside this file."""
    with tempfile.TemporaryDirectory() as name:
        root, folder = Path(name) / "workspace", Path(name) / "networks"
        with zipfile.ZipFile(HERE / "workspace.zip") as archive:
            archive.extractall(root)
        for wanted in (*NETWORKS, *MONAI):
            make_network_model(root, folder, wanted)
        for label, labels in LABELS.items():
            make_label_model(root, folder, label, labels)
        pack(folder, HERE / "networks.zip")


if __name__ == "__main__":
    main()
