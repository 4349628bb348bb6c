import json
import random
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from medmind_runtime.guard import Before
from medmind_runtime.safety.careful import NOTHING, Careful
from medmind_runtime.safety.doses import NOTE, DoseWatch, amounts, groups, mentions, often, patients
from medmind_runtime.safety.doses.mentions import Mention
from medmind_runtime.safety.doses.reading import Token, tokens
from medmind_runtime.safety.doses.support import Passages
from medmind_runtime.turn import Passage


def streamed(text: str, sizes: random.Random, *passages: str, question: str = "") -> str:
    return in_pieces(text, sizes, DoseWatch(passages, question))


def in_pieces(text: str, sizes: random.Random, watch: DoseWatch) -> str:
    shown, at = "", 0
    while at < len(text):
        step = sizes.randint(1, 4)
        shown += watch.feed(text[at : at + step])
        at += step
    return shown + watch.finish()


@dataclass(frozen=True)
class Sentence:
    text: str
    passages: tuple[str, ...]
    shown: bool
    question: str = ""
    gone: tuple[str, ...] = ()
    """Of several doses each one that is not to be seen."""

    def leaks(self, seen: str) -> bool:
        """Whether a dose is still there."""
        left = seen.replace(NOTE, "")
        return NOTE not in seen or any(re.search(rf"(?<![\w.]){re.escape(dose)}(?!\w)", left) for dose in self.gone)


SENTENCES = [
    Sentence(row["text"], tuple(row["passages"]), row["shown"], row.get("question", ""), tuple(row.get("gone", ())))
    for row in map(json.loads, Path(__file__).with_name("dose_sentences.jsonl").read_text("utf-8").splitlines())
]

NEEDLESSLY_CUT = {
    "Ibuprofen is taken 3 times a day for 5 days.",
    "The measles vaccine is given twice, as two doses of MMR.",
}
"""Harmless, and cut all the same; every other harmless sentence is shown as it is."""


def test_of_300_sentences_no_invented_dose_gets_through_and_the_harmless_are_shown() -> None:
    """Whole, a sign at a time, and cut at random places."""
    assert len({sentence.text for sentence in SENTENCES}) >= 300
    harmless = [sentence for sentence in SENTENCES if sentence.shown]
    assert 3 * len(harmless) >= len(SENTENCES)
    chance = random.Random(4)
    cut = set()
    read = {passages: Passages(passages) for passages in {sentence.passages for sentence in SENTENCES}}
    for sentence in SENTENCES:
        for pieces in ([sentence.text], list(sentence.text), None):
            watch = DoseWatch(read[sentence.passages], sentence.question)
            if pieces is None:
                shown = in_pieces(sentence.text, chance, watch)
            else:
                shown = "".join(map(watch.feed, pieces)) + watch.finish()
            if sentence.shown and shown != sentence.text:
                cut.add(sentence.text)
            assert sentence.shown or not sentence.leaks(shown), sentence
    assert cut == NEEDLESSLY_CUT


def test_wherever_it_is_cut_in_two() -> None:
    text = "Take **800**&nbsp;mg of ibuprofen."
    for place in range(1, len(text)):
        watch = DoseWatch(["Ibuprofen 200 mg."])
        shown = watch.feed(text[:place]) + watch.feed(text[place:]) + watch.finish()
        assert NOTE in shown, place
        assert "800" not in shown, place


NUMBERS = ["⅕", "⅚", "⅞", "٨٠٠", "८००", "８００", "8×10²", "1k", "sixhundred", "three tenths of a", "hundreds of"]


UNITS = ["mg", "㎎", "㎍", "ｍｇ", "мг", "cm³", "cubic centimeters", "grains", "USP units", "gelcaps"]


@pytest.mark.parametrize("number", NUMBERS)
def test_numbers_and_units_of_all_scripts(number: str) -> None:
    for unit in UNITS:
        shown = streamed(f"Take {number} {unit} of aspirin, and rest well.", random.Random(5), "Take 7 mg of aspirin.")
        assert NOTE in shown, unit
        assert number not in shown, unit


@pytest.mark.parametrize(
    ("said", "source"),
    [
        ("Take morphine 510 mg.", "Morphine 5-10 mg."),
        ("Take morphine 25 mg.", "Morphine 2,5 mg."),
        ("Take 11/2 tablets of warfarin.", "Warfarin 1 1/2 tablets."),
        ("Take ibuprofen 1000 mg.", "Ibuprofen 400 mg or paracetamol 1000 mg."),
        ("Take Xanax 400 mg.", "Ibuprofen 400 mg."),
        ("Take xanor 400 mg.", "Ibuprofen 400 mg."),
        ("Take ibuprofen 4000 mg.", "Ibuprofen 4000 mg is toxic."),
        ("Take ibuprofen 4000 mg.", "Do not take more than 4000 mg of ibuprofen."),
        ("Take ibuprofen 400 mg.", "Ibuprofen 400 mg/kg."),
        ("Double the dose of warfarin.", "Halve the dose of warfarin."),
        ("Take triple the usual dose of ibuprofen.", "Take twice the usual dose of ibuprofen."),
        ("Xanax is for sleep. Take 400 mg daily.", "Ibuprofen is for pain. Take 400 mg daily."),
        ("Take 400 mg daily.", "Paracetamol is for pain. Take 400 mg daily. Codeine is another."),
        ("Take ibuprofen q2h.", "Take ibuprofen every 4 to 6 hours."),
        ("Take several tablets of ibuprofen.", "Take both tablets of ibuprofen."),
        (f"Take ibuprofen {'9' * 25} mg.", f"Take ibuprofen {'1' * 25} mg."),
    ],
)
def test_nearly_the_passages_dose_is_not_it(said: str, source: str) -> None:
    assert NOTE in streamed(said, random.Random(6), source, question="ibuprofen with Xanax?")


