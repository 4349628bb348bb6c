"""What the user pointed at: which GGUFs, which texts, where the report goes. Reads headers, no weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medmind import gguf_header
from medmind.artifacts import HELDOUT, RUNS, is_embedded_run, models_in, newest_model, read_run, run_named
from medmind.errors import MedmindError
from medmind_benchmarks.model_file import ModelFile, read

REPORT_FOLDER = "benchmark"
_KINDS = {"imatrix": "an importance matrix", "adapter": "an adapter", "mmproj": "a projector of images"}
"""general.type of a GGUF → what that is."""


@dataclass(frozen=True)
class Sources:
    """The inputs of a benchmark.

    Attributes:
        files: GGUFs.
        heldout: rows; None when nothing is measured on them.
        out: folder of the report.
        run: the run directory when all files lie in one, else None.
        base: the untuned base's GGUF, if it is to be measured and is not among the files.
        text: raw text; None for the held-out rows'.
        kl_base: a file of llama.cpp's --kl-divergence-base, in place of text and reference.
    """

    files: tuple[Path, ...]
    heldout: Path | None
    out: Path
    run: Path | None
    base: Path | None = None
    text: Path | None = None
    kl_base: Path | None = None


def find(
    paths: Sequence[Path],
    heldout: Path | None,
    out: Path | None,
    *,
    base: Path | None = None,
    text: Path | None = None,
    kl_base: Path | None = None,
    needs_heldout: bool = True,
) -> Sources:
    """Resolve the command's arguments.

    Args:
        paths: GGUFs, run directories and names of runs; empty for the newest run that has GGUFs.
        heldout: the rows to measure on, else those beside the files.
        out: the folder for the report, else `benchmark/` beside the files.
        base: the untuned base's GGUF, else one that `medmind-convert` left under `runs/`.
        text, kl_base: see `Sources`.
        needs_heldout: whether something will be measured on held-out rows.

    Raises:
        MedmindError: nothing found, or no held-out set.
    """
    places = [run_named(str(path)) for path in paths] or [newest_model().parent]
    files: dict[Path, Path] = {}
    for place in places:
        for file in _models_of(place) if place.is_dir() or is_embedded_run(place) else [place]:
            files.setdefault(file.resolve(), file)
    for file in [*files.values(), *([base] if base else [])]:
        if not file.exists():
            raise MedmindError(f"{file} does not exist", "give a run directory or .gguf files")
        kind = gguf_header.read(file).scalars.get("general.type", "model")
        if kind != "model":
            raise MedmindError(f"{file} holds {_KINDS.get(str(kind), kind)}, no model", "give the GGUF of a model")
    for option, given in (("--text", text), ("--kl-base", kl_base), ("--heldout", heldout)):
        if given and not given.is_file():
            why = "is a folder" if given.is_dir() else "does not exist"
            raise MedmindError(f"{option} {given} {why}", f"give a file with {option} FILE")
    if text and kl_base:
        raise MedmindError("--kl-base brings its own text, --text is one too many", "give one of them")
    folders = list(dict.fromkeys(file.parent for file in files.values()))
    if base and base.resolve() in files:
        base = None
    return Sources(
        files=tuple(files.values()),
        heldout=heldout or (_heldout_beside(folders) if needs_heldout else None),
        out=out or folders[0] / REPORT_FOLDER,
        run=folders[0] if len(folders) == 1 else None,
        base=base or _base_beside(list(files.values())),
        text=text,
        kl_base=kl_base,
    )


def is_base(model: ModelFile, among: Sequence[ModelFile]) -> bool:
    """Whether a file that medmind wrote carries no adapter while another of the same base does."""
    return not _adapter(model) and any(
        _adapter(other) and _base_digest(other) == _base_digest(model) is not None for other in among
    )


def _adapter(model: ModelFile) -> Any:
    return model.metadata.get("medmind.adapter.digest")


def _base_digest(model: ModelFile) -> Any:
    return model.metadata.get("medmind.base.digest")


def _base_beside(files: Sequence[Path]) -> Path | None:
    """The most precise GGUF of the files' untuned base, where `medmind-convert gguf f16 BASE` puts it."""
    models = [read(file) for file in files]
    tuned = next((model for model in models if _adapter(model)), None)
    if tuned is None or any(is_base(model, models) for model in models):
        return None
    name = Path(str(tuned.metadata.get("medmind.base.name", ""))).name
    folders = {tuned.path.parent.parent / name, RUNS / name} if name else set()
    found = [read(path) for folder in sorted(folders) for path in sorted(folder.glob("*.gguf"))]
    bases = [model for model in found if is_base(model, [tuned]) and model.vocabulary == tuned.vocabulary]
    return max(bases, key=lambda model: model.precision).path if bases else None


def _models_of(run: Path) -> list[Path]:
    if not is_embedded_run(run) and not any(run.glob("*.gguf")):
        read_run(run)
    return models_in(run, "f16 q8_0 q4_k_m")


def _heldout_beside(folders: Sequence[Path]) -> Path:
    found = [folder / HELDOUT for folder in folders if (folder / HELDOUT).is_file()]
    if len(found) > 1:
        raise MedmindError(
            f"the files lie in {len(found)} folders with a {HELDOUT} each", "choose one with --heldout FILE"
        )
    if not found:
        raise MedmindError(
            f"there is no held-out set: no {HELDOUT} in {folders[0]}",
            "give one with --heldout FILE, one JSON object with 'messages' a line; "
            "medmind-train data SOURCE --out DIR makes one",
        )
    return found[0]
