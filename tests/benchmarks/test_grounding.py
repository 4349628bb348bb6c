"""`medmind-bench grounding`: paired figures, prompts that are chat's own, retrieval, and what is refused."""

import dataclasses
import json
import math
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Unpack

import bench_model
import pytest
from bench_command import medmind_bench
from bench_rows import write_heldout

from medmind import llama, turns
from medmind.artifacts import read_jsonl
from medmind.errors import MedmindError
from medmind_benchmarks import cell as cells
from medmind_benchmarks import runner
from medmind_benchmarks.answers.questions import Question
from medmind_benchmarks.grounding import cell, items, joining, results, retrieval, run, tables
from medmind_benchmarks.grounding.cell import Result, Scored
from medmind_benchmarks.grounding.items import Item
from medmind_benchmarks.grounding.retrieval import Hit
from medmind_benchmarks.likelihood import language_of
from medmind_benchmarks.process import CellError
from medmind_runtime import session
from medmind_runtime.config import ChatConfig
from medmind_runtime.engine.assembly import Parts, Settings, assemble
from medmind_runtime.guard import Guard
from medmind_runtime.library import index
from medmind_runtime.library.read import Answer, answers
from medmind_runtime.safety.careful import Careful

SUBJECTS = ("Gout", "Croup", "Mumps", "Lupus")


def item(name: str, answer: int | None = 0) -> Item:
    choice = None if answer is None else Question(name, "q", ("a", "b"), answer, "x", "text")
    return Item(name, "q", "a", "Gout", "x", choice)


def scored(tokens: int, nll: float, options: tuple[float, ...] = (-1.0, -2.0), **more: Any) -> Scored:
    return Scored("scored", tokens=tokens, nll=nll, options=options, alone=(-1.0, -1.0), lengths=(1, 1), **more)


def result(*found: Scored) -> Result:
    return Result(256, 64, found, "sha256:0", 1.0)


def test_both_sides_are_paired_over_the_rows_that_both_have() -> None:
    alone = result(scored(10, 20.0, prompt=5), scored(30, 60.0, prompt=7), scored(9, 1.0), scored(9, 1.0))
    grounded = result(
        scored(10, 10.0, (-3.0, -2.0), prompt=105, passages=2),
        scored(30, 66.0, (-1.0, -1.5), prompt=67, passages=1),
        Scored("nothing found"),
        Scored("no passage fits"),
    )
    hits = [Hit(3, 2, True), Hit(3, 2, True), Hit(0, None, True), Hit(1, 1, True)]
    found = joining.rows([item("one"), item("two"), item("three"), item("four")], hits, alone, grounded)
    pair = joining.pair("q8_0", "clinic", found, alone, grounded)
    assert pair.left_out == {"nothing found": 1, "no passage fits": 1}
    assert pair.passages and pair.passages.value == 1.5
    assert pair.passage_tokens and (pair.passage_tokens.value, pair.passage_tokens.error) == (80.0, 20.0)
    whole = pair.all
    assert whole and (whole.rows, whole.tokens, whole.likelier) == (2, 40, 1)
    assert whole.question_alone.value == pytest.approx(math.exp(80 / 40))
    assert whole.with_passages.value == pytest.approx(math.exp(76 / 40))
    assert whole.change.value == pytest.approx(math.exp(-4 / 40))
    # residuals of the ratio estimator: −10 + 0.1 · 10 and 6 + 0.1 · 30, in nats
    assert whole.change.error == pytest.approx(math.exp(-0.1) * math.sqrt(2 * (9**2 + 9**2)) / 40)
    before, now = whole.choice_alone, whole.choice_with_passages
    assert before and now and now.flips and (before.quoted.value, now.quoted.value) == (1.0, 0.5)
    assert (now.flips.lost, now.flips.won, now.flips.difference) == (1, 0, -0.5)
    # the second row's own topic stood second, and only one passage fitted
    assert pair.own_topic and pair.own_topic.change.value == pytest.approx(math.exp(-1))
    assert pair.other_topics and pair.other_topics.change.value == pytest.approx(math.exp(0.2))
    assert joining.record(found[0], "q8_0", "clinic")["own_topic"] is True
    assert joining.record(found[2], "q8_0", "clinic")["state"] == "nothing found"


