"""Fit the head of the safety layer's classifier to the vignettes that may be read, and write classifier.gguf.

    python scripts/fit_classifier.py [ENCODER.gguf] [--without FOLD]

ENCODER is what scripts/fit_encoder.py wrote; by default the encoder stays the one that is in classifier.gguf. The head
is a multinomial logistic regression, L2-regularized and solved by Newton's method, on what the encoder, as llama.cpp
computes it, gives for the first token of each text, alone and among harmless ones. `--without` leaves every fifth file
out, judges its texts by the rest, and writes nothing but counts; for that the encoder has to be one that was fitted
without them too.

Needs the extra `runtime`, and gguf; run it from the root of the repository after any change of the vignettes. Some
minutes.
"""

import argparse
import hashlib
import multiprocessing
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from itertools import repeat
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

from medmind.artifacts import read_jsonl
from medmind_runtime.safety.classifier import FILE, KINDS, Classifier, Encoder
from medmind_runtime.safety.leaning import BOUNDS, Bounds
from medmind_runtime.safety.triage import Triage, lexicon_and_rules
from medmind_runtime.safety.windows import WHOLE
from medmind_runtime.safety.words import plain

Floats = npt.NDArray[np.float64]

VIGNETTES = Path("tests/runtime/safety_vignettes")
VIGNETTE, EVERYDAY = "development*.jsonl", "everyday*.jsonl"
"""Files: alarms and harmless texts in their words; what people say on any day."""
FOLDS = 5
PENALTY = 0.1
"""Half of it times the squares of the weights of standardized features, beside the mean loss of a text."""
OTHERS = (1, 1, 2, 3, 4)
"""Harmless texts that one is put among."""
_OWN = frozenset(
    [
        "general.architecture",
        "general.name",
        "general.description",
        "bert.pooling_type",
        "bert.classifier.output_labels",
        "medmind.fitted_to",
    ]
)
"""Metadata that is written anew."""
TRIED = {
    "alarm": (-3.0, -2.5, -2.0, -1.5),
    "confirmed": (-3.5, -2.5, -2.0),
    "self_harm": (-4.0, -2.0),
    "calm": (-4.5, -2.5),
}
"""Bounds whose counts are shown beside those of today, each alone."""


def files() -> list[tuple[str, Path]]:
    """The files of vignettes in their order, each with the pattern that it is found by."""
    return [(pattern, file) for pattern in (VIGNETTE, EVERYDAY) for file in sorted(VIGNETTES.glob(pattern))]


def read() -> list[dict[str, str]]:
    """The texts, plain, each with its kind and the fold of its file."""
    return [
        {
            "fold": str(place % FOLDS),
            "kind": "everyday" if pattern == EVERYDAY else row["label"],
            "label": row["label"],
            "typed": row["text"],
            "text": plain(row["text"]).strip(),
        }
        for place, (pattern, file) in enumerate(files())
        for row in read_jsonl(file)
    ]


def fitted_to() -> str:
    """The digest of the files and constants that the head is made from."""
    digests = "".join(hashlib.sha256(file.read_bytes().replace(b"\r\n", b"\n")).hexdigest() for _, file in files())
    return hashlib.sha256(f"{digests} {(KINDS, PENALTY, OTHERS)}".encode()).hexdigest()


def among(row: dict[str, str], quiet: Sequence[dict[str, str]], chance: random.Random) -> tuple[str, str]:
    """A text among harmless ones in any order, no longer than what is judged at once, and the kind of the whole."""
    rows, room = [row], WHOLE - len(row["text"].split())
    for other in chance.sample(quiet, chance.choice(OTHERS)):
        room -= len(other["text"].split())
        if room >= 0:
            rows.append(other)
    kinds = {one["kind"] for one in rows}
    kind = row["kind"] if row["label"] != "none" else "none" if "none" in kinds else "everyday"
    chance.shuffle(rows)
    return " ".join(one["text"] if one["text"][-1:] in ".!?" else f"{one['text']}." for one in rows), kind


def examples(rows: Sequence[dict[str, str]]) -> list[tuple[str, str]]:
    """What the head is fitted to: every text alone, and once among others."""
    chance = random.Random(0)
    quiet = [row for row in rows if row["label"] == "none"]
    return [(row["text"], row["kind"]) for row in rows] + [among(row, quiet, chance) for row in rows]


