"""The results of the parity tests as a table in Markdown."""

from dataclasses import dataclass, field
from pathlib import Path

from machine_line import machine_line

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
    """A line of the table.

    Attributes:
        stage: Stage of the pipeline, one of `STAGES`.
        data: Dataset, configuration or made-up case.
        found: Result of the comparison.
        asked: Limit that the result must keep; "-" if there is none.
    """

    stage: str
    data: str
    found: str
    asked: str


@dataclass(frozen=True, slots=True)
class Figures:
    """The lines so far.

    Attributes:
        rows: Lines in the order of the tests.
        path: File of the table, which is written anew with each line, so that a failing test hides no other result.
    """

    rows: list[Row] = field(default_factory=list)
    path: Path | None = None

    def add(self, stage: str, data: str, found: str, asked: str) -> None:
        """Adds a line."""
        self.rows.append(Row(stage=stage, data=data, found=found, asked=asked))
        if self.path is not None:
            self.path.write_text(self.table() + "\n")

    def table(self) -> str:
        """Returns all lines, ordered by stage, below a line that says what they were measured on."""

        def order(row: Row) -> int:
            return STAGES.index(row.stage) if row.stage in STAGES else len(STAGES)

        lines = [f"| {row.stage} | {row.data} | {row.found} | {row.asked} |" for row in sorted(self.rows, key=order)]
        return "\n".join([machine_line(), "", "| stage | data | result | aim |", "|---|---|---|---|", *lines])
