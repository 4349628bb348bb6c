"""`medmind-bench compare`: noise is no change, a regression exits with 1, paired rows find what errors alone hide."""

import dataclasses
import json
import math
from pathlib import Path

import bench_reports as reports
import pytest
from bench_command import medmind_bench

from medmind.errors import MedmindError
from medmind_benchmarks import pairing, recount
from medmind_benchmarks.compare import compare
from medmind_benchmarks.pairing import Beside
from medmind_benchmarks.results import Gap, Level, RawText, Report
from medmind_benchmarks.statistics import Estimate, repeated
from medmind_benchmarks.verdict import Change, Limits

SPREAD = {"median KL", "99 % of KL", "RMS Δp"}
"""What is compared of a fidelity beside its mean."""
FAR = reports.divergence(0.01)


def changed(report: Report, label: str, **figures: object) -> Report:
    levels = tuple(
        dataclasses.replace(one, figures=dataclasses.replace(one.figures, **figures)) if one.label == label else one  # type: ignore[arg-type]
        for one in report.levels
    )
    return dataclasses.replace(report, levels=levels)


def of(before: Report, now: Report, figure: str, **more: object) -> Change:
    found = compare(before, now, Limits(), **more)  # type: ignore[arg-type]
    return next(one for one in found.changes if one.level == "q4_k_m" and one.figure == figure)


def level(report: Report) -> Level:
    return report.level("q4_k_m")


def rows(offset: float) -> Beside:
    """Rows of very different difficulty; the offset is nearly the same in each."""
    return Beside(
        rows=[
            {"row": i, "tokens": 60, "nll": {"q4_k_m": 60 * (1 + i % 7) + 60 * offset * (1 + (i % 3) / 10)}, "kl": {}}
            for i in range(40)
        ]
    )


def divergences(factor: float) -> Beside:
    """Rows of very different divergence, 0.012 nats a token in the mean, each `factor` times that."""
    return Beside(
        rows=[
            {"row": i, "tokens": 60, "nll": {}, "kl": {"q4_k_m": 60 * 0.004 * (1 + i % 5) * factor}} for i in range(40)
        ]
    )


def questions(lost: int, won: int) -> Beside:
    """60 questions of 100 answered rightly before; `lost` of these no more, `won` of the others now."""
    right = [place >= lost if place < 60 else place < 60 + won for place in range(100)]
    named = [
        {"task": "held-out answers", "id": f"{place}", "right": {"q4_k_m": one}} for place, one in enumerate(right)
    ]
    return Beside(questions=named)


def test_a_report_is_the_same_as_itself() -> None:
    found = compare(reports.full(), reports.full(), Limits())
    assert {one.verdict for one in found.changes} == {"same"} and not found.notes
    assert len(found.changes) > 50


def test_paired_rows_find_what_standard_errors_drown() -> None:
    before = reports.full()
    answers = level(before).figures.answers
    assert answers
    now = changed(
        before,
        "q4_k_m",
        answers=dataclasses.replace(answers, perplexity=Estimate(answers.perplexity.value * 1.02, 0.2)),
    )
    assert of(before, now, "perplexity").verdict == "same"
    found = of(before, now, "perplexity", beside=(rows(0), rows(math.log(1.02))))
    assert found.paired and found.verdict == "worse"
    assert found.change == pytest.approx(0.022, abs=0.001)
    slight = of(before, now, "perplexity", beside=(rows(0), rows(0.001)))
    assert slight.verdict == "within limits"
    assert of(before, now, "perplexity", beside=(rows(0), rows(-0.02))).verdict == "better"
    assert not of(before, now, "perplexity", beside=(rows(0), Beside(rows=rows(0.02).rows[:-1]))).paired


def test_divergence_is_paired_by_row() -> None:
    before = reports.full()
    kl = level(before).figures.answers_fidelity
    assert kl
    old, now = (
        changed(before, "q4_k_m", answers_fidelity=dataclasses.replace(kl, kl_mean=Estimate(mean, 0.003)))
        for mean in (0.012, 0.0144)
    )
    assert of(old, now, "mean KL").verdict == "same", "beside errors as large"
    found = of(old, now, "mean KL", beside=(divergences(1), divergences(1.2)))
    assert found.paired and found.verdict == "worse"
    assert found.change == pytest.approx(0.2)
    assert of(old, old, "mean KL", beside=(divergences(1), divergences(1.05))).verdict == "within limits"


