"""report.md: a report for people, every figure out of the typed report. Measures nothing, draws nothing."""

from medmind.console import human_bytes
from medmind_benchmarks import tables
from medmind_benchmarks.results import Report
from medmind_benchmarks.tables import Table

CHART = "perplexity-by-size.png"


def render(report: Report) -> str:
    """The whole page."""
    title = f"What each quantization of {report.run} costs" if report.run else "What each quantization costs"
    missing = [level for level in report.levels if level.status != "measured"]
    parts = [f"# {title}", tables.verdict(report)]
    if missing:
        parts.append(
            "Not measured:\n\n" + "\n".join(f"- **{one.label}** {one.status}: {one.reason}" for one in missing)
        )
    if not report.level(report.reference).unquantized:
        parts.append(
            f"**No unquantized file could be measured.** The others are compared with {report.reference}, itself "
            "quantized: what the quantization of that file cost is not in these figures."
        )
    parts += [
        f"![Perplexity against file size]({CHART})",
        "## Size and perplexity",
        table(tables.quality(report)),
        _about_quality(report),
        "## Memory",
        table(tables.memory(report)),
        _about_memory(report),
        "## Speed",
        table(tables.speed(report)),
        _about_speed(report),
        "## Conditions",
        _conditions(report),
        "## Files",
        table(
            Table(
                ("level", "file", "bytes", "parameters", "digest"),
                tuple((one.label, one.file, f"{one.size}", f"{one.parameters}", one.digest) for one in report.levels),
            )
        ),
        "All figures are in `report.json`; `rows.jsonl` holds each held-out row's log-likelihood under every level.",
    ]
    return "\n\n".join(parts) + "\n"


def table(content: Table) -> str:
    """A Markdown table; figures are right-aligned."""
    rule = ["---", *["---:"] * (len(content.columns) - 1)]
    lines = [content.columns, rule, *content.rows]
    return "\n".join("| " + " | ".join(text.strip().replace("|", "\\|") for text in line) + " |" for line in lines)


def _about_quality(report: Report) -> str:
    held_out = report.held_out
    if held_out is None:
        return f"The perplexity of {report.reference} could not be measured."
    used = (
        f"all {held_out.rows_in_file} held-out rows"
        if held_out.rows == held_out.rows_in_file
        else f"{held_out.rows} of {held_out.rows_in_file} held-out rows (those whose content has the smallest SHA-256)"
    )
    cut = f" {held_out.cut} answers were cut at the context." if held_out.cut else ""
    dropped = f" {held_out.dropped} turns were left out: their question fills the context." if held_out.dropped else ""
    return (
        f"Measured on {used} of `{held_out.file}`: {held_out.answers} answers, {held_out.tokens} tokens, the token "
        f"that ends an answer included.{cut}{dropped} Perplexity is exp(Σ negative log-likelihood ÷ tokens) of the "
        "answers given their questions. The standard error (SE) treats rows, not tokens, as independent. Difference "
        "and change are paired: both models read the same rows, so what makes a row hard for both cancels, and their "
        "SE is the one to judge a level by; a change of less than two SE is within the noise."
    )


def _about_memory(report: Report) -> str:
    return (
        f"Of a fresh process that loads the model with a context of {report.conditions.context} tokens, reads a prompt "
        f"of {report.conditions.prompt_tokens} tokens and generates {report.conditions.generated_tokens}. Measured by "
        "the system: the peak; the library's baseline (Python and llama.cpp loaded, no model); and, where the system "
        "tells them apart, what was allocated and what was mapped from the file at the end. As llama.cpp reports its "
        "allocations: weights, repacked weights (copies in a layout for this processor, beside the mapped file), "
        "KV cache and compute buffers. Pages of the mapped file count as resident and can be given back under pressure."
    )


def _about_speed(report: Report) -> str:
    found = report.conditions
    return (
        f"Mean ± standard deviation over {found.rounds} fresh processes, the levels in turn, {found.repeats} "
        f"repetitions in each after a warm-up: a prompt of {found.prompt_tokens} tokens in batches of {found.batch}, "
        f"and {found.generated_tokens} tokens generated one by one, threads: {found.threads}. The ratios are taken "
        "within each round, so that what slows the machine for a while slows both sides; where absolute figures "
        "scatter, trust the ratios."
    )


def _conditions(report: Report) -> str:
    found = report.conditions
    load = "" if found.load_before is None else f"; load average before the start {found.load_before:.2f}"
    lines = [
        f"- {found.created}, {found.seconds:.0f} s in all",
        f"- {found.cpu}, {found.cores} cores, {human_bytes(found.memory)} of memory{load}",
        f"- {found.system}",
        "- " + ", ".join(f"{name} {version}" for name, version in found.versions.items()),
        f"- llama.cpp: {found.features}",
        f"- context {found.context}, batch {found.batch}, threads {found.threads}, KV cache {found.kv_type}",
    ]
    if report.held_out:
        lines.append(f"- held-out set {report.held_out.digest}, token ids {report.held_out.token_digest}")
    return "\n".join(lines)
