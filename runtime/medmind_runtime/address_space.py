"""Whether this process may have the address space that chat takes before any model is loaded.

Knows the shell's limit alone; what a model needs is forecast later.
"""

from medmind.errors import MedmindError

_LEAST = 280 << 20
"""Bytes. Under a smaller `ulimit -v` not even a small model answered (x86-64, one core and thread, the least context);
numpy says nothing of it, but spins or ends the process while it is imported."""


def demand() -> None:
    """Refuse to begin with less than is needed at all; where there is no such limit, nothing.

    Raises:
        MedmindError: the limit is too low.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    allowed, _ = resource.getrlimit(resource.RLIMIT_AS)
    if allowed != resource.RLIM_INFINITY and allowed < _LEAST:
        raise MedmindError(
            f"this process may have {allowed >> 10} KiB of address space (ulimit -v), "
            f"and {_LEAST >> 10} KiB are needed beside the model's",
            "raise it, as with: ulimit -v unlimited",
        )
