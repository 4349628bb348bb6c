"""grounding.md: every figure out of the typed report. Measures nothing."""

from medmind_benchmarks.grounding import tables
from medmind_benchmarks.grounding.results import Report
from medmind_benchmarks.markdown import table

_ABOUT = (
    "Each question is put to the model twice as medmind-chat would put it: alone, and with the passages that the "
    "library has for it and the instruction to use them. Both sides score the same tokens of the same held-out "
    "answer, as many as chat keeps room for. Perplexity is exp(Σ negative log-likelihood ÷ tokens); its standard error "
    "and that of the paired change take rows, not tokens, as independent; what is called noise is a 95 % interval by "
    "Student's t with a degree of freedom for each row but one. Topic own: a passage of the row's own focus "
    "and question type is in the prompt; others: none is. Likelier: the share of rows whose answer the passages "
    "make likelier."
)
_ABOUT_CHOICES = (
    "Which of four held-out answers belongs to the question: the option to whose likelihood the prompt adds most. "
    "Guessing gets 25 %. The interval of the paired difference is Newcombe's; won and lost are questions."
)
_ABOUT_RETRIEVAL = (
    "No model has a part in this. Recall is over the questions of whose focus and type the library holds an answer, "
    "with Wilson's 95 % interval. Where the library has nothing, chat says so and asks no model."
)


def render(report: Report) -> str:
    """The whole page."""
    parts = ["# What a library does to the answers", "\n".join(f"- {line}" for line in tables.verdict(report))]
    parts += ["## Perplexity of held-out answers", table(tables.perplexities(report)), _ABOUT]
    choices = tables.choices(report)
    if choices.rows:
        parts += ["## Multiple choice", table(choices), _ABOUT_CHOICES]
    parts += ["## Retrieval", table(tables.retrieval(report)), _ABOUT_RETRIEVAL]
    parts += ["## Conditions", "\n".join(f"- {line}" for line in _conditions(report))]
    parts.append("All figures are in `grounding.json`, those of single rows in `rows.jsonl`.")
    return "\n\n".join(parts) + "\n"


def _conditions(report: Report) -> list[str]:
    found = report.conditions
    dropped = "".join(f"; {count} more {reason}" for reason, count in found.left_out.items())
    held = ", ".join(
        f"{model} {context:,} tokens, {found.reserve[model]} of them for the answer, {found.kv_type[model]} KV cache"
        for model, context in found.context.items()
    )
    return [
        f"{found.created}, {found.cpu}, {found.cores} cores, {found.system}",
        f"rows: {found.rows} of {found.rows_in_file:,} in `{found.heldout}` ({found.heldout_digest[:19]}…){dropped}",
        f"context: {held}; {found.threads} thread{'s' if found.threads > 1 else ''}; "
        "batch and attention as chat chooses them",
        *(f"model {one.label}: `{one.file}` ({one.digest[:19]}…)" for one in report.models),
        *(f"library {one.label}: `{one.file}` ({one.digest[:19]}…), {one.topics:,} topics" for one in report.libraries),
        ", ".join(f"{name} {version}" for name, version in found.versions.items()),
    ]
