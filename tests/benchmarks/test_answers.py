"""Multiple choice: published forms of questions, questions made of held-out rows, scoring, accuracies and flips."""

import json
import math
from pathlib import Path

import pytest

from medmind.artifacts import read_jsonl
from medmind.errors import MedmindError
from medmind_benchmarks import plan, proportions
from medmind_benchmarks.answers import accuracy, cell, files, matching, questions
from medmind_benchmarks.answers.cell import AnswersResult
from medmind_benchmarks.answers.questions import Question, QuestionSet
from medmind_benchmarks.config import QuantsConfig
from medmind_benchmarks.opening import opened

MEDMCQA = {"id": "a", "question": "Which vitamin?", "opa": "A", "opb": "B", "opc": "C", "opd": "D"}
MEDQA = {
    "question": "A man comes in.",
    "answer": "rest",
    "options": {"B": "rest", "A": "wait", "C": "run", "D": "eat"},
    "answer_idx": "B",
    "meta_info": "step1",
}
PUBMED = {"QUESTION": "Does it help?", "CONTEXTS": ["We tried.", "It did."], "final_decision": "yes"}


def lines(path: Path, *records: object) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


def test_medmcqa_counts_from_one_in_the_original_files_and_from_zero_on_the_hub(tmp_path: Path) -> None:
    original = files.load(lines(tmp_path / "dev.json", MEDMCQA | {"cop": 4}, MEDMCQA | {"cop": 1}))
    assert [one.answer for one in original.questions] == [3, 0]
    assert [one.id for one in original.questions] == ["a", "a#2"]
    hub = files.load(lines(tmp_path / "hub.jsonl", MEDMCQA | {"cop": 0}, MEDMCQA | {"cop": 3}, MEDMCQA | {"cop": -1}))
    assert [one.answer for one in hub.questions] == [0, 3]
    assert sum(hub.dropped.values()) == 1
    with pytest.raises(MedmindError, match="count from 0 or from 1"):
        files.load(lines(tmp_path / "few.jsonl", MEDMCQA | {"cop": 2}))
    with pytest.raises(MedmindError, match="both 0 and 4"):
        files.load(lines(tmp_path / "mix.jsonl", MEDMCQA | {"cop": 0}, MEDMCQA | {"cop": 4}))
    with pytest.raises(MedmindError, match="validation split"):
        files.load(lines(tmp_path / "test.jsonl", MEDMCQA | {"cop": -1}))


def test_medqa_in_its_three_forms(tmp_path: Path) -> None:
    source = MEDQA | {"options": [{"key": key, "value": text} for key, text in MEDQA["options"].items()]}  # type: ignore[attr-defined]
    swag = {"sent1": "A man", "sent2": "comes in.", "label": 1} | {
        f"ending{i}": text for i, text in enumerate(("wait", "rest", "run", "eat"))
    }
    for place, record in enumerate((MEDQA, source, swag)):
        (one,) = files.load(lines(tmp_path / f"{place}.jsonl", record)).questions
        assert one.options[one.answer] == "rest"
        assert one.text == ("A man comes in.")
    (one,) = files.load(lines(tmp_path / "again.jsonl", MEDQA)).questions
    assert one.prompt.splitlines()[1:3] == ["A. wait", "B. rest"]
    assert one.scored == ("A", "B", "C", "D")


def test_pubmedqa_by_id_and_from_the_hub(tmp_path: Path) -> None:
    path = tmp_path / "ori_pqal.json"
    path.write_text(json.dumps({"123": PUBMED, "124": PUBMED | {"final_decision": "maybe"}}), encoding="utf-8")
    found = files.load(str(path))
    assert [(one.id, one.answer) for one in found.questions] == [("123", 0), ("124", 2)]
    assert found.questions[0].text == "We tried.\nIt did.\nDoes it help?"
    hub = {"pubid": 7, "question": "So?", "context": {"contexts": ["Yes."]}, "final_decision": "no"}
    (one,) = files.load(lines(tmp_path / "hub.jsonl", hub)).questions
    assert (one.id, one.answer, one.text) == ("7", 1, "Yes.\nSo?")


def test_mmlu_takes_the_medical_subjects_only(tmp_path: Path) -> None:
    for subject in ("anatomy", "astronomy"):
        (tmp_path / f"{subject}_test.csv").write_text('"What, then?",one,two,three,four,C\n', encoding="utf-8")
        (tmp_path / f"{subject}_dev.csv").write_text("x,one,two,three,four,A\n", encoding="utf-8")
    (one,) = files.load(str(tmp_path)).questions
    assert (one.group, one.answer, one.text) == ("anatomy", 2, "What, then?")
    record = {"question": "q", "choices": ["a", "b", "c", "d"], "answer": 3, "subject": "college_medicine"}
    found = files.load(lines(tmp_path / "hub.jsonl", record, record | {"subject": "philosophy"}))
    assert [one.answer for one in found.questions] == [3]


