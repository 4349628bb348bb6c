"""From a `--data` value to rows to train on and rows held out: read, clean, drop, split, count. Knows no format."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medmind.console import note, progress
from medmind.errors import MedmindError
from medmind_train.data.clean import clean_question, clean_text
from medmind_train.data.counts import Counts, SkippedFile
from medmind_train.data.rows import Row, content_id
from medmind_train.data.sources import find
from medmind_train.data.split import check_share, focus_key, split, thin

HELDOUT_SHARE = 0.1
"""Share of the focuses that is held out unless the user says otherwise."""
EMPTY_QUESTION = "empty question"
EMPTY_ANSWER = "empty answer"
NO_SUBJECT = "question without a subject"
DUPLICATE = "exact duplicate"
OVER_LIMIT = "beyond --limit"
_REASONS = (EMPTY_QUESTION, EMPTY_ANSWER, NO_SUBJECT, DUPLICATE, OVER_LIMIT)
_HOLLOW = re.compile(
    r"(what is \(are\)|who is at risk for|how to (prevent|diagnose)|what causes|what is the outlook for"
    r"|what are the (symptoms|treatments|complications|stages|genetic changes) (of|for|related to))\s*\?",
    re.IGNORECASE,
)
"""MedQuAD's question templates around an empty focus, as in "Who is at risk for ? ?"."""
_TICK = 500
_NAMED_FILES = 5


@dataclass(frozen=True)
class Prepared:
    """Data ready for use.

    Attributes:
        train: rows to learn from, in the source's order.
        heldout: rows never to be trained on; their focuses do not occur in `train`.
        source: what identifies the source in a manifest.
        where: the path or data set id that `source` led to.
        digest: `sha256:<hex>` over every row in order and the side it is on.
        counts: what was read, dropped and kept.
    """

    train: list[Row]
    heldout: list[Row]
    source: str
    where: str
    digest: str
    counts: Counts


def prepare(source: str | Path, *, heldout_share: float = HELDOUT_SHARE, limit: int | None = None) -> Prepared:
    """Read, clean and split a source; files that had to be skipped are named on stderr.

    Args:
        source: `sample`, `medquad`, a file, a directory, or a data set id.
        heldout_share: share of the focuses to hold out, between 0 and 1.
        limit: at most so many rows in all, picked evenly and always the same; None for all.

    Raises:
        MedmindError: the source cannot be found or read, nothing is left of it, or it cannot be split.
    """
    check_share(heldout_share)
    if limit is not None and limit < 2:
        raise MedmindError(f"the limit is {limit}", "give 2 or more: one row to train on, one to hold out")
    found = find(str(source))
    with progress(f"reading {found.name}", None, "rows") as advance:
        rows, read, dropped = _clean(found.rows(), advance)
    _name_skipped(found.skipped)
    if not rows:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in dropped.items() if count)
        files = f"; {len(found.skipped):,} files unusable, as {found.skipped[0].path}" if found.skipped else ""
        fate = f" ({reasons})" if reasons else ""
        raise MedmindError(
            f"no usable row is left of {found.where}: {read:,} read{fate}{files}",
            "give data with questions and answers",
        )
    if limit is not None:
        thinned = thin(rows, limit)
        dropped[OVER_LIMIT] = len(rows) - len(thinned)
        rows = thinned
    train, heldout = split(_with_unique_ids(rows), heldout_share)
    dropped = {reason: dropped[reason] for reason in _REASONS if dropped.get(reason)}
    return Prepared(
        train=train,
        heldout=heldout,
        source=found.name,
        where=found.where,
        digest=digest(train, heldout),
        counts=Counts.of(read, dropped, found.skipped, train, heldout),
    )


def digest(train: Sequence[Row], heldout: Sequence[Row]) -> str:
    """`sha256:<hex>` over the rows as canonical JSON (sorted keys, no spaces), each with the side it is on."""
    hasher = hashlib.sha256(b"medmind-data/1\n")
    for side, rows in (("train", train), ("heldout", heldout)):
        for row in rows:
            line = json.dumps(
                {**row.to_dict(), "side": side}, ensure_ascii=False, sort_keys=True, separators=(",", ":")
            )
            hasher.update(line.encode() + b"\n")
    return f"sha256:{hasher.hexdigest()}"


def _clean(rows: Iterable[Row], advance: Callable[..., None]) -> tuple[list[Row], int, dict[str, int]]:
    """Clean rows, drop what is of no use; returns (rows, number read, dropped by reason)."""
    kept: list[Row] = []
    places: dict[bytes, int] = {}
    dropped = dict.fromkeys(_REASONS, 0)
    read = 0
    for raw in rows:
        read += 1
        if read % _TICK == 0:
            advance(_TICK)
        row = clean_row(raw)
        if reason := _useless(row):
            dropped[reason] += 1
            continue
        place = places.setdefault(_sameness(row), len(kept))
        if place == len(kept):
            kept.append(row)
            continue
        dropped[DUPLICATE] += 1
        # Which of two equal rows stays must not hang on their order: their focuses may lie on different sides.
        kept[place] = min(kept[place], row, key=lambda row: (not row.focus, focus_key(row), row.id))
    return kept, read, dropped


def _name_skipped(skipped: Sequence[SkippedFile]) -> None:
    for file in skipped[:_NAMED_FILES]:
        note(f"skipped {file.path}: {file.reason}")
    if len(skipped) > _NAMED_FILES:
        note(f"skipped {len(skipped) - _NAMED_FILES:,} more files for like reasons")


def clean_row(row: Row) -> Row:
    """The row with its texts cleaned; a trailing user turn nobody answered and an empty system message are gone."""
    messages = tuple(
        {
            "role": message["role"],
            "content": (clean_question if message["role"] == "user" else clean_text)(message["content"]),
        }
        for message in row.messages
    )
    if messages and messages[0]["role"] == "system" and not messages[0]["content"]:
        messages = messages[1:]
    if len(messages) > 2 and messages[-1]["role"] == "user":
        messages = messages[:-1]
    return replace(row, messages=messages, focus=" ".join(clean_text(row.focus).split()))


def _useless(row: Row) -> str:
    """Why a cleaned row is of no use; empty if it is."""
    users = [message["content"] for message in row.messages if message["role"] == "user"]
    answers = [message["content"] for message in row.messages if message["role"] == "assistant"]
    if not users or not all(users):
        return EMPTY_QUESTION
    if len(answers) < len(users) or not all(answers):
        return EMPTY_ANSWER
    if not row.focus and len(users) == 1 and _HOLLOW.fullmatch(users[0]):
        return NO_SUBJECT
    return ""


def _sameness(row: Row) -> bytes:
    """Equal for rows whose turns are the same but for case and white space."""
    text = "\0".join(
        f"{message['role']}\0{' '.join(message['content'].casefold().split())}" for message in row.messages
    )
    return hashlib.sha256(text.encode()).digest()[:16]


def _with_unique_ids(rows: Sequence[Row]) -> list[Row]:
    """Ids that repeat get their text's digest behind them: rows can then be named, whatever their source."""
    seen: dict[str, int] = {}
    for row in rows:
        seen[row.id] = seen.get(row.id, 0) + 1
    taken: set[str] = set()
    unique = []
    for row in rows:
        name = row.id if seen[row.id] == 1 else f"{row.id}~{content_id(row.messages)[:8]}"
        while name in taken:
            name += "~"
        taken.add(name)
        unique.append(row if name == row.id else replace(row, id=name))
    return unique