@pytest.mark.parametrize(
    ("said", "source"),
    [
        ("Take 1½ tablets of warfarin.", "Warfarin 1 1/2 tablets."),
        ("Take ibuprofen 0.4 g.", "Ibuprofen 400 mg or paracetamol 1000 mg."),
        ("Take at most 4000 mg of ibuprofen.", "Do not take more than 4000 mg of ibuprofen."),
        ("Take ibuprofen six times a day.", "Ibuprofen: every 4 hours."),
        ("Take ibuprofen q4-6h.", "Take ibuprofen every 4 to 6 hours."),
        ("Tome dos comprimidos de ibuprofen.", "Take two tablets of ibuprofen."),
        ("Two doses of MMR vaccine are enough.", "Two doses of MMR vaccine."),
        ("Take five hundred milligrams of ibuprofen.", "Ibuprofen: 500 mg."),
    ],
)
def test_the_passages_dose_in_other_words_is_it(said: str, source: str) -> None:
    assert streamed(said, random.Random(7), source) == said


PIECES = [
    "1 ",
    "mg ",
    "((((",
    "IV ",
    "q1h ",
    "every 2 hours ",
    "*",
    "**a** ",
    "1/",
    "one ",
    "| 1 mg ",
    "[1, ",
    "\\",
    "&amp;",
    "a\n",
    "h u n d r ",
    "1 mg and then ",
    "1 mg plus ",
    "half the ",
    "then 1 or ",
    "up to 1 ",
]


@pytest.mark.parametrize("piece", PIECES)
def test_the_cost_grows_with_the_length_and_no_faster(piece: str) -> None:
    def calls(size: int) -> int:
        text = (piece * size)[:size]
        counted = 0

        def count(*_: object) -> None:
            nonlocal counted
            counted += 1

        before = sys.getprofile()
        sys.setprofile(count)
        try:
            watch = DoseWatch([text])
            for at in range(0, size, 100):
                watch.feed(text[at : at + 100])
            watch.finish()
        finally:
            sys.setprofile(before)
        return counted

    assert calls(1600) < 2.6 * calls(800)


