"""The command that examines the machine."""

import typer

from autoseg.cli.command import EXIT_ERROR
from autoseg.cli.options import WorkspacePath


def doctor(workspace: WorkspacePath = None) -> None:
    """Looks for what could go wrong on this machine.

    Shows versions, devices, memory and folders, times a convolution, tries the convolutions that some versions of torch
    calculate wrongly, and says what the machine is good for.
    """
    from autoseg.cli.terminal import print_table
    from autoseg.pipeline import examine_machine

    findings = examine_machine(workspace)
    rows = [(finding.state, finding.title, finding.value, finding.advice) for finding in findings]
    print_table("", ("", "what", "found", "advice"), rows)
    if any(finding.state == "failure" for finding in findings):
        raise typer.Exit(EXIT_ERROR)
