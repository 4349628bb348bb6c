"""Which files of a folder of MedMCQA, MedQA, PubMedQA or MMLU are scored, as the folders are published.

Knows names of files and folders; opens none.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medmind.errors import MedmindError
from medmind_benchmarks.answers.published import MMLU_MEDICAL

PUBMEDQA = "ori_pqal.json"
GROUND_TRUTH = "test_ground_truth.json"
_SPLITS = ("test", "validation", "dev", "val")
"""The first that has answers is scored; MedMCQA's test has none."""
_FOUR_OPTIONS = "4_options"
"""MedQA's folder beside the five-option files, with the same questions; four options are what papers report."""
_SPLIT = re.compile(rf"(?<![a-z])(?:{'|'.join(_SPLITS)}|train)(?![a-z])")
_MMLU = re.compile(r"(?P<subject>[a-z_]+)_(?P<split>test|val|dev)\.csv")


@dataclass(frozen=True)
class Part:
    """Files that are scored together.

    Attributes:
        split: its name, empty where the names of the files tell none.
        files: in order.
        truth: PubMedQA's file of the right answers of its test split, whose questions alone are scored; or None.
    """

    split: str
    files: tuple[Path, ...]
    truth: Path | None = None


def parts(files: Sequence[Path], source: str) -> list[Part]:
    """What can be scored of `files`, the preferred split first; each is one set, with no question twice.

    Raises:
        MedmindError: several sets lie there, or MMLU without a medical subject; names what to give.
    """
    labelled = [path for path in files if path.name == PUBMEDQA]
    if labelled:
        (path,) = _one({path.parent: [path] for path in labelled}, source)
        truth = path.with_name(GROUND_TRUTH)
        return [Part("test", (path,), truth) if truth in files else Part("", (path,))]
    subjects = _mmlu(files, source)
    if subjects:
        return subjects
    found = []
    for split in _SPLITS:
        sets: dict[Path, list[Path]] = {}
        for path in files:
            if _split(path) == split:
                sets.setdefault(path.parent, []).append(path)
        if sets:
            found.append(Part(split, tuple(_one(_four_options(sets), source))))
    return found or [Part("", tuple(files))]


def _mmlu(files: Sequence[Path], source: str) -> list[Part]:
    """MMLU's splits: CSVs `data/SPLIT/SUBJECT_SPLIT.csv`, or the hub's `SUBJECT/SPLIT-….parquet`."""
    named = [(path, match) for path in files if (match := _MMLU.fullmatch(path.name))]
    csv = [(path, match["split"], path.parent) for path, match in named if match["subject"] in MMLU_MEDICAL]
    if any(match["split"] == "test" for _, match in named) and not csv:
        raise MedmindError(
            f"{source} holds none of MMLU's medical subjects",
            f"they are {', '.join(name + '_test.csv' for name in MMLU_MEDICAL)}",
        )
    hub = [(path, _split(path), path.parents[1]) for path in files if path.parent.name in MMLU_MEDICAL]
    found = []
    for split in _SPLITS:
        sets: dict[Path, list[Path]] = {}
        for path, its, place in csv or hub:
            if its == split:
                sets.setdefault(place, []).append(path)
        if sets:
            found.append(Part(split, tuple(_one(sets, source))))
    return found


def _split(path: Path) -> str:
    match = _SPLIT.search(path.stem.lower())
    return match[0] if match else next((split for split in _SPLITS if path.parent.name.lower() == split), "")


def _four_options(sets: dict[Path, list[Path]]) -> dict[Path, list[Path]]:
    return {folder: files for folder, files in sets.items() if folder / _FOUR_OPTIONS not in sets}


def _one(sets: dict[Path, list[Path]], source: str) -> list[Path]:
    if len(sets) > 1:
        raise MedmindError(
            f"{source} holds {len(sets)} sets of questions, which may be the same ones in several forms",
            f"give one of {', '.join(map(str, sorted(sets)))}",
        )
    return next(iter(sets.values()))