def test_answers_are_paired_by_question() -> None:
    before = reports.full()
    figure = "right, held-out answers"
    lost_six = of(before, before, figure, beside=(questions(0, 0), questions(6, 0)))
    assert lost_six.paired and lost_six.change == pytest.approx(-0.06) and lost_six.verdict == "worse"
    assert lost_six.error == pytest.approx(math.sqrt((0.06 - 0.06**2) / 99))
    assert of(before, before, figure, beside=(questions(0, 0), questions(5, 0))).verdict == "same", (
        "McNemar's p is 0.06"
    )
    assert of(before, before, figure, beside=(questions(0, 0), questions(9, 9))).verdict == "same"
    assert of(before, before, figure, beside=(questions(0, 0), questions(0, 7))).verdict == "better"
    fewer = Beside(questions=questions(0, 0).questions[:-1])
    assert not of(before, before, figure, beside=(questions(0, 0), fewer)).paired


def test_raw_text_is_compared_and_paired_where_it_is_the_same() -> None:
    before = reports.full()
    raw = RawText("notes.txt", "sha256:5", 4096, 512, 8, 8)
    old = dataclasses.replace(changed(before, "q4_k_m", raw=level(before).figures.answers), raw_text=raw)
    assert not of(old, old, "perplexity, raw text").paired
    chunks = tuple(
        Beside(chunks=[{"chunk": i, "tokens": 255, "nll": {"q4_k_m": 400.0 + i + more}, "kl": {}} for i in range(8)])
        for more in (0.0, 9.0)
    )
    found = of(old, old, "perplexity, raw text", beside=chunks)
    assert found.paired and found.verdict == "worse" and found.change == pytest.approx(math.expm1(9 / 255))
    other = dataclasses.replace(old, raw_text=dataclasses.replace(raw, digest="sha256:6"))
    compared = compare(old, other, Limits())
    assert any("raw texts differ" in note for note in compared.notes)
    assert {one.verdict for one in compared.changes if "raw text" in one.figure} == {"not comparable"}
    renamed = dataclasses.replace(old, raw_text=dataclasses.replace(raw, source="copy.txt"))
    assert not compare(old, renamed, Limits()).notes, "the same text under another name"


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


def without(report: Report, **figures: object) -> Report:
    for one in report.levels:
        report = changed(report, one.label, **figures)
    return report


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


def test_the_command_says_what_it_cannot_judge_and_refuses_a_size_of_zero(tmp_path: Path) -> None:
    before = reports.few()
    assert before.held_out
    held_out = dataclasses.replace(before.held_out, token_digest="sha256:9")
    levels = tuple(dataclasses.replace(one, size=0) if one.label == "q4_k_m" else one for one in before.levels)
    reports_by_name = {
        "a": before,
        "b": dataclasses.replace(before, held_out=held_out),
        "zero": dataclasses.replace(before, levels=levels),
    }
    for name, one in reports_by_name.items():
        (tmp_path / name).write_text(json.dumps(one.to_json()), encoding="utf-8")
    shown = medmind_bench("compare", tmp_path / "a", tmp_path / "b")
    assert shown.returncode == 1 and "nothing changed" not in shown.stdout
    words = " ".join(shown.stdout.split())
    assert "the held-out tokens differ" in words and "figures cannot be compared and have no verdict" in words
    assert "figures of answers cannot be compared" in shown.stderr, "a gate that compared nothing does not open"
    assert medmind_bench("compare", tmp_path / "a", tmp_path / "b", "--allow-incomparable").returncode == 0
    gone = without(before, choices=())
    (tmp_path / "gone").write_text(json.dumps(gone.to_json()), encoding="utf-8")
    missed = medmind_bench("compare", tmp_path / "a", tmp_path / "gone")
    assert missed.returncode == 1 and missed.stderr.rstrip().endswith("and 1 more — measure again what is missing")
    for pair in (("zero", "a"), ("a", "zero")):
        refused = medmind_bench("compare", *(tmp_path / name for name in pair))
        (line,) = refused.stderr.splitlines()
        assert refused.returncode == 1 and "q4_k_m: its file size is 0 in the" in line


