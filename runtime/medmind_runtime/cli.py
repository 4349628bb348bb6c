"""The front door of `medmind-chat`: a plain chat begins at once, whatever else is asked for goes through typer.

Knows only which of the two it is.
"""

import sys

from medmind import console


def main() -> None:
    """Entry point of `medmind-chat`."""
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
