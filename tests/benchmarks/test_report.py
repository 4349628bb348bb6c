import dataclasses
import json
import math
from itertools import combinations, pairwise
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import bench_reports as reports
import pytest
from matplotlib.text import Text

from medmind.errors import MedmindError
from medmind_benchmarks import chart, cli, joining, markdown, results, tables, tables_detail
from medmind_benchmarks.runner import Outcome
from medmind_benchmarks.score import Result
from medmind_benchmarks.statistics import Estimate, repeated

WHOLE = reports.level("f16", 1000, 8.0, change=None)
GOOD = reports.level("q8_0", 500, 8.01, change=0.001)
FAIR = reports.level("q4_k_m", 300, 8.1, change=0.0125)
POOR = reports.level("q2_k", 200, 10.0, change=0.25)


def test_the_smallest_file_within_the_tolerance_is_picked() -> None:
    found = reports.report(WHOLE, GOOD, FAIR, POOR)
    assert found.pick.label == "q4_k_m"
    text = tables.verdict(found)
    assert text.startswith("Take q4_k_m (300 B)")
    assert "3.3 times smaller" in text
    assert "+1.25 ± 0.10 %" in text
    assert "2.00 times as fast" in text


def test_the_tolerance_decides() -> None:
    assert reports.report(WHOLE, GOOD, FAIR, POOR, tolerance=0.01).pick.label == "q8_0"
    assert reports.report(WHOLE, GOOD, FAIR, POOR, tolerance=0.5).pick.label == "q2_k"


def test_noise_does_not_pass_for_equality() -> None:
    noisy = reports.level("q2_k", 200, 8.0, change=0.0, error=0.05)
    found = reports.report(WHOLE, noisy)
    assert found.pick.label is None
    assert tables.verdict(found).startswith("Keep f16")
    assert "--rows 0" in tables.verdict(found)


def test_without_a_good_one_the_reference_is_kept_and_the_closest_named() -> None:
    text = tables.verdict(reports.report(WHOLE, POOR))
    assert text.startswith("Keep f16 (1000 B)")
    assert "q2_k (200 B, +25.00 ± 0.10 %)" in text
    assert "--tolerance" in text


def test_one_file_alone_leaves_nothing_to_choose() -> None:
    assert tables.verdict(reports.report(WHOLE)).startswith("Nothing to choose")


def test_a_quantized_file_better_than_its_original_is_called_odd() -> None:
    odd = reports.level("q2_k", 200, 6.0, change=-0.25)
    assert "no gain of quantization" in tables.verdict(reports.report(WHOLE, odd))
    assert "no gain" not in tables.verdict(reports.report(WHOLE, GOOD))


def test_a_report_survives_json() -> None:
    found = reports.report(WHOLE, GOOD, FAIR, POOR)
    again = results.Report.from_json(json.loads(json.dumps(found.to_json())))
    assert again == found
    assert markdown.render(again) == markdown.render(found)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ({"schema": "other/1"}, "no benchmark report"),
        ({"schema": "medmind-benchmark-quants/1"}, r"schema medmind-benchmark-quants/1, .* --force"),
        ({"levels": 3}, r"Report\.levels"),
        ({"extra": 1}, "extra"),
        ({"reference": 5}, r"Report\.reference is int"),
    ],
)
def test_json_of_another_shape_is_refused(damage: dict[str, object], words: str) -> None:
    with pytest.raises(MedmindError, match=words):
        results.Report.from_json({**reports.report(WHOLE).to_json(), **damage})


def test_the_page_says_what_was_measured_and_on_what() -> None:
    page = markdown.render(reports.report(WHOLE, GOOD, FAIR, POOR))
    assert "| q8_0 | 500 B | 4.00 | 8.01 ± 0.20 | +0.008 ± 0.010 | +0.10 ± 0.10 % |" in page
    assert "40 of 90 held-out rows" in page
    assert "3 answers were cut" in page
    assert "2 turns were left out" in page
    assert "f16, itself quantized" not in page


