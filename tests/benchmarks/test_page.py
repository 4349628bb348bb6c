"""report.html in a real browser, headless: no request leaves, sorting by click and by link, phone and desktop."""

import dataclasses
import json
import re
import shutil
import subprocess
from pathlib import Path

import bench_reports as reports
import pytest
from bench_command import medmind_bench

from medmind_benchmarks import advice, page, report_files, results, tables

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser() -> str:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    assert found, "no browser is installed; on Debian: apt-get install chromium"
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page")
    report = reports.few()
    (out / "report.json").write_text(json.dumps(report.to_json()), encoding="utf-8")
    ended = medmind_bench("report", out)
    assert ended.returncode == 0, ended.stderr
    return out


def dom(browser: str, path: Path, profile: Path, fragment: str = "", width: int = 1280) -> str:
    command = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={profile}",
        f"--window-size={width},900",
        "--virtual-time-budget=2000",
        "--dump-dom",
        f"{path.as_uri()}{fragment}",
    ]
    ended = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def order(text: str) -> list[str]:
    table = text[text.index('id="levels"') :]
    body = table[table.index("<tbody>") : table.index("</tbody>")]
    return re.findall(r'<th scope="row">([^<]+)</th>', body)


def with_script(folder: Path, script: str, name: str) -> Path:
    """The page with a script of the test's own after the page's."""
    changed = folder / name
    whole = (folder / "report.html").read_text(encoding="utf-8")
    changed.write_text(whole.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    return changed


def test_the_command_renders_everything_from_the_json(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    stems = ("perplexity-by-size", "memory-by-context", "speed", "kl-divergence")
    assert {f"{stem}.{kind}" for stem in stems for kind in ("png", "svg")} <= names
    report = results.read_report(folder / "report.json")
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert text == page.render(report)
    assert tables.verdict(report).split(":")[0] in text
    assert not re.search(r'(?:src|href)="(?!#|data:,")|url\((?!#)|@import|fetch\(|XMLHttp', text), "asks a net"
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids)), "ids stand once"


def test_a_click_sorts_and_a_second_one_turns_it_round(browser: str, folder: Path, tmp_path: Path) -> None:
    click = "document.querySelector('[data-key=size] button').click();"
    once = order(dom(browser, with_script(folder, click, "once.html"), tmp_path / "a"))
    twice_text = dom(browser, with_script(folder, click * 2, "twice.html"), tmp_path / "a")
    sizes = [level.label for level in sorted(reports.few().levels, key=lambda level: level.size)]
    assert once == sizes
    assert order(twice_text) == sizes[::-1]
    assert 'data-key="size" aria-sort="descending"' in twice_text


def test_a_link_sorts_and_what_has_no_figure_stays_last(browser: str, folder: Path, tmp_path: Path) -> None:
    asked = order(dom(browser, folder / "report.html", tmp_path / "a", "#sort=kl"))
    assert asked[0] == "q8_0" and asked[-2:] == ["q2_k", "f16"]
    assert order(dom(browser, folder / "report.html", tmp_path / "a", "#sort=kl:desc"))[0] == "q2_k"


def said(browser: str, page: Path, folder: Path, width: int, script: str) -> str:
    """What a script of the test's own posts to the parent of the page, shown in a frame of that width.

    A headless window is never narrower than 500.
    """
    frame = folder / "frame.html"
    source = page.read_text(encoding="utf-8").replace("</body>", f"<script>{script}</script></body>")
    quoted = source.replace("&", "&amp;").replace('"', "&quot;")
    frame.write_text(
        f'<body><iframe width="{width}" height="800" style="border:0" srcdoc="{quoted}"></iframe>'
        "<script>addEventListener('message', (event) => document.body.dataset.said = event.data)</script>",
        encoding="utf-8",
    )
    found = re.search(r'data-said="([^"]+)"', dom(browser, frame, folder / "a"))
    assert found, "it posted nothing"
    return found[1]


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_but_the_tables_is_wider_than_the_screen(
    browser: str, folder: Path, tmp_path: Path, width: int
) -> None:
    measure = "parent.postMessage(document.documentElement.scrollWidth + ' of ' + innerWidth, '*')"
    wide, of = said(browser, folder / "report.html", tmp_path, width, measure).split(" of ")
    assert int(of) == width and int(wide) <= width


def test_on_a_phone_a_box_that_holds_more_fades_and_reasons_are_read_whole(
    browser: str, folder: Path, tmp_path: Path
) -> None:
    script = (
        "const box = document.querySelector('.scroll'), words = document.querySelector('.words').parentNode;"
        "const fades = () => getComputedStyle(box).maskImage.startsWith('linear') ? 'fades' : 'whole';"
        "const before = fades(); box.scrollLeft = box.scrollWidth;"
        "box.dispatchEvent(new Event('scroll'));"  # which a browser sends with its next picture: here there may be none
        "parent.postMessage("
        "`${before}, at its end ${fades()}, reasons ${words.scrollWidth - words.clientWidth} wider`, '*');"
    )
    found = said(browser, folder / "report.html", tmp_path, 390, script)
    assert found == "fades, at its end whole, reasons 0 wider"


def test_names_of_files_are_no_markup(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    report = reports.report(reports.level("f16", 1000, 8.0, change=None), run=evil)
    text = page.render(report)
    assert evil not in text and "&lt;script&gt;" in text


def test_a_model_of_random_weights_is_labelled_and_not_judged(tmp_path: Path) -> None:
    whole = reports.full(random_weights=True)
    report = dataclasses.replace(whole, levels=whole.levels[:2])
    report_files.write(report, tmp_path)
    for name in ("report.md", "report.html"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert "never trained" in text and "Take q" not in text
    assert not (tmp_path / "perplexity-by-size.png").exists()
    assert all("random" in one.text for one in advice.advise(report) if one.label)


def test_advice_takes_the_pick_where_it_fits_and_says_what_it_gives_up_where_not() -> None:
    report = reports.full()
    found = {one.memory // advice.GIB: one for one in advice.advise(report)}
    assert sorted(found) == [4, 6, 8, 12, 16]
    assert found[6].label == found[16].label == "q4_k_m" and found[6].context == 8192
    assert found[4].label == "q2_k" and found[4].context == 2048 and "beyond the tolerance" in found[4].text
    large = reports.level("f16", 40 * advice.GIB, 7.0, change=None, needs=(reports.need(512, 40 * advice.GIB),))
    nothing = advice.advise(reports.report(large))
    assert all(one.label is None and "none of these files" in one.text for one in nothing)
    assert advice.advise(reports.report(reports.level("f16", 9, 7.0, change=None))) == []
    assert advice.lines(report)[0][0] == "4 GiB"
    assert [machines for machines, _ in advice.lines(reports.report(large))] == ["4 to 16 GiB"]
