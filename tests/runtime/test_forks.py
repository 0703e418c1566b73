"""A process that was forked after its parent calculated works or says why not; it never waits for ever."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_models import small_checkpoint

from autoseg.errors import UsageError
from autoseg.models.checkpoint import save_checkpoint
from autoseg.runtime import forks
from autoseg.runtime.forks import calculation, watch_forks
from autoseg.workspace import ModelFolder

SCRIPT = """
import multiprocessing, sys, threading
import numpy as np, torch
import autoseg
from autoseg.runtime.forks import calculation

torch.set_num_threads(2)
model = autoseg.load_model(sys.argv[1], device="cpu")
scan = np.random.default_rng(0).normal(size=(8, 8, 8)).astype("f4")

def segment(seed=0):
    torch.set_num_threads(2)  # as a program may, which would make the child wait for ever
    return model.predict(np.roll(scan, seed), spacing_mm=(1, 1, 1)).sum()

def fail():
    try:
        segment()
    except autoseg.AutosegError as error:
        print(error, flush=True)

expected = [segment(seed) for seed in range(2)]
fork = multiprocessing.get_context("fork")
with fork.Pool(2) as pool:
    print("pool", pool.map_async(segment, range(2)).get(timeout=60) == expected, flush=True)
options = {"num_workers": 1, "multiprocessing_context": "fork"}
loader = torch.utils.data.DataLoader(range(2), collate_fn=lambda batch: segment(batch[0]), **options)
print("workers", list(loader) == expected, flush=True)
with calculation("cpu"):
    child = fork.Process(target=fail)
    child.start()
child.join(60)
print("ended", child.exitcode)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no forks")
def test_children_segment_what_their_parent_does_or_say_why_not(tmp_path: Path) -> None:
    """Workers of a pool and of a DataLoader do; a fork in the midst of a prediction is refused."""
    save_checkpoint(small_checkpoint(), ModelFolder(path=tmp_path).checkpoint(0))
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    first, second, refusal, last = done.stdout.splitlines()
    assert (first, second, last) == ("pool True", "workers True", "ended 0"), done.stderr
    assert refusal.startswith("this process was forked while a thread of its parent was predicting; load the model in")


def test_a_gpu_is_not_shared_with_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA does not allow it; a process that was not forked may use it."""
    watch_forks()
    with calculation("cuda"):
        pass
    monkeypatch.setattr(forks._Process, "is_fork", True)
    with (
        pytest.raises(UsageError, match="forked from one that uses cuda, which no other process can; load the model"),
        calculation("cuda"),
    ):
        pass
