"""Setting up the processes of a run and taking them down. Knows torch.distributed's start and end; no training."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import distributed
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from medmind import console
from medmind.errors import MedmindError
from medmind_train import agreement, launch
from medmind_train.distributed import PeerLost
from medmind_train.launch import Launch

TIMEOUT = timedelta(minutes=30)
"""How long one process waits for another, where it does not wait for what only the first does."""
_LEAVING = 10.0
"""Seconds that the others give the first to say why a run ends."""


@contextmanager
def joined(device: str) -> Iterator[None]:
    """Within the block, be one of the processes that were started for this run; started alone, nothing is set up.

    Args:
        device: of the settings; `auto` takes cards where torch sees some.

    Raises:
        MedmindError: more processes than cards, or a process group that does not come together.
    """
    started = launch.read()
    if started.size == 1:
        yield
        return
    launch.let_tracebacks_be_seen()
    if not distributed.is_available():
        raise MedmindError("this build of torch cannot work in several processes", "start one process")
    backend = _backend(device, started)
    try:
        store, rank, size = next(iter(rendezvous("env://", timeout=TIMEOUT)))
        distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise MedmindError(
            f"the {started.size} processes do not find each other: {error}", "see MASTER_ADDR and MASTER_PORT"
        ) from error
    with agreement.meeting(PrefixStore("medmind", store)) as met:
        whole = False
        try:
            yield
            whole = True
        except (MedmindError, PeerLost) as error:
            whole = agreement.is_agreed(error)
            if rank == 0 if whole else met.first_to_say():
                console.silence(False)
                console.fail(str(_mendable(error)))
            raise SystemExit(1) from error
        except BaseException as error:
            whole = agreement.is_agreed(error)
            raise
        finally:
            if whole:
                met.leave(_LEAVING)
                distributed.destroy_process_group()


def _mendable(error: Exception) -> Exception:
    if isinstance(error, PeerLost):
        return MedmindError("another process of this run has ended", "its own lines, or the launcher's, say why")
    return error


def _backend(device: str, started: Launch) -> str:
    """gloo for the CPU, and NCCL beside it for cards, each process taking its own."""
    if device == "cpu" or not torch.cuda.is_available():
        return "gloo"
    cards = torch.cuda.device_count()
    if started.local_size > cards:
        raise MedmindError(
            f"{started.local_size} processes were started for {cards} card{'s' if cards > 1 else ''}",
            f"start --nproc-per-node {cards}, or give --device cpu",
        )
    torch.cuda.set_device(started.local_rank)
    return "cpu:gloo,cuda:nccl" if distributed.is_nccl_available() else "gloo"
