"""Training data: found, recognised, cleaned, split by focus, counted. Never imports torch or transformers."""

from medmind_train.data.counts import Counts, Lengths, SkippedFile
from medmind_train.data.prepare import HELDOUT_SHARE, Prepared, digest, prepare
from medmind_train.data.rows import Row
from medmind_train.data.sources import MEDQUAD, SAMPLE, config_file, remember_medquad
from medmind_train.data.split import focus_key, split

__all__ = [
    "HELDOUT_SHARE",
    "MEDQUAD",
    "SAMPLE",
    "Counts",
    "Lengths",
    "Prepared",
    "Row",
    "SkippedFile",
    "config_file",
    "digest",
    "focus_key",
    "prepare",
    "remember_medquad",
    "split",
]
