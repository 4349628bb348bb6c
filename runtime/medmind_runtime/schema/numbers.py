"""What a JSON schema says of numbers, as a rule: bounds, exclusive ones, steps.

Knows the keywords; the digits are `number_range`'s.
"""

import math
from decimal import Decimal
from fractions import Fraction

from medmind_runtime.schema import number_range
from medmind_runtime.schema.gbnf import Literal, Ref, Rules, Sequenced, sequence
from medmind_runtime.schema.json_rules import JsonRules
from medmind_runtime.schema.parts import Schema, refuse

_MOST_MULTIPLES = 500
_MOST_DIGITS = 30
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


def rule(flat: Schema, where: str, json: JsonRules, rules: Rules, *, whole: bool) -> Ref:
    """The rule of the numbers that a flat schema allows; only the `whole` ones where they are asked for.

    Raises:
        MedmindError: there are none, or a bound or step cannot be held.
    """
    bounds = {name: _bound(flat, name, where) for name in flat if name in _BOUNDS}
    low, low_open = _tighter(bounds.get("minimum"), bounds.get("exclusiveMinimum"), 1)
    high, high_open = _tighter(bounds.get("maximum"), bounds.get("exclusiveMaximum"), -1)
    step = _bound(flat, "multipleOf", where) if "multipleOf" in flat else None
    if low is None and high is None and step in (None, 1):
        return json.integer() if whole or step else json.number()
    largest = Fraction(number_range.LARGEST)
    low = min(-largest, high or -largest) if low is None else low
    high = max(largest, low) if high is None else high
    if step is not None or whole:
        least = math.floor(low) + 1 if low_open else math.ceil(low)
        most = math.ceil(high) - 1 if high_open else math.floor(high)
        choices = _multiples(least, most, step, where)
    else:
        if max(abs(low), abs(high)) > largest:
            raise refuse(where, f"bounds beyond {number_range.LARGEST} are not supported")
        choices = number_range.real(low, high, low_open=low_open, high_open=high_open)
    if not choices:
        raise refuse(where, "the bounds leave no number")
    return rules.add("bounded", choices)


def _multiples(least: int, most: int, step: Fraction | None, where: str) -> list[Sequenced]:
    if step is None or step == 1:
        return number_range.whole(least, most)
    if step <= 0 or step.denominator != 1:
        raise refuse(f"{where}/multipleOf", "only whole numbers of 1 or more are supported")
    times = int(step)
    first, last = -(-least // times), most // times
    if str(times).strip("0") == "1":
        zeros = Literal(str(times)[1:])
        found = [sequence(*digits, zeros) for digits in number_range.whole(first, min(last, -1))]
        found += [sequence(Literal("0"))] if first <= 0 <= last else []
        return found + [sequence(*digits, zeros) for digits in number_range.whole(max(first, 1), last)]
    if last - first >= _MOST_MULTIPLES:
        raise refuse(
            f"{where}/multipleOf", f"with bounds that leave more than {_MOST_MULTIPLES} numbers it is not supported"
        )
    return [sequence(Literal(str(number * times))) for number in range(first, last + 1)]


def _bound(flat: Schema, name: str, where: str) -> Fraction:
    value = flat[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refuse(f"{where}/{name}", "there must be a number")
    if abs(value) >= 10**_MOST_DIGITS or (value and abs(value) < 10.0**-12):
        raise refuse(f"{where}/{name}", "so many digits are not supported")
    return Fraction(Decimal(repr(value)))


def _tighter(closed: Fraction | None, opened: Fraction | None, sign: int) -> tuple[Fraction | None, bool]:
    """Of a bound and an exclusive one the tighter, and whether it is exclusive; lower bounds have the sign 1."""
    if opened is not None and (closed is None or (opened - closed) * sign >= 0):
        return opened, True
    return closed, False
