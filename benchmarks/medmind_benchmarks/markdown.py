"""report.md: a report for people, every figure out of the typed report. Measures nothing, draws nothing."""

from medmind.console import human_bytes
from medmind_benchmarks import advice, footprint, pictures, statistics, tables, tables_detail
from medmind_benchmarks.opening import told
from medmind_benchmarks.results import Report
from medmind_benchmarks.tables import Table


def render(report: Report) -> str:
    """The whole page."""
    title = f"What each quantization of {report.run} costs" if report.run else "What each quantization costs"
    parts = [f"# {title}", *(f"**{text}**" for text in notices(report))]
    if not report.random_weights:
        parts.append(tables.verdict(report))
    if found := advice.lines(report):
        lines = [f"- **{machines}**: {text}" for machines, text in found]
        parts += ["## Which file for which machine", "\n".join(lines)]
    parts += [f"![{about}]({stem}.png)" for stem, (about, _) in pictures.available(report).items()]
    for name, content, about in sections(report):
        parts += [f"## {name}", table(content), *([about] if about else [])]
    gaps = tables_detail.gaps(report)
    if gaps.rows:
        parts += ["## Not measured", table(gaps)]
    parts += [
        "## Conditions",
        "\n".join(f"- {line}" for line in conditions(report)),
        "All figures are in `report.json`; `rows.jsonl`, `chunks.jsonl` and `questions.jsonl` hold what every level "
        "made of each row, chunk and question, and `medmind-bench compare` pairs them with those of another report.",
    ]
    return "\n\n".join(parts) + "\n"


def notices(report: Report) -> list[str]:
    """What a reader must know before any figure."""
    found = []
    if report.random_weights:
        found.append(
            "The weights of this model are random: it was never trained. Sizes, memory and speed are those of its "
            "shape; perplexity, fidelity and answers mean nothing here."
        )
    missing = [level for level in report.levels if level.status != "measured"]
    if missing:
        listed = "; ".join(f"{one.label} {one.status}: {one.reason}" for one in missing)
        found.append(f"Not all was measured. {listed}")
    compared = len(report.levels) > 1 or bool(report.level(report.reference).kv)
    if not report.level(report.reference).unquantized and compared:
        base = f" Raw text alone is compared with {report.raw_reference()}." if report.kl_base else ""
        found.append(
            f"There is no unquantized file that could be measured. The others are compared with {report.reference}, "
            f"itself quantized: what the quantization of that file cost is not in these figures.{base}"
        )
    return found


def sections(report: Report) -> list[tuple[str, Table, str]]:
    """Title, table and explanation of everything that was measured."""
    size = "Size and perplexity" if report.held_out else "Size"
    found = [(size, tables.quality(report), _about_quality(report))]
    if any(level.figures.raw for level in report.levels):
        found.append(("Perplexity of raw text", tables_detail.raw(report), _about_raw(report)))
    for where in ("answers", "raw"):
        pairs = [(level, getattr(level.figures, f"{where}_fidelity")) for level in report.levels]
        known = [(level, one) for level, one in pairs if one]
        if known:
            what = "held-out answers" if where == "answers" else "raw text"
            reference = report.reference if where == "answers" else report.raw_reference()
            about = _about_fidelity(reference, _groups(report, where))
            found.append((f"Fidelity to {reference}, {what}", tables_detail.fidelity(report, known), about))
    for task in dict.fromkeys(one.task for level in report.levels for one in level.figures.choices):
        found.append((f"Multiple choice: {task}", tables_detail.choices(report, task), _about_choices(report, task)))
    if any(level.figures.needs for level in report.levels):
        found.append(("Memory that a machine needs", tables_detail.needs(report), _about_needs(report)))
    if any(level.figures.memory for level in report.levels):
        found.append(("Memory", tables_detail.memory(report), _about_memory(report)))
    if any(level.prompt or level.generation for level in report.levels):
        found.append(("Speed", tables.speed(report), _about_speed(report)))
    if any(level.kv for level in report.levels):
        found.append(("Quantized KV cache", tables_detail.kv(report), _about_kv(report)))
    found.append(
        (
            "Files",
            Table(
                ("level", "file", "bytes", "parameters", "digest"),
                tuple((one.label, one.file, f"{one.size}", f"{one.parameters}", one.digest) for one in report.levels),
            ),
            "",
        )
    )
    return found


def table(content: Table) -> str:
    """A Markdown table; figures are right-aligned."""
    rule = ["---", *["---:"] * (len(content.columns) - 1)]
    lines = [content.columns, rule, *content.rows]
    return "\n".join("| " + " | ".join(text.strip().replace("|", "\\|") for text in line) + " |" for line in lines)


def _about_quality(report: Report) -> str:
    held_out = report.held_out
    if held_out is None:
        return "Perplexity of held-out answers was not asked for."
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
        f"SE is the one to judge a level by. {_about_bounds(held_out.rows)}"
    )


def _about_bounds(rows: int) -> str:
    """How far a 95 % bound over so many rows lies from its figure."""
    if rows < 2:
        return "From a single row no SE can be told."
    one, two = statistics.one_sided_95(rows), statistics.two_sided_95(rows)
    return (
        f"The SE are of {rows} rows; bounds and intervals of 95 % are by Student's t (degrees of freedom: {rows - 1}): "
        f"a bound lies {one:.2f} SE from its figure, a change of less than {two:.2f} SE is within the noise."
    )


