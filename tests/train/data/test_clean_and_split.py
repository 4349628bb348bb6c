"""Cleaning keeps words and structure; a focus never lies on both sides, and its side hangs on nothing else."""

import random
from pathlib import Path
from typing import Any

import pytest

from medmind.errors import MedmindError
from medmind_train.data import Row, focus_key, prepare, split
from medmind_train.data.clean import clean_question, clean_text
from medmind_train.data.split import position, thin


def row(focus: str, question: str = "What is it?", answer: str = "A nuisance.") -> Row:
    messages = ({"role": "user", "content": question}, {"role": "assistant", "content": answer})
    return Row(f"{focus}/{question}/{answer}", messages, focus)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("  one   two\tthree\xa0four ", "one two three four"),
        ("one\r\ntwo.\rThree\u2028Four", "one two.\nThree\nFour"),
        ("A paragraph.\n   \n\n  Another.", "A paragraph.\n\nAnother."),
        ("wrapped in the\n      middle of a sentence.", "wrapped in the middle of a sentence."),
        ("It helps to:\n- rest\n- drink", "It helps to:\n- rest\n- drink"),
        ("It helps to    - rest    - drink  -  sleep.", "It helps to\n- rest\n- drink\n- sleep."),
        ("- the last item.        A new paragraph.", "- the last item.\nA new paragraph."),
        ("Two spaces.  Same paragraph.", "Two spaces. Same paragraph."),
        ("soft\u00adhyphen, zero\u200bwidth, nul\x00", "softhyphen, zerowidth, nul"),
        ("half a surrogate \ud83d", "half a surrogate"),
        ("cafe\u0301", "café"),
        (" \n\t ", ""),
        ("well-known - as before", "well-known - as before"),
    ],
)
def test_white_space_is_put_right_and_structure_stays(raw: str, clean: str) -> None:
    assert clean_text(raw) == clean
    assert clean_text(clean) == clean


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("What is (are) Hay fever ?", "What is (are) Hay fever?"),
        ("Who is at risk for Hay fever? ?", "Who is at risk for Hay fever?"),
        ("Does it hurt ?  And when ?", "Does it hurt? And when?"),
        ("tell me about hiccups", "tell me about hiccups"),
    ],
)
def test_question_marks_stand_where_they_belong(raw: str, clean: str) -> None:
    assert clean_question(raw) == clean


def test_empty_and_repeated_rows_are_dropped_and_counted(tmp_path: Path, make: Any) -> None:
    records = make.pairs()
    records += [
        {"question": " ", "answer": "Something.", "focus": "Sty"},
        {"question": "Why?", "answer": "\n \t", "focus": "Sty"},
        {**records[0], "answer": records[0]["answer"].replace(" ", "  ").upper()},
        {**records[0], "answer": "Another answer to the same question."},
    ]
    counts = prepare(make.jsonl(tmp_path / "a.jsonl", records)).counts
    assert counts.dropped == {"empty question": 1, "empty answer": 1, "exact duplicate": 1}
    assert counts.train + counts.validation + counts.heldout == 17
    assert dict(counts)["read"] == 20 == sum(rows for what, rows in counts if what != "read")


def test_which_duplicate_stays_does_not_hang_on_the_order(tmp_path: Path, make: Any) -> None:
    twins = [{"question": "Why?", "answer": "Nobody knows.", "focus": focus} for focus in ("", "Sty", "Bunion")]
    records = [*make.pairs(["Dry eye", "Hiccups"]), *twins]
    sides = []
    for order in (records, records[::-1]):
        prepared = prepare(make.jsonl(tmp_path / "a.jsonl", order), heldout_share=0.5)
        sides.append({(r.focus, r.question, side) for side in ("train", "heldout") for r in getattr(prepared, side)})
    assert sides[0] == sides[1]
    assert ("Bunion", "Why?") in {(focus, question) for focus, question, _ in sides[0]}


