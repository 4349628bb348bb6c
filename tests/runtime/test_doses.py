import itertools
import random
import time

import pytest

from medmind_runtime.guard import Before
from medmind_runtime.safety.careful import NOTHING, Careful
from medmind_runtime.safety.doses import NOTE, DoseWatch
from medmind_runtime.turn import Passage

NUMBERS = [
    "500", "2.5", "0.25", "1,000", "1 000", "½", "1/2", "5-10", "5 to 10", "between 5 and 10", "five", "five hundred", "half a",  # noqa: E501
    "twenty-five", "one thousand two hundred", "two and a half", "５００", "2 x 500",
]  # fmt: skip
UNITS = [
    "mg", "mcg", "µg", "g", "ml", "milligrams", "micrograms", "mg/kg", "mg per kg per day", "units", "IU", "tablets", "drops", "puffs",  # noqa: E501
    "teaspoons", "grams",
]  # fmt: skip
DRUGS = ["ibuprofen", "paracetamol", "warfarin", "insulin", "amoxicillin"]


def streamed(text: str, sizes: random.Random, *passages: str, question: str = "") -> str:
    watch = DoseWatch(passages, question)
    shown, at = "", 0
    while at < len(text):
        step = sizes.randint(1, 4)
        shown += watch.feed(text[at : at + step])
        at += step
    return shown + watch.finish()


def test_no_invented_dose_gets_through_however_it_is_written_and_cut() -> None:
    chance = random.Random(4)
    cases = list(itertools.product(NUMBERS, UNITS))
    assert len(cases) >= 288
    for number, unit in cases:
        drug = chance.choice(DRUGS)
        text = f"For pain take {number} {unit} of {drug} every few hours, and rest well afterwards at home today."
        shown = streamed(text, chance, f"{drug} is a medicine. Take 7 mg of {drug} a day.")
        assert NOTE in shown, (number, unit)
        digits = [part for part in number.replace("-", " ").split() if any(sign.isdigit() for sign in part)]
        assert not any(part in shown for part in digits), shown
        assert f"{number} {unit}" not in shown


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


def test_a_long_run_without_spaces_costs_no_more_than_words() -> None:
    def seconds(piece: str) -> float:
        guard = DoseWatch([])
        began = time.process_time()
        for _ in range(400):
            guard.feed(piece)
        return time.process_time() - began

    seconds("warm up ")
    assert seconds("x" * 20) < 20 * seconds("x" * 19 + " ")
