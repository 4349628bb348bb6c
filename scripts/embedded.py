"""Write medmind/embedded/digests.json anew; given a run, first put it in the place of medmind-tiny.

    .venv/bin/python scripts/embedded.py [runs/NAME]

Of the run come the adapter as it is, and the manifest without what belongs to the machine it was trained on; the rows
of its data stay behind. The card, medmind/embedded/medmind-tiny/README.md, is written by hand.
"""

import shutil
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Any

import typer

from medmind import base, console, digests, embedded
from medmind.artifacts import ADAPTER, MANIFEST, ROWS_LEFT_OUT, digest_files, read_json, read_run, write_json
from medmind.errors import MedmindError

_PATHS_OF_CONFIG = ("data", "recorded")
app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@app.command()
def write(run: Annotated[Path | None, typer.Argument(help="A finished run on the embedded base.")] = None) -> None:
    """Write the digests of the embedded models; with RUN, after it was put in place of the embedded run."""
    if run is not None:
        carry(run, embedded.FOLDER / embedded.TUNED)
    console.note(f"wrote {digests.write()}")


def carry(run: Path, target: Path) -> None:
    """Put a finished run into `target`, whose card stays.

    Raises:
        MedmindError: a run on another base, an adapter that is not the run's, or a path that would come along.
    """
    manifest = carried(read_run(run))
    files = [path for path in (run / ADAPTER).rglob("*") if path.is_file()]
    if manifest["adapter"]["digest"] != digest_files(run / ADAPTER, files):
        raise MedmindError(f"the files in {run / ADAPTER} are not those the run recorded", "train it again")
    for file in run.joinpath(ADAPTER).glob("*.json"):
        _refuse_paths(read_json(file), str(file))
    shutil.rmtree(target / ADAPTER, ignore_errors=True)
    shutil.copytree(run / ADAPTER, target / ADAPTER)
    write_json(target / MANIFEST, manifest)


def carried(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest of a run as the package carries it."""
    trained_on = manifest["base"]
    if trained_on["kind"] != "embedded" or trained_on["digest"] != base.fingerprint(base.EMBEDDED_PATH):
        raise MedmindError(
            f"{manifest['name']} was trained on another {trained_on['name']}, not on the embedded one",
            f"train it again with --base {embedded.BASE}",
        )
    data, config = manifest["data"], manifest["config"]
    counts = {key: value for key, value in data["counts"].items() if key != "skipped_files"}
    result = {
        **manifest,
        "name": embedded.TUNED,
        "rows": ROWS_LEFT_OUT,
        "base": {**trained_on, "path": None},
        "data": {"source": Path(data["source"]).name, "digest": data["digest"], "counts": counts},
        "config": {
            **{key: value for key, value in config.items() if key not in ("out", "name")},
            **{key: Path(config[key]).name for key in _PATHS_OF_CONFIG if config.get(key)},
        },
        "versions": {key: value for key, value in manifest["versions"].items() if key != "platform"},
    }
    _refuse_paths(result, MANIFEST)
    return result


def _refuse_paths(value: Any, where: str) -> None:
    """Raise when an absolute path stands anywhere in a JSON document."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _refuse_paths(inner, f"{where}: {key}")
    elif isinstance(value, list):
        for inner in value:
            _refuse_paths(inner, where)
    elif isinstance(value, str) and (PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute()):
        raise MedmindError(f"{where} is a path of this machine: {value}", "train again, with paths relative to here")


if __name__ == "__main__":
    console.run(app)
