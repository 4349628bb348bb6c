"""The committed recipes: settings of `qlora` by name, as YAML files beside this module, and where a `--config` leads.

Knows their names and where they lie; checks no setting.
"""

import difflib
from pathlib import Path

from medmind.errors import MedmindError

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """The recipes there are."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def locate(config: Path) -> Path:
    """The file that `--config` means: a file of the user's, else the recipe of that name.

    Raises:
        MedmindError: neither; the nearest recipe is named.
    """
    if config.exists():
        return config
    known = names()
    if str(config) in known:
        return FOLDER / f"{config}.yaml"
    near = difflib.get_close_matches(config.stem, known, n=1, cutoff=0)[0]
    raise MedmindError(
        f"{config} does not exist", f"give a file, or a recipe: {', '.join(known)}; the nearest is {near}"
    )
