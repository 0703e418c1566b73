"""The pages of the guide and README as texts, and the code in them."""

import re
import shlex
from importlib.resources import files
from pathlib import Path

GUIDE = Path(str(files("autoseg"))) / "guide"
CHECKOUT = Path(__file__).parents[2]
README = CHECKOUT / "README.md"
INDEX = GUIDE / "README.md"
PAGES = sorted(path for path in GUIDE.glob("*.md") if path != INDEX)
ALL = [README, INDEX, *PAGES]


def name_of(path: Path) -> str:
    """What a test calls a page."""
    return "README" if path == README else "index" if path == INDEX else path.stem


def read(path: Path) -> str:
    """The text of a page."""
    return path.read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    """The blocks of code in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def prose(text: str) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[str]:
    """What follows "autoseg" in the shell blocks, without comments."""
    lines = [line for block in blocks(text, "bash") for line in block.splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [shlex.join(line[1:]) for line in words if line and line[0] == "autoseg"]
