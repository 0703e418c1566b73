"""Makes the models in this folder, with nnU-Net's own trainer; run it in its environment.

    python make.py

Tiny networks with random weights, one step of training, and a checkpoint each, as nnU-Net 2.8.1 writes it; beside each
model what its network makes of a random patch: NAME.npz. See README.md.
"""

import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent
for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
    os.environ[name] = str(HERE / "made")

RESAMPLING = {
    "resampling_fn_data": (False, 3),
    "resampling_fn_seg": (True, 1),
    "resampling_fn_probabilities": (False, 1),
}
CT = {"max": 900.0, "mean": 120.5, "median": 110.0, "min": -900.0, "percentile_00_5": -80.0, "percentile_99_5": 310.0,
      "std": 55.25}  # fmt: skip
REGIONS = {
    "channel_names": {"0": "T1", "1": "T2"},
    "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "active": 3},
    "regions_class_order": [1, 2, 3],
    "numTraining": 7,
    "file_ending": ".nii.gz",
}
LABELS = {
    "channel_names": {"0": "CT", "1": "MR"},
    "labels": {"background": 0, "liver": 1, "tumour": 2, "ignore": 3},
    "numTraining": 12,
    "file_ending": ".nii.gz",
}


def network(kind: str, features, kernels, strides, down, up) -> dict:
    """What a plan says of a network."""
    dimensions = len(kernels[0])
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{kind}",
        "arch_kwargs": {
            "n_stages": len(features),
            "features_per_stage": features,
            "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
            "kernel_sizes": kernels,
            "strides": strides,
            "n_conv_per_stage" if kind == "PlainConvUNet" else "n_blocks_per_stage": down,
            "n_conv_per_stage_decoder": up,
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def configuration(patch, spacing, schemes, masks, **more) -> dict:
    """One configuration of a plan."""
    made = {
        "data_identifier": "nnUNetPlans_any",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": patch,
        "median_image_size_in_voxels": [size * 1.75 for size in patch],
        "spacing": spacing,
        "normalization_schemes": schemes,
        "use_mask_for_norm": masks,
        "batch_dice": True,
        **more,
    }
    for key, (is_label, order) in RESAMPLING.items():
        options = {"is_seg": is_label, "order": order, "order_z": 0, "force_separate_z": None}
        made |= {key: "resample_data_or_seg_to_shape", f"{key}_kwargs": options}
    return made


def plans(number: int, name: str, configurations: dict, order=(0, 1, 2), plans_name: str = "nnUNetPlans") -> dict:
    """All of plans.json."""
    return {
        "dataset_name": f"Dataset{number:03d}_{name}",
        "plans_name": plans_name,
        "original_median_spacing_after_transp": [2.0, 1.0, 1.0],
        "original_median_shape_after_transp": [20, 40, 40],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": list(order),
        "transpose_backward": [order.index(axis) for axis in range(3)],
        "configurations": configurations,
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": CT, "1": CT},
    }


def train(made: dict, dataset: dict, name: str, fold, trainer_class=None, channels: int = 2):
    """One step of nnU-Net's trainer from random weights; leaves its checkpoint. Returns the network."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    torch.manual_seed(len(made["dataset_name"]) + len(name))
    cases = HERE / "made" / made["dataset_name"] / "nnUNetPlans_any"
    cases.mkdir(parents=True, exist_ok=True)
    (cases / "case.npz").touch()  # nnU-Net looks there for what cases are stored as
    trainer = (trainer_class or nnUNetTrainer)(
        {**made, "continue_training": False}, name, fold, dataset, device=torch.device("cpu")
    )
    trainer.initialize()
    trainer._do_i_compile = lambda: False
    with torch.no_grad():
        for parameter in trainer.network.parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.3 if parameter.ndim == 1 else 0.2))
    patch = trainer.configuration_manager.patch_size
    outputs = trainer.network(torch.randn(2, channels, *patch))
    sum(one.square().mean() for one in (outputs if isinstance(outputs, list | tuple) else [outputs])).backward()
    trainer.optimizer.step()
    logged = {
        "mean_fg_dice": np.float32(0.5), "ema_fg_dice": np.float64(0.5), "train_losses": np.float64(0.1),
        "val_losses": np.float64(0.2), "lrs": 0.01, "epoch_start_timestamps": 1.5, "epoch_end_timestamps": 2.5,
        "dice_per_class_or_region": [np.float64(0.5), np.nan],
    }  # fmt: skip
    for key, value in logged.items():
        trainer.logger.log(key, value, 0)
    trainer._best_ema = np.float64(0.5)
    trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()  # decides along which axes to mirror
    output = Path(trainer.output_folder)
    output.mkdir(parents=True)
    trainer.save_checkpoint(str(output / "checkpoint_final.pth"))
    for file, content in (("plans.json", made), ("dataset.json", dataset)):
        (output.parent / file).write_text(json.dumps(content))
    trainer.network.decoder.deep_supervision = False
    return trainer.network.eval()


def record(name: str, network, patch, former=None, labels: int = 0) -> None:
    """What a network makes of a random patch, and of a former segmentation if it sees one."""
    random = np.random.default_rng(len(name))
    image = random.normal(size=(1, 2, *patch)).astype(np.float32)
    seen, extra = image, {}
    if labels:
        former = random.integers(0, labels + 1, patch)
        extra = {"former": former.astype(np.int8)}
        masks = np.stack([former == label for label in range(1, labels + 1)])[None]
        seen = np.concatenate([image, masks.astype(np.float32)], axis=1)
    with torch.no_grad():
        logits = network(torch.from_numpy(seen)).numpy()
    np.savez_compressed(HERE / f"{name}.npz", image=image, logits=logits, **extra)


def main() -> None:
    """Makes everything anew."""
    from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import (
        nnUNetTrainer_onlyMirror01,
    )

    thin = [[1, 3, 3], [3, 3, 3], [3, 3, 3]]
    plain = network("PlainConvUNet", [4, 6, 8], thin, [[1, 1, 1], [1, 2, 2], [2, 2, 2]], [2, 1, 2], [2, 1])
    ct = configuration([4, 16, 12], [2.0, 1.0, 1.0], ["CTNormalization", "ZScoreNormalization"], [False, True])
    made = plans(701, "Plain", {"3d_fullres": {**ct, "architecture": plain}}, order=(1, 0, 2))
    record("plain_3d", train(made, LABELS, "3d_fullres", 0, nnUNetTrainer_onlyMirror01), [4, 16, 12])

    threes, twos = [[3, 3, 3]] * 3, [[1, 1, 1], [2, 2, 2], [2, 2, 2]]
    residual = network("ResidualEncoderUNet", [4, 6, 6], threes, twos, [1, 2, 1], [1, 1])
    mr = configuration([8, 12, 16], [1.0, 1.0, 1.0], ["ZScoreNormalization"] * 2, [False, False])
    resenc = {"3d_fullres": {**mr, "architecture": residual}}
    made = plans(702, "Residual", resenc, plans_name="nnUNetResEncUNetLPlans")
    record("residual_3d", train(made, REGIONS, "3d_fullres", "all"), [8, 12, 16])

    flat = configuration([16, 12], [1.0, 0.5], ["NoNormalization", "RescaleTo01Normalization"], [False, False])
    former = {
        "UNet_class_name": "PlainConvUNet", "UNet_base_num_features": 4, "unet_max_num_features": 6,
        "n_conv_per_stage_encoder": [1, 2, 1], "n_conv_per_stage_decoder": [1, 2], "num_pool_per_axis": [2, 1],
        "conv_kernel_sizes": [[3, 3], [3, 1], [3, 3]], "pool_op_kernel_sizes": [[1, 1], [2, 1], [2, 2]],
    }  # fmt: skip
    made = plans(703, "Former", {"2d": {**flat, **former}})
    text = json.dumps(made)  # nnU-Net rewrites it when it is read
    record("plain_2d", train(made, LABELS, "2d", 1), [16, 12])
    folder = next((HERE / "made" / "Dataset703_Former").glob("nnUNetTrainer__*"))
    (folder / "plans.json").write_text(text)

    residual = network("ResidualEncoderUNet", [4, 8], [[3, 3]] * 2, [[1, 1], [2, 2]], [2, 2], [2])
    made = plans(704, "Flat", {"2d": {**flat, "architecture": residual}}, plans_name="nnUNetResEncUNetMPlans")
    record("residual_2d", train(made, LABELS, "2d", 0), [16, 12])

    small = network("PlainConvUNet", [4, 4], threes[:2], twos[:2], [1, 1], [1])
    both = {
        "3d_lowres": {**mr, "spacing": [2.0, 2.0, 2.0], "architecture": small, "next_stage": "3d_cascade_fullres"},
        "3d_fullres": {**mr, "architecture": small},
        "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
    }
    made = plans(705, "Cascade", both)
    record("cascade_lowres", train(made, REGIONS, "3d_lowres", 0), [8, 12, 16])
    record("cascade", train(made, REGIONS, "3d_cascade_fullres", 0, channels=5), [8, 12, 16], labels=3)
    pack(HERE / "made" / "Dataset705_Cascade", HERE / "cascade.zip")
    for name in ("Dataset701_Plain", "Dataset702_Residual", "Dataset703_Former", "Dataset704_Flat"):
        pack(HERE / "made" / name, HERE / f"{name[11:].lower()}.zip")
    shutil.rmtree(HERE / "made")


def pack(folder: Path, target: Path) -> None:
    """Writes a zip as nnUNetv2_export_model_to_zip does, without the pictures."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.suffix in (".json", ".pth") and path.name != "debug.json":
                archive.write(path, path.relative_to(folder.parent))


if __name__ == "__main__":
    main()
