"""The run directory while training goes on: its name, what it may replace, what a resume needs.

Knows files; nothing of models. The finished directory is described in `medmind.artifacts`.
"""

import re
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from medmind import embedded
from medmind.artifacts import (
    HELDOUT,
    MANIFEST,
    VALIDATION,
    atomic_directory,
    read_json,
    write_json,
    write_jsonl,
    write_text,
)
from medmind.errors import MedmindError
from medmind_train import foreign
from medmind_train.config import build, read_yaml, to_yaml
from medmind_train.data import Prepared
from medmind_train.qlora_config import QloraConfig

CHECKPOINTS = "checkpoints"
CONFIG = "config.yaml"
START = f"{CHECKPOINTS}/start.json"
"""What the run began with; a directory with this file and without a manifest is an unfinished run."""
START_FORMAT = "medmind-run-start/1"
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_PLACE = ("out", "name")
"""Settings that say where a run lies, which `--resume` says already."""
FREE = ("answer_rows", "checkpoint_every", "log_to", "price_per_hour", "shard")
"""Settings that change nothing of what is learned: a run may go on with others."""


def location(config: QloraConfig, base: str, data: str) -> Path:
    """Where a new run will lie: `--out`/`--name`, or a name made of base, data and time.

    Raises:
        MedmindError: a name that is no plain file name, or that of a run which medmind carries.
    """
    name = config.name
    if name is None:
        parts = [_UNSAFE.sub("-", Path(part).name).strip("-.") or "run" for part in (base, data)]
        name = f"{'-'.join(parts)}-{time.strftime('%Y%m%d-%H%M%S')}"
    elif _UNSAFE.search(name) or name.startswith((".", "-")):
        raise MedmindError(
            f"--name cannot be '{name}'", "use letters, digits, '.', '_' and '-'; choose the place by --out"
        )
    elif name in embedded.RUNS:
        raise MedmindError(f"medmind carries a run of the name '{name}'", "take another --name")
    return Path(config.out) / name


def refuse_taken(run: Path, *, force: bool) -> None:
    """Raise unless `run` is free, or a medmind run that `--force` may replace."""
    if not run.exists() or (run.is_dir() and not any(run.iterdir())):
        return
    if not run.is_dir() or not ((run / MANIFEST).is_file() or (run / START).is_file()):
        raise MedmindError(f"{run} exists and is no medmind run", "take another --name or --out")
    if not force:
        hint = "give --force to replace it, or another --name"
        if not (run / MANIFEST).is_file():
            hint += f", or go on with: medmind-train qlora --resume {run}"
        raise MedmindError(f"{run} exists already", hint)


def create(run: Path, config: QloraConfig, prepared: Prepared, start: dict[str, Any]) -> None:
    """Make the directory of a run that is about to begin: config, held-out rows and start record, all or nothing."""
    with atomic_directory(run) as partial:
        (partial / CHECKPOINTS).mkdir()
        write_config(partial, config)
        for name, side in ((HELDOUT, prepared.heldout), (VALIDATION, prepared.validation)):
            rows: list[Mapping[str, Any]] = [row.to_dict() for row in side]
            write_jsonl(partial / name, rows)
        write_json(partial / START, {"format": START_FORMAT, "config": asdict(replace(config, name=None)), **start})


def write_config(run: Path, config: QloraConfig) -> None:
    """Write the resolved config into a run directory, as a file for `--config`."""
    opening = "use again with: medmind-train qlora --config config.yaml"
    write_text(run / CONFIG, to_yaml(replace(config, name=None), opening))


def read_start(run: Path) -> dict[str, Any]:
    """The start record of an unfinished run.

    Raises:
        MedmindError: not a run, a finished one, or one of another medmind version.
    """
    if (run / MANIFEST).is_file():
        raise MedmindError(f"{run} is finished: there is nothing to resume", "start another run under another --name")
    if not (run / START).is_file():
        for above in run.resolve().parents[:2]:
            if (above / START).is_file():
                raise MedmindError(
                    f"{run} is a part of a run", f"go on with: medmind-train qlora --resume {_from_here(above)}"
                )
        if not run.exists():
            raise MedmindError(f"{run} does not exist", "runs are made by: medmind-train qlora")
        what = foreign.kind(run)
        raise MedmindError(
            f"{run} is {what}, no medmind run that could be resumed"
            if what
            else f"{run} is no medmind run that could be resumed",
            "runs are made by: medmind-train qlora",
        )
    start = read_json(run / START)
    if start.get("format") != START_FORMAT:
        raise MedmindError(
            f"{run / START} has the format {start.get('format')!r}, this medmind reads {START_FORMAT!r}",
            "use the medmind version that made it",
        )
    return start


def read_config(run: Path, start: Mapping[str, Any]) -> QloraConfig:
    """The resolved config a run was started with.

    Raises:
        MedmindError: its config.yaml says something else.
    """
    config = build(QloraConfig, read_yaml(run / CONFIG, QloraConfig))
    began = build(QloraConfig, start.get("config", asdict(config)))
    for name, before, now in _differences(began, config):
        raise MedmindError(
            f"{run / CONFIG} has {name}: {now} and the run began with {before}",
            f"put {name}: {before} back to go on, or start another run with: --config {run / CONFIG}",
        )
    return config


def refuse_other_config(run: Path, recorded: QloraConfig, given: QloraConfig, names: set[str]) -> None:
    """Raise when one of the settings `names`, given along with `--resume`, differs from the run's."""
    for name, before, now in _differences(recorded, given):
        if name in names and now != "auto":  # which is what it was chosen by
            flag = f"--{name.replace('_', '-')}"
            raise MedmindError(
                f"{run} was started with {flag} {before}, not {now}",
                f"leave {flag} out to go on, or start another run",
            )


def _differences(before: QloraConfig, now: QloraConfig) -> Iterator[tuple[str, Any, Any]]:
    for field in fields(QloraConfig):
        values = getattr(before, field.name), getattr(now, field.name)
        if field.name not in (*_PLACE, *FREE) and values[0] != values[1]:
            yield field.name, *values


def refuse_other_start(run: Path, recorded: dict[str, Any], data_digest: str, base_digest: str) -> None:
    """Raise when the data or the base are not what the run began with."""
    for what, before, now in (
        (f"data ({recorded['data']['where']})", recorded["data"]["digest"], data_digest),
        (f"base ({recorded['base']['name']})", recorded["base"]["digest"], base_digest),
    ):
        if before != now:
            raise MedmindError(
                f"the {what} of {run} has changed: {_short(before)} when it began, {_short(now)} now",
                "bring back what it was, or start another run",
            )


def remove_leavings(run: Path) -> None:
    """Remove what a killed process left half-written in a run directory."""
    for path in run.glob(".*.partial"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def _from_here(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _short(digest: str) -> str:
    return digest[: len("sha256:") + 12]
