import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medmind.errors import MedmindError
from medmind_runtime import chat, models

from .conftest import CHAT, one_line

Run = Callable[..., subprocess.CompletedProcess[bytes]]
NOTICE = b"In an emergency call your local emergency number"
FEW = ("--max-tokens", 8, "--threads", 1)


def test_one_shot_answers_on_stdout_and_says_what_it_is_on_stderr(run_chat: Run, model: Path, tmp_path: Path) -> None:
    done = run_chat(model, "-p", "what is it", *FEW, fresh=True)
    assert done.returncode == 0
    assert done.stdout.decode().strip()
    notice, cut = done.stderr.splitlines()
    assert NOTICE in notice
    assert cut == b"[cut at 8 tokens; --max-tokens allows more]"
    assert list(tmp_path.iterdir()) == []


def test_the_question_may_come_on_standard_input(run_chat: Run, model: Path) -> None:
    by_option = run_chat(model, "-p", "what is it", *FEW)
    by_input = run_chat(model, *FEW, stdin=b"what is it")
    assert by_input.returncode == 0
    assert by_input.stdout == by_option.stdout
    assert run_chat(model, "-p", "-", *FEW, stdin=b"what is it").stdout == by_option.stdout
    assert run_chat(model, "-p", "what is it", *FEW, stdin=b"and why").stdout == by_option.stdout
    assert "the question is empty" in one_line(run_chat(model, "-p", "-", *FEW).stderr)


@pytest.mark.parametrize(
    ("question", "file"), [("a", b"a\n"), ("a\n", b"a\n\n"), ("a\nb", b"a\r\nb\r\n"), ("a ", b"a ")]
)
def test_the_end_of_the_last_line_on_standard_input_is_no_part_of_the_question(
    run_chat: Run, model: Path, question: str, file: bytes
) -> None:
    typed, given = (run_chat(model, "--json", *FEW, *how, stdin=file) for how in ((), ("-p", question)))
    for told in ("answer", "usage"):
        assert json.loads(typed.stdout)[told] == json.loads(given.stdout)[told]


@pytest.mark.parametrize("prompt", [(), ("-p", "-")])
def test_without_standard_input_no_question_can_be_read_from_it(
    run_chat: Run, model: Path, prompt: tuple[str, ...]
) -> None:
    done = run_chat(model, *prompt, *FEW, prefix=("sh", "-c", 'exec "$@" <&-', "sh"))
    assert done.returncode == 1
    assert "standard input is closed" in one_line(done.stderr)


def test_of_standard_input_no_more_is_read_than_could_be_answered(
    run_chat: Run, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat, "_LONGEST", 100)
    assert run_chat(model, *FEW, stdin=b"what is it" * 10).returncode == 0
    done = run_chat(model, *FEW, stdin=b"what is it" * 10 + b"?")
    assert done.returncode == 1
    assert "the question is too long: standard input holds more than 100 characters" in one_line(done.stderr)
    monkeypatch.setattr(sys, "stdin", io.StringIO("what is it" * 100))
    with pytest.raises(MedmindError, match="too long"):
        chat._on_standard_input()
    assert sys.stdin.tell() == 101


def test_json_is_the_only_thing_on_stdout(run_chat: Run, model: Path) -> None:
    done = run_chat(model, "--json", "-p", "what is it", *FEW, "--temperature", 0.5, "--seed", 4, fresh=True)
    document: dict[str, Any] = json.loads(done.stdout)
    assert document["answer"]
    assert document["finish"] == "length"
    assert document["usage"]["answer_tokens"] == 8
    assert document["sampling"]["seed"] == 4
    assert document["model"]["medmind.run"] == "tiny"
    assert document["timings"]["generation_tokens_per_second"] > 0
    assert run_chat(model, "--json", "-p", "what is it", *FEW, "--temperature", 0.5, "--seed", 4).stdout.startswith(
        b"{"
    )


def test_a_schema_shapes_the_answer(run_chat: Run, model: Path, tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"ill": {"type": "boolean"}}, "required": ["ill"]}
    (tmp_path / "schema.json").write_text(json.dumps(schema), encoding="utf-8")
    done = run_chat(model, "-p", "is it?", "--schema", "schema.json", "--max-tokens", 200, "--threads", 1)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) == {"ill"}
    assert run_chat(model, "-p", "q", "--schema", "none.json").returncode == 1


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="a device that never ends")
def test_a_schema_without_an_end_is_refused(run_chat: Run, model: Path) -> None:
    done = run_chat(model, "-p", "q", "--schema", "/dev/zero")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"/dev/zero is larger than any schema" in done.stderr


