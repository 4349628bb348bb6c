"""How this process was started: alone, or as one of several that torchrun or accelerate started for one run.

Knows their environment variables and what to type; no torch.
"""

import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from medmind import console
from medmind.errors import MedmindError

_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_SHARDING = {"ACCELERATE_USE_FSDP": "FSDP", "ACCELERATE_USE_DEEPSPEED": "DeepSpeed"}
"""What accelerate sets when it is to share out a model."""
_MODULE = "medmind_train.cli"
_STEP_BACK = 1.5
"""Seconds: more than the time between the imports of one process and those of another on a busy machine."""


@dataclass(frozen=True)
class Launch:
    """A process among those of a run.

    Attributes:
        rank: its number among all of them.
        size: how many there are; 1: it was started alone.
        local_rank: its number among those of this machine, by which it takes a card.
        local_size: how many there are on this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def machines(self) -> int:
        """How many machines take part, each with as many processes."""
        return max(1, self.size // self.local_size)


def read() -> Launch:
    """What the environment says.

    Raises:
        MedmindError: something that no launcher sets.
    """
    if any(name not in os.environ for name in _NEEDED):
        return Launch()
    try:
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        local_rank = int(os.environ.get("LOCAL_RANK", rank))
        local_size = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    except ValueError as error:
        raise MedmindError(
            f"the environment variables of torchrun cannot be read: {error}", f"unset {', '.join(_NEEDED)}"
        ) from error
    return Launch(rank, size, local_rank, local_size) if size > 1 else Launch()


def hush() -> None:
    """Say nothing in a process that is not the first of several: what all find wrong with a command is said once."""
    if read().rank:
        console.silence()
        sys.stdout = sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - for good


def let_tracebacks_be_seen() -> None:
    """From here on the processes may fail each in its own way."""
    sys.stderr = sys.__stderr__ or sys.stderr


@contextmanager
def failing_last() -> Iterator[None]:
    """Let the first process fail before the others: a launcher kills all when one has failed, and it is to say why."""
    try:
        yield
    except SystemExit as stop:
        # Once it has met the others, and talks as it likes, they end in good order anyway.
        if stop.code and read().rank and sys.stderr is not sys.__stderr__:
            time.sleep(_STEP_BACK)
        raise


def check(command: str) -> None:
    """Refuse to do in several processes what is for one, and what accelerate was told and medmind does otherwise.

    Raises:
        MedmindError: says which, and what to do instead.
    """
    if command == "qlora":
        for variable, name in _SHARDING.items():
            if os.environ.get(variable, "").lower() == "true":
                raise MedmindError(
                    f"accelerate was told to use {name}, which this command does not do by accelerate",
                    "launch it without, and give --shard to lay the base in pieces over the processes",
                )
        return
    if (size := read().size) > 1:
        raise MedmindError(
            f"medmind-train {command} runs in one process, and {size} were started",
            "start it without torchrun: only medmind-train qlora shares its work",
        )


def resume_command(run: Path) -> str:
    """What to type to go on with a run: by as many processes as there are now."""
    launch = read()
    words = f"qlora --resume {shlex.quote(str(run))}"
    if launch.size == 1:
        return f"medmind-train {words}"
    machines = f"--nnodes {launch.machines} " if launch.machines > 1 else ""
    return f"torchrun {machines}--nproc-per-node {launch.local_size} -m {_MODULE} {words}"
