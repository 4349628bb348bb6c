"""The real MedQuAD in its three forms, where it lies beside the checkout."""

import tarfile
import time
from pathlib import Path

import pytest

from medmind_train.data import Prepared, Row, focus_key, prepare


@pytest.fixture(scope="module")
def whole(shared: Path) -> Prepared:
    start = time.process_time()
    prepared = prepare(shared / "medquad.jsonl.zst")
    assert time.process_time() - start < 30, "preparing took far longer than the 9 s it was measured at"
    return prepared


@pytest.fixture(scope="module")
def tree(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import zstandard

    root = tmp_path_factory.mktemp("xml")
    with (shared / "xml-sample.tar.zst").open("rb") as file:
        reader = zstandard.ZstdDecompressor().stream_reader(file)
        with tarfile.open(fileobj=reader, mode="r|") as archive:
            archive.extractall(root, filter="data")
    return root


def by_id(prepared: Prepared) -> dict[str, Row]:
    return {row.id: row for row in [*prepared.train, *prepared.validation, *prepared.heldout]}


def test_all_15433_rows_are_accounted_for_and_only_the_useless_dropped(whole: Prepared) -> None:
    assert whole.counts.read == 15_433
    assert set(whole.counts.dropped) == {
        "exact duplicate",
        "question without a subject",
        "held-out answer known from training",
        "validation answer known from training",
    }
    assert 40 <= whole.counts.dropped["exact duplicate"] <= 48  # 48 exact repeats, less those without a subject
    assert whole.counts.dropped["question without a subject"] == 4
    assert len(by_id(whole)) == whole.counts.train + whole.counts.validation + whole.counts.heldout
    dropped = whole.counts.dropped["held-out answer known from training"]
    assert (whole.counts.heldout + dropped) / whole.counts.read == pytest.approx(0.1, abs=0.02)
    assert whole.counts.heldout > 800
    assert sum(dict(whole.counts).values()) == 2 * whole.counts.read


def test_boilerplate_links_no_focuses_and_real_copies_do(whole: Prepared) -> None:
    grouping = whole.counts.grouping
    assert 100 < grouping.largest < 200, "naive linking makes one component of 3,423 rows"
    assert 80 < grouping.links_across < 200
    assert grouping.known["GARD"] > 200
    assert sum(grouping.known.values()) == sum(
        rows for why, rows in whole.counts.dropped.items() if why.endswith("known from training")
    )


@pytest.mark.slow
def test_what_was_held_out_before_is_held_out_again_and_nothing_else_changes(shared: Path, whole: Prepared) -> None:
    again = prepare(shared / "medquad.jsonl.zst", recorded=whole.heldout)
    assert again.digest == whole.digest
    assert again.counts.grouping.recorded == len(whole.heldout)
    assert again.counts.grouping.recorded_known == 0


def test_no_focus_and_no_row_lies_on_both_sides(whole: Prepared) -> None:
    assert not {focus_key(row) for row in whole.train} & {focus_key(row) for row in whole.heldout}
    texts = [{(row.question, row.messages[-1]["content"]) for row in side} for side in (whole.train, whole.heldout)]
    assert not texts[0] & texts[1]


def test_no_odd_white_space_is_left(whole: Prepared) -> None:
    for row in by_id(whole).values():
        for message in row.messages:
            text = message["content"]
            assert text == text.strip()
            assert not {"\t", "\r", "\xa0"} & set(text)
            assert "  " not in text
            assert "\n\n\n" not in text
        assert " ?" not in row.question


def test_cleaning_changes_no_word(shared: Path, whole: Prepared) -> None:
    from medmind_train.data.sources import find

    kept = by_id(whole)
    for raw in find(str(shared / "medquad.jsonl.zst")).rows():
        if raw.id in kept:
            assert kept[raw.id].messages[-1]["content"].split() == raw.messages[-1]["content"].split()


def test_kaggles_300_rows_are_read(shared: Path) -> None:
    counts = prepare(shared / "kaggle_medquad_sample.csv").counts
    assert counts.read == 300
    assert counts.train + counts.validation + counts.heldout + sum(counts.dropped.values()) == 300
    assert counts.train + counts.validation + counts.heldout > 250


def test_60_xml_files_give_the_rows_of_the_json_lines(tree: Path, whole: Prepared) -> None:
    prepared = prepare(tree)
    assert len(list(tree.rglob("*.xml"))) == 60
    assert [Path(file.path).name for file in prepared.counts.skipped_files] == ["0000056.xml"]  # it has no pairs
    rows, known = by_id(prepared), by_id(whole)
    rows = {name: row for name, row in rows.items() if name in known}  # what training knows hangs on all of training
    assert len(rows) > 180
    assert {"NINDS", "CDC"} <= {row.source for row in rows.values()}
    for name, row in rows.items():
        assert (row.question, row.question_type, row.source) == (
            known[name].question,
            known[name].question_type,
            known[name].source,
        )
        assert row.messages == known[name].messages
        if known[name] in whole.heldout:
            assert row not in prepared.train
