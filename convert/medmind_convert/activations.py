"""Collects an importance matrix: runs a GGUF over text and sums the squares of what enters each weight.

The same text gives what llama-imatrix gives, within float noise (chunks, BOS and counts as in tools/imatrix/imatrix.cpp
of llama.cpp). Knows how to go on after an interruption; knows not where text comes from.
"""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medmind import console, gguf_header
from medmind.errors import MedmindError
from medmind_convert.imatrix import Entry, Imatrix, read_imatrix, write_imatrix
from medmind_convert.model_run import ModelRun, Product

CHUNK = 512
"""Tokens of a chunk, llama-imatrix's default."""
SAVING = 0.02
"""Part of the time that may go into saving states, for a collection that is killed."""
_FIRST_SAVE = 0.02
"""Seconds that the first state is taken to cost, before one was saved."""
_SAMPLE = 1 << 20
OUTPUT = ("output.weight", "token_embd.weight")
"""The output layer, by the name of the embedding where the two are one tensor."""
BASE_NOTE, ADAPTER_NOTE = "medmind.imatrix.base.digest", "medmind.imatrix.adapter.digest"
"""What the model that a matrix was collected over was made from, as its GGUF says; absent where that says nothing."""
_TOKENS, _MODEL = "medmind.imatrix.tokens", "medmind.imatrix.model"


@dataclass(frozen=True)
class Text:
    """Text to run a model over.

    Attributes:
        name: where it comes from, for the file.
        text: all of it.
        special: whether control tokens in it are control tokens, as in rendered conversations.
    """

    name: str
    text: str
    special: bool


def chunks(run: ModelRun, text: Text, most: int | None = None) -> list[list[int]]:
    """The text as whole chunks of tokens, each begun by BOS where the model wants one; the rest is dropped.

    Raises:
        MedmindError: less than one chunk of text.
    """
    tokens = run.tokenize(text.text, special=text.special)
    count = len(tokens) // run.length
    if count == 0:
        raise MedmindError(
            f"{text.name} has {len(tokens)} tokens, one chunk is {run.length}", "give more text with --text"
        )
    found = [tokens[i * run.length : (i + 1) * run.length] for i in range(count if most is None else min(count, most))]
    if run.bos is not None:
        for chunk in found:
            chunk[0] = run.bos
    return found


class Sums:
    """Squares summed by tensor and column, as llama-imatrix holds them."""

    def __init__(self, *, output: bool) -> None:
        self._output = output
        self.sums: dict[str, NDArray[np.float32]] = {}
        self.counts: dict[str, float] = {}

    def add(self, name: str, product: Product) -> None:
        """Take one product; weights outside the blocks are left out, the output layer unless it is asked for."""
        if not (name.startswith("blk.") or (self._output and name in OUTPUT)):
            return
        values = product.activations()
        squares = np.einsum("ij,ij->j", values, values)
        if not np.isfinite(squares).all():
            raise MedmindError(f"what enters {name} is not finite", "the model is damaged: convert it again")
        self.sums[name] = self.sums[name] + squares if name in self.sums else squares
        self.counts[name] = self.counts.get(name, 0.0) + len(values)

    def load(self, imatrix: Imatrix) -> None:
        """Go on from a state."""
        for name, entry in imatrix.entries.items():
            self.sums[name], self.counts[name] = entry.sums, float(entry.counts[0])

    def imatrix(self, dataset: str, done: int, length: int, notes: dict[str, str | int]) -> Imatrix:
        """What was summed up to here."""
        entries = {name: Entry(self.sums[name], np.array([self.counts[name]], np.float32)) for name in self.sums}
        return Imatrix(entries, (dataset,), done, length, notes)


@dataclass(frozen=True)
class Collected:
    """What was collected.

    Attributes:
        imatrix: the matrix.
        resumed: chunks that an earlier, interrupted call had done.
        seconds: wall time of this call.
    """

    imatrix: Imatrix
    resumed: int
    seconds: float


def state_of(out: Path) -> Path:
    """Where an interrupted collection for `out` leaves what it has."""
    return out.with_name(f".{out.name}.resume")


