"""Judging what trains: the card, its driver, torch, bitsandbytes and Triton."""

import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medmind.console import human_bytes
from medmind.doctor import installing
from medmind.doctor.machine import Card
from medmind.doctor.probes import Answer
from medmind.doctor.report import Check

_CUDA_TORCH = "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu128"
_NF4_ERROR = 0.2
"""Of values in [-1, 1]; NF4's widest gap, between -1 and -0.696, allows 0.152 (QLoRA, appendix E)."""


def torch_cards(answer: Answer) -> list[dict[str, Any]]:
    """The cards that torch could compute on: name, memory (bytes), capability [major, minor]."""
    return list(answer.facts.get("cards") or [])


def gpu(answer: Answer, known: Sequence[Card] | None) -> Check:
    """The cards, as torch can use them."""
    cards = torch_cards(answer)
    if cards:
        described = [
            f"{card['name']}, {human_bytes(card['memory'])}, compute capability {card['capability'][0]}."
            f"{card['capability'][1]} ({'bf16' if card['capability'][0] >= 8 else 'fp16 with loss scaling'})"
            for card in cards
        ]
        return Check("GPU", "ok", "; ".join(described))
    if not known:
        return Check(
            "GPU",
            "missing",
            "no CUDA card",
            "training a 7B needs an NVIDIA card with 8 GB; the embedded base trains on the CPU, and chat runs there",
        )
    named = "; ".join(f"{card.name}, {human_bytes(card.memory)}, capability {card.capability}" for card in known)
    if "torch" not in answer.facts:
        return Check(
            "GPU", "warning", f"{named}; without torch nothing can be trained on it", installing.extra("train")
        )
    if not answer.facts.get("cuda"):
        return Check("GPU", "warning", f"{named}; this torch is built for the CPU alone", _CUDA_TORCH)
    reason = (answer.facts.get("warnings") or [answer.failure or "CUDA does not start"])[0]
    return Check(
        "GPU",
        "broken",
        f"{named}; torch cannot use it: {reason}",
        f"update the NVIDIA driver (it is {known[0].driver}), or take a torch that fits the card and the driver",
    )


def driver(answer: Answer, known: Sequence[Card] | None) -> Check:
    """The NVIDIA driver, by its own tool."""
    if known:
        return Check("driver", "ok", f"NVIDIA {known[0].driver}")
    if torch_cards(answer):
        return Check("driver", "ok", "works (nvidia-smi is not on the PATH to tell its version)")
    if known is None:
        return Check("driver", "missing", "no NVIDIA driver (nvidia-smi is not on the PATH)", "needed for a card alone")
    return Check("driver", "warning", "nvidia-smi finds no card", "run nvidia-smi and read what it says")


def torch(answer: Answer) -> Check:
    """The installed torch and what it is built for."""
    if "torch" in answer.facts:
        build = answer.facts.get("cuda") or answer.facts.get("hip")
        kind = "CPU build" if not build else f"{'CUDA' if answer.facts.get('cuda') else 'ROCm'} {build}"
        return Check("torch", "ok", f"{answer.facts['torch']}, {kind}")
    return _absent("torch", answer)


def bitsandbytes(answer: Answer) -> Check:
    """Whether bitsandbytes packs and unpacks 4-bit NF4 on this machine."""
    facts = answer.facts
    if "bitsandbytes" in facts:
        where = f"{facts['bitsandbytes']}, NF4 round trip on {facts['device']}: largest error {facts['error']:.3f}"
        if facts["error"] < _NF4_ERROR and facts["bytes"] == 2048:
            return Check("bitsandbytes", "ok", where)
        return Check("bitsandbytes", "broken", f"{where}: wrong", f"install again: {installing.afresh('train')}")
    if "torch" not in facts:
        return Check("bitsandbytes", "missing", "not looked at, as torch does not run", installing.extra("train"))
    return _absent("bitsandbytes", answer)


def triton(answer: Answer) -> Check:
    """Triton, which compiles kernels for a card and wants a C compiler and Python's headers."""
    version, cards = answer.facts.get("triton"), torch_cards(answer)
    if version is None:
        if not cards:
            return Check("Triton", "missing", "not installed; it serves CUDA cards alone", "nothing to do without one")
        return Check(
            "Triton", "warning", "not installed", "pip install triton (on Windows triton-windows) for faster kernels"
        )
    if cards and not Path(sysconfig.get_paths()["include"], "Python.h").is_file():
        return Check(
            "Triton", "warning", f"{version}, but Python's headers are missing", "install them: apt install python3-dev"
        )
    return Check("Triton", "ok", str(version))


def _absent(name: str, answer: Answer) -> Check:
    if answer.missing:
        return Check(name, "missing", f"not installed ({answer.missing})", installing.extra("train"))
    if answer.failure.startswith("no answer"):
        return Check(name, "warning", answer.failure, "a slow disk or a busy machine; run the doctor again")
    return Check(
        name,
        "broken",
        f"does not work: {answer.failure or 'no answer'}",
        f"install again: {installing.afresh('train')}",
    )
