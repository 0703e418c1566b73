"""The names by which plans refer to the networks of MONAI."""

PREFIX = "monai:"
NAME_PATTERN = rf"{PREFIX}[A-Z][A-Za-z0-9]*"


def is_monai(name: str) -> bool:
    """Returns whether a name in a plan means a network of MONAI.

    Example:
        >>> is_monai("monai:SwinUNETR"), is_monai("vnet")
        (True, False)
    """
    return name.startswith(PREFIX)
