import csv
import json
from pathlib import Path

import pytest

from medmind.errors import MedmindError
from medmind_runtime.library.index import PASSAGE_WORDS, Library, cut, write
from medmind_runtime.library.read import Answer, answers
from medmind_runtime.safety.careful import NOTHING, UNNAMED, Careful
from medmind_runtime.turn import Turn

ROWS = [
    {"focus": "Asthma", "question_type": "symptoms", "question": "zebra?", "answer": "Wheezing and coughing at night.", "source": "A", "source_url": "https://a.example"},  # noqa: E501
    {"focus": "Gout", "question_type": "treatment", "question": "zebra?", "answer": "Rest, ice and medicines lower uric acid.", "source": "B", "source_url": ""},  # noqa: E501
]  # fmt: skip


@pytest.fixture
def library(tmp_path: Path) -> Path:
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert write(answers(source), tmp_path / "a.library") == (2, 2)
    return tmp_path / "a.library"


def test_what_fits_is_found_and_questions_are_not_in_it(library: Path) -> None:
    with Library(library) as opened:
        (found,) = opened.find("What are the symptoms of asthma?")
        assert found.text == "Asthma: Wheezing and coughing at night."
        assert (found.source, found.url) == ("A", "https://a.example")
        assert opened.find("zebra") == []
        assert opened.find("how tall is the tower of pisa") == []
        assert opened.find('"; drop table passage --') == []


def test_nothing_found_is_said_and_no_model_asked(library: Path) -> None:
    with Library(library) as opened:
        guard = Careful(opened)
        before = guard.before("how tall is the tower of pisa", [])
        assert before.alone
        assert before.opening == NOTHING
        placed = guard.before("medicines for gout", [])
        assert guard.place("medicines for gout", placed.passages).startswith("[1] Gout: Rest")


def test_a_question_of_asking_words_alone_is_told_that_a_subject_is_missing(tmp_path: Path) -> None:
    rows = [
        Answer("", "treatment", "What treatment there is. Symptoms and their causes.", "S", ""),
        Answer("Gout", "treatment", "Rest and ice.", "S", ""),
        Answer("Clinical Trials", "information", "People who help research.", "S", ""),
    ]
    write(rows, tmp_path / "a.library")
    with Library(tmp_path / "a.library") as opened:
        guard = Careful(opened)
        for question in ("symptoms?", "treatment", "what causes it?", "what is it", "symptoms of the disease"):
            before = guard.before(question, [])
            assert (before.opening, before.alone, before.passages) == (UNNAMED, True, ()), question
        asked = [Turn("What is gout?", "An illness.", ())]
        assert [passage.text for passage in guard.before("treatment", asked).passages] == ["Gout: Rest and ice."]
        assert opened.search("What are clinical trials?")[0][0].focus == "Clinical Trials"


def test_first_aid_is_not_followed_by_words_about_the_library(library: Path) -> None:
    with Library(library) as opened:
        before = Careful(opened).before("crushing chest pain, my left arm is numb", [])
        assert before.alone
        assert before.rule
        assert "library" not in before.opening


def test_the_sources_are_not_written_behind_a_document(library: Path) -> None:
    with Library(library) as opened:
        guard = Careful(opened)
        passages = opened.find("What are the symptoms of asthma?")
        said = [guard.watch("q", passages, document=document) for document in (False, True)]
        texts = [watch.feed('{"a": "cough"}') + watch.finish() for watch in said]
    assert "Sources:" in texts[0]
    assert texts[1] == '{"a": "cough"}'


def test_csv_and_xml_say_the_same(tmp_path: Path) -> None:
    with (tmp_path / "a.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["question", "answer", "source", "focus_area"], ["q", "a long, long answer", "S", "F"]])
    assert [(one.focus, one.text, one.source) for one in answers(tmp_path / "a.csv")] == [
        ("F", "a long, long answer", "S")
    ]
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "1.xml").write_text(
        '<Document source="S" url="u"><Focus>F</Focus><QAPairs><QAPair><Question qtype="k">q</Question>'
        "<Answer>text</Answer></QAPair></QAPairs></Document>"
    )
    (one,) = answers(tmp_path / "x")
    assert (one.focus, one.kind, one.text, one.source, one.url) == ("F", "k", "text", "S", "u")


