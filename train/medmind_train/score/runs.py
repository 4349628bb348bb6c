"""What scoring needs of a finished run: its manifest, base, adapter and held-out tokens. Loads no model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medmind import base as bases
from medmind import digests, embedded, hub
from medmind.artifacts import (
    ADAPTER,
    HELDOUT,
    ROWS_LEFT_OUT,
    adapter_digest,
    read_json,
    read_jsonl,
    read_run,
    run_named,
)
from medmind.base import Base
from medmind.errors import MedmindError
from medmind_train import encoding
from medmind_train.data import Row
from medmind_train.score import tokens
from medmind_train.score.config import ScoreConfig
from medmind_train.score.tokens import Tokens


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        name: as its manifest has it.
        dtype, device: that it was trained with.
        vocabulary: numbers in a row of logits.
        adapter_digest: of the files in `adapter`.
    """

    folder: Path
    name: str
    manifest: dict[str, Any]
    base: Base
    vocabulary: int
    adapter_digest: str

    @property
    def adapter(self) -> Path:
        """The adapter's folder."""
        return self.folder / ADAPTER


def find(name: str, base: str | None) -> Run:
    """The run of that name or path; an embedded one by its name.

    Raises:
        MedmindError: no finished run, or a base that is not the one it was trained on.
    """
    folder = digests.verified(name) if name in embedded.RUNS else run_named(name)
    manifest = read_run(folder)
    recorded = manifest["base"]
    wanted = base or (recorded["path"] if recorded["kind"] == "local" else recorded["name"])
    if recorded["kind"] == "local" and not base and not Path(wanted).is_dir():
        raise MedmindError(f"the base of {folder} was {wanted}, which is gone", "give its new place with --base")
    found = bases.resolve(wanted, revision=recorded.get("revision"), fetch=hub.fetch_model)
    if bases.fingerprint(found.path) != recorded["digest"]:
        raise MedmindError(
            f"the base at {found.path} is not the one {folder} was trained on ({recorded['name']})",
            "give the right one with --base",
        )
    vocabulary = read_json(found.path / "config.json").get("vocab_size")
    if not isinstance(vocabulary, int):
        raise MedmindError(f"{found.path / 'config.json'} has no vocab_size", "download or copy the base again")
    digest = adapter_digest(folder / ADAPTER) if (folder / ADAPTER).is_dir() else ""
    return Run(folder, str(manifest["name"]), manifest, found, vocabulary, digest)


def held_out(run: Run, config: ScoreConfig) -> Tokens:
    """The run's held-out answers as token ids, encoded as it encoded them.

    Raises:
        MedmindError: no rows, or none that fits.
    """
    path = Path(config.heldout) if config.heldout else run.folder / HELDOUT
    if not config.heldout and (run.manifest.get("rows") == ROWS_LEFT_OUT or not path.is_file()):
        raise MedmindError(f"there is no held-out set: no {HELDOUT} in {run.folder}", "give one with --heldout FILE")
    rows = [Row.from_dict(record, f"{path}:{number}") for number, record in enumerate(read_jsonl(path), 1)]
    encoded = encoding.encode(
        encoding.load_tokenizer(run.base.path, run.base.name),
        rows,
        context=int(run.manifest["context"]),
        system=str(run.manifest.get("system_prompt") or ""),
    )
    kept = tokens.limited(
        list(encoded.examples), [row.id for row in rows], most_rows=config.rows, most_tokens=config.tokens
    )
    return Tokens(run.adapter_digest, run.vocabulary, tuple(kept), len(rows) - len({one.row for one in kept}))