def _about_raw(report: Report) -> str:
    text = report.raw_text
    if text is None:
        return ""
    return (
        f"By llama-perplexity's method on {text.source}: {text.chunks} of {text.chunks_in_text} chunks of {text.chunk} "
        "tokens, each beginning with BOS, its second half scored. The standard error is llama-perplexity's, over "
        "tokens as if they were independent; that of the change is over chunks, paired."
    )


def _about_fidelity(reference: str, groups: str) -> str:
    return (
        f"KL divergence of each next-token distribution from that of {reference}, over the whole vocabulary, in nats, "
        "on the same tokens. Same top token: both find the same token likeliest. Δp: of the token that stands in the "
        f"text. The standard errors take {groups} as independent."
    )


def _groups(report: Report, where: str) -> str:
    """What the standard errors of a text are over, with how many there are."""
    if where == "answers":
        return f"{report.held_out.rows} rows, not tokens," if report.held_out else "rows, not tokens,"
    return f"{report.raw_text.chunks} chunks, not tokens," if report.raw_text else "chunks, not tokens,"


def _about_choices(report: Report, task: str) -> str:
    one = next(one for level in report.levels for one in level.figures.choices if one.task == task)
    rule = (
        "by the gain: how much more likely the question makes it, since each option is the answer to some question and "
        "one is likelier than another whatever is asked"
        if one.headline == "accuracy_gain"
        else "by the sum of its tokens' log-probabilities, as published accuracies are made; options are letters"
    )
    return (
        f"{one.questions} questions with {one.choices:.3g} options on average; guessing is right in "
        f"{one.chance * 100:.0f} %. An option is chosen {rule}. Without the question says what the options alone give "
        f"away. Flips are against {report.reference}, over the same questions; the interval is Newcombe's, p McNemar's "
        "exact one."
    )


def _about_needs(report: Report) -> str:
    return (
        "In the load mode with the lowest peak, or what llama.cpp allocates where that is more. The smallest usual "
        f"machine has that much beside {human_bytes(report.conditions.reserve)} for its system, at the longest context."
    )


def _about_memory(report: Report) -> str:
    theirs = (
        "Batch and attention are those that chat chooses here, by model and threads."
        if report.conditions.memory_as_chat
        else "Batch and attention are those of the conditions below, not those that chat would choose here; its "
        "compute buffers may be of another size."
    )
    return (
        "Of a fresh process that loads the model, each with a context and in a load mode of its own, reads a prompt of "
        f"at most {footprint.PROMPT} tokens and generates a few. Measured by the system: the peak; the library's "
        "baseline (Python and llama.cpp loaded, no model); and, where the system tells them apart, what was allocated "
        "and what was mapped from the file at the end. As llama.cpp reports its allocations: weights, repacked weights "
        "(copies in a layout for this processor, beside the mapped file), KV cache and compute buffers. Pages of the "
        f"mapped file count as resident and can be given back under pressure. {theirs}"
    )


def _about_speed(report: Report) -> str:
    found = report.conditions
    return (
        f"Mean ± standard deviation over {found.rounds} fresh processes, the levels in turn, {found.repeats} "
        f"repetitions in each after a warm-up: a prompt of {found.prompt_tokens} tokens in batches of {found.batch}, "
        f"and {found.generated_tokens} tokens generated one by one, threads: {found.threads}. The ratios are taken "
        "within each round, so that what slows the machine for a while slows both sides; where absolute figures "
        "scatter, trust the ratios. Of the bandwidth: bytes that generating a token reads, times tokens a second, over "
        "the memory bandwidth measured in between; above 100 % where a model lies in the processor's caches. The first "
        f"token is that after a prompt of {found.prompt_tokens} tokens."
    )


def _about_kv(report: Report) -> str:
    figures = [one for level in report.levels for one in (level.figures, *level.kv)]
    text = "held-out answers" if any(one.answers for one in figures) else "raw text"
    parts = []
    if any(one.answers or one.raw for one in figures):
        parts.append(
            f"Perplexity and KL are of {text}, KL from {report.reference} with a 16-bit cache. Changes are paired: "
            "against the same file with its 16-bit cache, which is what the cache alone costs, and against "
            f"{report.reference} with a 16-bit cache."
        )
    if any(one.choices for one in figures):
        parts.append(f"Lost and won are questions, against {report.reference} with a 16-bit cache.")
    parts.append("All other tables, and the files of single rows, chunks and questions, are of the 16-bit cache.")
    return " ".join(parts)


def _caches(report: Report) -> str:
    first, *others = report.conditions.kv_types
    return f"{first}, where nothing else is said; {' and '.join(others)} as well" if others else first


def conditions(report: Report) -> list[str]:
    """Machine, versions and settings, a line each."""
    found = report.conditions
    load = "" if found.load_before is None else f"; load average before the start {found.load_before:.2f}"
    lines = [
        f"{found.created}, {found.seconds:.0f} s in all",
        f"{found.cpu}, {found.cores} cores, {human_bytes(found.memory)} of memory{load}",
        f"{found.system}",
        ", ".join(f"{name} {version}" for name, version in found.versions.items()),
        f"llama.cpp: {found.features}",
        f"context {found.context}, threads {found.threads}, KV cache {_caches(report)}",
        told(found.batch, flash=found.flash),
    ]
    if found.bandwidth:
        measured = found.bandwidth.bytes_per_second
        spread = "" if measured.deviation is None else f" ± {measured.deviation / 1e9:.2g}"
        lines.append(f"memory bandwidth {measured.mean / 1e9:.3g}{spread} GB/s, {found.bandwidth.method}")
    if report.held_out:
        lines.append(f"held-out set {report.held_out.digest}, token ids {report.held_out.token_digest}")
    return lines
