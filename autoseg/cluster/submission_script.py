"""The script that hands the jobs of a graph to a scheduler: all of them, or none if one is refused."""

from collections.abc import Sequence

from autoseg.cluster.graph import JobGraph
from autoseg.cluster.quoting import quote

END = "END_OF_JOB"


def make_submission_script(graph: JobGraph, submit: str, cancel: str, entries: Sequence[tuple[str, str]]) -> str:
    """Returns a bash script that submits each job, and prints its id and its name.

    Args:
        graph: The jobs.
        submit: Definition of the function `submit`, which takes the name of a job, its number of parts (0 for one
            command) and options, and appends its id to `ids`.
        cancel: Command that cancels jobs by their ids.
        entries: For each job, the arguments of `submit`, quoted, and the script of the job.
    """
    lines = [
        "#!/bin/bash",
        f"# Submits {len(graph.jobs)} {'job' if len(graph.jobs) == 1 else 'jobs'}: bash THIS_FILE",
        "set -euo pipefail",
        f"folder={quote(str(graph.folder.absolute()))}",
        'mkdir -p "$folder"',
        "ids=()",
        f"""trap '[ $? -eq 0 ] || [ ${{#ids[@]}} -eq 0 ] || {cancel} "${{ids[@]}}"' EXIT  # all jobs or none""",
        submit,
    ]
    for options, script in entries:
        lines += ["", f"submit {options} <<'{END}'", script + END]
    return "\n".join(lines) + "\n"
