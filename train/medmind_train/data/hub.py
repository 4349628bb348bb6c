"""How `datasets` ids, saved data sets and parquet or arrow files become records. Knows no column names.

Everything heavy (datasets, pyarrow, huggingface_hub) is imported inside the function that needs it.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from medmind.console import require
from medmind.errors import MedmindError

ID = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(?::(?P<config>[\w.-]+))?")
"""A hub data set, `owner/name` or `owner/name:config`."""
_TIMEOUT = 15
Record = tuple[Mapping[str, Any], str]
"""A record and the place where it stands."""


def read_hub(name: str) -> Iterator[Record]:
    """The records of all splits of a hub data set, from the hub or from the cache of an earlier download.

    Raises:
        MedmindError: offline and not cached, no such data set, no access, or not readable without running its code.
    """
    match = ID.fullmatch(name)
    if match is None:
        raise MedmindError(f"{name} is no data set id", "ids have the form owner/name or owner/name:config")
    datasets = require("datasets", "train")
    for library in ("huggingface_hub", "datasets"):
        logging.getLogger(library).setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    _probe(match["name"], Path(datasets.config.HF_DATASETS_CACHE))
    try:
        loaded = datasets.load_dataset(match["name"], match["config"])
    except Exception as error:
        raise _unavailable(name, error) from error
    yield from _records(loaded, name)


def _probe(name: str, cache: Path) -> None:
    """Ask the hub for the data set once, shortly: `load_dataset` alone retries for half a minute before it gives up."""
    hub = require("huggingface_hub", "train")
    cached = any(cache.glob(f"{name.partition('/')[0]}___*"))
    if hub.is_offline_mode() or cached:
        return
    try:
        hub.HfApi().dataset_info(name, timeout=_TIMEOUT)
    except Exception as error:
        raise _unavailable(name, error) from error


def _unavailable(name: str, error: Exception) -> MedmindError:
    kind = type(error).__name__
    if kind == "GatedRepoError" or "is a gated dataset" in str(error):
        return MedmindError(
            f"the data set {name} asks for consent to its terms",
            f"accept them at https://huggingface.co/datasets/{name} and run: hf auth login",
        )
    if kind in ("RepositoryNotFoundError", "DatasetNotFoundError"):
        return MedmindError(
            f"{name} is neither a path here nor a data set on the hub that this login may see",
            "check the spelling; for a private one run: hf auth login",
        )
    offline = "OfflineMode" in kind or "offline" in str(error).lower()
    if offline or isinstance(error, OSError) or type(error).__module__.partition(".")[0].startswith("httpx"):
        reason = "HF_HUB_OFFLINE is set and it is not cached" if offline else "the hub cannot be reached"
        return MedmindError(
            f"{name} is no path here, and as a hub data set it is out of reach: {reason}",
            "give a file or directory",
        )
    first = (str(error).strip() or kind).splitlines()[0]
    return MedmindError(f"the hub data set {name} cannot be read: {first[:300]}")


def is_saved(path: Path) -> bool:
    """Whether a directory was written by `save_to_disk`."""
    return (path / "dataset_dict.json").is_file() or (
        (path / "state.json").is_file() and (path / "dataset_info.json").is_file()
    )


def read_saved(path: Path) -> Iterator[Record]:
    """The records of a directory written by `Dataset.save_to_disk` or `DatasetDict.save_to_disk`."""
    datasets = require("datasets", "train")
    datasets.disable_progress_bars()
    try:
        loaded = datasets.load_from_disk(str(path))
    except Exception as error:
        raise MedmindError(f"{path} cannot be read as a saved data set: {str(error).splitlines()[0]}") from error
    yield from _records(loaded, str(path))


def _records(loaded: Any, name: str) -> Iterator[Record]:
    """Records of a Dataset or of every split of a DatasetDict."""
    splits = loaded.items() if hasattr(loaded, "items") else [("", loaded)]
    for split, rows in splits:
        place = f"{name}[{split}]" if split else name
        for number, record in enumerate(rows, 1):
            yield record, f"{place}, row {number},"


def read_columnar(path: Path) -> Iterator[Record]:
    """The records of one `.parquet` file or `.arrow` file (stream or file form).

    Raises:
        MedmindError: the file is damaged or of another kind.
    """
    pyarrow = require("pyarrow", "train")
    number = 0
    try:
        for batch in _batches(path):
            for record in batch.to_pylist():
                number += 1
                yield record, f"{path}, row {number},"
    except (OSError, pyarrow.ArrowException) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise MedmindError(f"{path} cannot be read: {first}") from error


def _batches(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        magic = file.read(6)
        file.seek(0)
        if magic[:4] == b"PAR1":
            yield from require("pyarrow.parquet", "train").ParquetFile(file).iter_batches()
        elif magic == b"ARROW1":
            opened = require("pyarrow.ipc", "train").open_file(file)
            yield from (opened.get_batch(index) for index in range(opened.num_record_batches))
        else:
            yield from require("pyarrow.ipc", "train").open_stream(file)
