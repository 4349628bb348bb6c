"""What a conversation asks of an engine, be it llama.cpp's or a test's. Knows neither."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from medmind_runtime.engine.sampling import Sampling
from medmind_runtime.engine.timings import Timings


class ChatEngine(Protocol):
    """What a conversation asks of an engine; see `medmind_runtime.engine.engine.Engine`."""

    @property
    def context(self) -> int: ...  # noqa: D102

    @property
    def timings(self) -> Timings: ...  # noqa: D102

    def encode(self, messages: Sequence[Mapping[str, str]]) -> list[int]: ...  # noqa: D102

    def least_tokens(self, text: str) -> int: ...  # noqa: D102

    def detokenize(self, token: int) -> bytes: ...  # noqa: D102

    def is_end(self, token: int) -> bool: ...  # noqa: D102

    def evaluate(self, tokens: Sequence[int], *, cancel: Callable[[], bool]) -> None: ...  # noqa: D102

    def generate(  # noqa: D102
        self,
        tokens: Sequence[int],
        *,
        sampling: Sampling,
        max_tokens: int,
        cancel: Callable[[], bool],
        known: int,
        lookup_text: str,
    ) -> Iterator[int]: ...
