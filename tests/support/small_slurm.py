"""A Slurm of this machine alone: a controller and nodes on loopback, for the time of a test."""

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel")
SBIN = ("/usr/sbin", "/usr/local/sbin")
START_SECONDS = 30.0

CONFIGURATION = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,ttl=60,cred_expire=5
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={port}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdSpoolDir={folder}/spool-%n
StateSaveLocation={folder}/state
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_min_interval=100000,batch_sched_delay=0,sched_interval=1
KillWait=5
MinJobAge=300
InactiveLimit=0
ReturnToService=2
SlurmdTimeout=300
"""


def find_program(name: str) -> str | None:
    """Path of a program of Slurm or munge, or None where it is not installed."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *SBIN]))


def missing_programs() -> list[str]:
    """Programs that a small Slurm needs and this machine lacks."""
    return [name for name in PROGRAMS if find_program(name) is None]


@dataclass(frozen=True)
class SmallSlurm:
    """A running Slurm: its folder of logs, the names of its nodes, and how to reach it."""

    folder: Path
    nodes: tuple[str, ...]

    @property
    def environment(self) -> dict[str, str]:
        """What the programs of Slurm need to find it."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def call(self, *command: str, check: bool = True) -> str:
        """Output of a program of Slurm."""
        program = find_program(command[0]) or command[0]
        environment = {**os.environ, **self.environment}
        result = subprocess.run([program, *command[1:]], env=environment, capture_output=True, text=True, check=False)
        assert not check or result.returncode == 0, result.stderr
        return result.stdout

    def states(self) -> dict[str, str]:
        """Number of each job, or part of an array, to its state; for five minutes after its end as well."""
        lines = self.call("squeue", "--all", "--array", "--states=all", "--noheader", "--format=%i %T").splitlines()
        return dict(line.split() for line in lines)

    def wait(self, seconds: float = 60.0) -> dict[str, str]:
        """The states when no job waits or runs any longer, or will never run."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            states = self.states()
            if not set(states.values()) & {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED"}:
                return states
            time.sleep(0.2)
        raise AssertionError(self.call("squeue", "--all", "--array"))


@contextmanager
def small_slurm(folder: Path, nodes: int = 2, cores: int = 2) -> Iterator[SmallSlurm]:
    """Starts munged, slurmctld and a slurmd for each node, and ends them."""
    names = tuple(f"n{number}" for number in range(1, nodes + 1))
    controller, *ports = _free_ports(nodes + 1)
    text = CONFIGURATION.format(
        host=socket.gethostname().split(".")[0], folder=folder, user=getpass.getuser(), port=controller
    )
    for name, port in zip(names, ports, strict=True):
        text += f"NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs={cores} RealMemory=8000\n"
    text += f"PartitionName=all Nodes={','.join(names)} Default=YES MaxTime=INFINITE State=UP\n"
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    (folder / "state").mkdir()
    (folder / "slurm.conf").write_text(text)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    slurm = SmallSlurm(folder=folder, nodes=names)
    with ExitStack() as stack:
        options = [f"--{name}={folder}/munge.{end}" for name, end in MUNGE_FILES.items()]
        _start(stack, slurm, ["munged", "--foreground", "--force", *options])
        _start(stack, slurm, ["slurmctld", "-D", "-f", str(folder / "slurm.conf")])
        for name in names:
            (folder / f"spool-{name}").mkdir()
            _start(stack, slurm, ["slurmd", "-D", "-N", name, "-f", str(folder / "slurm.conf")])
        _wait_until_idle(slurm)
        try:
            yield slurm
        finally:
            slurm.call("scancel", "--full", f"--user={getpass.getuser()}", check=False)


MUNGE_FILES = {
    "socket": "socket",
    "key-file": "key",
    "pid-file": "pid",
    "log-file": "log",
    "seed-file": "seed",
}


def _start(stack: ExitStack, slurm: SmallSlurm, command: Sequence[str]) -> None:
    """Starts a program, which ends with the test."""
    program = find_program(command[0])
    assert program is not None
    with (slurm.folder / f"{command[0]}.err").open("a") as errors:
        process = subprocess.Popen(
            [program, *command[1:]],
            env={**os.environ, **slurm.environment},
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )

    def end() -> None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    stack.callback(end)


def _wait_until_idle(slurm: SmallSlurm) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        states = slurm.call("sinfo", "--noheader", "--Node", "--format=%T", check=False).split()
        if states == ["idle"] * len(slurm.nodes):
            return
        time.sleep(0.2)
    raise AssertionError("\n".join(path.read_text() for path in sorted(slurm.folder.glob("*.log"))))


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
