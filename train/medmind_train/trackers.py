"""Where else the lines of metrics go: TensorBoard's event files, Weights & Biases. Knows their libraries, no training.

Nothing leaves the machine unless `wandb` is asked for.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from medmind import console
from medmind.errors import MedmindError
from medmind_train.metrics import StepMetrics

TENSORBOARD = "tensorboard"
WANDB = "wandb"
INSTALLS: Mapping[str, tuple[str, str]] = {
    TENSORBOARD: ("tensorboardX", "pip install 'medmind[tensorboard]'"),
    WANDB: ("wandb", "pip install wandb"),
}
"""By tracker: the package it needs, and how to get that."""
_PROJECT = "medmind"

Log = Callable[[StepMetrics], None]


def names(log_to: str | None) -> list[str]:
    """The trackers in a value of --log-to, each once.

    Raises:
        MedmindError: an unknown one, or one whose package is not installed.
    """
    wanted = list(dict.fromkeys(name.strip() for name in (log_to or "").split(",") if name.strip()))
    for name in wanted:
        if name not in INSTALLS:
            raise MedmindError(f"--log-to cannot be '{name}'", f"choose from {', '.join(INSTALLS)}, apart by commas")
        package, install = INSTALLS[name]
        try:
            import_module(package)
        except ImportError as error:
            raise MedmindError(
                f"--log-to {name} needs the Python package '{package}', which is not installed", f"run: {install}"
            ) from error
    return wanted


@contextmanager
def logging(log_to: str | None, run: Path, *, config: Mapping[str, Any], after: int) -> Iterator[Log]:
    """Open the trackers; what is yielded tells a step to all of them.

    Args:
        run: the run directory; its name is the run's name.
        config: the settings, for those that show them.
        after: the step that training goes on from: what was told of later ones is void.

    Raises:
        MedmindError: a tracker that cannot be opened.
    """
    openers = {TENSORBOARD: _tensorboard, WANDB: _wandb}
    with ExitStack() as stack:
        logs = [stack.enter_context(openers[name](run, config, after)) for name in names(log_to)]

        def log(line: StepMetrics) -> None:
            for one in logs:
                one(line)

        yield log


def _values(line: StepMetrics) -> dict[str, float]:
    """A line as name and number, what was measured on validation rows apart from training."""
    values = {name: value for name, value in asdict(line).items() if value is not None and name != "step"}
    return {
        f"validation/{name.removeprefix('validation_')}" if name.startswith("validation_") else f"train/{name}": value
        for name, value in values.items()
    }


@contextmanager
def _tensorboard(run: Path, config: Mapping[str, Any], after: int) -> Iterator[Log]:
    library: Any = import_module("tensorboardX")
    folder = run / TENSORBOARD
    console.note(f"TensorBoard: tensorboard --logdir {folder}")
    writer = library.SummaryWriter(logdir=str(folder), purge_step=after + 1, flush_secs=10)
    try:

        def log(line: StepMetrics) -> None:
            for name, value in _values(line).items():
                writer.add_scalar(name, value, line.step)

        yield log
    finally:
        writer.close()


@contextmanager
def _wandb(run: Path, config: Mapping[str, Any], after: int) -> Iterator[Log]:
    library: Any = import_module("wandb")
    name = run.resolve().name
    try:
        session = library.init(project=_PROJECT, name=name, id=name, resume="allow", dir=str(run), config=dict(config))
    except Exception as error:  # its own classes differ from version to version; without it, nothing has begun yet
        raise MedmindError(
            f"Weights & Biases cannot be used: {error}",
            "run: wandb login, set WANDB_MODE=offline, or go on without it: --log-to ''",
        ) from error
    # Its own count of steps cannot go back, as a run that goes on must.
    session.define_metric("step")
    session.define_metric("*", step_metric="step")
    code = 1
    try:
        yield lambda line: session.log({"step": line.step, **_values(line)})
        code = 0
    finally:
        session.finish(exit_code=code)
