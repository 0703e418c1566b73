"""Cases, configurations and batches for networks that predict less than they see."""

import numpy as np
from small_models import small_configuration

from autoseg.dataloading.loader import Batches
from autoseg.dataloading.patch import find_beyond
from autoseg.dataloading.sampling import InMemoryCase
from autoseg.imaging.targets import Targets
from autoseg.networks.literature.table import NETWORKS
from autoseg.planning.plan import Configuration
from autoseg.preprocessing.foreground import sample_foreground

TARGETS = Targets.of_labels({"bright": 1, "dark": 2})


def case_of(shape, seed=0, channels=1):
    """Noise, in which no two voxels are alike, and labels."""
    random = np.random.default_rng(seed)
    image = random.normal(size=(channels, *shape)).astype(np.float32)
    label = random.integers(0, 3, shape).astype(np.int8)
    return InMemoryCase(image=image, label=label, foreground=sample_foreground(label))


def configuration_of(name, patch_size, **changes):
    """A small configuration of a network of two resolutions without padding, of which each axis has a margin of 8."""
    dimensions = NETWORKS[name].dimensions[0]
    known = small_configuration(dimensions).model_dump() | {
        "patch_size": patch_size,
        "network": {"name": name, "settings": {"features": 4, "padded": False, "depth": 2}},
        **changes,
    }
    return Configuration.model_validate(known)


def batches_of(configuration, cases, **changes):
    """Plain batches, unless the changes say more."""
    return Batches(
        **{
            "cases": cases,
            "configuration": configuration,
            "foreground_fraction": 0.5,
            "seed": (3,),
            "augmented": False,
            "beyond": find_beyond(configuration, TARGETS),
            **changes,
        }
    )
