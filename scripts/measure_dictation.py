"""What guessing ahead saves of generation where a model says the answers of another: of a small one that was taught, as
a large one would.

    python scripts/measure_lookup.py answers SMALL.gguf --library FILE --questions heldout.jsonl --keep said.jsonl
    python scripts/measure_dictation.py LARGE.gguf said.jsonl --threads 2

Every token is evaluated by chat's own engine, and the sampler chooses one each time; taken is the one that was kept.
Prints JSON, one document a line.
"""

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from medmind.artifacts import read_jsonl
from medmind_runtime.engine import generation
from medmind_runtime.engine.assembly import assemble
from medmind_runtime.engine.sampling import Sampling
from medmind_runtime.engine.speculation import Exact
from medmind_runtime.engine.timings import Timings
from medmind_runtime.engine.vocabulary import Vocabulary
from medmind_runtime.interruption import never


@dataclass(frozen=True)
class Said:
    """An answer in tokens.

    Attributes:
        lookup_text: what it may repeat, and was not before the model.
        prompt: what was.
        answer: what followed.
        circle: whether it was cut because it went round in one.
    """

    lookup_text: Sequence[int]
    prompt: Sequence[int]
    answer: Sequence[int]
    circle: bool

    @property
    def given(self) -> Sequence[int]:
        """All that the answer may repeat, the prompt last."""
        return [*self.lookup_text, *self.prompt]


class Dictated:
    """llama.cpp, whose sampler chooses as ever, and one of `tokens` after the other is taken in its choice's place."""

    def __init__(self, lib: ModuleType, tokens: Sequence[int]) -> None:
        self._lib, self._tokens = lib, iter(tokens)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lib, name)

    def llama_sampler_sample(self, sampler: Any, context: Any, row: int) -> int:
        """The next token, once the sampler has chosen."""
        self._lib.llama_sampler_sample(sampler, context, row)
        return next(self._tokens)


class Unread(Vocabulary):
    """A vocabulary that ends no answer and whose every text is `lookup_text`: the tokens are another model's."""

    lookup_text: Sequence[int] = ()

    def tokenize(self, text: str, *, special: bool, ends: bool = False) -> list[int]:
        """What is given with the prompt at hand."""
        return list(self.lookup_text)

    def is_end(self, token: int) -> bool:
        """Never."""
        return False


def dictated(path: Path, kept: Path, threads: int, count: int) -> Iterator[dict[str, Any]]:
    """Seconds of generation for `count` answers, with and without guesses, each answer in turn."""
    told = [Said(**row) for row in read_jsonl(kept)][:count]
    parts = assemble(path, threads=threads, kv_type=None, lookup=True)
    words = Unread(parts.lib, parts.weights.handle)
    ways = {"guessed": parts.exact, "alone": Exact(hopeless=True)}

    def say(one: Said, exact: Exact) -> Timings:
        words.lookup_text, timings = one.lookup_text, Timings(prompt_tokens=len(one.prompt))
        lib: Any = Dictated(parts.lib, one.answer)
        every = generation.continued(
            replace(parts, lib=lib, exact=exact),
            words,
            one.prompt,
            sampling=Sampling(),
            max_tokens=len(one.answer),
            timings=timings,
            cancel=never,
            known=0,
            lookup_text="",
        )
        if list(every) != list(one.answer):
            raise SystemExit("an answer was not said as it was kept")
        return timings

    say(told[0], ways["guessed"])  # the first answer tries which batches are exact
    taken: dict[str, list[float]] = {way: [] for way in ways}
    drafted = accepted = 0
    for turn, one in enumerate(told):
        for way in sorted(ways, reverse=bool(turn % 2)):
            timings = say(one, ways[way])
            taken[way].append(timings.generation_seconds)
            drafted, accepted = drafted + timings.drafted, accepted + timings.accepted
        yield {"answer": turn, "tokens": len(one.answer), **{way: round(taken[way][-1], 3) for way in ways}}
    pairs = list(zip(taken["alone"], taken["guessed"], strict=True))
    order = random.Random(1)
    drawn = sorted(_ratio(order.choices(pairs, k=len(pairs))) for _ in range(2000))
    yield {
        "answers": len(told), "tokens": sum(len(one.answer) for one in told), "threads": threads,
        "exact rows": parts.exact.rows, "drafted": drafted, "accepted": accepted,
        "speed-up": round(_ratio(pairs), 3), "95 % by bootstrap over answers": [round(drawn[n], 3) for n in (50, 1949)],
    }  # fmt: skip
    parts.close()


def _ratio(pairs: Sequence[tuple[float, float]]) -> float:
    return sum(alone for alone, _ in pairs) / sum(guessed for _, guessed in pairs)


def main() -> None:
    """Measure one model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("kept", type=Path, help="answers, as measure_lookup.py keeps them")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--count", type=int, default=40, help="answers at most")
    given = parser.parse_args()
    for row in dictated(given.model, given.kept, given.threads, given.count):
        print(json.dumps({"model": given.model.name, **row}), flush=True)


if __name__ == "__main__":
    main()
