"""Fit the weights of the safety rules, leaning.toml, to the vignettes that may be read; `--check` cross-validates.

L2-regularized logistic regression by iteratively reweighted least squares in its dual form (as many unknowns as texts).
Deterministic. Run it from the root of the repository, after any change of the rules, the lexicon or the vignettes.
"""

import argparse
import hashlib
import json
import sys
import tomllib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medmind_runtime.safety.triage import Triage

Floats = npt.NDArray[np.float64]

VIGNETTES = Path("tests/runtime/safety_vignettes")
SAFETY = Path("runtime/medmind_runtime/safety")
PENALTY, LEAST, FOLDS = 5.0, 2, 8
SMALLEST = 0.01
"""Weights below it are left out."""
BOUNDS = {"alarm": 1.2, "quiet": -0.7, "self_harm": -0.8}
"""Log-odds: `alarm` and `self_harm` by cross-validation, `quiet` low enough that short plain cries are heard."""


def read(pattern: str) -> list[dict[str, str]]:
    """The rows of the files of that name, in the order of their names."""
    files = sorted(VIGNETTES.glob(pattern))
    return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def solved(design: Floats, target: Floats) -> tuple[Floats, float]:
    """Weights and intercept."""
    gram = design @ design.T + 1.0
    dual = np.zeros(len(target))
    for _ in range(12):
        odds = gram @ dual
        chance = 1 / (1 + np.exp(-odds))
        spread = np.maximum(chance * (1 - chance), 1e-6)
        dual = np.linalg.solve(gram + PENALTY * np.diag(1 / spread), odds + (target - chance) / spread)
    return design.T @ dual, float(dual.sum())


def fitted(found: list[set[str]], labels: list[str]) -> tuple[dict[str, list[float]], list[float]]:
    """Weights of each sign towards any alarm and towards self-harm, and where the two sums start."""
    counts: dict[str, int] = {}
    for signs in found:
        for sign in signs:
            counts[sign] = counts.get(sign, 0) + 1
    names = sorted(sign for sign, count in counts.items() if count >= LEAST)
    design = np.array([[name in signs for name in names] for signs in found], dtype=np.float64)
    alarm, alarm_start = solved(design, np.array([label != "none" for label in labels], dtype=np.float64))
    harm, harm_start = solved(design, np.array([label == "self_harm" for label in labels], dtype=np.float64))
    return {name: [float(alarm[at]), float(harm[at])] for at, name in enumerate(names)}, [alarm_start, harm_start]


def main() -> None:
    """Write leaning.toml, or cross-validate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", metavar="FILE", help="cross-validate on this file of vignettes, and write nothing")
    asked = parser.parse_args()
    lexicon, rules = (
        tomllib.loads((SAFETY / f"{name}.toml").read_text(encoding="utf-8")) for name in ("lexicon", "rules")
    )
    bare = Triage(lexicon, rules, {"start": [0.0, 0.0], "bounds": {}, "weights": {}})
    rows = read("development*.jsonl")
    found, labels = [bare.signs(row["text"]) for row in rows], [row["label"] for row in rows]
    if asked.check:
        checked = {row["id"] for row in read(asked.check)}
        hits = dict.fromkeys(("emergency", "self_harm", "none"), (0, 0))
        folds = [hashlib.sha256(row["id"].encode()).digest()[1] % FOLDS if row["id"] in checked else -1 for row in rows]
        for fold in range(FOLDS):
            known = [at for at, own in enumerate(folds) if own != fold]
            weights, start = fitted([found[at] for at in known], [labels[at] for at in known])
            triage = Triage(lexicon, rules, {"start": start, "bounds": BOUNDS, "weights": weights})
            for row in (row for row, own in zip(rows, folds, strict=True) if own == fold):
                topics = {alarm.topic for alarm in triage.alarms(row["text"])}
                right = {"emergency": bool(topics), "self_harm": "self_harm" in topics, "none": not topics}
                good, count = hits[row["label"]]
                hits[row["label"]] = good + right[row["label"]], count + 1
        sys.stdout.write(f"{hits}\n")
        return
    weights, start = fitted(found, labels)
    kept = {sign: pair for sign, pair in weights.items() if max(map(abs, pair)) >= SMALLEST}
    lines = [
        "# Written by scripts/fit_leaning.py, not by hand. Log-odds towards [any alarm, self-harm] of a stem, a pair",
        "# of neighbouring stems, a <list> of the lexicon, and the rules' own word [emergency], [self_harm].",
        f"start = [{start[0]:.3f}, {start[1]:.3f}]",
        "",
        "# A sum above `alarm` or `self_harm` raises one; below `quiet` none is raised, whatever single rules say.",
        "[bounds]",
        *(f"{name} = {bound}" for name, bound in BOUNDS.items()),
        "",
        "[weights]",
        *(f"{json.dumps(sign, ensure_ascii=False)} = [{a:.3f}, {h:.3f}]" for sign, (a, h) in sorted(kept.items())),
    ]
    (SAFETY / "leaning.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
