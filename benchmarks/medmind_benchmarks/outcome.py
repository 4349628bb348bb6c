"""What `medmind-bench quants` gave: report, records beside it, and in one line what is lacking. Writes nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medmind.errors import MedmindError
from medmind_benchmarks.cause import REMEDIES
from medmind_benchmarks.results import Level, Report


@dataclass(frozen=True)
class Outcome:
    """The report, and per held-out row, chunk of raw text and question what each level made of it, for comparisons.

    Attributes:
        measured: whether any cell of any level gave a result.
    """

    report: Report
    rows: list[Mapping[str, Any]]
    chunks: list[Mapping[str, Any]]
    questions: list[Mapping[str, Any]]
    measured: bool

    @property
    def missing(self) -> list[Level]:
        """Levels of which something was not measured."""
        return [level for level in self.report.levels if level.status != "measured"]

    def demand_whole(self, report: Path) -> None:
        """Raise when something was not measured, naming what to do about it and where the rest is.

        Args:
            report: where people find what was measured, and every reason.
        """
        missing = self.missing
        if not missing:
            return
        # what failed comes first: it was tried; of what is too large, the smallest is nearest to fitting
        worst = min(missing, key=lambda level: (level.status != "failed", level.size if not self.measured else 0))
        if self.measured:
            raise MedmindError(
                f"{len(missing)} of {len(self.report.levels)} levels were not measured whole: "
                f"{worst.label} {worst.status}: {worst.reason}",
                f"the rest is in {report}",
            )
        gap = next(gap for gap in worst.gaps if gap.status != "skipped")
        raise MedmindError(
            f"nothing could be measured: {worst.label}, {gap.cell} {gap.status}: {gap.reason}",
            f"{REMEDIES[gap.cause]}; all reasons are in {report}",
        )
