"""`medmind-train` as torchrun starts it, in which one process meets with something: started by test_processes."""

import os
import signal

import torch

from medmind_train import cli, passes


def look(model) -> None:
    """Between forward and backward: of every 4-bit weight this process holds its half."""
    for layer in model.get_base_model().get_decoder().layers:
        packed = [one for name, one in layer.named_parameters() if one.shape[-1:] == (1,)]
        assert len(packed) == 7
        for one in packed:
            assert one.to_local().untyped_storage().nbytes() * 2 == one.numel() * one.element_size()


FAULTS = {
    "signal": lambda _: os.kill(os.getpid(), signal.SIGTERM),
    "signal to the launcher": lambda _: os.kill(os.getppid(), signal.SIGINT),
    "kill": lambda _: os.kill(os.getpid(), signal.SIGKILL),
    "defect": lambda _: int("nothing"),
    "not finite": lambda _: float("nan"),
    "memory": lambda _: torch.empty(1 << 60),
    "look": look,
}


def main() -> None:
    fault, rank, at = os.environ["FAULT"].split("/")
    real, passed = passes.answer_nll, []

    def faulty(model, batch):
        passed.append(batch.rows)
        nll, owners = real(model, batch)
        if os.environ["RANK"] == rank and len(passed) == int(at):
            found = FAULTS[fault](model)
            nll = nll * (found if isinstance(found, float) else 1)
        return nll, owners

    passes.answer_nll = faulty
    cli.main()


main()
