"""Every format is recognised by its content and gives the same rows; what is broken is refused in one sentence."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from medmind.errors import MedmindError
from medmind_train.data import Prepared, Row, prepare

NINDS = """<?xml version="1.0" encoding="UTF-8"?>
<doc docid="0000007" corpus="NINDS" url="http://localhost/">
<doctitle-focus>Hiccups</doctitle-focus>
<umls><cui></cui></umls>
<qaPairs><pair pid="1"><question qid="0000007-1" qtype="information">what are hiccups ?</question>
<answer>A twitch of the diaphragm, over in minutes.</answer></pair></qaPairs>
</doc>
"""


def texts(prepared: Prepared) -> set[tuple[str, str]]:
    return {
        (row.question, row.messages[-1]["content"])
        for row in [*prepared.train, *prepared.validation, *prepared.heldout]
    }


def all_rows(prepared: Prepared) -> list[Row]:
    return [*prepared.train, *prepared.validation, *prepared.heldout]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.jsonl.zst", "rows.unknown"])
def test_json_lines_are_read_plain_and_compressed_whatever_their_name(tmp_path: Path, make: Any, name: str) -> None:
    prepared = prepare(make.jsonl(tmp_path / name, make.pairs()), heldout_share=0.3)
    assert texts(prepared) == {(pair["question"], pair["answer"]) for pair in make.pairs()}
    assert {row.focus for row in all_rows(prepared)} == set(make.focuses)
    assert {row.question_type for row in all_rows(prepared)} == {"information", "treatment"}


def test_several_zstandard_frames_are_read_to_the_end(tmp_path: Path, make: Any) -> None:
    whole = make.pairs()
    parts = [
        make.jsonl(tmp_path / f"{n}.jsonl.zst", part).read_bytes() for n, part in enumerate([whole[:5], whole[5:]])
    ]
    (tmp_path / "both.zst").write_bytes(b"".join(parts))
    assert prepare(tmp_path / "both.zst").counts.read == len(whole)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_as_on_kaggle_is_read(tmp_path: Path, make: Any, delimiter: str) -> None:
    records = [
        {"question": p["question"], "answer": p["answer"], "source": p["source"], "focus_area": p["focus"]}
        for p in make.pairs()
    ]
    prepared = prepare(make.csv(tmp_path / "medquad.csv", records, delimiter), heldout_share=0.3)
    assert texts(prepared) == {(pair["question"], pair["answer"]) for pair in make.pairs()}
    assert {row.focus for row in all_rows(prepared)} == set(make.focuses)


def test_csv_cells_may_hold_line_breaks_and_more_than_the_csv_modules_default(tmp_path: Path, make: Any) -> None:
    records = make.pairs()
    records[0]["answer"] = "First line.\nSecond line. " + "word " * 40_000
    longest = max(texts(prepare(make.csv(tmp_path / "a.csv", records))), key=lambda pair: len(pair[1]))[1]
    assert longest.startswith("First line.\nSecond line.")
    assert len(longest) > 131_072


def test_column_names_count_in_any_case_and_a_byte_order_mark_does_not(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(
        b"\xef\xbb\xbfqtype,Question,Answer\ninformation,What is a sty?,A sore eyelid.\ncauses,Why hiccups?,A twitch.\n"
    )
    rows = all_rows(prepare(tmp_path / "a.csv"))
    assert {(row.question, row.question_type) for row in rows} == {
        ("What is a sty?", "information"),
        ("Why hiccups?", "causes"),
    }


def test_an_xml_tree_is_read_with_empty_answers_counted(tmp_path: Path, make: Any) -> None:
    prepared = prepare(make.xml(tmp_path / "MedQuAD"), heldout_share=0.3)
    assert prepared.counts.read == 16
    assert prepared.counts.dropped == {"empty answer": 8}
    row = next(row for row in all_rows(prepared) if row.focus == "Bunion")
    assert row.question == "What is (are) Bunion?"
    assert row.messages[-1]["content"] == "Bunion is a passing nuisance & rarely serious."
    assert (row.id, row.question_type, row.source) == ("1_Part_QA/0000005.xml#1", "information", "Made up")


def test_xml_with_lower_case_tags_and_with_another_root_is_read(tmp_path: Path, make: Any) -> None:
    make.xml(tmp_path / "tree", make.focuses[:2])
    (tmp_path / "tree" / "ninds.xml").write_text(NINDS, encoding="utf-8")
    other = (tmp_path / "tree" / "0_Part_QA" / "0000000.xml").read_text(encoding="utf-8")
    other = other.replace("<Document id", "<DiseaseFile fid").replace("</Document>", "</DiseaseFile>")
    (tmp_path / "tree" / "0_Part_QA" / "0000000.xml").write_text(other, encoding="utf-8")
    rows = {row.focus: row for row in all_rows(prepare(tmp_path / "tree"))}
    assert set(rows) == {"Hiccups", "Hay fever", "Nosebleed"}
    assert (rows["Hiccups"].source, rows["Hiccups"].question_type) == ("NINDS", "information")


def test_a_missing_focus_is_no_fault_but_a_question_around_it_is_dropped(tmp_path: Path, make: Any) -> None:
    make.xml(tmp_path / "tree", ["", *make.focuses[:3]])
    prepared = prepare(tmp_path / "tree")
    assert prepared.counts.dropped["question without a subject"] == 1
    assert prepared.counts.train + prepared.counts.validation + prepared.counts.heldout == 3


def test_xml_that_is_not_well_formed_is_named_skipped_and_counted(
    tmp_path: Path, make: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = make.xml(tmp_path / "tree")
    (tree / "broken.xml").write_text("<Document><Focus>Hiccups</Document>", encoding="utf-8")
    (tree / "other.xml").write_text("<note>no pairs in here</note>", encoding="utf-8")
    counts = prepare(tree).counts
    reasons = {Path(file.path).name: file.reason for file in counts.skipped_files}
    assert set(reasons) == {"broken.xml", "other.xml"}
    assert "not well-formed" in reasons["broken.xml"]
    assert "no question-answer pairs" in reasons["other.xml"]
    assert counts.read == 16
    assert str(tree / "broken.xml") in capsys.readouterr().err


def test_chat_messages_of_several_turns_and_a_system_message_are_read(tmp_path: Path, make: Any) -> None:
    chats = [
        {
            "messages": [
                {"role": "system", "content": "Answer kindly."},
                {"role": "user", "content": f"I have {focus.lower()} ."},
                {"role": "assistant", "content": "Since when?"},
                {"role": "user", "content": "Yesterday  ?"},
                {"role": "assistant", "content": f"{focus} then passes soon."},
            ],
            "focus": focus,
        }
        for focus in make.focuses
    ]
    prepared = prepare(make.jsonl(tmp_path / "chat.jsonl", chats), heldout_share=0.3)
    row = next(row for row in all_rows(prepared) if row.focus == "Sty")
    assert [message["role"] for message in row.messages] == ["system", "user", "assistant", "user", "assistant"]
    assert row.messages[3]["content"] == "Yesterday?"


def test_a_last_user_turn_without_an_answer_is_cut_off(tmp_path: Path, make: Any) -> None:
    chats = [
        {
            "messages": [
                {"role": "user", "content": f"What is {focus}?"},
                {"role": "assistant", "content": f"{focus} passes."},
                {"role": "user", "content": "Thanks!"},
            ]
        }
        for focus in make.focuses
    ]
    rows = all_rows(prepare(make.jsonl(tmp_path / "chat.jsonl", chats), heldout_share=0.3))
    assert {len(row.messages) for row in rows} == {2}


def test_held_out_rows_of_a_run_can_be_read_again_unchanged(tmp_path: Path, make: Any) -> None:
    first = prepare(make.jsonl(tmp_path / "a.jsonl", make.pairs()), heldout_share=0.3)
    again = prepare(make.jsonl(tmp_path / "b.jsonl", [row.to_dict() for row in all_rows(first)]), heldout_share=0.3)
    assert again.heldout == first.heldout
    assert again.digest == first.digest
    assert [Row.from_dict(row.to_dict()) for row in first.train] == first.train


def test_a_directory_of_several_files_is_read_in_name_order(tmp_path: Path, make: Any) -> None:
    both = make.pairs()
    make.jsonl(tmp_path / "b.jsonl.gz", both[8:])
    make.jsonl(tmp_path / "a.jsonl", both[:8])
    (tmp_path / "README.md").write_text("notes", encoding="utf-8")
    (tmp_path / ".hidden.csv").write_text("x", encoding="utf-8")
    whole = prepare(make.jsonl(tmp_path.parent / f"{tmp_path.name}.jsonl", both), heldout_share=0.3)
    assert [row.question for row in prepare(tmp_path, heldout_share=0.3).train] == [r.question for r in whole.train]


def test_an_array_of_objects_is_read(tmp_path: Path, make: Any) -> None:
    (tmp_path / "a.json").write_text(json.dumps(make.pairs(), indent=1), encoding="utf-8")
    assert prepare(tmp_path / "a.json").counts.read == 16


def test_saved_data_sets_parquet_and_arrow_are_read_with_the_hubs_spellings(tmp_path: Path, make: Any) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [{"qtype": p["question_type"], "Question": p["question"], "Answer": p["answer"]} for p in make.pairs()]
    rows.append({"qtype": "causes", "Question": "Why?", "Answer": None})
    table = datasets.Dataset.from_list(rows)
    table.save_to_disk(str(tmp_path / "saved"))
    datasets.DatasetDict({"train": table}).save_to_disk(str(tmp_path / "dict"))
    (tmp_path / "files").mkdir()
    table.to_parquet(str(tmp_path / "files" / "0.parquet"))
    arrow = next((tmp_path / "saved").glob("*.arrow"))
    expected = texts(prepare(make.jsonl(tmp_path / "a.jsonl", make.pairs())))
    for source in (tmp_path / "saved", tmp_path / "dict", tmp_path / "files", tmp_path / "files/0.parquet", arrow):
        prepared = prepare(source)
        assert texts(prepared) == expected, source
        assert prepared.counts.dropped == {"empty answer": 1}
        assert {row.question_type for row in all_rows(prepared)} == {"information", "treatment"}


def test_ids_are_unique_even_where_the_source_repeats_them(tmp_path: Path, make: Any) -> None:
    records = [{**pair, "id": "same"} for pair in make.pairs()]
    rows = all_rows(prepare(make.jsonl(tmp_path / "a.jsonl", records)))
    assert len({row.id for row in rows}) == len(rows) == 16


BROKEN = {
    "no such columns": (
        "a.csv",
        b"title,body\nx,y\n",
        r"a\.csv has the columns title, body — wanted: question and answer",
    ),
    "too many cells": ("a.csv", b"question,answer\na?,b,c\n", r"a\.csv:2 has 3 cells, the header 2"),
    "bad line": ("a.jsonl", b'{"question": "a?", "answer": "b"}\n{"question": \n', r"a\.jsonl:2 is not valid JSON"),
    "no object": ("a.jsonl", b'{"question": "a?", "answer": "b"}\n[1]\n', r"a\.jsonl:2 is list"),
    "no text": ("a.jsonl", b'{"question": "a?", "answer": ["b"]}\n', r"a\.jsonl:1: the column 'answer' holds list"),
    "no columns": ("a.jsonl", b'{"text": "a"}\n', r"a\.jsonl:1 has the columns text — wanted"),
    "not UTF-8": ("a.csv", b"question,answer\na?,caf\xe9\n", r"a\.csv is not UTF-8"),
    "line not UTF-8": ("a.jsonl", b'{"question": "a?", "answer": "caf\xe9"}\n', r"a\.jsonl:1 is not UTF-8"),
    "empty": ("a.jsonl", b"", r"no usable row is left"),
    "empty without a name": ("data", b"", r"data is empty"),
    "binary": ("data", b"\x7fELF\0\0\0\0", r"no data file of a known format"),
    "torn gzip": ("a.jsonl.gz", gzip.compress(b'{"question": "a?", "answer": "b"}\n' * 99)[:-20], r"cannot be read"),
    "torn parquet": ("a.parquet", b"PAR1 and no more", r"a\.parquet cannot be read"),
    "wrong role": (
        "a.jsonl",
        b'{"messages": [{"role": "tool", "content": "a"}]}',
        r"role 'tool', wanted system or user",
    ),
    "two answers": (
        "a.jsonl",
        b'{"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}',
        r"a\.jsonl:1: message 2 has the role 'user', wanted assistant",
    ),
    "mixed file": (
        "a.jsonl",
        b'{"question": "a?", "answer": "b"}\n{"messages": []}\n',
        r"a\.jsonl:2 is a chat row where the ones before are question/answer rows: formats are mixed",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_refused_with_its_name_and_place(tmp_path: Path, case: str) -> None:
    name, content, message = BROKEN[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MedmindError, match=message):
        prepare(tmp_path / name)


@pytest.mark.parametrize("name", ["a.jsonl.zst", "a.csv.zst"])
@pytest.mark.parametrize("cut", [1, 40])
def test_a_torn_zstandard_file_is_refused_even_where_a_line_ends(
    tmp_path: Path, make: Any, name: str, cut: int
) -> None:
    import zstandard

    plain = tmp_path / name.removesuffix(".zst")
    {"a.csv": make.csv, "a.jsonl": make.jsonl}[plain.name](plain, make.pairs([f"Ache {n}" for n in range(500)]))
    path = tmp_path / name
    path.write_bytes(zstandard.compress(plain.read_bytes())[:-cut])
    with pytest.raises(MedmindError, match=f"{name} cannot be read: the compressed file ends too soon"):
        prepare(path)


def test_a_directory_that_mixes_formats_is_refused_and_both_are_named(tmp_path: Path, make: Any) -> None:
    make.jsonl(tmp_path / "a.jsonl", make.pairs())
    make.csv(tmp_path / "b.csv", make.pairs())
    with pytest.raises(MedmindError, match=r"mixes formats: 1 CSV \(b.csv\), 1 JSON \(a.jsonl\)"):
        prepare(tmp_path)


def test_a_directory_without_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing", encoding="utf-8")
    with pytest.raises(MedmindError, match="holds no data files"):
        prepare(tmp_path)
