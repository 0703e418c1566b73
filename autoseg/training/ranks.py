"""Several processes that train one network together: the ranks of a run, connected by torch.distributed.

Each rank has a GPU, or a share of the CPU, and the same weights. It makes a share of the patches of every batch and
calculates their gradients; the gradients of all ranks are added up, so all take the same step, which is that of a
single process with the whole batch. Where a loss sums over the patches of a batch, it sums over all ranks: the loss of
a rank is its share, and the shares add up to the loss of the batch. Only the main rank, number 0, reports and saves.

`ALONE` stands for the usual single process, in which all of this does nothing.
"""

import gc
import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from autoseg.errors import AutosegError, UsageError

T = TypeVar("T")

TIMEOUT = timedelta(days=30)
"""How long a rank waits for the others. Some wait while others validate, however large the cases are. A process that
died is noticed at once, by its connection and by the process that started it, so no shorter time is needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """The processes of a run, as one of them sees them. A method that communicates must be called by all ranks.

    Attributes:
        number: The rank of this process, from 0.
        count: Number of processes.
        local_size: Number of them on this machine.
    """

    number: int = 0
    count: int = 1
    local_size: int = 1

    @property
    def alone(self) -> bool:
        """Whether there is no other process."""
        return self.count == 1

    @property
    def is_main(self) -> bool:
        """Whether this is the rank that reports and saves."""
        return self.number == 0

    def all_reduce(self, values: torch.Tensor) -> torch.Tensor:
        """Returns the sum over all ranks, without a gradient."""
        if self.alone:
            return values
        total = values.detach().clone()
        dist.all_reduce(total)
        return total

    def all_reduce_with_gradient(self, values: torch.Tensor) -> torch.Tensor:
        """Returns the sum over all ranks, through which gradients flow back to the values of each rank.

        Every rank must calculate the same function of the sum, and take `equal_share` of it as its loss.
        """
        return values if self.alone else cast(torch.Tensor, _AllReduce.apply(values, self.count))  # type: ignore[no-untyped-call]

    def equal_share(self, value: torch.Tensor) -> torch.Tensor:
        """Returns a value that all ranks have calculated in the same way, divided by their number."""
        return value if self.alone else value / self.count

    def broadcast_float(self, value: float) -> float:
        """Returns the number of the main rank, such as its clock, on all ranks."""
        if self.alone:
            return value
        number = torch.tensor(value, dtype=torch.float64)
        dist.broadcast(number, 0)
        return float(number)

    def broadcast(self, value: T) -> T:
        """Returns the value of the main rank on all ranks; it can be pickled, and is small."""
        if self.alone:
            return value
        values = [value]
        dist.broadcast_object_list(values, 0)
        return values[0]

    def all_gather(self, value: T) -> list[T]:
        """Returns the values of all ranks, in their order, on all ranks; see `broadcast`."""
        if self.alone:
            return [value]
        values = [value] * self.count
        dist.all_gather_object(values, value)
        return values

    def all_reduce_max(self, value: int) -> int:
        """Returns the largest value of all ranks."""
        if self.alone:
            return value
        largest = torch.tensor(value)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return int(largest)

    def barrier(self) -> None:
        """Waits until all ranks have called this, for as long as it takes."""
        self.all_reduce_max(0)

    def check_same_step(self, step: int, checkpoint: str) -> None:
        """Makes sure that all ranks go on from the same step.

        Raises:
            AutosegError: They do not: not all of them see the files of the main rank.
        """
        main_step = int(self.broadcast_float(step))
        if self.all_reduce_max(abs(step - main_step)) > 0:
            what = f"not all processes see the same {checkpoint}; this one is at step {step}, the first at {main_step}"
            raise AutosegError(what, "let all machines share the workspace, and wait until its files have arrived")

    def wrap_ddp(self, network: nn.Module, idle: Sequence[str] = ()) -> nn.Module:
        """Returns the network wrapped so that its gradients are averaged over all ranks; see `scale_for_ddp`.

        Args:
            network: The network, on the device of this rank.
            idle: Names of parts, or of weights, that the loss does not depend on: they get no gradients.
        """
        if self.alone:
            return network
        prefixes = tuple(f"{part}." for part in idle)
        left_out = [weights for name, weights in network.named_parameters() if f"{name}.".startswith(prefixes)]
        left_out = [weights for weights in left_out if weights.requires_grad]
        for weights in left_out:  # DDP waits for the gradients of all weights that ask for one while it is made
            weights.requires_grad_(False)
        # The warning is about axes of length 1, whose strides mean nothing.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        wrapped: nn.Module = DistributedDataParallel(network)
        for weights in left_out:
            weights.requires_grad_(True)
        return wrapped

    def scale_for_ddp(self, share: torch.Tensor) -> torch.Tensor:
        """Returns the loss of this rank times the number of ranks: DDP averages gradients, and they are to add up."""
        return share if self.alone else share * self.count

    def without_all_reduce(self, forward: object) -> AbstractContextManager[None]:
        """Returns a context in which gradients are not averaged yet, because further micro-batches follow."""
        return nullcontext() if self.alone else cast(AbstractContextManager[None], cast(Any, forward).no_sync())

    def shutdown(self) -> None:
        """Ends the process group once all is done. A run that failed just ends, since others may not answer."""
        if not self.alone:
            gc.collect()  # networks that refer to the group would keep its threads, which the end of Python kills
            dist.destroy_process_group()


ALONE = Ranks()


class _AllReduce(torch.autograd.Function):
    """A sum over all ranks, with a gradient.

    Each rank takes a share of the same function of the sum, so each has the same gradient: the sum of the gradients is
    known without communication.
    """

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, count: int) -> torch.Tensor:
        ctx.count = count
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradients[0] * ctx.count, None


def is_main_process(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is the main rank, or the only process."""
    return not is_distributed(environment) or environment["RANK"] == "0"


