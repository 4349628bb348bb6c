"""The model card beside the GGUFs: what they are, of what, how large, how good where it was measured. Runs nothing."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medmind import __version__, artifacts
from medmind.console import human_bytes
from medmind.errors import MedmindError
from medmind_convert.gguf_metadata import license_of
from medmind_convert.quants import QUANTS
from medmind_convert.source import Source

REPORT = Path("benchmark") / "report.json"
"""Where medmind-bench leaves its figures in a run."""


@dataclass(frozen=True)
class Row:
    """One GGUF of the card.

    Attributes:
        file: its path.
        quant: name of its type.
        bits: bits per weight.
    """

    file: Path
    quant: str
    bits: float


def perplexities(out: Path) -> dict[str, tuple[float, float]]:
    """Held-out perplexity and its standard error by file name, as the run's benchmark measured those very files.

    A file whose size is no longer the measured one is left out: it was converted again since.
    """
    if not (out / REPORT).is_file():
        return {}
    try:
        report = artifacts.read_json(out / REPORT)
        found = {}
        for level in report["levels"]:
            file, value = out / level["file"], (level.get("quality") or {}).get("perplexity")
            if value and file.is_file() and file.stat().st_size == level["size"]:
                found[level["file"]] = (float(value["value"]), float(value["error"]))
        return found
    except (MedmindError, KeyError, TypeError, ValueError, AttributeError):  # a damaged report is no reason to fail
        return {}


def text(
    source: Source, rows: Iterable[Row], perplexity: Mapping[str, tuple[float, float]], *, onto: str = "base"
) -> str:
    """The card, with the front matter that the hub reads; `onto` is what the adapter was merged onto at last."""
    front = _front(source, "gguf", ["gguf", "llama.cpp", *(["medical"] if source.run else [])])
    lines = [*front, f"# {source.name}", ""]
    lines += [_origin(source), ""]
    lines += ["| file | type | size | bits per weight | held-out perplexity |", "|---|---|---:|---:|---:|"]
    for row in rows:
        measured = perplexity.get(row.file.name)
        shown = f"{measured[0]:.2f} ± {measured[1]:.2f}" if measured else "not measured"
        about = QUANTS[row.quant].about if row.quant in QUANTS else "types chosen tensor by tensor for this size"
        size = human_bytes(row.file.stat().st_size)
        lines.append(f"| `{row.file.name}` | {row.quant}: {about} | {size} | {row.bits:.2f} | {shown} |")
    lines += ["", *_lineage(source, onto)]
    return "\n".join(lines) + "\n"


def merged(source: Source, *, onto: str) -> str:
    """The card of the merged model for transformers; `onto` is what the adapter was merged onto."""
    front = _front(source, "transformers", ["medical"] if source.run else [])
    lines = [*front, f"# {source.name}", "", _origin(source).replace("GGUF files of", "Merged weights of"), ""]
    if source.system_prompt:
        prompt = " ".join(source.system_prompt.split())
        lines += [f"Trained with this system prompt, which belongs before every conversation: {prompt}", ""]
    return "\n".join([*lines, *_lineage(source, onto)]) + "\n"


def _front(source: Source, library: str, tags: Sequence[str]) -> list[str]:
    """The lines that the hub reads."""
    front: dict[str, Any] = {
        "license": license_of(source.base.path),
        "base_model": source.base.name if source.base.kind != "local" else "",
        "library_name": library,
        "tags": f"[{', '.join(tags)}]" if tags else "",
    }
    return ["---", *(f"{key}: {value}" for key, value in front.items() if value), "---", ""]


def _lineage(source: Source, onto: str) -> list[str]:
    """Base, adapter, data and licence as a table, and what a medical model is not."""
    base, manifest = source.base, source.manifest
    facts = {
        "base": f"{base.name}{f' at {base.revision}' if base.revision else ''}",
        "base digest": f"`{source.base_digest}`",
        "adapter digest": f"`{(manifest.get('adapter') or {}).get('digest')}`" if manifest.get("adapter") else "",
        "merged onto": "the NF4 weights beside which the adapter was trained" if onto == "nf4" else "",
        "data": _data(manifest),
        "licence": license_of(base.path) or "not stated by the base: look it up before passing the files on",
        "made by": f"medmind-convert {__version__}",
    }
    lines = ["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in facts.items() if value)]
    if source.run:
        lines += ["", "**Not a medical device** and no substitute for a doctor."]
        lines += ["In an emergency call your local emergency number."]
    return lines


def _origin(source: Source) -> str:
    name = source.base.name
    what = f"[{name}](https://huggingface.co/{name})" if source.base.kind == "hub" else f"`{name}`"
    if source.run:
        return f"GGUF files of {what}, fine-tuned with QLoRA by medmind (run `{source.run}`), the adapter merged in."
    return f"GGUF files of {what}{', with an adapter merged in' if source.adapter else ''}."


def _data(manifest: Mapping[str, Any]) -> str:
    data = manifest.get("data") or {}
    counts = data.get("counts") or {}
    parts = [str(data.get("source") or "")]
    if isinstance(counts.get("train"), int):
        parts.append(f"{counts['train']:,} rows trained on")
    if isinstance(counts.get("heldout"), int):
        parts.append(f"{counts['heldout']:,} held out")
    return ", ".join(part for part in parts if part)