def test_the_command_is_a_gate(tmp_path: Path) -> None:
    before = reports.full()
    now = changed(before, "q4_k_m", generation=reports.speed(1.0, 1.5))
    for name, one in (("a", before), ("b", now)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(json.dumps(one.to_json()), encoding="utf-8")
    same = medmind_bench("compare", tmp_path / "a", tmp_path / "a" / "report.json")
    assert same.returncode == 0 and "nothing changed beyond noise" in same.stdout
    worse = medmind_bench("compare", tmp_path / "a", tmp_path / "b", "--json")
    assert worse.returncode == 1
    assert "1 regressions: q4_k_m answer speed" in worse.stderr
    shown = medmind_bench("compare", tmp_path / "b", tmp_path / "a").stdout
    assert "…" not in shown and max(map(len, shown.splitlines())) <= 80
    assert json.loads(worse.stdout)["schema"] == "medmind-benchmark-comparison/4"
    assert medmind_bench("compare", tmp_path / "a", tmp_path / "b", "--speed", "90").returncode == 0
    (tmp_path / "c.json").write_text("{}", encoding="utf-8")
    bad = medmind_bench("compare", tmp_path / "a", tmp_path / "c.json")
    assert bad.returncode == 1 and len(bad.stderr.strip().splitlines()) == 1


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


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_figure_that_is_no_number_is_refused(value: float) -> None:
    document = json.loads(json.dumps(reports.few().to_json()))
    document["levels"][2]["figures"]["answers_fidelity"]["same_top"]["value"] = value
    with pytest.raises(MedmindError, match=r"same_top\.value is (nan|inf)"):
        Report.from_json(document)


def test_a_pick_that_changes_is_told() -> None:
    before = reports.full()
    now = dataclasses.replace(before, pick=dataclasses.replace(before.pick, label=None))
    found = compare(before, now, Limits())
    assert found.notes == (f"the pick changed: {before.pick.label} before, none now",) and not found.regressions


def test_records_of_another_report_are_refused_and_unknown_ones_not_used(tmp_path: Path) -> None:
    for name in pairing.FILES:
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows(0).rows), encoding="utf-8")
    known = pairing.digests(tmp_path)
    report = tmp_path / "report.json"
    assert len(pairing.read(report, known).rows) == 40
    assert pairing.read(report, {}) == Beside(), "a report of before says nothing of them"
    (tmp_path / "rows.jsonl").write_text("{}\n", encoding="utf-8")
    with pytest.raises(MedmindError, match=r"rows.jsonl is not the file that report.json was written with"):
        pairing.read(report, known)


def test_right_answers_that_are_not_those_of_the_questions_are_refused(tmp_path: Path) -> None:
    report = changed(reports.full(), "q4_k_m", choices=(reports.choice(0.6, 3),))
    recount.demand(tmp_path, report, questions(0, 0))
    with pytest.raises(MedmindError, match=r"q4_k_m's right, held-out answers is 0\.6, the records .* come to 0\.57"):
        recount.demand(tmp_path, report, questions(3, 0))


def test_reports_of_the_schemas_before_are_read_without_what_they_did_not_say() -> None:
    whole = reports.full()
    assert whole.levels[0].gaps
    document = {**whole.to_json(), "schema": "medmind-benchmark-quants/3"}
    for level in document["levels"]:
        for gap in level["gaps"]:
            del gap["cause"]
    assert Report.from_json(document) == whole
    del document["beside"]
    assert Report.from_json({**document, "schema": "medmind-benchmark-quants/2"}) == whole
    for broken in ({}, {"levels": 3}, {"levels": [3]}, {"levels": [{"gaps": [3]}]}):
        with pytest.raises(MedmindError):
            Report.from_json({"schema": "medmind-benchmark-quants/3", **broken})


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


def test_what_noise_hides_and_what_is_not_paired_is_said() -> None:
    before = reports.full()
    found = compare(before, before, Limits())
    assert found.unpaired == ("rows.jsonl", "questions.jsonl")
    (hidden,) = (one for one in found.unseen if one.figure == "perplexity")
    assert hidden.error is not None
    assert hidden.least == pytest.approx(1.991 * hidden.error, rel=1e-3), "Student's t of twice 40 rows"
    paired = compare(before, before, Limits(), beside=(rows(0), rows(0)))
    assert paired.unpaired == ("questions.jsonl",)


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
