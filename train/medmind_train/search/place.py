"""The folder of a search: what it began with, each trial's result, what a resume needs. Knows files, no model.

search.json        settings, plan and results
config.yaml        settings of the run as given
trials/02-r1/      candidate 2 on the first rung: metrics.jsonl, result.json, while it trains its checkpoints
best.yaml          settings to train with, written when the search has ended
report.md, search.png
"""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from medmind.artifacts import read_json, write_json
from medmind.errors import MedmindError
from medmind_train import rundir
from medmind_train.config import build
from medmind_train.search.config import SearchConfig
from medmind_train.search.halving import Plan, Rung
from medmind_train.search.space import Candidate

SEARCH = "search.json"
TRIALS = "trials"
RESULT = "result.json"
BEST = "best.yaml"
FORMAT = "medmind-search/1"
_PLACE = ("out", "name")


@dataclass(frozen=True)
class Outcome:
    """What became of a candidate on a rung.

    Attributes:
        rung: from 1.
        status: `done`, `diverged` or `out of memory`.
        reason: of a failure, else empty.
        sums: each validation row's summed loss; empty after a failure.
        counts: each row's answer tokens.
        tokens: trained on.
        cost: of training and scoring, in runs.
        seconds: of training.
        memory: bytes at the peak.
    """

    candidate: int
    rung: int
    steps: int
    status: str
    reason: str
    sums: Mapping[str, float]
    counts: Mapping[str, int]
    tokens: int
    cost: float
    seconds: float
    memory: int


def location(config: SearchConfig, base: str, data: str) -> Path:
    """Where a new search will lie: as a run, its own name ending with `-search`."""
    place = rundir.location(config, base, data)
    return place if config.name else place.with_name(f"{place.name}-search")


def refuse_taken(place: Path, *, force: bool) -> None:
    """Raise unless `place` is free, or a search that `--force` may replace."""
    if not place.exists() or (place.is_dir() and not any(place.iterdir())):
        return
    if not (place / SEARCH).is_file():
        raise MedmindError(f"{place} exists and is no search", "take another --name or --out")
    if not force:
        hint = "give --force to replace it, or another --name"
        if not read_json(place / SEARCH).get("finished"):
            hint += f", or go on with: medmind-train search --resume {place}"
        raise MedmindError(f"{place} exists already", hint)


def read(place: Path) -> dict[str, Any]:
    """The document of a search that has begun.

    Raises:
        MedmindError: no search, or one of another medmind version.
    """
    if not (place / SEARCH).is_file():
        raise MedmindError(f"{place} is no search", "searches are made by: medmind-train search")
    document = read_json(place / SEARCH)
    if document.get("format") != FORMAT:
        raise MedmindError(
            f"{place / SEARCH} has the format {document.get('format')!r}, this medmind reads {FORMAT!r}",
            "use the medmind version that made it",
        )
    return document


def refuse_other_config(place: Path, recorded: SearchConfig, given: SearchConfig, names: set[str]) -> None:
    """Raise when one of the settings `names`, given along with `--resume`, differs from the search's."""
    for field in fields(SearchConfig):
        before, now = getattr(recorded, field.name), getattr(given, field.name)
        if field.name in names and field.name not in _PLACE and before != now:
            flag = f"--{field.name.replace('_', '-')}"
            raise MedmindError(
                f"{place} was started with {flag} {before}, not {now}", f"leave {flag} out, or start another search"
            )


def config_of(document: Mapping[str, Any]) -> SearchConfig:
    """The settings a search was started with."""
    return build(SearchConfig, document["config"])


def plan_of(document: Mapping[str, Any]) -> Plan:
    """The plan a search was started with: a resume follows it, whatever another version would plan."""
    return Plan(
        [Candidate(**one) for one in document["candidates"]],
        [Rung(**one) for one in document["rungs"]],
        document["planned"],
    )


def trial(place: Path, candidate: int, rung: int) -> Path:
    """The folder of a candidate on a rung."""
    return place / TRIALS / f"{candidate:02}-r{rung}"


def outcome(folder: Path) -> Outcome | None:
    """What a trial ended with; None: it has not ended."""
    return Outcome(**read_json(folder / RESULT)) if (folder / RESULT).is_file() else None


def keep(folder: Path, ended: Outcome) -> None:
    """Write a trial's result, then remove the checkpoints that nothing goes on from any more."""
    write_json(folder / RESULT, asdict(ended))
    shutil.rmtree(folder / rundir.CHECKPOINTS, ignore_errors=True)
