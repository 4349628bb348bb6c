"""The settings of `medmind-train search`: those of a run, from which it starts, and those of the search itself."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from medmind.errors import MedmindError
from medmind_train.config import setting
from medmind_train.qlora_config import QloraConfig

TARGETS = ("qv", "attention", "all-linear")
COMPARED = ("qv", "all-linear")
_SPREAD = 4.0
"""The default range of learning rates goes from `lr` divided by this to `lr` times it."""


@dataclass(frozen=True)
class SearchConfig(QloraConfig):
    """`lr`, `rank`, `alpha` and `targets` are the first candidate; all other settings of a run stay as they are."""

    budget: float = setting(1.5, "what the search may cost, in runs of these settings", above=0, maximum=1000)
    trials: int = setting(12, "candidates to begin with; fewer where the budget is too small", minimum=2, maximum=1000)
    halving: int = setting(3, "one in so many goes on to the next rung, of so many times the steps", minimum=2)
    min_steps: int | None = setting(None, "fewest steps of a candidate (default: 1/40 of a run, at least 6)", minimum=1)
    lr_from: float | None = setting(None, "lowest learning rate (default: --lr / 4)", above=0, maximum=1)
    lr_to: float | None = setting(None, "highest learning rate (default: --lr × 4)", above=0, maximum=1)
    try_ranks: Sequence[int] = setting((8, 16, 32, 64), "ranks to try", minimum=1, maximum=4096)
    try_alphas: Sequence[float] = setting((1.0, 2.0, 4.0), "alphas to try, as multiples of the rank", above=0)
    try_targets: Sequence[str] | None = setting(
        None, f"targets to try (default: {','.join(TARGETS)}; with --compare targets: {','.join(COMPARED)})"
    )
    compare: str = setting(
        "nothing",
        "'targets' compares --try-targets at equal trainable parameters, those of the last one at --rank",
        choices=("nothing", "targets"),
    )

    @property
    def rates(self) -> tuple[float, float]:
        """Lowest and highest learning rate."""
        return self.lr_from or self.lr / _SPREAD, self.lr_to or min(1.0, self.lr * _SPREAD)


def check(config: SearchConfig) -> None:
    """Refuse settings that contradict each other.

    Raises:
        MedmindError: names the settings.
    """
    low, high = config.rates
    if low > high:
        raise MedmindError(f"--lr-from {low:g} is above --lr-to {high:g}", "give the lower one first")
    for flag, given in (("--rank-pattern", config.rank_pattern), ("--alpha-pattern", config.alpha_pattern)):
        if given:
            raise MedmindError(f"{flag} fixes what the search is to choose", f"leave {flag} out")
    if config.compare == "targets" and len(config.try_targets or COMPARED) < 2:
        raise MedmindError("--compare targets needs two --try-targets at least", "give qv,all-linear")


def run_settings(config: SearchConfig) -> QloraConfig:
    """The settings of a run alone."""
    return QloraConfig(**{field.name: getattr(config, field.name) for field in fields(QloraConfig)})
