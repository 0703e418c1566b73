"""The bash script of one job: it runs a command, records what happens, and ends itself in time before its limit."""

from collections.abc import Sequence
from dataclasses import dataclass

from autoseg.cluster.graph import EXIT_UNFINISHED, Job, JobGraph, record_file
from autoseg.cluster.quoting import quote, quote_command

EXIT_TIMEOUT = 124
"""Exit code of `timeout` if the time was over."""

OUT_OF_TIME = "ended itself before its time limit; submit it again to go on"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What differs between schedulers inside the script of a job.

    Attributes:
        identify: Lines that set `id`, the id of the job or of the array.
        part: Variable that holds the number of the part of an array; schedulers may leave it out if there is one part.
        cores: Variable that holds the number of cores, if the scheduler says so.
        warning: Signal by which the scheduler says that the time limit is near; None if the script sets a clock.
        go_on: Lines for a job that ended because its time limit is near; the exit code is in `code`.
    """

    identify: tuple[str, ...]
    part: str
    cores: str
    warning: str | None
    go_on: tuple[str, ...]


def make_job_script(
    graph: JobGraph, job: Job, dialect: Dialect, *, setup: Sequence[str] = (), clock_seconds: int | None = None
) -> str:
    """Returns the script of a job.

    The command runs in the background, because bash handles a signal only when its present command has ended, unless
    that is `wait`. A warning of the time limit, and SIGTERM of a job that is cancelled or whose machine is taken away,
    are passed on to the command as SIGTERM: a training then saves its state and ends. Only the first goes on later.

    Args:
        graph: The graph of the job.
        job: The job.
        dialect: What is particular to the scheduler.
        setup: Lines of the user before the command.
        clock_seconds: Seconds after which the command is asked to end, if the scheduler sends no signal.

    Returns:
        The script. Whatever paths hold, no line of it begins with them.
    """
    command = quote_command(job.command)
    if job.parts is not None:
        command += f' --part "${{{dialect.part}:-1}}/{job.parts}"'
    if clock_seconds is not None:
        command = f"timeout --signal=TERM {clock_seconds} {command}"
    traps = ["trap 'ask_to_end' TERM"]
    if dialect.warning is not None:
        traps.append(f"trap 'limit_is_near=yes; ask_to_end' {dialect.warning}")
    lines = [
        "#!/bin/bash",
        f"record={quote(str(record_file(graph.folder, job.name).absolute()))}",
        *dialect.identify,
        *([] if job.parts is None else [f"id=${{id}}_${{{dialect.part}:-1}}"]),
        """note() { printf '%s\\n' "$*" >> "$record"; }""",
        """ask_to_end() { signalled=yes; [ -z "$process" ] || kill -TERM "$process" 2> /dev/null; }""",
        "process= limit_is_near=",
        *traps,
        """note begun "$id" "$(hostname)\"""",
        f'[ -z "${{{dialect.cores}:-}}" ] || export OMP_NUM_THREADS="${{OMP_NUM_THREADS:-${dialect.cores}}}"',
        *setup,
        f"{command} &",
        "process=$! code=",
        'until [ -n "$code" ]; do',
        "    signalled=",
        '    wait "$process"; code=$?',
        '    [ -z "$signalled" ] || code=    # a signal may have ended the waiting, and not the command',
        "done",
        *_check_result(job),
        *([] if clock_seconds is None else [f'[ "$code" -ne {EXIT_TIMEOUT} ] || echo "{OUT_OF_TIME}"']),
        *_go_on(dialect),
        'note ended "$id" "$code"',
        'exit "$code"',
    ]
    return "\n".join(lines) + "\n"


def _go_on(dialect: Dialect) -> list[str]:
    """Returns the lines for a job that ended because its time limit is near."""
    if dialect.warning is None:
        return []
    lines = (f"    {line}" for line in dialect.go_on)
    return ['if [ -n "$limit_is_near" ] && [ "$code" -ne 0 ]; then', *lines, "fi"]


def _check_result(job: Job) -> list[str]:
    if job.result is None:
        return []
    return [
        f'if [ "$code" -eq 0 ] && [ ! -e {quote(str(job.result.absolute()))} ]; then',
        f"    echo 'stopped before its end; submit it again to go on'; code={EXIT_UNFINISHED}",
        "fi",
    ]
