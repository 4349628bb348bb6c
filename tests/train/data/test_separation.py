"""What hangs together stays together, boilerplate links nothing, and nothing held out is known from training."""

import random
from pathlib import Path
from typing import Any

import pytest

from medmind.artifacts import write_jsonl
from medmind.errors import MedmindError
from medmind_train.data import Row, components, prepare, split
from medmind_train.data.near import Forest, Twins, join_near
from medmind_train.data.ngrams import Words
from medmind_train.data.overlap import grams_of, holders, shares
from medmind_train.data.split import position

VOCABULARY = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in ("ra", "lon", "mi", "tes", "ku")]


def prose(seed: object, words: int = 60) -> str:
    """Words of our own making, the same for a seed."""
    return " ".join(random.Random(str(seed)).choices(VOCABULARY, k=words)).capitalize() + "."


def row(focus: str, answer: str, question: str = "") -> Row:
    question = question or f"What is {focus}?"
    return Row(
        f"{focus}/{question}", ({"role": "user", "content": question}, {"role": "assistant", "content": answer}), focus
    )


def record(focus: str, answer: str, question: str = "") -> dict[str, str]:
    source = focus.split(maxsplit=1)[0]
    return {"question": question or f"What is {focus}?", "answer": answer, "focus": focus, "source": source}


def test_the_jaccard_similarity_decides_and_not_its_estimate() -> None:
    base = prose("base", 100).split()
    close, far = base.copy(), base.copy()
    close[50] = "changed"
    for at in range(0, 100, 12):
        far[at] = "changed"
    texts = [" ".join(words) for words in (base, close, far)] + [prose(n, 100) for n in range(50)]
    forest = Forest(len(texts))
    assert join_near(Words(texts).grams(5), forest) == [(0, 1)]
    assert len({forest.find(at) for at in range(len(texts))}) == len(texts) - 1
    twins = Twins(Words(texts).grams(5))
    assert twins.has(0, {1})
    assert not twins.has(0, {0, 2, 3})


def test_grams_are_those_of_each_text_alone() -> None:
    grams = Words(["one two three four", "Three FOUR, one", "", "two"]).grams(2)
    assert grams.sizes.tolist() == [3, 2, 0, 0]
    sets = [set(own.tolist()) for own in grams.sets()]
    assert len(sets[0] & sets[1]) == 1
    assert Words(["one two three four", "Three FOUR, one", "", "two"]).grams(2, whole=True).sizes.tolist() == [
        3,
        2,
        0,
        1,
    ]


def test_near_copies_under_two_names_lie_in_one_component_with_all_of_both_focuses() -> None:
    text = prose("shared")
    rows = [
        row("Kidney stones", text),
        row("Kidney stones", prose(1), "How long?"),
        row("Stones told again", text + " And one more word."),
        row("Stones told again", prose(2), "How long?"),
        row("Sty", prose(3)),
    ]
    found = components(rows)
    assert found.keys == ("kidney stones",) * 4 + ("sty",)
    assert found.across == 1


def test_boilerplate_under_many_focuses_links_none_of_them() -> None:
    plate = prose("plate", 500)
    rows = [row(f"Ache {n}", f"{plate} {prose(n, 30)}") for n in range(40)]
    assert len(components(rows, boilerplate=None).sizes()) < 40
    assert components(rows).sizes() == [1] * 40


def test_one_answer_copied_under_many_questions_is_no_boilerplate() -> None:
    rows = [row("", prose("copied"), f"Way {n} of asking?") for n in range(30)]
    assert components([*rows, row("Sty", prose(1))]).sizes() == [30, 1]


def test_short_answers_link_nothing() -> None:
    assert components([row(f"Ache {n}", "Nobody knows what the cause of it is.") for n in range(5)]).sizes() == [1] * 5


