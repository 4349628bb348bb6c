"""Whether answers end: by the likeliest token at true ends, and by greedy generation."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from medmind.base import Base
from medmind_train import answering, evaluate, report, samples
from medmind_train import model as models
from medmind_train.answering import answers, loops
from medmind_train.encoding import encode
from medmind_train.passes import ReferencePasses

CPU = {"device": "cpu", "dtype": "float32"}


@pytest.fixture(scope="module")
def model(small_base: Base):
    settings = {"targets": "qv", "rank": 4, "alpha": 8.0, "dropout": 0.0, "checkpointing": False, "seed": 1}
    return models.add_adapter(models.load_base(small_base, "cpu", "float32"), small_base, **settings)


@pytest.fixture
def examples(tokenizer, row):
    turns = ["Rest.", "Drink water, and rest for a day.", "See a doctor. " * 30]
    rows = [row(str(at), f"What helps against {'a very ' * at}bad cold?", turn) for at, turn in enumerate(turns)]
    return list(encode(tokenizer, rows, context=60).examples)


class Always(torch.nn.Module):
    """A head that finds one token the likeliest at every place."""

    def __init__(self, size: int, token: int) -> None:
        super().__init__()
        self.size, self.token = size, token

    def forward(self, states):
        logits = torch.zeros(*states.shape[:-1], self.size)
        logits[..., self.token] = 5.0
        return logits


def measured(model, examples) -> evaluate.Ends:
    return evaluate.measure(ReferencePasses(model, **CPU), examples, pad=0, room=evaluate.Room(200))[1]


def test_ends_are_those_of_whole_answers_only(model, examples, tokenizer, monkeypatch):
    assert [example.complete for example in examples] == [True, True, False]
    causal = model.get_base_model()
    monkeypatch.setattr(causal, "get_output_embeddings", lambda: Always(len(tokenizer), tokenizer.eos_token_id))
    assert measured(model, examples) == evaluate.Ends(2, 2)
    monkeypatch.setattr(causal, "get_output_embeddings", lambda: Always(len(tokenizer), examples[0].ids[-2]))
    assert measured(model, examples) == evaluate.Ends(0, 2)


def test_end_is_looked_at_behind_the_last_word_of_each_example(model, examples, tokenizer):
    """Against the whole logits of each example alone."""
    whole = [replace(example, ids=(*example.ids[:-1], token)) for example in examples[:2] for token in (2, 300, 301)]
    with torch.no_grad():
        likeliest = [int(model(input_ids=torch.tensor([one.ids])).logits[0, -2].argmax()) for one in whole]
    whole[1] = replace(whole[1], ids=(*whole[1].ids[:-1], likeliest[1]))
    wanted = sum(one.ids[-1] == token for one, token in zip(whole, likeliest, strict=True))
    assert wanted >= 1
    assert measured(model, whole) == evaluate.Ends(wanted, len(whole))


def test_nothing_to_look_at_is_no_share(model, examples):
    assert measured(model, examples[2:]) == evaluate.Ends(0, 0)
    assert evaluate.Ends(0, 0).share is None and evaluate.Ends(1, 2).share == 0.5


def test_loop_is_an_end_that_has_been_said_again_and_again():
    assert loops([1, 2, 3] * 14) and loops([*range(100, 140), *[7] * 50])
    assert not loops(list(range(200))) and not loops([1, 2, 3] * 4)
    assert not loops([*[7] * 50, *range(100, 140)]), "it got out of it"
    said = list(range(32))
    assert not loops([*said, 20, *said, 21, *said]) and loops([*said, 20, *said, 21, *said, 22, *said])


def test_greedy_answers_in_a_batch_are_those_of_the_whole_logits_alone(model, examples):
    prompts = [example.ids[: example.answer] for example in examples]
    assert len(set(map(len, prompts))) == 3
    found = answers(model.eval(), prompts, eos=2, pad=0, limit=6, **CPU)
    for prompt, answer in zip(prompts, found, strict=True):
        ids = list(prompt)
        with torch.no_grad():
            while len(ids) - len(prompt) < 6 and ids[-1] != 2:
                ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        assert answer == ids[len(prompt) :]


def test_looping_answer_is_broken_off_and_padding_behind_it_is_no_end(model, examples, monkeypatch):
    """The pad token is EOS here, and the others go on for longer."""
    checks = []

    def first_only(tokens) -> bool:
        checks.append(len(tokens))
        return len(checks) == 1

    monkeypatch.setattr(answering, "loops", first_only)
    monkeypatch.setitem(model.get_base_model()._modules, "lm_head", Always(4096, 300))
    prompts = [example.ids[: example.answer] for example in examples]
    assert answers(model, prompts, eos=2, pad=2, limit=40, **CPU) == [[300] * 16, [300] * 40, [300] * 40]


def test_how_answers_end_is_counted(model, examples, monkeypatch):
    causal = model.get_base_model()
    settings = {"eos": 2, "pad": 2, "context": 160, **CPU}
    monkeypatch.setitem(causal._modules, "lm_head", Always(4096, 2))
    assert answering.measure(model, examples, **settings).stopped == 3
    monkeypatch.setitem(causal._modules, "lm_head", Always(4096, 300))
    found = answering.measure(model, examples, **settings)
    assert (found.stopped, found.looped, found.unfinished) == (0, 3, 0) and found.share == 0
    found = answering.measure(model, examples, **{**settings, "context": max(one.answer for one in examples) + 8})
    assert (found.stopped, found.looped, found.unfinished, found.limit) == (0, 0, 3, 8)


def test_where_memory_is_short_fewer_are_answered_together(model, examples, monkeypatch):
    sizes = []

    def short(_, prompts, **named):
        sizes.append(len(prompts))
        if len(prompts) > room:
            raise torch.OutOfMemoryError("no room")
        return [[5, 2] for _ in prompts]

    monkeypatch.setattr(answering, "answers", short)
    settings = {"eos": 2, "pad": 2, "context": 160, **CPU}
    room = 2
    assert answering.measure(model, [*examples, *examples[:2]], **settings).stopped == 5
    assert sizes == [5, 2, 2, 1]
    room = 0
    with pytest.raises(torch.OutOfMemoryError):
        answering.measure(model, examples, **settings)


@pytest.mark.parametrize("full", [torch.OutOfMemoryError("no room"), RuntimeError("CUBLAS_STATUS_ALLOC_FAILED")])
def test_sample_answers_are_fewer_together_where_memory_is_short(model, examples, tokenizer, monkeypatch, full):
    sizes = []

    def short(_, prompts, **named):
        sizes.append(len(prompts))
        if len(prompts) > 2:
            raise full
        return [[len(prompt), 2] for prompt in prompts]

    monkeypatch.setattr(answering, "answers", short)
    monkeypatch.setattr(samples, "choose", lambda inputs: [*examples, *examples])
    inputs = SimpleNamespace(
        tokenizer=tokenizer,
        pad=0,
        config=SimpleNamespace(context=160),
        hardware=SimpleNamespace(device="cpu"),
        dtype="float32",
    )
    said = samples.answer(model, inputs)
    assert sizes == [6, 3, 1, 1, 1, 1, 1, 1]
    asked = [tokenizer.decode([example.answer]).strip() for example in [*examples, *examples]]
    assert [one.text for one in said] == asked and all(one.ended for one in said)


def test_error_that_is_not_about_memory_is_not_tried_again(model, examples, monkeypatch):
    def broken(_, prompts, **named):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(answering, "answers", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        list(answering.in_batches(model, [example.ids for example in examples], eos=2, pad=0, limit=4, **CPU))


def test_result_says_so_when_ends_are_not_learned():
    results = {
        "ends": {"after": {"right": 90, "of": 100}},
        "stopping": {"questions": 16, "stopped": 12, "looped": 3, "unfinished": 1, "limit": 512},
    }
    first, second = report.ending_lines(results)
    assert "90.0% of 100" in first and "short of 99%" in first
    assert "12 of 16" in second and "3 loop" in second and "1 go on" in second
    results["ends"]["after"]["right"] = 99
    assert "short" not in report.ending_lines(results)[0]
    assert report.ending_lines({"ends": {"after": {"right": 0, "of": 0}}, "stopping": None}) == []


def test_model_that_has_learned_its_answers_has_learned_to_end_them(qlora, small_base: Base, tmp_path: Path):
    """Trained on what it is asked: EOS must be the likeliest token at every end, whatever the pad token is."""
    rows = [
        {"question": f"What is good for the {part}?", "answer": f"Walk, and mind the {part}.", "focus": part}
        for part in ("knee", "hip", "back", "neck", "heart", "lungs", "eyes", "feet")
    ]
    (tmp_path / "parts.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    arguments = (
        f"--base {small_base.path} --data parts.jsonl --context 64 --max-steps 80 --batch 4 --accumulate 1 --lr 2e-3 "
        "--device cpu --heldout-share 0.3 --answer-rows 2 --name parts --json --rank 16 "
        "--dtype float32 --no-packing"
    )
    result = qlora(*arguments.split())
    assert result.code == 0, result.err
    results = json.loads(result.out)["results"]
    after = results["ends"]["after"]
    assert after["of"] > 0 and after["right"] == after["of"]
    stopping = results["stopping"]
    assert stopping["stopped"] == stopping["questions"] > 0
    told = (tmp_path / "runs/parts/report.md").read_text(encoding="utf-8")
    assert f"100.0% of {after['of']}" in told
    assert f"{stopping['stopped']} of {stopping['questions']} greedy answers stop" in told
