"""A conversation: its turns, what of them fits the context, and what is kept of an answer.

Knows an engine and a guard by their protocols. Knows no terminal, and keeps nothing outside memory.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from medmind.errors import MedmindError
from medmind_runtime import model_answer
from medmind_runtime.chat_engine import ChatEngine
from medmind_runtime.engine.sampling import Sampling
from medmind_runtime.engine.timings import Timings
from medmind_runtime.exchange import DoesNotFit, Prompt, Reply, Use
from medmind_runtime.guard import Before, Guard, Unguarded
from medmind_runtime.interruption import never, unless
from medmind_runtime.prompt import common
from medmind_runtime.read_ahead import known_tokens
from medmind_runtime.turn import Passage, Turn, messages

__all__ = ["Conversation", "Turn"]

_LONG = 16
"""Characters for each token of the context from which on it is asked whether a text could fit, and not tokenized."""


class Conversation:
    """Turns of one user with one engine.

    Attributes:
        system: the system prompt; always stays in the context, as do the guard's instructions. Empty for none.
        turns: everything said, also what has left the context.
        first: index of the first turn that is still in the context.
        last: the last answer.
    """

    def __init__(
        self, engine: ChatEngine, *, system: str, sampling: Sampling, max_tokens: int, guard: Guard | None = None
    ) -> None:
        if max_tokens < 1:
            raise MedmindError(f"max-tokens is {max_tokens} and must be 1 or more")
        self.engine = engine
        self.system = system
        self.sampling = sampling
        self.max_tokens = max_tokens
        self.guard = guard or Unguarded()
        self.turns: list[Turn] = []
        self.first = 0
        self.last: Reply | None = None

    def clear(self) -> None:
        """Forget all turns; the system prompt stays."""
        self.turns.clear()
        self.first = 0
        self.last = None

    def begin_anew(self, system: str) -> None:
        """Forget all turns and take another system prompt.

        Raises:
            DoesNotFit: it leaves no room for the shortest question; nothing has changed then.
        """
        before, self.system = self.system, system
        try:
            self._demand_room("?", "system prompt" if system else "question")
        except BaseException:
            self.system = before
            raise
        self.clear()

    def undo(self) -> Turn | None:
        """Take back the last turn and return it; None when there is none."""
        if not self.turns:
            return None
        turn = self.turns.pop()
        self.first = min(self.first, len(self.turns))
        self.last = None
        return turn

    def consider(self, question: str, cancel: Callable[[], bool] = never) -> Before:
        """What the guard has to say before the model is asked; needs no engine."""
        return self.guard.before(question, self.turns, cancel)

    def fit(
        self,
        question: str,
        before: Before | None = None,
        *,
        drop: bool = True,
        cancel: Callable[[], bool] = never,
    ) -> Prompt:
        """Make the prompt for a question; the oldest turns leave the context if it would not fit otherwise.

        A quarter of the context, or `max_tokens` if that is less, is kept free for the answer. Turns leave first; the
        question's passages, the last of them first, only when they do not fit even alone. Where the answer would be a
        document and the guard has something to say first, that is the whole answer. Turns leave for an answer of the
        guard alone, too; where it fits beside nothing, it is given and does not stay in the context; but a question
        that is too long itself is answered with nothing but what to do now.

        Args:
            question: as typed.
            before: of `consider`, when it was asked already.
            drop: whether turns may leave; otherwise what does not fit is refused.
            cancel: of `fitted`, and of the guard.

        Raises:
            DoesNotFit: the question does not fit even alone with the system prompt; nothing has changed then.
            Interrupted: cancelled.
        """
        prompt = self.fitted(question, before or self.consider(question, cancel), drop=drop, cancel=cancel)
        self.take(prompt)
        return prompt

    def take(self, prompt: Prompt) -> None:
        """Let the turns go that have no room beside a prompt of `fitted`."""
        self.first += prompt.dropped

    def fitted(
        self,
        question: str,
        before: Before,
        *,
        drop: bool = True,
        cancel: Callable[[], bool] = never,
    ) -> Prompt:
        """What `fit` makes, with nothing changed: no turn leaves until `take`. From any thread.

        Args:
            question, before, drop: of `fit`.
            cancel: asked before each rendering, of which a long text takes long.

        Raises:
            DoesNotFit: as `fit`.
            Interrupted: cancelled.
        """
        document = bool(self.sampling.grammar)
        if before.alone or (document and before.opening):  # JSON cannot begin with what to do now: none is made
            dropped, remembered = self._room_for(question, before.opening, cancel) if drop else (0, True)
            if not before.rule and not (drop and remembered):  # what to do now is told whatever the question's length
                self._demand_room(question)
            return Prompt(question, (), dropped, replace(before, alone=True), remembered=remembered)
        what = "question" if drop or not self.turns else "conversation"
        trouble: DoesNotFit | None = None
        for passages, first in self._ways_to_fit(before, drop):
            unless(cancel)
            try:
                tokens = self._encoded(
                    self._messages(first, self.guard.place(question, passages)), what, before.opening
                )
            except DoesNotFit as error:
                trouble = error
            else:
                return Prompt(question, tokens, first - self.first, before, passages, document)
        assert trouble is not None
        raise trouble

    def _demand_room(self, question: str, what: str = "question") -> None:
        """Refuse a question that is too long even alone; `what` of it is too long."""
        self._encoded(self._messages(len(self.turns), question), what)

    def _encoded(self, rows: Sequence[Mapping[str, str]], what: str, opening: str = "") -> list[int]:
        """The tokens of a prompt that fits.

        Raises:
            DoesNotFit: there are too many, for which a long text need not be tokenized; `what` is too long.
        """
        context, reserve = self.engine.context, self._reserve()
        texts = [row["content"] for row in rows]
        long = sum(map(len, texts)) > _LONG * context
        surely = sum(map(self.engine.least_tokens, texts)) if long else 0
        tokens = [] if surely + reserve > context else self.engine.encode(rows)
        taken = len(tokens) or surely
        if taken + reserve <= context:
            return tokens
        raise DoesNotFit(
            what,
            taken,
            counted=bool(tokens),
            system=bool(self._system()),
            context=context,
            reserve=reserve,
            opening=opening,
        )

    def use(self) -> Use:
        """How full the context is now."""
        system = len(self.engine.encode(self._messages(len(self.turns), "")))
        turns = len(self.engine.encode(self._messages(self.first, ""))) - system
        return Use(self.engine.context, system, turns, max(0, self.engine.context - system - turns), self._reserve())

    def read_ahead(self, cancel: Callable[[], bool] = never) -> None:
        """Evaluate what the next prompt will begin with; see `medmind_runtime.read_ahead`."""
        if known := self._known():
            self.engine.evaluate(known, cancel=cancel)

    def with_known(self, prompt: Prompt) -> Prompt:
        """A prompt of `fit` that tells apart what `read_ahead` evaluates, at the cost of two renderings.

        Its answer is the same to the bit whether that was evaluated or not; needed only where somebody reads ahead.
        """
        return replace(prompt, known=common(prompt.tokens, self._known())) if prompt.tokens else prompt

    def _known(self) -> list[int]:
        return known_tokens(
            lambda question: self.engine.encode(self._messages(self.first, question)),
            self.engine.context - self._reserve(),
        )

    def _reserve(self) -> int:
        return min(self.max_tokens, self.engine.context // 4)

    def _room_for(self, question: str, answer: str, cancel: Callable[[], bool]) -> tuple[int, bool]:
        """How many of the oldest turns leave so that one that needs no model fits beside the others.

        Returns:
            That; and whether it fits, be it alone.
        """
        turn = Turn(question, answer)

        def fits(first: int) -> bool:
            unless(cancel)
            try:
                return bool(self._encoded(self._messages(first, "", [turn]), "question"))
            except DoesNotFit:
                return False

        before, last = self.first, len(self.turns)
        fitting = next((first for first in range(before, last + 1) if fits(first)), None)
        return (last if fitting is None else fitting) - before, fitting is not None

    def _ways_to_fit(self, before: Before, drop: bool) -> Iterator[tuple[Sequence[Passage], int]]:
        """Passages and the first turn to be kept, what loses least first."""
        last = len(self.turns) if drop else self.first
        for first in range(self.first, last + 1):
            yield before.passages, first
        for count in reversed(range(len(before.passages))):
            yield before.passages[:count], last

    def answer(
        self,
        prompt: Prompt,
        *,
        cancel: Callable[[], bool] = never,
        sampling: Sampling | None = None,
        opened: bool = False,
    ) -> Generator[str, None, None]:
        """Stream the answer as text; a character is held back until all its bytes are there.

        When the stream ends, the turn is part of the conversation and `last` tells how it went. An answer that was
        cancelled before its first word leaves no turn.

        Args:
            prompt: of `fit`.
            cancel: asked often; True ends the answer.
            sampling: in place of the conversation's.
            opened: the guard's opening has been shown already and is not streamed again.
        """
        if prompt.before.alone:
            yield from self._guards_answer(prompt, opened)
        else:
            yield from model_answer.streamed(
                self.engine,
                prompt,
                self.guard.watch(prompt.question, prompt.passages, document=prompt.document),
                partial(self._keep, prompt),
                sampling=sampling or self.sampling,
                max_tokens=self.max_tokens,
                cancel=cancel,
                opened=opened,
            )

    def _guards_answer(self, prompt: Prompt, opened: bool) -> Iterator[str]:
        opening = prompt.before.opening
        self._keep(prompt, Reply(opening, "stop", Timings(), None))
        if not prompt.remembered:
            self.first = len(self.turns)
        if opening and not opened:
            yield opening

    def _keep(self, prompt: Prompt, reply: Reply) -> None:
        self.last = reply
        if reply.text or reply.finish != "cancelled":
            self.turns.append(Turn(prompt.question, reply.text, tuple(prompt.passages), judged=True))

    def _system(self) -> str:
        return "\n\n".join(filter(None, (self.system, self.guard.instructions)))

    def _messages(self, first: int, question: str, more: Sequence[Turn] = ()) -> list[dict[str, str]]:
        return messages(self._system(), [*self.turns[first:], *more], question)
