"""Divide a file of triage vignettes into one to write rules by and one that stays unseen, by the digest of the id.

Even first byte of sha256(id): stays in FILE. Odd: goes to UNSEEN. Prints the two counts and no text.
"""

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medmind.artifacts import read_jsonl, write_jsonl


def main() -> None:
    """Read FILE, write FILE and UNSEEN."""
    file, unseen = map(Path, sys.argv[1:3])
    parts: tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]] = ([], [])
    for vignette in read_jsonl(file):
        parts[hashlib.sha256(vignette["id"].encode()).digest()[0] % 2].append(vignette)
    for path, vignettes in zip((unseen, file), reversed(parts), strict=True):  # the whole file is there until the end
        write_jsonl(path, vignettes)
    sys.stdout.write(f"{file.name} {len(parts[0])}, {unseen.name} {len(parts[1])}\n")


if __name__ == "__main__":
    main()