def test_without_choices_or_without_rows_there_is_nothing_instead_of_a_figure() -> None:
    alone, grounded = result(scored(10, 20.0, ())), result(scored(10, 10.0, ()))
    (row,) = joining.rows([item("one", None)], [Hit(1, 1, True)], alone, grounded)
    effect = joining.effect([row])
    assert effect and effect.choice_alone is effect.choice_with_passages is None and effect.change.error is None
    assert joining.effect([]) is None


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that heeds the system text, rows of two topics each, and a library of half of them."""
    folder = tmp_path_factory.mktemp("grounding")
    bench_model.write(folder / "small.f16.gguf", template=bench_model.FRAMED)
    rows = []
    for kind in ("causes", "symptoms"):
        for focus in SUBJECTS:
            words = " ".join(f"{focus[:2]}{kind[:2]}{number}" for number in range(4))
            messages = [
                {"role": "user", "content": f"What are the {kind} of {focus}?"},
                {"role": "assistant", "content": f"They are {words}."},
            ]
            rows.append({"id": f"{focus} {kind}", "messages": messages, "focus": focus, "question_type": kind})
    write_heldout(folder / "heldout.jsonl", rows)
    source = write_heldout(folder / "causes.jsonl", [row for row in rows if row["question_type"] == "causes"])
    index.write(answers(source), folder / "causes.library")
    return folder


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Cells run here instead of in processes; gives the library of each."""
    ran = []

    def run_cell(request: Any, kind: Any, *, advance: Callable[[], None], **_: Any) -> Any:
        ran.append(Path(request.library).stem)
        try:
            return cells.measure(dataclasses.asdict(request), advance)
        except MedmindError as error:
            raise CellError(str(error)) from error

    monkeypatch.setattr(runner, "run_cell", run_cell)
    yield ran


def grounding(place: Path, *arguments: object, library: object = "") -> "subprocess.CompletedProcess[str]":
    given = library or place / "causes.library"
    return medmind_bench("grounding", place, "--library", given, "--threads", 1, *arguments)


def test_what_is_scored_stands_behind_the_prompt_that_chat_builds(place: Path) -> None:
    (asked,) = (one for one in items.build(read_jsonl(place / "heldout.jsonl"), 0)[0] if one.id == "Gout causes")
    config = ChatConfig(library=place / "causes.library", threads=1, kv_type="f16")
    begun = session.guard_for(config)
    opened = session.open_model(place / "small.f16.gguf", config, begun)
    guard: Guard = begun.wait()
    try:
        engine: Any = opened.conversation.engine
        prompts: list[list[int]] = []

        def listen(tokens: Sequence[int], **_: Any) -> Iterator[int]:
            prompts.append(list(tokens))
            yield from ()

        engine.generate = listen
        for _ in opened.conversation.answer(opened.conversation.fit(asked.question)):
            pass
        assert len(prompts) == 1
        words = b"".join(map(engine.detokenize, prompts[0])).decode()
        assert "Answer only from the numbered passages" in words and "[1] Gout: They are Goca0" in words
        (found,) = cell.score(engine, guard, [asked], lambda: None).scored
        said = [{"role": "user", "content": asked.question}, {"role": "assistant", "content": asked.answer}]
        _, answer = turns.tokens(language_of(engine), said[:1], said)
        expected = engine.log_probs([*prompts[0], *answer], len(prompts[0]))
        assert (found.prompt, found.tokens, found.cut) == (len(prompts[0]), len(answer), False)
        assert found.nll == -math.fsum(expected.tolist())
        (alone,) = cell.score(engine, Careful(), [asked], lambda: None).scored
        assert alone.prompt < found.prompt and alone.tokens == found.tokens and alone.nll != found.nll
    finally:
        opened.close()


