"""The findings of the doctor as typed data. Knows neither how they are found nor how they are shown."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["ok", "warning", "missing", "broken"]


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: what was looked at.
        status: `missing` is not there, `broken` is there and does not work (and makes the doctor exit with 1).
        finding: one line.
        mend: one line on what to do; empty when there is nothing to do.
    """

    name: str
    status: Status
    finding: str
    mend: str = ""


@dataclass(frozen=True)
class Stage:
    """What one stage (train, convert, chat, bench) can do on this machine."""

    name: str
    status: Status
    finding: str
    mend: str = ""


@dataclass(frozen=True)
class Report:
    """All findings, in the order in which they are shown."""

    checks: tuple[Check, ...]
    stages: tuple[Stage, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing that is there is broken."""
        statuses = [check.status for check in self.checks] + [stage.status for stage in self.stages]
        return "broken" not in statuses

    def document(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "ok": self.ok,
            "checks": [asdict(check) for check in self.checks],
            "stages": [asdict(stage) for stage in self.stages],
        }
