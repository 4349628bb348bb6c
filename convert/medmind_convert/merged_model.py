"""Writes the merged model as a directory that transformers loads: weights streamed, all else copied from the base.

Knows the directory and how it comes whole or not at all; `conversion` knows the merge, `one_pass` the streaming.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from medmind import __version__, artifacts, base
from medmind.errors import MedmindError
from medmind.locks import exclusive
from medmind_convert import model_card, tokenizer, unfinished
from medmind_convert.conversion import Conversion
from medmind_convert.convert import run_pass
from medmind_convert.one_pass import Step
from medmind_convert.partial import Partial, states
from medmind_convert.safetensors_file import Shards, plan_shards
from medmind_convert.weights import Dtype

FORMAT = "medmind-merge/1"
RECORD = "medmind-merge.json"
"""Beside the weights: what they were made of, and a digest of each tensor."""
SHARD_MAX = 50_000_000_000
"""Bytes of tensors in a file at most unless told otherwise: transformers' own default."""
_OF_THE_BASE = ("config.json", "generation_config.json", "LICENSE*", "NOTICE*")
_OF_THE_TOKENIZER = (
    *("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("chat_template.jinja", "chat_template.json"),
)


@dataclass(frozen=True)
class Written:
    """A merged model.

    Attributes:
        path: its directory.
        files: the weights, in order.
        bytes: of the weights.
        tensors: their number.
        resumed: tensors of an interrupted start that were taken up.
        dtypes: types of the tensors, the commonest first.
    """

    path: Path
    files: tuple[Path, ...]
    bytes: int
    tensors: int
    resumed: int
    dtypes: tuple[Dtype, ...]


def write(
    conversion: Conversion,
    out: Path,
    *,
    shard_max: int = SHARD_MAX,
    threads: int | None = None,
    force: bool = False,
) -> Written:
    """Write the merged model to the directory `out`, in the base's types.

    It is written beside `out` under a hidden name, synced and renamed. What is finished stays for the next start when
    the disk, the user or the system ends this one; an old `out` stays until the new one is whole.

    Raises:
        MedmindError: refused before the work (no adapter, `out` exists, disk too small, source unfit), an input
            changed, or reading or writing failed.
    """
    source, arch = conversion.source, conversion.architecture
    if source.adapter is None:
        raise MedmindError(f"{source.base.name} is a base without an adapter: there is nothing to merge", "give a run")
    out = out.parent.resolve() / out.name if out.name else out.resolve()
    _refuse(out, force=force)
    partial, old, lock = (out.with_name(f".{out.name}{end}") for end in (".partial", ".old.partial", ".lock"))
    dtypes = {placement.source: conversion.tensors[placement.source].dtype for placement in arch.placements}
    shards = plan_shards(arch, dtypes, shard_max=shard_max)
    inputs = states(conversion.inputs)
    made_from = {
        "inputs": inputs,
        "adapter": conversion.adapter_digest,
        "merged onto": conversion.onto,
    }
    fresh = unfinished.make_directory(out.parent)
    outputs: list[Partial] = []
    with unfinished.looked_after(outputs, [partial, *fresh]), exclusive(lock, out):
        _restore(old, out)
        _refuse(out, force=force)
        _require_space(partial, shards)
        partial.mkdir(exist_ok=True)
        _clear(partial, shards)
        for file, layout in shards.layouts.items():
            outputs.append(Partial(partial / file, layout, made_from))
        resumed = sum(len(output.done) for output in outputs)
        unmade = [output for output in outputs if not output.published]
        run_pass(conversion, _steps(conversion), unmade, threads=threads, inputs=inputs)
        for output in outputs:
            output.seal()
            output.publish()
        digests = {slot.name: output.done[slot.name] for output in outputs for slot in output.layout.slots}
        _write_rest(conversion, partial, shards, digests)
        for output in outputs:
            output.forget()
        _publish(partial, out, old)
    files = tuple(out / file for file in shards.layouts)
    kinds = sorted(set(dtypes.values()), key=lambda kind: -list(dtypes.values()).count(kind))
    return Written(out, files, sum(f.stat().st_size for f in files), len(dtypes), resumed, tuple(kinds))


def _refuse(out: Path, *, force: bool) -> None:
    """Refuse what exists; `force` replaces what an earlier merge wrote, and nothing else that might be dear."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    artifacts.refuse_existing(out, force=force)
    if not (out / RECORD).is_file():
        raise MedmindError(f"{out} is no merged model that medmind wrote (no {RECORD})", "give another --out")


def _steps(conversion: Conversion) -> Iterator[Step]:
    """The tensors under transformers' names and in its order of rows."""
    deltas = conversion.adapter.deltas if conversion.adapter else {}
    for placement in conversion.architecture.placements:
        name = placement.source
        here = replace(placement, target=name, heads=0)
        yield Step(here, conversion.merged_onto(conversion.tensors[name]), deltas.get(name))


def _require_space(partial: Path, shards: Shards) -> None:
    """What lies in partial files of the right size is on the disk already."""
    need = 0
    for file, layout in shards.layouts.items():
        held = [path.stat().st_size for path in (partial / file, partial / f".{file}.partial") if path.is_file()]
        need += layout.size - min(max(held, default=0), layout.size)
    artifacts.require_space(partial.parent, need, "the merged model")


def _clear(partial: Path, shards: Shards) -> None:
    """Remove what an interrupted start with other shards left."""
    ours = {name for file in shards.layouts for name in (file, f".{file}.partial", f".{file}.journal")}
    for path in partial.iterdir():
        if path.name not in ours:
            path.unlink()


def _write_rest(conversion: Conversion, folder: Path, shards: Shards, digests: Mapping[str, str]) -> None:
    """Everything but the weights, synced."""
    source = conversion.source
    tokens = tokenizer.directory(source.base.path, source.adapter)
    for where, patterns in ((source.base.path, _OF_THE_BASE), (tokens, _OF_THE_TOKENIZER)):
        for path in (found for pattern in patterns for found in sorted(where.glob(pattern))):
            shutil.copyfile(path, folder / path.name)
    if shards.index is not None:
        artifacts.write_json(folder / base.INDEX, _sorted(shards.index))
    artifacts.write_json(folder / RECORD, _record(conversion, digests))
    artifacts.write_text(folder / artifacts.MODEL_CARD, model_card.merged(source, onto=conversion.onto))
    for path in folder.iterdir():
        if path.suffix != ".safetensors" and not path.name.startswith("."):
            with path.open("rb+") as stream:
                os.fsync(stream.fileno())


def _record(conversion: Conversion, digests: Mapping[str, str]) -> dict[str, object]:
    source = conversion.source
    return {
        "format": FORMAT,
        "version": __version__,
        "name": source.name,
        "run": source.run,
        "base": {"name": source.base.name, "revision": source.base.revision, "digest": source.base_digest},
        "adapter": conversion.adapter_digest,
        "merged_onto": conversion.onto,
        "data": {key: (source.manifest.get("data") or {}).get(key) for key in ("source", "digest")},
        "system_prompt": source.system_prompt,
        "context": source.manifest.get("context"),
        "tensors": digests,
    }


def _sorted(index: Mapping[str, Mapping[str, object]]) -> dict[str, object]:
    """In the order in which transformers writes an index."""
    return {name: dict(sorted(part.items())) for name, part in sorted(index.items())}


def _publish(partial: Path, out: Path, old: Path) -> None:
    artifacts.sync_directory(partial)
    if out.exists():
        out.replace(old)
    partial.replace(out)
    artifacts.sync_directory(out.parent)
    _remove(old)


def _restore(old: Path, out: Path) -> None:
    """Bring back, or remove, what a start that was killed between two renames had moved aside."""
    if old.exists() and not out.exists():
        old.replace(out)
    _remove(old)


def _remove(old: Path) -> None:
    if old.is_dir():
        shutil.rmtree(old)
    else:
        old.unlink(missing_ok=True)
