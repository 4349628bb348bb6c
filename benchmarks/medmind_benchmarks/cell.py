"""One measurement of one model in a process of its own: `python -m medmind_benchmarks.cell`.

The request is one JSON line on stdin, which the parent then keeps open: when it closes, the parent is gone and the cell
ends itself. Answers are JSON lines on stdout: {"progress": n} while it works, then {"result": …} or {"error": …}.
"""

import dataclasses
import json
import os
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from medmind.console import quiet_libraries
from medmind.errors import MedmindError
from medmind_benchmarks.typed_json import decode

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Advance = Callable[[], None]
"""Called after every step of a measurement."""

KINDS = {
    "score": "medmind_benchmarks.score",
    "log-probs": "medmind_benchmarks.reference_rows",
    "memory": "medmind_benchmarks.footprint",
    "speed": "medmind_benchmarks.pace",
    "bandwidth": "medmind_benchmarks.bandwidth",
    "answers": "medmind_benchmarks.answers.cell",
    "against-trained": "medmind_benchmarks.chain.cell",
    "grounding": "medmind_benchmarks.grounding.cell",
}
"""A request's `kind` → the module that measures it.

Such a module has a frozen dataclass `Request`, whose `kind` is that word, and `measure(request, advance)`, which
returns a dataclass that JSON can carry.
"""


def measure(document: dict[str, Any], advance: Advance) -> "DataclassInstance":
    """Do what a request asks.

    Raises:
        MedmindError: a request of another shape, or a measurement that failed.
    """
    module = import_module(KINDS[document["kind"]])
    result: DataclassInstance = module.measure(decode(module.Request, document), advance)
    return result


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


def main() -> None:
    """Read the request from stdin, measure, answer on stdout."""
    quiet_libraries()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not land among the answers

    def say(document: dict[str, Any]) -> None:
        answers.write(json.dumps(document, allow_nan=False) + "\n")
        answers.flush()

    document = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        done = iter(range(1, sys.maxsize))
        result = measure(document, lambda: say({"progress": next(done)}))
        say({"result": dataclasses.asdict(result)})
    except MedmindError as error:
        say({"error": str(error)})
    except MemoryError:
        say({"error": "the system had no memory left"})


if __name__ == "__main__":
    main()
