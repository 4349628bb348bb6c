"""The figures of a training report as words and tables, for Markdown and terminal alike. Knows formats, no measuring.

Every speed stands beside the card that it was measured on.
"""

from collections.abc import Callable, Sequence

from medmind.console import human_bytes
from medmind_benchmarks.statistics import Spread
from medmind_benchmarks.tables import NONE, Table
from medmind_benchmarks.training.results import Report, Row
from medmind_train.step.document import OURS, Memory

Column = tuple[str, Callable[[Row], str]]


def memory(report: Report) -> Table:
    """Peaks by every count there is."""

    def part(value: Callable[[Memory], int | None]) -> Callable[[Row], str]:
        return lambda row: _bytes(value(row.memory) if row.memory else None)

    on_card: tuple[Column, ...] = (
        ("allocated, peak", part(lambda found: found.allocated)),
        ("of loading", part(lambda found: found.load_allocated)),
        ("of the steps", part(lambda found: found.step_allocated)),
        ("before the steps", part(lambda found: found.static)),
        ("reserved, peak", part(lambda found: found.reserved)),
        ("in use on the card", part(lambda found: found.device_used)),
        ("pinned on the host", part(lambda found: found.host_pinned)),
    )
    host: tuple[Column, ...] = (("resident on the host, peak", part(lambda found: found.host_peak)),)
    return _table(
        _of(report, "random"), (*(on_card if report.conditions.device == "cuda" else ()), *host, ("", _status))
    )


def speed(report: Report) -> Table:
    """Tokens a second over all positions, and how near the arithmetic floor that is."""
    return _table(
        _of(report, "random"),
        (
            ("tokens/s", lambda row: rate(row.speed.tokens_per_s if row.speed else None)),
            ("on", lambda row: row.card or NONE),
            ("seconds a step", lambda row: _seconds(row.speed.step_seconds if row.speed else None)),
            ("share of the floor", lambda row: share(row.floor_share)),
            ("seconds to load", lambda row: f"{row.load_seconds:.1f}" if row.load_seconds is not None else NONE),
            ("loss, first to last", _loss),
            ("", _status),
        ),
    )


def against(report: Report, rows: Sequence[Row]) -> Table:
    """How many times as fast as each of the others, whoever it is."""
    modes = [mode for mode in report.modes if any(row.speed and mode in row.speed.relative for row in rows)]

    def times(mode: str) -> Callable[[Row], str]:
        def cell(row: Row) -> str:
            found = row.speed.relative.get(mode) if row.speed else None
            return _times(found)

        return cell

    return _table([row for row in rows if row.speed], tuple((f"× {mode}", times(mode)) for mode in modes))


def data(report: Report) -> Table:
    """What counts on real rows: the tokens that the loss is over."""
    return _table(
        _of(report, "data"),
        (
            ("rows", lambda row: row.fill),
            ("supervised tokens/s", lambda row: rate(row.speed.supervised_per_s if row.speed else None)),
            ("on", lambda row: row.card or NONE),
            ("positions/s", lambda row: rate(row.speed.tokens_per_s if row.speed else None)),
            ("padding", lambda row: share(row.padding)),
            ("peak", lambda row: _bytes(row.memory.peak if row.memory else None)),
            ("", _status),
        ),
    )


def full(report: Report) -> Table:
    """Every other mode against the full fine-tune at its shape; no rows where none was measured."""
    conditions = report.conditions
    pairs = {id(row): other for row, other in _against_full(report)}

    def of_full(row: Row) -> Row:
        return pairs[id(row)]

    def saved(row: Row) -> str:
        return f"{(row.against_full.memory - 1) * 100:+.1f} %" if row.against_full else NONE

    def both(value: Callable[[Row], str]) -> Callable[[Row], str]:
        return lambda row: f"{value(row)} / {value(of_full(row))}"

    columns: tuple[Column, ...] = (
        ("memory", saved),
        ("peak, this / full", both(lambda row: _bytes(row.memory.peak if row.memory else None))),
        ("trained parameters", both(lambda row: NONE if row.trained is None else f"{row.trained:,}")),
        ("adapter / model to keep", both(lambda row: _bytes(row.trained_bytes))),
        ("seconds per million tokens", both(lambda row: _maybe(row.seconds_per_million))),
        ("on", lambda row: row.card),
    )
    if conditions.price is not None:
        columns += (("cost per million tokens", both(lambda row: _maybe(row.cost_per_million))),)
    return _table([row for row, _ in _against_full(report)], columns)


def terminal(report: Report) -> list[Table]:
    """Memory and speed side by side, ratios, data: each fits a terminal of 80 columns."""
    conditions = report.conditions

    def pace(value: Callable[[Row], Spread | None]) -> Callable[[Row], str]:
        def cell(row: Row) -> str:
            found = value(row)
            return row.status if found is None else _figure(found.median)

        return cell

    def part(value: Callable[[Memory], int | None]) -> Callable[[Row], str]:
        return lambda row: _gib(value(row.memory) if row.memory else None)

    places: tuple[Column, ...] = (
        ("alloc GiB", part(lambda found: found.allocated)),
        ("reserved", part(lambda found: found.reserved)),
        ("device", part(lambda found: found.device_used)),
    )
    if conditions.device != "cuda":
        places = (("resident GiB", part(lambda found: found.host_peak)),)
    figures: tuple[Column, ...] = (
        *places,
        ("tokens/s", pace(lambda row: row.speed.tokens_per_s if row.speed else None)),
        ("±", lambda row: half_range(row.speed.tokens_per_s if row.speed else None)),
        ("of floor", lambda row: share(row.floor_share)),
    )
    found = [_table(_of(report, "random"), figures)]
    rows = [row for row in _of(report, "random") if row.mode in OURS and row.speed and row.speed.relative]
    if rows:
        found.append(against(report, rows))
    if conditions.data:
        supervised = pace(lambda row: row.speed.supervised_per_s if row.speed else None)
        columns: tuple[Column, ...] = (
            ("rows", lambda row: row.fill),
            ("supervised tokens/s", supervised),
            ("padding", lambda row: share(row.padding)),
        )
        found.append(_table(_of(report, "data"), columns))
    return found


