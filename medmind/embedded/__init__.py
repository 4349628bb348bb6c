"""What the package carries: a base model, and a finished run on it, in folders of their names.

Knows names and places; `medmind.digests` knows whether the files are whole.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
BASE = "medmind-base"
TUNED = "medmind-tiny"
BASES = (BASE,)
RUNS = (TUNED,)
