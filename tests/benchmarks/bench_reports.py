"""A report made of chosen figures, for tests of what is rendered from it."""

from medmind_benchmarks import pick, results
from medmind_benchmarks.results import Level, Memory, Quality, Report, Speed
from medmind_benchmarks.statistics import Estimate, Spread, spread

MIB = 2**20


def speed(value: float, reference: float | None) -> Speed:
    relative: Spread | None = spread([value / reference]) if reference else None
    return Speed(spread([value, value * 1.1, value * 0.9]), relative)


def level(
    label: str, size: int, perplexity: float, *, change: float | None, error: float | None = 0.001, **fields: object
) -> Level:
    ratio = None if change is None else Estimate(1 + change, error)
    known: dict[str, object] = {
        "label": label,
        "file": f"m.{label}.gguf",
        "digest": "sha256:0",
        "size": size,
        "parameters": 1000,
        "bits_per_weight": 8 * size / 1000,
        "unquantized": change is None,
        "status": "measured",
        "reason": "",
        "quality": Quality(
            Estimate(perplexity, 0.2),
            ratio,
            None if change is None else Estimate(perplexity * change, 0.01),
            1.5,
        ),
        "memory": Memory(
            weights=size,
            repacked=0,
            kv_cache=MIB,
            compute=MIB,
            library=50 * MIB,
            peak=50 * MIB + size,
            anonymous=None,
            file_backed=None,
        ),
        "prompt": speed(100.0, None if change is None else 50.0),
        "generation": speed(10.0, None if change is None else 5.0),
        "load_seconds": spread([0.5]),
    }
    return Level(**{**known, **fields})  # type: ignore[arg-type]


def report(*levels: Level, tolerance: float = 0.02, run: str | None = "night") -> Report:
    return Report(
        schema=results.SCHEMA,
        run=run,
        reference=levels[0].label,
        held_out=results.HeldOut("heldout.jsonl", "sha256:1", 90, 40, 50, 2400, 3, 2, "sha256:2"),
        conditions=results.Conditions(
            created="2026-01-02T03:04:05+00:00",
            seconds=12.0,
            cpu="A CPU",
            cores=2,
            memory=2**33,
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
            kv_type="f16",
        ),
        levels=levels,
        pick=pick.pick(levels, levels[0].label, tolerance),
    )
