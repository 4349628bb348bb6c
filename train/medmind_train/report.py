"""What a finished run says of itself: `report.md`. Knows Markdown; every number comes from the manifest."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medmind.console import human_bytes
from medmind_train import early_stopping, report_sections
from medmind_train.report_sections import table

ENDS_WANTED = 0.99
"""Share of true ends at which a model that has learned to stop finds EOS the likeliest token."""


def headline(results: Mapping[str, Any]) -> str:
    """The one line that matters, as `held-out perplexity 12.0 → 7.0`."""
    before, after = results["perplexity"]["before"]["value"], results["perplexity"]["after"]["value"]
    return f"held-out perplexity {_short(before)} → {_short(after)}"


def perplexity_line(measured: Mapping[str, Any]) -> str:
    """As `12.03 ± 0.41`."""
    return f"{measured['value']:,.2f} ± {measured['error']:,.2f}"


def ending_lines(results: Mapping[str, Any]) -> list[str]:
    """Whether the model ends its answers, as sentences; empty where nothing was looked at."""
    lines = []
    ends, stopping = results["ends"]["after"], results["stopping"]
    if ends["of"]:
        share = ends["right"] / ends["of"]
        short = "" if share >= ENDS_WANTED else f", short of {ENDS_WANTED:.0%}"
        lines.append(f"EOS is the likeliest token at {share:.1%} of {ends['of']:,} ends of held-out answers{short}")
    if stopping:
        lines.append(
            f"{stopping['stopped']} of {stopping['questions']} greedy answers stop by themselves within "
            f"{stopping['limit']:,} tokens, {stopping['looped']} loop, {stopping['unfinished']} go on"
        )
    return lines


def duration(seconds: float) -> str:
    """As `2 h 03 min`, `4 min 09 s` or `12.3 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def next_commands(run: Path) -> list[tuple[str, str]]:
    """What to type after training, each with what it does."""
    place = shlex.quote(str(run))
    return [
        (f"medmind-convert gguf q4_k_m {place}", "make a model file of about 4 bits a weight"),
        (f"medmind-chat {place}", "talk to it, offline"),
        (f"medmind-bench quants {place}", "measure what each level of quantization costs"),
    ]


def markdown(manifest: Mapping[str, Any], run: Path) -> str:
    """The report of a run, from its manifest."""
    results, data, base = manifest["results"], manifest["data"], manifest["base"]
    before, after = results["perplexity"]["before"], results["perplexity"]["after"]
    time, memory = results["seconds"], results["memory"]
    change = 100 * (after["value"] / before["value"] - 1)
    device, processes = results["device"], results.get("processes", 1)
    endings = ending_lines(results)
    begun, samples, took = results["ends"]["before"], results["samples"], results["footprint"]
    sections = [
        f"# {manifest['name']}\n\n**{headline(results)}** ({change:+.1f} %), {after['tokens']:,} answer tokens of "
        f"{after['rows']:,} held-out rows.\n\n![training and held-out loss](loss.png)",
        "## Result\n\n"
        + table(
            ("", "before", "after"),
            [
                ("held-out perplexity ± standard error", perplexity_line(before), perplexity_line(after)),
                ("nats per answer token", f"{before['nll']:.4f}", f"{after['nll']:.4f}"),
            ],
        )
        + "\n\nPerplexity is over the tokens of the held-out answers and the EOS that ends them, given the question. "
        "The standard error takes a row as the sampling unit."
        + "".join(f"\n\n{told[0].upper()}{told[1:]}." for told in early_stopping.sentences(results["chosen"])),
        "## Ends of answers\n\n"
        + "\n".join(f"- {line}." for line in endings or ["nothing was looked at"])
        + (f"\n\nBefore training it was {begun['right'] / begun['of']:.1%} of the ends." if begun["of"] else "")
        + " The ends are looked at with the true answer before them; an answer that was cut by the context has none. "
        "An answer that says its own end again and again loops.",
        *(["## Sample answers\n\n" + report_sections.sample_answers(samples)] if samples else []),
        "## Data\n\n"
        + table(
            ("", "training", "held out"),
            [("rows", f"{data['counts']['train']:,}", f"{data['counts']['heldout']:,}")]
            + [
                (name.replace("_", " "), f"{count:,}", f"{results['encoding']['heldout'][name]:,}")
                for name, count in results["encoding"]["train"].items()
            ],
        )
        + f"\n\nSource: {data['source']} (`{data['digest']}`). The held-out rows are in `heldout.jsonl`; no focus "
        "is on both sides.",
        "## Cost\n\n"
        + table(
            ("", ""),
            [
                ("device", f"{device['name']} ({device['device']}, {device['dtype']})"),
                *([("processes", f"{processes}, sharing every step's rows")] if processes > 1 else []),
                ("training", f"{results['steps']:,} steps in {duration(time['training'])}"),
                ("evaluation", duration(time["evaluation"])),
                ("reading data", duration(time["reading"])),
                ("loading", duration(time["loading"])),
                ("speed", f"{results['tokens_per_s']:,.0f} tokens/s"),
                ("padding", f"{results['padding']:.1%} of what went through the model"),
                ("peak memory", f"{human_bytes(memory['peak'])} ({memory['of']})"),
                ("trained parameters", f"{results['parameters']['trained']:,}"),
                ("adapter", human_bytes(results["adapter_bytes"])),
                *report_sections.energy_and_price(took),
            ],
        ),
        "## Against a full fine-tune\n\n" + report_sections.full_fine_tuning(took),
        "## Base\n\n"
        + table(
            ("", ""),
            [("name", base["name"]), ("revision", base["revision"] or "–"), ("digest", f"`{base['digest']}`")],
        ),
        "## Settings\n\n"
        + table(("setting", "value"), [(name, json.dumps(value)) for name, value in manifest["config"].items()]),
        "## Versions\n\n" + table(("package", "version"), list(manifest["versions"].items())),
        "## Next\n\n```sh\n" + "\n".join(f"{command}  # {what}" for command, what in next_commands(run)) + "\n```",
    ]
    return "\n\n".join(sections) + "\n"


def _short(value: float) -> str:
    return f"{value:.1f}" if value < 1000 else f"{value:,.0f}"
