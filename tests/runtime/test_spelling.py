import os
import subprocess
import sys

import pytest

from medmind_runtime.safety import spelling
from medmind_runtime.safety.spelling import Speller, distance
from medmind_runtime.safety.triage import triage

# "beast" and "boost" are as near to "boast", each by another letter.
LIKE = ["beast", "boost", "sorelt", "surely"]


@pytest.mark.parametrize(("typed", "meant"), [("boast", "boost"), ("sorely", "sorelt"), ("sorel", "sorelt")])
def test_of_words_as_near_the_one_that_begins_alike_is_meant(typed: str, meant: str) -> None:
    assert Speller(LIKE, frozenset()).word(typed) == meant


def test_a_text_without_spaces_is_no_misspelling_and_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    speller = Speller(["appendicitis"], frozenset())
    assert speller.word("appendicitisss") == "appendicitis"
    monkeypatch.setattr(spelling, "_without", None)  # two letters left out of 80,000 are 3,200,000,000 texts
    assert speller.word("pain" * 20_000) == "pain" * 20_000


def test_no_process_reads_a_word_otherwise_than_another() -> None:
    """A set of texts has another order in each."""
    code = f"from medmind_runtime.safety.spelling import Speller; print(Speller({LIKE}, frozenset()).word('boast'))"
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in range(1, 7)
    }
    assert told == {"boost\n"}


def test_common_words_are_no_misspellings_of_alarming_ones() -> None:
    words = ["faces", "seats", "bells", "switches", "washed", "writhing", "crowding", "wells"]
    assert [triage().reader.speller.word(word) for word in words] == words


def test_distance_counts_an_exchange_once() -> None:
    assert [distance("stroke", other) for other in ("stroke", "storke", "strke", "strooke", "strike", "")] == [
        0,
        1,
        1,
        1,
        1,
        6,
    ]
