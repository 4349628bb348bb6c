"""Fit the weights of the safety rules, leaning.json, to the vignettes that may be read; `--check` cross-validates.

L2-regularized logistic regression by iteratively reweighted least squares in its dual form (as many unknowns as texts).
Deterministic. Run it from the root of the repository, after any change of the rules, the lexicon or the vignettes.
"""

import argparse
import hashlib
import json
import math
import sys
import tomllib
from collections import Counter
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medmind_runtime.safety.leaning import WEIGHED, Leaning
from medmind_runtime.safety.triage import Triage

Floats = npt.NDArray[np.float64]

VIGNETTES = Path("tests/runtime/safety_vignettes")
SAFETY = Path("runtime/medmind_runtime/safety")
PENALTY, LEAST, FOLDS = 8.0, 3, 5
"""LEAST: texts that a sign has to stand in."""
DIGITS = 2
"""Of a weight; those of nothing but zeros are left out."""
CHOSEN = {"trouble": -1.0, "alarm": -0.3, "quiet": -0.6, "self_harm": -2.8}
"""Bounds in log-odds, by cross-validation."""
TRIED = {"trouble": (-1.5, -1.0, -0.5), "alarm": (-0.3, 0.0), "quiet": (-0.6, -0.3), "self_harm": (-2.8, -2.0)}
"""Bounds that `--check` shows."""
VIGNETTE, EVERYDAY = "development*.jsonl", "everyday*.jsonl"
"""Files: alarms and harmless texts in their words; what people say on any day."""


def read(pattern: str) -> list[dict[str, str]]:
    """The rows of the files of that name, in the order of their names."""
    files = sorted(VIGNETTES.glob(pattern))
    return [json.loads(line) for file in files for line in file.open(encoding="utf-8-sig")]


def solved(gram: Floats, target: Floats) -> Floats:
    """The dual variables, one a text: weights are their sum over the texts that have a sign, the intercept over all."""
    dual = np.zeros(len(target))
    for _ in range(12):
        odds = gram @ dual
        chance = 1 / (1 + np.exp(-odds))
        spread = np.maximum(chance * (1 - chance), 1e-6)
        dual = np.linalg.solve(gram + PENALTY * np.diag(1 / spread), odds + (target - chance) / spread)
    return dual


def fitted_on(labels: Sequence[str], everyday: Sequence[bool]) -> list[tuple[npt.NDArray[np.bool_], Floats]]:
    """For each of `leaning.WEIGHED`: the texts that it is fitted to, and what is to be told of them."""
    talk = np.array(everyday)
    alarm, harm = np.array([label != "none" for label in labels]), np.array([label == "self_harm" for label in labels])
    return [(talk | alarm, alarm.astype(float)), (~talk, alarm.astype(float)), (~talk, harm.astype(float))]


def check(
    rows: Sequence[dict[str, str]], everyday: Sequence[bool], topics: Sequence[tuple[set[str], set[str]]], gram: Floats
) -> dict[tuple[float, ...], Counter[str]]:
    """Of each combination of bounds, how many texts of a kind were judged rightly by weights fitted without them.

    Args:
        topics: of each text, what the rules raise, and which of it they are sure of.
    """
    fold = np.array([hashlib.sha256(row["id"].encode()).digest()[1] % FOLDS for row in rows])
    odds = np.zeros((len(WEIGHED), len(rows)))
    for out in range(FOLDS):
        unseen = np.flatnonzero(fold == out)
        for place, (texts, target) in enumerate(fitted_on([row["label"] for row in rows], everyday)):
            known = np.flatnonzero((fold != out) & texts)
            odds[place, unseen] = gram[np.ix_(unseen, known)] @ solved(gram[np.ix_(known, known)], target[known])
    found: dict[tuple[float, ...], Counter[str]] = {}
    for bounds in product(*TRIED.values()):
        hits = found[bounds] = Counter()
        for at, row in enumerate(rows):
            named = dict(zip(TRIED, bounds, strict=True))
            heard = Leaning({"weights": {}, "start": odds[:, at], "bounds": named}).judged(set(), *topics[at])
            right = {"emergency": bool(heard), "self_harm": "self_harm" in heard, "none": not heard}
            hits["everyday" if everyday[at] else row["label"]] += right[row["label"]]
    return found


def main() -> None:
    """Write leaning.json, or cross-validate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="cross-validate, and write nothing")
    asked = parser.parse_args()
    lexicon, rules = (
        tomllib.loads((SAFETY / f"{name}.toml").read_text(encoding="utf-8")) for name in ("lexicon", "rules")
    )
    never = {"trouble": math.inf, "alarm": math.inf, "self_harm": math.inf}
    bare, certain = (
        Triage(lexicon, rules, {"start": [0.0] * len(WEIGHED), "bounds": {**never, "quiet": quiet}, "weights": {}})
        for quiet in (-math.inf, math.inf)
    )
    rows = read(VIGNETTE) + read(EVERYDAY)
    everyday = [False] * len(read(VIGNETTE)) + [True] * len(read(EVERYDAY))
    found = [bare.signs(row["text"]) for row in rows]
    counts = Counter(sign for signs in found for sign in signs)
    names = {sign: at for at, sign in enumerate(sorted(sign for sign, count in counts.items() if count >= LEAST))}
    design = np.zeros((len(rows), len(names)), dtype=np.float32)
    for at, signs in enumerate(found):
        design[at, [names[sign] for sign in signs if sign in names]] = 1
    gram = (design @ design.T).astype(np.float64) + 1.0  # the intercept is a sign of every text
    if asked.check:
        kinds = Counter("everyday" if talk else row["label"] for talk, row in zip(everyday, rows, strict=True))
        topics = [
            (
                {alarm.topic for alarm in bare.alarms(row["text"])},
                {alarm.topic for alarm in certain.alarms(row["text"])},
            )
            for row in rows
        ]
        for bounds, hits in check(rows, everyday, topics, gram).items():
            shares = (f"{kind} {hits[kind]}/{size} {hits[kind] / size:.1%}" for kind, size in sorted(kinds.items()))
            sys.stdout.write(f"{dict(zip(TRIED, bounds, strict=True))} {', '.join(shares)}\n")
        return
    starts, columns = [], []
    for texts, target in fitted_on([row["label"] for row in rows], everyday):
        dual = solved(gram[np.ix_(texts, texts)], target[texts])
        starts.append(round(float(dual.sum()), DIGITS))
        columns.append(np.round(design[texts].T @ dual, DIGITS))
    weights = np.array(columns)
    document = {
        "about": f"Written by scripts/fit_leaning.py. Log-odds towards {list(WEIGHED)}; signs: see leaning.py.",
        "start": starts,
        "bounds": CHOSEN,
        "weights": {name: [float(one) for one in weights[:, at]] for name, at in names.items() if weights[:, at].any()},
    }
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":")).replace("],", "],\n").replace("},", "},\n")
    (SAFETY / "leaning.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
