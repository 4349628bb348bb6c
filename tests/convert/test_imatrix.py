"""Importance matrices: both formats, what is collected against a product by hand and llama-imatrix, and resuming."""

import json
import os
import signal
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import forked
import numpy as np
import pytest
from tiny_bases import WORDS, Shape, write_base
from typer.testing import CliRunner

from medmind import artifacts
from medmind.errors import MedmindError
from medmind_convert import activations, calibration, quants
from medmind_convert.activations import Text, collect, state_of
from medmind_convert.cli import app
from medmind_convert.convert import convert
from medmind_convert.imatrix import Entry, Imatrix, read_imatrix, write_imatrix
from medmind_convert.model_run import ModelRun, Product
from medmind_convert.source import find

TEXT = Text("words.txt", WORDS * 12, special=False)


@pytest.fixture(scope="module")
def model(spm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imatrix")
    base = write_base(folder / "base", Shape(hidden=64, ffn=128, layers=2), spm)
    results, _ = convert(find(str(base), out=folder), quants.parse(["f16"]))
    return results[0].file


def some() -> Imatrix:
    rng = np.random.default_rng(3)
    entries = {
        f"blk.{i}.attn_q.weight": Entry(rng.random(64).astype(np.float32), np.array([96], np.float32)) for i in range(3)
    }
    return Imatrix(entries, ("words.txt",), 3, 32, {"medmind.imatrix.tokens": "sha256:00"})


def test_what_is_written_is_read_again(tmp_path: Path):
    write_imatrix(tmp_path / "i.gguf", some())
    found = read_imatrix(tmp_path / "i.gguf")
    assert (found.datasets, found.chunks, found.chunk_size, found.notes) == (("words.txt",), 3, 32, some().notes)
    for name, entry in some().entries.items():
        assert np.array_equal(found.entries[name].sums, entry.sums)
        np.testing.assert_allclose(found.for_tensor(name, 64), entry.sums / 96)
    assert found.for_tensor("token_embd.weight", 64) is None
    with pytest.raises(MedmindError, match=r"64 values for blk\.0.*128 columns"):
        found.for_tensor("blk.0.attn_q.weight", 128)


def test_the_older_format_is_read(tmp_path: Path):
    name, values = b"blk.0.ffn_up.weight", np.arange(1, 65, dtype="<f4")
    data = struct.pack("<ii", 1, len(name)) + name + struct.pack("<ii", 4, 64) + (values * 4).tobytes()
    (tmp_path / "old.dat").write_bytes(data + struct.pack("<ii", 4, 5) + b"a.txt")
    found = read_imatrix(tmp_path / "old.dat")
    assert (found.datasets, found.chunks) == (("a.txt",), 4)
    assert np.array_equal(found.for_tensor(name.decode(), 64), values)
    (tmp_path / "older.dat").write_bytes(data)
    assert read_imatrix(tmp_path / "older.dat").chunks == 0
    for cut in range(0, len(data), 7):
        (tmp_path / "cut.dat").write_bytes(data[:cut])
        with pytest.raises(MedmindError, match=r"cut off|holds no"):
            read_imatrix(tmp_path / "cut.dat")


def test_files_that_are_none_are_refused(tmp_path: Path, model: Path):
    with pytest.raises(MedmindError, match="is no file"):
        read_imatrix(tmp_path / "none")
    with pytest.raises(MedmindError, match="no importance matrix"):
        read_imatrix(model)
    write_imatrix(tmp_path / "i.gguf", some())
    whole = (tmp_path / "i.gguf").read_bytes()
    for cut in (3, 40, len(whole) // 2, len(whole) - 100):
        (tmp_path / "cut.gguf").write_bytes(whole[:cut])
        with pytest.raises(MedmindError, match=r"cut off|damaged"):
            read_imatrix(tmp_path / "cut.gguf")
    bad = some()
    bad.entries["blk.1.attn_q.weight"].sums[5] = np.nan
    write_imatrix(tmp_path / "nan.gguf", bad)
    with pytest.raises(MedmindError, match=r"NaN.*blk\.1"):
        read_imatrix(tmp_path / "nan.gguf")


def test_squares_and_counts_are_those_of_the_activations(model: Path, tmp_path: Path):
    seen: list[np.ndarray] = []

    def watch(name: str, product: Product) -> None:
        if name == "blk.1.ffn_down.weight":
            seen.append(product.activations())

    with ModelRun(model, length=32, threads=1, watch=watch) as run:
        chunks = activations.chunks(run, TEXT, 4)
        assert all(chunk[0] == run.bos and len(chunk) == 32 for chunk in chunks)
        for chunk in chunks:
            run.run(chunk)
    assert [values.shape for values in seen] == [(32, 128)] * 4
    found = collect(model, TEXT, tmp_path / "i.gguf", threads=1, length=32, most=4).imatrix
    assert len(found.entries) == 2 * 7
    entry = found.entries["blk.1.ffn_down.weight"]
    assert entry.counts.tolist() == [128]
    np.testing.assert_allclose(entry.sums, (np.concatenate(seen) ** 2).sum(0), rtol=1e-5)
    with_output = collect(model, TEXT, tmp_path / "o.gguf", threads=1, length=32, most=4, output=True).imatrix
    assert set(with_output.entries) - set(found.entries) == {"output.weight"}


def test_an_interrupted_collection_goes_on_and_ends_in_the_same_bytes(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    options: dict[str, Any] = {"threads": 1, "length": 32, "most": 6}
    collect(model, TEXT, tmp_path / "whole.gguf", **options)
    run, count = ModelRun.run, 0

    def interrupted(self: ModelRun, tokens: list[int]) -> None:
        nonlocal count
        count += 1
        if count == 4:
            raise KeyboardInterrupt
        run(self, tokens)

    out = tmp_path / "cut.gguf"
    with monkeypatch.context() as patch:
        patch.setattr(ModelRun, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            collect(model, TEXT, out, saving=1e9, **options)
    assert not out.exists()
    assert state_of(out).exists()
    found = collect(model, TEXT, out, **options)
    assert found.resumed == 3
    assert out.read_bytes() == (tmp_path / "whole.gguf").read_bytes()
    assert not state_of(out).exists()
    state_of(out).write_bytes((tmp_path / "whole.gguf").read_bytes())  # a state, but of other tokens
    assert collect(model, Text("b", WORDS * 3, special=False), out, threads=1, length=32, most=2).resumed == 0


def test_ctrl_c_within_a_chunk_keeps_the_chunks_before_it(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    options: dict[str, Any] = {"threads": 1, "length": 32, "most": 4}
    add, count = activations.Sums.add, 0

    def interrupted(self: activations.Sums, name: str, product: Product) -> None:
        nonlocal count
        add(self, name, product)
        count += 1
        if count == 2 * 14 + 5:  # 14 weights a chunk: the third is begun
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(activations.Sums, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            collect(model, TEXT, tmp_path / "cut.gguf", saving=0, **options)
    assert read_imatrix(state_of(tmp_path / "cut.gguf")).chunks == 2
    assert collect(model, TEXT, tmp_path / "cut.gguf", **options).resumed == 2
    collect(model, TEXT, tmp_path / "whole.gguf", **options)
    assert (tmp_path / "cut.gguf").read_bytes() == (tmp_path / "whole.gguf").read_bytes()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_at_the_entry_of_the_callback_ends_the_chunk(
    name: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    """There an exception would be printed by ctypes, and lost."""
    number = getattr(signal, name, None)
    if number is None:
        pytest.skip("no such signal here")
    look, add, looks, products = ModelRun._look, activations.Sums.add, 0, 0

    def interrupted(self: ModelRun, address: int, ask: bool, data: object) -> bool:
        nonlocal looks
        if products >= 2 * 14 + 5:  # 14 weights a chunk: the third is begun
            looks += 1
            if looks == 1:
                signal.raise_signal(number)
        return look(self, address, ask, data)

    def counted(self: activations.Sums, name: str, product: Product) -> None:
        nonlocal products
        products += 1
        add(self, name, product)

    def handler(*_: object) -> None:
        raise KeyboardInterrupt(name)

    before = signal.signal(number, handler)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(ModelRun, "_look", interrupted)
            patch.setattr(activations.Sums, "add", counted)
            with pytest.raises(KeyboardInterrupt, match=name):
                collect(model, TEXT, tmp_path / "cut.gguf", threads=1, length=32, most=4, saving=0)
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, before)
    assert (looks, products) == (2, 2 * 14 + 5)  # the node that was due, of which nothing more is wanted
    said = capfd.readouterr().err
    assert "2 chunks are kept in" in said
    assert "Exception ignored" not in said
    assert read_imatrix(state_of(tmp_path / "cut.gguf")).chunks == 2


@pytest.mark.skipif(not forked.available, reason="no fork here")
def test_a_killed_collection_goes_on_after_the_last_state(model: Path, tmp_path: Path):
    out, run, count = tmp_path / "killed.gguf", ModelRun.run, 0

    def killed(self: ModelRun, tokens: list[int]) -> None:
        nonlocal count
        count += 1
        if count == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        run(self, tokens)

    def collection() -> None:
        ModelRun.run = killed  # type: ignore[method-assign]
        collect(model, TEXT, out, threads=1, length=32, most=6, saving=1e9)

    assert forked.Forked(collection, cwd=tmp_path).wait().returncode == -signal.SIGKILL
    assert not out.exists()
    assert collect(model, TEXT, out, threads=1, length=32, most=6).resumed == 3


def test_states_take_a_bounded_part_of_the_time(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """By a clock that is given: 10 s a chunk, and 0.5 s, then 2 s a state."""
    now, states = 0.0, []
    monkeypatch.setattr(activations, "time", SimpleNamespace(monotonic=lambda: now))

    def chunk(self: ModelRun, tokens: list[int]) -> None:
        nonlocal now
        now += 10
        run(self, tokens)

    def state(path: Path, imatrix: Imatrix) -> None:
        nonlocal now
        states.append(imatrix.chunks)
        now += 0.5 if len(states) == 1 else 2.0
        write_imatrix(path, imatrix)

    run = ModelRun.run
    monkeypatch.setattr(ModelRun, "run", chunk)
    monkeypatch.setattr(activations, "write_imatrix", state)
    collect(model, TEXT, tmp_path / "i.gguf", threads=1, length=32, most=20)
    assert states == [1, 4, 14, 20]


def test_what_the_callback_raises_comes_out(model: Path):
    def watch(name: str, product: Product) -> None:
        raise KeyboardInterrupt

    with ModelRun(model, length=32, threads=1, watch=watch) as run, pytest.raises(KeyboardInterrupt):
        run.run([1, 5, 6, 7])


def test_too_little_text_is_refused(model: Path, tmp_path: Path):
    with pytest.raises(MedmindError, match=r"few has \d+ tokens, one chunk is 512"):
        collect(model, Text("few", "the heart", special=False), tmp_path / "i.gguf", threads=1)
    assert not list(tmp_path.iterdir())


def test_held_out_rows_are_never_calibrated_on():
    def row(question: str, answer: str) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}

    long = "The airways swell, which makes breathing hard; an inhaler opens them again within some minutes."
    held = [row("What is asthma?", long)]
    rows = [row("What is gout?", "A disease of joints."), row("What is  asthma?", "x"), row("Why?", long + "\n")]
    kept, dropped = calibration.without_heldout(rows, [], held)
    assert (kept, dropped) == (rows[:1], 2)
    with pytest.raises(MedmindError, match="held-out answer"):
        calibration.without_heldout([], [f"Before. {long.replace(' an', '  an')} After."], held)


def test_rows_are_rendered_as_whole_conversations(make_run: Callable[..., Path], tmp_path: Path, model: Path):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"question": "Hi?", "answer": "Yes."}) + "\n")
    (tmp_path / "plain.txt").write_text("More text.")
    rows, texts = calibration.read([tmp_path / "rows.jsonl", tmp_path / "plain.txt"])
    text = calibration.render(model, "both", rows, texts, "Be brief.")
    assert text.special
    assert text.text == "<s>[INST] Hi?[/INST] Yes.</s>More text."  # this template frames an open question alone
    (tmp_path / "bad.jsonl").write_text(json.dumps({"text": "x"}) + "\n")
    with pytest.raises(MedmindError, match=r"bad\.jsonl:1 has neither"):
        calibration.read([tmp_path / "bad.jsonl"])


def test_the_command_reads_the_runs_validation_rows(make_run: Callable[..., Path], model: Path):
    run = make_run()
    file = run / "trial.f16.gguf"
    file.write_bytes(model.read_bytes())
    rows = [{"messages": [{"role": "user", "content": WORDS}, {"role": "assistant", "content": WORDS}]}] * 12
    held = artifacts.read_jsonl(run / "heldout.jsonl")
    artifacts.write_jsonl(run / "validation.jsonl", [*rows, held[0]])
    result = CliRunner().invoke(app, ["imatrix", str(file), "--chunks", "2", "--threads", "1", "--json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert (document["chunks"], document["rows_left_out"], document["tensors"]) == (2, 1, 15)
    assert read_imatrix(run / "trial.imatrix.gguf").datasets == ("validation.jsonl",)
    with pytest.raises(MedmindError, match="exists already"):
        calibration.make_imatrix(file, None, (), None)
    (run / "validation.jsonl").unlink()
    with pytest.raises(MedmindError, match="no text"):
        calibration.make_imatrix(file, None, (), run / "other.gguf")


@pytest.mark.reference
@pytest.mark.parametrize("form", ["gguf", "dat"])
def test_it_is_llama_imatrix_within_float_noise(form: str, model: Path, tmp_path: Path):
    from llama_tools import run_tool

    (tmp_path / "words.txt").write_text(TEXT.text)
    run_tool(
        "llama-imatrix", "-m", str(model), "-f", str(tmp_path / "words.txt"), "-o", str(tmp_path / "theirs"),
        "--output-format", form, "--process-output", "--no-ppl", "-c", "64", "-b", "64", "-ub", "64", "-t", "1",
    )  # fmt: skip
    theirs = read_imatrix(tmp_path / "theirs")
    ours = collect(model, TEXT, tmp_path / "ours.gguf", threads=1, length=64, output=True).imatrix
    assert ours.chunks == theirs.chunks > 4
    assert ours.entries.keys() == theirs.entries.keys()
    for name, entry in ours.entries.items():
        width = entry.sums.size
        np.testing.assert_allclose(ours.for_tensor(name, width), theirs.for_tensor(name, width), rtol=2e-4)
