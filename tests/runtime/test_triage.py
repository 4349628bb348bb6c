import json
import math
import time
from pathlib import Path

import pytest

from medmind_runtime.safety.spelling import distance
from medmind_runtime.safety.triage import triage

VIGNETTES = Path(__file__).parent / "safety_vignettes"


def wilson(hits: int, count: int) -> tuple[float, float]:
    """95 % interval of a share."""
    z, share = 1.96, hits / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return middle - half, middle + half


def measured(file: str) -> dict[str, tuple[int, int]]:
    """Hits and cases: emergencies with any alarm, self-harm recognised as such, nothing where there is nothing."""
    counts = {"emergency": (0, 0), "self_harm": (0, 0), "none": (0, 0)}
    for line in (VIGNETTES / file).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        topics = [alarm.topic for alarm in triage().alarms(row["text"])]
        right = {"emergency": bool(topics), "self_harm": "self_harm" in topics, "none": not topics}[row["label"]]
        hits, cases = counts[row["label"]]
        counts[row["label"]] = hits + right, cases + 1
    return counts


def test_the_vignettes_that_rules_were_written_by() -> None:
    counts = measured("development.jsonl")
    shares = {label: hits / cases for label, (hits, cases) in counts.items()}
    assert shares["emergency"] >= 0.98
    assert shares["self_harm"] >= 0.96
    assert shares["none"] >= 0.90


@pytest.mark.xfail(reason="the goals on vignettes that no rule was written by are not reached yet", strict=True)
def test_the_vignettes_that_no_rule_was_written_by() -> None:
    counts = measured("judgement.jsonl")
    told = {label: (*pair, *(round(limit, 3) for limit in wilson(*pair))) for label, pair in counts.items()}
    print(told)
    assert counts["emergency"][0] >= 0.98 * counts["emergency"][1], told
    assert counts["self_harm"][0] == counts["self_harm"][1], told
    assert counts["none"][0] >= 0.90 * counts["none"][1], told


@pytest.mark.parametrize(
    "text",
    [
        "no chest pain, fever or cough",
        "my father had a stroke in 1990",
        "What are the symptoms of a stroke?",
        "I'm dying to know",
    ],
)
def test_denied_past_general_and_figures_of_speech_raise_nothing(text: str) -> None:
    assert triage().alarms(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "my chest hurts, my family says it is nothing",
        "I can\u2019t breathe",
        "she cant breath",
        "he is unconcious",
        "my husband's face is drooping",
    ],
)
def test_minimised_misspelt_and_curly_ones_do(text: str) -> None:
    assert triage().alarms(text)


def test_it_takes_less_than_a_millisecond() -> None:
    texts = [
        json.loads(line)["text"] for line in (VIGNETTES / "development.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    [triage().alarms(text) for text in texts]
    best = math.inf
    for _ in range(3):
        started = time.process_time()
        [triage().alarms(text) for text in texts]
        best = min(best, (time.process_time() - started) / len(texts))
    assert best < 1e-3


def test_distance_counts_an_exchange_once() -> None:
    assert [distance("stroke", other) for other in ("stroke", "storke", "strke", "strooke", "strike", "")] == [
        0,
        1,
        1,
        1,
        1,
        6,
    ]
