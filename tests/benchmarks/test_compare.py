"""Each figure of two reports: noise is no change, and what became worse or is gone is told."""

import dataclasses

import bench_reports as reports
import pytest
from bench_changes import FAR, SPREAD, changed, divergences, level, of, without

from medmind.errors import MedmindError
from medmind_benchmarks.compare import compare
from medmind_benchmarks.results import Gap, RawText
from medmind_benchmarks.statistics import Estimate, repeated
from medmind_benchmarks.verdict import Limits


def test_a_report_is_the_same_as_itself() -> None:
    found = compare(reports.full(), reports.full(), Limits())
    assert {one.verdict for one in found.changes} == {"same"} and not found.notes
    assert len(found.changes) > 50


def test_each_figure_is_judged_in_its_own_direction() -> None:
    before = reports.full()
    slow = changed(before, "q4_k_m", generation=reports.speed(1.0, 1.5))
    assert of(before, slow, "answer speed").verdict == "worse"
    assert of(slow, before, "answer speed").verdict == "better"
    worse = changed(before, "q4_k_m", choices=(reports.choice(0.4, 80),))
    assert of(before, worse, "right, held-out answers").verdict == "worse"
    assert of(worse, before, "right, held-out answers").verdict == "better"
    far = changed(before, "q4_k_m", answers_fidelity=reports.divergence(0.1))
    assert of(before, far, "mean KL").verdict == "worse"
    tiny = changed(before, "q4_k_m", answers_fidelity=reports.divergence(1e-6))
    tinier = changed(before, "q4_k_m", answers_fidelity=reports.divergence(1e-8))
    assert of(tinier, tiny, "mean KL").verdict == "same"
    memory = dataclasses.replace(level(before).figures.memory[0], peak=2 * level(before).figures.memory[0].peak)
    assert of(before, changed(before, "q4_k_m", memory=(memory,)), "peak memory, auto, 512 tokens").verdict == "worse"
    assert of(before, changed(before, "q4_k_m", generation=None), "answer speed").verdict == "missing"


def test_some_bytes_more_are_the_same_size() -> None:
    before = reports.full()
    for growth, verdict in ((1.001, "same"), (1.02, "worse"), (0.9, "better")):
        size = int(level(before).size * growth)
        levels = tuple(dataclasses.replace(one, size=size) if one.label == "q4_k_m" else one for one in before.levels)
        assert of(before, dataclasses.replace(before, levels=levels), "file size").verdict == verdict


def test_a_quality_measure_that_is_gone_is_missing() -> None:
    raw = RawText("notes.txt", "sha256:5", 4096, 512, 8, 8)
    full = reports.full()
    before = dataclasses.replace(changed(full, "q4_k_m", raw=level(full).figures.answers), raw_text=raw)
    only_choices = dataclasses.replace(
        without(before, answers=None, answers_fidelity=None, raw=None), held_out=None, raw_text=None
    )
    lost = {one.figure for one in compare(before, only_choices, Limits()).regressions}
    assert lost == {"perplexity", "mean KL", "perplexity, raw text"} | SPREAD
    assert {one.figure for one in compare(before, without(before, choices=()), Limits()).regressions} == {
        "right, held-out answers"
    }
    assert not compare(only_choices, before, Limits()).regressions
    assert of(only_choices, before, "perplexity").verdict == "new"


def test_quantized_caches_are_compared_and_missed() -> None:
    plain = reports.full()
    cached = dataclasses.replace(level(plain).figures, kv_type="q8_0")
    poor = dataclasses.replace(cached, answers_fidelity=reports.divergence(0.5))
    before, now = (
        dataclasses.replace(
            plain,
            levels=tuple(
                dataclasses.replace(one, kv=(kept,)) if one.label == "q4_k_m" else one for one in plain.levels
            ),
        )
        for kept in (cached, poor)
    )
    worse = compare(before, now, Limits(), beside=(divergences(1), divergences(1))).regressions
    assert {"mean KL, KV cache q8_0", "99 % of KL, KV cache q8_0"} <= {one.figure for one in worse}
    assert all(one.figure.endswith("KV cache q8_0") and not one.paired for one in worse)
    gone = {one.figure for one in compare(before, plain, Limits()).regressions}
    assert {"perplexity, KV cache q8_0", "answer speed, KV cache q8_0", "right, held-out answers, KV cache q8_0"} < gone
    assert not compare(plain, before, Limits()).regressions


def test_waits_are_compared_beyond_noise() -> None:
    before = changed(
        reports.full(),
        "q4_k_m",
        load_seconds=repeated([2.0, 2.2, 1.8]),
        first_token_seconds=repeated([0.01, 0.011]),
    )
    for samples, verdict in (([2.2, 2.5, 1.9], "same"), ([3.0, 3.1, 2.9], "worse"), ([1.0, 1.1], "better")):
        assert of(before, changed(before, "q4_k_m", load_seconds=repeated(samples)), "load seconds").verdict == verdict
    slow = changed(before, "q4_k_m", first_token_seconds=repeated([0.04, 0.05]))
    assert of(before, slow, "first token seconds").verdict == "same", "nobody notices"
    assert of(before, changed(before, "q4_k_m", first_token_seconds=None), "first token seconds").verdict == "missing"


