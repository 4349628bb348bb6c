"""Doses that are to be worked out: `your weight in kilos times 30`, `your age times twenty`.

Knows what of a person is multiplied or divided, and by which words. Knows not what comes out.
"""

from medmind_runtime.safety.doses.surroundings import NEAR, Surroundings


def told(around: Surroundings, first: int, _: int) -> bool:
    """Whether a number is what somebody's weight or age is multiplied or divided by."""
    multiplying, beside = around.known.multiplying, around.known.beside
    by = around.text(first - 1) == "by" and around.in_clause(first, multiplying.multiplied_with)
    if not (by or around.text(first - 1) in multiplying.fold) or not around.drug_in_reach(first):
        return False
    others = around.known.measuring.measured - multiplying.of_person  # `your BMI is your weight divided by`
    if around.in_clause(first, others):
        return False
    for place in range(first - 2, max(-1, first - NEAR // 2), -1):
        if around.texts[place] in multiplying.of_person:
            return around.text(place - 1) in beside.own or around.text(place - 2) in beside.own
    return False
