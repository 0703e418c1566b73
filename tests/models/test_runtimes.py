"""Runtimes other than torch, as programs use them."""

import subprocess
import sys

import pytest
from small_models import small_checkpoint

from autoseg.models.onnx_export import export_fold

USED_AND_RELEASED = """
import faulthandler
import signal
import sys
import threading
from pathlib import Path

import numpy as np

from autoseg.models.runtimes import ExportedNetwork

faulthandler.enable()  # which gives the main thread a stack for signals, as many programs do
networks = [ExportedNetwork(sys.argv[1], Path(sys.argv[2]).read_bytes(), "the network")]
assert networks[0](np.zeros((1, 1, 16, 16, 16))).shape == (1, 3, 16, 16, 16)
releasing = threading.Thread(target=networks.clear)
releasing.start()
releasing.join()
heard = []
signal.signal(signal.SIGINT, lambda *_: heard.append(True))
signal.raise_signal(signal.SIGINT)
assert heard == [True]
print("went on")
"""


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_signals_are_heard_after_the_last_network_was_released(runtime, tmp_path):
    """In another thread than the one that opened it. OpenVINO's own release would crash the process."""
    export_fold(small_checkpoint(), tmp_path / "network.onnx")
    command = [sys.executable, "-c", USED_AND_RELEASED, runtime, str(tmp_path / "network.onnx")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "went on\n"), ran.stderr
