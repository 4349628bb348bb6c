"""`medmind-chat`: which model, which settings, one shot or a session. Everything else it leaves to its neighbours."""

import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

import medmind
from medmind import console
from medmind.errors import MedmindError

if TYPE_CHECKING:
    from medmind_runtime.conversation import Conversation
    from medmind_runtime.engine import Engine

NOTICE = (
    "medmind: a small language model on this machine. It can be wrong and is no medical advice. "
    "In an emergency call your local emergency number now."
)
_DEFAULT = "chat"


@dataclass(frozen=True)
class ChatConfig:
    """Settings of a chat; None leaves a choice to the model file or the machine.

    Attributes:
        system: system prompt; None takes `medmind.system_prompt` of the model file, empty is none.
        temperature: 0 always takes the likeliest word, so that the same question gets the same answer.
        max_tokens: of one answer.
        context, threads: see `Engine.load`.
        library: file of `medmind-chat index` to answer from.
    """

    system: str | None = None
    temperature: float = 0.0
    seed: int | None = None
    max_tokens: int = 512
    context: int | None = None
    threads: int | None = None
    library: Path | None = None


_DEFAULTS = ChatConfig()


class _DefaultGroup(TyperGroup):
    """A group whose first word may also be an argument of its default command: `medmind-chat MODEL`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the default command in front unless another command is named."""
        if not args or args[0] not in self.commands:
            args = [_DEFAULT, *args]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Leave the default command's name out of its usage line."""
        name, command, rest = super().resolve_command(ctx, args)
        return ("" if name == _DEFAULT else name), command, rest


app = typer.Typer(cls=_DefaultGroup, pretty_exceptions_enable=False, add_completion=False)


@app.callback()
def group() -> None:
    """Ask a converted model, offline."""


@app.command(_DEFAULT)
def chat(
    model: Annotated[
        str | None,
        typer.Argument(
            help="GGUF file, run directory or run name; without it the newest converted model", show_default=False
        ),
    ] = None,
    *,
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="ask this once, print the answer and leave", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one shot: answer, usage and timings as JSON")] = False,
    system: Annotated[
        str | None, typer.Option(help="system prompt in place of the model's own; '' for none", show_default=False)
    ] = _DEFAULTS.system,
    temperature: Annotated[
        float, typer.Option(help="0: the same question gets the same answer; higher: more varied")
    ] = _DEFAULTS.temperature,
    seed: Annotated[int | None, typer.Option(help="for temperatures above 0", show_default="random")] = _DEFAULTS.seed,
    max_tokens: Annotated[int, typer.Option(help="longest answer, in tokens")] = _DEFAULTS.max_tokens,
    context: Annotated[
        int | None, typer.Option(help="tokens remembered", show_default="the model's, at most 4096")
    ] = _DEFAULTS.context,
    threads: Annotated[
        int | None, typer.Option(help="compute threads", show_default="physical cores")
    ] = _DEFAULTS.threads,
    library: Annotated[
        Path | None,
        typer.Option(help="answer from this library (medmind-chat index), with sources", show_default=False),
    ] = _DEFAULTS.library,
) -> None:
    """Chat with a model, offline; nothing that is said is kept.

    With --prompt, or with the question on standard input, it answers once and leaves.
    """
    config = ChatConfig(system, temperature, seed, max_tokens, context, threads, library)
    _survive_narrow_terminals()
    try:
        _chat(model, prompt, as_json, config)
    except BrokenPipeError:
        # The reader has gone; what Python still holds for stdout must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


@app.command("index")
def make_library(
    source: Annotated[Path, typer.Argument(help="MedQuAD: a .jsonl, .csv or .xml file, or a folder of them")],
    output: Annotated[Path, typer.Option("--output", "-o", help="the library file to write")],
    force: Annotated[bool, typer.Option(help="replace the file if it is there")] = False,
) -> None:
    """Make an offline library of a source's answers, for --library."""
    from medmind_runtime.library import index, read

    answers, passages = index.write(read.answers(source), output, force=force)
    console.note(f"{output}: {answers:,} answers in {passages:,} passages")


