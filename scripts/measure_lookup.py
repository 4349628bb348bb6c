"""What guessing ahead can give on this machine: which batches have the bits of single tokens, what they cost, how often
guesses are right in answers over a library, and the speed-up that follows.

    python scripts/measure_lookup.py bits MODEL.gguf...
    python scripts/measure_lookup.py costs MODEL.gguf... --threads 2
    python scripts/measure_lookup.py answers MODEL.gguf --library medquad.library --questions heldout.jsonl

`bits` and `costs` compare weights repacked for this CPU with weights as they lie in the file, in turn. Prints JSON,
one document a line.
"""

import argparse
import ctypes
import itertools
import json
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medmind import llama
from medmind.artifacts import read_jsonl
from medmind_runtime import lookup
from medmind_runtime.conversation import Conversation
from medmind_runtime.decoder import KV_TYPES
from medmind_runtime.engine import Engine, Sampling
from medmind_runtime.library.index import Library
from medmind_runtime.repetition import Circle
from medmind_runtime.safety.careful import Careful

ROWS = range(2, 17)
PROMPT, STEP = 256, 128


class Context:
    """A model and a context, with the switches that medmind leaves alone."""

    def __init__(self, path: Path, *, repack: bool, threads: int, kv: str, flash: bool) -> None:
        self.lib = lib = llama.load()
        model = lib.llama_model_default_params()
        model.use_extra_bufts, model.n_gpu_layers = repack, 0
        self.model = lib.llama_model_load_from_file(str(path).encode(), model)
        params = lib.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = 4 * PROMPT, STEP, STEP, 1
        params.n_threads = params.n_threads_batch = threads
        params.type_k = params.type_v = KV_TYPES[kv]
        params.flash_attn_type, params.no_perf = int(flash), True
        self.handle = lib.llama_init_from_model(self.model, params)
        self.vocabulary = int(lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self.model)))
        self.batch = lib.llama_batch_init(STEP, 0, 1)
        self.clock: Callable[[], float] = time.thread_time if threads == 1 else time.perf_counter

    def evaluate(self, tokens: Sequence[int], begin: int) -> float:
        """Seconds for tokens at positions from `begin` on, what lay there and behind forgotten."""
        self.lib.llama_memory_seq_rm(self.lib.llama_get_memory(self.handle), 0, begin, -1)
        started = self.clock()
        for first in range(0, len(tokens), STEP):
            some = tokens[first : first + STEP]
            for row, token in enumerate(some):
                self.batch.token[row], self.batch.pos[row] = token, begin + first + row
                self.batch.n_seq_id[row], self.batch.seq_id[row][0] = 1, 0
                self.batch.logits[row] = len(tokens) <= STEP
            self.batch.n_tokens = len(some)
            if self.lib.llama_decode(self.handle, self.batch):
                raise SystemExit("llama.cpp could not evaluate the tokens")
        return self.clock() - started

    def logits(self, row: int) -> bytes:
        """As they lie in memory."""
        return ctypes.string_at(self.lib.llama_get_logits_ith(self.handle, row), 4 * self.vocabulary)

    def chance(self, count: int) -> list[int]:
        """Token ids, the same ones each time."""
        order = random.Random(3)
        return [order.randrange(5, self.vocabulary) for _ in range(count)]

    def close(self) -> None:
        """Free all."""
        self.lib.llama_batch_free(self.batch)
        if self.handle:
            self.lib.llama_free(self.handle)
        self.lib.llama_model_free(self.model)


def exact_rows(context: Context) -> list[int]:
    """Numbers of rows whose logits, and those of the token after them, are to the bit those of single tokens."""
    tokens = context.chance(PROMPT + ROWS[-1] + 1)
    context.evaluate(tokens[:PROMPT], 0)
    singles = []
    for place in range(PROMPT, len(tokens)):
        context.evaluate(tokens[place : place + 1], place)
        singles.append(context.logits(0))
    found = []
    for rows in ROWS:
        context.evaluate(tokens[PROMPT : PROMPT + rows], PROMPT)
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
        context = Context(path, repack=repack, threads=threads, kv=kv, flash=flash)
        yield {"repack": repack, "kv": kv, "flash": flash, "threads": threads, "exact rows": exact_rows(context)}
        context.close()


def costs(path: Path, threads: int, rounds: int) -> Iterator[dict[str, Any]]:
    """Medians, the kinds of weights and the numbers of rows in turn; CPU seconds where there is one thread."""
    both = {repack: Context(path, repack=repack, threads=threads, kv="bf16", flash=True) for repack in (True, False)}
    tokens = both[True].chance(PROMPT + STEP)
    prompt: dict[bool, list[float]] = {repack: [] for repack in both}
    taken: dict[tuple[bool, int], list[float]] = {}
    for turn in range(rounds):
        for repack, context in both.items():
            if turn < 3:
                prompt[repack].append(PROMPT / context.evaluate(tokens[:PROMPT], 0))
        for rows, (repack, context) in itertools.product(range(1, 9), both.items()):
            taken.setdefault((repack, rows), []).append(context.evaluate(tokens[PROMPT : PROMPT + rows], PROMPT))
    for repack, context in both.items():
        one = statistics.median(taken[repack, 1])
        ratios = {rows: round(statistics.median(taken[repack, rows]) / one, 2) for rows in range(1, 9)}
        speed = round(statistics.median(prompt[repack]), 1)
        yield {"repack": repack, "threads": threads, "token ms": round(1e3 * one, 2), "prompt/s": speed, "cost": ratios}
        context.close()


