"""The dataset of the demo, on which everything can be tried; the command `demo` runs the other commands on it."""

from autoseg.importing.demo_dataset import make_demo_dataset

__all__ = ["make_demo_dataset"]
