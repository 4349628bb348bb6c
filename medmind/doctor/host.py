"""Judging the machine around the libraries: Python, compiler, memory, disk, the hub and the token."""

import os
import platform
import sys
from pathlib import Path
from urllib.parse import urlsplit

from medmind.artifacts import free_bytes
from medmind.console import human_bytes
from medmind.doctor import machine
from medmind.doctor.probes import Answer
from medmind.doctor.report import Check

GIB = 1 << 30
CACHE_7B = 14 * GIB
"""Bytes of a 7B's shards in bf16, as the hub gives them."""
RUN_7B = 18 * GIB
"""Bytes of a 7B's unquantized GGUF and its q4_k_m."""
DEMO_MEMORY = 3 * GIB
CHAT_7B_MEMORY = 5 * GIB
"""Bytes that a 7B in q4_k_m takes to answer: 4.1 GiB of weights, KV cache and buffers."""
_TRUE = ("1", "ON", "YES", "TRUE")


def python() -> Check:
    """The interpreter that medmind runs in."""
    finding = f"{platform.python_version()}, {platform.system()}, {machine.cpu_name()}"
    if sys.maxsize < 1 << 32:
        return Check("Python", "broken", f"{finding}, 32 bit", "install a 64-bit Python 3.11 or newer")
    return Check("Python", "ok", finding)


def compiler(found: str) -> Check:
    """A C++ compiler; only building llama-cpp-python needs one."""
    if found:
        return Check("C++ compiler", "ok", found)
    where = {"Darwin": "xcode-select --install", "Windows": "install the Build Tools for Visual Studio (C++)"}
    mend = where.get(platform.system(), "apt install g++ (or your system's package of it)")
    return Check("C++ compiler", "missing", "none on the PATH; it is needed to build llama-cpp-python", mend)


def memory(found: machine.Memory) -> Check:
    """Installed and available memory."""
    if found.total is None:
        return Check("memory", "warning", "this system does not tell", "a 7B in q4_k_m needs about 5 GiB to answer")
    finding = human_bytes(found.total)
    if found.available is not None:
        finding += f", {human_bytes(found.available)} of it available"
    if found.total < DEMO_MEMORY:
        return Check("memory", "warning", finding, f"even the embedded base wants {human_bytes(DEMO_MEMORY)}")
    return Check("memory", "ok", finding)


def disk(name: str, where: Path, need: int, what: str, elsewhere: str) -> Check:
    """Whether `need` bytes can be written at `where`."""
    free = free_bytes(where)
    finding = f"{human_bytes(free)} free at {where}"
    probe = where.resolve()
    while not probe.exists():
        probe = probe.parent
    if not os.access(probe, os.W_OK):
        return Check(name, "broken", f"{where} cannot be written to", elsewhere)
    if free < need:
        return Check(name, "warning", f"{finding}; {what} takes about {human_bytes(need)}", elsewhere)
    return Check(name, "ok", finding)


def hub_home() -> Path:
    """Where huggingface_hub keeps its token and cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return _path(os.environ.get("HF_HOME") or str(Path(cache) / "huggingface"))


def hub_cache() -> Path:
    """Where downloaded models lie; by the variables that huggingface_hub reads."""
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    return _path(named) if named else hub_home() / "hub"


def _path(text: str) -> Path:
    return Path(os.path.expandvars(text)).expanduser()


def endpoint() -> str:
    """The hub in use, without a final slash."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def offline() -> bool:
    """Whether the user has forbidden the hub."""
    value = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return value.upper() in _TRUE


def read_token() -> str:
    """The hub's access token, or empty. For a request only: it is never shown."""
    token = os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN") or ""
    if not token:
        try:
            named = os.environ.get("HF_TOKEN_PATH")
            token = (_path(named) if named else hub_home() / "token").read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            token = ""
    return token.strip()


def hub(answer: Answer | None) -> Check:
    """Whether the hub answers; `answer` is None when it was not to be asked."""
    parts = urlsplit(endpoint())
    name = f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"
    if answer is None:
        return Check(
            "hub access",
            "warning",
            "HF_HUB_OFFLINE is set: only models in the cache can be used",
            "unset HF_HUB_OFFLINE to download a model",
        )
    if answer.facts.get("status") == 200 and answer.facts.get("hub"):
        return Check("hub access", "ok", f"{name} answers")
    reason = answer.facts.get("unreachable") or answer.failure
    if not reason:
        reason = f"answered {answer.facts.get('status')}" if not answer.facts.get("hub") else "no hub's answer"
    return Check(
        "hub access",
        "missing",
        f"{name}: {reason}",
        "check the network (HTTPS_PROXY, HF_ENDPOINT); not needed for the embedded base, local models and chat",
    )


def token(answer: Answer | None, present: bool) -> Check:
    """Whether there is an access token, and whether the hub takes it."""
    if not present:
        return Check("hub token", "missing", "none; only gated and private models need one", "hf auth login")
    status = answer.facts.get("token_status") if answer else None
    if status == 200 and answer:
        return Check("hub token", "ok", f"accepted, of the account {answer.facts.get('user')}")
    if status in (401, 403):
        return Check("hub token", "warning", f"the hub refuses it ({status})", "log in again: hf auth login")
    return Check("hub token", "ok", "there is one, not tried")
