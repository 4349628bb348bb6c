"""Where each step's line goes: metrics.jsonl, the screen, trackers. Knows that only the first process tells."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medmind.artifacts import METRICS
from medmind_train import agreement, distributed, live_view, metrics, trackers
from medmind_train.live_view import View
from medmind_train.metrics import StepMetrics
from medmind_train.qlora_config import QloraConfig

Tell = Callable[[StepMetrics], None]


@contextmanager
def opened(
    run: Path, config: QloraConfig, *, total: int, past: Sequence[dict[str, Any]], after: int
) -> Iterator[tuple[Tell, View]]:
    """Open all of them for a run of `total` steps.

    Args:
        past: the lines of metrics.jsonl that it goes on from.
        after: the step that it goes on from.

    Yields:
        What tells a step, to be called in every process, and what a person sees between two steps.

    Raises:
        MedmindError: a tracker that cannot be opened, in all processes.
    """
    with ExitStack() as stack:
        tells: list[Tell] = []
        with agreement.together():
            if distributed.is_first():
                track = stack.enter_context(trackers.logging(config.log_to, run, config=asdict(config), after=after))
                tells = [stack.enter_context(metrics.appending(run / METRICS)), track]
            view = stack.enter_context(live_view.display(total, past))

        def tell(line: StepMetrics) -> None:
            with agreement.together():
                for one in (*tells[:1], view.step, *tells[1:]):
                    one(line)

        yield tell, view
