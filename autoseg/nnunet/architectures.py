"""Conversion of network descriptions between nnU-Net's plans and this package.

    PlainConvUNet           residual "none"
    ResidualEncoderUNet     residual "block", of two convolutions each

No network of nnU-Net has the residual stages of V-Net, "stage". Its ResidualUNet has ResNet blocks in the decoder as
well; they start with the convolution that changes the number of features, and add the input of that convolution. If no
stage has more than one convolution, nothing is added, and the network is a plain one.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import ValidationError

from autoseg.errors import ModelError
from autoseg.networks.architecture import Architecture, Axes, Stage
from autoseg.networks.instance_norm import NEGATIVE_SLOPE, NORM_EPSILON
from autoseg.nnunet.plans import CANNOT, LIBRARY, ArchitecturePlan, NetworkPlan, default_layers
from autoseg.runtime.json_text import first_mistake

PLAIN, RESIDUAL = "PlainConvUNet", "ResidualEncoderUNet"

MOST_CONVOLUTIONS = 100
"""Largest number of convolutions in a stage. Decision: the deepest network of nnU-Net's presets has twelve."""

_ACTIVATIONS = ("torch.nn.LeakyReLU", "torch.nn.modules.activation.LeakyReLU")


def read_architecture(plan: ArchitecturePlan, channels: tuple[int, int], dimensions: int, where: str) -> Architecture:
    """Converts the network of a plan of nnU-Net to the same network of this package.

    Args:
        plan: The network in plans.json.
        channels: Number of input channels and of output channels.
        dimensions: Number of axes of a patch, 2 or 3.
        where: The file and configuration, for errors.

    Raises:
        ModelError: This package has no such network; the text says why.
    """
    is_supported = plan.network_class_name.startswith(LIBRARY) and plan.kind in (PLAIN, RESIDUAL)
    if not is_supported:
        raise ModelError(f"{where}: the network {plan.network_class_name!r} is unknown here", CANNOT)
    try:
        for reason in _list_differences(plan, dimensions):
            raise ModelError(f"{where}: {reason}", CANNOT)
        return Architecture(
            residual="none" if plan.kind == PLAIN else "block",
            in_channels=channels[0],
            out_channels=channels[1],
            stages=tuple(_read_stages(plan, dimensions)),
        )
    except ValidationError as error:
        raise ModelError(f"{where}: {first_mistake(error)}", CANNOT) from error
    except ValueError as error:
        raise ModelError(f"{where}: {error}", CANNOT) from error


def _list_differences(plan: ArchitecturePlan, dimensions: int) -> Iterator[str]:
    """Describes the features of a network that this package lacks."""
    network = plan.arch_kwargs
    default = default_layers(dimensions)
    if network.n_stages == 1:
        yield "a network of one resolution has no way up, and cannot be built here"
    if network.conv_op.rpartition(".")[2] != f"Conv{dimensions}d":
        yield f"convolutions {network.conv_op!r} do not suit patches of {dimensions} axes"
    if network.norm_op is None or network.norm_op.rpartition(".")[2] != f"InstanceNorm{dimensions}d":
        yield f"the norm {network.norm_op!r} is unknown here, which knows {default['norm_op']!r}"
    norm = {"eps": NORM_EPSILON, "affine": False, **(network.norm_op_kwargs or {})}
    if norm != default["norm_op_kwargs"]:
        yield f"a norm of {norm} is unknown here, which knows {default['norm_op_kwargs']}"
    activation = {"inplace": True, "negative_slope": NEGATIVE_SLOPE, **(network.nonlin_kwargs or {})}
    if network.nonlin not in _ACTIVATIONS or activation["negative_slope"] != NEGATIVE_SLOPE:
        yield f"the activation {network.nonlin!r} with {network.nonlin_kwargs} is unknown here"
    yield from _list_rare_differences(network)


def _list_rare_differences(network: NetworkPlan) -> Iterator[str]:
    """Describes rare features of a network that this package lacks."""
    if network.nonlin_first:
        yield "a norm after the activation is unknown here"
    if network.block is not None and network.block.rpartition(".")[2] != "BasicBlockD":
        yield f"blocks {network.block!r} are unknown here, which knows BasicBlockD"
    if network.bottleneck_channels is not None:
        yield "blocks with a bottleneck are unknown here"
    first = _spread(network.features_per_stage, network.n_stages)[0]
    if network.stem_channels not in (None, first):
        yield f"a first convolution of {network.stem_channels} features, not {first}, is unknown here"