def verdict(report: Report) -> str:
    """Ours against the others in plain words, a sentence a shape, every figure from the report."""
    lines = []
    for shape in report.shapes:
        rows = report.at(shape)
        ours = next((row for row in rows if row.mode in OURS and row.speed and row.memory), None)
        if ours is None:
            continue
        assert ours.speed and ours.memory
        text = (
            f"{ours.label}: {_figure(ours.speed.tokens_per_s.median)} tokens/s on {ours.card}, "
            f"{human_bytes(ours.memory.peak)} at the peak"
        )
        others = [
            f"{_times(ratio)} the speed of {mode} at {ours.memory.peak / peer.memory.peak:.0%} of its memory"
            for mode, ratio in ours.speed.relative.items()
            if mode not in OURS and (peer := next(row for row in rows if row.mode == mode)).memory
        ]
        lines.append(text + (": " + "; ".join(others) if others else ""))
        if seed := _than_full(ours, next((row for row in rows if row.mode == "full"), None)):
            lines.append(seed)
    return "\n".join(lines) or "Neither the fused step nor the plain path was measured."


def rate(figure: Spread | None) -> str:
    """Median and range, `812 (790–820)`."""
    if figure is None:
        return NONE
    if len(figure.samples) < 2:
        return _figure(figure.median)
    return f"{_figure(figure.median)} ({_figure(figure.low)}–{_figure(figure.high)})"


def half_range(figure: Spread | None) -> str:
    """Half of what lies between the extremes, in percent of the median."""
    if figure is None or len(figure.samples) < 2:
        return NONE
    return f"{(figure.high - figure.low) / 2 / figure.median:.1%}"


def share(value: float | None) -> str:
    """`47 %`."""
    return NONE if value is None else f"{value * 100:.{0 if value >= 0.1 else 1}f} %"


def _than_full(row: Row, full: Row | None) -> str:
    """The row against the full fine-tune at the same batch, in a sentence; empty where there is none."""
    found = row.against_full
    if full is None or found is None:
        return ""
    assert row.memory and full.memory and row.trained and full.trained
    text = (
        f"{row.label} against a full fine-tune at the same batch: {(found.memory - 1) * 100:+.1f} % memory "
        f"({human_bytes(row.memory.peak)}, {human_bytes(full.memory.peak)}), {row.trained:,} trained parameters of "
        f"{full.trained:,} ({share(found.trained)}), {_bytes(row.trained_bytes)} to keep instead of "
        f"{_bytes(full.trained_bytes)}, {_maybe(row.seconds_per_million)} s a million tokens instead of "
        f"{_maybe(full.seconds_per_million)} s on {row.card}"
    )
    if row.cost_per_million is None:
        return text
    return f"{text}, at a cost of {_maybe(row.cost_per_million)} instead of {_maybe(full.cost_per_million)}"


def _against_full(report: Report) -> list[tuple[Row, Row]]:
    pairs = []
    for shape in report.shapes:
        rows = report.at(shape)
        whole = next((row for row in rows if row.mode == "full" and row.speed), None)
        if whole:
            pairs += [(row, whole) for row in rows if row.mode != "full" and row.speed]
    return pairs


def _of(report: Report, kind: str) -> list[Row]:
    return [row for row in report.rows if (row.fill == "random") == (kind == "random")]


def _table(rows: Sequence[Row], columns: Sequence[Column]) -> Table:
    """A column that would be empty all the way is left out."""
    kept = [(name, text) for name, text in columns if any(text(row) not in ("", NONE) for row in rows)]
    lines = tuple((row.label, *(text(row) for _, text in kept)) for row in rows)
    return Table(("step", *(name for name, _ in kept)), lines)


def _status(row: Row) -> str:
    return "" if row.status == "measured" else row.status


def _loss(row: Row) -> str:
    if row.loss_first is None or row.loss_last is None:
        return NONE
    return f"{row.loss_first:.3f} → {row.loss_last:.3f}"


def _maybe(value: float | None) -> str:
    return NONE if value is None else _figure(value)


def _times(ratio: Spread | None) -> str:
    if ratio is None:
        return NONE
    return f"{ratio.median:.2f}×"


def _bytes(count: int | None) -> str:
    return NONE if count is None else human_bytes(count)


def _gib(count: int | None) -> str:
    return NONE if count is None else f"{count / 2**30:.2f}"


def _seconds(figure: Spread | None) -> str:
    return NONE if figure is None else f"{figure.median:.4f}"


def _figure(value: float) -> str:
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2 if value >= 0.1 else 4}f}"
