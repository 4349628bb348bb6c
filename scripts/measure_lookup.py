"""What guessing ahead can give on this machine: which batches have the bits of single tokens, what they cost, how often
guesses are right in answers over a library, and the speed-up that follows.

    python scripts/measure_lookup.py bits MODEL.gguf...
    python scripts/measure_lookup.py costs MODEL.gguf... --threads 2
    python scripts/measure_lookup.py answers MODEL.gguf --library medquad.library --questions heldout.jsonl --keep FILE

`bits` and `costs` compare weights repacked for this CPU with weights as they lie in the file, in turn. What is kept of
answers is for measure_dictation.py. Prints JSON, one document a line.
"""

import argparse
import itertools
import json
import random
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evaluating import Context, Model
from measure_dictation import Said

from medmind.artifacts import read_jsonl
from medmind_runtime.conversation import Conversation
from medmind_runtime.engine import lookup
from medmind_runtime.engine.engine import Engine, Sampling
from medmind_runtime.exchange import Prompt
from medmind_runtime.library.index import Library
from medmind_runtime.repetition import Circle
from medmind_runtime.safety.careful import Careful

ROWS = range(2, 17)
PROMPT, STEP = 256, 128
MOST_TOKENS = 300
"""Of an answer."""
RESULTS = Path(__file__).parents[1] / "benchmarks/results/mistral-7b-shape-lookup-cpu.json"


def opened(path: Path, *, repack: bool, threads: int, kv: str, flash: bool) -> Context:
    """A model of its own and a context over it."""
    model = Model(path, repack=repack)
    return Context(model, size=4 * PROMPT, step=STEP, threads=threads, keys=kv, values=kv, flash=flash)


def shut(context: Context) -> None:
    """Free both."""
    context.close()
    context.model.close()


def exact_rows(context: Context) -> list[int]:
    """Numbers of rows whose logits, and those of the token after them, are to the bit those of single tokens."""
    tokens = context.model.chance(PROMPT + ROWS[-1] + 1)
    context.evaluate(tokens[:PROMPT], 0)
    singles = []
    for place in range(PROMPT, len(tokens)):
        context.evaluate(tokens[place : place + 1], place)
        singles.append(context.logits(0))
    found = []
    for rows in ROWS:
        context.evaluate(tokens[PROMPT : PROMPT + rows], PROMPT, every_logit=True)
        same = [context.logits(row) for row in range(rows)] == singles[:rows]
        context.evaluate(tokens[PROMPT + rows : PROMPT + rows + 1], PROMPT + rows)
        if same and context.logits(0) == singles[rows]:
            found.append(rows)
    return found


def bits(path: Path) -> Iterator[dict[str, Any]]:
    """Exact rows by kind of weights, KV cache, attention and threads."""
    for repack, (kv, flash), threads in itertools.product(
        (True, False), (("f16", True), ("f16", False), ("bf16", True), ("q8_0", True)), (1, 2)
    ):
        context = opened(path, repack=repack, threads=threads, kv=kv, flash=flash)
        yield {"repack": repack, "kv": kv, "flash": flash, "threads": threads, "exact rows": exact_rows(context)}
        shut(context)


def costs(path: Path, threads: int, rounds: int) -> Iterator[dict[str, Any]]:
    """Medians, the kinds of weights and the numbers of rows in turn; CPU seconds where there is one thread."""
    both = {repack: opened(path, repack=repack, threads=threads, kv="f16", flash=True) for repack in (True, False)}
    tokens = both[True].model.chance(PROMPT + STEP)
    prompt: dict[bool, list[float]] = {repack: [] for repack in both}
    taken: dict[tuple[bool, int], list[float]] = {}
    for turn in range(rounds):
        for repack, context in both.items():
            if turn < 3:
                prompt[repack].append(PROMPT / context.evaluate(tokens[:PROMPT], 0))
        for rows, (repack, context) in itertools.product(range(1, 9), both.items()):
            taken.setdefault((repack, rows), []).append(
                context.evaluate(tokens[PROMPT : PROMPT + rows], PROMPT, every_logit=True)
            )
    for repack, context in both.items():
        one = statistics.median(taken[repack, 1])
        ratios = {rows: round(statistics.median(taken[repack, rows]) / one, 2) for rows in range(1, 9)}
        speed = round(statistics.median(prompt[repack]), 1)
        yield {"repack": repack, "threads": threads, "token ms": round(1e3 * one, 2), "prompt/s": speed, "cost": ratios}
        shut(context)


