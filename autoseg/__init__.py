"""Self-configuring segmentation of medical images."""

from autoseg._version import __version__

__all__ = ["__version__"]
