"""The held-out tokens that every stage scores: which rows, and their file beside the log-probabilities.

Knows encoded examples and JSON; loads no tokenizer, no model and no torch: the benchmarks read the file too.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from medmind.artifacts import read_json, write_text
from medmind.errors import MedmindError
from medmind.turns import choose
from medmind_train.examples import Example

FORMAT = "medmind-scored-tokens/1"


@dataclass(frozen=True)
class Tokens:
    """What is scored, in the order in which it is.

    Attributes:
        adapter: digest of the adapter whose log-probabilities lie beside it.
        vocabulary: numbers of one row of log-probabilities.
        examples: of whole rows; the ids from `answer` on are scored.
        left_out: rows that are not among them.
    """

    adapter: str
    vocabulary: int
    examples: tuple[Example, ...]
    left_out: int

    @property
    def count(self) -> int:
        """Tokens scored, which is the rows of the file of log-probabilities."""
        return sum(len(one.ids) - one.answer for one in self.examples)

    @property
    def digest(self) -> str:
        """Over every token id and which of them are scored."""
        content = json.dumps([[one.ids, one.answer] for one in self.examples])
        return f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"


def beside(probabilities: Path) -> Path:
    """Where the tokens of a file of log-probabilities lie."""
    return probabilities.with_suffix(".json")


def limited(examples: Sequence[Example], rows: Sequence[str], *, most_rows: int, most_tokens: int) -> list[Example]:
    """The examples of as many rows as both limits allow, chosen as every stage chooses, by the hashes of their ids.

    Args:
        examples: of all rows, in order.
        rows: ids of all rows, in order.
        most_rows: 0 for all.
        most_tokens: answer tokens.

    Raises:
        MedmindError: not one row fits.
    """
    if not examples:
        raise MedmindError("no held-out answer fits the run's context", "give other rows with --heldout FILE")
    low, high = 0, min(most_rows or len(rows), len(rows))
    while low < high:  # what is chosen of n rows is among what is chosen of n + 1
        middle = (low + high + 1) // 2
        kept = _of(examples, rows, middle)
        if sum(len(one.ids) - one.answer for one in kept) <= most_tokens:
            low = middle
        else:
            high = middle - 1
    found = _of(examples, rows, low) if low else []
    if not found:
        raise MedmindError(f"not one held-out row has at most {most_tokens} answer tokens", "give a larger --tokens")
    return found


def _of(examples: Sequence[Example], rows: Sequence[str], count: int) -> list[Example]:
    kept = {rows[place] for place in choose(rows, count)}
    return [one for one in examples if one.row in kept]


def write(tokens: Tokens, path: Path) -> None:
    """Write them as JSON."""
    write_text(path, json.dumps({"format": FORMAT, **asdict(tokens)}, ensure_ascii=False) + "\n")


def read(path: Path) -> Tokens:
    """What `write` wrote.

    Raises:
        MedmindError: no such file, or something else in it.
    """
    document = read_json(path)
    if document.get("format") != FORMAT:
        raise MedmindError(
            f"{path} has the format {document.get('format')!r}, not {FORMAT!r}",
            "write it with: medmind-train score RUN --stage adapter --write FILE.npy",
        )
    try:
        examples = tuple(
            Example(one["row"], tuple(map(int, one["ids"])), int(one["answer"]), bool(one["complete"]))
            for one in document["examples"]
        )
        return Tokens(str(document["adapter"]), int(document["vocabulary"]), examples, int(document["left_out"]))
    except (KeyError, TypeError, ValueError) as error:
        raise MedmindError(f"{path} is damaged: {error!r}", "write it again") from error
