"""The figures of a grounding report as words and tables, for Markdown and terminal alike. Measures nothing."""

from collections.abc import Iterator

from medmind_benchmarks.figures import Choice
from medmind_benchmarks.grounding.results import Effect, Library, Pair, Report
from medmind_benchmarks.statistics import Estimate, two_sided_95
from medmind_benchmarks.tables import NONE, Table, change, estimate
from medmind_runtime.library.index import PASSAGES


def perplexities(report: Report) -> Table:
    """Perplexity of the held-out answers, with and without passages."""
    rows = [
        (
            *names,
            str(one.rows),
            estimate(one.question_alone),
            estimate(one.with_passages),
            change(one.change),
            f"{one.likelier / one.rows:.0%}",
        )
        for names, one in _effects(report)
    ]
    columns = ("model", "library", "topic", "rows", "alone", "with them", "change, paired", "likelier")
    return Table(columns, tuple(rows))


def choices(report: Report) -> Table:
    """Multiple choice, with and without passages; empty where no question could be made."""
    rows = []
    for names, one in _effects(report):
        before, now = one.choice_alone, one.choice_with_passages
        if before and now and now.flips:
            difference = f"{now.flips.difference * 100:+.0f} ({_points(now.flips.low)} to {_points(now.flips.high)})"
            won = f"{now.flips.won}, {now.flips.lost}"
            rows.append((*names, str(now.questions), _share(before), _share(now), difference, won))
    columns = ("model", "library", "topic", "asked", "alone", "with them", "points (95 %)", "won, lost")
    return Table(columns, tuple(rows))


def retrieval(report: Report) -> Table:
    """What the libraries find."""
    rows = []
    for one in report.libraries:
        recalled = [f"{found.share:.0%} ({found.low:.0%}–{found.high:.0%})" for found in one.recall] or [NONE, NONE]
        held = f"{one.held} of {one.with_topic}"
        rows.append((one.label, f"{one.found} of {one.asked}", held, *recalled))
    recalls = ("recall@1", f"recall@{PASSAGES}")
    return Table(("library", "has something", "holds the topic", *recalls), tuple(rows))


def verdict(report: Report) -> list[str]:
    """What the passages do, a sentence for each pair."""
    return [_said(pair) for pair in report.pairs] + [_said_of(library) for library in report.libraries]


def _said(pair: Pair) -> str:
    if not pair.all or not pair.passages or not pair.passage_tokens:
        why = pair.reason if pair.status == "failed" else "no row has figures on both sides"
        return f"{pair.model} with {pair.library}: not measured: {why}."
    effect = pair.all
    left = sum(pair.left_out.values())
    why = "; ".join(f"{reason}: {count}" for reason, count in pair.left_out.items())
    told = f"; {left} row{'s' if left > 1 else ''} left out ({why})" if left else ""
    return (
        f"{pair.model} with {pair.library}: the passages {_word(effect.change, effect.rows)} "
        f"({change(effect.change)} perplexity{_and_choice(effect.choice_with_passages)}); "
        f"{pair.passages.value:.1f} of them take {pair.passage_tokens.value:.0f} tokens of a prompt{told}."
    )


def _word(ratio: Estimate, rows: int) -> str:
    if ratio.error is None or abs(ratio.value - 1) <= two_sided_95(rows) * ratio.error:
        return "make no difference beyond the noise to the held-out answers"
    return "make the held-out answers likelier" if ratio.value < 1 else "make the held-out answers less likely"


def _and_choice(found: Choice | None) -> str:
    if not found or not found.flips:
        return ""
    flips = found.flips
    noise = ", within the noise" if flips.low <= 0 <= flips.high else ""
    return f", {flips.difference * 100:+.0f} points of multiple choice{noise}"


def _said_of(library: Library) -> str:
    lacking = library.asked - library.found
    told = f"; to {lacking} chat says that it has nothing, and no model is asked" if lacking else ""
    return f"{library.label} has passages for {library.found} of {library.asked} questions{told}."


def _effects(report: Report) -> Iterator[tuple[tuple[str, str, str], Effect]]:
    """Every group of rows of every pair, with what it is called."""
    for pair in report.pairs:
        groups = (("any", pair.all), ("own", pair.own_topic), ("others", pair.other_topics))
        for name, effect in groups:
            if effect:
                yield (pair.model, pair.library, name), effect


def _share(found: Choice) -> str:
    return f"{found.quoted.value:.0%}"


def _points(share: float) -> str:
    return f"{share * 100:+.0f}"