def test_what_failed_is_on_the_page_with_its_reason() -> None:
    lost = reports.level(
        "q4_0",
        250,
        0,
        change=0,
        status="refused",
        reason="needs 4 GiB of memory",
        answers=None,
        memory=(),
        prompt=None,
        generation=None,
        load_seconds=None,
    )
    page = markdown.render(reports.report(WHOLE, lost))
    assert "q4_0 refused: needs 4 GiB of memory" in page
    assert "| q4_0 | 250 B | 2.00 | – | – | – |" in page


def test_the_terminal_shows_no_table_without_figures() -> None:
    nothing = {"memory": (), "prompt": None, "generation": None}
    columns = {
        name: [
            table.columns[1]
            for table in tables.terminal(reports.report(reports.level("f16", 9, 7.0, change=None, **lost)))
        ]
        for name, lost in (
            ("all", {}),
            ("quality", nothing),
            ("machine", {"answers": None}),
            ("choices", {**nothing, "answers": None, "choices": (reports.choice(0.3, 80),)}),
        )
    }
    assert columns == {
        "all": ["size", "peak memory"],
        "quality": ["size"],
        "machine": ["peak memory"],
        "choices": ["right ± SE, held-out answers"],
    }


def test_the_terminal_shows_what_a_quantized_cache_costs_in_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    kinds = {"answers_fidelity": reports.divergence(0.01), "choices": (reports.choice(0.3, 80),)}
    plain = reports.level("q8_0", 500, 8.1, change=0.01, **kinds)
    cached = dataclasses.replace(plain.figures, kv_type="q4_0", answers=reports.level("", 1, 8.2, change=0.02).quality)
    whole = reports.report(reports.level("f16", 1000, 8.0, change=None), dataclasses.replace(plain, kv=(cached,)))
    cli._show(whole, Path("out"))
    shown = capsys.readouterr().out
    for title in tables_detail.kv(whole).columns:
        assert title in shown
    assert "q8_0, KV q4_0" in shown and tables.estimate(cached.answers.perplexity) in shown
    split = tables_detail.kv_in_terminal(whole)
    assert sum(len(table.columns) - 1 for table in split) == len(tables_detail.kv(whole).columns) - 1
    for table in split:
        assert sum(max(map(len, cells)) + 2 for cells in zip(table.columns, *table.rows, strict=True)) <= 80
    assert tables_detail.kv_in_terminal(reports.report(plain)) == []


def test_a_quantized_reference_is_owned_up_to() -> None:
    page = markdown.render(reports.report(reports.level("q8_0", 500, 8.0, change=None, unquantized=False), FAIR))
    assert "compared with q8_0, itself quantized" in page


@pytest.mark.parametrize(
    ("figure", "text"),
    [
        (Estimate(7.1234, 0.2134), "7.12 ± 0.21"),
        (Estimate(1507.2, 31.4), "1,507 ± 31"),
        (Estimate(7.1234, 0.0), "7.123 ± 0.000"),
        (Estimate(7.1234, None), "7.123"),
        (None, "–"),
    ],
)
def test_an_estimate_shows_as_many_digits_as_it_knows(figure: Estimate | None, text: str) -> None:
    assert tables.estimate(figure) == text


def test_the_picture_names_every_point_without_overlap() -> None:
    crowd = [
        reports.level("f16", 1000, 8.0, change=None),
        *(reports.level(f"q{n}_k_m", 500 + 12 * n, 8.0 + 0.02 * n, change=0.003 * n, error=0.002) for n in range(8)),
    ]
    figure = chart.compose(reports.report(*crowd))
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    for axes in figure.axes:
        boxes = {}
        for text in axes.texts:
            text.update_positions(renderer)  # type: ignore[attr-defined]
            boxes[text.get_text()] = Text.get_window_extent(text)
        assert {level.label for level in crowd} <= boxes.keys()
        for one, other in combinations(boxes, 2):
            assert not boxes[one].overlaps(boxes[other]), f"{one} covers {other}"


