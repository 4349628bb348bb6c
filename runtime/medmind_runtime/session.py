"""From a model file and settings to a conversation, and the interactive session around it: the model loads behind it.

Knows which parts belong together; what each does is its own business.
"""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from medmind import console, signals
from medmind.errors import MedmindError
from medmind_runtime import models
from medmind_runtime.background import Background
from medmind_runtime.config import NOTICE, ChatConfig
from medmind_runtime.conversation import Conversation
from medmind_runtime.engine.loading import DEFAULT_CONTEXT
from medmind_runtime.engine.sampling import Sampling
from medmind_runtime.guard import Guard
from medmind_runtime.interruption import never
from medmind_runtime.terminal import commands, line_input, tty_settings
from medmind_runtime.terminal.interactive import Opened, Terminal

if TYPE_CHECKING:
    from medmind_runtime.engine.engine import Engine
    from medmind_runtime.serve.server import Server


def guard_for(config: ChatConfig) -> Background[Guard]:
    """The guard of a session, its rules to be made ready beside something else; the library is opened at once.

    Raises:
        MedmindError: the library cannot be opened.
    """
    library = None
    if config.library is not None:
        from medmind_runtime.library.index import Library

        library = Library(config.library)

    def careful(_cancel: Callable[[], bool]) -> Guard:
        from medmind_runtime.safety.careful import Careful

        guard = Careful(library, context=config.context or DEFAULT_CONTEXT)
        guard.warm()
        return guard

    return Background("guard", careful)


def open_model(path: Path, config: ChatConfig, guard: Background[Guard], cancel: Callable[[], bool] = never) -> Opened:
    """Load a model and begin a conversation with it.

    Args:
        path: a GGUF file.
        config: the settings.
        guard: for the conversation; begun before the weights, which mostly leave Python alone.
        cancel: asked while the weights load; True ends that with a MedmindError.

    Raises:
        MedmindError: it cannot be loaded, its template fails, or the system prompt does not fit.
    """
    sampling = Sampling(temperature=config.temperature, seed=config.seed, grammar=config.grammar)
    guard.start()
    from medmind_runtime.engine.engine import Engine

    engine = Engine.load(
        path,
        context=config.context,
        threads=config.threads,
        kv_type=config.kv_type,
        load_mode=config.load_mode,
        adapter=config.adapter,
        gpu_layers=config.gpu_layers,
        lookup=config.lookup,
        progress=lambda _done: not cancel(),
    )
    try:
        notes = _notes(engine, config)
        system = engine.metadata.get("medmind.system_prompt", "") if config.system is None else config.system
        conversation = Conversation(
            engine, system="", sampling=sampling, max_tokens=config.max_tokens, guard=guard.wait(cancel)
        )
        # A template that fails, or a system prompt that does not fit, shows before the first question.
        conversation.begin_anew(system)
    except BaseException:
        engine.close()
        raise
    metadata = {key: value for key, value in engine.metadata.items() if key.startswith(("general.", "medmind."))}
    return Opened(conversation, str(path), system, metadata, _info(engine, config), notes, engine.close, engine)


def _notes(engine: "Engine", config: ChatConfig) -> list[str]:
    """Where the model is not what was asked for, or not whole."""
    notes = []
    if template := engine.fallback_template:
        notes.append(f"warning: {engine.path} carries no chat template; the built-in '{template}' stands in for it")
    if config.context not in {None, engine.context}:
        notes.append(f"The context is {engine.context} tokens: llama.cpp rounds {config.context} up.")
    return notes


def _info(engine: "Engine", config: ChatConfig) -> dict[str, str]:
    """What /info shows beside the metadata."""
    memory = engine.memory
    return {
        **({"adapter": str(config.adapter)} if config.adapter else {}),
        "context": f"{engine.context} tokens",
        "threads": str(engine.threads),
        "weights": console.human_bytes(memory.weights),
        "repacked weights": console.human_bytes(memory.repacked),
        "KV cache": f"{console.human_bytes(memory.kv_cache)} in {engine.kv_type}",
        "compute": console.human_bytes(memory.compute),
    }


def interactive(path: Path, config: ChatConfig) -> None:
    """Talk in a terminal until somebody leaves."""
    console.require("prompt_toolkit", "runtime")
    Sampling(temperature=config.temperature, seed=config.seed)  # refused before the prompt, not behind it
    guard = guard_for(config)
    woken: list[Callable[[], None]] = []

    def wake() -> None:
        for one in woken:
            one()

    def load(name: str, before: Opened) -> Background[Opened]:
        new, _ = models.find(name)
        return Background("load", lambda cancel: _replaced(before, new, config, guard, cancel), wake)

    opening = Background("load", lambda cancel: open_model(path, config, guard, cancel), wake)
    read: line_input.Read = line_input.read_plainly
    console.note(NOTICE)
    if line_input.is_interactive():
        console.note("/help lists the commands; Alt-Enter begins a new line; Ctrl-C stops an answer; Ctrl-D leaves.")
        read = editor = line_input.Editor(
            commands.ARGUMENTS, commands.COMMANDS, lambda: terminal.opening, history=config.history
        )
        woken.append(editor.wake)
        if config.history is not None:
            console.note(f"What you type is kept in {config.history}; only you can read it (0600).")
    terminal = Terminal(opening, guard, read, commands.Commands(load))
    terminal.markdown = config.markdown
    terminal.read_ahead = config.read_ahead
    woken.append(terminal.wake)
    with tty_settings.put_back():
        try:
            if not line_input.is_interactive():
                terminal.opened()
            terminal.run()
        finally:
            terminal.close()


def _replaced(
    before: Opened, path: Path, config: ChatConfig, guard: Background[Guard], cancel: Callable[[], bool]
) -> Opened:
    """Another model in the place of one, with the same conversation; when it cannot be loaded, the old one again.

    The old one goes first: two may not fit the memory.
    """
    said = before.conversation
    before.close()
    trouble = ""
    try:
        opened = _going_on(said, before.system, open_model(path, config, guard, cancel))
    except MedmindError as error:
        trouble = str(error)
        opened = _going_on(said, before.system, open_model(Path(before.name), config, guard, cancel))
    opened.notes = (
        [f"error: {trouble}", f"The model is {opened.name} as before."]
        if trouble
        else [*opened.notes, f"The model is {opened.name}; the conversation goes on with it."]
    )
    return opened


def _going_on(said: Conversation, own: str, opened: Opened) -> Opened:
    """A model with the conversation had with another; a system prompt that is not that one's `own` comes with it.

    Raises:
        DoesNotFit: the system prompt leaves no room in this one's context; it is closed then.
    """
    now = opened.conversation
    now.sampling, now.max_tokens = said.sampling, said.max_tokens
    if said.system != own:
        try:
            now.begin_anew(said.system)
        except BaseException:
            opened.close()
            raise
    now.turns = said.turns
    return opened


def serve(path: Path, config: ChatConfig, server: "Server") -> None:
    """Load the model and answer requests until somebody stops it."""
    from medmind_runtime.serve.server import Served

    # A shell that starts it with `&` has turned SIGINT off; whoever sends it means it.
    signals.hear(signal.SIGINT)
    opened = open_model(path, config, guard_for(config))
    talk = opened.conversation
    for note in opened.notes:
        console.note(note)
    name = path.name.removesuffix(".gguf")
    console.note(f"Serving {name} at {server.url}; Ctrl-C ends it.")
    try:
        server.serve(Served(name, talk.engine, talk.guard, talk.system, talk.sampling, talk.max_tokens))
    finally:
        opened.close()
