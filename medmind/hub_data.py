"""Fetching chosen files of a data set from the Hugging Face hub. Knows ids and refusals, not what the files hold."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from types import ModuleType

from medmind import console
from medmind.errors import MedmindError
from medmind.hub_cache import TIMEOUT

ID = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(?::(?P<config>[\w.-]+))?")
"""A hub data set, `owner/name` or `owner/name:config`."""


def fetch(source: str, choose: Callable[[Sequence[str], str], list[str]]) -> list[Path]:
    """Make some files of a data set complete in the local cache.

    Args:
        source: matches `ID`.
        choose: (names of all files, config or "") → the names wanted.

    Returns:
        Where they lie, in the order of `choose`.

    Raises:
        MedmindError: no such data set, gated, no network and not cached, or nothing chosen.
    """
    match = ID.fullmatch(source)
    assert match
    name, config = match["name"], match["config"] or ""
    hub = console.require("huggingface_hub", "train")
    console.require("huggingface_hub.file_download", "train")  # brings .errors and .constants into the package
    try:
        if hub.constants.is_offline_mode():
            root = Path(hub.snapshot_download(name, repo_type="dataset", local_files_only=True))
            listing = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
            commit = root.name
        else:
            info = hub.HfApi().dataset_info(name, timeout=TIMEOUT)
            listing, commit = sorted(entry.rfilename for entry in info.siblings or []), str(info.sha)
        wanted = choose(listing, config)
        if any(PurePosixPath(one).is_absolute() or ".." in PurePosixPath(one).parts for one in wanted):
            raise MedmindError(f"the hub data set {name} names files outside its folder", "check HF_ENDPOINT")
        if not wanted:
            raise MedmindError(
                f"the hub data set {source} holds no file that is read here", "download it and give a file of it"
            )
        return [Path(hub.hf_hub_download(name, one, repo_type="dataset", revision=commit)) for one in wanted]
    except (hub.errors.HTTPError, OSError, ValueError) as error:
        raise _explained(hub, error, name) from error


def _explained(hub: ModuleType, error: Exception, name: str) -> MedmindError:
    errors, endpoint = hub.errors, hub.constants.ENDPOINT
    if isinstance(error, errors.GatedRepoError):
        return MedmindError(
            f"the data set {name} asks for consent to its terms",
            f"accept them at {endpoint}/datasets/{name} and run: hf auth login",
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return MedmindError(
            f"{name} is neither a path here nor a data set on the hub that this login may see",
            "check the spelling; for a private one run: hf auth login",
        )
    offline = hub.constants.is_offline_mode()
    reason = "HF_HUB_OFFLINE is set and it is not cached" if offline else "the hub cannot be reached"
    return MedmindError(
        f"{name} is no path here, and as a hub data set it is out of reach: {reason}", "give a file or a folder"
    )
