"""The embedded sample: large enough, regular, and in its own words."""

import io
import json
import re
from collections import Counter
from pathlib import Path

from medmind_train.data import focus_key, prepare
from medmind_train.data.clean import clean_question, clean_text
from medmind_train.data.sources import SAMPLE_PATH

RECORDS = [json.loads(line) for line in SAMPLE_PATH.read_text(encoding="utf-8").splitlines()]


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def test_the_sample_is_prepared_without_loss_and_split_by_focus() -> None:
    prepared = prepare("sample")
    counts = prepared.counts
    assert counts.read == counts.train + counts.validation + counts.heldout >= 130
    assert sum(counts.focuses.values()) >= 40
    assert counts.heldout >= 10
    assert not {focus_key(row) for row in prepared.train} & {focus_key(row) for row in prepared.heldout}
    assert prepared.source == "sample"


def test_every_focus_has_several_questions_of_known_types() -> None:
    assert min(Counter(record["focus"] for record in RECORDS).values()) >= 3
    assert {record["question_type"] for record in RECORDS} == {
        "information",
        "symptoms",
        "causes",
        "treatment",
        "prevention",
        "exams and tests",
        "susceptibility",
        "outlook",
        "complications",
        "considerations",
    }


def test_answers_are_of_the_promised_length_clean_and_unique() -> None:
    for record in RECORDS:
        assert 40 <= len(words(record["answer"])) <= 90, record["id"]
        assert clean_text(record["answer"]) == record["answer"]
        assert clean_question(record["question"]) == record["question"]
        assert record["question"].endswith("?")
        assert record["answer"].endswith(".")
    for field in ("id", "question", "answer"):
        assert len({record[field] for record in RECORDS}) == len(RECORDS)


def test_no_answer_names_a_dose() -> None:
    dose = re.compile(r"\d+\s*(mg|mcg|µg|g|ml|iu|units?|milligrams?|micrograms?|tablets?)\b", re.IGNORECASE)
    assert not [record["id"] for record in RECORDS if dose.search(record["answer"])]


def test_no_eight_words_in_a_row_are_medquads(shared: Path) -> None:
    import zstandard

    own = {}
    for record in RECORDS:
        for field in ("question", "answer"):
            text = words(record[field])
            own |= {tuple(text[at : at + 8]): record["id"] for at in range(len(text) - 7)}
    found = set()
    with (shared / "medquad.jsonl.zst").open("rb") as file:
        reader = zstandard.ZstdDecompressor().stream_reader(file)
        for line in io.TextIOWrapper(reader, encoding="utf-8"):
            record = json.loads(line)
            text = words(f"{record['question']} {record['answer']}")
            found |= {eight for at in range(len(text) - 7) if (eight := tuple(text[at : at + 8])) in own}
    assert len(own) > 5000
    assert not [(own[eight], " ".join(eight)) for eight in found]
