"""Successive halving within a budget: how many candidates, for how many steps, and who goes on. Knows no model.

Jamieson & Talwalkar 2016 (arXiv:1502.07943). Each rung trains its candidates anew, with the whole learning-rate
schedule in its own number of steps: a loss at the top of a schedule that is made for more steps says little about the
loss at its end, and favours low rates.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from medmind.errors import MedmindError
from medmind_train.search.config import SearchConfig
from medmind_train.search.space import Candidate, targets

_FEWEST = 6
_SHARE = 40
_FINALISTS = 2


@dataclass(frozen=True)
class Rung:
    """`candidates` are each trained for `steps`."""

    candidates: int
    steps: int


@dataclass(frozen=True)
class Plan:
    """What a search will do.

    Attributes:
        cost: in runs, at most: as if always the costliest candidates went on.
    """

    candidates: Sequence[Candidate]
    rungs: Sequence[Rung]
    cost: float


def make(
    config: SearchConfig,
    steps: int,
    propose: Callable[[int], Sequence[Candidate]],
    cost: Callable[[Candidate, int], float],
) -> Plan:
    """The most candidates, up to `trials`, that get their fewest steps within the budget, and then the most steps.

    Args:
        steps: of a run; no candidate gets more.
        propose: so many candidates.
        cost: of training a candidate for so many steps and scoring it, in runs.

    Raises:
        MedmindError: not even two candidates fit.
    """
    groups = len(targets(config)) if config.compare == "targets" else 1
    fewest = min(steps, config.min_steps or max(_FEWEST, math.ceil(steps / _SHARE)))
    last = max(_FINALISTS, groups)

    def rungs(counts: Sequence[int], first: int) -> list[Rung]:
        return [Rung(number, min(steps, first * config.halving**at)) for at, number in enumerate(counts)]

    for count in range(max(config.trials, last), last - 1, -1):
        candidates = propose(count)
        if len(candidates) != count:  # so many do not share out among the groups
            continue
        counts = _counts(count, config.halving, groups, last)
        # The last rung is a whole run at most: no candidate can tell more than that.
        firsts = range(fewest, max(fewest, math.ceil(steps / config.halving ** (len(counts) - 1))) + 1)
        costs = [_worst(rungs(counts, first), candidates, cost) for first in firsts]
        fitting = bisect_right(costs, config.budget)
        if fitting:
            chosen = rungs(counts, firsts[fitting - 1])
            return Plan(candidates, chosen, _worst(chosen, candidates, cost))
    raise MedmindError(
        f"a budget of {config.budget:g} runs of {steps:,} steps does not hold {last} candidates of {fewest:,} steps",
        "give a larger --budget, fewer --min-steps, or more data",
    )


def survivors(rung: Sequence[Candidate], losses: Mapping[int, float], count: int) -> list[Candidate]:
    """The `count` best of a rung, of each group as many; ties go to the lower number.

    Args:
        losses: by candidate number; infinite for one that failed.
    """
    ordered = sorted(rung, key=lambda one: (losses[one.number], one.number))
    groups = list(dict.fromkeys(one.group for one in rung))
    kept = [one for group in groups for one in [of for of in ordered if of.group == group][: count // len(groups)]]
    return sorted(kept, key=lambda one: one.number)


def _counts(count: int, halving: int, groups: int, last: int) -> list[int]:
    """Candidates of each rung, of each group as many, down to `last`."""
    counts = [count]
    while counts[-1] > last:
        counts.append(max(last, math.ceil(counts[-1] / halving / groups) * groups))
    return counts


def _worst(rungs: Sequence[Rung], candidates: Sequence[Candidate], cost: Callable[[Candidate, int], float]) -> float:
    return sum(
        sum(sorted((cost(one, rung.steps) for one in candidates), reverse=True)[: rung.candidates]) for rung in rungs
    )
