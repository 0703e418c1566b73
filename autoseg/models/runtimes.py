"""Runtimes other than torch that calculate an exported network: ONNX Runtime and OpenVINO, on the CPU.

A runtime is a class whose instances map a batch of patches to logits, both arrays of numpy. Each gets the number of its
threads, which is that of the cores, and no other pool calculates beside it.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from autoseg.errors import AutosegError, ModelError, UsageError
from autoseg.runtime.machine import count_cores

Patches = NDArray[np.float32]

TELEMETRY_PACKAGE = "openvino_telemetry"

TIMED_PASSES = 2
"""Number of passes of which the faster one counts, after one that makes ready."""


class Runtime(Protocol):
    """A network in the memory of a runtime."""

    def __call__(self, patches: Patches) -> Patches:
        """Maps patches (n, c, *patch) to logits (n, outputs, *centre)."""


@contextmanager
def telemetry_off() -> Iterator[None]:
    """Keeps the packages of runtimes that are imported meanwhile from sending or keeping data about their use.

    ONNX Runtime reads the environment variable when it is imported. OpenVINO imports openvino_telemetry, and takes an
    empty one if there is none. What a program imported before it called autoseg is left as it is.

    Source: Privacy.md of ONNX Runtime 1.32; openvino/tools/ovc of OpenVINO 2026.4, whose import sends an event.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    earlier = {name: module for name, module in sys.modules.items() if name == TELEMETRY_PACKAGE}
    sys.modules[TELEMETRY_PACKAGE] = None  # type: ignore[assignment]  # which an import takes for a missing package
    try:
        yield
    finally:
        del sys.modules[TELEMETRY_PACKAGE]
        sys.modules.update(earlier)


def _import_runtime(package: str) -> Any:
    with telemetry_off():
        return import_module(package)


class OnnxRuntime:
    """A network that ONNX Runtime calculates.

    Args:
        data: The network in ONNX.
        threads: Number of threads.
    """

    package: ClassVar[str] = "onnxruntime"

    def __init__(self, data: bytes, threads: int) -> None:
        onnxruntime = _import_runtime(self.package)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads leave the cores alone
        options.log_severity_level = 4
        self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def __call__(self, patches: Patches) -> Patches:
        """Maps patches to logits."""
        logits: Patches = self._session.run(None, {"image": patches})[0]
        return logits


class OpenVino:
    """A network that OpenVINO calculates, in float32.

    Args:
        data: The network in ONNX.
        threads: Number of threads.
    """

    package: ClassVar[str] = "openvino"

    def __init__(self, data: bytes, threads: int) -> None:
        core = _openvino_core(os.getpid())
        settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        self._request = core.compile_model(core.read_model(data), "CPU", settings).create_infer_request()

    def __call__(self, patches: Patches) -> Patches:
        """Maps patches to logits."""
        self._request.infer({0: patches})
        return np.array(self._request.get_output_tensor(0).data)  # a copy: the next call overwrites it


@cache
def _openvino_core(_process: int) -> Any:
    """Returns the core of OpenVINO of a process, which stays until that ends; a forked process has its own.

    Decision: when OpenVINO's last core goes, so does a library that has given the thread which loaded it a stack for
    signals (OpenVINO 2026.4). If that happens in another thread, the stack is gone but still in use, and the next
    signal, such as Ctrl-C, crashes the process.
    """
    return _import_runtime(OpenVino.package).Core()


RUNTIMES: dict[str, type[OnnxRuntime] | type[OpenVino]] = {"onnx": OnnxRuntime, "openvino": OpenVino}
"""Name of each runtime, which is also that of its extra, to its class."""

RUNTIME_NAMES = ("auto", "torch", *RUNTIMES)


def list_installed() -> list[str]:
    """Returns the names of the runtimes, other than torch, that are installed.

    Example:
        >>> set(list_installed()) <= {"onnx", "openvino"}
        True
    """
    return [name for name, runtime in RUNTIMES.items() if find_spec(runtime.package) is not None]


def describe_choice() -> str:
    """Returns in words which runtimes for exported models are installed, and which one "auto" takes.

    Example:
        >>> "exported models" in describe_choice()
        True
    """
    installed = list_installed()
    versions = [f"{name} ({RUNTIMES[name].package} {version(RUNTIMES[name].package)})" for name in installed]
    if not installed:
        return "torch; none is installed for exported models, see the guide's page on runtimes"
    if len(installed) == 1:
        return f"torch; for exported models {versions[0]}, the only one that is installed"
    return (
        f"torch; for exported models {' or '.join(versions)}, the faster one for the network, timed when it is loaded"
    )


