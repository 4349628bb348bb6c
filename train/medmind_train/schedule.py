"""Learning-rate schedules as functions of the step. Knows no optimizer."""

import math

KINDS = ("wsd", "cosine", "linear", "constant")


def rate(step: int, total: int, *, kind: str, warmup: float, decay: float = 0.2) -> float:
    """The factor on the peak learning rate at `step` (counted from 0) of `total`.

    Args:
        kind: `wsd` holds the peak and falls linearly over the last `decay` share of the steps (Hu et al. 2024,
            MiniCPM, arXiv:2404.06395); `cosine` and `linear` fall from the end of the warm-up on; `constant` stays.
        warmup: share of `total` in which the rate rises linearly.
        decay: share of `total` in which it falls, for `wsd` only.
    """
    rise = math.ceil(total * warmup)
    if step < rise:
        return (step + 1) / rise
    if kind == "constant":
        return 1.0
    start = max(rise, round(total * (1 - decay))) if kind == "wsd" else rise
    left = min(1.0, 1.0 - (step - start) / max(1, total - start))
    return (1 - math.cos(math.pi * left)) / 2 if kind == "cosine" else left
