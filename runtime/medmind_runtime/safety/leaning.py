"""How far a text leans towards an emergency or self-harm: what the classifier says of it, beside what the rules raise.

Knows the bounds, chosen by cross-validation (scripts/fit_classifier.py counts for it). Hears what no rule foresaw;
explains nothing.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass

from medmind_runtime.safety.classifier import KINDS, alarm_odds

SELF_HARM, URGENT = "self_harm", "urgent"
"""The topics that it can add."""
_EMERGENCY, _HARM = KINDS.index("emergency"), KINDS.index("self_harm")


@dataclass(frozen=True)
class Bounds:
    """Log-odds, each to be surpassed.

    Attributes:
        alarm: of an alarm that no rule raises.
        confirmed: of one that a rule raises too.
        self_harm: of self-harm against an emergency, in an alarm that is told as self-harm too.
        emergency: of an emergency against self-harm, in such an alarm, to be told beside it.
        calm: of an alarm; below it, where no rule is raised, the sentences of a text are not looked at one by one.
    """

    alarm: float = -2.25
    confirmed: float = -3.0
    self_harm: float = -3.0
    emergency: float = -3.0
    calm: float = -3.5


BOUNDS = Bounds()


def heard(
    said: Sequence[float], topics: Set[str], sure: Set[str], more: float = 0.0, bounds: Bounds = BOUNDS
) -> set[str]:
    """The topics that a text tells of.

    An alarm that no rule raises is told as self-harm long before that is the likelier: it must never be missed. Where
    an emergency is about as likely, what to do in one is said beside it.

    Args:
        said: log-probabilities of `classifier.KINDS`.
        topics: what the rules raise.
        sure: those of them that nothing takes back.
        more: log-odds by which the bounds of an alarm are higher.
    """
    odds = alarm_odds(said) - more
    found = set(topics if odds > bounds.confirmed else sure)
    harm = said[_HARM] - said[_EMERGENCY]
    if odds > bounds.alarm:
        if harm > bounds.self_harm:
            found.add(SELF_HARM)
        if found <= {SELF_HARM} and -harm > bounds.emergency:
            found.add(URGENT)
    if SELF_HARM in found and -harm <= bounds.emergency:
        found.discard(URGENT)
    return found
