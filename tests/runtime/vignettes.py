"""The vignettes, of which those that nothing was made from are counted and never shown."""

import json
from pathlib import Path

VIGNETTES = Path(__file__).parent / "safety_vignettes"


def rows(files: str) -> list[dict[str, str]]:
    texts = [file.read_text(encoding="utf-8") for file in sorted(VIGNETTES.glob(files))]
    return [json.loads(line) for text in texts for line in text.splitlines()]
