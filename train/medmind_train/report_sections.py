"""Sections of a run's report that are about what it took and what it says: cost and sample answers. Knows Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from medmind.console import human_bytes
from medmind_train.footprint import CARD


def energy_and_price(took: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Rows of the table of costs."""
    energy, price = took["energy"], took["price"]
    rows = [("energy of the card", "not measured")]
    if energy:
        power = f"{energy['watts']:.0f} W, evaluations while training included"
        rows = [("energy of the card", f"{energy['joules'] / 3.6e6:.3g} kWh, {power}")]
    if price:
        rows.append(("price", f"{price['total']:.2f} for {price['hours']:.2f} hours at {price['per_hour']:g}"))
    return rows


def full_fine_tuning(took: Mapping[str, Any]) -> str:
    """A full fine-tune beside this run; estimates, labelled so."""
    full, memory = took["full_fine_tuning"], took["memory"]
    cards = -(-full["memory"] // CARD)
    multiple = cards > 1 and took["price"]
    own = f"{'about ' if memory['estimate'] else ''}{human_bytes(memory['peak'])}"
    rows = [("memory of its tensors", own, f"about {human_bytes(full['memory'])} ({full['weights']}, AdamW)")]
    rows.append(("computing", "1", f"about {full['computing']:.2f}"))
    if took["energy"]:
        joules = took["energy"]["joules"]
        rows.append(("energy", f"{joules / 3.6e6:.3g} kWh", f"about {full['computing'] * joules / 3.6e6:.3g} kWh"))
    if took["price"]:
        total = took["price"]["total"]
        rows.append(("price", f"{total:.2f}", f"about {full['computing'] * total:.2f}"))
    return (
        table(("", "this run", "full fine-tune, an estimate"), rows)
        + "\n\nMemory at the same batch and context by arithmetic, as `medmind-train plan` has it; computing in "
        "floating-point operations, activations computed again in both. Energy and price take it to be as efficient"
        + (
            f", and an hour of each of the {cards} cards of 80 GiB that it needs at least to cost as much"
            if multiple
            else ""
        )
        + "."
    )


def sample_answers(samples: Sequence[Mapping[str, Any]]) -> str:
    """Questions with what the base and the tuned model said."""
    told = []
    for one in samples:
        parts = [f"**{_plain(one['question'])}**"]
        for when, name in (("before", "base"), ("after", "tuned")):
            cut = "" if one[when]["ended"] else " … *(cut off)*"
            parts.append(f"*{name}:*\n\n{_quoted(one[when]['text'])}{cut}")
        told.append("\n\n".join([*parts, f"*true answer:*\n\n{_quoted(one['expected'])}"]))
    return "\n\n---\n\n".join(told)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _quoted(text: str) -> str:
    """As a quotation; an answer that looks like Markdown stays text."""
    lines = [_plain(line) for line in (text or "(nothing)").splitlines()]
    return "\n".join(f"> {line}" for line in lines)


def _plain(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]<>#|!" else letter for letter in text)