def test_a_few_repetitions_must_differ_by_more_than_many() -> None:
    before, after = [2.0, 2.2], [2.4, 2.6]  # 2.6 standard errors apart
    for often, verdict in ((1, "same"), (10, "worse")):
        old, now = (changed(reports.full(), "q4_k_m", load_seconds=repeated(one * often)) for one in (before, after))
        assert of(old, now, "load seconds").verdict == verdict


@pytest.mark.parametrize(
    ("figure", "fields"),
    [
        ("mean KL", {"answers_fidelity": dataclasses.replace(FAR, kl_mean=Estimate(-1.0, 0.1))}),
        ("99 % of KL", {"answers_fidelity": dataclasses.replace(FAR, kl_p99=Estimate(-1.0, 0.1))}),
        (
            "RMS Δp",
            {"answers_fidelity": dataclasses.replace(FAR, rms_delta_p=Estimate(-1.0, 1.0))},
        ),
        (
            "same top token",
            {"answers_fidelity": dataclasses.replace(FAR, same_top=Estimate(1.5, 0))},
        ),
        ("right, held-out answers", {"choices": (reports.choice(1.1, 3),)}),
        ("load seconds", {"load_seconds": repeated([0.0, 0.0])}),
        ("first token seconds", {"first_token_seconds": repeated([-1.0, -1.0])}),
        ("answer speed", {"generation": reports.speed(0.0, 1.5)}),
    ],
)
def test_what_nothing_measured_can_be_is_refused_in_either_report(figure: str, fields: dict[str, object]) -> None:
    good = reports.full()
    bad = changed(good, "q4_k_m", **fields)
    for pair, which in (((bad, good), "earlier"), ((good, bad), "later"), ((bad, bad), "earlier")):
        with pytest.raises(MedmindError, match=f"q4_k_m: its {figure} is .* in the {which} of the two reports"):
            compare(*pair, Limits())


def test_a_divergence_below_zero_by_rounding_alone_is_none() -> None:
    near = dataclasses.replace(reports.divergence(1e-7), kl_mean=Estimate(-1e-7, 1e-8))
    assert of(*[changed(reports.full(), "q4_k_m", answers_fidelity=near)] * 2, "mean KL").verdict == "same"


def test_what_cannot_be_compared_is_said_and_has_no_verdict() -> None:
    before = reports.full()
    assert before.held_out
    other = dataclasses.replace(
        before,
        held_out=dataclasses.replace(before.held_out, token_digest="sha256:9"),
        conditions=dataclasses.replace(before.conditions, cpu="Another"),
        levels=before.levels[:-1],
    )
    found = compare(before, other, Limits())
    assert len(found.notes) == 2
    undecided = {one.figure.partition(",")[0] for one in found.changes if one.verdict == "not comparable"}
    assert {
        "perplexity",
        "mean KL",
        "prompt speed",
        "answer speed",
        "peak memory",
        "smallest machine",
        "load seconds",
    } | SPREAD == undecided
    assert not undecided & {one.figure for one in found.compared}
    assert [(one.level, one.verdict) for one in found.regressions] == [("q2_k", "missing")]


def test_other_questions_and_another_reference_are_no_change() -> None:
    before = reports.full()
    asked = dataclasses.replace(reports.choice(0.3, 80), digest="sha256:8")
    other = dataclasses.replace(without(before, choices=(asked,)), reference="q8_0")
    found = compare(before, other, Limits())
    assert [note.partition(":")[0] for note in found.notes] == [
        "the questions of held-out answers differ",
        "the references differ, f16 and q8_0",
    ]
    undecided = {one.figure for one in found.changes if one.verdict == "not comparable"}
    assert undecided == {"right, held-out answers", "mean KL"} | SPREAD and not found.regressions
    assert found.undecided


def test_memory_is_compared_at_every_context_and_load_mode() -> None:
    plain = reports.full()
    first = level(plain).figures.memory[0]
    places = [(mode, context) for mode in ("auto", "copy") for context in (512, 8192)]
    peaks = [dataclasses.replace(first, load_mode=mode, context=context) for mode, context in places]
    before = changed(plain, "q4_k_m", memory=tuple(peaks))
    for place, (mode, context) in enumerate(places):
        grown = [*peaks[:place], dataclasses.replace(peaks[place], peak=2 * first.peak), *peaks[place + 1 :]]
        worse = compare(before, changed(before, "q4_k_m", memory=tuple(grown)), Limits()).regressions
        assert [one.figure for one in worse] == [f"peak memory, {mode}, {context:,} tokens"]


def test_a_larger_smallest_machine_is_a_regression() -> None:
    before = reports.full()
    needs = level(before).figures.needs
    assert needs[-1].machine
    for machine in (2 * needs[-1].machine, None):
        now = changed(before, "q4_k_m", needs=(*needs[:-1], dataclasses.replace(needs[-1], machine=machine)))
        assert [one.figure for one in compare(before, now, Limits()).regressions] == ["smallest machine, 8,192 tokens"]
        assert not compare(now, before, Limits()).regressions


