"""Which file to take: a non-inferiority test on paired perplexity ratios. Knows estimates and sizes, no rendering."""

from collections.abc import Sequence

from medmind_benchmarks.results import Level, Pick
from medmind_benchmarks.statistics import one_sided_95

FEWEST = 8
"""Rows below which no file is picked. Student's t makes the bounds as wide as so few roughly normal rows ask for; but
rows are not normal, a hard one now and then carries much of the mean, and fewer than these seldom hold one."""


def pick(levels: Sequence[Level], reference: str, tolerance: float, rows: int | None = None) -> Pick:
    """The smallest file whose perplexity ratio to the reference has its upper 95 % bound within the tolerance.

    "Not measurably worse" would not do: on too few rows no level is measurably worse. Here few rows widen the bound, by
    their scatter and by Student's t, and the pick falls back to a larger file; below `FEWEST` rows there is none.

    Args:
        levels: measured or not.
        reference: label of the level that ratios refer to.
        tolerance: relative rise of perplexity that is acceptable, 0.02 = 2 %.
        rows: held-out ones that the ratios' errors were estimated from; None: so many that the errors are known.
    """
    bounds = {
        level.label: level.quality.ratio.value + one_sided_95(rows) * level.quality.ratio.error
        for level in levels
        if level.quality and level.quality.ratio and level.quality.ratio.error is not None
    }
    if rows is not None and rows < FEWEST:
        return Pick(None, tolerance, bounds)
    passing = [level for level in levels if bounds.get(level.label, float("inf")) <= 1 + tolerance]
    smallest = min(passing, key=lambda level: level.size, default=None)
    whole = next((level for level in levels if level.label == reference), None)
    if smallest is not None and whole is not None and smallest.size >= whole.size:
        smallest = None
    return Pick(smallest.label if smallest else None, tolerance, bounds)
