import pytest

from medmind_runtime.safety.letters import Letters
from medmind_runtime.safety.triage import triage

LETTERS = Letters(["i", "want", "wan", "to", "die", "go", "cd", "can", "not", "care", "c", "&"])


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("d i e", "die"),
        ("d  i  e", "die"),
        ("i w a n t t o d i e", "i want to die"),
        ("i  w a n t  t o  d i e. now", "i want to die. now"),
        ("i want to d i e!", "i want to die!"),
        ("i w a n t t o d i e l o l", "i want to die lol"),
        ("c a n  z i n c  g o t o  c a r e", "can zinc go to care"),
        ("x y i w a n t t o d i e", "xy i want to die"),
        ("i w a n t\nt o d i e", "i want\nto die"),
    ],
)
def test_single_letters_are_read_as_the_words_that_they_spell(text: str, read: str) -> None:
    assert LETTERS.joined(text) == read


@pytest.mark.parametrize(
    "text",
    [
        "a b c",
        "vitamin c, d and e",
        "i, a gp",
        "hepatitis a b c d e",
        "a c d",
        "vitamins d i e2",
        "d i e'",
        "x-d i e",
        "d\ni\ne",
        "g o",
        "",
    ],
)
def test_letters_that_are_names_are_left(text: str) -> None:
    assert LETTERS.joined(text) == text


@pytest.mark.parametrize("text", ["i w a n t t o d i e", "d i e", "I  w a n t  t o  k i l l  m y s e l f"])
def test_a_cry_in_single_letters_is_heard(text: str) -> None:
    assert [alarm.topic for alarm in triage().alarms(text)] == ["self_harm"]


def test_an_emergency_in_single_letters_is_heard() -> None:
    assert (
        triage().alarms("c h e s t p a i n")
        and triage().alarms("i c a n t b r e a t h e")
        and triage().alarms("m y d a d h a s c h e s t p a i n")
    )


@pytest.mark.parametrize(
    "text",
    [
        "a b c",
        "Which foods hold vitamin c, d and e?",
        "I, a GP, ask",
        "hepatitis a b c",
        "t e a a n d m i l k",
        "i h a v e a c o u g h a n d a r u n n y n o s e",
    ],
)
def test_ordinary_letters_raise_nothing(text: str) -> None:
    assert triage().alarms(text) == []


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("h o w d o i t r e a t e c z e m a", "how do i treat eczema"),
        ("w h y a m i t i r e d", "why am i tired"),
        ("h e i s h a v i n g a s e i z u r e", "he is having a seizure"),
    ],
)
def test_what_medmind_knows_is_enough_to_read_questions_by_letters(text: str, read: str) -> None:
    assert triage().reader.letters.joined(text) == read
