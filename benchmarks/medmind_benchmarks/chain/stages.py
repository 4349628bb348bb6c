"""What `medmind-train score` makes of the stages of a run, each in its own process and kept by what went into it.

The trained model's log-probabilities of every token lie in a file that the others are held against. It is large: it
goes when a chain is whole, and is written again when a step needs it. Knows no GGUF and renders nothing.
"""

import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from medmind.artifacts import sha256
from medmind_benchmarks.chain.plan import Plan
from medmind_benchmarks.process import CellError
from medmind_benchmarks.store import Kept, Store, cells_folder
from medmind_benchmarks.training.process import run_document
from medmind_train.score import tokens
from medmind_train.score.document import SCHEMA, ScoreDocument, Stage

_ROWS = "trained*.npy"


@dataclass(frozen=True)
class Request:
    """What a score depends on.

    Attributes:
        adapter, base, heldout: digests.
        rows, tokens, device, dtype: as in `ChainConfig`.
        libraries: that training computes with, and their versions.
    """

    kind: Literal["stage"]
    stage: Stage
    adapter: str
    base: str
    heldout: str
    rows: int
    tokens: int
    device: str
    dtype: str
    libraries: str


class Stages:
    """The stages of one run; what an earlier chain scored under the same conditions is taken.

    Args:
        plan: of the chain.
        command: what `score …` is put behind.

    Attributes:
        file: where the trained model's log-probabilities lie, when they are there; the tokens lie beside it.
        rows_digest: what stands for their content.
    """

    def __init__(self, plan: Plan, command: Sequence[str]) -> None:
        self._plan = plan
        self._command = command
        self._folder = cells_folder(plan.out)
        self._store = Store(self._folder, {})
        self._heldout = sha256(plan.heldout)
        self._lost: CellError | None = None
        digest = self._store.digest(self._request("adapter"))
        self.file = self._folder / f"trained-{digest}.npy"
        self.rows_digest = f"log-probabilities of {digest}"
        # what a chain with other settings, or a killed process, left: the caller holds the folder (`store.alone`)
        for path in (*self._folder.glob(_ROWS), *self._folder.glob(".*.partial")):
            if path != self.file:
                path.unlink()

    def trained(self) -> tuple[Kept[ScoreDocument], bool]:
        """The model as it was trained, and whether it was known.

        Raises:
            CellError: it could not be scored.
        """
        request = self._request("adapter")
        known = self._store.get(request, ScoreDocument)
        if known and tokens.beside(self.file).is_file():
            return known, True
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            document = self._write()
        except CellError:
            self._clear()
            with suppress(OSError):  # not empty: the results of other chains stay
                self._folder.rmdir()
            raise
        return self._store.put(request, document, document.seconds), False

    def stage(self, stage: Stage, trained: ScoreDocument) -> tuple[Kept[ScoreDocument], bool]:
        """Another stage on the tokens of the trained model, and whether it was known.

        Raises:
            CellError: it could not be scored.
        """
        request = self._request(stage)
        known = self._store.get(request, ScoreDocument)
        if known and known.result.token_digest == trained.token_digest:
            return known, True
        document = self._run(stage, "--against", str(self.rows(trained)))
        _demand_same(document, trained)
        return self._store.put(request, document, document.seconds), False

    def rows(self, trained: ScoreDocument) -> Path:
        """The file of the trained model's log-probabilities, written again where it is gone.

        Raises:
            CellError: it could not be.
        """
        if self._lost:
            raise self._lost
        if not self.file.is_file():
            try:
                again = self._write()
                if again.token_digest != trained.token_digest:
                    raise CellError("the trained model scored other tokens than before", "measure anew with --fresh")
            except CellError as error:
                self._lost = error  # every step that is missing would wait for the same failure
                raise
        return self.file

    def _request(self, stage: Stage) -> Request:
        config, manifest = self._plan.config, self._plan.manifest
        return Request(
            kind="stage",
            stage=stage,
            adapter=manifest["adapter"]["digest"],
            base=str(manifest.get("base", {}).get("digest")),
            heldout=self._heldout,
            rows=config.rows,
            tokens=config.tokens,
            device=config.device,
            dtype=config.dtype,
            libraries=", ".join(map(_version, ("torch", "transformers", "peft", "bitsandbytes"))),
        )

    def _write(self) -> ScoreDocument:
        self._clear()
        config = self._plan.config
        limits = ("--rows", str(config.rows), "--tokens", str(config.tokens))
        return self._run("adapter", "--heldout", str(self._plan.heldout), *limits, "--write", str(self.file))

    def _clear(self) -> None:
        for path in (self.file, tokens.beside(self.file)):
            path.unlink(missing_ok=True)

    def _run(self, stage: Stage, *flags: str) -> ScoreDocument:
        config = self._plan.config
        base = ("--base", str(self._plan.base)) if self._plan.base else ()
        where = ("--device", config.device, "--dtype", config.dtype, *base)
        return run_document(
            [*self._command, "score", self._plan.name, "--stage", stage, *flags, *where, "--json"],
            ScoreDocument,
            SCHEMA,
            timeout=config.timeout,
        )


def drop_rows(plan: Plan) -> None:
    """Remove the trained model's log-probabilities; the results stay."""
    for path in cells_folder(plan.out).glob(_ROWS):
        path.unlink()


def forget(plan: Plan) -> None:
    """Remove all that earlier chains measured."""
    shutil.rmtree(cells_folder(plan.out), ignore_errors=True)


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"no {package}"


def _demand_same(document: ScoreDocument, trained: ScoreDocument) -> None:
    if (document.token_digest, document.adapter) != (trained.token_digest, trained.adapter):
        raise CellError("it scored other tokens, or another adapter, than the trained model")
    if any(row.kl is None for row in document.rows) or document.divergence is None:
        raise CellError("it said nothing of the divergence from the trained model")
