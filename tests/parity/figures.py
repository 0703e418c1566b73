"""What the parity tests found, as a table in Markdown."""

from dataclasses import dataclass, field
from pathlib import Path

STAGES = (
    "fingerprint",
    "plan",
    "splits",
    "preprocessed image",
    "preprocessed label map",
    "tile positions",
    "Gaussian",
    "logits of a network",
    "probabilities",
    "probabilities, its tiles in float32",
    "label maps",
    "label maps, its tiles in float32",
    "label maps in bfloat16",
    "label maps of an ensemble",
    "logits to a label map",
    "evaluation",
    "postprocessing",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of the table."""

    stage: str
    data: str
    found: str
    asked: str


@dataclass(frozen=True, slots=True)
class Figures:
    """The lines so far.

    Attributes:
        rows: In the order of the tests.
        path: Where the table is written, anew with each line: a test that fails does not hide what others found.
    """

    rows: list[Row] = field(default_factory=list)
    path: Path | None = None

    def add(self, stage: str, data: str, found: str, asked: str) -> None:
        """Adds a line."""
        self.rows.append(Row(stage=stage, data=data, found=found, asked=asked))
        if self.path is not None:
            self.path.write_text(self.table() + "\n")

    def table(self) -> str:
        """All lines, by stage."""

        def place(row: Row) -> int:
            return STAGES.index(row.stage) if row.stage in STAGES else len(STAGES)

        lines = [f"| {row.stage} | {row.data} | {row.found} | {row.asked} |" for row in sorted(self.rows, key=place)]
        return "\n".join(["| stage | data | found | asked for |", "|---|---|---|---|", *lines])
