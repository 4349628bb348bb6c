"""How much text a model of some size is scored on when the user does not say: fewer rows for a larger model.

Knows counts and parameters. Goes by the size of the model and never by a clock: the same files are scored on the same
rows on every machine and after every interruption, so that results can be taken over and compared.
"""

from dataclasses import replace

from medmind_benchmarks.config import QUICK, QuantsConfig

_WHOLE = 50_000_000
"""Parameters up to which a level takes minutes on two cores with the defaults as they are."""
_COUNTS = {
    "rows": ("rows", {"answers"}),
    "chunks": ("chunks of raw text", {"raw"}),
    "most_questions": ("questions", {"choices"}),
}
"""Setting → what it counts, and the measurements that it is a count of."""


def fit(config: QuantsConfig, parameters: int) -> tuple[QuantsConfig, str]:
    """Reduce the counts that the user did not give, in proportion to the model's size, to those of `--quick` at least.

    Args:
        config: with `asked`.
        parameters: of the model.

    Returns:
        The settings to measure with, and a line that says what was reduced; empty when nothing was.
    """
    fewer = {}
    for name, (_, measures) in _COUNTS.items():
        usual = getattr(config, name)
        count = max(min(usual, getattr(QUICK, name)), int(usual * _WHOLE / max(parameters, _WHOLE)))
        if name not in config.asked and count < usual and measures & set(config.measure):
            fewer[name] = count
    if not fewer:
        return config, ""
    now = ", ".join(f"{count} {_COUNTS[name][0]}" for name, count in fewer.items())
    usual_counts = ", ".join(str(getattr(config, name)) for name in fewer)
    options = ", ".join(f"--{name.replace('_', '-')}" for name in fewer)
    return replace(config, **fewer), (
        f"a model of {parameters / 1e9:.2g} billion parameters is scored on {now} at most instead of {usual_counts}, "
        f"or a level would take hours; {options} set them"
    )
