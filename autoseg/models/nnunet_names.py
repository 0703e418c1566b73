"""The names that nnU-Net gives to the weights of the networks of this package.

The decoder of nnU-Net counts from the coarsest level, ours from the finest. nnU-Net writes most weights under several
names: each convolution and norm by its name and by its index in a sequence, and the encoder once more as a part of the
decoder.

    encoder.1.blocks.0.conv.weight          encoder.stages.1.0.convs.0.conv.weight
    encoder.1.0.first.conv.weight           encoder.stages.1.blocks.0.conv1.conv.weight
    decoder.0.blocks.1.norm.bias            decoder.stages.1.convs.1.norm.bias          (of three levels)
    heads.0.weight                          decoder.seg_layers.1.weight

Source: dynamic-network-architectures 0.4.4, PlainConvUNet and ResidualEncoderUNet.
"""

from collections.abc import Iterator

from autoseg.networks.architecture import Architecture

_IN_BLOCK = {"first": "conv1", "second": "conv2"}
_IN_DECODER = {"upsampling": "transpconvs", "heads": "seg_layers", "decoder": "stages"}
_IN_SEQUENCE = {"conv": "0", "norm": "1"}


def to_nnunet_name(name: str, architecture: Architecture) -> str:
    """Returns nnU-Net's name of a weight of this package; see the table in the text of this module."""
    first, *rest = name.split(".")
    if first == "stem":
        return ".".join(["encoder.stem.convs.0", *rest])
    level = int(rest[0])
    if first in _IN_DECODER:
        from_coarsest = str(len(architecture.stages) - 2 - level)
        inside = ["convs", *rest[2:]] if first == "decoder" else rest[1:]
        return ".".join(["decoder", _IN_DECODER[first], from_coarsest, *inside])
    if rest[1] == "blocks":
        return ".".join(["encoder.stages", rest[0], "0.convs", *rest[2:]])
    if rest[2] == "shortcut":
        strides = any(step > 1 for step in architecture.stages[level].stride)
        inside = ["skip", str(int(strides)), *rest[3:]]  # average pooling comes first in the sequence
    else:
        inside = [_IN_BLOCK[rest[2]], *rest[3:]]
    return ".".join(["encoder.stages", rest[0], "blocks", rest[1], *inside])


def is_duplicate(name: str) -> bool:
    """Tells whether this is a duplicate name of nnU-Net, whose weight is read under its main name instead.

    >>> is_duplicate("decoder.encoder.stages.0.0.convs.0.conv.weight")
    True
    """
    return ".all_modules." in name or name.startswith("decoder.encoder.")


def all_names(name: str) -> Iterator[str]:
    """Yields every name under which nnU-Net writes a weight.

    >>> list(all_names("decoder.seg_layers.1.weight"))
    ['decoder.seg_layers.1.weight']
    >>> len(list(all_names("encoder.stages.1.0.convs.0.conv.weight")))
    4

    Args:
        name: Its main name, from `to_nnunet_name`.
    """
    parts = name.split(".")
    names = [name]
    if parts[-2] in _IN_SEQUENCE:
        names.append(".".join([*parts[:-2], "all_modules", _IN_SEQUENCE[parts[-2]], parts[-1]]))
    for alternative in names:
        yield alternative
        if alternative.startswith("encoder."):
            yield f"decoder.{alternative}"
