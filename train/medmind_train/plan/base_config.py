"""The config.json of a base, and its sizes: of a directory, the embedded base, or a hub id without its weights.

The reference base is known by heart, so that a plan of it needs no network.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from medmind import base as bases
from medmind import console
from medmind.base import EMBEDDED_NAME, EMBEDDED_PATH
from medmind.errors import MedmindError
from medmind.hub_cache import TIMEOUT
from medmind_train.fused.shape import KINDS, Shape, Unsupported
from medmind_train.qlora_config import REFERENCE_BASE

_KNOWN: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        REFERENCE_BASE: {
            "model_type": "mistral",
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-5,
            "sliding_window": None,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "vocab_size": 32768,
        }
    }
)
_STORED = {"float32": 4}
"""Bytes of a stored weight by the config's word for its type, where it is not the usual 2."""


@dataclass(frozen=True)
class Sizes:
    """A base as far as a plan needs it.

    Attributes:
        name: as the user wrote it.
        local: its weights are on this machine by the user's own doing, so that nothing is downloaded.
        shape: its sizes.
        refusal: why the fused step cannot serve it; empty: it can.
        stored: bytes of its weights as they are published.
        positions: the longest context, None where its config does not say.
    """

    name: str
    local: bool
    shape: Shape
    refusal: str
    stored: int
    positions: int | None


def read(name: str, revision: str | None = None) -> Sizes:
    """The sizes of the base called `name`; of a base on the hub at most config.json is fetched.

    Raises:
        MedmindError: nothing of that name, a config that says too little, or no way to the hub.
    """
    if Path(name).name == "config.json" and Path(name).is_file():
        name = str(Path(name).parent)
    local = name == EMBEDDED_NAME or Path(name).is_dir()
    if name == EMBEDDED_NAME:
        config: Mapping[str, Any] = bases.check_config(EMBEDDED_PATH)
    elif local:
        config = bases.check_config(Path(name))
    elif name in _KNOWN:
        config = _KNOWN[name]
    elif bases.looks_like_hub_id(name):
        config = bases.check_config(_fetched(name, revision).parent)
    else:
        raise MedmindError(
            f"there is no base model '{name}'", f"give '{EMBEDDED_NAME}', a local model directory, or a hub id"
        )
    return of(name, config, local=local)


def of(name: str, config: Mapping[str, Any], *, local: bool) -> Sizes:
    """The sizes of the base called `name`, by its config.json.

    Raises:
        MedmindError: a config that says too little.
    """
    try:
        shape, refusal = _shape(config)
        positions = config.get("max_position_embeddings")
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise MedmindError(
            f"the config.json of {name} does not tell its sizes: {error}", "take another copy"
        ) from error
    stored = shape.parameters * _STORED.get(str(config.get("dtype") or config.get("torch_dtype")), 2)
    return Sizes(name, local, shape, refusal, stored, positions if isinstance(positions, int) else None)


def _shape(config: Mapping[str, Any]) -> tuple[Shape, str]:
    """Its sizes, and why the fused step does not know it: an option may change what is computed, but no size much."""
    try:
        shape = Shape.of(config)
        return shape, shape.refusal
    except Unsupported as why:
        plain = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "use_sliding_window": False}
        kind = config.get("model_type") if config.get("model_type") in KINDS else "llama"
        return Shape.of({**config, **plain, "model_type": kind}), str(why)


def _fetched(repo_id: str, revision: str | None) -> Path:
    hub = console.require("huggingface_hub", "train")
    console.require("huggingface_hub.file_download", "train")  # brings .errors and .constants into the package
    hub.utils.logging.set_verbosity_error()  # each of its retries would be a line
    cached = hub.try_to_load_from_cache(repo_id, "config.json", revision=revision)
    if isinstance(cached, str):
        return Path(cached)
    try:
        return Path(hub.hf_hub_download(repo_id, "config.json", revision=revision, etag_timeout=TIMEOUT))
    except (hub.errors.HTTPError, OSError, ValueError) as error:
        raise _explained(hub.errors, hub.constants.ENDPOINT, repo_id, error) from error


def _explained(errors: Any, endpoint: str, repo_id: str, error: Exception) -> MedmindError:
    what = f"the config.json of {repo_id}"
    if isinstance(error, errors.GatedRepoError):
        hint = f"accept its licence at {endpoint}/{repo_id}, then run: hf auth login"
        return MedmindError(f"{repo_id} is gated: the hub does not give this account its config.json", hint)
    if isinstance(error, errors.HfHubHTTPError) and not isinstance(error, errors.LocalEntryNotFoundError):
        return MedmindError(f"the hub does not give {what}", f"look at {endpoint}/{repo_id}; is the name right?")
    return MedmindError(
        f"{what} is not in the cache, and {endpoint} cannot be reached",
        "check the network (HTTPS_PROXY, HF_HUB_OFFLINE), or give a directory that holds its config.json",
    )