def test_chat_rows_are_read_without_what_was_asked(tmp_path: Path) -> None:
    said = [
        ("system", "zebra"),
        ("user", "zebra?"),
        ("assistant", "Wheezing."),
        ("user", "zebra?"),
        ("assistant", "No."),
    ]
    row = {
        "messages": [{"role": role, "content": text} for role, text in said],
        "focus": "Asthma",
        "question_type": "k",
    }
    (tmp_path / "rows.jsonl").write_text(json.dumps({**row, "source": "A"}) + "\n")
    assert list(answers(tmp_path / "rows.jsonl")) == [Answer("Asthma", "k", "Wheezing.\nNo.", "A", "")]
    (tmp_path / "rows.jsonl").write_text(json.dumps({"messages": "Wheezing."}) + "\n")
    with pytest.raises(MedmindError, match="messages are no list"):
        list(answers(tmp_path / "rows.jsonl"))


def test_what_is_found_has_its_topic(library: Path) -> None:
    with Library(library) as opened:
        assert opened.topics() == {("Asthma", "symptoms"), ("Gout", "treatment")}
        ((topic, passage),) = opened.search("Which medicines for gout?")
        assert topic == ("Gout", "treatment") and [passage] == opened.find("Which medicines for gout?")


def test_passages_are_short_and_lose_no_word() -> None:
    text = " ".join(f"word{n}" + ("." if n % 17 == 0 else "") for n in range(1000))
    passages = cut(text)
    assert max(len(passage.split()) for passage in passages) <= PASSAGE_WORDS
    assert " ".join(passages).split() == text.split()


def test_a_passage_s_neighbours_are_of_its_answer_and_of_no_other(tmp_path: Path) -> None:
    def said(words: str, count: int) -> str:
        room = (PASSAGE_WORDS - 1) // len(words.split())
        return " ".join(" ".join([f"{words}{n}"] * room) + " end." for n in range(count))

    given = [
        Answer("Gout", "treatment", said("night other", 90), "A", ""),
        Answer("Asthma", "symptoms", said("wheeze", 30).replace("wheeze20", "night", 1), "A", ""),
        Answer("Gout", "symptoms", said("night other", 90), "A", ""),
    ]
    write(given, tmp_path / "a.library")
    with Library(tmp_path / "a.library") as opened:
        (first,) = opened.find("what are the symptoms of asthma")
        assert first.text.startswith("Asthma: wheeze0")
        assert set(first.neighbours.split()) == {"end.", *(f"wheeze{n}" for n in range(1, 9))}
        (middle,) = opened.find("asthma night")
        assert set(middle.neighbours.split()) == {"end.", *(f"wheeze{n}" for n in range(12, 29) if n != 20)}


def test_bad_input_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(MedmindError, match="make one with: medmind-chat index"):
        Library(tmp_path / "none")
    (tmp_path / "bad.jsonl").write_text("{}\n")
    with pytest.raises(MedmindError, match="a row without answer"):
        write(answers(tmp_path / "bad.jsonl"), tmp_path / "out")
    with pytest.raises(MedmindError, match=r"bad\.jsonl is no library"):
        Library(tmp_path / "bad.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.jsonl"]


def test_a_near_subject_is_no_answer_and_the_subject_itself_comes_first(tmp_path: Path) -> None:
    def row(focus: str, kind: str) -> Answer:
        beside = "Glass lungs, a glass lung." if focus.startswith("V") else ""
        return Answer(focus, kind, f"Words on the {kind} of {focus}. {beside}", "s", "")

    near = [
        row(f"{first} marble fever", kind)
        for first in ("Subalpine", "Volcanic")
        for kind in ("information", "symptoms", "treatment")
    ]
    own = [row("Glass lungs", kind) for kind in ("information", "symptoms", "treatment")]
    write(near, tmp_path / "near.library")
    write(near + own, tmp_path / "own.library")
    with Library(tmp_path / "near.library") as library:
        assert library.find("How are glass lungs treated?") == []
        assert library.find("What are the symptoms of coastal marble fever?") == []
        assert library.search("What are the symptoms of volcanic marble fever?")[0][0] == (
            "Volcanic marble fever",
            "symptoms",
        )
    write([row("Non-glass lungs", "information"), *near], tmp_path / "other.library")
    with Library(tmp_path / "other.library") as library:
        assert library.find("What are glass lungs?") == []
        assert library.search("What are non-glass lungs?")[0][0].focus == "Non-glass lungs"
    with Library(tmp_path / "own.library") as library:
        for asked, kind in (("How are glass lungs treated?", "treatment"), ("What is a glass lung?", "information")):
            assert library.search(asked)[0][0] == ("Glass lungs", kind)
        assert library.search("My uncle has glass lungs, what are the symptoms?")[0][0].kind == "symptoms"


