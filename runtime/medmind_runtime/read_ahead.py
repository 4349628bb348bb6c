"""Reading ahead: what of the next prompt is known before its question is, evaluated while somebody reads and types.

A template may put the system text by the last question (Mistral v0.3's does), so that the last question and its answer
stand elsewhere in the next prompt. Knows when that may be evaluated and when not; how is the engine's business.

The KV cache holds one conversation: /regen and /edit evaluate the system text and the last question with its passages
once more, as far as another question would have had them elsewhere. Only a second copy in memory would spare that.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from medmind_runtime.background import Background
from medmind_runtime.prompt import common

if TYPE_CHECKING:
    from medmind_runtime.terminal.interactive import Opened

_QUESTIONS = "the", "is"
"""They share no first token, and begin as most questions do: no line break or sign that joins what stands before."""


def known_tokens(encode: Callable[[str], list[int]], room: int) -> list[int]:
    """The tokens that the next prompt begins with whatever is asked.

    Args:
        encode: question → prompt.
        room: tokens that a prompt may have.

    Returns:
        None of them where no question fits: earlier turns have to leave then.
    """
    one, other = map(encode, _QUESTIONS)
    return one[: common(one, other)] if max(len(one), len(other)) <= room else []


def ready_to_begin(opening: "Background[Opened]", *, after: Callable[[], None], compute: bool) -> Background[None]:
    """Reading ahead behind a prompt, not begun: `start` it when the model is there; `close` ends it and waits.

    What goes wrong here goes wrong again when the question is asked, and is told there.

    Args:
        opening: the model; but for what `after` waits for, nothing else may use it from `start` to `close`.
        after: waits until nothing uses the model any more.
        compute: False only lets go of what the next prompt does not begin with. The next evaluation then begins at the
            same token as with True, so that the answers are the same to the bit.
    """

    def read(cancel: Callable[[], bool]) -> None:
        after()
        conversation = opening.wait().conversation
        last = conversation.last
        if last is None or last.timings.prompt_tokens:  # else the guard answered, and this is no time to read
            conversation.read_ahead(cancel if compute else lambda: True)

    return Background("read ahead", read)
