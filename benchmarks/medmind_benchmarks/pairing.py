"""The same rows, chunks and questions in two reports, side by side, and what their differences say.

Knows the records that lie beside a report (rows.jsonl, chunks.jsonl, questions.jsonl) and statistics; gives no verdict.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medmind.artifacts import read_jsonl, sha256
from medmind.errors import MedmindError
from medmind_benchmarks import proportions, statistics
from medmind_benchmarks.statistics import Estimate

Records = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Beside:
    """Records of one report: by held-out row, by chunk of raw text, by question; empty where there are none."""

    rows: Records = ()
    chunks: Records = ()
    questions: Records = ()


@dataclass(frozen=True)
class Paired:
    """A text's groups (rows or chunks) in two reports: what their differences come to, and how many there are."""

    change: Estimate
    groups: int


@dataclass(frozen=True)
class Answered:
    """A task's questions in two reports: the difference of the shares answered rightly, and McNemar's exact p."""

    difference: Estimate
    p: float


FILES = ("rows.jsonl", "chunks.jsonl", "questions.jsonl")


def digests(folder: Path) -> dict[str, str]:
    """Of the files in it, for `Report.beside`."""
    return {name: sha256(folder / name) for name in FILES}


def read(report: Path, known: Mapping[str, str]) -> Beside:
    """What lies beside a report.json, as far as the report knows of it.

    Args:
        report: the file.
        known: its `Report.beside`.

    Raises:
        MedmindError: a file is another than the one that was written with the report.
    """
    found: dict[str, Records] = {}
    for name in FILES:
        file = report.with_name(name)
        if name in known and file.is_file():
            if sha256(file) != known[name]:
                raise MedmindError(
                    f"{file} is not the file that {report.name} was written with",
                    "measure again with: medmind-bench quants --force; or take it away, to compare without it",
                )
            found[name] = read_jsonl(file)
    return Beside(*(found.get(name, ()) for name in FILES))


def perplexity(before: Records, now: Records, label: str) -> Paired | None:
    """Perplexity now / before of one level over the same groups; None unless both have all of them."""
    found = _paired(before, now, "nll", label)
    return Paired(statistics.perplexity_ratio(found[1], found[0], found[2]), len(found[2])) if found else None


def divergence(before: Records, now: Records, label: str) -> Paired | None:
    """Mean KL divergence now − before of one level over the same groups, in nats; None unless both have all of them."""
    found = _paired(before, now, "kl", label)
    if not found:
        return None
    differences = [new - old for old, new in zip(*found[:2], strict=True)]
    return Paired(statistics.ratio_of_sums(differences, found[2]), len(differences))


def answered(before: Records, now: Records, task: str, label: str) -> Answered | None:
    """Questions of one task under one level; None unless both reports have the same ones."""
    old, new = (_right(records, task, label) for records in (before, now))
    if not old or old.keys() != new.keys():
        return None
    lost, won = (sum(old[one] is was and new[one] is not was for one in old) for was in (True, False))
    share, of = (won - lost) / len(old), len(old)
    error = math.sqrt(((lost + won) / of - share**2) / (of - 1)) if of > 1 else None
    return Answered(Estimate(share, error), proportions.mcnemar(lost, won))


def _right(records: Records, task: str, label: str) -> dict[str, bool]:
    return {one["id"]: one["right"][label] for one in records if one["task"] == task and label in one["right"]}


def _paired(before: Records, now: Records, field: str, label: str) -> tuple[list[float], list[float], list[int]] | None:
    """Sums before and now of the groups that both have, and their tokens; None unless all groups are the same."""
    old, new = ({_group(one): one[field].get(label) for one in records} for records in (before, now))
    if not old or old.keys() != new.keys() or None in old.values() or None in new.values():
        return None
    keys = [key for key in sorted(old) if key[1]]
    return [old[key] for key in keys], [new[key] for key in keys], [key[1] for key in keys]


def _group(record: Mapping[str, Any]) -> tuple[int, int]:
    return record["row"] if "row" in record else record["chunk"], record["tokens"]