def test_parquet_is_read_where_the_library_is(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    arrow = pytest.importorskip("pyarrow")
    path = tmp_path / "validation-00000.parquet"
    parquet.write_table(arrow.Table.from_pylist([MEDMCQA | {"cop": 0}, MEDMCQA | {"cop": 2}]), path)
    assert [one.answer for one in files.load(str(tmp_path)).questions] == [0, 2]
    path.write_bytes(b"PAR1 no more")
    with pytest.raises(MedmindError, match="cannot be read"):
        files.load(str(path))


def test_pubmedqa_with_its_ground_truth_is_the_test_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    every = dict.fromkeys(("1", "2", "3"), PUBMED)
    (tmp_path / "ori_pqal.json").write_text(json.dumps(every), encoding="utf-8")
    (tmp_path / "ori_pqau.json").write_text(json.dumps({"9": PUBMED}), encoding="utf-8")
    assert [one.id for one in files.load(str(tmp_path)).questions] == ["1", "2", "3"]
    truth = tmp_path / "test_ground_truth.json"
    truth.write_text(json.dumps({"3": "yes", "2": "maybe"}), encoding="utf-8")
    capsys.readouterr()
    assert [(one.id, one.answer) for one in files.load(str(tmp_path)).questions] == [("2", 2), ("3", 0)]
    said = " ".join(capsys.readouterr().err.split())
    assert "2 questions" in said
    assert "test_ground_truth.json" in said
    with pytest.raises(MedmindError, match="answers without their questions"):
        files.load(str(truth))
    truth.write_text(json.dumps({"3": "yes", "4": "no"}), encoding="utf-8")
    with pytest.raises(MedmindError, match="1 of the 2 questions"):
        files.load(str(tmp_path))


def test_medqa_as_published_counts_no_question_twice(tmp_path: Path) -> None:
    country = tmp_path / "questions" / "US"
    (country / "4_options").mkdir(parents=True)
    five = MEDQA | {"options": {**MEDQA["options"], "E": "sleep"}}  # type: ignore[dict-item]
    for split in ("train", "dev", "test"):
        lines(country / f"{split}.jsonl", five | {"question": split})
        lines(country / "4_options" / f"phrases_no_exclude_{split}.jsonl", MEDQA | {"question": split})
    lines(country / "US_qbank.jsonl", five)
    for place in (tmp_path / "questions", country, country / "4_options"):
        assert [(one.text, len(one.options)) for one in files.load(str(place)).questions] == [("test", 4)]
    (tmp_path / "questions" / "Taiwan").mkdir()
    lines(tmp_path / "questions" / "Taiwan" / "test.jsonl", MEDQA)
    with pytest.raises(MedmindError, match="2 sets of questions") as raised:
        files.load(str(tmp_path / "questions"))
    assert str(country / "4_options") in str(raised.value.hint)


def test_medmcqa_whose_test_has_no_answers_is_scored_on_dev(tmp_path: Path) -> None:
    lines(tmp_path / "test.json", MEDMCQA)
    lines(tmp_path / "train.json", MEDMCQA | {"cop": 1})
    lines(tmp_path / "dev.json", MEDMCQA | {"cop": 4, "id": "dev"})
    assert [one.id for one in files.load(str(tmp_path)).questions] == ["dev"]
    (tmp_path / "test.json").write_text("{", encoding="utf-8")
    with pytest.raises(MedmindError, match="not valid JSON"):
        files.load(str(tmp_path))


def test_mmlu_as_published_and_from_the_hub(tmp_path: Path) -> None:
    for split in ("dev", "val", "test"):
        (tmp_path / "csv" / split).mkdir(parents=True)
        for subject in ("anatomy", "astronomy"):
            (tmp_path / "csv" / split / f"{subject}_{split}.csv").write_text(f"{split},1,2,3,4,C\n", encoding="utf-8")
    assert [one.text for one in files.load(str(tmp_path / "csv")).questions] == ["test"]
    for subject in ("anatomy", "astronomy", "all"):
        (tmp_path / "hub" / subject).mkdir(parents=True)
        for split in ("dev", "test"):
            record = {"question": split, "choices": ["a", "b"], "answer": 1, "subject": "anatomy"}
            lines(tmp_path / "hub" / subject / f"{split}-0.jsonl", record)
    assert [one.text for one in files.load(str(tmp_path / "hub")).questions] == ["test"]


def test_lines_end_at_line_feeds_alone_and_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    text = "one\u2028two\u2029three\u0085four"
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "\ufeff" + 2 * (json.dumps(MEDQA | {"question": text}, ensure_ascii=False) + "\n"), encoding="utf-8"
    )
    assert [one.text for one in files.load(str(path)).questions] == [text, text]
    assert [row["question"] for row in read_jsonl(path)] == [text, text]


