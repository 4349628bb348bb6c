"""What an audit finds out about a source, as one JSON document. Draws nothing, prints nothing, knows no tokenizer.

MedQuAD takes 85 s on one core.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from medmind.errors import MedmindError
from medmind_train.data.components import Components, answer_text, components, focus_key
from medmind_train.data.counts import Lengths
from medmind_train.data.leakage import Knowledge
from medmind_train.data.mojibake import signs
from medmind_train.data.near import Forest, join_near
from medmind_train.data.ngrams import Words
from medmind_train.data.patterns import boilerplate, templates
from medmind_train.data.prepare import Prepared, clean_rows, with_unique_ids
from medmind_train.data.rows import Row
from medmind_train.data.split import position, split_by_keys

FORMAT = "medmind-audit/1"
LISTED = 30
"""Entries of an open-ended list (templates, boilerplate) that the document names."""
_EXAMPLES = 3
_SIZES = (1, 2, 3, 5, 10, 20, 50, 100, 1000)


@dataclass(frozen=True)
class TokenLengths:
    """Lengths of all examples in a base's tokens.

    Attributes:
        base: name of the base whose tokenizer and template counted.
        context: tokens that an example may have.
        prompts, answers: of each example; an answer with the EOS that ends it.
        control: rows left out because they spell out a control token.
    """

    base: str
    context: int
    prompts: Sequence[int]
    answers: Sequence[int]
    control: int

    def to_dict(self) -> dict[str, Any]:
        """Percentiles, and what the context cuts or leaves out."""
        both = list(zip(self.prompts, self.answers, strict=True))
        return {
            "base": self.base,
            "context": self.context,
            "examples": len(both),
            "prompts": vars(Lengths.of_sizes(self.prompts)),
            "answers": vars(Lengths.of_sizes(self.answers)),
            "examples_whole": vars(Lengths.of_sizes([prompt + answer for prompt, answer in both])),
            "answers_cut": sum(prompt < self.context < prompt + answer for prompt, answer in both),
            "answer_tokens_cut": sum(max(prompt + answer - self.context, 0) for prompt, answer in both),
            "answer_tokens": sum(self.answers),
            "prompts_too_long": sum(prompt >= self.context for prompt in self.prompts),
            "control_tokens_in_text": self.control,
        }


def audit(
    raw: Sequence[Row],
    prepared: Prepared,
    *,
    measure: Callable[[Sequence[Row]], TokenLengths],
    step: Callable[..., None] = lambda *_, **__: None,
) -> tuple[dict[str, Any], TokenLengths]:
    """Examine a source and the split made of it.

    Args:
        raw: its rows as they stand there.
        prepared: what `prepare` made of them.
        measure: counts the tokens of rows.
        step: called with a status as the work goes on.

    Returns:
        The document, and the lengths for the pictures.

    Raises:
        MedmindError: the split is not one of these rows.
    """
    step(status="cleaning")
    cleaned, _ = clean_rows(raw, lambda *_: None)
    rows = with_unique_ids(cleaned)
    step(status="counting tokens")
    tokens = measure(rows)
    step(status="templates and boilerplate")
    passages, passage_share = boilerplate(rows)
    forms = templates(rows)
    step(status="near-duplicates")
    words = Words([answer_text(row) for row in rows])
    together = components(rows, words)
    naive = components(rows, words, boilerplate=None)
    step(status="leakage")
    answers = [" ".join(answer_text(row).casefold().split()) for row in rows]
    questions = [" ".join(row.question.casefold().split()) for row in rows]
    return {
        "format": FORMAT,
        "source": prepared.source,
        "where": prepared.where,
        "digest": prepared.digest,
        "counts": prepared.counts.to_dict(),
        "rows": {
            "read": len(raw),
            "usable": len(rows),
            "focuses": len({focus_key(row) for row in rows}),
            "without_focus": sum(not row.focus for row in rows),
            "without_question_type": sum(not row.question_type for row in rows),
            "turns": dict(Counter(str(sum(m["role"] == "assistant" for m in row.messages)) for row in rows)),
        },
        "sources": _tally(row.source for row in rows),
        "question_types": _tally(row.question_type for row in rows if row.question_type),
        "duplicates": {
            "rows_exact": len(raw) - len(rows),
            "questions_repeated": len(questions) - len(set(questions)),
            "answers_repeated": len(answers) - len(set(answers)),
            "answers_shared_by_focuses": _shared(rows, answers),
            "answers_near": _near(words),
        },
        "boilerplate": {
            "passages": len(passages),
            "share_of_answer_characters": round(passage_share, 4),
            "most": [{"text": text, "rows": count, "focuses": own} for text, count, own in passages[:LISTED]],
        },
        "mojibake": _mojibake(raw),
        "tokens": tokens.to_dict(),
        "templates": {
            "different": len(forms),
            "once": sum(count == 1 for count in forms.values()),
            "most": [{"template": text, "rows": count} for text, count in _sorted(forms)[:LISTED]],
        },
        "components": {**_components(together), "boilerplate_counted_too": _components(naive)},
        "leakage": _leakage(rows, prepared),
    }, tokens


def _sorted(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))


def _tally(names: Any) -> dict[str, int]:
    return dict(_sorted(Counter(names)))


def _shared(rows: Sequence[Row], answers: Sequence[str]) -> int:
    """Different answers that stand, word for word, under several focuses."""
    focuses: dict[str, set[str]] = {}
    for row, answer in zip(rows, answers, strict=True):
        focuses.setdefault(answer, set()).add(focus_key(row))
    return sum(len(own) > 1 for own in focuses.values())


def _near(words: Words) -> int:
    """Rows whose whole answer, boilerplate and all, is a near-duplicate of another row's."""
    grams = words.grams(5, whole=True)
    forest = Forest(len(grams.sizes))
    join_near(grams, forest)
    sizes = Counter(forest.find(at) for at in range(len(grams.sizes)))
    return sum(size for size in sizes.values() if size > 1)


