"""Doses by what is done to a device: `dial up 60 on the pen`, `fill the syringe to the 50 mark`, `squirt it 5 times`.

Knows pens, syringes, sprays and their marks. Knows no units.
"""

from medmind_runtime.safety.doses.surroundings import Surroundings

_BACK, _AHEAD = 12, 6
"""Tokens to look back for the verb; to look ahead for the device."""


def told(around: Surroundings, first: int, end: int) -> bool:
    """Whether a number without a unit is what a device is set to, or filled to."""
    handling = around.known.handling
    marked = around.text(end + (around.text(end) == "-")) in handling.marks
    if not (marked or around.ends(end) or around.text(end) in handling.before) or around.row[first].value == 0:
        return False
    verb = _verb_before(around, first)
    if verb < 0:
        return False
    between = range(verb + 1, first)
    near = {*around.clause_before(verb), *(around.texts[at] for at in between)}
    if around.texts[verb] not in handling.showing:
        behind = around.texts[end : end + _AHEAD]
        near |= {*behind[: behind.index(".") if "." in behind else None]}
    near &= handling.things
    if not (near or marked or any(map(around.is_drug, between))):  # `dial insulin to 12`
        return False
    return not near.isdisjoint(handling.of_drugs) or around.drug_in_reach(first) or around.drug_near(first)


def _verb_before(around: Surroundings, first: int) -> int:
    """The place of the verb that a device is set with, with nothing but small words behind it; below zero for none."""
    handling = around.known.handling
    verbs = handling.setting | handling.showing
    small = around.known.beside.modifiers | handling.between | handling.things | around.known.often.objects
    for place in range(first - 1, max(-1, first - _BACK), -1):
        if around.texts[place] in verbs:
            return place
        if around.texts[place] not in small and not around.is_drug(place):
            break
    return -1


def pressed(around: Surroundings, at: int) -> bool:
    """`inhale ten times`, `press it 8 times`; not to test it."""
    handling = around.known.handling
    if not handling.primed.isdisjoint([*around.clause_before(at), *around.texts[at : at + _BACK]]):
        return False
    for place in range(at - 1, max(-1, at - _BACK), -1):
        if around.texts[place] in handling.pressing and around.text(place - 1) not in around.known.beside.own:
            return True
        if around.texts[place] not in handling.pressed and not around.is_drug(place):
            return False
    return False


def own_pressed(around: Surroundings, at: int) -> bool:
    """`puff your inhaler ten times`: a device that is for drugs alone, of somebody."""
    handling = around.known.handling
    places = range(at - len(around.clause_before(at)), at)
    return any(
        around.texts[place] in handling.of_drugs and around.texts[place - 1] in around.known.beside.own
        for place in places
    )


def placed(around: Surroundings, at: int) -> bool:
    """Whether it goes on as `in each nostril`, `under the tongue`."""
    handling = around.known.handling
    if around.text(at) not in handling.into:
        return False
    return around.text(around.past(at + 1, handling.one_of, 3)) in handling.places