def answers(path: Path, library: Path, questions: Path, count: int) -> Iterator[dict[str, Any]]:
    """Greedy answers over passages, with and without guesses in turn; one thread, CPU seconds."""
    rows = [row["messages"] for row in read_jsonl(questions)]
    random.Random(1).shuffle(rows)
    guard = Careful(Library(library))
    seconds: dict[bool, float] = {True: 0.0, False: 0.0}
    traces, straight, drafted, accepted = [], [], 0, 0
    engines = {ahead: Engine.load(path, threads=1, kv_type="bf16", lookup=ahead) for ahead in (True, False)}
    for messages in rows:
        said = {}
        for ahead, engine in engines.items():
            talk = Conversation(engine, system="", sampling=Sampling(), max_tokens=400, guard=guard)
            prompt = talk.fit(messages[0]["content"])
            if not prompt.passages:
                break
            said[ahead], taken, ended = _say(engine, prompt.tokens)
            seconds[ahead] += taken
            drafted, accepted = drafted + engine.timings.drafted, accepted + engine.timings.accepted
        if said:
            if said[True] != said[False]:
                raise SystemExit("the answers differ")
            traces.append((list(prompt.tokens), said[True]))
            straight += [] if ended else traces[-1:]
        if len(traces) == count:
            break
    measured = seconds[False] / seconds[True]
    implied, plain = (
        {name: implied_speedup(some, cost) for name, cost in COSTS.items()} for some in (traces, straight)
    )
    tokens = sum(len(answer) for _, answer in traces)
    yield {
        "answers": len(traces), "tokens": tokens, "drafted": drafted, "accepted": accepted,
        "measured speed-up": round(measured, 3), "implied": implied, "implied where none goes in circles": plain,
    }  # fmt: skip


def _say(engine: Engine, prompt: Sequence[int]) -> tuple[list[int], float, bool]:
    """An answer as the chat gives it; CPU seconds from the second token; whether it went round in a circle, and ended
    there.
    """
    circle, said = Circle(), []
    begun = 0.0
    for token in engine.generate(prompt, sampling=Sampling(), max_tokens=300):
        begun = begun or time.thread_time()
        said.append(token)
        if circle.add(token):
            return said, time.thread_time() - begun, True
    return said, time.thread_time() - begun, False


COSTS: Mapping[str, Mapping[int, float]] = {
    "q8_0, AVX2, one thread of a Xeon": {1: 1.0, 2: 1.07, 4: 1.8, 8: 3.1},
    "q8_0, AVX2, one thread of an EPYC": {1: 1.0, 2: 1.76, 4: 2.69, 8: 4.33},
    "q8_0, AVX2, 16 threads of a Xeon": {1: 1.0, 2: 0.99, 4: 1.61, 8: 2.83},
    "q4_k_m as in the file, AVX2, one thread": {1: 1.0, 2: 1.7, 4: 3.1, 7: 5.6},
    "q4_k_m repacked, AVX2, one thread": {1: 1.0, 2: 1.8, 3: 2.6},
    "a machine that waits for the weights": {1: 1.0, 2: 1.02, 4: 1.1, 8: 1.25},
}
"""Of so many rows, in single tokens; all but the last as `costs` gave them at Mistral-7B's layer shape, those of
a Xeon with a KV cache in q8_0."""


def implied_speedup(traces: Sequence[tuple[Sequence[int], Sequence[int]]], cost: Mapping[int, float]) -> float:
    """What guesses would save on these answers at such costs."""
    rows = [count for count in sorted(cost) if count > 1]
    pace, spent = lookup.Pace(rows), 0.0
    for prompt, answer in traces:
        text = lookup.Lookup([*prompt, answer[0]])
        place, spent = 1, spent + 1
        while place < len(answer):
            match = text.match()
            known = text.draft(match, min(rows[-1], len(answer) - place))
            draft = known[: pace.length(match.size, len(known))]
            right = next((n for n, token in enumerate(draft) if token != answer[place + n]), len(draft))
            spent += cost[1 + len(draft)]
            if draft:
                pace.batch(cost[1 + len(draft)], match=match.size, drafted=len(draft), accepted=right)
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
    given = parser.parse_args()
    for path in given.models:
        if given.what == "bits":
            found = bits(path)
        elif given.what == "costs":
            found = costs(path, given.threads, given.rounds)
        else:
            found = answers(path, given.library, given.questions, given.count)
        for row in found:
            print(json.dumps({"model": path.name, **row}), flush=True)


if __name__ == "__main__":
    main()
