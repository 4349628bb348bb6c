"""A search for people: its table on the terminal, and `report.md`. Knows the document; computes nothing anew."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from medmind_train.report import duration
from medmind_train.search import noise

HEAD = ("", "targets", "rank", "alpha", "lr", "trained", "steps", "validation loss ± SE", "above the best", "")


def rows(document: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A line a trial, the last rung first, the lowest loss first; the chosen one has a star."""
    by_number = {one["number"]: one for one in document["candidates"]}
    last = len(document["rungs"])
    lines: list[tuple[str, ...]] = []
    for trial in sorted(document["trials"], key=lambda one: (-one["rung"], one["loss"] is None, one["loss"] or 0)):
        candidate, above = by_number[trial["candidate"]], trial["above_best"]
        star = trial["rung"] == last and trial["candidate"] == document["chosen"]["candidate"]
        lines.append(
            (
                f"{trial['candidate']}{'*' if star else ''}",
                candidate["targets"],
                str(candidate["rank"]),
                f"{candidate['alpha']:g}",
                f"{candidate['lr']:.2g}",
                f"{candidate['trained']:,}",
                f"{trial['steps']:,}",
                f"{trial['loss']:.4f} ± {trial['error']:.4f}" if trial["loss"] is not None else trial["status"],
                f"{above['value']:+.4f} ± {above['error']:.4f}" if above else "",
                above["words"] if above else "best" if trial["loss"] is not None else "",
            )
        )
    return lines


