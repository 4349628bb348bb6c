"""`medmind-train data audit`: finds what was put in, writes all or nothing, and one line for whatever is wrong."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medmind_train.data.mojibake import signs
from medmind_train.data.patterns import template

Command = Callable[..., Any]
FILES = ["answers.png", "audit.json", "audit.md", "lengths.png", "prompts.png", "sources.png"]


def prose(seed: object, words: int = 60) -> str:
    return " ".join(random.Random(str(seed)).choices([f"{a}{b}na" for a in "bdfgklm" for b in "aeiou"], k=words))


@pytest.fixture
def source(tmp_path: Path, make: Any) -> Path:
    """40 focuses with two rows each, and one of every fault."""
    plate = "Ask someone who knows before you believe any of this."
    records = [
        {"question": form.format(f"Ache {n}"), "answer": f"{prose((n, form))}. {plate}", "focus": f"Ache {n}"}
        for n in range(40)
        for form in ("What is {}?", "Who gets {}?")
    ]
    for entry in records:
        entry["source"] = "Made | up"
    near = prose("near", 80)
    records += [
        {"question": "Why?", "answer": near, "focus": "Ache one", "source": "Other"},
        {"question": "Why so?", "answer": f"{near} indeed", "focus": "Ache two", "source": "Other"},
        {"question": "Empty?", "answer": "", "focus": "Ache 1", "source": "Other"},
        dict(records[0]),
        {"question": "Odd?", "answer": f"Caf\u00c3\u00a9. {prose('odd')}", "focus": "Ache 3", "source": "Other"},
        {"question": "Long?", "answer": prose("long", 900), "focus": "Ache 4", "source": "Other"},
    ]
    return Path(make.jsonl(tmp_path / "a.jsonl", records))


def test_everything_that_was_put_in_is_found(source: Path, medmind_data: Command) -> None:
    result = medmind_data("audit", source, "--json", "--context", "512", "--share", "0.3")
    assert (result.code, result.err) == (0, "")
    found = json.loads(result.out)
    assert found["format"] == "medmind-audit/1"
    assert found["rows"]["read"] == 86
    assert found["rows"]["usable"] == 84
    assert found["sources"] == {"Made | up": 80, "Other": 4}
    assert found["counts"]["dropped"]["empty answer"] == found["counts"]["dropped"]["exact duplicate"] == 1
    assert found["duplicates"]["rows_exact"] == 2
    assert found["duplicates"]["answers_near"] == 2
    assert found["duplicates"]["answers_repeated"] == 0
    assert found["boilerplate"]["passages"] == 1
    assert found["boilerplate"]["most"][0]["focuses"] == 40
    assert found["boilerplate"]["most"][0]["rows"] == 80
    assert found["mojibake"] == {
        "UTF-8 read as Latin-1": {"rows": 1, "examples": found["mojibake"]["UTF-8 read as Latin-1"]["examples"]}
    }
    assert [(entry["template"], entry["rows"]) for entry in found["templates"]["most"][:2]] == [
        ("What is {focus}?", 40),
        ("Who gets {focus}?", 40),
    ]
    tokens = found["tokens"]
    assert tokens["base"] == "medmind-base"
    assert tokens["answers_cut"] == 1
    assert tokens["examples"] == 84
    assert tokens["examples_whole"]["longest"] == 512 + tokens["answer_tokens_cut"]
    assert found["components"]["number"] == 41
    assert found["components"]["links_across_focuses"] == 1
    assert sum(found["components"]["sizes"].values()) == 41


def test_a_random_split_leaks_and_the_one_used_does_not(source: Path, medmind_data: Command) -> None:
    leakage = json.loads(medmind_data("audit", source, "--json", "--share", "0.3").out)["leakage"]
    assert leakage["random"]["focuses"] > 0.3
    assert leakage["random"]["heldout"] == leakage["used"]["heldout"]
    assert {leakage["used"][key] for key in ("focuses", "answers_exact", "answers_telling", "answers_known")} == {0.0}


def test_the_report_the_json_and_the_pictures_are_written(tmp_path: Path, source: Path, medmind_data: Command) -> None:
    out = tmp_path / "out"
    result = medmind_data("audit", source, "--out", out)
    assert (result.code, result.err) == (0, "")
    assert sorted(path.name for path in out.iterdir()) == FILES
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in out.glob("*.png"))
    report = (out / "audit.md").read_text(encoding="utf-8")
    for title in (
        "Rows",
        "Leakage",
        "Components",
        "Boilerplate",
        "Question templates",
        "Mojibake",
        "Lengths in tokens",
    ):
        assert f"## {title}\n" in report
        assert title in result.out
    assert "| Made \\| up | 80 |" in report
    assert all(f"({name})" in report for name in FILES if name.endswith(".png"))
    document = json.loads((out / "audit.json").read_text(encoding="utf-8"))
    assert document == json.loads(medmind_data("audit", source, "--json").out)
    again = medmind_data("audit", source, "--out", out)
    assert again.code == 1
    assert "exists already" in again.err
    assert medmind_data("audit", source, "--out", out, "--force").code == 0


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["missing.csv"], "missing.csv does not exist"),
        (["mixed"], "mixed mixes formats"),
        (["a.jsonl", "--base", "no-such-base"], "no base model 'no-such-base'"),
        (["a.jsonl", "--share", "2"], "the held-out share is 2"),
        (["a.jsonl", "--validation", "2"], "the validation share is 2"),
        (["a.jsonl", "--out", "a.jsonl"], "a.jsonl is a file"),
        (["a.jsonl", "--out", "mixed", "--force"], "holds other things than an audit"),
        (["empty.jsonl"], "no usable row is left"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing_behind(
    tmp_path: Path,
    source: Path,
    make: Any,
    medmind_data: Command,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    part: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mixed").mkdir()
    make.jsonl(Path("mixed/a.jsonl"), make.pairs())
    make.csv(Path("mixed/a.csv"), make.pairs())
    make.jsonl(Path("empty.jsonl"), [{"question": "Why?", "answer": " "}])
    before = sorted(tmp_path.rglob("*"))
    result = medmind_data("audit", *words, *([] if "--out" in words else ["--out", "out"]))
    assert (result.code, result.out, result.err.count("\n")) == (1, "", 1)
    assert part in result.err
    assert sorted(tmp_path.rglob("*")) == before


def test_recorded_rows_are_named_by_a_run(tmp_path: Path, source: Path, medmind_data: Command) -> None:
    run = tmp_path / "run"
    assert medmind_data(source, "--out", run, "--share", "0.3").code == 0
    document = json.loads(medmind_data(source, "--recorded", run, "--share", "0.3", "--json").out)
    assert document["counts"]["grouping"]["recorded"] == document["counts"]["heldout"]
    assert document["recorded"] == str(run)
    refused = medmind_data(source, "--recorded", tmp_path)
    assert (refused.code, refused.err.count("\n")) == (1, 1)
    assert "holds no heldout.jsonl" in refused.err


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("a caf\u00c3\u00a9 nearby", "UTF-8 read as Latin-1"),
        ("the patient\u00e2\u20ac\u2122s arm", "UTF-8 read as Latin-1"),
        ("Sj?gren wrote it", "? inside a word"),
        ("what \ufffd is", "replacement character"),
        ("fish &amp; chips", "HTML entity"),
        ("a bell\x07", "control character"),
    ],
)
def test_signs_of_wrong_decoding_are_named(text: str, kind: str) -> None:
    assert list(signs(text)) == [kind]


@pytest.mark.parametrize(
    "text",
    [
        "Why? Because.",
        "see www.example.org/a?b=1",
        "page.cfm?id=3",
        "S\u00c3O PAULO",
        "\u00e2ge na\u00efve caf\u00e9",
        "R&D; AT&T",
        "Why?\nBecause",
    ],
)
def test_what_only_looks_odd_is_no_sign(text: str) -> None:
    assert signs(text) == {}


def test_a_focus_becomes_a_slot_whatever_its_case_and_spacing() -> None:
    assert template("What is (are) dry  EYE?", "Dry eye") == "What is (are) {focus}?"
    assert template("What is a sty, and where do styes grow?", "Sty") == "What is a {focus}, and where do styes grow?"
    assert template("What is it?", "") == "What is it?"
