"""`medmind-train pretrain`: from text files to a directory that transformers and llama.cpp's tokenizer agree on."""

import io
import json
import random
import shutil
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import pytest

from medmind_train.cli import main

SMALL = [
    "--vocab-size", "320", "--hidden", "32", "--ffn", "64", "--layers", "1", "--heads", "2", "--kv-heads", "1",
    "--context", "32", "--positions", "64", "--tokens", "2560", "--batch", "8", "--micro-batch", "4",
    "--eval-every", "5", "--checkpoint-every", "5", "--validation-share", "0.2",
]  # fmt: skip


WORDS = "the a heart lung fever pain rest water doctor child adult may help often with after before when 12 7"


@dataclass
class Done:
    code: object
    stdout: str
    stderr: str


def run(*arguments: str | Path, code: int = 0) -> Done:
    """The command in this process: torch is imported once for the whole file."""
    out, err = io.StringIO(), io.StringIO()
    with (
        patch.object(sys, "argv", ["medmind-train", "pretrain", *map(str, arguments)]),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    done = Done(ended.value.code or 0, out.getvalue(), err.getvalue())
    assert done.code == code, done.stderr
    return done


def one_line(done: Done) -> str:
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    return line


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = WORDS.split()
    dice = random.Random(1)
    folder = tmp_path_factory.mktemp("text")
    rows = [{"text": " ".join(dice.choices(words, k=60)) + ". Ärzte helfen 医者 🙂."} for _ in range(40)]
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "b.txt").write_text(" ".join(dice.choices(words, k=800)), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def trained(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("models") / "base"
    document = json.loads(run(text, "--out", out, "--json", *SMALL).stdout)
    assert document["tokens_seen"] == 2560
    return out


def test_the_result_is_a_directory_that_transformers_loads_and_base_check_accepts(trained: Path) -> None:
    from transformers import AutoModelForCausalLM

    from medmind.base import check

    assert check(trained)["architectures"] == ["MistralForCausalLM"]
    model = AutoModelForCausalLM.from_pretrained(trained)
    assert model.num_parameters() == json.loads((trained / "pretrain.json").read_text())["parameters"]


def test_training_lowers_the_loss_and_the_bits_per_byte(trained: Path) -> None:
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    bits = [line["bits_per_byte"] for line in lines if "bits_per_byte" in line]
    assert len(bits) == 2
    assert bits[-1] < bits[0]
    assert (trained / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_tokenizer_json_and_tokenizer_model_give_the_same_ids_and_lose_no_text(trained: Path) -> None:
    from sentencepiece import SentencePieceProcessor
    from transformers import AutoTokenizer

    model = SentencePieceProcessor(model_file=str(trained / "tokenizer.model"))
    tokenizer = AutoTokenizer.from_pretrained(trained)
    for sample in ("the heart", "  two  spaces ", "12 doctors", "tab\tand\nline", "Ärzte 医者 🙂", "é", "", "x" * 300):
        ids = tokenizer.encode(sample, add_special_tokens=False)
        assert ids == model.encode(sample)
        assert tokenizer.decode(ids) == sample


def test_a_chat_has_one_bos_and_the_prompt_is_a_prefix_of_prompt_and_answer(trained: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(trained)
    chat = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "q1"},
        {"role": "assistant", "content": "a1"},
        {"role": "user", "content": "q2"},
        {"role": "assistant", "content": "a2"},
    ]
    full = tokenizer.apply_chat_template(chat, tokenize=False)
    prompt = tokenizer.apply_chat_template(chat[:-1], tokenize=False, add_generation_prompt=True)
    assert full == "<s>[INST] q1[/INST] a1</s>[INST] be brief\n\nq2[/INST] a2</s>"
    assert full.startswith(prompt)
    ids = tokenizer(full, add_special_tokens=False).input_ids
    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids[-1] == tokenizer.eos_token_id


def test_an_interrupted_training_resumes_to_the_same_bytes(text: Path, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "base"
    stopped = run(text, "--out", out, "--max-minutes", "0.000001", *SMALL, code=130)
    assert "--resume" in stopped.stderr
    assert not (out / "model.safetensors").exists()
    assert "--resume" in one_line(run(text, "--out", out, *SMALL, code=1))
    run(text, "--out", out, "--resume", *SMALL)
    assert (out / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()


def test_a_training_killed_before_its_first_checkpoint_starts_over_with_clean_metrics(
    text: Path, trained: Path, tmp_path: Path
) -> None:
    out = tmp_path / "base"
    run(text, "--out", out, "--max-minutes", "0.000001", *SMALL, code=130)
    shutil.rmtree(out / "work" / "checkpoint")
    (out / "work" / "metrics.jsonl").write_text('{"step": 5, "loss": 1.0, "tokens": 9, "seconds": 1}\n{"step": 6, "lo')
    run(text, "--out", out, "--resume", *SMALL)
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps == [json.loads(line)["step"] for line in (trained / "metrics.jsonl").read_text().splitlines()]


def test_a_loss_that_is_no_number_leaves_the_checkpoint_before_it(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medmind_train.pretrain import trainer

    out, real = tmp_path / "base", trainer.Trainer._step

    def broken(self: trainer.Trainer, parts: Sequence[object]) -> object:
        loss = real(self, parts)
        return loss * float("nan") if self.state.step == 6 else loss

    monkeypatch.setattr(trainer.Trainer, "_step", broken)
    often = ["1" if before == "--checkpoint-every" else word for before, word in pairwise(["", *SMALL])]
    assert "the loss is nan at step 7" in run(text, "--out", out, *often, code=1).stderr
    assert json.loads((out / "work" / "checkpoint" / "state.json").read_text())["step"] == 6


def test_a_resume_with_another_config_is_refused(text: Path, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "base"
    run(text, "--out", out, "--max-minutes", "0.000001", *SMALL, code=130)
    changed = [*SMALL, "--lr", "0.5"]
    assert "lr=0.003" in one_line(run(text, "--out", out, "--resume", *changed, code=1))
    assert "no unfinished training" in one_line(run(text, "--out", trained, "--resume", *SMALL, code=1))


def test_one_plain_text_file_is_enough(tmp_path: Path) -> None:
    """It is cut into documents, one of which at least is held out whatever the share."""
    dice = random.Random(2)
    words = WORDS.split()
    lines = [" ".join(dice.choices(words, k=20)) + "." for _ in range(200)]
    (tmp_path / "book.txt").write_text("\n".join(lines), encoding="utf-8")
    small = [*SMALL[:-1], "0.000001"]
    document = json.loads(run(tmp_path / "book.txt", "--out", tmp_path / "out", "--json", *small).stdout)
    assert document["data"]["validation_documents"] == 1
    assert document["data"]["documents"] > 2
    assert not (tmp_path / "out" / "work").exists()


@pytest.mark.parametrize(
    ("content", "name", "says"),
    [
        ('{"text": "ok"}\n{"no": 1}\n', "bad.jsonl", "bad.jsonl:2"),
        ('{"text": "half \\ud800 a character"}\n', "half.jsonl", "half.jsonl:1 has half a character"),
        ("", "empty.txt", "no text"),
        ("one short page", "page.txt", "one document"),
        ("some text", "notes.pdf", "neither text nor JSON lines"),
    ],
)
def test_text_that_cannot_be_used_is_one_line(content: str, name: str, says: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert says in run(tmp_path / name, "--out", tmp_path / "out", *SMALL, code=1).stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_that_is_none_is_one_line_and_nothing_stays(text: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"no model")
    done = run(text, "--out", tmp_path / "out", "--tokenizer", tmp_path / "tokenizer.model", *SMALL, code=1)
    assert "is no SentencePiece model" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_an_existing_directory_is_never_replaced_unless_it_is_our_own(text: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("keep me", encoding="utf-8")
    assert "--force" in one_line(run(text, "--out", tmp_path / "mine", *SMALL, code=1))
    assert "not made by" in one_line(run(text, "--out", tmp_path / "mine", "--force", *SMALL, code=1))
    assert (tmp_path / "mine" / "letter.txt").read_text(encoding="utf-8") == "keep me"


@pytest.mark.parametrize(("kind", "shape"), [("wsd", (1.0, 1.0, 0.5)), ("linear", (1.0, 0.5, 0.25))])
def test_the_schedule_rises_holds_and_falls(kind: str, shape: tuple[float, float, float]) -> None:
    from medmind_train.schedule import rate

    values = [rate(step, 1000, kind=kind, warmup=0.0, decay=0.5) for step in (0, 500, 750)]
    assert values == pytest.approx(shape)
    assert rate(0, 1000, kind=kind, warmup=0.1) == pytest.approx(0.01)
    assert rate(999, 1000, kind=kind, warmup=0.0, decay=0.5) < 0.01
