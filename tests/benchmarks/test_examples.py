import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from medmind.errors import MedmindError
from medmind.turns import Language
from medmind_benchmarks import examples

END, BEGIN = 0, 1


class Letters:
    """One token a letter; `</s>` and `<s>` are one each."""

    def render(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool) -> str:
        parts = ["<s>"]
        for message in messages:
            mark = {"system": "!", "user": "?", "assistant": ">"}[message["role"]]
            parts.append(mark + message["content"] + ("</s>" if message["role"] == "assistant" else ""))
        return "".join(parts) + (">" if add_generation_prompt else "")

    def tokenize(self, text: str) -> list[int]:
        return [{"\0": END, "\1": BEGIN}.get(letter, ord(letter)) for letter in self._pieces(text)]

    def _pieces(self, text: str) -> str:
        return text.replace("</s>", "\0").replace("<s>", "\1")


def chat(*turns: str) -> list[dict[str, str]]:
    return [{"role": "assistant" if place % 2 else "user", "content": text} for place, text in enumerate(turns)]


def build(
    messages: list[dict[str, str]], *, tokenizer: Letters | None = None, context: int = 99, system: str = ""
) -> tuple[list[examples.Example], int]:
    letters = tokenizer or Letters()
    language = Language(
        render=lambda turns, generate: letters.render(turns, add_generation_prompt=generate),
        tokenize=letters.tokenize,
        controls=["<s>", "</s>"],
        eos=END,
        bos=BEGIN,
    )
    return examples.build(language, messages, context=context, system_prompt=system)


def test_an_answer_is_scored_from_its_first_token_to_the_end_token() -> None:
    (example,), dropped = build(chat("ab", "cd"))
    assert example.tokens == (BEGIN, *b"?ab>cd", END)
    assert example.tokens[example.start :] == (*b"cd", END)
    assert (example.cut, dropped) == (False, 0)


def test_every_answer_of_a_conversation_is_an_example() -> None:
    found, _ = build(chat("a", "b", "c", "d"))
    assert [example.tokens[example.start :] for example in found] == [(ord("b"), END), (ord("d"), END)]
    assert found[1].tokens == (BEGIN, *b"?a>b", END, *b"?c>d", END)


def test_a_cut_answer_carries_no_end_token() -> None:
    (example,), _ = build(chat("ab", "cdef"), context=7)
    assert example.tokens[example.start :] == tuple(b"cd")
    assert example.cut


def test_a_question_that_fills_the_context_is_dropped_and_counted() -> None:
    assert build(chat("abcdef", "x"), context=8) == ([], 1)


def test_the_system_prompt_goes_first_unless_the_row_has_its_own() -> None:
    (ours,), _ = build(chat("a", "b"), system="S")
    assert ours.tokens[:3] == (BEGIN, *b"!S")
    (own,), _ = build([{"role": "system", "content": "T"}, *chat("a", "b")], system="S")
    assert own.tokens[:3] == (BEGIN, *b"!T")


def test_tokens_that_merge_across_the_boundary_are_split_there() -> None:
    class Merging(Letters):
        def _pieces(self, text: str) -> str:
            return super()._pieces(text).replace(">c", "¶")

    (example,), _ = build(chat("ab", "cd"), tokenizer=Merging())
    assert example.tokens == (BEGIN, *b"?ab>cd", END)
    assert example.start == 5


def test_a_template_that_rewrites_the_question_is_refused() -> None:
    class Rewriting(Letters):
        def render(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool) -> str:
            text = super().render(messages, add_generation_prompt=add_generation_prompt)
            return text if add_generation_prompt else text.upper()

    with pytest.raises(MedmindError, match="template"):
        build(chat("ab", "cd"), tokenizer=Rewriting())


def test_what_the_template_writes_after_the_end_token_is_not_scored() -> None:
    class Chatty(Letters):
        def render(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool) -> str:
            return super().render(messages, add_generation_prompt=add_generation_prompt).replace("</s>", "</s>+")

    (example,), _ = build(chat("ab", "cd"), tokenizer=Chatty())
    assert example.tokens[example.start :] == (*b"cd", END)


def test_an_end_token_that_the_template_does_not_write_is_scored_all_the_same() -> None:
    class Endless(Letters):
        def render(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool) -> str:
            return super().render(messages, add_generation_prompt=add_generation_prompt).removesuffix("</s>")

    (example,), _ = build(chat("ab", "cd"), tokenizer=Endless())
    assert example.tokens[example.start :] == (*b"cd", END)


def test_a_row_that_spells_out_a_control_token_is_dropped_and_counted() -> None:
    assert build(chat("ab", "c</s>d")) == ([], 1)


def test_a_template_that_begins_the_text_twice_is_refused() -> None:
    class Twice(Letters):
        def render(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool) -> str:
            return "<s>" + super().render(messages, add_generation_prompt=add_generation_prompt)

    with pytest.raises(MedmindError, match="there must be one"):
        build(chat("ab", "cd"), tokenizer=Twice())


def test_the_same_rows_are_chosen_whatever_their_order() -> None:
    rows = [{"messages": chat(f"question {index}", "answer")} for index in range(50)]
    chosen = {json.dumps(rows[index]) for index in examples.choose(rows, 10)}
    turned = rows[::-1]
    places = examples.choose(turned, 10)
    assert {json.dumps(turned[index]) for index in places} == chosen
    assert places == sorted(places)
    assert len(chosen) == 10
    assert examples.choose(rows, None) == list(range(50))
    assert examples.choose(rows, 80) == list(range(50))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no rows"),
        ("[1]\n", "not a JSON object"),
        ('{"messages": "no"}\n', "row 1 has no answer"),
        ('{"question": "a", "answer": "b"}\n', "row 1 has no answer"),
        ('{"messages": [{"role": "user", "content": "a"}]}\n', "row 1 has no answer"),
        ('{"messages": [{"role": "assistant", "content": null}]}\n', "row 1 has no answer"),
        ("{\n", "not valid JSON lines"),
    ],
)
def test_bad_held_out_files_are_refused(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "heldout.jsonl"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(MedmindError, match=words):
        examples.read_rows(file)
