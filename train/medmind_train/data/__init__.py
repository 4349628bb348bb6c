"""Training data: found, recognised, cleaned, split by what hangs together, counted. Never imports torch."""

from medmind_train.data.components import components, focus_key
from medmind_train.data.counts import Counts, Lengths, SkippedFile
from medmind_train.data.prepare import HELDOUT_SHARE, VALIDATION_SHARE, Prepared, digest, prepare
from medmind_train.data.rows import Row
from medmind_train.data.sources import MEDQUAD, SAMPLE, config_file, remember_medquad
from medmind_train.data.split import Split, split

__all__ = [
    "HELDOUT_SHARE",
    "MEDQUAD",
    "SAMPLE",
    "VALIDATION_SHARE",
    "Counts",
    "Lengths",
    "Prepared",
    "Row",
    "SkippedFile",
    "Split",
    "components",
    "config_file",
    "digest",
    "focus_key",
    "prepare",
    "remember_medquad",
    "split",
]
