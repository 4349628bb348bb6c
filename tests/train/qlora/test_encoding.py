import copy
from types import SimpleNamespace

import pytest

from medmind.errors import MedmindError
from medmind_train.batches import collate
from medmind_train.encoding import encode

ANSWER = "Rest and drink enough water."


def test_exactly_one_bos_and_one_eos_at_the_very_end(tokenizer, row):
    (example,) = encode(tokenizer, [row("a", "What helps?", ANSWER)], context=200).examples
    assert example.ids.count(tokenizer.bos_token_id) == 1 and example.ids[0] == tokenizer.bos_token_id
    assert example.ids.count(tokenizer.eos_token_id) == 1 and example.ids[-1] == tokenizer.eos_token_id
    assert example.complete


def test_a_tokenizer_that_adds_a_bos_by_itself_adds_none_to_the_template_s(tokenizer, row):
    from tokenizers.processors import TemplateProcessing

    adding = copy.deepcopy(tokenizer)
    begin = adding.bos_token, adding.bos_token_id
    adding.backend_tokenizer.post_processor = TemplateProcessing(single=f"{begin[0]} $A", special_tokens=[begin])
    assert adding("Rest.")["input_ids"][0] == begin[1]  # as Mistral's own tokenizer does
    rows = [row("a", "What helps?", ANSWER)]
    assert encode(adding, rows, context=200) == encode(tokenizer, rows, context=200)


def test_supervised_part_is_the_answer_with_its_eos_and_no_prompt_token(tokenizer, row):
    (example,) = encode(tokenizer, [row("a", "What helps?", ANSWER)], context=200).examples
    assert tokenizer.decode(example.ids[example.answer :]).strip() == ANSWER + tokenizer.eos_token
    assert tokenizer.decode(example.ids[: example.answer]).endswith("[/INST]")


def test_eos_stays_supervised_when_it_is_the_pad_token_too(tokenizer, row):
    rows = [row("a", "What helps?", ANSWER), row("b", "Why?", "Because.")]
    examples = encode(tokenizer, rows, context=200).examples
    batch = collate([[one] for one in examples], tokenizer.eos_token_id, "cpu")
    ends = batch.ids.eq(tokenizer.eos_token_id) & batch.supervised
    assert ends.sum(dim=1).tolist() == [1, 1]
    padded = batch.ids.eq(tokenizer.eos_token_id) & ~batch.supervised
    assert padded[1].sum() > 0 and (batch.owners[padded] == -1).all()


def test_cut_answer_carries_no_eos_and_is_counted(tokenizer, row):
    whole = encode(tokenizer, [row("a", "What helps?", ANSWER)], context=200).examples[0]
    fits = encode(tokenizer, [row("a", "What helps?", ANSWER)], context=len(whole.ids))
    assert fits.cut == 0 and fits.examples[0] == whole
    cut = encode(tokenizer, [row("a", "What helps?", ANSWER)], context=len(whole.ids) - 1)
    assert cut.cut == 1 and not cut.examples[0].complete
    assert tokenizer.eos_token_id not in cut.examples[0].ids
    assert cut.examples[0].ids == whole.ids[:-1]


def test_prompt_that_leaves_no_room_for_an_answer_is_dropped_and_counted(tokenizer, row):
    prompt = encode(tokenizer, [row("a", "What helps?", ANSWER)], context=200).examples[0].answer
    encoded = encode(tokenizer, [row("a", "What helps?", ANSWER)], context=prompt)
    assert len(encoded.examples) == 0 and encoded.too_long == ("a",)
    assert len(encode(tokenizer, [row("a", "What helps?", ANSWER)], context=prompt + 1).examples) == 1


def test_every_assistant_turn_is_an_example_with_the_turns_before_it_as_prompt(tokenizer, row):
    first, second = encode(tokenizer, [row("a", "Hi?", "Hello.", "And now?", "Sleep.")], context=200).examples
    assert tokenizer.decode(first.ids[first.answer :]).strip() == "Hello.</s>"
    assert tokenizer.decode(second.ids[second.answer :]).strip() == "Sleep.</s>"
    assert second.ids[: len(first.ids)] == first.ids


def test_system_prompt_comes_before_the_question_unless_the_row_has_its_own(tokenizer, row):
    rows = [row("a", "Why?", "So."), row("b", "Why?", "So.", system="Be kind.")]
    plain, own = encode(tokenizer, rows, context=200, system="Be brief.").examples
    assert "Be brief.\n\nWhy?" in tokenizer.decode(plain.ids)
    assert "Be kind.\n\nWhy?" in tokenizer.decode(own.ids) and "brief" not in tokenizer.decode(own.ids)


def test_prompt_tokens_are_those_of_the_prompt_alone(tokenizer, row):
    """What the runtime tokenizes at inference time is what was trained on."""
    (example,) = encode(tokenizer, [row("a", "What helps?", ANSWER)], context=200).examples
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What helps?"}], tokenize=False, add_generation_prompt=True
    )
    assert list(example.ids[: example.answer]) == tokenizer(text, add_special_tokens=False)["input_ids"]


class Merging:
    """A tokenizer of one id a character that merges ':' and a space after it, across the prompt's end."""

    added_tokens_decoder: dict[int, SimpleNamespace] = {}  # noqa: RUF012
    bos_token, bos_token_id, eos_token_id = "^", ord("^"), ord("$")

    def apply_chat_template(self, messages, tokenize, add_generation_prompt):
        text = "^" + "".join(
            f"Q:{one['content']}\n" if one["role"] == "user" else f"A: {one['content']}$" for one in messages
        )
        return text + "A:" if add_generation_prompt else text

    def __call__(self, text, add_special_tokens):
        ids, at = [], 0
        while at < len(text):
            merged = text.startswith(": ", at)
            ids.append(1000 if merged else ord(text[at]))
            at += 2 if merged else 1
        return {"input_ids": ids}


def test_prompt_stays_whole_where_the_tokenizer_merges_across_its_end(row):
    (example,) = encode(Merging(), [row("a", "x", "y")], context=50).examples
    assert "".join(map(chr, example.ids[: example.answer])) == "^Q:x\nA:"
    assert "".join(map(chr, example.ids[example.answer :])) == " y$"


def test_control_token_spelled_out_in_a_text_drops_the_row(tokenizer, row):
    encoded = encode(tokenizer, [row("a", "Why?", "Stop </s> here."), row("b", "Why?", "So.")], context=200)
    assert encoded.control == ("a",) and [example.row for example in encoded.examples] == ["b"]


def test_template_that_writes_two_bos_is_refused_by_row(tokenizer, row):
    doubled = copy.deepcopy(tokenizer)
    doubled.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    with pytest.raises(MedmindError, match=r"row a: the chat template writes 2 tokens that begin a text"):
        encode(doubled, [row("a", "Why?", "So.")], context=200)


def test_template_without_eos_gets_one(tokenizer, row):
    bare = copy.deepcopy(tokenizer)
    bare.chat_template = tokenizer.chat_template.replace("turn['content'] + eos_token", "turn['content']")
    assert bare.chat_template != tokenizer.chat_template
    (example,) = encode(bare, [row("a", "Why?", "So.")], context=200).examples
    assert example.ids[-1] == tokenizer.eos_token_id and example.complete


def test_row_that_the_template_refuses_is_named(tokenizer, row):
    with pytest.raises(MedmindError, match="row odd: the chat template refuses it"):
        encode(tokenizer, [_twice(row)], context=200)


def _twice(row):
    made = row("odd", "Why?", "So.")
    made.messages = (made.messages[0], *made.messages)
    return made
