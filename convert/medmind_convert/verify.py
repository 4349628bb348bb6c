"""`medmind-convert verify`: whether files are whole, and tokenize and render as the model they were made from does.

Knows which source belongs to a file; `integrity.py` reads bytes, `token_agreement.py` compares tokens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medmind import artifacts, embedded
from medmind.errors import MedmindError
from medmind_convert import fuzz_text, integrity, source, token_agreement
from medmind_convert.check import Agreement, Expected
from medmind_convert.conversion import Conversion
from medmind_convert.integrity import HEADER, Integrity
from medmind_convert.token_agreement import LINES, LineAgreement

_CONVERSATIONS = 100
"""Conversations of generated lines that are rendered beside the held-out ones."""


@dataclass
class Verified:
    """What was found of one model.

    Attributes:
        files: its file, or all its shards.
        source: what it was compared with, or None.
        lines: token ids that are equal; None where they were not compared.
        rendered: chat renderings that are equal; None likewise.
        problem: what is wrong with it, or None.
    """

    files: list[Integrity] = field(default_factory=list)
    source: str | None = None
    lines: LineAgreement | None = None
    rendered: Agreement | None = None
    problem: MedmindError | None = None

    def document(self, file: Path) -> dict[str, Any]:
        """As a JSON object."""
        lines, rendered = self.lines, self.rendered
        return {
            "file": str(file),
            "problem": None if self.problem is None else str(self.problem),
            "parts": [
                {
                    "file": str(each.file),
                    "bytes": each.bytes,
                    "tensors": each.tensors,
                    "digests": each.digests,
                    "damaged": list(each.damaged),
                }
                for each in self.files
            ],
            "source": self.source,
            "lines": None if lines is None else {"compared": lines.given + lines.generated, "tokens": lines.tokens},
            "renderings": None if rendered is None else rendered.renderings,
        }


def models(files: Sequence[Path]) -> list[list[Path]]:
    """The models that files belong to, each once: a shard stands for all of its model's."""
    found: dict[Path, list[Path]] = {}
    for file in files:
        parts = integrity.shards(file)
        found.setdefault(parts[0], parts)
    return list(found.values())


def verify(parts: Sequence[Path], given: str | None, *, lines: int = LINES) -> Verified:
    """Verify one model: structure and digests of all its files, then tokens and renderings where a source is at hand.

    What is wrong stands in the result and is not raised, so that other models are still looked at.

    Args:
        parts: its file, or all its shards in order.
        given: run, adapter or base that it was made from; None finds it, where that takes no download.
        lines: lines whose token ids are compared.
    """
    found = Verified()
    try:
        for number, part in enumerate(parts):
            each = integrity.check(part)
            found.files.append(each)
            if len(parts) > 1 and each.header.scalars.get("split.no") != number:
                raise MedmindError(f"{part} is not part {number + 1} of its model", "restore the files' names")
        _refuse_damage(found.files)
        header = found.files[0].header
        found.source = given if given is not None else source_of(parts[0], header.scalars)
        if found.source is not None and found.files[0].kind == "model":
            _compare(found, found.source, parts[0], lines)
        elif found.source is not None and found.files[0].kind == "adapter":
            conversion = Conversion(source.find(found.source))
            _refuse_other_origin(conversion, found.source, parts[0], header.scalars)
        _refuse_unproved(found.files)
    except MedmindError as error:
        found.problem = error
    return found


def source_of(file: Path, metadata: Mapping[str, str | int]) -> str | None:
    """What a file was made from, as other commands name it: the run it lies in, or what it names and is on this disk.

    A model on the hub is not taken, since that may be a download.
    """
    if artifacts.is_embedded_run(file.parent):
        return file.parent.name
    if (file.parent / artifacts.MANIFEST).is_file():
        return str(file.parent)
    run, base = metadata.get("medmind.run"), str(metadata.get("medmind.base.name", ""))
    if run is not None:
        return str(run) if run in embedded.RUNS else None
    if "medmind.adapter.digest" in metadata:
        return None
    return base if base in embedded.BASES or (base and (Path(base) / "config.json").is_file()) else None


def _refuse_damage(files: Sequence[Integrity]) -> None:
    for each in files:
        if each.damaged:
            tensors = [part for part in each.damaged if part != HEADER]
            parts = [HEADER] if HEADER in each.damaged else []
            parts += tensors[:3] + ([f"{len(tensors) - 3} more tensors"] if len(tensors) > 3 else [])
            differ = "differs" if len(each.damaged) == 1 else "differ"
            raise MedmindError(
                f"{each.file} is damaged: {' and '.join(parts)} {differ} from the digest", "copy or convert it again"
            )


def _refuse_unproved(files: Sequence[Integrity]) -> None:
    for each in files:
        if each.digests:
            continue
        found = f"its {each.tensors} tensors lie where they must and the file is not cut, but whether their bytes are "
        found += "those that were written cannot be told"
        if each.kind == "imatrix":
            raise MedmindError(
                f"{each.file} is an importance matrix in llama.cpp's format, which has no digests: {found}",
                "make it again with medmind-convert imatrix if in doubt",
            )
        raise MedmindError(
            f"{each.file} carries no digests: {found}",
            "medmind-convert adapter writes them: convert it again"
            if each.kind == "adapter"
            else "medmind-convert gguf writes digests, except with --no-provenance",
        )


def _compare(found: Verified, given: str, file: Path, lines: int) -> None:
    conversion = Conversion(source.find(given))
    _refuse_other_origin(conversion, given, file, found.files[0].header.scalars)
    tokenizer = conversion.tokenizer
    rows = [*conversion.source.heldout, *_conversations(conversion)]
    expected = Expected(tokenizer, rows, conversion.source.system_prompt)
    found.rendered = expected.compare(file, conversion.stops)
    texts = [message["content"] for row in conversion.source.heldout for message in row["messages"]]
    found.lines = token_agreement.compare(tokenizer, file, texts[:lines], count=lines)


def _refuse_other_origin(conversion: Conversion, given: str, file: Path, metadata: Mapping[str, str | int]) -> None:
    for what, own in (("base", conversion.source.base_digest), ("adapter", conversion.adapter_digest)):
        stated = metadata.get(f"medmind.{what}.digest")
        recorded = "medmind.base.digest" in metadata
        if recorded and stated != own:
            raise MedmindError(
                f"{file} was not made from the {what} of {given}: it names {str(stated)[:19]}…, not {str(own)[:19]}…",
                "give what it was made from with --source",
            )


def _conversations(conversion: Conversion) -> list[dict[str, Any]]:
    """Conversations of two turns over generated lines."""
    tokenizer = conversion.tokenizer
    if tokenizer.chat_template is None:
        return []
    pieces = [piece for piece in tokenizer.pieces() if piece]
    made = fuzz_text.lines(4 * _CONVERSATIONS, pieces=pieces, controls=tokenizer.controls, seed=1)
    roles = ("user", "assistant", "user", "assistant")
    return [
        {"messages": [{"role": role, "content": text} for role, text in zip(roles, four, strict=True)]}
        for four in zip(*[made] * 4, strict=True)
    ]