def collect(
    model: Path,
    text: Text,
    out: Path,
    *,
    threads: int,
    length: int = CHUNK,
    most: int | None = None,
    output: bool = False,
    saving: float = SAVING,
) -> Collected:
    """Run a model over text and write its importance matrix; an interrupted call goes on where it was.

    Args:
        model: a GGUF, unquantized or nearly so.
        text: what to run it over.
        out: the file; written when all is done.
        threads: compute threads.
        length: tokens of a chunk.
        most: chunks to take at most; None takes all.
        output: collect for the output layer too, as llama-imatrix --process-output; for a tied one as well.
        saving: part of the time that may go into saving states.

    Raises:
        MedmindError: the model does not load, its numbers are not finite, or the text is shorter than a chunk.
    """
    began = saved = time.monotonic()
    cost = _FIRST_SAVE
    sums = Sums(output=output)
    state = state_of(out)
    with ModelRun(model, length=length, threads=threads, watch=sums.add) as run:
        todo = chunks(run, text, most)
        notes: dict[str, str | int] = {
            _TOKENS: _digest(todo, output=output),
            _MODEL: identity(model),
            **_lineage(model),
        }
        done = resumed = _resume(state, notes, sums)
        out.parent.mkdir(parents=True, exist_ok=True)
        imatrix, kept = sums.imatrix(text.name, done, length, notes), done
        with console.progress("collecting", len(todo), "chunks") as advance:
            advance(done)
            try:
                for chunk in todo[done:]:
                    run.run(chunk)
                    imatrix = sums.imatrix(text.name, imatrix.chunks + 1, length, notes)
                    advance(1)
                    now = time.monotonic()
                    if (now - saved) * saving >= cost and imatrix.chunks < len(todo):
                        write_imatrix(state, imatrix)
                        kept, saved = imatrix.chunks, time.monotonic()
                        cost = saved - now
            except (KeyboardInterrupt, SystemExit):  # within a chunk too, of which the sums then hold a part
                if imatrix.chunks > kept:
                    write_imatrix(state, imatrix)
                if imatrix.chunks:
                    console.note(f"{imatrix.chunks} chunks are kept in {state}: start the same command again to go on")
                raise
    if not sums.sums:
        raise MedmindError(f"nothing in {model} was found to collect for", "please report it with the model's name")
    write_imatrix(out, imatrix)
    state.unlink(missing_ok=True)
    return Collected(imatrix, resumed, time.monotonic() - began)


def _lineage(model: Path) -> dict[str, str | int]:
    said = gguf_header.scalars(model)
    keys = ((BASE_NOTE, "medmind.base.digest"), (ADAPTER_NOTE, "medmind.adapter.digest"))
    return {note: said[key] for note, key in keys if key in said}


def _resume(state: Path, notes: dict[str, str | int], sums: Sums) -> int:
    """Take over what an interrupted call left, if it was for this model and these tokens; chunks done."""
    if not state.is_file():
        return 0
    try:
        left = read_imatrix(state)
    except MedmindError:
        left = None
    if left is None or dict(left.notes) != notes:
        console.note(f"{state} is of another text or model: beginning anew")
        return 0
    sums.load(left)
    console.note(f"going on after {left.chunks} chunks that an interrupted call had done")
    return left.chunks


def _digest(todo: Sequence[Sequence[int]], *, output: bool) -> str:
    digest = hashlib.sha256(b"output" if output else b"blocks")
    for chunk in todo:
        digest.update(np.array(chunk, "<i4").tobytes())
    return f"sha256:{digest.hexdigest()}"


def identity(model: Path) -> str:
    """Which file a GGUF is: its size and its first and last MiB, with metadata, vocabulary and tensor table in them."""
    size = model.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with model.open("rb") as stream:
        digest.update(stream.read(_SAMPLE))
        stream.seek(max(0, size - _SAMPLE))
        digest.update(stream.read(_SAMPLE))
    return f"sha256:{digest.hexdigest()}"