def is_distributed(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether torchrun, or `training.launch`, started this process as one of several."""
    return "RANK" in environment and int(environment.get("WORLD_SIZE", "1")) > 1


def find_ranks(device: torch.device, environment: Mapping[str, str] = os.environ) -> tuple[Ranks, torch.device]:
    """Reads the variables that torchrun sets; `init_ranks` then connects the processes.

    Example:
        >>> find_ranks(torch.device("cpu"), {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"})
        (Ranks(number=1, count=2, local_size=1), device(type='cpu'))

    Args:
        device: The device that the user named.
        environment: The variables of this process.

    Returns:
        The ranks, and the device of this process: with several CUDA GPUs, the one of its local rank.

    Raises:
        UsageError: There are fewer GPUs than processes, or one was named, or the device knows no process groups.
    """
    if not is_distributed(environment):
        return ALONE, device
    number, count = int(environment["RANK"]), int(environment["WORLD_SIZE"])
    local_rank, local_size = int(environment.get("LOCAL_RANK", "0")), int(environment.get("LOCAL_WORLD_SIZE", "1"))
    check_device(device, local_rank + 1)
    if device.type == "cuda":
        device = torch.device("cuda", local_rank)
    return Ranks(number=number, count=count, local_size=local_size), device


def init_ranks(ranks: Ranks, device: torch.device) -> None:
    """Connects this process with the other ranks, and waits for them; a single process has nothing to do.

    Args:
        ranks: From `find_ranks`.
        device: From `find_ranks`; a CUDA GPU becomes the current one.
    """
    if ranks.alone:
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=TIMEOUT)
        torch.set_num_threads(max(1, torch.get_num_threads() // ranks.local_size))


def check_device(device: torch.device, count: int) -> None:
    """Makes sure that a machine has a device for each of its processes.

    Raises:
        UsageError: It has fewer GPUs, or the device cannot be shared.
    """
    if device.type == "mps" or ":" in str(device):
        raise UsageError(f"several processes cannot share {device}", "choose --device cuda, or leave out --gpus")
    if device.type == "cuda" and count > torch.cuda.device_count():
        what = f"this machine has {torch.cuda.device_count()} CUDA GPUs, not {count}"
        raise UsageError(what, "ask for fewer")


def check_shares(ranks: Ranks, batch_size: int) -> None:
    """Makes sure that each rank has at least one patch of a batch.

    Raises:
        UsageError: The batch is too small.
    """
    if batch_size < ranks.count:
        what = f"a batch of {batch_size} patches cannot be shared among {ranks.count} processes"
        raise UsageError(what, f"take at most {batch_size}, or raise batch_size in plan.json and train with --restart")