def test_a_pick_that_changes_is_told() -> None:
    before = reports.full()
    now = dataclasses.replace(before, pick=dataclasses.replace(before.pick, label=None))
    found = compare(before, now, Limits())
    assert found.notes == (f"the pick changed: {before.pick.label} before, none now",) and not found.regressions


def test_the_rest_of_a_distribution_is_judged_and_its_extreme_told() -> None:
    before = reports.full()
    kl = level(before).figures.answers_fidelity
    assert kl
    for figure, field, worse in (
        ("99 % of KL", "kl_p99", 2.0),
        ("median KL", "kl_median", 2.0),
        ("RMS Δp", "rms_delta_p", 2.0),
    ):
        old = getattr(kl, field)
        now = changed(
            before,
            "q4_k_m",
            answers_fidelity=dataclasses.replace(kl, **{field: Estimate(old.value * worse, old.error)}),
        )
        assert of(before, now, figure).verdict == "worse"
        assert of(now, before, figure).verdict == "better"
    fewer = Estimate(kl.same_top.value - 0.1, kl.same_top.error)
    assert (
        of(
            before,
            changed(before, "q4_k_m", answers_fidelity=dataclasses.replace(kl, same_top=fewer)),
            "same top token",
        ).verdict
        == "worse"
    )
    far = changed(before, "q4_k_m", answers_fidelity=dataclasses.replace(kl, kl_max=3 * kl.kl_max))
    assert of(before, far, "largest KL").verdict == "not judged" and not compare(before, far, Limits()).regressions


def test_a_cell_that_fails_now_is_missing() -> None:
    before = reports.full()
    gap = Gap("raw text", "failed", "it was killed")
    levels = tuple(dataclasses.replace(one, gaps=(gap,)) if one.label == "q4_k_m" else one for one in before.levels)
    now = dataclasses.replace(before, levels=levels)
    assert [(one.level, one.figure) for one in compare(before, now, Limits()).regressions] == [
        ("q4_k_m", "cell: raw text")
    ]
    assert not compare(now, before, Limits()).regressions
    assert not compare(now, now, Limits()).regressions


def test_costs_that_are_gone_count_on_another_machine_too() -> None:
    before = reports.full()
    other = dataclasses.replace(
        changed(before, "q4_k_m", generation=None), conditions=dataclasses.replace(before.conditions, cpu="Another")
    )
    assert [(one.level, one.figure) for one in compare(before, other, Limits()).regressions] == [
        ("q4_k_m", "answer speed")
    ]


def test_another_context_measured_switches_no_gate_off() -> None:
    before = reports.full()
    found = level(before).figures
    assert found.generation
    pace = found.generation.tokens_per_second
    slow = dataclasses.replace(
        found.generation,
        tokens_per_second=dataclasses.replace(pace, mean=pace.mean / 5, samples=tuple(one / 5 for one in pace.samples)),
    )
    memory = tuple(dataclasses.replace(one, peak=3 * one.peak) for one in found.memory)
    now = changed(before, "q4_k_m", generation=slow, memory=memory)
    more = dataclasses.replace(before.conditions, contexts=(*before.conditions.contexts, 4096))
    worse = {one.figure for one in compare(before, dataclasses.replace(now, conditions=more), Limits()).regressions}
    assert worse >= {"answer speed"} | {f"peak memory, {one.load_mode}, {one.context:,} tokens" for one in memory}


def test_speed_is_not_compared_where_fewer_tokens_were_generated_and_memory_is() -> None:
    before = reports.full()
    fewer = dataclasses.replace(before, conditions=dataclasses.replace(before.conditions, generated_tokens=8))
    assert of(before, fewer, "answer speed").verdict == "not comparable"
    assert of(before, fewer, "peak memory, auto, 512 tokens").verdict == "same"


def test_more_memory_allocated_under_the_same_peak_is_a_regression() -> None:
    plain = reports.full()
    memory = tuple(dataclasses.replace(one, anonymous=one.peak // 8) for one in level(plain).figures.memory)
    before = changed(plain, "q4_k_m", memory=memory)
    grown = (dataclasses.replace(memory[0], anonymous=memory[0].peak // 2), *memory[1:])
    worse = compare(before, changed(before, "q4_k_m", memory=grown), Limits()).regressions
    assert [one.figure for one in worse] == [f"allocated memory, {memory[0].load_mode}, {memory[0].context:,} tokens"]


def test_a_busy_machine_and_another_library_are_told() -> None:
    before = reports.full()
    one = before.conditions
    busy = dataclasses.replace(one, load_before=one.cores * 1.0, versions={**one.versions, "llama-cpp-python": "0.4.0"})
    notes = compare(before, dataclasses.replace(before, conditions=busy), Limits()).notes
    assert any("as the later report was measured" in note for note in notes)
    assert any("llama-cpp-python" in note and "0.4.0 now" in note for note in notes)
    assert not compare(before, before, Limits()).notes
