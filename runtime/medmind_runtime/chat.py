"""From settings to the chat that was asked for: offline first, then one answer, a session, or the proof alone.

Knows the order, and what goes together.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from medmind import console
from medmind.errors import MedmindError
from medmind_runtime import address_space, core_dumps, models
from medmind_runtime.config import ChatConfig
from medmind_runtime.offline import take_network_away

if TYPE_CHECKING:
    from medmind_runtime.probes import Proof

_LONGEST = 1 << 22
"""Characters of a question on standard input: at four to a token the million that the longest contexts hold."""


def run(
    model: str | None,
    config: ChatConfig,
    *,
    prompt: str | None = None,
    as_json: bool = False,
    schema: Path | None = None,
    allow_unproved: bool = False,
) -> None:
    """Take the network and core dumps away, then answer one question, or talk in a terminal.

    Args:
        model: as named by the user; None takes the newest.
        config: the settings.
        prompt: the question; `-` reads it from standard input, and so does None where that is no terminal.
        as_json: the answer as a document.
        schema: file of a JSON schema that the answer must follow.
        allow_unproved: go on where the network cannot be taken away.

    Raises:
        MedmindError: it cannot be done, or does not go together.
    """
    if console.stdout_closed():
        raise MedmindError("standard output is closed, so that no answer could be seen", "leave >&- out")
    with _speaking():
        core_dumps.forbid()
        address_space.demand()
        for note in take_network_away(allow_unproved=allow_unproved).notes:
            console.note(note)
        path, why = models.find(model)
        if prompt == "-" or (prompt is None and not (sys.stdin and sys.stdin.isatty())):
            prompt = _on_standard_input()
        if prompt is not None and not prompt.strip():
            raise MedmindError("the question is empty", "give it with --prompt or on standard input")
        if as_json and prompt is None:
            raise MedmindError("--json answers one question", "give it with --prompt or on standard input")
        if schema is not None:
            if prompt is None:
                raise MedmindError("--schema shapes one answer", "give the question with --prompt or on standard input")
            config = replace(config, grammar=_grammar(schema))
        if why:
            console.note(f"model: {path} ({why})")
        if prompt is None:
            from medmind_runtime import session

            session.interactive(path, config)
        else:
            from medmind_runtime import one_shot

            one_shot.answer(path, config, prompt, as_json=as_json)


def _on_standard_input() -> str:
    """What stands there, without a last line's end; no more of it is read than could ever be answered."""
    if sys.stdin is None:
        raise MedmindError("standard input is closed, so that no question could be read", "give it with --prompt")
    if sys.stdin.isatty():
        console.note("Type the question; Ctrl-D in a line of its own ends it.")
    text = sys.stdin.read(_LONGEST + 1)
    if len(text) > _LONGEST:
        raise MedmindError(
            f"the question is too long: standard input holds more than {_LONGEST:,} characters",
            "shorten it: no context holds so many",
        )
    return text.removesuffix("\n")


def _grammar(schema: Path) -> str:
    from medmind_runtime import bounded_file
    from medmind_runtime.schema import grammar

    most = 4 * grammar.LARGEST  # bytes of so many characters
    shape = bounded_file.read(schema, most, kind="schema", mend="give a JSON schema")
    return grammar.from_schema(shape.decode("utf-8", "replace"))


def prove(*, as_json: bool, allow_unproved: bool = False) -> None:
    """Take the network away, try to reach it in every way, and print what the kernel says.

    Raises:
        MedmindError: something was not refused.
    """
    from medmind_runtime import probes

    with _speaking():
        offline, proof = probes.prove(lambda: take_network_away(allow_unproved=allow_unproved))
        for note in offline.notes:
            console.note(note)
        if as_json:
            console.emit_json(proof.as_json())
        else:
            _print_proof(proof)
        if not (offline.proved and proof.holds):
            raise MedmindError("this process is not proved offline", "see the attempts above")


def _print_proof(proof: "Proof") -> None:
    for line in proof.status:
        console.out.print(line, highlight=False)
    console.out.print(f"threads: {proof.threads}, without the filter: {proof.unfiltered}", highlight=False)
    for probe in proof.probes:
        word = {True: "refused", False: "NOT REFUSED", None: "not tried"}[probe.denied]
        console.out.print(f"{word:12}{probe.attempt}: {probe.outcome}", highlight=False)


@contextmanager
def _speaking() -> Iterator[None]:
    """A terminal without UTF-8 shows question marks and not a traceback; a reader who has gone ends it quietly."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
    try:
        yield
    except BrokenPipeError:
        # What Python still holds for stdout must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
