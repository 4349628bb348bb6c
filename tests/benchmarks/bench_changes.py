"""Reports that differ in chosen figures, and records that lie beside them."""

import dataclasses

import bench_reports as reports

from medmind_benchmarks.compare import compare
from medmind_benchmarks.pairing import Beside
from medmind_benchmarks.results import Level, Report
from medmind_benchmarks.verdict import Change, Limits

SPREAD = {"median KL", "99 % of KL", "RMS Δp"}
"""What is compared of a fidelity beside its mean."""
FAR = reports.divergence(0.01)


def changed(report: Report, label: str, **figures: object) -> Report:
    levels = tuple(
        dataclasses.replace(one, figures=dataclasses.replace(one.figures, **figures)) if one.label == label else one  # type: ignore[arg-type]
        for one in report.levels
    )
    return dataclasses.replace(report, levels=levels)


def of(before: Report, now: Report, figure: str, **more: object) -> Change:
    found = compare(before, now, Limits(), **more)  # type: ignore[arg-type]
    return next(one for one in found.changes if one.level == "q4_k_m" and one.figure == figure)


def level(report: Report) -> Level:
    return report.level("q4_k_m")


def rows(offset: float) -> Beside:
    """Rows of very different difficulty; the offset is nearly the same in each."""
    return Beside(
        rows=[
            {"row": i, "tokens": 60, "nll": {"q4_k_m": 60 * (1 + i % 7) + 60 * offset * (1 + (i % 3) / 10)}, "kl": {}}
            for i in range(40)
        ]
    )


def divergences(factor: float) -> Beside:
    """Rows of very different divergence, 0.012 nats a token in the mean, each `factor` times that."""
    return Beside(
        rows=[
            {"row": i, "tokens": 60, "nll": {}, "kl": {"q4_k_m": 60 * 0.004 * (1 + i % 5) * factor}} for i in range(40)
        ]
    )


def questions(lost: int, won: int) -> Beside:
    """60 questions of 100 answered rightly before; `lost` of these no more, `won` of the others now."""
    right = [place >= lost if place < 60 else place < 60 + won for place in range(100)]
    named = [
        {"task": "held-out answers", "id": f"{place}", "right": {"q4_k_m": one}} for place, one in enumerate(right)
    ]
    return Beside(questions=named)


def without(report: Report, **figures: object) -> Report:
    for one in report.levels:
        report = changed(report, one.label, **figures)
    return report
