"""Made commands.json in this folder, at commit 7b480b6: all commands and options, public names and their arguments.

    PYTHONPATH=.:tests python tests/golden/version_1/make_commands.py

It is kept to show how the file was made.
"""

import json
from pathlib import Path

from test_version_1_commands import describe_commands, describe_functions

import autoseg

if __name__ == "__main__":
    surface = {"commands": describe_commands(), "names": autoseg.__all__, "functions": describe_functions()}
    Path(__file__).with_name("commands.json").write_text(json.dumps(surface, indent=1) + "\n")
