"""Divide a file of triage vignettes into one to write rules by and one that stays unseen, by the digest of the id.

Even first byte of sha256(id): stays in FILE. Odd: goes to UNSEEN. Prints the two counts and no text.
"""

import hashlib
import json
import sys
from pathlib import Path


def main() -> None:
    """Read FILE, write FILE and UNSEEN."""
    file, unseen = map(Path, sys.argv[1:3])
    parts: tuple[list[str], list[str]] = ([], [])
    for line in file.open(encoding="utf-8-sig"):
        parts[hashlib.sha256(json.loads(line)["id"].encode()).digest()[0] % 2].append(line)
    for path, lines in zip((file, unseen), parts, strict=True):
        path.write_text("".join(lines), encoding="utf-8")
    sys.stdout.write(f"{file.name} {len(parts[0])}, {unseen.name} {len(parts[1])}\n")


if __name__ == "__main__":
    main()
