"""What a command line names: a run, an adapter on a base, or a base alone, and where the results go.

Knows run manifests and directories; opens no tensor.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from medmind import artifacts, base, console, digests, embedded
from medmind.errors import MedmindError
from medmind_convert import adapter as adapters
from medmind_convert import quants

Fetch = Callable[..., tuple[Path, str]]
UNKNOWN = "sha256:" + "0" * 64
"""Stands for a base's digest where no weight is to be read."""


@dataclass(frozen=True)
class Source:
    """A model to convert.

    Attributes:
        base: the base model, found and checked.
        base_digest: its fingerprint.
        adapter: PEFT adapter directory, or None for the base as it is.
        name: file name of the results, without the quantization.
        out: directory of the results.
        run: name of the run, or None.
        manifest: the run's manifest, or empty.
        heldout: held-out rows of the run; empty without a run, or where its rows were left out of this copy.
    """

    base: base.Base
    base_digest: str
    adapter: Path | None
    name: str
    out: Path
    run: str | None = None
    manifest: Mapping[str, Any] = field(default_factory=dict)
    heldout: Sequence[Mapping[str, Any]] = ()

    @property
    def trained_on(self) -> Literal["base", "nf4"]:
        """The base's weights beside which the adapter was trained: a run says it; of any other adapter, as stored."""
        known = (self.manifest.get("adapter") or {}).get("trained_on", artifacts.TRAINED_ON)
        return "nf4" if self.run is not None and self.adapter is not None and known == "nf4" else "base"

    @property
    def system_prompt(self) -> str:
        """The run's system prompt; may be empty."""
        return str(self.manifest.get("system_prompt") or "")


def split_arguments(arguments: Sequence[str], *, fitted: bool = False) -> tuple[list[quants.Quant], str | None]:
    """Tell quantization names from the source: a path that exists, or anything with a separator, is the source.

    Args:
        arguments: what was typed.
        fitted: whether a size was asked for, so that no quantization need be named.

    Raises:
        MedmindError: a word that is neither (the nearest quantization is suggested where one is near), or a second
            source.
    """
    names: list[str] = []
    sources: list[str] = []
    for argument in arguments:
        is_source = not quants.is_quant(argument) and (
            argument in (*embedded.BASES, *embedded.RUNS)
            or "/" in argument
            or "\\" in argument
            or Path(argument).exists()
        )
        (sources if is_source else names).append(argument)
    for argument in names:
        if not quants.is_quant(argument) and not quants.near(argument):
            raise MedmindError(
                f"'{argument}' is no quantization, and no run, base or adapter of that name exists",
                f"runs lie under {artifacts.RUNS}/, embedded are {', '.join((*embedded.BASES, *embedded.RUNS))}; "
                "the quantizations are listed by: medmind-convert plan",
            )
    if len(sources) > 1:
        raise MedmindError(f"two models named: {sources[0]} and {sources[1]}", "convert one at a time")
    return quants.parse(names) if names or not fitted else [], sources[0] if sources else None


def find(
    given: str | None,
    *,
    base_name: str | None = None,
    adapter: Path | None = None,
    revision: str | None = None,
    out: Path | None = None,
    name: str | None = None,
    assume_yes: bool = False,
    weigh: bool = True,
) -> Source:
    """Find the model to convert.

    Args:
        given: run directory, adapter directory, base directory, hub id, or what is embedded by its name; None takes
            `base_name` and `adapter`, else the newest run.
        base_name: the base, where it is not the one the run or adapter names.
        adapter: adapter directory.
        revision: of a base on the hub.
        out: where results go; by default into the run, else `runs/NAME`.
        name: file name of the results; by default the run's, the adapter's or the base's.
        assume_yes: do not ask before a download.
        weigh: compute the base's digest, for which weights are read; without, a text of its length stands in, unless
            a base was named beside an adapter of a run: it must be the run's in any case.

    Raises:
        MedmindError: nothing of that name, an unfinished run, or a base that is not the one that the run beside the
            adapter was trained on.
    """
    fetch = partial(_fetch, assume_yes=assume_yes)
    if given is None and base_name is None and adapter is None:
        given = str(artifacts.newest_run())
        console.note(f"converting the newest run, {given} (name another one to choose)")
    if given is not None:
        kind = _kind(given)
        if kind == "run":
            if adapter is not None:
                raise MedmindError(f"{given} is a run and has its own adapter", "leave --adapter or the run out")
            run = digests.verified(given) if given in embedded.RUNS else Path(given)
            found, digest, manifest, heldout = _run(run, base_name, revision, fetch, weigh=weigh)
            title = str(manifest.get("name") or run.resolve().name)
            if out is None:
                out = artifacts.RUNS / given if given in embedded.RUNS else run
            return Source(
                found,
                digest,
                run / artifacts.ADAPTER,
                _name(title if name is None else name),
                out,
                title,
                manifest,
                heldout,
            )
        if kind == "adapter" and adapter is None:
            adapter = Path(given)
        elif base_name is not None:
            raise MedmindError(f"two bases named: {given} and {base_name}", "leave one out")
        else:
            base_name = given
    if adapter is not None and not adapter.is_dir():
        raise MedmindError(f"{adapter} does not exist", "give a PEFT adapter directory")
    found = base.resolve(base_name or _base_of(adapter), revision=revision, fetch=fetch)
    if name is None:
        name = adapter.resolve().name if adapter is not None else Path(found.name).name
    name = _name(name)
    lies_in = _run_of(adapter)
    if adapter is not None and lies_in is None:
        console.note(f"base: {adapter} records no digest of it; only shapes can tell whether {found.name} is the one")
    digest = _digest(found, lies_in, adapter, weigh=weigh or (lies_in is not None and base_name is not None))
    return Source(found, digest, adapter, name, out or artifacts.RUNS / name)


