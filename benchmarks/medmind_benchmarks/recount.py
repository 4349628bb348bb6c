"""Whether a report says what its records come to: figures edited by hand, or of another run, are no measurement.

Knows reports and the records beside them; compares no two reports.
"""

import math
from collections.abc import Iterator
from pathlib import Path

from medmind.errors import MedmindError
from medmind_benchmarks import statistics
from medmind_benchmarks.figures import Fidelity, Perplexity
from medmind_benchmarks.pairing import Beside, Records
from medmind_benchmarks.results import Level, Report

_ROUNDING = 1e-6
"""Relative; what summing in another order may change."""
_AGAIN = "measure again with: medmind-bench quants --force"


def demand(path: Path, report: Report, beside: Beside) -> None:
    """Raise unless each figure that the records hold is the report's.

    Args:
        path: of the report, for people.
        beside: its records; a level that is not in them is not looked at.

    Raises:
        MedmindError: names level, figure and both values; or records without what they are of.
    """
    for level in report.levels:
        try:
            figures = list(_figures(level, beside))
        except (KeyError, TypeError, ValueError) as error:
            raise MedmindError(f"the records beside {path} are damaged: {error!r}", _AGAIN) from error
        for name, said, found in figures:
            if not math.isclose(said, found, rel_tol=_ROUNDING, abs_tol=_ROUNDING**2):
                raise MedmindError(
                    f"{path}: {level.label}'s {name} is {said:.6g}, the records beside it come to {found:.6g}",
                    _AGAIN,
                )


def _figures(level: Level, beside: Beside) -> Iterator[tuple[str, float, float]]:
    """Name, what the report says and what its records come to."""
    mine = level.figures
    yield from _text("", mine.answers, mine.answers_fidelity, beside.rows, level.label)
    yield from _text(", raw text", mine.raw, mine.raw_fidelity, beside.chunks, level.label)
    for choice in mine.choices:
        asked = [one["right"] for one in beside.questions if one["task"] == choice.task]
        right = [one[level.label] for one in asked if level.label in one]
        if right:
            yield f"right, {choice.task}", choice.quoted.value, sum(right) / len(right)


def _text(
    name: str, said: Perplexity | None, fidelity: Fidelity | None, records: Records, label: str
) -> Iterator[tuple[str, float, float]]:
    scored = [one for one in records if one["tokens"]]
    tokens = [one["tokens"] for one in scored]
    if said and scored and all(label in one["nll"] for one in scored):
        nll = [one["nll"][label] for one in scored]
        yield f"perplexity{name}", said.perplexity.value, statistics.perplexity(nll, tokens).value
    if fidelity and scored and all(label in one["kl"] for one in scored):
        kl = [one["kl"][label] for one in scored]
        yield f"mean KL{name}", fidelity.kl_mean.value, statistics.ratio_of_sums(kl, tokens).value