def check_runtime(name: str) -> None:
    """Makes sure that there is a runtime of a name.

    Raises:
        UsageError: There is none, or it is not installed.
    """
    if name not in RUNTIME_NAMES:
        raise UsageError(f"there is no runtime {name!r}", f"choose from {', '.join(RUNTIME_NAMES)}")
    if name in RUNTIMES and name not in list_installed():
        package = RUNTIMES[name].package
        raise UsageError(f"the runtime {name} is not installed", f"pip install 'autoseg[{name}]', for {package}")


def count_threads() -> int:
    """Returns the number of threads of a runtime: that of the cores, or less if OMP_NUM_THREADS says so."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    return min(count_cores(), int(told)) if told.isdecimal() and int(told) > 0 else count_cores()


class ExportedNetwork:
    """An exported network in the memory of a runtime, which may be copied, pickled, and used after a fork.

    Args:
        runtime: Name of the runtime.
        data: The network in ONNX, checked by `onnx_checks.check_onnx`.
        source: Name of the network for messages.
    """

    def __init__(self, runtime: str, data: bytes, source: str) -> None:
        self.runtime, self._data, self._source = runtime, data, source
        self._open(count_threads())

    def __call__(self, patches: Patches) -> Patches:
        """Maps patches (n, c, *patch) to logits (n, outputs, *centre).

        Raises:
            ModelError: The network does not take such patches.
            AutosegError: The memory is full.
        """
        if os.getpid() != self._process:
            self._open(1)  # the threads stayed behind when the process was forked
        try:
            return self._network(np.ascontiguousarray(patches, dtype=np.float32))
        except Exception as error:  # the errors of runtimes are of their own kinds
            raise self._explain(error, patches.shape) from error

    def __getstate__(self) -> dict[str, Any]:
        """Supports pickling and copying: the network is opened again."""
        return {"runtime": self.runtime, "_data": self._data, "_source": self._source}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open(count_threads())

    def _open(self, threads: int) -> None:
        try:
            self._network: Runtime = RUNTIMES[self.runtime](self._data, threads)
        except Exception as error:  # the errors of runtimes are of their own kinds
            what = f"{self.runtime} cannot open {self._source}: {_first_line(error)}"
            raise ModelError(what, "try another one by --runtime, or export the model again") from error
        self._process = os.getpid()

    def _explain(self, error: Exception, shape: Sequence[int]) -> AutosegError:
        text = str(error)
        if isinstance(error, MemoryError) or "bad_alloc" in text or "allocate memory" in text:
            return AutosegError("the memory of the device cpu is full", "close other programs, or take more memory")
        what = f"{self.runtime} cannot calculate {self._source} for patches of shape {tuple(shape)}"
        return ModelError(f"{what}: {_first_line(error)}", "try another one by --runtime, or export the model again")


def choose_runtime(name: str, data: bytes, shape: Sequence[int]) -> str:
    """Returns the runtime of an exported network: the one that was asked for, or the fastest on this machine.

    Args:
        name: Name of a runtime, or "auto".
        data: The network in ONNX.
        shape: Shape (1, c, *patch) of the patch with which runtimes are timed if there are several.

    Raises:
        UsageError: The runtime is not installed, none is, or it is torch, which does not calculate exported networks.
        ModelError: No runtime calculates the network.
    """
    check_runtime(name)
    if name == "torch":
        what = "this model holds networks for other runtimes, and no weights that torch reads"
        raise UsageError(what, "leave out --runtime, or get the model that was exported without it")
    if name != "auto":
        return name
    installed = list_installed()
    if not installed:
        what = "this model needs a runtime for networks in ONNX, and none is installed"
        raise UsageError(what, "pip install 'autoseg[openvino]', or 'autoseg[onnx]'")
    if len(installed) == 1:
        return installed[0]
    seconds = {runtime: time_runtime(runtime, data, shape) for runtime in installed}
    return min(seconds, key=lambda runtime: seconds[runtime])


def time_runtime(name: str, data: bytes, shape: Sequence[int]) -> float:
    """Returns the seconds in which a runtime calculates a network for patches of noise; infinite if it cannot."""
    patches = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    try:
        network = ExportedNetwork(name, data, "the network")
        return min(_time(lambda: network(patches)) for _ in range(1 + TIMED_PASSES))
    except AutosegError:
        return float("inf")


def _time(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
