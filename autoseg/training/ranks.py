"""Several processes that train one network together: the ranks of a run.

Each has a GPU, or a share of the CPU, and the same weights. Of every batch it makes and learns from a share of the
patches; the gradients are added up, so all take the same step, which is that of one process with the whole batch. Where
a sum goes over the patches of a batch, it goes over all ranks: the loss of a rank is its share, and the shares add up
to the loss of the batch. The first rank alone speaks and saves.

`ALONE` is the usual single process, to which all of this is nothing.
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
"""Some wait while others validate, however large the cases are. That a process died is noticed at once, by its
connection and by whoever started it, so no time needs to run out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """The processes of a run, as one of them sees them. What has to do with all must be called by all.

    Attributes:
        number: Of this process, from 0.
        count: How many there are.
        local_size: How many of them share this machine.
    """

    number: int = 0
    count: int = 1
    local_size: int = 1

    @property
    def alone(self) -> bool:
        """Whether there is no other."""
        return self.count == 1

    @property
    def is_main(self) -> bool:
        """Whether this is the one that speaks and saves."""
        return self.number == 0

    def all_reduce(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all ranks, without a gradient."""
        if self.alone:
            return values
        total = values.detach().clone()
        dist.all_reduce(total)
        return total

    def pool(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all ranks, through which gradients flow back to the values of each.

        Every rank must go on to the same function of the sum and take `share_of` it.
        """
        return values if self.alone else cast(torch.Tensor, _Pooled.apply(values, self.count))  # type: ignore[no-untyped-call]

    def share_of(self, value: torch.Tensor) -> torch.Tensor:
        """Of something that all ranks have calculated in the same way: an equal part."""
        return value if self.alone else value / self.count

    def broadcast_float(self, value: float) -> float:
        """What the first rank says, such as its clock."""
        if self.alone:
            return value
        said = torch.tensor(value, dtype=torch.float64)
        dist.broadcast(said, 0)
        return float(said)

    def broadcast(self, value: T) -> T:
        """What the first rank gives, for all; it can be pickled, and is small."""
        if self.alone:
            return value
        values = [value]
        dist.broadcast_object_list(values, 0)
        return values[0]

    def all_gather(self, value: T) -> list[T]:
        """What each rank gives, for all, in the order of their numbers; see `broadcast`."""
        if self.alone:
            return [value]
        values = [value] * self.count
        dist.all_gather_object(values, value)
        return values

    def find_largest(self, value: int) -> int:
        """The largest value of any rank."""
        if self.alone:
            return value
        largest = torch.tensor(value)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return int(largest)

    def wait(self) -> None:
        """Waits until all have come here, for as long as it takes."""
        self.find_largest(0)

    def check_same_step(self, step: int, checkpoint: str) -> None:
        """Makes sure that all ranks go on from the same step.

        Raises:
            AutosegError: They do not: not all of them see the files of the first one.
        """
        first = int(self.broadcast_float(step))
        if self.find_largest(abs(step - first)) > 0:
            what = f"not all processes see the same {checkpoint}; this one is at step {step}, the first at {first}"
            raise AutosegError(what, "let all machines share the workspace, and wait until its files have arrived")

    def wrap_ddp(self, network: nn.Module, idle: Sequence[str] = ()) -> nn.Module:
        """Returns the network wrapped so that its gradients are averaged over all ranks; see `scale_for_ddp`.

        Args:
            network: On the device of this rank.
            idle: Names of parts, or of weights, whose outputs the loss does not look at: they have no gradients.
        """
        if self.alone:
            return network
        parts = tuple(f"{part}." for part in idle)
        left_out = [weights for name, weights in network.named_parameters() if f"{name}.".startswith(parts)]
        left_out = [weights for weights in left_out if weights.requires_grad]
        for weights in left_out:  # torch would wait for their gradients, of all that ask for some while it looks
            weights.requires_grad_(False)
        # It is about axes of length 1, whose strides mean nothing.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        joined: nn.Module = DistributedDataParallel(network)
        for weights in left_out:
            weights.requires_grad_(True)
        return joined

    def scale_for_ddp(self, share: torch.Tensor) -> torch.Tensor:
        """What a rank goes back from, so that the mean of the gradients is that of the sum of all shares."""
        return share if self.alone else share * self.count

    def without_all_reduce(self, forward: object) -> AbstractContextManager[None]:
        """A context in which gradients are not added up over the ranks yet, because more of the batch is to come."""
        return nullcontext() if self.alone else cast(AbstractContextManager[None], cast(Any, forward).no_sync())

    def shutdown(self) -> None:
        """Ends the group when all is done. A run that failed just ends, since others may not answer any more."""
        if not self.alone:
            gc.collect()  # networks that know the group would keep its threads alive, which the end of Python kills
            dist.destroy_process_group()


ALONE = Ranks()


class _Pooled(torch.autograd.Function):
    """A sum over all ranks.

    Each rank takes a share of the same function of the sum, so each has the same gradient: their sum is known without
    asking the others.
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
    """Whether this process is the first of its ranks, or the only one."""
    return not is_distributed(environment) or environment["RANK"] == "0"


def is_distributed(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether torchrun, or `processes.launch`, started this process as one of several."""
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
        UsageError: It has not.
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
