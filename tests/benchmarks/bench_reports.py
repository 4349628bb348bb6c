"""A report made of chosen figures, for tests of what is rendered from it."""

from medmind_benchmarks import pick, results
from medmind_benchmarks.figures import Choice, Fidelity, Figures, Flips, Histogram, Memory, Need, Perplexity, Speed
from medmind_benchmarks.results import Gap, Level, Report
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
        beside={},
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
            flash=True,
            memory_as_chat=True,
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


def full(*, random_weights: bool = False, run: str | None = "night") -> Report:
    """A report of a 7B with every kind of figure, eleven levels, one of which is refused."""
    import dataclasses

    known = [
        ("f16", 16.0, 7.31, None),
        ("q8_0", 8.5, 7.315, 0.0007),
        ("q6_k", 6.56, 7.33, 0.0029),
        ("q5_k_m", 5.67, 7.36, 0.007),
        ("q4_k_m", 4.83, 7.43, 0.0164),
        ("iq4_xs", 4.3, 7.47, 0.0219),
        ("q4_0", 4.55, 7.52, 0.0287),
        ("q3_k_m", 3.88, 7.72, 0.056),
        ("q2_k", 3.0, 9.1, 0.245),
    ]
    levels = []
    for place, (label, bits, value, change) in enumerate(known):
        size = int(7.25e9 * bits / 8)
        kl = None if change is None else divergence(change * 0.7)
        made = level(
            label,
            size,
            value,
            change=change,
            error=0.0004 + (change or 0) / 40,
            parameters=7_250_000_000,
            bits_per_weight=bits,
            answers_fidelity=kl,
            choices=(choice(0.61 - (change or 0) / 3, None if change is None else int(change * 100)),),
            needs=tuple(need(context, size) for context in (512, 2048, 8192)),
            prompt=speed(30 + 3 * place, None if change is None else 30.0),
            generation=speed(1.5 + 0.7 * place, None if change is None else 1.5),
        )
        levels.append(made)
    lost = Gap("memory, copy, 8192 tokens", "refused", "needs 14.1 GiB of memory, this machine has 9.1 GiB free")
    levels[0] = dataclasses.replace(levels[0], gaps=(lost,))
    made_of = report(*levels, run=run)
    conditions = dataclasses.replace(made_of.conditions, contexts=(512, 2048, 8192))
    return dataclasses.replace(made_of, conditions=conditions, random_weights=random_weights)


def few() -> Report:
    """`full` with four of its levels, which are drawn sooner."""
    import dataclasses

    whole = full()
    levels = tuple(one for one in whole.levels if one.label in ("f16", "q8_0", "q4_k_m", "q2_k"))
    return dataclasses.replace(whole, levels=levels)


def divergence(mean: float) -> Fidelity:
    return Fidelity(
        method="direct",
        kl_mean=Estimate(mean, mean / 30),
        kl_median=Estimate(mean / 5, mean / 60),
        kl_p99=Estimate(mean * 12, mean / 2),
        kl_max=mean * 90,
        kl_quantiles={"0.5": mean / 5},
        kl_histogram=Histogram(-6, 2, (0, 10, 5), 0, 0),
        same_top=Estimate(1 - mean, 0.002),
        rms_delta_p=Estimate(mean / 2, mean / 40),
        mean_delta_p=Estimate(-mean / 9, mean / 90),
        tokens=2400,
    )


def choice(value: float, lost: int | None) -> Choice:
    right = Estimate(value, 0.02)
    flips = None if lost is None else Flips(lost, 1, 2, (1 - lost) / 400, -0.03, 0.01, 0.21)
    return Choice(
        task="held-out answers",
        digest="sha256:3",
        questions=400,
        left_out=0,
        choices=4.0,
        headline="accuracy_gain",
        accuracy=Estimate(value - 0.2, 0.02),
        accuracy_normalized=Estimate(value - 0.25, 0.02),
        accuracy_gain=right,
        chance=0.25,
        answer_only=Estimate(0.26, 0.02),
        flips=flips,
        seconds=9.0,
    )


def need(context: int, size: int) -> Need:
    bytes_needed = size + context * 2**17 + 200 * MIB
    usual = [gib * 2**30 for gib in (2, 4, 6, 8, 12, 16, 24)]
    machine = next((one for one in usual if one >= bytes_needed + 2**29), None)
    return Need(context, "auto", bytes_needed, machine)
