"""Fit the weights of the safety rules, leaning.json, and the texts that a question is compared with, neighbours.bin.

Both are made from the vignettes that may be read; `--check` cross-validates them and writes nothing. The weights: L2-
regularized logistic regression by iteratively reweighted least squares in its dual form (as many unknowns as texts).
Deterministic. Run it from the root of the repository, after any change of the rules, the lexicon, the vignettes or the
word vectors.
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

from medmind.artifacts import read_jsonl
from medmind_runtime.safety.leaning import DOUBT, WEIGHED, Leaning
from medmind_runtime.safety.neighbours import ASKED, KINDS, NEAREST, POWER
from medmind_runtime.safety.triage import Triage
from medmind_runtime.safety.vectors import PLAIN, Vectors

Floats = npt.NDArray[np.float64]

VIGNETTES = Path("tests/runtime/safety_vignettes")
SAFETY = Path("runtime/medmind_runtime/safety")
PENALTY, LEAST, FOLDS = 8.0, 3, 5
"""LEAST: texts that a sign has to stand in."""
DIGITS = 2
"""Of a weight; those of nothing but zeros are left out."""
CHOSEN = {"trouble": -0.9, "alarm": 0.1, "quiet": -0.6, "self_harm": -3.8}
"""Bounds in log-odds, by cross-validation."""
TRIED = {"trouble": (-1.2, -0.9, -0.6), "alarm": (-0.1, 0.1), "quiet": (-0.6, -0.3), "self_harm": (-3.8, -3.0)}
"""Bounds that `--check` shows."""
COMMON = 0.02
"""Share of the texts in which a word that weighs half stands (smooth inverse frequency: Arora, Liang and Ma 2017)."""
VIGNETTE, EVERYDAY = "development*.jsonl", "everyday*.jsonl"
"""Files: alarms and harmless texts in their words; what people say on any day."""


def read(pattern: str) -> list[dict[str, str]]:
    """The rows of the files of that name, in the order of their names."""
    return [
        row | {"file": file.name, "kind": "everyday" if pattern == EVERYDAY else row["label"]}
        for file in sorted(VIGNETTES.glob(pattern))
        for row in read_jsonl(file)
    ]


def fitted_to() -> str:
    """The digest of the files and constants that the weights and the neighbours are made from."""
    files = [SAFETY / name for name in ("lexicon.toml", "rules.toml", "word_vectors.bin")]
    files += [file for pattern in (VIGNETTE, EVERYDAY) for file in sorted(VIGNETTES.glob(pattern))]
    digests = "".join(hashlib.sha256(file.read_bytes().replace(b"\r\n", b"\n")).hexdigest() for file in files)
    constants = (PENALTY, LEAST, DIGITS, CHOSEN, COMMON, NEAREST, POWER, DOUBT, PLAIN)
    return hashlib.sha256(f"{digests} {constants}".encode()).hexdigest()


def solved(gram: Floats, target: Floats) -> Floats:
    """The dual variables, one a text: weights are their sum over the texts that have a sign, the intercept over all."""
    dual = np.zeros(len(target))
    for _ in range(20):
        odds = gram @ dual
        chance = 1 / (1 + np.exp(-odds))
        spread = np.maximum(chance * (1 - chance), 1e-6)
        before, dual = dual, np.linalg.solve(gram + PENALTY * np.diag(1 / spread), odds + (target - chance) / spread)
        if np.abs(dual - before).max() < 1e-9:
            break
    return dual


def fitted_on(kinds: Sequence[str]) -> list[tuple[npt.NDArray[np.bool_], Floats]]:
    """For each of `leaning.WEIGHED`: the texts that it is fitted to, and what is to be told of them."""
    kind = np.array(kinds)
    return [(np.isin(kind, KINDS[asked]), np.isin(kind, speaking).astype(float)) for asked, speaking in ASKED]


def spoken(words: Sequence[Sequence[str]]) -> tuple[dict[str, int], list[int], npt.NDArray[np.int64]]:
    """The weights of the commoner words, the centre of all texts, and the texts' vectors."""
    vectors = Vectors(SAFETY / "word_vectors.bin")
    counts = Counter(word for text in words for word in set(text))
    weights = {word: round(PLAIN * COMMON / (COMMON + count / len(words))) for word, count in sorted(counts.items())}
    units = np.array([unit for text in words if (unit := vectors.text(text, weights))])
    centre = [int(number) for number in np.rint(units.mean(0))]
    nothing = (0,) * len(centre)
    return weights, centre, np.array([vectors.text(text, weights, centre) or nothing for text in words])


def told(likeness: Floats, target: Floats) -> Floats:
    """As `neighbours.share`: log-odds of texts by their products with those that are asked, (texts, asked)."""
    nearest = np.argpartition(-likeness, NEAREST, axis=1)[:, :NEAREST]
    says = np.maximum(np.take_along_axis(likeness, nearest, 1), 0) ** POWER
    share = (says * target[nearest]).sum(1) / np.maximum(says.sum(1), 1)
    odds: Floats = np.log((share + DOUBT) / (1 - share + DOUBT))
    return odds


