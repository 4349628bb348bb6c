"""Settings that CUDA's libraries read once, when they start. Knows names and values; imports nothing heavy."""

import os

SETTINGS = {
    # 8 MiB for cuBLAS, what it takes on every card before Hopper, where it takes 32 MiB a stream.
    "CUBLAS_WORKSPACE_CONFIG": ":4096:2:16:8",
    # Memory that grows in place: what is freed fits what comes next, whatever their sizes.
    "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
}


def settle() -> None:
    """Set what the user has not set; call it before torch is imported."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