def test_a_misspelt_subject_is_asked_about_and_not_answered_for(library: Path) -> None:
    with Library(library) as opened:
        guard = Careful(opened)
        for question in ("what causes astma", "ASHTMA, doctor?"):
            assert guard.before(question, []).opening == f"{NOTHING} Did you mean: Asthma?"
        assert guard.before("my neighbour has a parrot", []).opening == NOTHING
        assert (
            guard.before("what helps coughing at night", []).opening == NOTHING
        )  # every word of it stands in a passage


REMARKS = """
no|No.|yes|Yes please|yes, please do|ok|OK, got it|okay|sure|right|Thanks|thank you|Thank you so much!|thanks a lot
Hello|hi|hey there|good morning|Good night|bye|goodbye|see you later|sorry|great|that is great, thanks|wow|I see|hmm
oh no|well|maybe|never mind|What is 2+2?|1234|what|why?|how?|who are you?|are you a robot?|what can you do?|how are you
can you help me?|please explain|tell me more|go on|continue|I don't understand|say that again|Is it serious?|is it bad
what about children?|And for women?|in old people?|Is it contagious?|how long does it last?|can it kill me?|will I die?
does it hurt?|is it common|is that normal?|Does it come back?|and how is it treated?|what causes it?|any side effects?
who gets it?|should I worry?|what next?|when does it start|is this dangerous in pregnancy?|is it safe for babies?
It is short.|what is the name of it?|tell me a joke|what now?|is there a cure
"""
"""What people say beside questions on a subject, and as questions that only an earlier one gives a subject."""