@pytest.mark.parametrize(
    "piece", ["noon ", "8 and ", "1 2 3 ", "1 mg plus ", "1 mg and ", "half the ", "doubled or ", "1 then ", "1 up up "]
)
@pytest.mark.parametrize(("find", "size"), [(mentions.find, 3200), (often.find, 1600)])
def test_a_long_row_of_what_may_be_one_dose_is_followed_for_so_far_alone(
    piece: str, find: Callable[..., Iterator[Mention]], size: int
) -> None:
    """Lines are counted: a row that each place follows to the end calls little, and runs through many."""

    def lines(size: int) -> int:
        row = [*tokens("noon every "), *tokens(piece * (size // len(piece)))]
        counted = 0

        def count(*_: object) -> Any:
            nonlocal counted
            counted += 1
            return count

        before = sys.gettrace()
        sys.settrace(count)
        try:
            list(find(row, source=True))
        finally:
            sys.settrace(before)
        return counted

    assert lines(size) < 2.2 * lines(size // 2)


@pytest.mark.parametrize("piece", ["1 2 3 ", "1 - 2 ", "3 years "])
def test_of_a_question_full_of_numbers_each_is_read_once(piece: str, monkeypatch: pytest.MonkeyPatch) -> None:
    row, read = list(tokens(piece * 400)), []

    def counted(row: Sequence[Token], at: int) -> amounts.Amount:
        read.append(at)
        return amounts.read(row, at)

    monkeypatch.setattr(groups, "read", counted)
    monkeypatch.setattr(patients, "read", counted)
    groups.named(row, 0, len(row))
    assert 0 < len(read) <= 400
    read.clear()
    patients.named(row)
    assert 0 < len(read) <= 800


IBUPROFEN = "Adults take ibuprofen 200 mg to 400 mg every 4 to 6 hours."


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('{"drug":"ibuprofen","dose":800,"unit":"mg","dose_mg":800}', False),
        ('{"dose": {"value": 800, "unit": "mg"}}', False),
        ('{"ibuprofen": 800}', False),
        ('{"800 mg": "ibuprofen"}', False),
        ('{"drug": "Xanax", "dose": 400, "unit": "mg"}', False),
        ('{"unit": "mg", "doses": [400, 800], "drug": "ibuprofen"}', False),
        ('{"drug": "ibuprofen", "dose": 80', False),
        ('{"take": {"morning": 800, "evening": 600}}', False),
        ('{"tablets": {"am": 6, "pm": 9}}', False),
        ('{"how": "swallow with water", "total": 12}', False),
        ('{"medication": "as told", "count": 30}', False),
        ('{"drug":"ibuprofen","dose":400,"unit":"mg","dose_mg":400}', True),
        ('{"visits": {"morning": 12, "evening": 9}, "total": 21}', True),
        ('{"drug": "ibuprofen", "age": 12,  "answer": "Ibuprofen 200 mg to 400 mg"}', True),
        ('{"name":"asthma","count":3,"score":0.50,"more":[1, 2],"none":null}', True),
        ('{"name": "ast', True),
    ],
)
def test_a_document_is_held_back_for_an_invented_dose_in_a_number_and_else_stays_as_it_is(
    text: str, shown: bool
) -> None:
    watch = Careful().watch("q", [Passage(IBUPROFEN, "s", "u")], document=True)
    assert "".join(map(watch.feed, text)) + watch.finish() == (text if shown else "")
    assert ("held back" in watch.refusal) is not shown


def test_an_invented_dose_in_a_documents_string_is_left_out_and_the_document_stays_valid() -> None:
    watch = Careful().watch("q", [Passage(IBUPROFEN, "s", "u")], document=True)
    watch.feed('{"drug": "ibuprofen", "dose": "800", "how": "Take 800 mg [1] [7].", "dose": "800", "pages": 2.50}')
    shown = json.loads(watch.finish())
    assert shown == {"drug": "ibuprofen", "dose": NOTE, "how": f"Take {NOTE} [1] .", "pages": 2.5}


@pytest.mark.parametrize(
    "text", ["Take 500mg ibuprofen.", "ibuprofen 400-mg now", "Ibuprofen: 10\u200b0 mg", "give 5 mg/mL ibuprofen"]
)
def test_glued_and_hidden_forms(text: str) -> None:
    assert NOTE in streamed(text, random.Random(1))


def test_a_dose_of_the_source_stays_for_its_drug_alone() -> None:
    source = "Adults take 200 mg of ibuprofen. Take 500 mg of paracetamol."
    assert NOTE not in streamed("You may take 200 mg of ibuprofen with food.", random.Random(2), source)
    assert NOTE in streamed("You may take 500 mg of ibuprofen with food.", random.Random(2), source)
    assert NOTE in streamed("You may take 200 mg of it.", random.Random(2), source)
    assert NOTE not in streamed("You may take 200 mg.", random.Random(2), source, question="how much ibuprofen?")


@pytest.mark.parametrize(
    "text",
    [
        "About 5 percent of people over 65 years have it; in 2019 there were 1,200 cases, 3 of 10 in women. ",
        "A glucose of 126 mg/dL or more on two days. Call in 10 minutes. See section 2. ",
        "Type 2 diabetes usually begins after the age of forty; one in ten has it.",
    ],
)
def test_ordinary_numbers_stay(text: str) -> None:
    assert streamed(text, random.Random(3)) == text


def test_the_guard_opens_with_what_to_do_and_cites_only_what_was_given() -> None:
    guard = Careful()
    assert guard.before("What is asthma?", []) == Before()
    opening = guard.before("my dad has crushing chest pain and is sweating", [])
    assert opening.rule == "chest"
    assert opening.opening.startswith("Call your local emergency number now")
    assert "988" in guard.before("I want to kill myself", []).opening
    watch = guard.watch("q", [Passage("It is a lung disease.", "NHLBI", "https://example.org/a")])
    shown = (
        "".join(watch.feed(piece) for piece in ("It is one [", "1", "], not another [2", ", 7] or [1,", "3]."))
        + watch.finish()
    )
    assert shown.startswith("It is one [1], not another  or [1].")
    assert shown.endswith("Sources:\n[1] NHLBI, https://example.org/a")
    assert "rather than a guess" in NOTHING


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("so [1 and 3].", "so [1]."),
        ("so [3.].", "so ."),
        ("so [Source 3].", "so ."),
        ("so [source 1].", "so [1]."),
        ("so [^3].", "so ."),
        ("so [3\u200b].", "so ."),
        ("so [see above].", "so [see above]."),
        ("so [a list", "so [a list"),
    ],
)
def test_no_citation_of_what_was_not_given_is_shown_however_it_is_written(written: str, shown: str) -> None:
    for size in (1, 4, len(written)):
        watch = Careful().watch("q", [Passage("It is a lung disease.", "NHLBI", "")])
        pieces = [watch.feed(written[at : at + size]) for at in range(0, len(written), size)]
        assert "".join(pieces) + watch.finish() == f"{shown}\n\nSources:\n[1] NHLBI"


def test_a_long_run_without_spaces_costs_no_more_than_words() -> None:
    def seconds(piece: str) -> float:
        guard = DoseWatch([])
        began = time.process_time()
        for _ in range(400):
            guard.feed(piece)
        return time.process_time() - began

    seconds("warm up ")
    assert seconds("x" * 20) < 20 * seconds("x" * 19 + " ")
