"""An audit's document as sections of tables, for the terminal and for Markdown. Finds nothing out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

_MEASURES = {
    "focuses": "focuses in training too",
    "questions_exact": "questions in training, same words",
    "questions_near": "questions in training, nearly",
    "answers_exact": "answers in training, same words",
    "answers_near": "answers in training, nearly",
    "answers_telling": "answers in training, nearly, boilerplate ignored",
    "answers_known": "answers with > 20 % of their 13-grams in training",
}
_LONGEST = 110
_FEW = 12


@dataclass(frozen=True)
class Section:
    """A titled table: the first column is text, the others are right-aligned figures; `note` says what they mean."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""

    def table(self) -> Table:
        """For a terminal."""
        table = Table(*self.columns, box=None, pad_edge=False)
        for column in table.columns[1:]:
            column.justify = "right"
        for row in self.rows:
            table.add_row(*(Text(cell) for cell in row))
        return table

    def markdown(self) -> str:
        """As Markdown."""
        lines = [f"## {self.title}", ""]
        if self.note:
            lines += [self.note, ""]
        if self.rows:
            lines += [_line(self.columns), _line([":--", *["--:"] * (len(self.columns) - 1)], escape=False)]
            lines += [*map(_line, self.rows), ""]
        return "\n".join(lines)


def markdown(document: Mapping[str, Any], pictures: Mapping[str, str]) -> str:
    """The whole report; `pictures` are file names by caption."""
    head = f"# Audit of {document['source']}\n\nRead from `{document['where']}`, digest `{document['digest']}`.\n"
    shown = "\n".join(f"![{caption}]({name})\n" for caption, name in pictures.items())
    return "\n".join([head, *(section.markdown() for section in sections(document)), shown])


def sections(document: Mapping[str, Any], *, most: int | None = None) -> Iterator[Section]:
    """The sections in reading order; lists end after `most` entries."""
    counts, rows, tokens = document["counts"], document["rows"], document["tokens"]
    read = max(rows["read"], 1)
    fates = [("read", rows["read"]), *((f"dropped: {why}", count) for why, count in counts["dropped"].items())]
    fates += [(name.replace("heldout", "held out"), counts[name]) for name in ("train", "validation", "heldout")]
    yield Section("Rows", ("", "rows", "of read"), [(what, f"{n:,}", f"{n / read:.1%}") for what, n in fates])
    yield Section(
        "Focuses",
        ("", ""),
        _figures({"focuses": rows["focuses"], "rows without a focus": rows["without_focus"]}),
    )
    for title, name in (("Sources", "sources"), ("Question types", "question_types")):
        listed = list(document[name].items())
        if listed:
            yield Section(
                title, ("", "rows"), [(_short(what), f"{n:,}") for what, n in listed[:most]], _rest(listed, most)
            )
    known = list(counts["grouping"]["known"].items())
    if known:
        note = "Held-out and validation rows dropped because more than 20 % of the answer's 13-grams stand in training."
        yield Section(
            "Dropped as known from training", ("source", "rows"), [(_short(s), f"{n:,}") for s, n in known], note
        )
    yield _leakage(document["leakage"])
    yield from _components(document["components"])
    names = {
        "rows_exact": "rows read that are empty or repeat another word for word",
        "questions_repeated": "questions that repeat another row's",
        "answers_repeated": "answers that repeat another row's",
        "answers_shared_by_focuses": "different answers that stand under several focuses",
        "answers_near": "rows whose answer is a near-duplicate of another's",
    }
    yield Section("Duplicates", ("", ""), _figures({names[key]: n for key, n in document["duplicates"].items()}))
    yield from _texts(document, most)
    yield Section(
        "Lengths in tokens",
        ("", "median", "mean", "p95", "longest"),
        [
            (what, *(f"{tokens[name][key]:,.0f}" for key in ("median", "mean", "p95", "longest")))
            for what, name in (("prompt", "prompts"), ("answer", "answers"), ("both", "examples_whole"))
        ],
        f"By the tokenizer and template of {tokens['base']}. At a context of {tokens['context']:,} tokens, "
        f"{tokens['answers_cut']:,} of {tokens['examples']:,} answers are cut "
        f"({tokens['answer_tokens_cut'] / max(tokens['answer_tokens'], 1):.1%} of all answer tokens) and "
        f"{tokens['prompts_too_long']:,} prompts leave no room for an answer.",
    )


def _leakage(leakage: Mapping[str, Mapping[str, float]]) -> Section:
    columns = ("random", "by_focus", "used")
    rows = [(label, *(f"{leakage[name][key]:.1%}" for name in columns)) for key, label in _MEASURES.items()]
    rows.insert(0, ("held-out rows", *(f"{leakage[name]['heldout']:,}" for name in columns)))
    return Section(
        "Leakage",
        ("", "random split", "by focus alone", "the split used"),
        rows,
        "Share of the held-out rows (first measure: of the held-out focuses) that training knows.",
    )


def _components(found: Mapping[str, Any]) -> Iterator[Section]:
    naive = found["boilerplate_counted_too"]
    rows = [
        ("components", f"{found['number']:,}", f"{naive['number']:,}"),
        ("rows of the largest", f"{found['largest'][0]:,}", f"{naive['largest'][0]:,}"),
        ("links that connect focuses", f"{found['links_across_focuses']:,}", f"{naive['links_across_focuses']:,}"),
        *((f"of {size} rows", f"{n:,}", f"{naive['sizes'][size]:,}") for size, n in found["sizes"].items()),
    ]
    yield Section(
        "Components",
        ("", "used", "boilerplate not ignored"),
        rows,
        "Rows that share a focus or a near-duplicate answer lie on one side together.",
    )


def _texts(document: Mapping[str, Any], most: int | None) -> Iterator[Section]:
    few = _FEW if most is not None else None
    plate, forms, odd = document["boilerplate"], document["templates"], document["mojibake"]
    yield Section(
        "Boilerplate",
        ("passage", "rows", "focuses"),
        [(_short(entry["text"]), f"{entry['rows']:,}", f"{entry['focuses']:,}") for entry in plate["most"][:few]],
        f"{plate['passages']:,} passages of five words or more stand under ten focuses or more: "
        f"{plate['share_of_answer_characters']:.1%} of all characters of the answers.",
    )
    yield Section(
        "Question templates",
        ("template", "rows"),
        [(_short(entry["template"]), f"{entry['rows']:,}") for entry in forms["most"][:few]],
        f"{forms['different']:,} different ones, {forms['once']:,} of them used once.",
    )
    yield Section(
        "Mojibake",
        ("sign, and a place", "rows"),
        [(_short(f"{kind}: …{entry['examples'][0]['text']}…"), f"{entry['rows']:,}") for kind, entry in odd.items()],
        "" if odd else "No sign of texts decoded wrongly.",
    )


def _figures(figures: Mapping[str, int]) -> list[tuple[str, ...]]:
    return [(what, f"{count:,}") for what, count in figures.items()]


def _rest(listed: Sequence[Any], most: int | None) -> str:
    return f"The {most} most frequent of {len(listed):,}." if most is not None and len(listed) > most else ""


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _line(cells: Sequence[str], *, escape: bool = True) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') if escape else cell for cell in cells)} |"
