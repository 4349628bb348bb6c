"""A report made of chosen figures, for tests of what is rendered from it."""

from medmind_benchmarks import pick, results
from medmind_benchmarks.figures import Figures, Memory, Perplexity, Speed
from medmind_benchmarks.results import Level, Report
from medmind_benchmarks.statistics import Estimate, Repeated, repeated

MIB = 2**20


def speed(value: float, reference: float | None) -> Speed:
    relative: Repeated | None = repeated([value / reference]) if reference else None
    return Speed(512, repeated([value, value * 1.1, value * 0.9]), relative, None, None)


def level(
    label: str, size: int, perplexity: float, *, change: float | None, error: float | None = 0.001, **fields: object
) -> Level:
    """Fields of the level and of its figures (16-bit KV cache) may be given by name."""
    ratio = None if change is None else Estimate(1 + change, error)
    memory = Memory(
        load_mode="auto",
        context=512,
        weights=size,
        repacked=0,
        kv_cache=MIB,
        compute=MIB,
        library=50 * MIB,
        peak=50 * MIB + size,
        anonymous=None,
        file_backed=None,
    )
    figures: dict[str, object] = {
        "kv_type": "f16",
        "answers": Perplexity(
            Estimate(perplexity, 0.2),
            ratio,
            None if change is None else Estimate(perplexity * change, 0.01),
            2400,
            1.5,
        ),
        "raw": None,
        "answers_fidelity": None,
        "raw_fidelity": None,
        "choices": (),
        "memory": (memory,),
        "needs": (),
        "prompt": speed(100.0, None if change is None else 50.0),
        "generation": speed(10.0, None if change is None else 5.0),
        "load_seconds": repeated([0.5]),
        "first_token_seconds": None,
    }
    known: dict[str, object] = {
        "label": label,
        "file": f"m.{label}.gguf",
        "digest": "sha256:0",
        "size": size,
        "parameters": 1000,
        "bits_per_weight": 8 * size / 1000,
        "unquantized": change is None,
        "base": False,
        "status": "measured",
        "reason": "",
        "gaps": (),
        "kv": (),
    }
    for name, value in fields.items():
        (figures if name in figures else known)[name] = value
    return Level(**known, figures=Figures(**figures))  # type: ignore[arg-type]


def report(*levels: Level, tolerance: float = 0.02, run: str | None = "night") -> Report:
    return Report(
        schema=results.SCHEMA,
        run=run,
        reference=levels[0].label,
        random_weights=False,
        raw_text=None,
        held_out=results.HeldOut("heldout.jsonl", "sha256:1", 90, 40, 50, 2400, 3, 2, "sha256:2"),
        conditions=results.Conditions(
            created="2026-01-02T03:04:05+00:00",
            seconds=12.0,
            cpu="A CPU",
            cores=2,
            memory=2**33,
            reserve=2**29,
            load_before=None,
            system="An OS",
            versions={"python": "3"},
            features="AVX2 = 1",
            context=512,
            batch=512,
            threads=2,
            prompt_tokens=400,
            generated_tokens=128,
            rounds=3,
            repeats=2,
            contexts=(512,),
            load_modes=("auto",),
            kv_types=("f16",),
            bandwidth=None,
            cells=20,
            reused=0,
        ),
        levels=levels,
        pick=pick.pick(levels, levels[0].label, tolerance),
    )