def check(
    rows: Sequence[dict[str, str]],
    folds: npt.NDArray[np.int64],
    topics: Sequence[tuple[set[str], set[str]]],
    gram: Floats,
    vectors: npt.NDArray[np.int64],
) -> dict[tuple[float, ...], Counter[str]]:
    """Of each combination of bounds, how many texts of a kind were judged rightly by what was fitted without them.

    Args:
        folds: of each text, the fold that it belongs to.
        topics: of each text, what the rules raise, and which of it they are sure of.
    """
    odds = np.zeros((len(WEIGHED), len(rows)))
    for out in range(FOLDS):
        unseen = np.flatnonzero(folds == out)
        for place, (texts, target) in enumerate(fitted_on([row["kind"] for row in rows])):
            known = np.flatnonzero((folds != out) & texts)
            odds[place, unseen] = gram[np.ix_(unseen, known)] @ solved(gram[np.ix_(known, known)], target[known])
            odds[place, unseen] += told(vectors[unseen].astype(float) @ vectors[known].T.astype(float), target[known])
    found: dict[tuple[float, ...], Counter[str]] = {}
    for bounds in product(*TRIED.values()):
        hits = found[bounds] = Counter()
        for at, row in enumerate(rows):
            named = dict(zip(TRIED, bounds, strict=True))
            heard = Leaning({"weights": {}, "start": odds[:, at], "bounds": named}).judged(set(), *topics[at])
            right = {"emergency": bool(heard), "self_harm": "self_harm" in heard, "none": not heard}
            hits[row["kind"]] += right[row["label"]]
    return found


def write_neighbours(
    kinds: Sequence[str], weights: dict[str, int], centre: Sequence[int], vectors: npt.NDArray[np.int64]
) -> None:
    """Write neighbours.bin: the texts in the order of `neighbours.KINDS`, dimension by dimension."""
    order = sorted(range(len(kinds)), key=lambda place: (KINDS.index(kinds[place]), place))
    alike: dict[int, list[str]] = {}
    for word, weight in weights.items():
        if weight < PLAIN:
            alike.setdefault(weight, []).append(word)
    head = {
        "about": "Written by scripts/fit_leaning.py; see neighbours.py.",
        "fitted_to": fitted_to(),
        "texts": {kind: kinds.count(kind) for kind in KINDS},
        "centre": centre,
        "weights": {weight: " ".join(alike[weight]) for weight in sorted(alike)},
    }
    numbers = (vectors[order].T + 128).astype(np.uint8)
    line = json.dumps(head, ensure_ascii=False, separators=(",", ":"))
    (SAFETY / "neighbours.bin").write_bytes(f"{line}\n".encode() + numbers.tobytes())


def main() -> None:
    """Write leaning.json and neighbours.bin, or cross-validate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check",
        choices=["id", "file"],
        help="cross-validate by texts, or by whole files (another writer's texts), and write nothing",
    )
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
    kinds = [row["kind"] for row in rows]
    found, words = zip(*(bare.weighed(row["text"]) for row in rows), strict=True)
    common, centre, vectors = spoken(words)
    counts = Counter(sign for signs in found for sign in signs)
    names = {sign: at for at, sign in enumerate(sorted(sign for sign, count in counts.items() if count >= LEAST))}
    design = np.zeros((len(rows), len(names)), dtype=np.float32)
    for at, signs in enumerate(found):
        design[at, [names[sign] for sign in signs if sign in names]] = 1
    gram = (design @ design.T).astype(np.float64) + 1.0  # the intercept is a sign of every text
    if asked.check:
        sizes = Counter(kinds)
        if asked.check == "file":
            files = sorted({row["file"] for row in rows})
            folds = np.array([files.index(row["file"]) % FOLDS for row in rows])
        else:
            folds = np.array([hashlib.sha256(row["id"].encode()).digest()[1] % FOLDS for row in rows])
        topics = [
            (
                {alarm.topic for alarm in bare.alarms(row["text"])},
                {alarm.topic for alarm in certain.alarms(row["text"])},
            )
            for row in rows
        ]
        for bounds, hits in check(rows, folds, topics, gram, vectors).items():
            shares = (f"{kind} {hits[kind]}/{size} {hits[kind] / size:.1%}" for kind, size in sorted(sizes.items()))
            sys.stdout.write(f"{dict(zip(TRIED, bounds, strict=True))} {', '.join(shares)}\n")
        return
    starts, columns = [], []
    for texts, target in fitted_on(kinds):
        dual = solved(gram[np.ix_(texts, texts)], target[texts])
        starts.append(round(float(dual.sum()), DIGITS))
        columns.append(np.round(design[texts].T @ dual, DIGITS))
    weights = np.array(columns)
    document = {
        "about": f"Written by scripts/fit_leaning.py. Log-odds towards {list(WEIGHED)}; signs: see leaning.py.",
        "fitted_to": fitted_to(),
        "start": starts,
        "bounds": CHOSEN,
        "weights": {name: [float(one) for one in weights[:, at]] for name, at in names.items() if weights[:, at].any()},
    }
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":")).replace("],", "],\n").replace("},", "},\n")
    (SAFETY / "leaning.json").write_text(text + "\n", encoding="utf-8")
    write_neighbours(kinds, common, centre, vectors)


if __name__ == "__main__":
    main()
