"""Fetching a base model from the Hugging Face hub: which of its files, at what cost, and what a refusal means.

Loads no weight, and needs no network for a model that is cached.
"""

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import typer

from medmind import base, console
from medmind.artifacts import free_bytes, require_space
from medmind.console import human_bytes
from medmind.errors import MedmindError
from medmind.hub_cache import COMMIT, TIMEOUT, HubFile, ModelCache, Snapshot, discard

ASK_ABOVE = 10**9
"""Bytes; a larger download is asked about first."""
_REVISION = re.compile(r"(?!.*\.\.)\w[\w./-]*")
_SMALL = re.compile(
    r"(generation_)?config\.json|tokenizer\.json|tokenizer\.model[\w.]*|tokenizer_config\.json"
    r"|(special_tokens_map|added_tokens)\.json|chat_template\.(jinja|json)"
)


def fetch_model(
    repo_id: str, revision: str | None, *, assume_yes: bool = False, confirm: Callable[[str], bool] | None = None
) -> tuple[Path, str]:
    """Make a model of the hub complete in the local cache.

    Args:
        repo_id: `owner/model`.
        revision: branch, tag or commit; None is the main branch.
        assume_yes: do not ask before a download above `ASK_ABOVE`.
        confirm: asks a person, given the question; by default on the terminal.

    Returns:
        The directory (safetensors, config and tokenizer only) and the commit it holds.

    Raises:
        MedmindError: no such model or revision, gated, no network, disk too small, declined by the person, a file that
            came corrupted, or a repository without what `medmind.base.check` needs.
    """
    hub = console.require("huggingface_hub", "train")
    console.require("huggingface_hub.file_download", "train")  # brings .utils, .errors and .constants into the package
    hub.utils.logging.set_verbosity_error()
    ref = revision or hub.constants.DEFAULT_REVISION
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo_id) or not _REVISION.fullmatch(ref):
        raise MedmindError(f"'{repo_id}' at '{ref}' is not a model of the hub", "the form is owner/model")
    cache = ModelCache(hub, repo_id)
    offline = hub.constants.is_offline_mode()
    if (offline or COMMIT.fullmatch(ref)) and (found := _whole(cache, ref, offline=offline)):
        return found
    if offline:
        raise MedmindError(
            f"{repo_id} ({ref}) is not whole in {cache.root}, and HF_HUB_OFFLINE forbids to fetch it",
            "unset HF_HUB_OFFLINE, or give a local model directory",
        )
    try:
        info = hub.HfApi().model_info(repo_id, revision=revision, files_metadata=True, timeout=TIMEOUT)
    except hub.errors.HFValidationError as error:
        raise MedmindError(f"'{repo_id}' is not a model of the hub: {error}") from error
    except (hub.errors.HTTPError, OSError, ValueError, TypeError, KeyError) as error:  # the last three: not a hub
        if found := _whole(cache, ref, offline=True):
            return found
        raise _explained(hub, error, repo_id, ref) from error
    snapshot = Snapshot(cache, str(info.sha))
    if not COMMIT.fullmatch(snapshot.commit):
        raise MedmindError(f"{hub.constants.ENDPOINT} does not answer as a hub does", "check HF_ENDPOINT")
    listing = {entry.rfilename: HubFile.listed(entry) for entry in info.siblings or []}
    try:
        names = _fetch_description(snapshot, listing)
        if all((snapshot.path / name).is_file() for name in names):
            _discard_damaged(cache, snapshot.path)
        missing = [snapshot.located(listing[name]) for name in names if not snapshot.holds(listing[name])]
        _fetch_weights(snapshot, missing, assume_yes=assume_yes, confirm=confirm or _ask)
    except (hub.errors.HTTPError, OSError) as error:
        raise _explained(hub, error, repo_id, ref) from error
    cache.remember(ref, snapshot.commit)
    return snapshot.path, snapshot.commit


def _whole(cache: ModelCache, ref: str, *, offline: bool) -> tuple[Path, str] | None:
    """What the cache has of `ref`, its weights checked.

    Raises:
        MedmindError: a damaged file, where it cannot be fetched again.
    """
    found = cache.complete(ref)
    if found and (damaged := _damaged(cache, found[0])):
        if offline:
            raise MedmindError(
                f"{damaged[0].name} of {cache.repo_id} is damaged in {cache.root}",
                "run it once with the hub in reach: it is fetched again",
            )
        return None
    return found


def _discard_damaged(cache: ModelCache, snapshot: Path) -> None:
    for path in _damaged(cache, snapshot):
        console.note(f"{path.name} of {cache.repo_id} is damaged in the cache: fetching it again")
        discard(path)


def _damaged(cache: ModelCache, snapshot: Path) -> list[Path]:
    """Weights that are not what the hub gave. A file is read through once, and again only when it has changed."""
    files = cache.unchecked(snapshot)
    if not files:
        return []
    with console.progress("checking the cached weights", sum(path.stat().st_size for path in files), "B") as advance:
        return [path for path in files if not cache.check(path, advance)]


