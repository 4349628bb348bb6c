"""The end of a search: losses against each other, the choice, its files. Knows outcomes; trains nothing."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medmind.artifacts import atomic_file, write_json, write_text
from medmind_train import evaluate
from medmind_train.config import to_yaml
from medmind_train.evaluate import Perplexity
from medmind_train.finish import versions
from medmind_train.search import noise, picture, place, report
from medmind_train.search.config import SearchConfig, run_settings
from medmind_train.search.halving import Plan
from medmind_train.search.place import Outcome


def perplexity(ended: Outcome) -> Perplexity:
    """Of the validation rows."""
    return evaluate.estimate(list(ended.sums.values()), [ended.counts[row] for row in ended.sums])


def loss(ended: Outcome) -> float:
    """Nats per answer token; infinite after a failure."""
    return perplexity(ended).nll if ended.sums else math.inf


def finish(
    folder: Path, document: Mapping[str, Any], config: SearchConfig, plan: Plan, outcomes: Sequence[Outcome]
) -> dict[str, Any]:
    """Write the settings to use, the picture, the report and, last, the document.

    Returns:
        The document.
    """
    last = [one for one in outcomes if one.rung == len(plan.rungs)]
    chosen = min(last, key=lambda one: (loss(one), one.candidate)).candidate
    candidate = next(one for one in plan.candidates if one.number == chosen)
    best = replace(run_settings(config), **candidate.settings(), name=None)
    whole: dict[str, Any] = {
        **document,
        "finished": True,
        "spent": sum(one.cost for one in outcomes),
        "seconds": round(sum(one.seconds for one in outcomes), 2),
        "trials": [_trial(one, outcomes) for one in outcomes],
        "chosen": {"candidate": chosen, **candidate.settings(), "config": str(folder / place.BEST)},
        "versions": versions(),
    }
    opening = f"medmind-train qlora --config {folder / place.BEST}"
    write_text(folder / place.BEST, to_yaml(best, opening))
    with atomic_file(folder / "search.png") as partial:
        picture.draw(partial, whole)
    write_text(folder / "report.md", report.markdown(whole))
    write_json(folder / place.SEARCH, whole)
    return whole


def _trial(ended: Outcome, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """A trial as the document has it: its loss, and how far it is above the best of its rung, row by row."""
    told: dict[str, Any] = {
        name: getattr(ended, name)
        for name in ("candidate", "rung", "steps", "status", "reason", "tokens", "cost", "seconds", "memory")
    }
    if not ended.sums:
        return {**told, "loss": None, "error": None, "above_best": None}
    measured = perplexity(ended)
    best = min((one for one in outcomes if one.rung == ended.rung), key=lambda one: (loss(one), one.candidate))
    above = noise.paired(ended.sums, best.sums, ended.counts) if best is not ended else None
    return {
        **told,
        "loss": measured.nll,
        "error": measured.error / measured.value,
        "above_best": above and {"value": above.value, "error": above.error, "words": above.words},
    }
