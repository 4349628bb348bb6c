"""What a food or a body holds: `a banana has about 420 mg of potassium`, `the bladder holds 400 ml` tell of no dose.

Knows foods, nutrients, what a body holds and the words between. Knows no units.
"""

from medmind_runtime.safety.doses.surroundings import NEAR, Surroundings
from medmind_runtime.safety.doses.terms import Unit


def held(around: Surroundings, unit: Unit, first: int, end: int) -> bool:
    """Whether a food, a body or a vessel holds so much, and nobody is told to take it.

    Args:
        around: the text.
        unit: of the amount.
        first, end: the number and its unit.
    """
    return (
        holds(around, first, end)
        or (unit.name == "ml" and (of_body(around, first, end) or of_vessel(around, first, end)))
        or (unit.spelt in {"unit", "pint"} and of_drink(around, first, end))
    )


def holds(around: Surroundings, first: int, end: int) -> bool:
    """Whether an amount from `first` to `end` is of a nutrient in a food, and nobody is told to take it.

    Args:
        around: the text.
        first, end: the number and its unit.
    """
    beside, eating = around.known.beside, around.known.eating
    before, behind = around.clause_before(first), _clause_behind(around, end)
    if _eaten(around, before, behind):
        return True
    if not (beside.taking - eating.giving | eating.pieces_of_medicine).isdisjoint([*before, *behind]):
        return False
    if before[:1] == ["per"]:  # `2.7 mg of iron per 100 g`
        return all(not words.isdisjoint(before) for words in (eating.dishes, eating.nutrients, eating.holding))
    verb = next((place for place, text in enumerate(before) if text in eating.holding | eating.giving), len(before))
    given = {"you"} if {*before[verb : verb + 1]} & eating.giving else set()
    if not set(before[:verb]) <= beside.about | given:
        return False
    subject = before[verb + 1 :]
    of = next((text for text in behind if text not in eating.of_what), "")
    if of in eating.nutrients:
        eater = not eating.taken_with.isdisjoint(subject[1:3])  # `patients on milk have`
        eaten = next((text for text in subject if text not in eating.mostly | beside.allowing), "") in eating.dishes
        kind = subject[subject.index("salt") + 1 :] if "salt" in subject else []
        eaten = eaten and (not kind or kind[0] in {"of", "the", "table"})  # a `ferrous salt` is a medicine
        return (eaten and not eater) or (
            subject[:1] == ["there"] and "in" in behind and not eating.dishes.isdisjoint(behind)
        )
    named = not eating.held_in.isdisjoint(subject)  # `the potassium in a banana is about 420 mg`
    return named and not eating.dishes.isdisjoint(subject) and not eating.nutrients.isdisjoint(subject)


def of_vessel(around: Surroundings, first: int, end: int) -> bool:
    """Whether a volume from `first` to `end` is a vessel's: `a glass of water holds 250 ml`, `a wine glass of 125 ml`.

    Args:
        around: the text.
        first, end: the number and its unit.
    """
    beside, eating, place = around.known.beside, around.known.eating, first - 1
    told = [*around.clause_before(first), *_clause_behind(around, end)]
    if around.drug_in_reach(first) or around.drug_ahead(end) or not beside.taking.isdisjoint(told):
        return False
    while place >= 0 and around.texts[place] in beside.about | eating.holding | eating.no_medicine | {"of"}:
        place -= 1
    found = around.unit_at(place) if 0 <= place < first - 1 else None
    return found is not None and found[0].spelt == "cup"


def _eaten(around: Surroundings, before: list[str], behind: list[str]) -> bool:
    """`you need 90 mg of vitamin C a day from food`."""
    eating = around.known.eating
    source = behind[behind.index("from") + 1 :] if "from" in behind else []
    needed = not eating.needing.isdisjoint(before) and eating.pieces_of_medicine.isdisjoint([*before, *source])
    nutrient = next((text for text in behind if text not in eating.of_what), "") in eating.nutrients
    return needed and nutrient and not (eating.dishes | eating.food_sources).isdisjoint(source)


def of_drink(around: Surroundings, first: int, end: int) -> bool:
    """Whether units from `first` to `end` are what a drink holds: `a pint of beer has 2.3 units`.

    Args:
        around: the text.
        first, end: the number and its unit.
    """
    beside, eating = around.known.beside, around.known.eating
    before, behind = around.clause_before(first), _clause_behind(around, end)
    if around.asked or around.drug_in_clause(first) or not (beside.taking - eating.drinking).isdisjoint(before):
        return False
    verb = next((place for place, text in enumerate(before) if text in eating.holding), len(before))
    drinks = [place for place, text in enumerate(before) if text in eating.drunk_in_units]
    held = any(verb < place and before[place + 1 : place + 2] != ["with"] for place in drinks)
    return held or (
        bool({*before} & eating.holding) and "in" in behind and not eating.drunk_in_units.isdisjoint(behind)
    )


def of_body(around: Surroundings, first: int, end: int) -> bool:
    """Whether a volume from `first` to `end` is what a body holds or loses: `urine output under 30 ml an hour`.

    Args:
        around: the text.
        first, end: the number and its unit.
    """
    beside, eating = around.known.beside, around.known.eating
    between = beside.about | eating.food_between | eating.mostly
    if around.text(end) == "of" or around.drug_in_clause(first):
        return False
    told = [*around.clause_before(first), *_clause_behind(around, end)]
    if not (beside.taking - eating.bodily_done | eating.pieces_of_medicine).isdisjoint(told):
        return False
    place = first - 1
    while around.text(place) in between or (place >= 0 and around.text(place) in around.known.beside.passive):
        place -= 1
    if around.text(place) not in eating.bodily_done:
        return False
    while around.text(place) in eating.bodily_done | beside.passive | beside.allowing | eating.mostly:
        place -= 1
    led = place - 1 - (around.text(place - 1) in beside.own | beside.articles)
    return around.text(place) in eating.bodily and around.text(led) not in eating.taken_with | {"for"}


def _clause_behind(around: Surroundings, end: int) -> list[str]:
    made: list[str] = []
    for text in around.texts[end : end + NEAR]:
        if text in {".", "\n", ",", ";"}:
            break
        made.append(text)
    return made
