"""Networks, losses and transforms such as users write, for tests of where the package calls them."""

from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from small_models import small_run, small_state
from torch import nn

from autoseg.dataloading.batch import Batch
from autoseg.planning.loss_settings import LossSettings
from autoseg.planning.plugin_settings import CustomTransform, Plugin
from autoseg.planning.plugins import register_loss, register_network, register_transform
from autoseg.runtime import device as devices
from autoseg.runtime.reporting import SILENT
from autoseg.training.memory_trial import fill_gradients
from autoseg.training.ranks import ALONE, find_ranks, init_ranks
from autoseg.training.state import Run

PATCHES = 5


class Pyramid(nn.Module):
    """One convolution, and a head for each of some resolutions."""

    def __init__(self, architecture, levels=1, dropout=0.0, *, norm=False):
        super().__init__()
        self.first = nn.Conv3d(architecture.in_channels, 4, 3, padding=1)
        self.norm = nn.BatchNorm3d(4) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.ModuleList(nn.Conv3d(4, architecture.out_channels, 1) for _ in range(levels))

    def forward(self, image):
        """Logits of all resolutions in training, finest first."""
        x = self.dropout(torch.relu(self.norm(self.first(image))))
        logits = [head(F.avg_pool3d(x, 2**level)) for level, head in enumerate(self.heads)]
        return logits if self.training else logits[0]


def build_pyramid(architecture, settings):
    """As `NetworkBuilder` says."""
    return Pyramid(architecture, **settings)


def squared_error(logits, ground_truth, settings):
    """As `LossFunction` says: a mean over the patches."""
    error = (logits.softmax(dim=1)[:, 1:] - ground_truth.present.float()).square()
    return settings.get("factor", 1.0) * error.mean()


def brighten(image, label, random, settings):
    """As `PatchTransform` says."""
    return image + random.uniform(0, settings["most"]), label


def register_all():
    """Offers the three."""
    register_network("pyramid", build_pyramid)
    register_loss("squared_error", squared_error)
    register_transform("brighten", brighten)


def own_run(network="pyramid", loss=None, transforms=(), *, given=None, **training) -> Run:
    """A small run with parts that are not built in; `given` are the settings of the network."""
    run = small_run(**training)
    configuration = run.training.configuration
    named = None if network is None else Plugin(name=network, settings=given or {})
    own = tuple(CustomTransform(name=name, settings=settings) for name, settings in transforms)
    augmentation = configuration.augmentation.model_copy(update={"custom": own})
    configuration = configuration.model_copy(update={"network": named, "augmentation": augmentation})
    if loss is not None:
        chosen = LossSettings(custom=Plugin(name=loss))
        run = replace(run, settings=run.settings.model_copy(update={"loss": chosen}))
        run = replace(run, loss=replace(run.loss, settings=chosen))
    return replace(
        run,
        training=replace(run.training, configuration=configuration),
        validation=replace(run.validation, configuration=configuration),
    )


def one_step(ranks=ALONE) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss and the gradients of five patches, or of a rank's share of them; the second step of two."""
    run = own_run(loss="squared_error", given={"levels": 3})
    run = replace(run, ranks=ranks, loss=replace(run.loss, ranks=ranks))
    state, own = small_state(run), slice(ranks.number, None, ranks.count)
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(PATCHES, 1, 8, 8, 8, generator=generator)
    labels = torch.randint(3, (PATCHES, 8, 8, 8), generator=generator)
    batch = Batch(images=images[own], labels=labels[own])
    for _ in range(2):  # the second one would wait for ever if idle weights were waited for
        value = fill_gradients(state, batch, run, SILENT)
    return value.item(), {name: one.grad for name, one in state.network.named_parameters() if one.grad is not None}


def save_step(folder, device, *, reporter):
    """Saves what a rank makes of it."""
    devices.precision = lambda _: torch.float32
    register_all()
    ranks, place = find_ranks(torch.device(device))
    init_ranks(ranks, place)
    torch.save(one_step(ranks), Path(folder) / f"{ranks.number}.pt")
    ranks.barrier()
    ranks.shutdown()
