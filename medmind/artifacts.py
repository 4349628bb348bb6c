"""What one stage leaves for the next: where runs and models lie, digests, atomic writes. Knows no model format.

A run directory (`runs/NAME`) is all that the next stage needs:

    adapter/         PEFT adapter in safetensors, with its model card
    heldout.jsonl    rows never trained on, one JSON object a line
    validation.jsonl rows never trained on either, for choices made while training
    metrics.jsonl    one JSON object a training step
    medmind.json     the manifest, written last: a run without it is not finished
    report.md, *.png for people
    NAME.<quant>.gguf what `medmind-convert` made of it
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medmind import disk_errors, embedded, manifest_fields
from medmind.console import human_bytes
from medmind.errors import MedmindError

RUNS = Path("runs")
"""Where runs lie unless `--out` says otherwise, relative to the current directory."""
MANIFEST = "medmind.json"
ADAPTER = "adapter"
MODEL_CARD = "README.md"
"""Beside an adapter's files: what the hub shows of it."""
HELDOUT = "heldout.jsonl"
VALIDATION = "validation.jsonl"
METRICS = "metrics.jsonl"
RUN_FORMAT = "medmind-run/1"
TRAINED_ON = "nf4"
"""What the base was while an adapter was trained: QLoRA's 4-bit NormalFloat with double quantization."""
ROWS_LEFT_OUT = "left out"
"""What `rows` of a manifest says where the run was copied without held-out and validation rows."""


def sha256(path: Path) -> str:
    """`sha256:<hex>` of a file's bytes."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def digest_files(root: Path, paths: list[Path]) -> str:
    """One digest over several files: of their names relative to `root` and their digests, in name order."""
    lines = sorted(f"{path.relative_to(root).as_posix()} {sha256(path)}" for path in paths)
    return f"sha256:{hashlib.sha256(chr(10).join(lines).encode()).hexdigest()}"


def adapter_digest(folder: Path) -> str:
    """One digest over an adapter's files, but for its model card, which people edit."""
    return digest_files(folder, [path for path in folder.rglob("*") if path.is_file() and path.name != MODEL_CARD])


def refuse_existing(path: Path, *, force: bool) -> None:
    """Raise unless `path` is free to be written; `--force` frees it."""
    if path.exists() and not force:
        raise MedmindError(f"{path} exists already", "give --force to replace it, or another name")


def free_bytes(where: Path) -> int:
    """Bytes free on the file system of `where`, or of its nearest parent that exists."""
    probe = where.resolve()
    while not probe.exists():
        probe = probe.parent
    return shutil.disk_usage(probe).free


def require_space(where: Path, need: int, what: str, hint: str = disk_errors.FREE) -> None:
    """Raise when the file system of `where` has less than `need` bytes free; `where` need not exist yet."""
    free = free_bytes(where)
    if free < need:
        raise MedmindError(
            f"{what} needs {human_bytes(need)} and the disk of {where} has {human_bytes(free)} free",
            hint,
        )


