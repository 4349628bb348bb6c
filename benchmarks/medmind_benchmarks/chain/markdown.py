"""chain.md: every figure out of the typed report. Measures nothing, draws nothing."""

from medmind_benchmarks.chain import tables
from medmind_benchmarks.chain.results import AGREEMENT, Report
from medmind_benchmarks.markdown import table
from medmind_benchmarks.opening import told

CHART = "chain.png"


def render(report: Report) -> str:
    """The whole page."""
    missing = [f"- **{step.label}** {step.status}: {step.reason}" for step in report.steps if step.status != "measured"]
    parts = [f"# From base to file: {report.run}", "\n\n".join(tables.verdict(report))]
    if missing:
        parts.append("Not measured:\n\n" + "\n".join(missing))
    parts += [f"![Perplexity and KL divergence at each step]({CHART})", table(tables.steps(report)), _about(report)]
    if report.agreement:
        parts += ["## The same weights in two engines", table(tables.agreement(report)), _about_agreement()]
    parts += ["## Conditions", _conditions(report)]
    parts.append("All figures are in `chain.json`, those of single rows in `rows.jsonl`.")
    return "\n\n".join(parts) + "\n"


def _about(report: Report) -> str:
    found = report.conditions
    return (
        f"Every step scored the same {found.tokens:,} answer tokens of {found.rows:,} held-out rows. Perplexity is "
        "exp(Σ negative log-likelihood ÷ tokens) of the answers given their questions; its standard error (SE) takes "
        "rows, not tokens, as independent. What is called noise is a 95 % interval by Student's t over those rows. "
        "Changes are paired: both models read the same rows, so what makes a row "
        "hard for both cancels. The change at a step is against the step that it was made of: the trained model "
        "against the base, both merges against the trained model, each file against the merge that it says it was made "
        "of. KL "
        "divergence is Σ p ln(p ÷ q) over the whole vocabulary, p being the trained model (the adapter on the NF4 "
        "base that it was trained on) and q the step; same top is the share of tokens where both find the same token "
        "most likely. The base is the untuned one in its own type; merged is PEFT's merge_and_unload rounded to that "
        "type, merged-nf4 the same onto what NF4 leaves of the base."
    )


def _about_agreement() -> str:
    return (
        "Perplexity of the merged weights, by transformers in the base's type and by llama.cpp from the files that "
        f"hold the same numbers in 16 or 32 bits. Within {AGREEMENT:.1%} the engines compute the same, and what the "
        "other files lose is lost by their quantization."
    )


def _conditions(report: Report) -> str:
    found = report.conditions
    computed = ", ".join(
        f"{step.label} in {step.dtype}" for step in report.steps if step.engine == "transformers" and step.dtype
    )
    left = f", {found.left_out:,} more were beyond the limits" if found.left_out else ""
    threads = f"{found.threads} thread{'s' if found.threads > 1 else ''}"
    versions = found.versions | found.training_versions
    return "\n".join(
        f"- {line}"
        for line in (
            f"{found.created}, {found.cpu}, {found.cores} cores, {found.system}",
            f"base {report.base}; adapter {report.adapter[:19]}…",
            f"rows: {found.rows:,} of `{found.heldout}` ({found.heldout_digest[:19]}…){left}",
            f"transformers on {found.device}: {computed}; llama.cpp on the CPU, {threads}, f16 KV cache, "
            f"{told(found.batch, flash=found.flash)}",
            ", ".join(f"{name} {version}" for name, version in versions.items() if name != "platform"),
        )
    )