def test_json_that_was_cut_off_is_no_answer(run_chat: Run, model: Path, tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text('{"type": "string", "minLength": 400}', encoding="utf-8")
    asked = (model, "-p", "is it?", "--schema", "schema.json", "--max-tokens", 5, "--threads", 1)
    done = run_chat(*asked)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.splitlines()[-1].startswith(b"error: the JSON is not whole: cut at 5 tokens")
    document = json.loads(run_chat(*asked, "--json").stdout)
    assert (document["answer"], document["finish"]) == (None, "length")
    assert "not whole" in document["refusal"]


def test_in_an_emergency_what_to_do_now_is_on_stdout_in_place_of_json(
    run_chat: Run, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "schema.json").write_text('{"type": "object"}', encoding="utf-8")
    asked = (model, "-p", "my baby is not breathing", "--schema", "schema.json", "--threads", 1)
    done = run_chat(*asked)
    assert done.returncode == 1
    assert done.stdout.startswith(b"Call your local emergency number now")
    assert done.stderr.splitlines()[-1].startswith(b"error: no JSON was made: the question tells of an emergency")
    in_envelope = run_chat(*asked, "--json")
    assert in_envelope.returncode == 1
    assert json.loads(in_envelope.stdout)["answer"].encode() == done.stdout.rstrip(b"\n")


def test_a_document_whose_number_is_an_invented_dose_is_held_back(run_chat: Run, model: Path, tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"dose_mg": {"const": 800}}, "required": ["dose_mg"]}
    (tmp_path / "schema.json").write_text(json.dumps(schema), encoding="utf-8")
    asked = ("-p", "how much?", "--schema", "schema.json", "--max-tokens", 200, "--threads", 1)
    done = run_chat(model, *asked)
    assert (done.returncode, done.stdout.strip()) == (1, b"")
    assert b"held back" in done.stderr
    done = run_chat(model, "--json", *asked)
    document = json.loads(done.stdout)
    assert (done.returncode, document["answer"]) == (1, None)
    assert "held back" in document["refusal"]


def test_the_system_prompt_comes_from_the_model_unless_given(run_chat: Run, model: Path) -> None:
    counts = [
        json.loads(run_chat(model, "--json", "-p", "q", *FEW, *extra).stdout)["usage"]["prompt_tokens"]
        for extra in ((), ("--system", "be calm"), ("--system", ""))
    ]
    assert counts[0] == counts[1]
    assert counts[2] < counts[0]