def test_the_pareto_front_runs_through_no_name() -> None:
    levels = [
        reports.level(label, size, value, change=None if label == "f16" else value / 10.45 - 1)
        for label, size, value in (
            ("f16", 3730, 10.45),
            ("q8_0", 1996, 10.46),
            ("q4_k_m", 1261, 11.08),
            ("q2_k", 985, 27.0),
        )
    ]
    figure = chart.compose(reports.report(*levels))
    upper = figure.axes[0]
    paths = [path for drawn in upper.collections for path in drawn.get_paths()]
    (line,) = [path for path in paths if len(path.vertices) == len(levels)]  # the others are error bars
    corners = upper.transData.transform(line.vertices)
    for text in upper.texts:
        text.update_positions(figure.canvas.get_renderer())  # type: ignore[attr-defined]
        box = Text.get_window_extent(text)
        steps = [a + (b - a) * part / 100 for a, b in pairwise(corners) for part in range(101)]
        assert not any(box.contains(x, y) for x, y in steps), f"the front runs through {text.get_text()}"


def test_the_picture_comes_as_png_and_as_svg_with_text(tmp_path: Path) -> None:
    chart.draw(reports.report(WHOLE, GOOD), tmp_path, "picture")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert ">q8_0</text>" in (tmp_path / "picture.svg").read_text(encoding="utf-8")


def test_a_file_of_log_probabilities_is_what_raw_text_is_compared_with() -> None:
    one = reports.level("q4_k_m", 4000, 7.4, change=None, answers=None, raw_fidelity=reports.divergence(0.02))
    raw = results.RawText("ref.kl", "sha256:5", 4096, 512, 8, 8)
    made = dataclasses.replace(reports.report(dataclasses.replace(one, unquantized=False)), held_out=None, raw_text=raw)
    text = markdown.render(made)
    assert "## Fidelity to the model that wrote ref.kl, raw text" in text
    assert "KL divergence from the model that wrote ref.kl" in text
    for wrong in ("Fidelity to q4_k_m", "itself quantized", "could not be measured", "from q4_k_m"):
        assert wrong not in text
    assert "held-out answers was not asked for" in text


def test_of_a_file_of_log_probabilities_every_level_is_compared_with_it() -> None:
    config = SimpleNamespace(load_modes=(), contexts=(), rounds=0)
    levels = [SimpleNamespace(label=label, model=Mock(read_bytes=1)) for label in ("q8_0", "q4_k_m")]
    outcome = Outcome()
    for level, nll in zip(levels, (6.0, 8.0), strict=True):
        level.model.kv_cache_bytes.return_value = 1
        outcome.results[level.label, ("raw", "f16")] = Result((nll, nll), (5.0, 5.0), 40.0, (2, 2), (), None, 1.0)
    for kl_base, ratios in ((object(), [1 / 2, 3 / 2]), (None, [1 / 2, 1.0])):
        plan = SimpleNamespace(
            config=config, texts=SimpleNamespace(kl_base=kl_base), questions=(), reference="q8_0", prompt_tokens=1
        )
        plan.generated_tokens = 1
        found = [joining.figures(plan, outcome, level, "f16").raw for level in levels]  # type: ignore[arg-type]
        assert [math.log(one.ratio.value) for one in found if one and one.ratio] == pytest.approx(ratios)


def test_one_round_has_no_range_and_every_cache_is_named() -> None:
    made = reports.full()
    assert tables.times(reports.speed(1.44, 1.0)) == "1.44×"
    several = dataclasses.replace(reports.speed(1.44, 1.0), relative=repeated([1.4, 1.5]))
    assert tables.times(several) == "1.45× (1.40–1.50)"
    both = dataclasses.replace(made.conditions, kv_types=("f16", "q8_0", "q4_0"))
    assert any(
        "KV cache f16, where nothing else is said; q8_0 and q4_0 as well" in line
        for line in markdown.conditions(dataclasses.replace(made, conditions=both))
    )


def test_the_page_tells_batch_and_attention_and_that_chat_may_choose_others() -> None:
    made = reports.full()
    theirs = "batch 512, flash attention on, as llama.cpp's tools have them; chat chooses both by model and threads"
    assert any(theirs in line for line in markdown.conditions(made))
    plain = dataclasses.replace(made, conditions=dataclasses.replace(made.conditions, flash=False))
    assert any("batch 512, flash attention off; chat" in line for line in markdown.conditions(plain))
    tools = dataclasses.replace(made, conditions=dataclasses.replace(made.conditions, memory_as_chat=False))
    assert "Batch and attention are those that chat chooses here" in markdown.render(made)
    assert "not those that chat would choose here" in markdown.render(tools)