def _fetch_description(snapshot: Snapshot, listing: Mapping[str, HubFile]) -> list[str]:
    """Fetch the small files, and return the names of the weights.

    They come first: they tell whether the model is of use, and whether the hub gives it to this account.
    """
    repo_id = snapshot.cache.repo_id
    if "config.json" not in listing:
        raise MedmindError(f"{repo_id} holds no config.json", "it needs to be a model in the transformers format")
    if base.INDEX not in listing and base.SINGLE not in listing:
        raise MedmindError(
            f"{repo_id} holds no safetensors weights ({base.SINGLE} or {base.INDEX})",
            "medmind loads no pickle; take another copy of the model",
        )
    if not any(name in listing for name in base.TOKENIZER_FILES):
        raise MedmindError(f"{repo_id} holds no tokenizer", f"it needs one of: {', '.join(base.TOKENIZER_FILES)}")
    snapshot.fetch_small(listing["config.json"])
    base.check_config(snapshot.path)
    for name in sorted(listing):
        if _SMALL.fullmatch(name) or name == base.INDEX:
            snapshot.fetch_small(listing[name])
    if base.INDEX not in listing:
        return [base.SINGLE]
    names = base.index_names(snapshot.path / base.INDEX)
    for name in names:
        if name not in listing or not name.endswith(".safetensors"):
            raise MedmindError(f"the index of {repo_id} names '{name}', which is no safetensors file of it")
    return names


def _fetch_weights(
    snapshot: Snapshot, files: list[HubFile], *, assume_yes: bool, confirm: Callable[[str], bool]
) -> None:
    """Fetch the shards that are missing, after the disk and the person have been asked."""
    if not files:
        return
    repo_id, where = snapshot.cache.repo_id, snapshot.cache.root
    need = sum(map(snapshot.missing, files))
    require_space(where, need, repo_id, "free some disk space, or set HF_HOME to a folder on another disk")
    if need > ASK_ABOVE and not assume_yes:
        if not confirm(
            f"Download {human_bytes(need)} of {repo_id} to {where}, which has {human_bytes(free_bytes(where))} free?"
        ):
            raise MedmindError(f"{repo_id} was not downloaded", "give a local model directory instead, or --yes")
    else:
        console.note(
            f"downloading {human_bytes(need)} of {repo_id} to {where}, which has {human_bytes(free_bytes(where))} free"
        )
    try:
        with console.progress(repo_id, total=need, unit="B") as advance:
            for file in files:
                snapshot.fetch_large(file, advance)
    except KeyboardInterrupt:
        console.note("interrupted: the same command goes on from here")
        raise


def _ask(question: str) -> bool:
    if not sys.stdin.isatty():
        raise MedmindError(f"there is no terminal to ask: {question}", "add --yes to download it")
    return typer.confirm(question, err=True)


def _explained(hub: ModuleType, error: Exception, repo_id: str, ref: str) -> Exception:
    """What a failed request means to a person; errors of the local file system are returned as they are."""
    errors, endpoint = hub.errors, hub.constants.ENDPOINT
    if isinstance(error.__cause__, errors.HTTPError) and not isinstance(error, errors.HfHubHTTPError):
        error = error.__cause__  # huggingface_hub wraps them in its LocalEntryNotFoundError
    if isinstance(error, errors.HfHubHTTPError):
        return _refusal(hub, error, repo_id, ref)
    if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError):
        return error
    if not isinstance(error, errors.HTTPError | OSError):
        return MedmindError(
            f"{endpoint} does not answer as a hub does", "check HF_ENDPOINT and the network's log-in page"
        )
    reason = str(error).strip().splitlines()
    return MedmindError(
        f"cannot fetch {repo_id} from {endpoint}: {reason[0] if reason else type(error).__name__}",
        "check the network (HTTPS_PROXY) and run it again: it goes on where it stopped; or give a local directory",
    )


def _refusal(hub: ModuleType, error: OSError, repo_id: str, ref: str) -> MedmindError:
    """What the hub's HTTP status means to a person."""
    errors, endpoint = hub.errors, hub.constants.ENDPOINT
    page = f"{endpoint}/{repo_id}"
    status: int = error.response.status_code  # type: ignore[attr-defined]  # HfHubHTTPError
    if isinstance(error, errors.GatedRepoError) or (status == 403 and not isinstance(error, errors.DisabledRepoError)):
        message = f"{repo_id} is gated, and the hub does not give it to this account ({status})"
        hint = f"accept its licence at {page}, then run: hf auth login (a fine-grained token must allow gated models)"
    elif isinstance(error, errors.RevisionNotFoundError):
        message, hint = f"{repo_id} has no revision '{ref}'", f"its commits: {page}/commits/main"
    elif isinstance(error, errors.RepositoryNotFoundError) or status == 404:
        message = f"the hub at {endpoint} knows no model '{repo_id}', or it is private ({status})"
        hint = "check the name; a private model needs: hf auth login"
    elif status == 401:
        message, hint = "the hub refuses the access token (401)", "log in again with: hf auth login"
    else:
        message, hint = f"the hub answered {status} for {repo_id}", f"look at {page}, or try again later"
    return MedmindError(message, hint)
