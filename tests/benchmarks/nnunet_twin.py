"""Writes a trained model of autoseg as one of nnU-Net's: the same plain network, weights, tiles and preprocessing.

    PYTHON tests/benchmarks/nnunet_twin.py FOLDER

PYTHON belongs to nnU-Net's environment; FOLDER holds weights.npz, plans.json and dataset.json. `write_twin` writes
these and runs this program, which leaves a model folder that nnUNetv2_predict_from_modelfolder takes.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

NORMALIZATIONS = {"zscore": "ZScoreNormalization", "ct": "CTNormalization", "none": "NoNormalization"}
RESAMPLING = {
    "resampling_fn_data": (False, 3),
    "resampling_fn_seg": (True, 1),
    "resampling_fn_probabilities": (False, 1),
}


def write_twin(checkpoint: Path, folder: Path, python: Path) -> None:
    """Writes nnU-Net's form of a fold.

    Args:
        checkpoint: Checkpoint of a plain 3D network, which nnU-Net can build too.
        folder: Folder of nnU-Net's model.
        python: Interpreter of nnU-Net's environment.
    """
    from autoseg.models.checkpoint import load_checkpoint

    fold = load_checkpoint(checkpoint)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.float().numpy() for name, value in fold.weights.items()}
    axes = list(fold.configuration.augmentation.mirror_axes)
    np.savez(folder / "weights.npz", mirror_axes=np.array(axes), **weights)
    labels = dict(fold.info.labels)
    dataset = {"channel_names": fold.info.channel_names, "labels": labels, "file_ending": ".nii.gz", "numTraining": 1}
    (folder / "dataset.json").write_text(json.dumps(dataset))
    (folder / "plans.json").write_text(json.dumps(_plans(fold)))
    subprocess.run([str(python), __file__, str(folder)], check=True)


def _plans(fold) -> dict:
    """Returns the content of nnU-Net's plans.json, as its predictor reads it."""
    ours, stages = fold.configuration, fold.configuration.architecture.stages
    network = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": len(stages),
            "features_per_stage": [stage.features for stage in stages],
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [stage.kernel for stage in stages],
            "strides": [stage.stride for stage in stages],
            "n_conv_per_stage": [stage.convolutions for stage in stages],
            "n_conv_per_stage_decoder": [stage.convolutions for stage in stages[:-1]],
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
    configuration = {
        "data_identifier": "twin",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": ours.batch_size,
        "patch_size": ours.patch_size,
        "median_image_size_in_voxels": ours.median_shape,
        "spacing": ours.spacing_mm,
        "normalization_schemes": [NORMALIZATIONS[channel.scheme] for channel in ours.normalization],
        "use_mask_for_norm": [channel.only_nonzero for channel in ours.normalization],
        "architecture": network,
        "batch_dice": ours.batch_dice,
    }
    for name, (is_label, order) in RESAMPLING.items():
        options = {"is_seg": is_label, "order": order, "order_z": 0, "force_separate_z": None}
        configuration |= {name: "resample_data_or_seg_to_shape", f"{name}_kwargs": options}
    facts = {
        str(number): {
            "mean": channel.mean, "std": channel.std, "percentile_00_5": channel.lower, "percentile_99_5": channel.upper
        }
        for number, channel in enumerate(ours.normalization)
    }  # fmt: skip
    order = fold.plan.axis_order
    return {
        "dataset_name": fold.plan.dataset,
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": ours.spacing_mm,
        "original_median_shape_after_transp": ours.median_shape,
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": order,
        "transpose_backward": [order.index(axis) for axis in range(3)],
        "configurations": {"3d_fullres": configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": facts,
    }


def build(folder: Path) -> None:
    """Puts the weights into nnU-Net's network and saves its checkpoint; runs in nnU-Net's environment."""
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans = PlansManager(json.loads((folder / "plans.json").read_text()))
    dataset = json.loads((folder / "dataset.json").read_text())
    configuration = plans.get_configuration("3d_fullres")
    channels, classes = len(dataset["channel_names"]), len(dataset["labels"])
    network = nnUNetTrainer.build_network_architecture(
        plans, configuration, channels, classes, enable_deep_supervision=False
    )
    ours, stages = dict(np.load(folder / "weights.npz")), len(configuration.network_arch_init_kwargs["strides"])
    axes = tuple(ours.pop("mirror_axes").tolist())
    weights = {}
    for name, value in network.state_dict().items():
        own = own_name(name, stages)
        weights[name] = torch.from_numpy(ours[own]).reshape(value.shape) if own in ours else value
    network.load_state_dict(weights)
    (folder / "fold_0").mkdir(exist_ok=True)
    content = {
        "network_weights": network.state_dict(),
        "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": "3d_fullres"},
        "inference_allowed_mirroring_axes": axes,
    }
    torch.save(content, folder / "fold_0" / "checkpoint_final.pth")


def own_name(name: str, stages: int) -> str:
    """Returns autoseg's name for a weight of nnU-Net's, which counts its decoder from the coarsest level.

    See `rename` in measure_training_step.py for the other direction.
    """
    parts = name.removeprefix("decoder.encoder.").split(".")
    if name.startswith("decoder.encoder."):
        parts = name.removeprefix("decoder.").split(".")
    if "all_modules" in parts:
        kind = {"0": "conv", "1": "norm"}[parts[parts.index("all_modules") + 1]]
        index = parts.index("all_modules")
        parts = [*parts[:index], kind, *parts[index + 2 :]]
    if parts[0] == "encoder":
        return f"encoder.{parts[2]}.blocks.{'.'.join(parts[5:])}"
    level = stages - 2 - int(parts[2])
    kind = {"stages": "decoder", "transpconvs": "upsampling", "seg_layers": "heads"}[parts[1]]
    return f"{kind}.{level}." + (f"blocks.{'.'.join(parts[4:])}" if kind == "decoder" else parts[3])


if __name__ == "__main__":
    build(Path(sys.argv[1]))