def solved(features: Floats, kinds: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
    """The weights and intercepts of the kinds: (kinds, features) and (kinds,)."""
    centre, spread = features.mean(0), features.std(0)
    given = np.column_stack([(features - centre) / spread, np.ones(len(features))])
    count, size = len(KINDS), given.shape[1]
    target = np.eye(count)[kinds]
    penalty = np.tile(np.append(np.full(size - 1, PENALTY), 1e-9), count)
    weights = np.zeros((count, size))
    for _ in range(30):
        odds = given @ weights.T
        chance = np.exp(odds - odds.max(1, keepdims=True))
        chance /= chance.sum(1, keepdims=True)
        slope = ((chance - target).T @ given / len(given)).ravel() + penalty * weights.ravel()
        curve = np.block(
            [
                [
                    (given * (chance[:, one] * ((one == other) - chance[:, other]))[:, None]).T @ given / len(given)
                    for other in range(count)
                ]
                for one in range(count)
            ]
        )
        step = np.linalg.solve(curve + np.diag(penalty + 1e-9), slope).reshape(count, size)
        weights -= step
        if np.abs(step).max() < 1e-9:
            break
    scaled = weights[:, :-1] / spread
    return scaled, weights[:, -1] - scaled @ centre


def fitted(encoder: Path, rows: Sequence[dict[str, str]]) -> tuple[Floats, Floats]:
    """The head for an encoder."""
    texts, kinds = zip(*examples(rows), strict=True)
    with ProcessPoolExecutor(mp_context=_FRESH) as pool:
        features = np.array(list(pool.map(_features, repeat(encoder), texts, chunksize=64)))
    return solved(features, np.array([KINDS.index(kind) for kind in kinds]))


_FRESH = multiprocessing.get_context("spawn")
"""Processes that share nothing: llama.cpp's state does not outlive a fork."""


@cache
def _encoder(path: Path) -> Encoder:
    return Encoder(path, head=False)


def _features(encoder: Path, text: str) -> list[float]:
    return _encoder(encoder).outputs(text)[0]


def write(path: Path, encoder: Path, weights: Floats, start: Floats) -> None:
    """Write the encoder with a head (llama.cpp's `cls.output`, without the layer before it)."""
    known = gguf.GGUFReader(encoder)
    writer = gguf.GGUFWriter(path, "bert")
    for name, entry in known.fields.items():
        if name.startswith("GGUF.") or name in _OWN:
            continue
        if entry.types[0] == gguf.GGUFValueType.ARRAY:
            writer.add_array(name, entry.contents())
        else:
            writer.add_key_value(name, entry.contents(), entry.types[0])
    writer.add_name("medmind's safety classifier")
    writer.add_description("By scripts/fit_encoder.py and fit_classifier.py, from the model at its source.")
    writer.add_pooling_type(gguf.PoolingType.RANK)
    writer.add_classifier_output_labels(KINDS)
    writer.add_string("medmind.fitted_to", fitted_to())
    for tensor in known.tensors:
        if not tensor.name.startswith("cls"):
            packed = tensor.tensor_type != gguf.GGMLQuantizationType.F32
            writer.add_tensor(tensor.name, np.array(tensor.data), raw_dtype=tensor.tensor_type if packed else None)
    writer.add_tensor("cls.output.weight", weights.astype(np.float32))
    writer.add_tensor("cls.output.bias", start.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def bounds() -> list[Bounds]:
    """Those of today, and what is tried in their place."""
    return [BOUNDS, *(replace(BOUNDS, **{name: value}) for name, values in TRIED.items() for value in values)]


@cache
def _triages(path: Path) -> list[Triage]:
    classifier = Classifier(path)
    return [Triage(*lexicon_and_rules(), classifier.log_probabilities, one) for one in bounds()]


def _judged(classifier: Path, row: dict[str, str]) -> list[bool]:
    """Whether a text is judged rightly, by each of `bounds`."""
    found = []
    for triage in _triages(classifier):
        heard = {alarm.topic for alarm in triage.alarms(row["typed"])}
        found.append({"emergency": bool(heard), "self_harm": "self_harm" in heard, "none": not heard}[row["label"]])
    return found


def counted(rows: Sequence[dict[str, str]], classifier: Path) -> list[tuple[Bounds, Counter[str]]]:
    """By each of `bounds`, how many texts of a kind are judged rightly."""
    found = [(one, Counter[str]()) for one in bounds()]
    with ProcessPoolExecutor(mp_context=_FRESH) as pool:
        for row, right in zip(rows, pool.map(_judged, repeat(classifier), rows, chunksize=16), strict=True):
            for (_, hits), one in zip(found, right, strict=True):
                hits[row["kind"]] += one
    return found


def main() -> None:
    """Write classifier.gguf, or count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoder", type=Path, nargs="?", default=FILE, metavar="ENCODER")
    parser.add_argument("--without", type=int, choices=range(FOLDS), help="count on this fold of files")
    asked = parser.parse_args()
    rows = read()
    out, known = ([row for row in rows if (row["fold"] == str(asked.without)) is apart] for apart in (True, False))
    with tempfile.TemporaryDirectory(dir=FILE.parent) as folder:
        made = Path(folder) / "classifier.gguf"
        write(made, asked.encoder, *fitted(asked.encoder, known))
        if asked.without is None:
            made.replace(FILE)
            return
        sizes = Counter(row["kind"] for row in out)
        for one, hits in counted(out, made):
            shares = (f"{kind} {hits[kind]}/{size} {hits[kind] / size:.1%}" for kind, size in sorted(sizes.items()))
            sys.stdout.write(f"{one} {', '.join(shares)}\n")


if __name__ == "__main__":
    main()