@pytest.fixture(scope="module")
def common_words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library whose subjects, and passages without one, are full of everyday words."""
    said = " ".join(REMARKS.replace("|", " ").split()).replace("?", "").replace(".", "")
    rows = [
        Answer("", "prevention", f"No vaccine is 2 for children: yes, it is serious. {said} {said}", "C", ""),
        Answer("", "information", "Vaccines are for children. Thanks to them, no joke, few die.", "C", ""),
        Answer("", "treatment", "Mumps is treated with rest.", "C", ""),
        Answer("Vaccine information statement (VIS)", "information", f"It is short. {said}", "C", ""),
        *(
            Answer(name, kind, f"The {kind} of it, said at length.", "S", "")
            for name in (
                "CHILD syndrome",
                "SHORT syndrome",
                "No reflow",
                "Serious reaction",
                "IT",
                "Asthma, children",
            )
            for kind in ("information", "treatment")
        ),
        Answer("Asthma", "information", "Asthma narrows the airways. Drinking beer may bring it on.", "S", ""),
        Answer("Asthma", "treatment", "Asthma is treated with sprays.", "S", ""),
        Answer("Gout", "information", "Gout is a swelling of a joint.", "S", ""),
        Answer("Pregnancy", "information", "Nine months.", "S", ""),
    ]
    file = tmp_path_factory.mktemp("common") / "a.library"
    write(rows, file)
    return file


def test_words_that_name_no_subject_find_nothing_however_often_a_passage_says_them(common_words: Path) -> None:
    remarks = REMARKS.strip().replace("\n", "|").split("|")
    assert len(remarks) >= 60
    with Library(common_words) as opened:
        guard = Careful(opened)
        assert [remark for remark in remarks if guard.before(remark, []).passages] == []
        for asked, focus in (
            ("What is CHILD syndrome?", "CHILD syndrome"),
            ("short syndrome", "SHORT syndrome"),
            ("what is no reflow", "No reflow"),
            ("What is a serious reaction?", "Serious reaction"),
            ("pregnancy", "Pregnancy"),
            ("How is mumps treated?", ""),
        ):
            assert opened.search(asked)[0][0].focus == focus, asked


@pytest.mark.parametrize(
    "asks",
    [
        "Is {} contagious?",
        "Is {} dangerous?",
        "Can {} kill you?",
        "Can I catch {} from someone?",
        "how long does {} last?",
        "Does {} go away on its own?",
        "What happens if {} gets worse?",
        "is {} common in older women",
    ],
)
def test_what_may_be_asked_of_any_subject_is_asked_of_the_one_that_is_named(common_words: Path, asks: str) -> None:
    with Library(common_words) as opened:
        for name in ("Asthma", "Gout"):
            assert opened.search(asks.format(name.lower()))[0][0].focus == name
        for other in ("flurbosis", "a parrot", "infectious gout", "gout type 3", "gouty skin"):
            assert opened.search(asks.format(other)) == [], other


def test_a_passage_without_a_name_is_about_what_it_begins_with_or_repeats(tmp_path: Path) -> None:
    rows = [
        Answer("", "", "Sprains need rest. Ice helps as it does with bruises. Sprains heal.", "S", ""),
        Answer("", "", "Rest it. A sprain is no break, and ice is good for a sprain.", "S", ""),
    ]
    write(rows, tmp_path / "a.library")
    with Library(tmp_path / "a.library") as opened:
        assert len(opened.find("What is a sprain?")) == 1  # one of each focus and type
        assert opened.find("sprains")[0].source == "S"
        assert opened.find("what helps with bruises?") == []


@pytest.mark.parametrize(
    ("asked", "subjects"),
    [
        (["What is asthma?", "Is it serious?"], {"Asthma"}),
        (["What is asthma?", "what about children?"], {"Asthma, children"}),
        (["What is asthma?", "and how is it treated?"], {"Asthma"}),
        (["What is asthma?", "Is it serious?", "tell me more"], {"Asthma"}),
        (["What is asthma?", "Thanks", "is it common in men?"], {"Asthma"}),
        (["What is asthma?", "can I drink beer?", "is that dangerous?"], {"Asthma"}),
        (["What is asthma?", "What is gout?", "is it serious?"], {"Gout"}),
        (["What is asthma?", "what about gout?"], {"Gout"}),
        (["What is asthma?", "can I ride a horse?"], set()),
        (["What is asthma?", "What is flurbosis?"], set()),
        (["What is asthma?", "What is flurbosis?", "is it serious?"], set()),
        (["What is flurbosis?", "is it serious?"], set()),
        (["What is asthma?", "Thanks"], set()),
        (["What is asthma?", "ok, great"], set()),
        (["What is asthma?", "what is 2+2?"], set()),
        (["Hello", "is it serious?"], set()),
    ],
)
def test_a_question_without_a_subject_is_of_the_one_before(
    common_words: Path, asked: list[str], subjects: set[str]
) -> None:
    *earlier, question = asked
    with Library(common_words) as opened:
        assert {topic.focus for topic, _ in opened.search(question, earlier=earlier)[:1]} == subjects
        before = Careful(opened).before(question, [Turn(one, "Words.", ()) for one in earlier])
        assert list(before.passages) == opened.find(question, earlier=earlier)
        assert before.alone == (not subjects)
        assert bool(before.opening) == (not subjects)


def test_the_side_that_is_asked_for_is_of_the_last_question(common_words: Path) -> None:
    with Library(common_words) as opened:
        first = opened.find("and how is it treated?", earlier=["What is asthma?"])[0]
        assert first.text == "Asthma is treated with sprays."


def test_what_is_missing_is_told_apart(common_words: Path) -> None:
    with Library(common_words) as opened:
        guard = Careful(opened)
        assert guard.before("is it serious?", []).opening == UNNAMED
        assert guard.before("thanks", [Turn("What is asthma?", "Words.")]).opening == UNNAMED
        assert guard.before("is it serious?", [Turn("What is flurbosis?", NOTHING)]).opening == NOTHING
