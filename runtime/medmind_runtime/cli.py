"""The front door of `medmind-chat`: a plain chat begins at once, whatever else is asked for goes through typer.

Knows only which of the two it is.
"""

import gc
import os
import sys
from typing import NoReturn

_NEW_OBJECTS = 50_000
"""Before Python looks for garbage among them: with its own 700 the prompt takes 7 % longer (30 runs each, in turn)."""


def main() -> None:
    """Entry point of `medmind-chat`."""
    gc.set_threshold(_NEW_OBJECTS)
    code = 0
    try:
        from medmind import console

        console.run(_start)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if code and not isinstance(end.code, int):
            sys.stderr.write(f"{end.code}\n")
    except KeyboardInterrupt:  # before anybody hears it
        code = 130
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    _leave(code)


def _leave(code: int) -> NoReturn:
    """End the process at once: everything is in order by now, and threads that still load or import are let go.

    Python's own end would stop such a thread with its locks held and then wait for one of them, or free what llama.cpp
    computes with in it.
    """
    from medmind import signals

    signals.kill()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # nobody reads any more
            code = code or 1
    os._exit(code)


def _start() -> None:
    from medmind_runtime import plain_call

    plain = plain_call.read(sys.argv[1:])
    if plain is None:
        from medmind_runtime.command_line import app

        app()
    else:
        from medmind_runtime import chat

        chat.run(plain.model, plain.config)
