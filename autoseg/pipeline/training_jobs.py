"""The jobs of `train`, from its options, after all that can be checked without a GPU was checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from autoseg.cluster.command_lines import OptionValue
from autoseg.cluster.graph import JobGraph
from autoseg.cluster.training_jobs import TrainingJobsRequest, make_training_graph
from autoseg.planning.plan import ConfigurationName
from autoseg.planning.plan_file import choose_configurations, load_plan_and_splits
from autoseg.runtime.reporting import SILENT, Reporter
from autoseg.workspace import Fold, find_workspace, list_folds

FilePath = str | PathLike[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """Options of `train` that each fold gets as they are; see there.

    Attributes:
        epochs, budget: The length of training.
        init, init_names, freeze: The weights to begin with.
        log: Names of trackers.
        device: The device.
        gpus: Number of GPUs that train a fold together.
        augment_on: Where patches are augmented.
    """

    epochs: int | None = None
    budget: str | None = None
    init: FilePath | None = None
    init_names: FilePath | None = None
    freeze: str | None = None
    log: Sequence[str] = ()
    device: str = "auto"
    gpus: int | None = None
    augment_on: str = "auto"

    def list_arguments(self) -> Mapping[str, OptionValue]:
        """Returns the options that differ from their defaults, as `list_options` takes them; device and gpus apart."""
        return {
            "--epochs": self.epochs,
            "--budget": self.budget,
            "--init": None if self.init is None else Path(self.init).absolute(),
            "--init-names": None if self.init_names is None else Path(self.init_names).absolute(),
            "--freeze": self.freeze,
            "--log": list(self.log),
            "--augment-on": None if self.augment_on == "auto" else self.augment_on,
        }


def make_training_jobs(
    number: int,
    configurations: Sequence[ConfigurationName],
    folds: Fold | Sequence[Fold],
    *,
    epochs: int | None = None,
    budget: str | None = None,
    init: FilePath | None = None,
    init_names: FilePath | None = None,
    freeze: str | None = None,
    log: Sequence[str] = (),
    device: str = "auto",
    gpus: int | None = None,
    augment_on: str = "auto",
    plan_name: str | None = None,
    workspace: FilePath | None = None,
    reporter: Reporter = SILENT,
) -> JobGraph:
    """Returns the jobs that train folds, after all that can be checked without a GPU was checked.

    Args:
        number: Number of the dataset.
        configurations: Configurations to train.
        folds: Folds of each; see `train`.
        epochs: See `train`, for this and the next eight arguments: each training gets them as they are.
        budget: The length of training in other words.
        init: Trained model whose weights to begin with.
        init_names: Names of the weights of another program.
        freeze: Weights that are not trained.
        log: Names of trackers.
        device: The device; it need not be one of this machine.
        gpus: Number of GPUs that train a fold together.
        augment_on: Where patches are augmented.
        plan_name: Name of the plan, if it is not the usual one.
        workspace: See `train`.
        reporter: Told which folds are left out.

    Raises:
        UsageError, DatasetError, ArtifactError, ProblemsError, ModelError: As `train` raises them.

    Example:
        All folds of two configurations as jobs of Slurm::

            jobs = autoseg.make_training_jobs(4, ["3d_fullres", "2d"], "cv")
            autoseg.run_jobs(jobs, "slurm")
    """
    from autoseg.training.duration import LengthRequest
    from autoseg.training.initial_weights import InitialWeightsRequest
    from autoseg.training.jobs import TrainingRequest, make_jobs

    options = TrainingOptions(
        epochs=epochs,
        budget=budget,
        init=init,
        init_names=init_names,
        freeze=freeze,
        log=log,
        device=device,
        gpus=gpus,
        augment_on=augment_on,
    )
    place, asked = find_workspace(workspace), tuple(list_folds(folds))
    folders = place.dataset(number, plan_name)
    plan, splits = load_plan_and_splits(number, folders)
    names = choose_configurations(plan, configurations)
    for name in names:
        make_jobs(
            TrainingRequest(
                number=number,
                folders=folders,
                configuration=name,
                folds=asked,
                length=LengthRequest(epochs=options.epochs, budget=options.budget),
                initial_weights=InitialWeightsRequest(
                    path=None if options.init is None else Path(options.init),
                    names=None if options.init_names is None else Path(options.init_names),
                    freeze=options.freeze,
                ),
                device="cpu",  # the machine that submits jobs may have no GPU
                augment_on=options.augment_on,
                trackers=tuple(options.log),
            )
        )
    request = TrainingJobsRequest(
        number=number,
        workspace=place.root,
        configurations=tuple(names),
        folds=asked,
        options=options.list_arguments(),
        device=options.device,
        gpus=options.gpus,
    )
    return make_training_graph(request, folders, plan, splits, reporter)