def test_data_that_is_empty_after_cleaning_is_refused_with_the_counts(tmp_path: Path, make: Any) -> None:
    path = make.jsonl(tmp_path / "a.jsonl", [{"question": "Why?", "answer": " "}, {"question": "", "answer": "x"}])
    with pytest.raises(MedmindError, match=r"no usable row is left of .*: 2 read \(1 empty question, 1 empty answer\)"):
        prepare(path)


def test_no_focus_lies_on_both_sides_however_it_is_spelt() -> None:
    spellings = ["Crohn's Disease", "crohns disease", "CROHN’S  DISEASE ", "Crohn's-Disease"]
    rows = [row(spelling, f"Question {n}?") for n, spelling in enumerate(spellings)]
    rows += [row(f"Ache {n}", f"Question {m}?") for n in range(200) for m in range(3)]
    train, _, heldout = split(rows, 0.2)
    assert not {focus_key(r) for r in train} & {focus_key(r) for r in heldout}
    assert len(train) + len(heldout) == len(rows)
    assert len({focus_key(r) for r in rows[:4]}) == 1


def test_a_side_hangs_on_the_component_alone_and_not_on_order_or_other_rows() -> None:
    rows = [row(f"Ache {n}") for n in range(300)]
    held = {r.focus for r in split(rows, 0.1).heldout}
    shuffled = rows.copy()
    random.Random(5).shuffle(shuffled)
    assert {r.focus for r in split(shuffled, 0.1).heldout} == held
    assert {r.focus for r in split(rows[:150], 0.1).heldout} == held & {r.focus for r in rows[:150]}
    assert held < {r.focus for r in split(rows, 0.3).heldout}


def test_the_held_out_side_has_about_the_share_asked_for() -> None:
    rows = [row(f"Ache {n}") for n in range(5000)]
    assert len(split(rows, 0.1, 0.02).heldout) == pytest.approx(500, abs=75)  # 3.5 standard deviations of a fair hash


def test_the_hash_behind_the_split_is_the_documented_one() -> None:
    assert position("hiccups") == pytest.approx(0.284307958, abs=1e-9)  # by sha256sum(1)


def test_rows_without_focus_are_split_by_their_question() -> None:
    rows = [row("", f"Question {n // 2} ?", f"Answer {n}.") for n in range(400)]
    train, _, heldout = split(rows, 0.3)
    assert heldout
    assert not {r.question for r in train} & {r.question for r in heldout}


@pytest.mark.parametrize("share", [1e-9, 1 - 1e-9])
def test_neither_side_is_empty_where_there_are_two_focuses(share: float) -> None:
    train, _, heldout = split([row("Sty"), row("Bunion")], share)
    assert len(train) == len(heldout) == 1


def test_a_single_focus_cannot_be_split() -> None:
    with pytest.raises(MedmindError, match="about one focus"):
        split([row("Sty", "a?"), row("sty", "b?")], 0.1)


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, 7.0, float("nan")])
def test_a_share_outside_its_range_is_refused_before_anything_is_read(share: float) -> None:
    with pytest.raises(MedmindError, match="held-out share"):
        prepare("does/not/exist.csv", heldout_share=share)


def test_a_limit_picks_evenly_nested_and_keeps_the_order() -> None:
    rows = [row(f"Ache {n}", answer=f"Answer {n}.") for n in range(400)]
    small, large = ([rows[at] for at in thin(rows, limit)] for limit in (40, 80))
    assert len(small) == 40
    assert [r for r in large if r in small] == small
    assert [rows.index(r) for r in large] == sorted(rows.index(r) for r in large)
    assert 5 < sum(rows.index(r) < 100 for r in small) < 17
    assert thin(rows, 400) == list(range(400))


def test_the_digest_changes_with_the_text_and_with_the_split(tmp_path: Path, make: Any) -> None:
    records = make.pairs()
    path = make.jsonl(tmp_path / "a.jsonl", records)
    first = prepare(path, heldout_share=0.2).digest
    assert first.startswith("sha256:")
    assert prepare(make.csv(tmp_path / "a.csv", records), heldout_share=0.2).digest == first
    assert prepare(path, heldout_share=0.9).digest != first
    records[0]["answer"] += " Really."
    assert prepare(make.jsonl(path, records), heldout_share=0.2).digest != first