def table(document: Mapping[str, Any]) -> Table:
    """The trials for a terminal of 80 columns, a paragraph a rung."""
    shown = ("", "targets", "rank", "alpha", "lr", "steps", "loss", "above the best", "")
    found = Table(*shown, box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for column in (*found.columns[2:8],):
        column.justify = "right"
    steps = None
    for number, targets, rank, alpha, lr, _, trained_for, loss, above, words in rows(document):
        if steps not in (None, trained_for):
            found.add_row()
        steps = trained_for
        cells = (number, targets, rank, alpha, lr, trained_for, loss.partition(" ±")[0], above, words)
        style = "bold" if number.endswith("*") else ""
        found.add_row(*(Text(cell, style=style, no_wrap=True, overflow="ellipsis") for cell in cells))
    return found


def sentences(document: Mapping[str, Any]) -> list[str]:
    """What the search found, and what may not be concluded from it."""
    chosen, candidates = document["chosen"], {one["number"]: one for one in document["candidates"]}
    last = [one for one in document["trials"] if one["rung"] == len(document["rungs"])]
    told = [
        f"chosen: candidate {chosen['candidate']}, lr {chosen['lr']:.3g}, rank {chosen['rank']}, alpha "
        f"{chosen['alpha']:g}, {chosen['targets']}"
    ]
    if document["config"]["compare"] == "targets":
        told += _comparison(last, candidates)
    alike = _names(last, noise.WITHIN)
    unsure = _names(last, noise.UNCERTAIN)
    if alike:
        told.append(f"within one standard error of it, so not to be told from it: {alike}")
    if unsure:
        told.append(f"within the 95 % interval of the difference, so not for certain behind it: {unsure}")
    for rung in range(1, len(document["rungs"])):
        kept = {one["candidate"] for one in document["trials"] if one["rung"] == rung + 1}
        dropped = [one for one in document["trials"] if one["rung"] == rung and one["candidate"] not in kept]
        if close := _names(dropped, noise.WITHIN):
            told.append(f"dropped on rung {rung} within one standard error of its best: {close}")
    told += _against_given(document) + _edges(document)
    if failed := [one for one in document["trials"] if one["status"] != "done"]:
        names = ", ".join(f"{one['candidate']} ({one['status']})" for one in failed)
        told.append(f"failed: {names}")
    return told


def _edges(document: Mapping[str, Any]) -> list[str]:
    """Where the choice lies at an end of what was tried."""
    chosen, told = document["chosen"], []
    rates = [one["lr"] for one in document["candidates"]]
    for word, edge, flag in (("highest", max(rates), "--lr-to"), ("lowest", min(rates), "--lr-from")):
        if chosen["lr"] == edge:
            told.append(f"its learning rate is the {word} that was tried: another search could go on from it ({flag})")
    return told


def _names(trials: Sequence[Mapping[str, Any]], words: str) -> str:
    found = [str(one["candidate"]) for one in trials if one["above_best"] and one["above_best"]["words"] == words]
    return "candidates " + ", ".join(found) if len(found) > 1 else "candidate " + found[0] if found else ""


def _comparison(last: Sequence[Mapping[str, Any]], candidates: Mapping[int, Mapping[str, Any]]) -> list[str]:
    """The last rung has the best of each target."""
    told = []
    for trial in last:
        candidate, above = candidates[trial["candidate"]], trial["above_best"]
        loss = f"{trial['loss']:.4f} ± {trial['error']:.4f}" if trial["loss"] is not None else trial["status"]
        behind = f", {above['value']:+.4f} ± {above['error']:.4f} above the best ({above['words']})" if above else ""
        told.append(
            f"{candidate['targets']}, rank {candidate['rank']}, {candidate['trained']:,} trained weights, its best "
            f"lr {candidate['lr']:.2g}: validation loss {loss}{behind}"
        )
    return told


def _against_given(document: Mapping[str, Any]) -> list[str]:
    """How the settings as given did on the last rung they were on, unless they are what was chosen."""
    given = next((one for one in reversed(document["trials"]) if one["candidate"] == 1), None)
    if document["config"]["compare"] == "targets" or given is None or document["chosen"]["candidate"] == 1:
        return []
    if given["above_best"] is None:
        return [
            "the settings as given (candidate 1) were dropped"
            if given["loss"] is None
            else f"the settings as given (candidate 1) were the best of rung {given['rung']}"
        ]
    above = given["above_best"]
    return [
        f"the settings as given (candidate 1) were {above['value']:+.4f} ± {above['error']:.4f} above the best of rung "
        f"{given['rung']} ({above['words']})"
    ]


def markdown(document: Mapping[str, Any]) -> str:
    """`report.md` of a search."""
    run, data, base = document["run"], document["data"], document["base"]
    rungs = ", then ".join(f"{one['candidates']} candidates of {one['steps']:,} steps" for one in document["rungs"])
    lines = [HEAD, tuple("---" for _ in HEAD), *rows(document)]
    body = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    found = "\n".join(f"- {line}." for line in sentences(document))
    sections = [
        f"# {document['name']}\n\n{found}",
        f"```sh\nmedmind-train qlora --config {document['chosen']['config']}\n```",
        "![losses of all trials](search.png)",
        f"## Trials\n\n{body}",
        f"Losses are nats per answer token of {data['validation_rows']:,} validation rows, which are neither trained "
        "on nor held out for the final figure. ± is one standard error with the row as the sampling unit. The column "
        "beside it is the difference to the best trial of the same rung, taken row by row, which is far more exact "
        "than the losses themselves: clear is what lies outside its 95 % interval. Only trials of one rung can be "
        "compared: each trains anew, its learning rate rising and falling within its own steps. All have one seed: "
        "the noise of another data order or another start of the adapter is in no figure here.",
        f"## Cost\n\nA run has {run['steps']:,} steps and {run['tokens']:,} tokens. The search had {rungs}: "
        f"{document['spent']:.3f} runs of the {document['budget']:g} allowed ({document['planned']:.3f} at most, as "
        f"planned), {duration(document['seconds'])} of training. Counted are floating-point operations by "
        "arithmetic, tokens times what each adapter costs a token; scoring counts for the search and not for the run "
        "that it is compared with. Steps done a second time after a kill are not counted.",
        f"## Data and base\n\n{data['source']} (`{data['digest']}`), {base['name']} (`{base['digest']}`).",
    ]
    return "\n\n".join(sections) + "\n"
