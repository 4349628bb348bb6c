"""What each stage needs from the package's own extras, and what it can do with what was found."""

import re
from collections.abc import Mapping
from importlib import metadata

from medmind.console import human_bytes
from medmind.doctor import host, installing
from medmind.doctor.report import Check, Stage, Status

EXTRAS = {"train": "train", "convert": "convert", "chat": "runtime", "bench": "bench"}
"""Stage → the extra of the distribution that installs it."""
_NEEDS = {
    "train": ("torch", "bitsandbytes"),
    "convert": ("llama.cpp",),
    "chat": ("llama.cpp",),
    "bench": ("llama.cpp",),
}
_REQUIREMENT = re.compile(r"^([\w.-]+)\s*(?:(>=|==)\s*([\d.]+))?[^;]*;\s*extra\s*==\s*['\"](\w+)['\"]$")
_SMALL_CARD = 7 * host.GIB


def summary(
    checks: Mapping[str, Check],
    *,
    card_memory: int,
    memory: int | None,
    free: int,
    found: Mapping[str, str] | None = None,
) -> tuple[Stage, ...]:
    """Each stage: its packages, its libraries at work, and how large a model it can take here.

    Args:
        checks: the findings by name.
        card_memory: bytes of the largest card that torch can use; 0 without one.
        memory: bytes installed, if known.
        free: bytes free in the current directory.
        found: installed versions by distribution, for tests; by default those of this environment.
    """
    if card_memory >= _SMALL_CARD:
        train = f"QLoRA of a 7B on the card ({human_bytes(card_memory)})"
    elif card_memory:
        train = f"small models on the card; a 7B needs 8 GB and it has {human_bytes(card_memory)}"
    else:
        train = "the embedded base on the CPU; a 7B needs a CUDA card with 8 GB"
    large_disk = free >= host.RUN_7B
    large_memory = memory is None or memory >= host.CHAT_7B_MEMORY
    answers = "models up to a 7B in q4_k_m" if large_memory else "small models; a 7B in q4_k_m needs 5 GiB of memory"
    able = {
        "train": train,
        "convert": "models up to a 7B" if large_disk else "small models; a 7B needs 18 GiB of disk",
        "chat": answers,
        "bench": answers,
    }
    return tuple(_stage(name, able[name], checks, found) for name in EXTRAS)


def _stage(name: str, able: str, checks: Mapping[str, Check], found: Mapping[str, str] | None) -> Stage:
    lacking = _lacking(EXTRAS[name], found)
    if lacking:
        return Stage(name, "missing", f"needs {', '.join(lacking)}", installing.extra(EXTRAS[name]))
    hindered = [checks[need] for need in _NEEDS[name] if checks[need].status in ("missing", "broken")]
    if hindered:
        worst: Status = "broken" if any(check.status == "broken" for check in hindered) else "missing"
        return Stage(name, worst, f"{', '.join(check.name for check in hindered)}: see above", hindered[0].mend)
    return Stage(name, "ok", able)


def _lacking(extra: str, found: Mapping[str, str] | None) -> list[str]:
    """The requirements of an extra that this environment does not meet, as pip would name them."""
    try:
        requirements = metadata.requires("medmind") or []
    except metadata.PackageNotFoundError:
        return ["medmind itself as an installed package"]
    lacking = []
    for line in requirements:
        match = _REQUIREMENT.match(line)
        if match is None or match[4] != extra:
            continue
        name, operator, wanted = match[1], match[2] or "", match[3] or ""
        version = found.get(name) if found is not None else _version(name)
        if version is None:
            lacking.append(f"{name}{operator}{wanted}")
        elif operator and not _fits(version, operator, wanted):
            lacking.append(f"{name}{operator}{wanted} (it is {version})")
    return lacking


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _fits(version: str, operator: str, wanted: str) -> bool:
    have, want = _numbers(version), _numbers(wanted)
    return have[: len(want)] == want if operator == "==" else have >= want


def _numbers(version: str) -> tuple[int, ...]:
    """The release numbers of a version; local parts (`+cpu`) and pre-release marks do not count here."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()