def test_the_split_hangs_on_no_order_and_parts_no_component() -> None:
    rows = [row(f"Ache {n}", prose(n // 2)) for n in range(200)]
    first = split(rows, 0.3, 0.1)
    mixed = rows.copy()
    random.Random(3).shuffle(mixed)
    again = split(mixed, 0.3, 0.1)
    for side, other in zip(first, again, strict=True):
        assert side
        assert {r.id for r in side} == {r.id for r in other}
        assert all(len([r for r in side if r.messages[1] == one.messages[1]]) == 2 for one in side)


def test_held_out_rows_do_not_hang_on_the_share_for_validation() -> None:
    rows = [row(f"Ache {n}", prose(n)) for n in range(200)]
    assert split(rows, 0.2, 0.0).heldout == split(rows, 0.2, 0.3).heldout
    assert split(rows, 0.2, 0.0).validation == []


def test_shares_count_grams_anywhere_in_training_and_short_answers_as_one() -> None:
    long = prose("long", 60).rstrip(".")
    words = long.split()
    texts = [long, "Nobody knows.", "nobody knows", " ".join(words[:30]), prose("x"), " ".join(words[30:])]
    grams = grams_of(Words(texts))
    assert shares(grams, [0, 1], [2, 3]).tolist() == pytest.approx([18 / 48, 1.0])
    assert shares(grams, [0, 1], [3, 4, 5]).tolist() == pytest.approx([36 / 48, 0.0])
    assert shares(grams, [], [1]).tolist() == []
    assert shares(grams, [0], []).tolist() == [0.0]
    assert holders(grams, [0], [1, 3, 4, 5]) == {3, 5}


def sided(count: int, share: float) -> tuple[list[str], list[str]]:
    """Names whose hash puts them (in training, held out)."""
    names = [f"Ache {n}" for n in range(count)]
    return [n for n in names if position(n.lower()) > share + 0.02], [n for n in names if position(n.lower()) < share]


def test_held_out_answers_known_from_training_are_dropped_and_counted_by_source(tmp_path: Path, make: Any) -> None:
    learnt, held = sided(200, 0.2)
    known = prose("known", 40)
    records = [record(name, prose(name, 100)) for name in [*learnt, *held]]
    records += [
        record(learnt[0], known + prose("a", 90), "How so?"),
        record(held[0], known + prose("b", 90), "Why so?"),
    ]
    prepared = prepare(make.jsonl(tmp_path / "a.jsonl", records), heldout_share=0.2)
    assert prepared.counts.dropped == {"held-out answer known from training": 1}
    assert prepared.counts.grouping.known == {"Ache": 1}
    assert {r.focus for r in prepared.heldout} == set(held)
    assert "Why so?" not in {r.question for r in prepared.heldout}
    assert sum(dict(prepared.counts).values()) == 2 * len(records)


def test_recorded_rows_stay_held_out_and_training_rows_that_join_them_are_dropped(tmp_path: Path, make: Any) -> None:
    learnt, held = sided(100, 0.2)
    records = [record(name, prose(name)) for name in [*learnt, *held]]
    first = prepare(make.jsonl(tmp_path / "a.jsonl", records), heldout_share=0.2)
    write_jsonl(tmp_path / "run" / "heldout.jsonl", [r.to_dict() for r in first.heldout])
    # "Aaa" comes before every "Ache": it becomes the key of the component that it joins, and moves it into training.
    bridge = next(f"Aaa {n}" for n in range(99) if position(f"aaa {n}") > 0.5)
    records += [
        record(bridge, prose(held[0]) + " More."),
        record(bridge, prose("another"), "How so?"),
        record(held[1], prose("new"), "Why so?"),
        record(learnt[0], prose(held[2], 60)[:-1] + " " + prose("tail", 60), "And then?"),
    ]
    path = make.jsonl(tmp_path / "b.jsonl", records[1:] if records[0]["focus"] in held else records)
    moved = prepare(path, heldout_share=0.2)
    assert held[0] not in {r.focus for r in moved.heldout}, "without the record the bridge moves it into training"
    again = prepare(path, heldout_share=0.2, recorded=tmp_path / "run")
    assert {r.id for r in first.heldout} <= {r.id for r in again.heldout}
    assert again.counts.dropped["hangs together with a recorded held-out row"] == 2
    assert again.counts.dropped["holds the text of a recorded held-out answer"] == 1
    assert not {bridge, *held} & {r.focus for r in again.train}
    assert "And then?" not in {r.question for r in again.train}
    assert "Why so?" in {r.question for r in again.heldout}
    assert again.counts.grouping.recorded == len(first.heldout)


def test_recorded_rows_that_the_source_has_lost_are_held_out_still(tmp_path: Path, make: Any) -> None:
    learnt, held = sided(60, 0.2)
    records = [record(name, prose(name)) for name in [*learnt, *held]]
    first = prepare(make.jsonl(tmp_path / "a.jsonl", records), heldout_share=0.2)
    again = prepare(
        make.jsonl(tmp_path / "b.jsonl", [record(name, prose(name)) for name in learnt]),
        heldout_share=0.2,
        recorded=first.heldout,
        limit=10,
    )
    assert {r.id for r in again.heldout} >= {r.id for r in first.heldout}
    assert again.counts.grouping.recorded_lost == len(held)
    assert again.counts.train + again.counts.validation <= 10
    assert dict(again.counts)["recorded, not in the source"] == len(held)


def test_a_recorded_file_that_is_none_is_refused_before_the_source_is_read(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("", encoding="utf-8")
    (tmp_path / "odd.jsonl").write_text('{"id": "a"}\n', encoding="utf-8")
    for name, wrong in (
        ("empty.jsonl", "holds no row"),
        ("odd.jsonl", "odd.jsonl:1 has no messages"),
        ("none", "does not exist"),
        (".", "holds no heldout.jsonl"),
    ):
        with pytest.raises(MedmindError, match=wrong):
            prepare("does/not/exist.csv", recorded=tmp_path / name)


def test_nothing_left_to_train_on_or_to_hold_out_is_refused(tmp_path: Path, make: Any) -> None:
    learnt, held = sided(60, 0.2)
    path = make.jsonl(tmp_path / "a.jsonl", [record(learnt[0], prose(1)), record(learnt[1], prose(2))])
    everything = [row(learnt[0], prose(1)), row(learnt[1], prose(2))]
    with pytest.raises(MedmindError, match="no row is left to train on"):
        prepare(path, heldout_share=0.2, recorded=everything)
    same = "Nobody knows."
    path = make.jsonl(tmp_path / "b.jsonl", [record(learnt[0], same), record(held[0], same)])
    with pytest.raises(MedmindError, match="no held-out row is left"):
        prepare(path, heldout_share=0.2)
    copies = [record(name, prose("copied")) for name in learnt[:4]]
    with pytest.raises(MedmindError, match="repeat one another"):
        prepare(make.jsonl(tmp_path / "c.jsonl", copies))


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_validation_share_outside_its_range_is_refused(share: float) -> None:
    with pytest.raises(MedmindError, match="validation share"):
        prepare("does/not/exist.csv", validation_share=share)
