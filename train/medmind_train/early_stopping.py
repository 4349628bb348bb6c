"""Which step's adapter is kept and when training has nothing more to gain, by the loss on the validation rows.

Knows losses and settings. The held-out rows have no say: what is measured on them must not have been chosen by them.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from medmind_train.qlora_config import QloraConfig

if TYPE_CHECKING:
    from medmind_train.evaluate import Perplexity

_EVALUATIONS = 20
"""Evaluations in a run that is to choose by them, where --eval-every does not say how many."""


def settle(config: QloraConfig, total: int) -> QloraConfig:
    """`config` with `keep` and `eval_every` decided, for a run of `total` steps."""
    keep = config.keep if config.keep != "auto" else "best" if config.patience else "last"
    every = config.eval_every
    if (keep == "best" or config.patience) and not every:
        every = max(1, total // _EVALUATIONS)
    return replace(config, keep=keep, eval_every=every)


@dataclass(frozen=True)
class Best:
    """The evaluation with the lowest loss so far: nats per answer token of the validation rows, ± standard error."""

    step: int
    loss: float
    error: float


class EarlyStopping:
    """Follows the evaluations of a run.

    Args:
        patience: evaluations in a row without improvement after which training ends; 0: it never ends early.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.best: Best | None = None
        self.since = 0

    @property
    def exhausted(self) -> bool:
        """Whether the patience is at its end."""
        return 0 < self.patience <= self.since

    def improves(self, step: int, measured: "Perplexity") -> bool:
        """Take in the evaluation after `step`; true when it is the best so far."""
        if self.best and measured.nll >= self.best.loss:
            self.since += 1
            return False
        self.best = Best(step, measured.nll, measured.nll_error)
        self.since = 0
        return True

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return {"best": asdict(self.best) if self.best else None, "since": self.since}

    def recall(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` gave."""
        self.best = Best(**state["best"]) if state["best"] else None
        self.since = state["since"]


def chosen(stopping: EarlyStopping, config: QloraConfig, last: int, total: int) -> dict[str, Any]:
    """For the manifest: the step that the adapter is of, why, and whether training ended early.

    Args:
        last: the last step that was done.
        total: the steps that were planned.
    """
    best = stopping.best
    kept = best.step if best and config.keep == "best" else last
    return {
        "step": kept,
        "by": "validation loss" if best and config.keep == "best" else "last step",
        "best": asdict(best) if best else None,
        "last": last,
        "planned": total,
        "stopped_early": last < total,
    }


def sentences(choice: Mapping[str, Any]) -> list[str]:
    """What a person is told of `chosen`; nothing where nothing was chosen."""
    told = []
    best = choice["best"]
    if choice["stopped_early"]:
        told.append(f"stopped early after step {choice['last']:,} of {choice['planned']:,}")
    if best:
        is_kept = (
            "the adapter is that of" if choice["step"] == best["step"] else "the adapter is the last one; best was"
        )
        told.append(f"{is_kept} step {best['step']:,}: validation loss {best['loss']:.4f} ± {best['error']:.4f}")
    return told
