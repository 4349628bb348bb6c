"""One question, one answer: as text for people and pipes, or as a JSON document for programs.

Knows what goes to which stream, and when there is no document. Knows no command line; the model is opened by `session`.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import medmind
from medmind import console
from medmind.errors import MedmindError
from medmind_runtime.config import NOTICE, ChatConfig
from medmind_runtime.conversation import Conversation
from medmind_runtime.ending import ending
from medmind_runtime.exchange import DoesNotFit, Prompt
from medmind_runtime.session import guard_for, open_model
from medmind_runtime.terminal import display


def answer(path: Path, config: ChatConfig, question: str, *, as_json: bool) -> None:
    """Answer on standard output.

    Raises:
        MedmindError: the model cannot be loaded, the question does not fit, or there is no document of the schema: what
            was said first took its place, it is held back, or it was cut off.
    """
    started = time.perf_counter()
    opened = open_model(path, config, guard_for(config))
    loaded = time.perf_counter() - started
    try:
        for note in opened.notes:
            console.note(note)
        prompt = _fitted(opened.conversation, question)
        if as_json:
            console.emit_json(_document(opened.conversation, path, opened.metadata, prompt, loaded))
        else:
            _as_text(opened.conversation, prompt, markdown=config.markdown)
        if why := opened.conversation.last and _no_document(opened.conversation, prompt):
            raise MedmindError(why)
    finally:
        opened.close()
    if config.grammar and prompt.before.alone:
        why = "the question tells of an emergency" if prompt.before.rule else "no model was asked"
        raise MedmindError(f"no JSON was made: {why}", "the answer is words for a person")


def _fitted(conversation: Conversation, question: str) -> Prompt:
    try:
        return conversation.fit(question)
    except DoesNotFit as error:
        if error.opening:
            console.note(error.opening)
        raise


def _as_text(conversation: Conversation, prompt: Prompt, *, markdown: bool) -> None:
    console.note(NOTICE)
    answer: Iterable[str] = conversation.answer(prompt)
    if prompt.document:
        answer = ["".join(answer)]
        if _no_document(conversation, prompt):
            return
    shown = display.of_answers(markdown=markdown and not prompt.document)
    try:
        for piece in answer:
            shown.feed(piece)
    finally:
        shown.finish()
    if not prompt.document and (line := ending(conversation)):
        console.note(line)


def _no_document(conversation: Conversation, prompt: Prompt) -> str:
    """Why there is no document though one was asked for; empty where there is one, or none was."""
    reply = conversation.last
    assert reply is not None
    if reply.refusal or not prompt.document or reply.finish == "stop":
        return reply.refusal
    return f"the JSON is not whole: {ending(conversation).strip('[]')}"


def _document(
    conversation: Conversation, path: Path, metadata: Mapping[str, str], prompt: Prompt, load_seconds: float
) -> dict[str, Any]:
    text = "".join(conversation.answer(prompt))
    reply = conversation.last
    assert reply is not None
    spent = reply.timings
    refusal = _no_document(conversation, prompt)
    return {
        "format": "medmind-answer/1",
        "version": medmind.__version__,
        "answer": None if refusal else text,
        "refusal": refusal or None,
        "finish": reply.finish,
        **prompt.beside(),
        "model": {"path": str(path), "bytes": path.stat().st_size, **metadata},
        "sampling": asdict(conversation.sampling),
        "usage": {
            "prompt_tokens": spent.prompt_tokens,
            "answer_tokens": spent.generated_tokens,
            "context": conversation.engine.context,
        },
        "timings": {"load_seconds": load_seconds, "first_text_seconds": reply.first_seconds, **spent.as_json()},
    }
