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
from medmind_train.data.components import focus_key
from medmind_train.data.counts import Counts, Grouping, SkippedFile
from medmind_train.data.recorded import read_recorded
from medmind_train.data.rows import Row, content_id
from medmind_train.data.separate import separate
from medmind_train.data.sources import find
from medmind_train.data.split import Split, check_shares

HELDOUT_SHARE = 0.1
"""Share of the components that is held out unless the user says otherwise."""
VALIDATION_SHARE = 0.02
"""Share of the components that is set apart to choose settings by."""
EMPTY_QUESTION = "empty question"
EMPTY_ANSWER = "empty answer"
NO_SUBJECT = "question without a subject"
DUPLICATE = "exact duplicate"
_REASONS = (EMPTY_QUESTION, EMPTY_ANSWER, NO_SUBJECT, DUPLICATE)
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
        heldout: rows never to be trained on. None shares a focus or a near-duplicate answer with `train` or
            `validation`, and of no answer more than a fifth of its 13-grams stands in `train` (but for recorded rows
            that `counts.recorded_known` counts).
        source: what identifies the source in a manifest.
        where: the path or data set id that `source` led to.
        digest: `sha256:<hex>` over every row in order and the side it is on.
        counts: what was read, dropped and kept.
        validation: rows set apart to choose settings by, as far from both other sides; may be empty.
    """

    train: list[Row]
    heldout: list[Row]
    source: str
    where: str
    digest: str
    counts: Counts
    validation: list[Row]


def prepare(
    source: str | Path,
    *,
    heldout_share: float = HELDOUT_SHARE,
    validation_share: float = VALIDATION_SHARE,
    limit: int | None = None,
    recorded: Path | Sequence[Row] = (),
) -> Prepared:
    """Read, clean and split a source; files that had to be skipped are named on stderr.

    MedQuAD's 15,433 rows take about 10 s on one core.

    Args:
        source: `sample`, `medquad`, a file, a directory, or a data set id.
        heldout_share: share of the components to hold out, between 0 and 1.
        validation_share: share of the components for validation, 0 for none.
        limit: at most so many rows in all, picked evenly and always the same; None for all. Recorded rows stay on top.
        recorded: rows that an earlier run held out, or the run or file that has them. They are held out again, also
            when the source has lost them; rows that hang together with them are not trained on.

    Raises:
        MedmindError: the source cannot be found or read, nothing is left of it, or it cannot be split.
    """
    check_shares(heldout_share, validation_share)
    if limit is not None and limit < 2:
        raise MedmindError(f"the limit is {limit}", "give 2 or more: one row to train on, one to hold out")
    held = read_recorded(recorded) if isinstance(recorded, Path) else list(recorded)
    found = find(str(source))
    raw: list[Row] = []
    with progress(f"reading {found.name}", None, "rows") as advance:
        for row in found.rows():
            raw.append(row)
            if len(raw) % _TICK == 0:
                advance(_TICK)
    _name_skipped(found.skipped)
    split, grouping, dropped = _part(
        raw, held, found.where, found.skipped, heldout_share=heldout_share, validation=validation_share, limit=limit
    )
    return Prepared(
        train=split.train,
        heldout=split.heldout,
        source=found.name,
        where=found.where,
        digest=digest(split.train, split.heldout, split.validation),
        counts=Counts.of(found.skipped, split, grouping, len(raw), dropped),
        validation=split.validation,
    )


def _part(
    raw: Sequence[Row],
    held: Sequence[Row],
    where: str,
    skipped: Sequence[SkippedFile],
    *,
    heldout_share: float,
    validation: float,
    limit: int | None,
) -> tuple[Split, Grouping, dict[str, int]]:
    """Clean and separate rows; returns the sides, how they hang together, and the rows dropped by reason."""
    with progress("cleaning", len(raw), "rows") as advance:
        rows, dropped = clean_rows(raw, advance)
    if not rows:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in dropped.items() if count)
        files = f"; {len(skipped):,} files unusable, as {skipped[0].path}" if skipped else ""
        fate = f" ({reasons})" if reasons else ""
        raise MedmindError(
            f"no usable row is left of {where}: {len(raw):,} read{fate}{files}",
            "give data with questions and answers",
        )
    pinned = {_sameness(row): row for row in held}
    flags = [_sameness(row) in pinned for row in rows]
    rows = [pinned.pop(_sameness(row)) if flag else row for row, flag in zip(rows, flags, strict=True)]
    lost = list(pinned.values())
    rows, flags = [*rows, *lost], [*flags, *(True for _ in lost)]
    with progress("comparing answers", None, "rows"):
        parted = separate(
            with_unique_ids(rows), heldout=heldout_share, validation=validation, limit=limit, recorded=flags
        )
    dropped |= parted.dropped
    sizes = parted.together.sizes()
    grouping = Grouping(
        components=len(sizes),
        largest=sizes[0],
        links=len(parted.together.links),
        links_across=parted.together.across,
        known=parted.known,
        recorded=sum(flags),
        recorded_lost=len(lost),
        recorded_known=parted.recorded_known,
    )
    return parted.split, grouping, {reason: rows for reason, rows in dropped.items() if rows}


def digest(train: Sequence[Row], heldout: Sequence[Row], validation: Sequence[Row] = ()) -> str:
    """`sha256:<hex>` over the rows as canonical JSON (sorted keys, no spaces), each with the side it is on."""
    hasher = hashlib.sha256(b"medmind-data/1\n")
    for side, rows in (("train", train), ("heldout", heldout), ("validation", validation)):
        for row in rows:
            line = json.dumps(
                {**row.to_dict(), "side": side}, ensure_ascii=False, sort_keys=True, separators=(",", ":")
            )
            hasher.update(line.encode() + b"\n")
    return f"sha256:{hasher.hexdigest()}"


def clean_rows(rows: Iterable[Row], advance: Callable[..., None]) -> tuple[list[Row], dict[str, int]]:
    """Clean rows, drop what is of no use; returns (rows, dropped by reason)."""
    kept: list[Row] = []
    places: dict[bytes, int] = {}
    dropped = dict.fromkeys(_REASONS, 0)
    for read, raw in enumerate(rows, 1):
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
    return kept, dropped


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


def with_unique_ids(rows: Sequence[Row]) -> list[Row]:
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