def sync_directory(path: Path) -> None:
    """Bring the names in a directory to the disk."""
    if os.name == "nt":  # Windows cannot open a directory for syncing; the rename itself is journalled there
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_file(final: Path, *, force: bool = True) -> Iterator[Path]:
    """Write a file under a temporary name beside `final`; sync and rename it when the block ends well.

    Yields:
        The temporary path. When the block raises, it is removed and `final` is left as it was.
    """
    refuse_existing(final, force=force)
    final.parent.mkdir(parents=True, exist_ok=True)
    partial = final.with_name(f".{final.name}.{os.getpid()}.partial")
    try:
        with disk_errors.named(final, only=disk_errors.WAYS_ON):  # another may be a network's
            yield partial
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
            partial.replace(final)
            sync_directory(final.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_directory(final: Path, *, force: bool = True) -> Iterator[Path]:
    """As `atomic_file`, for a directory: an old `final` is moved aside, and removed once the new one is in place."""
    refuse_existing(final, force=force)
    final.parent.mkdir(parents=True, exist_ok=True)
    partial = final.with_name(f".{final.name}.{os.getpid()}.partial")
    old = final.with_name(f".{final.name}.{os.getpid()}.old.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        for path in partial.rglob("*"):
            if path.is_file():
                with path.open("rb+") as file:
                    os.fsync(file.fileno())
        if final.exists():
            final.replace(old)
        partial.replace(final)
        sync_directory(final.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if old.exists() and not final.exists():
            old.replace(final)
        if old.is_dir():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.unlink(missing_ok=True)


def write_text(final: Path, text: str, *, force: bool = True) -> None:
    """Write a UTF-8 file atomically."""
    with atomic_file(final, force=force) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def write_json(final: Path, document: Mapping[str, Any], *, force: bool = True) -> None:
    """Write one JSON document atomically."""
    write_text(final, json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n", force=force)


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object, or raise with the file and the place of the fault named."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MedmindError(f"{path} does not exist") from None
    except (ValueError, RecursionError) as error:  # ValueError: no UTF-8, no JSON, or a number of too many digits
        raise MedmindError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise MedmindError(f"{path} holds {type(document).__name__}, not a JSON object")
    return document


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read a file of one JSON object a line; blank lines are skipped."""
    rows = []
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise MedmindError(f"{path}:{number} is not a JSON object")
                    rows.append(row)
    except FileNotFoundError:
        raise MedmindError(f"{path} does not exist") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise MedmindError(f"{path} is not valid JSON lines: {error}") from error
    return rows


def write_jsonl(final: Path, rows: list[Mapping[str, Any]]) -> None:
    """Write one JSON object a line, atomically."""
    write_text(final, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))


def read_run(run: Path) -> dict[str, Any]:
    """The manifest of a finished run; raises for anything else that lies at `run`.

    Fields: `format`, `name`, `created` (ISO 8601, UTC), `base` {`name`, `kind` embedded|local|hub, `path`, `revision`,
    `digest`}, `adapter` {`path`, `digest`, `trained_on`; older runs lack this last, which was always `TRAINED_ON`},
    `data` {`source`, `digest`, `counts`}, `system_prompt`, `context` (tokens), `config`, `seed`, `versions`, `results`;
    `rows` is `ROWS_LEFT_OUT` in a copy without them.
    """
    if not run.is_dir():
        raise MedmindError(f"{run} is not a run directory", "runs are made by: medmind-train qlora")
    if not (run / MANIFEST).exists():
        raise MedmindError(
            f"{run} holds no {MANIFEST}: it is no medmind run, or its training has not finished",
            f"finish it with: medmind-train qlora --resume {run}",
        )
    manifest = read_json(run / MANIFEST)
    if manifest.get("format") != RUN_FORMAT:
        raise MedmindError(
            f"{run / MANIFEST} has the format {manifest.get('format')!r}, this medmind reads {RUN_FORMAT!r}",
            "use the medmind version that made it",
        )
    manifest_fields.check(manifest, run / MANIFEST)
    return manifest


def newest_run(root: Path = RUNS) -> Path:
    """The run finished last under `root`."""
    manifests = [path for path in root.glob(f"*/{MANIFEST}") if not path.parent.name.startswith(".")]
    if not manifests:
        raise MedmindError(f"there is no finished run under {root}/", "make one with: medmind-train qlora")
    return max(manifests, key=lambda path: path.stat().st_mtime_ns).parent


def newest_model(root: Path = RUNS) -> Path:
    """The GGUF converted last under `root`."""
    models = [path for path in root.glob("*/*.gguf") if _is_model(path)]
    if not models:
        raise MedmindError(
            f"there is no converted model under {root}/",
            f"make one with: medmind-convert gguf q4_k_m, or at once: medmind-convert gguf q8_0 {embedded.TUNED}",
        )
    return max(models, key=lambda path: path.stat().st_mtime_ns)


def _is_model(path: Path) -> bool:
    """Whether a GGUF is a model: importance matrices and adapters, which lie beside it, are none."""
    return not path.name.startswith(".") and not path.name.endswith((".imatrix.gguf", ".adapter.gguf"))


def models_in(folder: Path, types: str) -> list[Path]:
    """The GGUFs of a run directory, in name order.

    Args:
        types: quantizations to name where there is none.

    Raises:
        MedmindError: none there, with the command that makes some.
    """
    models = sorted(filter(_is_model, folder.glob("*.gguf")))
    if not models:
        run = folder.name if is_embedded_run(folder) else folder
        raise MedmindError(
            f"there is no converted model in {folder}/", f"make one with: medmind-convert gguf {types} {run}"
        )
    return models


def is_embedded_run(folder: Path) -> bool:
    """Whether `folder` is where the results of an embedded run go, and no run of its own."""
    here = folder.parent.resolve() == RUNS.resolve()
    return folder.name in embedded.RUNS and here and not (folder / MANIFEST).exists()


def run_named(name: str) -> Path:
    """The directory that `name` stands for: a path, or the name of a run under `runs/`, embedded ones included."""
    path = Path(name)
    known = (RUNS / name).is_dir() or name in embedded.RUNS
    return RUNS / name if not path.exists() and path.name == name and known else path
