"""Networks as nnU-Net's plans describe them, and as ours do.

    PlainConvUNet           residual "none"
    ResidualEncoderUNet     residual "block", of two convolutions each

No network of nnU-Net's has V-Net's residual stages, "stage": its ResidualUNet has blocks of a ResNet on the way up as
well, which start with the convolution that changes the width, and add what came before it. Where a stage has no more
than one convolution, nothing is added, and the network is plain.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import ValidationError

from autoseg.errors import ModelError
from autoseg.networks.architecture import Architecture, Axes, Stage
from autoseg.networks.blocks import NEGATIVE_SLOPE, NORM_EPSILON
from autoseg.nnunet.plans import CANNOT, LIBRARY, ArchitecturePlan, NetworkPlan, usual_layers
from autoseg.runtime.artifact import first_mistake

PLAIN, RESIDUAL = "PlainConvUNet", "ResidualEncoderUNet"

MOST_CONVOLUTIONS = 100
"""Of a stage. Decision: the deepest of nnU-Net's plans has twelve."""

_ACTIVATIONS = ("torch.nn.LeakyReLU", "torch.nn.modules.activation.LeakyReLU")


def read_architecture(found: ArchitecturePlan, channels: tuple[int, int], dimensions: int, where: str) -> Architecture:
    """Our network that is the same.

    Args:
        found: What a plan says.
        channels: Of the input and of the output.
        dimensions: Of a patch.
        where: The file and configuration, for errors.

    Raises:
        ModelError: There is none; the text says why.
    """
    known = found.network_class_name.startswith(LIBRARY) and found.kind in (PLAIN, RESIDUAL)
    if not known:
        raise ModelError(f"{where}: the network {found.network_class_name!r} is unknown here", CANNOT)
    try:
        for reason in _list_differences(found, dimensions):
            raise ModelError(f"{where}: {reason}", CANNOT)
        return Architecture(
            residual="none" if found.kind == PLAIN else "block",
            in_channels=channels[0],
            out_channels=channels[1],
            stages=tuple(_read_stages(found, dimensions)),
        )
    except ValidationError as error:
        raise ModelError(f"{where}: {first_mistake(error)}", CANNOT) from error
    except ValueError as error:
        raise ModelError(f"{where}: {error}", CANNOT) from error


def _list_differences(found: ArchitecturePlan, dimensions: int) -> Iterator[str]:
    """What our networks cannot be, in words."""
    network = found.arch_kwargs
    usual = usual_layers(dimensions)
    if network.n_stages == 1:
        yield "a network of one resolution has no way up, and cannot be built here"
    if network.conv_op.rpartition(".")[2] != f"Conv{dimensions}d":
        yield f"convolutions {network.conv_op!r} do not suit patches of {dimensions} axes"
    if network.norm_op is None or network.norm_op.rpartition(".")[2] != f"InstanceNorm{dimensions}d":
        yield f"the norm {network.norm_op!r} is unknown here, which knows {usual['norm_op']!r}"
    norm = {"eps": NORM_EPSILON, "affine": False, **(network.norm_op_kwargs or {})}
    if norm != usual["norm_op_kwargs"]:
        yield f"a norm of {norm} is unknown here, which knows {usual['norm_op_kwargs']}"
    activation = {"inplace": True, "negative_slope": NEGATIVE_SLOPE, **(network.nonlin_kwargs or {})}
    if network.nonlin not in _ACTIVATIONS or activation["negative_slope"] != NEGATIVE_SLOPE:
        yield f"the activation {network.nonlin!r} with {network.nonlin_kwargs} is unknown here"
    yield from _list_rarities(found.arch_kwargs)


def _list_rarities(network: NetworkPlan) -> Iterator[str]:
    if network.nonlin_first:
        yield "a norm after the activation is unknown here"
    if network.block is not None and network.block.rpartition(".")[2] != "BasicBlockD":
        yield f"blocks {network.block!r} are unknown here, which knows BasicBlockD"
    if network.bottleneck_channels is not None:
        yield "blocks with a bottleneck are unknown here"
    first = _spread(network.features_per_stage, network.n_stages)[0]
    if network.stem_channels not in (None, first):
        yield f"a first convolution of {network.stem_channels} features, not {first}, is unknown here"


def _read_stages(found: ArchitecturePlan, dimensions: int) -> Iterator[Stage]:
    """From full to coarsest resolution; raises ValueError if lists do not fit together."""
    network, plain = found.arch_kwargs, found.kind == PLAIN
    count = network.n_stages
    per_stage = network.n_conv_per_stage if plain else network.n_blocks_per_stage
    if per_stage is None:
        raise ValueError(f"it does not say how many {'convolutions' if plain else 'blocks'} a stage has")
    down = _spread(per_stage, count)
    up = _spread(network.n_conv_per_stage_decoder, count - 1)[::-1]  # nnU-Net counts these from the coarsest
    if max([*down, *up]) > MOST_CONVOLUTIONS:
        raise ValueError(f"a stage has {max([*down, *up])} convolutions")
    usual_up = [down[stage] if plain else 2 for stage in range(count)]
    columns = (_spread(network.features_per_stage, count), network.kernel_sizes, network.strides)
    features, kernels, strides = (_spread(column, count) for column in columns)
    for stage in range(count):
        on_the_way_up = up[min(stage, count - 2)]  # the coarsest has none, and is described like the next one
        yield Stage(
            features=features[stage],
            kernel=_axes(kernels[stage], dimensions),
            stride=_axes(strides[stage], dimensions),
            convolutions=down[stage] if plain else 2,
            blocks=1 if plain else down[stage],
            decoder_convolutions=None if on_the_way_up == usual_up[stage] else on_the_way_up,
        )


def _spread(value: Any, count: int) -> list[Any]:
    """A list with an entry for each stage, of one value for all of them, or of such a list."""
    values = [value] * count if isinstance(value, int) else list(value)
    if len(values) != count:
        raise ValueError(f"the network has {count} stages, and a list for {len(values)}")
    return values


def _axes(value: int | Sequence[int], dimensions: int) -> Axes:
    sizes = (value,) * dimensions if isinstance(value, int) else tuple(value)
    if len(sizes) != dimensions:
        raise ValueError(f"kernels and strides must have {dimensions} axes")
    return sizes if len(sizes) == 2 else (sizes[0], sizes[1], sizes[2])


def describe_architecture(architecture: Architecture) -> dict[str, Any]:
    """What nnU-Net's plan says of the same network.

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
        **usual_layers(architecture.dimensions),
    }
    return {
        "network_class_name": f"{LIBRARY}architectures.unet.{RESIDUAL if blocks else PLAIN}",
        "arch_kwargs": arguments,
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