def test_the_cell_opens_a_model_with_the_batch_and_attention_that_chat_chooses(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Settings] = []

    def listen(path: Path, **settings: Unpack[Settings]) -> Parts:
        told.append(settings)
        return assemble(path, **settings)

    monkeypatch.setattr("medmind_runtime.engine.engine.assemble", listen)
    monkeypatch.setattr(cell, "score", lambda engine, *_: engine)
    items.write(tmp_path / "items.jsonl", [])
    model = str(place / "small.f16.gguf")
    cell.measure(cell.Request("grounding", model, "", str(tmp_path / "items.jsonl"), None, 1, "f16"), lambda: None)
    session.open_model(Path(model), ChatConfig(threads=1), session.guard_for(ChatConfig())).close()
    measured, chats = ([one.get(name) for name in ("context", "batch", "flash", "load_mode")] for one in told)
    assert measured == chats


def test_the_command_reports_both_sides_and_goes_on(place: Path, tmp_path: Path, in_process: list[str]) -> None:
    out = tmp_path / "report"
    done = grounding(place, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    report = results.Report.from_json(json.loads(done.stdout))
    assert report == results.read_report(out / "grounding.json")
    (library,) = report.libraries
    assert (library.asked, library.with_topic, library.held, library.topics) == (8, 8, 4, 4)
    assert [(one.passages, one.of, one.share) for one in library.recall] == [(1, 4, 1.0), (3, 4, 1.0)]
    assert report.conditions.kv_type == {"f16": "f16"} and "f16 KV cache" in (out / "grounding.md").read_text("utf-8")
    pair = report.pair("f16", "causes")
    assert pair.all and pair.own_topic and pair.own_topic.rows == 4
    assert pair.all.rows + sum(pair.left_out.values()) == 8
    assert pair.passage_tokens and pair.passage_tokens.value > 10
    rows = read_jsonl(out / "rows.jsonl")
    assert {row["id"] for row in rows} == {f"{focus} {kind}" for focus in SUBJECTS for kind in ("causes", "symptoms")}
    page = (out / "grounding.md").read_text(encoding="utf-8")
    assert "batch and attention as chat chooses them" in page
    assert "Goca" not in page + done.stdout + (out / "rows.jsonl").read_text(encoding="utf-8"), "no sentence of a row"
    assert "| f16 | causes | own | 4 |" in page
    assert in_process == ["", "causes"]
    (place / "again.library").write_bytes((place / "causes.library").read_bytes())
    shown = grounding(place, "--out", out, "--force", "--library", place / "again.library")
    assert shown.returncode == 0 and "perplexity of held-out answers" in shown.stdout, shown.stderr
    assert in_process == ["", "causes"], "the same content is the same library"


def test_rows_that_do_not_fit_are_counted_and_in_neither_side(
    place: Path, tmp_path: Path, in_process: list[str]
) -> None:
    rows = read_jsonl(place / "heldout.jsonl")[:2]
    said = rows[1]["messages"][1]["content"] = "They are many, " * 40
    rows[0]["messages"][0]["content"] = "Causes of gout and croup? " * 20
    rows.append({"id": "late", "messages": [{"role": "assistant", "content": "Hello."}]})
    heldout = write_heldout(tmp_path / "rows.jsonl", rows)
    done = grounding(place, "--out", tmp_path / "report", "--heldout", heldout, "--json")
    assert done.returncode == 0, done.stderr
    report = results.Report.from_json(json.loads(done.stdout))
    (pair,) = report.pairs
    assert pair.left_out == {"the prompt does not fit": 1} and report.conditions.left_out == {items.NO_QUESTION: 1}
    reserve = report.conditions.reserve["f16"]
    assert pair.all and (pair.all.rows, pair.all.tokens, pair.all.cut) == (1, reserve, 1) and len(said) > reserve
    assert pair.all.choice_alone is None
    assert not tables.choices(report).rows
    assert "1 row left out" in " ".join(tables.verdict(report))


def test_recall_is_of_topics_that_the_library_holds(tmp_path: Path) -> None:
    held = [Answer("Adult  Gout", "causes", "Uric acid is what makes gout.", "s", "")]
    held += [Answer("Croup", "symptoms", "A barking cough.", "s", "") for _ in range(4)]
    held += [Answer(f"Gout {place}", "causes", "Gout, gout, adult gout and its causes.", "s", "") for place in range(2)]
    index.write(held, tmp_path / "a.library")
    asked = [Item("1", "What are the causes of adult gout?", "", "adult gout", "Causes", None)]
    asked += [
        Item("2", "What are the causes of gout 1?", "", "croup", "causes", None),
        Item("3", "Zebra?", "", "", "", None),
    ]
    with index.Library(tmp_path / "a.library") as library:
        first, second, third = retrieval.look_up(library, asked)
    assert first.held and first.place and not second.held and second.place is None and second.found
    assert third == Hit(0, None, False)
    one, all_three = retrieval.recall([Hit(3, 2, True), Hit(3, 1, True), Hit(3, None, True), Hit(3, None, False)])
    assert (one.of, one.share, all_three.share) == (3, 1 / 3, 2 / 3) and one.low < 1 / 3 < one.high
    assert retrieval.recall([second]) == ()


def refused(done: "subprocess.CompletedProcess[str]", words: str) -> None:
    assert done.returncode == 1 and done.stdout == "", done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ") and words in line


def test_bad_input_is_one_line_before_any_model_is_loaded(place: Path, tmp_path: Path) -> None:
    refused(grounding(place, library=place / "heldout.jsonl"), "heldout.jsonl is no library")
    refused(grounding(place, library=place / "none"), "medmind-chat index SOURCE -o FILE")
    index.write([Answer("Zebra", "stripes", "black, white", "s", "")], tmp_path / "zebra.library")
    refused(grounding(place, library=tmp_path / "zebra.library"), "has nothing on any of the 8 questions")
    (tmp_path / "lonely").mkdir()
    bench_model.write(tmp_path / "lonely" / "a.f16.gguf")
    refused(grounding(tmp_path / "lonely", library=place / "causes.library"), "there is no held-out set")
    rows = [{"messages": [{"role": "assistant", "content": "Hello."}]}]
    heldout = write_heldout(tmp_path / "rows.jsonl", rows)
    refused(grounding(place, "--heldout", heldout), "none of the held-out rows can be asked")
    assert not (place / "grounding").exists() and not (place / "grounding.cells").exists()


def test_a_model_that_cannot_be_measured_is_said_and_the_others_stand(
    place: Path, tmp_path: Path, in_process: list[str]
) -> None:
    odd = bench_model.write(tmp_path / "odd.gguf", template="{{ raise_exception('never') }}", half=False)
    done = grounding(place, odd, "--out", tmp_path / "report", "--rows", 2)
    assert done.returncode == 1
    assert "1 of 2 pairs of model and library were not measured: f32 with causes: " in done.stderr
    report = results.read_report(tmp_path / "report" / "grounding.json")
    assert [pair.status for pair in report.pairs] == ["failed", "measured"]


@pytest.mark.parametrize(("built", "kind"), [(True, "f16"), (False, "bf16")])
def test_the_cache_is_of_the_type_that_chat_takes_beside_a_file(
    built: bool, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama, "own_attention", lambda: built)
    shape = {"general.architecture": "llama", "llama.attention.head_count": 2, "llama.embedding_length": 128}
    models = {
        label: SimpleNamespace(path=Path(label), metadata={**shape, "general.file_type": file_type})
        for label, file_type in (("q8_0", 7), ("q4_k_m", 15))
    }
    config = run.GroundingConfig()
    plan: Any = SimpleNamespace(models=models, libraries={"causes": Path("l")}, items=[], config=config, threads=1)
    asked = [(one.level, one.request.kv_type) for one in run._cells(plan, Path("items"))]  # type: ignore[attr-defined]
    assert asked == [("q8_0", kind), ("q8_0", kind), ("q4_k_m", "f16"), ("q4_k_m", "f16")]


def test_the_committed_results_are_readable_and_hold_no_text() -> None:
    file = Path(__file__).parents[2] / "benchmarks" / "results" / "medmind-tiny-grounding.json"
    report = results.read_report(file)
    assert {pair.model for pair in report.pairs} == {"q8_0", "q4_k_m"} and len(report.pairs) == 4
    assert report.conditions.kv_type == {"q8_0": "f16", "q4_k_m": "f16"}  # measured before chat's own type was taken
    for pair in report.pairs:
        assert pair.all and pair.all.change.error and pair.all.choice_with_passages
        held = next(one.held for one in report.libraries if one.label == pair.library)
        assert (pair.own_topic is None) == (held == 0)
