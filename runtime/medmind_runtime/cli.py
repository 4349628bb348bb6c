"""The front door of `medmind-chat`: a plain chat begins at once, whatever else is asked for goes through typer.

Knows only which of the two it is.
"""

import gc
import sys

from medmind import console

_NEW_OBJECTS = 50_000
"""Before Python looks for garbage among them: with its own 700 the prompt takes 7 % longer (30 runs each, in turn)."""


def main() -> None:
    """Entry point of `medmind-chat`."""
    gc.set_threshold(_NEW_OBJECTS)
    console.run(_start)


def _start() -> None:
    from medmind_runtime import plain_call

    plain = plain_call.read(sys.argv[1:])
    if plain is None:
        from medmind_runtime.command_line import app

        app()
    else:
        from medmind_runtime import chat

        chat.run(plain.model, plain.config)
