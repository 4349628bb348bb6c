"""A search from its settings to the settings it recommends, new or resumed. Knows the order of things, no part."""

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medmind import console
from medmind.artifacts import atomic_directory, write_json, write_text
from medmind.base import EMBEDDED_NAME
from medmind.errors import MedmindError
from medmind_train import evaluate, hardware, lora, memory_full, rundir, token_cache
from medmind_train.config import build, to_yaml
from medmind_train.data_order import DataOrder
from medmind_train.examples import Example
from medmind_train.inputs import Inputs, read
from medmind_train.interrupt import Interrupt
from medmind_train.qlora_config import REFERENCE_BASE, recipe
from medmind_train.search import cost, halving, place, results, space
from medmind_train.search.config import SearchConfig, check, run_settings
from medmind_train.search.halving import Plan
from medmind_train.search.place import Outcome
from medmind_train.search.space import Candidate
from medmind_train.search.trial import Bench

FEW_ROWS = 30
"""Validation rows below which it is said that they are few."""


def start(layers: Sequence[Mapping[str, Any]], *, force: bool, assume_yes: bool) -> tuple[Path, dict[str, Any]]:
    """Search anew.

    Args:
        layers: settings by name, the later ones winning.
        force: replace a search of the same name.
        assume_yes: download without asking.

    Returns:
        The folder of the search and its document.

    Raises:
        MedmindError: anything wrong with settings, base, data, budget or place; no folder is left then.
    """
    given = build(SearchConfig, *layers)
    machine = hardware.describe(given.device)
    base = given.base or (REFERENCE_BASE if machine.device == "cuda" else EMBEDDED_NAME)
    config = build(SearchConfig, {"base": base}, recipe(base), *layers)
    check(config)
    folder = place.location(config, base, str(config.data))
    place.refuse_taken(folder, force=force)
    inputs = read(run_settings(config), machine, assume_yes=assume_yes)
    _check_targets(config, inputs)
    validation = _validation(inputs)
    price = _Price(inputs, validation)
    plan = halving.make(config, price.steps, lambda count: space.propose(config, price.matrices, count), price.planned)
    document: dict[str, Any] = {
        "format": place.FORMAT,
        "name": folder.resolve().name,
        "finished": False,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "base": {"name": inputs.base.name, "revision": inputs.base.revision, "digest": inputs.base_digest},
        "data": {
            "source": inputs.prepared.source,
            "where": inputs.prepared.where,
            "digest": inputs.prepared.digest,
            "validation_rows": len({example.row for example in validation}),
        },
        "config": asdict(config),
        "run": {"steps": price.steps, "tokens": price.tokens[-1], "flop": price.whole},
        "budget": config.budget,
        "planned": plan.cost,
        "rungs": [asdict(rung) for rung in plan.rungs],
        "candidates": [asdict(one) for one in plan.candidates],
    }
    with atomic_directory(folder) as partial:
        (partial / place.TRIALS).mkdir()
        write_text(
            partial / rundir.CONFIG,
            to_yaml(run_settings(config), f"what the search {document['name']} started from"),
        )
        write_json(partial / place.SEARCH, document)
    return _search(folder, document, config, inputs, validation, price)


def resume(folder: Path, layers: Sequence[Mapping[str, Any]], *, assume_yes: bool) -> tuple[Path, dict[str, Any]]:
    """Go on with a search; settings given along must be those it was started with. A finished one is shown again.

    Raises:
        MedmindError: no search, or other settings, data or base than it began with.
    """
    document = place.read(folder)
    config = place.config_of(document)
    names = {name for layer in layers for name, value in layer.items() if value is not None}
    place.refuse_other_config(folder, config, build(SearchConfig, *layers), names)
    if document["finished"]:
        console.note(f"{folder} is finished")
        return folder, document
    rundir.remove_leavings(folder)
    inputs = read(run_settings(config), hardware.describe(config.device), assume_yes=assume_yes)
    rundir.refuse_other_start(folder, document, inputs.prepared.digest, inputs.base_digest)
    validation = _validation(inputs)
    return _search(folder, document, config, inputs, validation, _Price(inputs, validation))


class _Price:
    """What candidates cost, scoring included, in runs as given, of which only the training counts."""

    def __init__(self, inputs: Inputs, validation: Sequence[Example]) -> None:
        config = inputs.config
        self.matrices = cost.Matrices.of(inputs.base.path)
        self.steps = DataOrder(inputs.train.examples, config).total
        self.tokens = cost.tokens_by_step(inputs.train.examples, config, self.steps)
        self._scored = sum(len(example.ids) for example in validation)
        own = self.matrices.trained(config.targets, config.rank, dora=config.dora)
        self.whole = self.tokens[-1] * self.matrices.training(own)

    def planned(self, candidate: Candidate, steps: int) -> float:
        """Of a candidate on a rung of so many steps."""
        return self.spent(candidate, self.tokens[steps])

    def spent(self, candidate: Candidate, tokens: int) -> float:
        """Of a candidate that was trained on so many tokens, and scored."""
        flop = tokens * self.matrices.training(candidate.trained)
        return (flop + self._scored * self.matrices.scoring(candidate.trained)) / self.whole


