"""The weights that a fold begins with: whether those that a user asked for fit, and the start that they give.

A fold that goes on keeps the weights that it was begun with, whose digest stands in its checkpoint: it never begins a
second time, and what was frozen stays so to the end.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from autoseg.errors import UsageError
from autoseg.models.build import make_network
from autoseg.models.checkpoint import Checkpoint, Weights
from autoseg.models.pretrained_weights import ForeignWeights, match_foreign_weights
from autoseg.models.weight_digest import digest_weights, is_digest_of
from autoseg.networks.default_unet import UNet
from autoseg.planning.plan import Configuration
from autoseg.training.fold_job import FoldJob
from autoseg.training.foreign_start import (
    WARMUP_SHARE,
    describe_foreign_report,
    share_of_foreign,
    take_foreign_weights,
)
from autoseg.training.initial_weights import RANDOM, Freeze, InitialWeights, list_frozen, parse_freeze
from autoseg.training.weight_transfer import (
    Matching,
    describe_group,
    describe_report,
    match_networks,
    share_taken,
    sort_weights,
    take_weights,
)

LEAST_SHARE = 0.1
"""Smallest share of the weights that must fit. Decision: less are the norms and a few small layers of a network of
another size, which are no better start than random weights."""


def check_initial_weights(job: FoldJob, begun: InitialWeights | None) -> None:
    """Makes sure that a fold can begin with the weights that were asked for, or began with them.

    Args:
        job: The fold, with what was asked for.
        begun: How the fold began, or None if it did not yet.

    Raises:
        UsageError: It began otherwise, the weights do not fit, or random ones are to be frozen.
        ModelError: There is no such model, or it is damaged.
    """
    request = job.initial_weights
    if request.path is None and begun is None and request.freeze is not None:
        raise UsageError("--freeze would keep random weights as they are", "add --init MODEL")
    if request.freeze is not None and job.configuration.network is not None:
        what = f"--freeze does not know the parts of the network {job.configuration.network.name!r}"
        raise UsageError(what, "leave it out")
    if request.path is not None:
        foreign = _read_foreign(job)
        path, source = request.find(job.fold, job.checkpoint) if foreign is None else (foreign.path, foreign)
        if begun is None:
            _check_fit(path, source, job)
        elif not is_digest_of(begun.digest, source.weights):
            instead = "other weights than" if begun.digest else "random weights, not"
            what = f"fold {job.fold} was begun with {instead} those of {path}"
            raise UsageError(what, "leave --init out to go on, or add --restart to train it anew")
    if begun is not None and request.freeze not in (None, begun.freeze):
        what = f"fold {job.fold} was begun {f'with --freeze {begun.freeze}' if begun.freeze else 'without --freeze'}"
        raise UsageError(what, "leave --freeze out to go on, or add --restart to train it anew")


def find_initial_weights(job: FoldJob) -> InitialWeights:
    """Returns the weights that a fold begins with.

    Args:
        job: The fold, which passed `check_initial_weights`. Weights that do not fit are drawn by its seed.
    """
    request = job.initial_weights
    if request.path is None:
        return RANDOM
    freeze = None if request.freeze is None else parse_freeze(request.freeze)
    fresh = make_network(job.configuration, job.seed).state_dict()
    foreign = _read_foreign(job)
    if foreign is not None:
        return _begin_with_foreign(fresh, foreign, freeze, job)
    path, source = request.find(job.fold, job.checkpoint)
    matching = _match(source, job)
    report = take_weights(fresh, source.weights, matching)
    lines = [f"begins with {path}: {source.configuration_name}, fold {source.fold} of {source.plan.dataset}"]
    lines += describe_report(report, job.dataset.info, matching)
    lines += [*_describe_frozen(fresh, freeze), *_warn_of_leak(source, job)]
    digest = digest_weights(source.weights)
    return InitialWeights(digest=digest, freeze=freeze, weights=report.weights, lines=tuple(lines))


def warm_up(job: FoldJob, begun: InitialWeights | None) -> FoldJob:
    """Returns a job whose learning rate rises at first, if it begins with foreign weights and the plan says nothing.

    Args:
        job: The fold, which passed `check_initial_weights`.
        begun: How the fold began, or None if it did not yet.
    """
    training = job.plan.training
    share = begun.warmup_share if begun else WARMUP_SHARE if job.initial_weights.find_foreign() is not None else 0
    if not share or training.warmup_share:
        return job
    training = training.model_copy(update={"warmup_share": share})
    return replace(job, plan=job.plan.model_copy(update={"training": training}))


def _begin_with_foreign(fresh: Weights, foreign: ForeignWeights, freeze: Freeze | None, job: FoldJob) -> InitialWeights:
    """Returns the start that a file of another program gives; `fresh` are random weights of the network of the plan."""
    report = take_foreign_weights(fresh, foreign, built_in=job.configuration.network is None)
    share = job.plan.training.warmup_share
    lines = [
        f"begins with {foreign.path}: {foreign.kind}",
        *describe_foreign_report(report, foreign),
        *_describe_frozen(fresh, freeze),
        f"the learning rate rises during the first {share:.0%} of the training, see warmup_share in plan.json",
    ]
    return InitialWeights(
        digest=digest_weights(foreign.weights),
        freeze=freeze,
        warmup_share=share,
        weights=report.weights,
        lines=tuple(lines),
    )


def _describe_frozen(fresh: Weights, freeze: Freeze | None) -> Iterator[str]:
    if freeze is not None:
        yield describe_group(f"frozen ({freeze})", list_frozen(fresh, freeze), fresh)


def _read_foreign(job: FoldJob) -> ForeignWeights | None:
    """Returns the weights of another program that were asked for; None if it is a model of this one, or nothing."""
    path = job.initial_weights.find_foreign()
    if path is None:
        return None
    architecture = job.configuration.architecture if job.configuration.network is None else None
    return match_foreign_weights(path, _find_shapes(job.configuration), architecture, job.initial_weights.names)


def _match(source: Checkpoint, job: FoldJob) -> Matching:
    return match_networks(
        job.dataset.info,
        source.info,
        previous=job.configuration.previous_channels,
        old_previous=source.configuration.previous_channels,
        images=job.configuration.name_inputs(tuple(job.dataset.info.channel_names.values())),
        old_images=source.configuration.name_inputs(tuple(source.info.channel_names.values())),
    )


def _check_fit(path: Path, source: Checkpoint | ForeignWeights, job: FoldJob) -> None:
    """Refuses weights of which too small a share fits.

    Raises:
        UsageError: Less than `LEAST_SHARE` of the weights fit.
    """
    shapes = _find_shapes(job.configuration)
    if isinstance(source, ForeignWeights):
        _check_foreign_fit(source, shapes, job)
        return
    share = share_taken(sort_weights(shapes, source.weights, _match(source, job)), shapes)
    if share >= LEAST_SHARE:
        return
    layers, planned = _describe_network(source.configuration), _describe_network(job.configuration)
    what = f"{share:.1%} of the weights of {path} fit: its network has {layers}, the plan's has {planned}"
    if source.configuration.network is not None or job.configuration.network is not None:
        raise UsageError(what, "name the same network, with the same settings, in plan.json")
    rules = "" if source.plan.rules == "autoseg" else f" --rules {source.plan.rules}"
    raise UsageError(
        what,
        f"plan with --preset {source.plan.preset}{rules} as that model was, or copy the architecture into plan.json",
    )


def _check_foreign_fit(source: ForeignWeights, shapes: Weights, job: FoldJob) -> None:
    """Refuses foreign weights of which too small a share fits.

    Raises:
        UsageError: They give less than `LEAST_SHARE` of the weights of the network.
    """
    share = share_of_foreign(shapes, source, built_in=job.configuration.network is None)
    if share >= LEAST_SHARE:
        return
    what = f"{source.path} ({source.kind}) gives {share:.1%} of the weights of the network, which has"
    fix = "plan the network that the file is of, or correct the file of names"
    if source.is_pretrained_encoder:
        fix = "plan with --rules nnunet --preset resenc_l, which has the network of nnssl's ResEncL"
    raise UsageError(f"{what} {_describe_network(job.configuration)}", fix)


def _find_shapes(configuration: Configuration) -> Weights:
    """Returns weights of the shapes that a network has; those of the built-in network take no memory."""
    if configuration.network is not None:
        return make_network(configuration, seed=0).state_dict()
    with torch.device("meta"):
        return UNet(configuration.architecture).state_dict()


def _describe_network(configuration: Configuration) -> str:
    architecture, network = configuration.architecture, configuration.network
    if network is not None:
        return f"the layers of {network.name!r}"
    kinds = {"stage": "residual stages", "block": "stages of residual blocks", "none": "plain stages"}
    stages, features = len(architecture.stages), ", ".join(str(stage.features) for stage in architecture.stages)
    return f"{stages} {kinds[architecture.residual]} of {features} features in {architecture.dimensions}D"


def _warn_of_leak(source: Checkpoint, job: FoldJob) -> Iterator[str]:
    """Yields a warning if the weights were trained on cases that the fold holds out: such scores are worth nothing."""
    dataset = job.plan.dataset
    if source.plan.dataset == dataset and source.cases != job.split.digest:
        yield (
            f"mind that these weights were learned from another fold of {dataset}, and may know the cases that "
            f"fold {job.fold} holds out: its scores will look better than they are"
        )
