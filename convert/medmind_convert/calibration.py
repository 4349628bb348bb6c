"""Text of the domain to run a model over: a run's validation rows, or files. Never a held-out row: that were leakage.

Knows rows, files, chat templates and where a result goes; `activations.py` runs the model.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medmind import artifacts, console, turns
from medmind.errors import MedmindError
from medmind_convert.activations import Collected, Text, collect
from medmind_convert.gguf_vocabulary import GgufVocabulary
from medmind_convert.imatrix import SUFFIX

_TELLING = 80
"""Characters from which an answer is long enough to be known again in plain text."""


def of_run(run: Path) -> list[dict[str, Any]]:
    """The validation rows of a run, or none where it has none."""
    file = run / artifacts.VALIDATION
    return artifacts.read_jsonl(file) if file.is_file() else []


def read(files: Sequence[Path]) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of `.jsonl` files (`messages`, or `question` and `answer`), and the text of all others.

    Raises:
        MedmindError: a file that is missing, no UTF-8, or a row of neither form.
    """
    rows: list[dict[str, Any]] = []
    texts: list[str] = []
    for file in files:
        if file.suffix == ".jsonl":
            rows.extend(_row(row, f"{file}:{number}") for number, row in enumerate(artifacts.read_jsonl(file), 1))
            continue
        try:
            texts.append(file.read_text(encoding="utf-8"))
        except (FileNotFoundError, IsADirectoryError):
            raise MedmindError(f"{file} is no file", "give text or JSON lines with --text") from None
        except UnicodeDecodeError as error:
            raise MedmindError(f"{file} is not UTF-8 text: byte {error.start}", "give text or JSON lines") from error
    return rows, texts


def _row(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    messages = row.get("messages")
    if messages is None and isinstance(row.get("question"), str) and isinstance(row.get("answer"), str):
        messages = [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]
    if not isinstance(messages, list) or not all(
        isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str)
        for m in messages or [None]
    ):
        raise MedmindError(f"{where} has neither messages nor question and answer", "give rows as in a run")
    return {"messages": messages}


def without_heldout(
    rows: Iterable[Mapping[str, Any]], texts: Sequence[str], heldout: Sequence[Mapping[str, Any]]
) -> tuple[list[Mapping[str, Any]], int]:
    """The rows that share neither question nor answer with a held-out one, and how many were left out.

    Raises:
        MedmindError: a plain text holds a held-out answer, which cannot be cut out of it.
    """
    held = {_plain(m["content"]) for row in heldout for m in row["messages"] if m["role"] != "system"} - {""}
    kept, dropped = [], 0
    for row in rows:
        if any(_plain(m["content"]) in held for m in row["messages"] if m["role"] != "system"):
            dropped += 1
        else:
            kept.append(row)
    for text in map(_plain, texts):
        for answer in held:
            if len(answer) >= _TELLING and answer in text:
                raise MedmindError(
                    f"the text holds a held-out answer ({answer[:40]!r}…): what is measured later would be too good",
                    "give text that the run does not hold out",
                )
    return kept, dropped


def _plain(text: str) -> str:
    return " ".join(text.split())


def render(model: Path, name: str, rows: Sequence[Mapping[str, Any]], texts: Sequence[str], system_prompt: str) -> Text:
    """Rows as the model's own chat template renders whole conversations, and texts as they are, in one.

    Raises:
        MedmindError: there are rows and the model carries no chat template.
    """
    if not rows:
        return Text(name, "\n\n".join(texts), special=False)
    console.require("jinja2", "convert")
    from medmind.template import Template

    with GgufVocabulary(model) as vocabulary:
        source = vocabulary.metadata("tokenizer.chat_template")
        if source is None:
            raise MedmindError(f"{model} carries no chat template, by which rows become text", "give plain text")
        template = Template(
            source, bos_token=vocabulary.text(vocabulary.bos), eos_token=vocabulary.text(vocabulary.eos)
        )
    parts = [template.render(turns.framed(row["messages"], system_prompt), add_generation_prompt=False) for row in rows]
    return Text(name, "".join(parts) + "\n\n".join(texts), special=True)


@dataclass(frozen=True)
class Made:
    """An importance matrix on the disk.

    Attributes:
        file: its path.
        collected: what is in it.
        dropped: rows left out because they are held out.
    """

    file: Path
    collected: Collected
    dropped: int


def make_imatrix(
    model: Path,
    run: Path | None,
    files: Sequence[Path],
    out: Path | None,
    *,
    chunks: int | None = None,
    output: bool = True,
    threads: int | None = None,
    force: bool = False,
) -> Made:
    """Run a GGUF over a run's validation rows, or over `files`, and write its importance matrix.

    Args:
        model: the GGUF.
        run: the run; None takes the folder of the GGUF where that is one.
        files: text to take instead of the run's rows; the run's held-out rows are left out of it too.
        out: the result; None puts it beside the GGUF, as `NAME.imatrix.gguf` without the GGUF's type.
        chunks, output, threads: as for `activations.collect`.
        force: replace a file that exists.

    Raises:
        MedmindError: no text, a file that exists, or what `collect` raises.
    """
    if not model.is_file():
        raise MedmindError(f"{model} is no file", "make one with: medmind-convert gguf q8_0")
    if out is None:
        out = model.with_name(model.name.removesuffix(".gguf").rpartition(".")[0] + SUFFIX)
    artifacts.refuse_existing(out, force=force)
    if run is None and (model.parent / artifacts.MANIFEST).is_file():
        run = model.parent
    manifest = artifacts.read_run(run) if run is not None else {}
    heldout = artifacts.read_jsonl(run / artifacts.HELDOUT) if run and (run / artifacts.HELDOUT).is_file() else []
    rows, texts = read(files) if files else (of_run(run) if run is not None else [], [])
    if not rows and not texts:
        raise MedmindError(f"there is no text to run {model} over", "give it with --text, as text or .jsonl rows")
    kept, dropped = without_heldout(rows, texts, heldout)
    if dropped:
        console.note(f"{dropped} rows are left out: the run holds them out")
    name = ", ".join(file.name for file in files) or artifacts.VALIDATION
    text = render(model, name, kept, texts, str(manifest.get("system_prompt") or ""))
    collected = collect(model, text, out, threads=threads or os.cpu_count() or 1, most=chunks, output=output)
    return Made(out, collected, dropped)
