"""How much the server takes, and what it says when something is refused."""

from dataclasses import dataclass, field

GIBIBYTE = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the server takes at most.

    Attributes:
        upload_bytes: Bytes of a request.
        voxels: Voxels of a scan, with all its channels, as it is stored and as each network sees it. Decision: by
            default 2**28, a CT of 1024 slices of 512 x 512, whose numbers take a gigabyte.
        waiting: Scans that wait, or are being sent, while another one is segmented.
        unpacked_ratio: How many times as many bytes as `upload_bytes` the files of a zip file may have in all.
            Decision: scans are packed to a third.
        members: Files in a zip file. Decision: a series of a whole body over time has some thousands.
        upload_seconds: Time in which a request must arrive. Decision: a gigabyte in ten minutes is 14 Mbit/s.
        idle_seconds: Time without a byte after which a request is given up.
    """

    upload_bytes: int = GIBIBYTE
    voxels: int = 2**28
    waiting: int = 8
    unpacked_ratio: int = 4
    members: int = 20_000
    upload_seconds: float = 600.0
    idle_seconds: float = 30.0


@dataclass
class Refusal(Exception):  # noqa: N818 - most of them are no errors of the server
    """A request that is not fulfilled.

    Attributes:
        status: Status of HTTP.
        line: What is wrong and what to do, in a line.
        headers: Further headers of the answer, such as Retry-After.
    """

    status: int
    line: str
    headers: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.line
