"""The middle of paired differences and its bounds by Wilcoxon's signed ranks, for tests that compare speeds."""

import math
import statistics
from collections.abc import Sequence

_ONE_SIDED_95 = 1.645


def located(values: Sequence[float]) -> tuple[float, float, float]:
    """The Hodges-Lehmann estimate of the middle and its bounds, each one-sided 95 %, by Wilcoxon's signed ranks: single
    runs that another program disturbed move it little.
    """
    n = len(values)
    walsh = sorted((one + other) / 2 for place, one in enumerate(values) for other in values[place:])
    off = n * (n + 1) / 4 - _ONE_SIDED_95 * math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
    place = max(0, math.floor(off))
    return statistics.median(walsh), walsh[place], walsh[-1 - place]