def _kind(given: str) -> Literal["run", "adapter", "base"]:
    """What a name or path means; a name that is not embedded and has no directory can only be a base."""
    if given in embedded.RUNS:
        return "run"
    if given in embedded.BASES:
        return "base"
    path = Path(given)
    if path.is_dir():
        if (path / artifacts.MANIFEST).is_file() or (path / artifacts.ADAPTER).is_dir():
            return "run"
        if (path / adapters.CONFIG).is_file():
            return "adapter"
        if (path / "config.json").is_file():
            return "base"
        raise MedmindError(
            f"{path} is no run (no {artifacts.MANIFEST}), no base model (no config.json) and no adapter",
            f"the run that medmind carries is named {path.name} alone"
            if artifacts.is_embedded_run(path)
            else "runs are made by: medmind-train qlora",
        )
    if path.exists():
        raise MedmindError(f"{path} is a file", "give a run, or a model directory in the transformers format")
    if not base.looks_like_hub_id(given):
        raise MedmindError(f"{given} does not exist", "give a run, a model directory or a hub id")
    return "base"


def _base_of(adapter: Path | None) -> str:
    """The base that an adapter names."""
    named = adapters.read_config(adapter).get("base_model_name_or_path") if adapter is not None else None
    if not named:
        raise MedmindError(f"{adapter} does not say which base it was trained on", "give it with --base")
    console.note(f"base: {named}, as {adapter} names it")
    return str(named)


def _run(
    run: Path, base_name: str | None, revision: str | None, fetch: Fetch, *, weigh: bool
) -> tuple[base.Base, str, Mapping[str, Any], Sequence[Mapping[str, Any]]]:
    """The base of a run, its digest, the manifest and the held-out rows."""
    manifest = artifacts.read_run(run)
    recorded = manifest.get("base") or {}
    wanted = base_name or _recorded_base(recorded, run)
    found = base.resolve(wanted, revision=revision or recorded.get("revision"), fetch=fetch)
    digest = _digest(found, run, run / artifacts.ADAPTER, weigh=weigh or base_name is not None)
    if manifest.get("rows") == artifacts.ROWS_LEFT_OUT:
        return found, digest, manifest, ()
    heldout = artifacts.read_jsonl(run / artifacts.HELDOUT)
    _check_rows(heldout, run / artifacts.HELDOUT)
    return found, digest, manifest, heldout


def _digest(found: base.Base, run: Path | None, adapter: Path | None, *, weigh: bool) -> str:
    """The base's digest, refused where the run that an adapter lies in recorded another; `UNKNOWN` without weighing."""
    if not weigh:
        return UNKNOWN
    digest = base.fingerprint(found.path)
    if run is None:
        return digest
    recorded = artifacts.read_run(run).get("base") or {}
    if recorded.get("digest") != digest:
        raise MedmindError(
            f"the base at {found.path} ({digest[:19]}…) is not the one that {adapter} was trained on: "
            f"{run / artifacts.MANIFEST} records {recorded.get('path') or recorded.get('name')} "
            f"({str(recorded.get('digest'))[:19]}…)",
            "give that one with --base, or train again on this one",
        )
    return digest


def _run_of(adapter: Path | None) -> Path | None:
    """The run in which an adapter lies, however it is named; None for an adapter of another origin."""
    places = [] if adapter is None else [adapter.absolute().parent, adapter.resolve().parent]
    return next((place for place in places if (place / artifacts.MANIFEST).is_file()), None)


def _recorded_base(recorded: Mapping[str, Any], run: Path) -> str:
    """The name under which the run's base is found again: its directory for a local one."""
    kind, name, path = recorded.get("kind"), recorded.get("name"), recorded.get("path")
    if kind == "local" and path:
        if not Path(path).is_dir():
            raise MedmindError(f"the base of {run} was {path}, which is gone", "give its new place with --base")
        return str(path)
    if not name:
        raise MedmindError(f"{run / artifacts.MANIFEST} names no base", "give it with --base")
    return str(name)


def _check_rows(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    for number, row in enumerate(rows, 1):
        messages = row.get("messages")
        if not isinstance(messages, list) or not all(
            isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str)
            for m in messages or [None]
        ):
            raise MedmindError(f"row {number} of {file} has no messages", "the run is damaged: train it again")


def _fetch(repo_id: str, revision: str | None, *, assume_yes: bool) -> tuple[Path, str]:
    from medmind import hub

    return hub.fetch_model(repo_id, revision, assume_yes=assume_yes)


def _name(name: str) -> str:
    if name == "":
        raise MedmindError("the name is empty", "give another with --name, or leave it out")
    if not re.fullmatch(r"[\w][\w.+-]*", name):
        raise MedmindError(f"'{name}' cannot be a file name", "give another with --name: letters, digits, - _ . +")
    return name