def _read_stages(plan: ArchitecturePlan, dimensions: int) -> Iterator[Stage]:
    """Yields the stages from the full to the coarsest resolution.

    Raises:
        ValueError: The lists of the plan do not fit together.
    """
    network, plain = plan.arch_kwargs, plan.kind == PLAIN
    count = network.n_stages
    per_stage = network.n_conv_per_stage if plain else network.n_blocks_per_stage
    if per_stage is None:
        raise ValueError(f"it does not say how many {'convolutions' if plain else 'blocks'} a stage has")
    down = _spread(per_stage, count)
    up = _spread(network.n_conv_per_stage_decoder, count - 1)[::-1]  # nnU-Net lists these from the coarsest stage
    if max([*down, *up]) > MOST_CONVOLUTIONS:
        raise ValueError(f"a stage has {max([*down, *up])} convolutions")
    default_up = [down[stage] if plain else 2 for stage in range(count)]
    columns = (_spread(network.features_per_stage, count), network.kernel_sizes, network.strides)
    features, kernels, strides = (_spread(column, count) for column in columns)
    for stage in range(count):
        decoder_convolutions = up[min(stage, count - 2)]  # the coarsest stage has none, and repeats those of the next
        yield Stage(
            features=features[stage],
            kernel=_axes(kernels[stage], dimensions),
            stride=_axes(strides[stage], dimensions),
            convolutions=down[stage] if plain else 2,
            blocks=1 if plain else down[stage],
            decoder_convolutions=None if decoder_convolutions == default_up[stage] else decoder_convolutions,
        )


def _spread(value: Any, count: int) -> list[Any]:
    """Returns a list with an entry for each stage, from such a list or from one value for all stages.

    >>> _spread(2, 3), _spread([1, 2, 2], 3)
    ([2, 2, 2], [1, 2, 2])
    """
    values = [value] * count if isinstance(value, int) else list(value)
    if len(values) != count:
        raise ValueError(f"the network has {count} stages, and a list for {len(values)}")
    return values


def _axes(value: int | Sequence[int], dimensions: int) -> Axes:
    """Returns a size for each axis, from such a sequence or from one size for all axes."""
    sizes = (value,) * dimensions if isinstance(value, int) else tuple(value)
    if len(sizes) != dimensions:
        raise ValueError(f"kernels and strides must have {dimensions} axes")
    return sizes if len(sizes) == 2 else (sizes[0], sizes[1], sizes[2])


def describe_architecture(architecture: Architecture) -> dict[str, Any]:
    """Describes a network as in nnU-Net's plans; the inverse of `read_architecture`.

    >>> stages = (Stage(features=32, kernel=(3, 3), stride=(1, 1), convolutions=2, blocks=1),
    ...           Stage(features=64, kernel=(3, 3), stride=(2, 2), convolutions=2, blocks=1))
    >>> architecture = Architecture(residual="none", in_channels=1, out_channels=2, stages=stages)
    >>> plan = ArchitecturePlan.model_validate(describe_architecture(architecture))
    >>> plan.kind, read_architecture(plan, (1, 2), 2, "plans.json") == architecture
    ('PlainConvUNet', True)

    Raises:
        ModelError: nnU-Net has no such network.
    """
    stages = architecture.stages
    up = [stage.decoder_convolutions or stage.convolutions for stage in stages[:-1]]
    adds = any(stage.convolutions * stage.blocks > 1 for stage in stages) or max(up) > 1
    if architecture.residual == "stage" and adds:
        raise ModelError(
            "the network has residual stages as V-Net has, and nnU-Net knows none like it",
            "a plan by --rules nnunet (--preset plain or resenc_m) can be exported; or export without --format",
        )
    blocks = architecture.residual == "block"
    down = [stage.blocks if blocks else stage.blocks * stage.convolutions for stage in stages]
    arguments = {
        "n_stages": len(stages),
        "features_per_stage": [stage.features for stage in stages],
        "kernel_sizes": [list(stage.kernel) for stage in stages],
        "strides": [list(stage.stride) for stage in stages],
        "n_blocks_per_stage" if blocks else "n_conv_per_stage": down,
        "n_conv_per_stage_decoder": up[::-1],
        **default_layers(architecture.dimensions),
    }
    return {
        "network_class_name": f"{LIBRARY}architectures.unet.{RESIDUAL if blocks else PLAIN}",
        "arch_kwargs": arguments,
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