def answers(
    path: Path, library: Path, questions: Path, count: int, results: Path, keep: Path | None
) -> Iterator[dict[str, Any]]:
    """Greedy answers over passages, with and without guesses in turn; one thread, CPU seconds. And what guesses would
    save on them at costs that are known. The answers go to `keep`.
    """
    machines = known_costs(results)
    rows = [row["messages"] for row in read_jsonl(questions)]
    random.Random(1).shuffle(rows)
    guard = Careful(Library(library))
    seconds: dict[bool, float] = {True: 0.0, False: 0.0}
    kept: list[Said] = []
    drafted = accepted = 0
    engines = {ahead: Engine.load(path, threads=1, kv_type=None, lookup=ahead) for ahead in (True, False)}
    for messages in rows:
        talk = Conversation(engines[True], system="", sampling=Sampling(), max_tokens=MOST_TOKENS, guard=guard)
        prompt = talk.fit(messages[0]["content"])
        if not prompt.passages:
            continue
        told = {}
        for ahead in sorted(engines, reverse=bool(len(kept) % 2)):
            told[ahead], taken = _said(engines[ahead], prompt)
            seconds[ahead] += taken
        if told[True] != told[False]:
            raise SystemExit("the answers differ")
        timings = engines[True].timings
        drafted, accepted = drafted + timings.drafted, accepted + timings.accepted
        kept.append(told[True])
        if len(kept) == count:
            break
    for engine in engines.values():
        engine.close()
    if keep:
        keep.write_text("".join(json.dumps(asdict(one)) + "\n" for one in kept), encoding="utf-8")
    measured = seconds[False] / seconds[True]
    every = [(one.given, one.answer) for one in kept]
    straight = [(one.given, one.answer) for one in kept if not one.circle]
    alone = [(one.prompt, one.answer) for one in kept]
    implied, plain, prompted = (
        {name: implied_speedup(some, cost) for name, cost in machines.items()} for some in (every, straight, alone)
    )
    tokens = sum(len(one.answer) for one in kept)
    yield {
        "answers": len(kept), "tokens": tokens, "drafted": drafted, "accepted": accepted,
        "measured speed-up": round(measured, 3), "implied": implied, "implied where none goes in circles": plain,
        "implied from prompt and answer alone": prompted,
    }  # fmt: skip


def _said(engine: Engine, prompt: Prompt) -> tuple[Said, float]:
    """An answer as the chat gives it, and CPU seconds from the second token on."""
    circle, said, ended = Circle(), [], False
    text = prompt.lookup_text()
    begun = 0.0
    for token in engine.generate(prompt.tokens, sampling=Sampling(), max_tokens=MOST_TOKENS, lookup_text=text):
        begun = begun or time.thread_time()
        said.append(token)
        if ended := circle.add(token):
            break
    seconds = time.thread_time() - begun
    return Said(engine.tokenize(text, special=False), list(prompt.tokens), said, ended), seconds


def known_costs(results: Path) -> dict[str, dict[int, float]]:
    """Of so many rows, in single tokens, by machine: `costs` as a document of benchmarks/results keeps them."""
    found = {}
    for row in json.loads(results.read_text(encoding="utf-8"))["costs"]:
        quant, build = row["model"].removesuffix(".gguf").rpartition(".")[2], row["libggml-cpu"]
        name = f"{row['processor']}, {build} build, {quant}, {row['threads']} threads, {row['layers']} layers"
        found[name] = {int(rows): cost for rows, cost in row["cost"].items()}
    return found


def implied_speedup(traces: Sequence[tuple[Sequence[int], Sequence[int]]], cost: Mapping[int, float]) -> float:
    """What guesses would save on these answers at such costs; each is told with what it was given to repeat."""
    pace, spent = lookup.Pace(), 0.0
    for given, answer in traces:
        text = lookup.Lookup(given)
        text.add(answer[0])
        place, spent = 1, spent + 1
        while place < len(answer):
            known, kinds = text.draft(min(lookup.MOST_ROWS - 1, len(answer) - place))
            draft = known[: pace.length(kinds)]
            right = next((n for n, token in enumerate(draft) if token != answer[place + n]), len(draft))
            spent += cost[1 + len(draft)]
            if draft:
                pace.batch(cost[1 + len(draft)], kinds[: len(draft)], right)
            else:
                pace.single(1.0)
            for token in answer[place : place + right + 1]:
                text.add(token)
            place += right + 1
    return round(sum(len(answer) for _, answer in traces) / spent, 3)


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["bits", "costs", "answers"])
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--threads", type=int, default=1, help="of costs")
    parser.add_argument("--rounds", type=int, default=7, help="of costs")
    parser.add_argument("--library", type=Path, help="of answers: a file of medmind-chat index")
    parser.add_argument("--questions", type=Path, help="of answers: a heldout.jsonl")
    parser.add_argument("--count", type=int, default=40, help="of answers")
    parser.add_argument("--keep", type=Path, help="of answers: where they go")
    parser.add_argument("--results", type=Path, default=RESULTS, help="of answers: whose costs are known")
    given = parser.parse_args()
    for path in given.models:
        if given.what == "bits":
            found = bits(path)
        elif given.what == "costs":
            found = costs(path, given.threads, given.rounds)
        else:
            found = answers(path, given.library, given.questions, given.count, given.results, given.keep)
        for row in found:
            print(json.dumps({"model": path.name, **row}), flush=True)


if __name__ == "__main__":
    main()