def _mojibake(raw: Sequence[Row]) -> dict[str, Any]:
    """Rows with each sign, in question or answer, and a few places of each."""
    found: dict[str, dict[str, Any]] = {}
    for row in raw:
        kinds: dict[str, str] = {}
        for message in row.messages:
            kinds = {**signs(message["content"]), **kinds}
        for kind, place in kinds.items():
            entry = found.setdefault(kind, {"rows": 0, "examples": []})
            entry["rows"] += 1
            if len(entry["examples"]) < _EXAMPLES:
                entry["examples"].append({"id": row.id, "text": place})
    return dict(sorted(found.items(), key=lambda entry: -entry[1]["rows"]))


def _components(found: Components) -> dict[str, Any]:
    sizes = found.sizes()
    bounds = zip(_SIZES, (*(size - 1 for size in _SIZES[1:]), None), strict=True)
    return {
        "number": len(sizes),
        "largest": sizes[:10],
        "links": len(found.links),
        "links_across_focuses": found.across,
        "sizes": {
            (f"{low}" if low == high else f"{low} or more" if high is None else f"{low}-{high}"): sum(
                low <= size and (high is None or size <= high) for size in sizes
            )
            for low, high in bounds
        },
    }


def _leakage(rows: Sequence[Row], prepared: Prepared) -> dict[str, Any]:
    """The same measures for a random split, one by focus alone, and the one used, held-out sides alike in size."""
    places = {row.id: at for at, row in enumerate(rows)}
    try:
        train, heldout = ([places[row.id] for row in side] for side in (prepared.train, prepared.heldout))
    except KeyError as error:
        raise MedmindError(f"the row {error} of the split is not in the source") from None
    knowledge = Knowledge(rows)
    ranked = sorted(range(len(rows)), key=lambda at: (position(f"row\0{rows[at].id}"), at))
    focuses = split_by_keys([focus_key(row) for row in rows], len(heldout))
    return {
        "random": knowledge.leakage(sorted(ranked[len(heldout) :]), sorted(ranked[: len(heldout)])).to_dict(),
        "by_focus": knowledge.leakage(*focuses).to_dict(),
        "used": knowledge.leakage(train, heldout).to_dict(),
    }
