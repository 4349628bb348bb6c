"""report.md of a benchmark of training steps: every figure out of the typed report. Measures nothing, draws nothing."""

from medmind.console import human_bytes
from medmind_benchmarks.markdown import table
from medmind_benchmarks.training import tables
from medmind_benchmarks.training.results import FLOOR, Report

CHART = "memory-and-speed.png"


def render(report: Report) -> str:
    """The whole page."""
    found = report.conditions
    random = [row for row in report.rows if row.fill == "random"]
    missing = [row for row in report.rows if row.status != "measured"]
    name = f"{found.base} (random weights)" if found.synthetic else found.base
    parts = [f"# A training step of {name} on {found.card}", tables.verdict(report).replace("\n", "\n\n")]
    if missing:
        lines = [f"- **{row.label}**{_fill(row.fill)} {row.status}: {row.reason}" for row in missing]
        parts.append("Not measured:\n\n" + "\n".join(dict.fromkeys(lines)))
    parts += [
        f"![Peak memory against tokens per second]({CHART})",
        "## Memory",
        table(tables.memory(report)),
        _about_memory(report),
        "## Speed",
        table(tables.speed(report)),
        _about_speed(report),
    ]
    ratios = tables.against(report, random)
    if len(ratios.columns) > 1:
        parts += ["How many times as fast as each other, repeat by repeat (median):", table(ratios)]
    parts += ["## Against a full fine-tune at the same batch", *_full(report)]
    if found.data:
        parts += ["## Real data", table(tables.data(report)), _about_data(report)]
        ratios = tables.against(report, [row for row in report.rows if row.fill != "random"])
        if len(ratios.columns) > 1:
            parts += ["How many times as many supervised tokens a second (median of the repeats):", table(ratios)]
    parts += ["## Conditions", _conditions(report), "All figures are in `report.json`."]
    return "\n\n".join(parts) + "\n"


def _fill(fill: str) -> str:
    return "" if fill == "random" else f" ({fill} rows of data)"


def _about_memory(report: Report) -> str:
    found = report.conditions
    cap = f" Torch could reserve {human_bytes(found.cap)} at most; more would have failed." if found.cap else ""
    if found.device != "cuda":
        return (
            "There is no card: the figure is the most of the measuring process that was resident, libraries included."
        )
    return (
        "Allocated and reserved are torch's own counts, loading and steps apart. In use on the card is the driver's "
        "count between the steps, less what was in use before the process began: context and managed memory, which "
        f"escape torch's count and its cap, are in it.{cap} Memory carries over to other cards of the same kind; speed "
        "does not."
    )


def _about_speed(report: Report) -> str:
    found = report.conditions
    text = (
        f"Measured on {found.card} and true of it alone. Median (lowest–highest) of {found.repeats} repeats, each in "
        f"a fresh process, the modes in turn; a repeat is the median of {found.steps} steps after {found.warmup} that "
        "do not count. A step is forward, backward and update, from token ids in host memory on."
    )
    if found.matmul:
        rates = " and ".join(f"{rate / 1e12:,.3g}" for rate in found.matmul.samples)
        text += (
            f" The floor is the time of {FLOOR} FLOP × {found.linear:,} weights of the decoder's matrices × tokens at "
            f"the rate of large {found.matmul_dtype} products of random numbers, measured on the same card in the same "
            f"run ({rates} TFLOP/s before and after). A full fine-tune has a third more to compute than this floor; a "
            "step that keeps its activations has less."
        )
    return text


def _full(report: Report) -> list[str]:
    whole = [row for row in report.rows if row.mode == "full" and row.fill == "random"]
    if not whole:
        return ["Not asked for: add `full` to `--modes`."]
    content = tables.full(report)
    parts = [table(content)] if content.rows else []
    for row in whole:
        if row.speed is None:
            at = f" at {human_bytes(row.memory.peak)}" if row.memory and row.status == "out of memory" else ""
            parts.append(f"{row.label}: {row.status}{at}, so that nothing can be compared with it here.")
    if content.rows:
        price = report.conditions.price
        cost = f" Cost is at {price:g} an hour of this machine." if price is not None else ""
        parts.append(
            "The same rows a step, weights and gradients of the full fine-tune in the compute type, AdamW's moments "
            f"too. To keep: the trained tensors, which are all that one fine-tune needs of its own.{cost}"
        )
    return parts


def _about_data(report: Report) -> str:
    found = report.conditions
    return (
        f"Training rows of {found.data}, encoded with the base's tokenizer. Ours take packed rows; the others one "
        "example a row in random order, padded to the longest of its batch, as the usual trainer does. A rate is all "
        "supervised tokens over all seconds: rows of data differ, and a median would hide that."
    )


def _conditions(report: Report) -> str:
    found = report.conditions
    load = "" if found.load_before is None else f"; load average before the start {found.load_before:.2f}"
    card = f"{found.card}, {human_bytes(found.card_memory)}" if found.card_memory else found.card
    cap = human_bytes(found.cap) if found.cap else "none"
    lines = [
        f"- {found.created}, {found.seconds:.0f} s in all",
        f"- card: {card}" if found.device == "cuda" else "- no card, computed on the CPU",
        f"- {found.cpu}, {found.cores} cores, {human_bytes(found.memory)} of memory{load}",
        f"- {found.system}",
        "- " + ", ".join(f"{name} {version}" for name, version in _versions(report).items()),
        f"- {found.base}: {found.parameters:,} parameters{', random weights' if found.synthetic else ''}; "
        f"{found.dtype}; LoRA rank {found.rank} on {found.targets}; cap {cap}; budget {found.vram}",
    ]
    flags = {row.mode: row.flags for row in report.rows if row.flags}
    lines += [f"- {mode}: " + ", ".join(f"{name} {text}" for name, text in of.items()) for mode, of in flags.items()]
    return "\n".join(lines)


def _versions(report: Report) -> dict[str, str]:
    found = dict(report.conditions.versions)
    for row in report.rows:
        found |= row.versions
    return found