def _survive_narrow_terminals() -> None:
    """A terminal without UTF-8 shows question marks, not a traceback."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")


def _chat(model: str | None, prompt: str | None, as_json: bool, config: ChatConfig) -> None:
    from medmind_runtime import gguf_header, models

    path, why = models.find(model)
    gguf_header.check(path)
    if prompt is None and not sys.stdin.isatty():
        prompt = sys.stdin.read()
    if prompt is not None and not prompt.strip():
        raise MedmindError("the question is empty", "give it with --prompt or on standard input")
    if as_json and prompt is None:
        raise MedmindError("--json answers one question", "give it with --prompt or on standard input")
    if why:
        console.note(f"model: {path} ({why})")
    if prompt is None:
        console.require("prompt_toolkit", "runtime")
    started = time.perf_counter()
    engine, conversation = _open(path, config)
    loaded = time.perf_counter() - started
    with engine:
        if prompt is None:
            _session(engine, conversation)
        elif as_json:
            _answer_as_json(engine, conversation, prompt, loaded)
        else:
            _answer(conversation, prompt)


def _open(path: Path, config: ChatConfig) -> "tuple[Engine, Conversation]":
    from medmind_runtime.conversation import Conversation
    from medmind_runtime.engine import Engine, Sampling
    from medmind_runtime.guard import Before
    from medmind_runtime.library.index import Library
    from medmind_runtime.safety.careful import Careful

    guard = Careful(None if config.library is None else Library(config.library))
    sampling = Sampling(temperature=config.temperature, seed=config.seed)
    engine = Engine.load(path, context=config.context, threads=config.threads)
    try:
        if engine.fallback_template:
            console.note(
                f"warning: {path} carries no chat template; the built-in '{engine.fallback_template}' stands in for it"
            )
        system = engine.metadata.get("medmind.system_prompt", "") if config.system is None else config.system
        conversation = Conversation(engine, system=system, sampling=sampling, max_tokens=config.max_tokens, guard=guard)
        conversation.fit(
            "?", Before()
        )  # a template that fails, or a system prompt that does not fit, shows before the first question
    except BaseException:
        engine.close()
        raise
    return engine, conversation


def _answer(conversation: "Conversation", question: str) -> None:
    from medmind_runtime.terminal import printable

    prompt = conversation.fit(question)
    console.note(NOTICE)
    clean = printable if sys.stdout.isatty() else str
    for text in conversation.answer(prompt):
        sys.stdout.write(clean(text))
        sys.stdout.flush()
    sys.stdout.write("\n")
    sys.stdout.flush()


def _answer_as_json(engine: "Engine", conversation: "Conversation", question: str, load_seconds: float) -> None:
    answer = "".join(conversation.answer(conversation.fit(question)))
    reply = conversation.last
    assert reply is not None
    spent = reply.timings
    document: dict[str, Any] = {
        "format": "medmind-answer/1",
        "version": medmind.__version__,
        "answer": answer,
        "finish": reply.finish,
        "notice": NOTICE,
        "model": {
            "path": str(engine.path),
            "bytes": engine.path.stat().st_size,
            **{key: value for key, value in engine.metadata.items() if key.startswith(("general.", "medmind."))},
        },
        "sampling": asdict(conversation.sampling),
        "usage": {
            "prompt_tokens": spent.prompt_tokens,
            "answer_tokens": spent.generated_tokens,
            "context": engine.context,
        },
        "timings": {"load_seconds": load_seconds, "first_text_seconds": reply.first_seconds, **spent.as_json()},
    }
    console.emit_json(document)


def _session(engine: "Engine", conversation: "Conversation") -> None:
    from medmind_runtime import line_input
    from medmind_runtime.terminal import COMMANDS, Terminal

    memory = engine.memory
    info = {
        "model": str(engine.path),
        **{key: value for key, value in engine.metadata.items() if key.startswith(("general.", "medmind."))},
        "context": f"{engine.context} tokens",
        "threads": str(engine.threads),
        "weights": console.human_bytes(memory.weights),
        "repacked weights": console.human_bytes(memory.repacked),
        "KV cache": console.human_bytes(memory.kv_cache),
        "compute": console.human_bytes(memory.compute),
        "temperature": str(conversation.sampling.temperature),
        "longest answer": f"{conversation.max_tokens} tokens",
    }
    console.note(NOTICE)
    console.note("/help lists the commands; Alt-Enter begins a new line; Ctrl-C stops an answer; Ctrl-D leaves.")
    Terminal(conversation, line_input.reader(COMMANDS), info).run()


def main() -> None:
    """Entry point of `medmind-chat`."""
    console.run(app)
