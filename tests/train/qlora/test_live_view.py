"""What a person sees while training goes on, on screens of any size, and where there is none."""

import io
import sys
from dataclasses import asdict

import pytest
from rich.console import Console

from medmind_train import live_view, plot
from medmind_train.live_view import LiveView
from medmind_train.metrics import StepMetrics

TOTAL = 200


def line(step: int, loss: float, validation: float | None = None) -> StepMetrics:
    return StepMetrics(
        step=step,
        epoch=step / 100,
        loss=loss,
        lr=1.5e-4,
        grad_norm=0.5,
        examples=8,
        tokens=900,
        supervised_tokens=700,
        padding=0.1,
        tokens_per_s=11_382.4,
        seconds=2.0 * step,
        memory=3 << 30,
        validation_loss=validation,
        validation_error=None if validation is None else 0.02,
    )


def run(view) -> None:
    for step in range(1, 101):
        loss = 4 - 0.02 * step + (0.3 if step % 2 else -0.3)
        view.step(line(step, loss, 3.9 - 0.01 * step if step % 20 == 0 else None))


def screen(width: int, height: int, encoding: str = "utf-8", past=()) -> list[str]:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=file, width=width, height=height, force_terminal=True, color_system=None)
    view = LiveView(TOTAL, past)
    run(view)
    with console.capture() as shown:
        console.print(view)
    return shown.get().splitlines()


@pytest.mark.parametrize(("width", "height"), [(120, 40), (80, 24), (40, 10), (20, 5), (8, 2), (1, 1)])
def test_view_fits_its_screen(width: int, height: int):
    lines = screen(width, height)
    assert 1 <= len(lines) <= max(height - 1, 1) and all(len(one) <= width for one in lines)


@pytest.mark.parametrize(("width", "height"), [(120, 40), (80, 24)])
def test_view_shows_curve_and_numbers(width: int, height: int):
    lines = screen(width, height)
    text = "\n".join(lines)
    assert lines[0].startswith("step 100/200 ") and "50% · 3:20 left" in lines[0]
    for number in ("loss 1.700", "validation 2.900 ± 0.020", "best 2.900 at 100", "11,382 tokens/s", "3.00 GiB peak"):
        assert number in text
    for number in ("padding 10.0%", "lr 1.50e-04", "gradient 0.5", "epoch 1.00", "3:20 in training"):
        assert number in text
    drawn = [one for one in lines if any("⠀" < sign <= "⣿" for sign in one[7:])]
    assert len(drawn) >= 10 and text.count("◆") == 5 + 1  # and one in the legend


def test_small_screen_still_has_a_curve():
    lines = screen(40, 10)
    assert sum("◆" in one for one in lines) >= 2 and lines[0].endswith("50% · 3:20 left")


def test_terminal_without_unicode_gets_plain_signs():
    lines = screen(80, 24, encoding="ascii")
    assert "\n".join(lines).isascii() and any("*" in one for one in lines) and "####" in lines[0]


def test_curve_falls_as_the_loss_does_and_stays_small():
    curve = plot.Curve()
    for step in range(1, 20_001):
        curve.add(step, 5 - step / 5000)
    assert len(curve.steps) == len(curve.raw) == len(curve.smooth) <= 2048 and curve.steps[-1] > 19_900
    rows = [text.plain[7:] for text in plot.draw(curve, 47, 8)]
    first, last = ([at for at, row in enumerate(rows) if row[column].strip()] for column in (0, 39))
    assert max(first) == 0 and min(last) == 7
    assert curve.smoothed == pytest.approx(1.0, abs=0.01)
    assert plot.draw(plot.Curve(), 47, 8) == [] and plot.draw(curve, 10, 8) == []


def test_resumed_run_shows_where_it_comes_from():
    past = [{name: value for name, value in asdict(line(step, 9.0)).items() if value is not None} for step in (1, 2)]
    assert "9" in screen(80, 24, past=[{**one, "from another version": 1} for one in past])[1]


def test_live_display_leaves_a_clean_screen_after_resizes_and_an_interrupt(monkeypatch):
    pyte = pytest.importorskip("pyte")
    terminal, file = pyte.Screen(80, 24), io.StringIO()
    stream = pyte.Stream(terminal)
    console = Console(file=file, width=80, height=24, force_terminal=True, legacy_windows=False)

    def shown() -> list[str]:
        stream.feed(file.getvalue().replace("\n", "\r\n"))
        file.seek(0)
        file.truncate()
        return [one.rstrip() for one in terminal.display]

    monkeypatch.setattr(live_view, "_REFRESHES", 0.001)  # drawn by hand here
    with pytest.raises(KeyboardInterrupt), live_view.display(TOTAL, console=console) as view:
        live = console._live_stack[-1] if hasattr(console, "_live_stack") else console._live
        run(view)
        live.refresh()
        assert sum("step 100/200" in one for one in shown()) == 1
        with view.progress("validation loss", 40, "examples") as advance:
            advance(8)
            live.refresh()
            assert any("validation loss 8/40 examples" in one for one in shown())
        for width, height in ((40, 10), (120, 40), (60, 20)):
            console.size = (width, height)
            terminal.resize(height, width)
            live.refresh()
            console.print("stopping")
            found = shown()
            assert sum("step 100/200" in one for one in found) == 1 and sum("stopping" in one for one in found) == 1
        raise KeyboardInterrupt
    console.print("interrupted")
    left = [one for one in shown() if one]
    assert left[-1] == "interrupted" and "in training" in left[-2] and sum("step 100/200" in one for one in left) == 1
    assert pyte.modes.DECTCEM in terminal.mode, "the cursor is still hidden"


def test_without_a_terminal_there_are_lines_now_and_then(capsys):
    console = Console(file=sys.stderr, force_terminal=False)
    with live_view.display(100, console=console) as view:
        run(view)
    told = capsys.readouterr().err.splitlines()
    assert [one.split(" · ")[0] for one in told] == [f"step {step}/100" for step in (1, 20, 40, 60, 80, 100)]
    assert "validation loss 3.7000 ± 0.0200" in told[1] and "tokens/s" in told[0] and "left" in told[0]
    assert not any("\x1b" in one for one in told)
