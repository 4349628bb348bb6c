"""What one row of training data is, and how a record with named columns becomes one. Knows no file format."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import isnan
from typing import Any, Literal

from medmind.errors import MedmindError

Kind = Literal["chat", "question/answer"]

WANTED = "wanted: question and answer (focus, question_type and source are optional), or messages"
_ALIASES: dict[str, tuple[str, ...]] = {
    "messages": ("messages",),
    "question": ("question",),
    "answer": ("answer",),
    "focus": ("focus", "focusarea", "questionfocus"),
    "question_type": ("questiontype", "qtype"),
    "source": ("source", "documentsource"),
    "id": ("id",),
    "file": ("file",),
    "pid": ("pid",),
}
"""Column names as MedQuAD's editions spell them, lower case and without separators. Its `qid`, `qa_id` and
`question_id` are no identity: they repeat within one source."""


@dataclass(frozen=True)
class Row:
    """One conversation to learn from or to be measured on.

    Attributes:
        id: unique within one prepared data set.
        messages: `{"role", "content"}` in turn order: an optional system message, then user and assistant by turns;
            the last one is the assistant's. Every assistant turn is one example.
        focus: what the row is about ("Glaucoma"); empty where the source does not say.
        question_type: MedQuAD's type of question ("symptoms"); empty where the source does not say.
        source: who wrote it, else the name of the file or data set it came from.
    """

    id: str
    messages: tuple[dict[str, str], ...]
    focus: str = ""
    question_type: str = ""
    source: str = ""

    @property
    def question(self) -> str:
        """The first user message; empty if there is none."""
        return next((message["content"] for message in self.messages if message["role"] == "user"), "")

    def to_dict(self) -> dict[str, Any]:
        """The row as one line of a `.jsonl` file holds it."""
        return {
            "id": self.id,
            "messages": [dict(message) for message in self.messages],
            "focus": self.focus,
            "question_type": self.question_type,
            "source": self.source,
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any], place: str = "row") -> "Row":
        """The inverse of `to_dict`.

        Raises:
            MedmindError: no `messages`, or messages that are no conversation; `place` is named in it.
        """
        if "messages" not in record:
            raise MedmindError(f"{place} has no messages")
        return row_of(record, columns_of(tuple(record), "row"), place, "")


@dataclass(frozen=True)
class Columns:
    """Which column of a record holds which field; `names` maps our field names to the record's own."""

    kind: Kind
    names: Mapping[str, str]

    def text(self, record: Mapping[str, Any], field: str, place: str) -> str:
        """The field as text; absent and null are empty, anything but text and numbers is refused."""
        value = record.get(self.names[field]) if field in self.names else None
        if value is None:
            return ""
        if isinstance(value, str):
            return value
        if isinstance(value, int | float):
            return "" if isnan(value) else str(value)  # pandas writes a missing text as NaN
        raise MedmindError(f"{place}: the column {self.names[field]!r} holds {type(value).__name__}, not text")


@lru_cache(maxsize=64)
def columns_of(names: tuple[str, ...], place: str) -> Columns:
    """Recognise the columns of a record, whatever their case and separators.

    Raises:
        MedmindError: neither question and answer nor messages among them; names what was found and what is wanted.
    """
    found = {re.sub(r"[\W_]+", "", name).lower(): name for name in reversed(names)}
    own = {
        field: next(found[alias] for alias in aliases if alias in found)
        for field, aliases in _ALIASES.items()
        if any(alias in found for alias in aliases)
    }
    if "messages" in own:
        return Columns("chat", own)
    if "question" in own and "answer" in own:
        return Columns("question/answer", own)
    listed = ", ".join(name or '""' for name in names[:12]) + (", …" if len(names) > 12 else "")
    raise MedmindError(f"{place} has the columns {listed or '(none)'}", WANTED)


def row_of(record: Mapping[str, Any], columns: Columns, place: str, source: str) -> Row:
    """Make a row of a record; its texts are taken as they are.

    Args:
        record: the values by column name.
        columns: of this record.
        place: where it was read, for errors.
        source: the row's source when the record names none.

    Raises:
        MedmindError: a value of the wrong type, or messages that are no conversation.
    """
    if columns.kind == "chat":
        messages = _conversation(record.get(columns.names["messages"]), place)
    else:
        messages = (
            {"role": "user", "content": columns.text(record, "question", place)},
            {"role": "assistant", "content": columns.text(record, "answer", place)},
        )
    return Row(
        id=_identity(record, columns, place) or content_id(messages),
        messages=messages,
        focus=columns.text(record, "focus", place).strip(),
        question_type=columns.text(record, "question_type", place).strip(),
        source=columns.text(record, "source", place).strip() or source,
    )


def content_id(messages: tuple[dict[str, str], ...]) -> str:
    """An id for a row whose source gives none: 16 hex digits of its text's SHA-256."""
    text = "\0".join(f"{message['role']}\0{message['content']}" for message in messages)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _identity(record: Mapping[str, Any], columns: Columns, place: str) -> str:
    file, pid = columns.text(record, "file", place), columns.text(record, "pid", place)
    return f"{file}#{pid}" if file and pid else columns.text(record, "id", place).strip()


def _conversation(value: object, place: str) -> tuple[dict[str, str], ...]:
    """Check a `messages` value: an optional system message, then user and assistant by turns."""
    if not isinstance(value, list | tuple):
        raise MedmindError(f"{place}: messages is {type(value).__name__}, not a list")
    messages: list[dict[str, str]] = []
    for message in value:
        if not isinstance(message, Mapping):
            raise MedmindError(f"{place}: a message is {type(message).__name__}, not an object with role and content")
        role, content = message.get("role"), message.get("content")
        content = "" if content is None else content
        if not isinstance(content, str):
            raise MedmindError(f"{place}: the content of a message is {type(content).__name__}, not text")
        turns = sum(earlier["role"] != "system" for earlier in messages)
        due = "assistant" if turns % 2 else "user"
        if role != due and not (role == "system" and not messages):
            wanted = due if messages else "system or user"
            raise MedmindError(f"{place}: message {len(messages) + 1} has the role {role!r}, wanted {wanted}")
        messages.append({"role": str(role), "content": content})
    return tuple(messages)
