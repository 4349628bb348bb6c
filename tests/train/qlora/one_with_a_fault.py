"""`medmind-train` as torchrun starts it, in which one process meets with something: started by test_processes."""

import os
import signal

import torch

from medmind_train import cli, passes

FAULTS = {
    "signal": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "signal to the launcher": lambda: os.kill(os.getppid(), signal.SIGINT),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "defect": lambda: int("nothing"),
    "not finite": lambda: float("nan"),
    "memory": lambda: torch.empty(1 << 60),
}


def main() -> None:
    fault, rank, at = os.environ["FAULT"].split("/")
    real, passed = passes.answer_nll, []

    def faulty(model, batch):
        passed.append(batch.rows)
        nll, owners = real(model, batch)
        if os.environ["RANK"] == rank and len(passed) == int(at):
            found = FAULTS[fault]()
            nll = nll * (found if isinstance(found, float) else 1)
        return nll, owners

    passes.answer_nll = faulty
    cli.main()


main()