def test_without_a_model_the_newest_is_taken_and_named(run_chat: Run, model: Path, tmp_path: Path) -> None:
    for place, name in enumerate(("old", "new")):
        path = tmp_path / "runs" / name / f"{name}.q8_0.gguf"
        path.parent.mkdir(parents=True)
        path.write_bytes(model.read_bytes())
        os.utime(path, (1000 + place, 1000 + place))
    for arguments in (("new",), (Path("runs") / "new",)):
        done = run_chat(*arguments, "-p", "q", *FEW, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["model"]["path"].endswith("new.q8_0.gguf")
    assert b"new.q8_0.gguf (the newest converted model)" in run_chat("-p", "q", *FEW).stderr


def test_a_model_file_may_have_the_name_of_a_command(run_chat: Run, model: Path, tmp_path: Path) -> None:
    (tmp_path / "chat").write_bytes(model.read_bytes())
    assert run_chat("./chat", "-p", "q", *FEW).returncode == 0


def test_help_needs_no_library_and_names_no_inner_command(run_chat: Run) -> None:
    done = run_chat("--help", fresh=True)
    assert done.returncode == 0
    assert b"medmind-chat chat" not in done.stdout
    code = (
        "import sys; from medmind_runtime import command_line\n"
        "try: command_line.app(['--help'])\nexcept SystemExit: pass\n"
        "print([n for n in ('torch', 'transformers', 'llama_cpp', 'numpy', 'jinja2') if n in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert shown.splitlines()[-1] == b"[]"


def test_the_embedded_run_is_found_by_its_name(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "runs" / "medmind-tiny"
    place.mkdir(parents=True)
    with pytest.raises(MedmindError, match=r"medmind-convert gguf q8_0 medmind-tiny$"):
        models.find("medmind-tiny")
    (place / "medmind-tiny.q8_0.gguf").write_bytes(model.read_bytes())
    file = Path("runs/medmind-tiny/medmind-tiny.q8_0.gguf")
    assert models.find("medmind-tiny") == (file, "")
    assert models.find(None) == (file, "the newest converted model")


BAD = {
    "missing file": (("none.gguf",), "there is no model none.gguf"),
    "no models at all": ((), "there is no converted model under runs/"),
    "empty run": (("empty",), "there is no converted model in empty"),
    "embedded run not converted": (("medmind-tiny",), "make one with: medmind-convert gguf q8_0 medmind-tiny"),
    "not a gguf": (("text.gguf",), "text.gguf is not a GGUF file"),
    "cut off": (("cut.gguf",), "cut.gguf is cut off"),
    "context length 0": (("short.gguf",), "short.gguf is damaged: its context length is 0"),
    "no layers": (("hollow.gguf",), "hollow.gguf is damaged: it has 0 layers"),
    "no template": (("bare.gguf",), "bare.gguf carries no chat template"),
    "hostile template": (("loop.gguf",), "did not finish within 2 s"),
    "deaf template": (("deaf.gguf",), "deaf.gguf leaves out what is asked"),
    "empty question": (("tiny.gguf", "-p", " "), "the question is empty"),
    "prompt larger than the context": (
        ("tiny.gguf", "-p", "how much water is in a cucumber? " * 200),
        "the question does not fit: it takes ",
    ),
    "system prompt larger than the context": (
        ("tiny.gguf", "--system", "be calm. " * 200, "-p", "q"),
        "the system prompt does not fit: it takes ",
    ),
    "temperature": (("tiny.gguf", "--temperature", "-1"), "temperature is -1.0 and must be between 0 and 10"),
    "context": (("tiny.gguf", "--context", "9999"), "is longer than this model's 512"),
    "context beyond any memory": (("tiny.gguf", "--context", "999999999"), "is longer than this model's 512"),
    "gpu layers": (("tiny.gguf", "--gpu-layers", "some"), "--gpu-layers is 'some' — give auto, or how many"),
    "no gpu": (("tiny.gguf", "--gpu-layers", "3"), "this llama.cpp was built without a GPU"),
    "no adapter": (("tiny.gguf", "--adapter", "tiny.gguf"), "tiny.gguf is no LoRA adapter"),
    "max tokens": (("tiny.gguf", "--max-tokens", "0"), "max-tokens is 0 and must be 1 or more"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_one_line_and_exit_code_1(
    run_chat: Run, model: Path, make_model: Callable[..., Path], tmp_path: Path, kind: str
) -> None:
    data = model.read_bytes()
    (tmp_path / "empty").mkdir()
    (tmp_path / "tiny.gguf").write_bytes(data)
    (tmp_path / "text.gguf").write_text("no model", encoding="utf-8")
    (tmp_path / "cut.gguf").write_bytes(data[: len(data) // 2])
    bare = data.replace(b"tokenizer.chat_template", b"tokenizer.chat_tempaaaa").replace(b"INST]", b"XXXX]")
    (tmp_path / "bare.gguf").write_bytes(bare)
    length = data.index(b"llama.context_length") + len("llama.context_length") + 4  # behind the value's type
    (tmp_path / "short.gguf").write_bytes(data[:length] + bytes(4) + data[length + 4 :])
    layers = data.index(b"llama.block_count") + len("llama.block_count") + 4
    (tmp_path / "hollow.gguf").write_bytes(data[:layers] + bytes(4) + data[layers + 4 :])
    if kind == "hostile template":
        endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
        (tmp_path / "loop.gguf").write_bytes(make_model(template=endless).read_bytes())
    if kind == "deaf template":
        (tmp_path / "deaf.gguf").write_bytes(make_model(template="hello").read_bytes())
    arguments, message = BAD[kind]
    before = sorted(tmp_path.rglob("*"))
    done = run_chat(*arguments, stdin=b"q")
    assert done.returncode == 1
    assert done.stdout == b""
    line = one_line(done.stderr)
    assert line.startswith("error: ")
    assert message in line
    assert sorted(tmp_path.rglob("*")) == before


def test_a_built_in_template_that_stands_in_is_named(run_chat: Run, make_model: Callable[..., Path]) -> None:
    done = run_chat(make_model(template=None), "-p", "q", *FEW)
    assert done.returncode == 0
    assert b"carries no chat template; the built-in 'mistral' stands in for it" in done.stderr


@pytest.mark.parametrize("package", ["llama_cpp", "jinja2"])
def test_a_missing_extra_is_the_install_line(model: Path, package: str) -> None:
    code = f"import sys; sys.modules[{package!r}] = None\nfrom medmind_runtime.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, model, "-p", "q"], capture_output=True, check=False)
    assert done.returncode == 1
    assert "pip install 'medmind[runtime]'" in one_line(done.stderr)


def test_a_closed_pipe_is_quiet(model: Path) -> None:
    process = subprocess.Popen(
        [*CHAT, model, "-p", "q", "--max-tokens", "400"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait(60) == 1
    assert len(errors.splitlines()) == 1
    assert NOTICE in errors


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is sent differently there")
def test_ctrl_c_ends_a_one_shot_with_130(make_model: Callable[..., Path]) -> None:
    slow = make_model(width=128, layers=4, context=4096)
    process = subprocess.Popen(
        [*CHAT, slow, "-p", "q", "--max-tokens", "4000", "--threads", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.read(3)
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    os.set_blocking(process.stdout.fileno(), False)
    process.stdout.read()  # what was said before
    os.set_blocking(process.stdout.fileno(), True)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    after, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert len(errors.splitlines()) == 1
    assert len(after) < 100  # of the token at hand, and of thousands that were to come


def test_the_end_waits_for_no_thread() -> None:
    """One that imports or computes would be stopped by Python's own end with its locks held, and then waited for."""
    code = """
import sys, threading
from medmind_runtime import cli
def start():
    threading.Thread(target=threading.Event().wait).start()
    print("all of it", end="")
    sys.exit(3)
cli._start = start
cli.main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"all of it", b"")


@pytest.mark.skipif(sys.platform != "linux", reason="where ulimit -v is heeded")
@pytest.mark.parametrize("arguments", [("-p", "q"), ("serve",)])
def test_an_address_space_too_small_for_any_model_is_told_before_it_is_used(
    run_chat: Run, model: Path, arguments: tuple[str, ...]
) -> None:
    command = (*arguments, model) if arguments == ("serve",) else (model, *arguments)
    done = run_chat(*command, prefix=("sh", "-c", 'ulimit -v 270000; exec "$@"', "sh"))
    assert done.returncode == 1
    assert "may have 270000 KiB of address space (ulimit -v), and 286720 KiB are needed" in one_line(done.stderr)


def test_a_terminal_without_utf_8_gets_question_marks(run_chat: Run, model: Path) -> None:
    done = run_chat(model, *FEW, stdin="naïve 😀".encode(), PYTHONIOENCODING="ascii", LC_ALL="C")
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()


def test_no_color_is_respected(run_chat: Run) -> None:
    coloured = run_chat("none.gguf", FORCE_COLOR="1", TERM="xterm-256color")
    plain = run_chat("none.gguf", FORCE_COLOR="1", TERM="xterm-256color", NO_COLOR="1")
    assert b"\x1b[1;31m" in coloured.stderr
    assert b"31m" not in plain.stderr


def test_with_standard_output_closed_no_answer_is_made_and_lost(model: Path) -> None:
    command = [*CHAT, str(model), "-p", "q"]
    done = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *command], capture_output=True, check=False)
    assert done.returncode == 1
    assert one_line(done.stderr).startswith("error: standard output is closed")


def test_a_context_that_llama_cpp_rounds_up_is_told(run_chat: Run, model: Path) -> None:
    done = run_chat(model, "-p", "q", *FEW, "--context", 5)
    assert done.returncode == 0
    assert b"The context is 256 tokens: llama.cpp rounds 5 up." in done.stderr
    assert b"rounds" not in run_chat(model, "-p", "q", *FEW, "--context", 256).stderr


def test_more_threads_than_llama_cpp_takes_are_refused(
    run_chat: Callable[..., "subprocess.CompletedProcess[bytes]"], model: Path
) -> None:
    done = run_chat(model, "-p", "q", "--threads", 10**9)
    assert done.returncode == 1
    assert done.stderr.decode().strip().splitlines()[-1].endswith("give at most 512")