def test_bad_sources_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(MedmindError, match="none of MedMCQA"):
        files.load(lines(tmp_path / "other.jsonl", {"a": 1}))
    with pytest.raises(MedmindError, match="broken MedQA record"):
        files.load(lines(tmp_path / "broken.jsonl", MEDQA | {"answer_idx": "Z"}))
    with pytest.raises(MedmindError, match=r"bad.jsonl:2 is not valid JSON"):
        (tmp_path / "bad.jsonl").write_text(json.dumps(MEDQA) + "\n{", encoding="utf-8")
        files.load(str(tmp_path / "bad.jsonl"))
    with pytest.raises(MedmindError, match="does not exist"):
        files.load(str(tmp_path / "none.jsonl"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(MedmindError, match="no file of questions"):
        files.load(str(tmp_path / "empty"))


FOCI = ("Gout", "Scurvy (vitamin C deficiency)", "Asthma", "Measles", "Anemia", "Mumps", "Lupus", "Croup")


def held_out() -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for kind in ("symptoms", "causes"):
        for place, focus in enumerate(FOCI):
            words = " ".join(f"{kind}{place}word{number}" for number in range(20 + place))
            answer = f"In {focus.partition(' (')[0].lower()} {words}."
            rows.append(
                {
                    "id": f"{kind}-{place}",
                    "focus": focus,
                    "question_type": kind,
                    "messages": [
                        {"role": "user", "content": f"What are the {kind} of {focus}?"},
                        {"role": "assistant", "content": answer},
                    ],
                }
            )
    return rows


def test_held_out_answers_make_questions_of_one_type_and_length_with_the_name_masked() -> None:
    rows = held_out()
    found = matching.build(rows)
    assert found == matching.build(rows)
    assert len(found.questions) == len(rows)
    for one in found.questions:
        kind, place = one.id.split("-")
        assert len(set(one.options)) == matching.OPTIONS
        assert f"{kind}{place}word0" in one.options[one.answer]
        assert all(f" {kind}" in option for option in one.options), "distractors answer the same type of question"
        assert not any(name.partition(" (")[0].lower() in option.lower() for name in FOCI for option in one.options), (
            "no option names what it is about"
        )
        lengths = [len(option.split()) for option in one.options]
        assert max(lengths) <= 1.5 * min(lengths) + 2
    assert len({one.answer for one in found.questions}) > 1
    assert matching.mask("Scurvy, that is vitamin C deficiency.", FOCI[1]) == "this condition, that is this condition."


def test_an_answer_that_is_the_same_in_other_words_or_names_what_is_asked_is_no_distractor() -> None:
    rows = held_out()[:4]
    assert len(matching.build(rows).questions) == 4
    twin = json.loads(json.dumps(rows))
    twin[1]["messages"][1]["content"] = rows[0]["messages"][1]["content"].replace("gout", "scurvy")  # type: ignore[index]
    with pytest.raises(MedmindError, match="no question can be made"):
        matching.build(twin)
    naming = json.loads(json.dumps(rows))
    naming[1]["messages"][1]["content"] += " Unlike gout."
    assert "symptoms-0" not in [one.id for one in matching.build(naming).questions]


def test_rows_without_a_focus_are_dropped_and_said() -> None:
    rows = held_out()
    rows[0]["focus"] = ""
    found = matching.build(rows)
    assert "symptoms-0" not in [one.id for one in found.questions]
    assert [count for reason, count in found.dropped.items() if "no focus" in reason] == [1]


QUESTIONS = [Question(str(i), "q", ("one", "three more"), i % 2, "", "text") for i in range(4)]


def scores(*likelihood: tuple[float, float], alone: tuple[float, float] = (0.0, 0.0)) -> AnswersResult:
    of = len(likelihood)
    return AnswersResult(tuple(likelihood), (alone,) * of, ((3, 10),) * of, 0, "sha256:0", 1.0)


def test_each_rule_chooses_by_its_own_value() -> None:
    found = scores((-3.0, -6.0), (-3.0, -6.0), (-3.0, -6.0), (-3.0, -6.0), alone=(-1.0, -5.0))
    assert accuracy.chosen(found, "accuracy") == [0] * 4
    assert accuracy.chosen(found, "accuracy_normalized") == [1] * 4
    assert accuracy.chosen(found, "accuracy_gain") == [1] * 4
    assert accuracy.chosen(found, "answer_only") == [0] * 4
    made = accuracy.summarize("t", "d", QUESTIONS, found, None)
    assert made.headline == "accuracy_gain"
    assert made.quoted.value == made.accuracy.value == 0.5
    assert made.flips is None and made.chance == 0.5


def test_flips_are_counted_against_the_reference() -> None:
    reference = scores((-1, -9), (-9, -1), (-1, -9), (-9, -1))
    now = scores((-9, -1), (-9, -1), (-1, -9), (-9, -1))
    flips = accuracy.summarize("t", "d", QUESTIONS, now, reference).flips
    assert flips and (flips.lost, flips.won, flips.other, flips.difference) == (1, 0, 0, -0.25)
    assert flips.low < -0.25 < flips.high and flips.p_value == 1.0
    same = accuracy.summarize("t", "d", QUESTIONS, reference, reference).flips
    assert same and (same.lost, same.won, same.difference) == (0, 0, 0)


def test_paired_interval_and_mcnemar_agree_with_published_values() -> None:
    """Newcombe 1998, table II, example (36, 12, 2, 0), method 10: 0.0569 to 0.3404."""
    before = [True] * 36 + [False] * 12 + [True] * 2
    now = [True] * 36 + [True] * 12 + [False] * 2
    low, high = proportions.paired_interval(before, now)
    assert (round(low, 4), round(high, 4)) == (0.0569, 0.3404)
    assert proportions.mcnemar(2, 12) == pytest.approx(2 * (1 + 14 + 91) / 2**14)
    assert proportions.mcnemar(0, 0) == 1.0
    assert proportions.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe 1998, part I, method 3


def test_the_cell_scores_options_as_the_engine_does_and_twice_the_same(family: Path, tmp_path: Path) -> None:
    asked = [
        Question("0", "what is it?", ("a rest", "the inner thing on"), 0, "", "text"),
        Question("1", "what is it?", ("one", "two"), 1, "", "letters"),
        Question("2", "long " * 300, ("one", "two"), 1, "", "letters"),
    ]
    questions.write(tmp_path / "q.jsonl", asked)
    assert questions.read(tmp_path / "q.jsonl") == asked
    model = family / "family.f16.gguf"
    request = cell.Request("answers", str(model), str(tmp_path / "q.jsonl"), "sha256:0", 128, 1, "f16", "")
    ticks: list[int] = []
    found = cell.measure(request, lambda: ticks.append(1))
    assert len(ticks) == 3 and found.left_out == 1
    assert found.likelihood[2] == () and len(found.likelihood[0]) == 2
    assert found.lengths[:2] == ((6, 18), (1, 1))
    again = cell.measure(request, lambda: None)
    assert (again.likelihood, again.alone, again.token_digest) == (found.likelihood, found.alone, found.token_digest)
    with opened(model, context=128, threads=1) as engine:
        prompt = engine.encode([{"role": "user", "content": "what is it?"}])
        for place, option in enumerate(asked[0].options):
            tokens = [*prompt, *engine.tokenize(" " + option, special=False)]
            fresh = math.fsum(engine.log_probs(tokens, len(prompt)).tolist())
            assert found.likelihood[0][place] == fresh, "a prompt from the cache must not change a bit"


def test_of_a_hub_data_set_only_what_is_scored_is_fetched() -> None:
    medmcqa = ["README.md", *(f"data/{split}-00000-of-00001.parquet" for split in ("test", "train", "validation"))]
    assert files._wanted(medmcqa, "") == [medmcqa[1], medmcqa[3]]
    mmlu = [f"{subject}/{split}-0.parquet" for subject in ("anatomy", "astronomy") for split in ("dev", "test")]
    assert files._wanted(mmlu, "") == ["anatomy/dev-0.parquet", "anatomy/test-0.parquet"]
    pubmed = [f"pqa_{part}/train-0.parquet" for part in ("artificial", "labeled")]
    assert files._wanted(pubmed, "") == files._wanted(pubmed, "pqa_labeled") == ["pqa_labeled/train-0.parquet"]
    assert files._wanted(mmlu, "anatomy") == ["anatomy/dev-0.parquet", "anatomy/test-0.parquet"]


def test_a_hub_out_of_reach_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MedmindError, match=r"clinic/questions .* out of reach: HF_HUB_OFFLINE is set"):
        files.load("clinic/questions")


def test_of_pubmedqa_the_labelled_part_alone_is_scored(tmp_path: Path) -> None:
    for part in ("pqa_artificial", "pqa_labeled"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "train-00000-of-00001.jsonl").touch()
    assert [path.parent.name for path in files._files(tmp_path)] == ["pqa_labeled"]


def test_two_sets_of_one_name_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "load", lambda _: QuestionSet("MMLU medical", (), {}))
    asked = ("anatomy_test.csv", "virology_test.csv")
    sets, _ = plan._questions(QuantsConfig(measure=("choices",), questions=asked), [])
    assert [one.name for one in sets] == ["MMLU medical, anatomy_test.csv", "MMLU medical, virology_test.csv"]