def _search(
    folder: Path,
    document: dict[str, Any],
    config: SearchConfig,
    inputs: Inputs,
    validation: Sequence[Example],
    price: _Price,
) -> tuple[Path, dict[str, Any]]:
    plan = place.plan_of(document)
    _announce(document, plan)
    outcomes: list[Outcome] = []
    way = f"medmind-train search --resume {shlex.quote(str(folder))}"
    try:
        with Interrupt() as interrupt:
            largest = max(plan.candidates, key=lambda one: (one.trained, one.number))

            def set_up() -> Bench:
                hint = f"close what else uses it and go on with: {way} - or start again with a smaller --base"
                with memory_full.said(inputs.hardware.name, lambda: hint):
                    return Bench(inputs, validation, largest, price.spent)

            bench = _Lazy(set_up)
            alive = list(plan.candidates)
            for number, rung in enumerate(plan.rungs, 1):
                losses = {}
                for candidate in alive:
                    trial = place.trial(folder, candidate.number, number)
                    ended = place.outcome(trial)
                    if ended is None:
                        ended = bench.get().run(candidate, number, rung.steps, trial, interrupt)
                        outcomes.append(ended)
                        _tell(ended, candidate, number, plan, outcomes)
                    else:
                        outcomes.append(ended)
                    losses[candidate.number] = results.loss(ended)
                if number < len(plan.rungs):
                    alive = halving.survivors(alive, losses, plan.rungs[number].candidates)
    except KeyboardInterrupt:
        done = sum(place.outcome(path) is not None for path in (folder / place.TRIALS).glob("*"))
        console.note(f"interrupted; {done} trials are done and kept; go on with: {way}")
        raise
    last = [one for one in outcomes if one.rung == len(plan.rungs)]
    if all(math.isinf(results.loss(one)) for one in last):
        raise MedmindError(
            f"all candidates of the last rung failed; the first: {last[0].reason}",
            "search lower learning rates (--lr-to), or a smaller --batch",
        )
    return folder, results.finish(folder, document, config, plan, outcomes)


class _Lazy:
    """A bench that is set up when the first trial needs it: a search may be all done but for its report."""

    def __init__(self, make: Callable[[], Bench]) -> None:
        self._make = make
        self._bench: Bench | None = None

    def get(self) -> Bench:
        if self._bench is None:
            self._bench = self._make()
        return self._bench


def _validation(inputs: Inputs) -> list[Example]:
    """The validation rows as examples, at most `eval_rows` of them."""
    config, rows = inputs.config, inputs.prepared.validation
    encoded = token_cache.encode(
        inputs.tokenizer,
        inputs.base.path,
        rows,
        f"validation {inputs.prepared.digest}",
        context=config.context,
        system=config.system,
    )
    chosen = evaluate.choose_rows(encoded.examples, [row.id for row in rows], config.eval_rows)
    count = len({example.row for example in chosen})
    if count < 2:
        raise MedmindError(
            f"{inputs.prepared.where} leaves {count} validation rows to choose by",
            "give a larger --validation-share, such as 0.1, or more data",
        )
    if count < FEW_ROWS:
        console.note(f"only {count} validation rows to choose by: small differences will not show (--validation-share)")
    return chosen


def _check_targets(config: SearchConfig, inputs: Inputs) -> None:
    for targets in space.targets(config):
        lora.check(inputs.base, targets)


def _announce(document: Mapping[str, Any], plan: Plan) -> None:
    run = document["run"]
    rungs = ", then ".join(f"{rung.candidates} × {rung.steps:,} steps" for rung in plan.rungs)
    console.note(
        f"one run: {run['steps']:,} steps, {run['tokens']:,} tokens; the search: {rungs}, which costs at most "
        f"{plan.cost:.2f} runs of the {document['budget']:g} it may take, scoring included"
    )


def _tell(ended: Outcome, candidate: Candidate, number: int, plan: Plan, outcomes: Sequence[Outcome]) -> None:
    spent = sum(one.cost for one in outcomes)
    what = ended.status
    if ended.status == "done":
        measured = results.perplexity(ended)
        what = f"validation loss {measured.nll:.4f} ± {measured.error / measured.value:.4f}"
    console.note(
        f"rung {number}/{len(plan.rungs)} · candidate {candidate.number}: {candidate} · {what} · {spent:.2f} runs spent"
    )
