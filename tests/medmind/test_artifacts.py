"""Artefacts are whole or absent, whatever happens while they are written."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medmind import artifacts, embedded
from medmind.errors import MedmindError


class Burst(Exception):
    """What happens in the middle of writing."""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole_under_its_name(tmp_path: Path) -> None:
    final = tmp_path / "new" / "result.bin"
    with artifacts.atomic_file(final) as partial:
        partial.write_bytes(b"abc")
        assert not final.exists()
    assert final.read_bytes() == b"abc"
    assert names(final.parent) == ["result.bin"]


def test_a_failure_while_writing_a_file_leaves_the_old_one_alone(tmp_path: Path) -> None:
    final = tmp_path / "result.bin"
    final.write_bytes(b"old")
    with pytest.raises(Burst), artifacts.atomic_file(final) as partial:
        partial.write_bytes(b"half")
        raise Burst
    assert final.read_bytes() == b"old"
    assert names(tmp_path) == ["result.bin"]


def test_a_failure_before_the_first_byte_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Burst), artifacts.atomic_file(tmp_path / "result.bin"):
        raise Burst
    assert names(tmp_path) == []


def test_a_failure_while_writing_a_directory_leaves_the_old_one_alone(tmp_path: Path) -> None:
    final = tmp_path / "run"
    final.mkdir()
    (final / "kept").write_text("old")
    with pytest.raises(Burst), artifacts.atomic_directory(final) as partial:
        (partial / "half").write_text("new")
        raise Burst
    assert names(tmp_path) == ["run"]
    assert names(final) == ["kept"]


def test_a_directory_replaces_the_old_one_whole(tmp_path: Path) -> None:
    final = tmp_path / "run"
    final.mkdir()
    (final / "old").write_text("old")
    with artifacts.atomic_directory(final) as partial:
        (partial / "deep").mkdir()
        (partial / "deep" / "new").write_text("new")
    assert names(tmp_path) == ["run"]
    assert names(final) == ["deep"]


def test_a_directory_replaces_a_file_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with artifacts.atomic_directory(tmp_path / "run") as partial:
        (partial / "new").write_text("new")
    assert names(tmp_path) == ["run"]
    assert names(tmp_path / "run") == ["new"]


@pytest.mark.parametrize("writer", [artifacts.atomic_file, artifacts.atomic_directory])
def test_an_existing_output_is_refused_without_force(tmp_path: Path, writer: object) -> None:
    final = tmp_path / "there"
    final.write_text("old")
    with pytest.raises(MedmindError, match="--force"), writer(final, force=False):  # type: ignore[operator]
        pytest.fail("the block must not run")
    assert final.read_text() == "old"
    assert names(tmp_path) == ["there"]


KILLED = """
import sys, time
from pathlib import Path
from medmind import artifacts, embedded
final = Path(sys.argv[2])
if sys.argv[1] == "file":
    with artifacts.atomic_file(final) as partial:
        partial.write_bytes(b"half")
        print("writing", flush=True)
        time.sleep(60)
else:
    with artifacts.atomic_directory(final) as partial:
        (partial / "data").write_bytes(b"half")
        print("writing", flush=True)
        time.sleep(60)
"""


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_a_process_killed_while_writing_leaves_the_old_artefact(tmp_path: Path, kind: str) -> None:
    final = tmp_path / "result"
    data = final if kind == "file" else final / "data"
    data.parent.mkdir(exist_ok=True)
    data.write_bytes(b"old")
    with subprocess.Popen([sys.executable, "-c", KILLED, kind, str(final)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"writing"
        process.kill()
    assert data.read_bytes() == b"old"
    left = [name for name in names(tmp_path) if name != "result"]
    assert all(name.startswith(".") and name.endswith(".partial") for name in left)


def test_refuse_existing_lets_a_free_name_and_force_through(tmp_path: Path) -> None:
    artifacts.refuse_existing(tmp_path / "free", force=False)
    artifacts.refuse_existing(tmp_path, force=True)
    with pytest.raises(MedmindError, match="exists already"):
        artifacts.refuse_existing(tmp_path, force=False)


def test_space_is_looked_up_where_the_output_will_lie(tmp_path: Path) -> None:
    artifacts.require_space(tmp_path / "not" / "there" / "yet", 1, "a test")
    with pytest.raises(MedmindError, match=r"a test needs 1024\.00 TiB and .* free — free some") as caught:
        artifacts.require_space(tmp_path / "not", 1 << 50, "a test")
    assert "--out" in caught.value.hint
    with pytest.raises(MedmindError, match="HF_HOME"):
        artifacts.require_space(tmp_path, 1 << 60, "a test", "set HF_HOME")


def test_json_lines_come_back_as_they_went(tmp_path: Path) -> None:
    rows = [{"q": "naïve\u2028line"}, {"q": "二"}]
    artifacts.write_jsonl(tmp_path / "rows.jsonl", rows)
    assert artifacts.read_jsonl(tmp_path / "rows.jsonl") == rows


def test_numbers_that_json_does_not_know_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        artifacts.write_json(tmp_path / "a.json", {"x": float("nan")})
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "said"), [(b"{", "not valid JSON"), (b"[1]", "not a JSON object"), (b"\xff\xfe\x00", "not valid JSON")]
)
def test_a_json_file_that_cannot_be_read_is_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(MedmindError, match=said) as caught:
        artifacts.read_json(path)
    assert "a.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("content", "said"), [(b'{"a": 1}\n[2]\n', ":2 is not"), (b"{nope", "not valid JSON lines")])
def test_json_lines_that_cannot_be_read_are_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(MedmindError, match=said):
        artifacts.read_jsonl(tmp_path / "a.jsonl")


def make_run(run: Path, **manifest: object) -> Path:
    run.mkdir(parents=True)
    (run / artifacts.MANIFEST).write_text(json.dumps({"format": artifacts.RUN_FORMAT} | manifest))
    return run


def test_a_finished_run_gives_its_manifest(tmp_path: Path) -> None:
    assert artifacts.read_run(make_run(tmp_path / "a", name="a"))["name"] == "a"


def test_what_is_no_finished_run_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(MedmindError, match=r"not a run directory — .*qlora"):
        artifacts.read_run(tmp_path / "absent")
    with pytest.raises(MedmindError, match=r"not finished — .*--resume"):
        artifacts.read_run(tmp_path)
    with pytest.raises(MedmindError, match="medmind-run/99"):
        artifacts.read_run(make_run(tmp_path / "future", format="medmind-run/99"))


def test_the_newest_run_is_the_one_finished_last(tmp_path: Path) -> None:
    with pytest.raises(MedmindError, match="no finished run"):
        artifacts.newest_run(tmp_path)
    with pytest.raises(MedmindError, match="no finished run"):
        artifacts.newest_run(tmp_path / "absent")
    for age, name in enumerate(("c", "a", "b")):
        make_run(tmp_path / name)
        os.utime(tmp_path / name / artifacts.MANIFEST, (1000 - age, 1000 - age))
    (tmp_path / "unfinished").mkdir()
    make_run(tmp_path / ".hidden.partial")
    assert artifacts.newest_run(tmp_path) == tmp_path / "c"


def test_the_newest_model_is_the_one_converted_last(tmp_path: Path) -> None:
    with pytest.raises(MedmindError, match="no converted model"):
        artifacts.newest_model(tmp_path)
    for age, name in enumerate(("b.q8_0.gguf", "a.q4_k_m.gguf", ".c.gguf")):
        path = tmp_path / "run" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"GGUF")
        os.utime(path, (1000 + (age if name[0] != "b" else 5), 1000 + (age if name[0] != "b" else 5)))
    assert artifacts.newest_model(tmp_path).name == "b.q8_0.gguf"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without telling it")
def test_a_terminated_command_removes_what_it_had_half_written(tmp_path: Path) -> None:
    code = KILLED.replace("import sys, time", "import sys, time\nimport typer\nfrom medmind import console")
    body = code.index("final = ")
    program = (
        code[:body]
        + "app = typer.Typer()\n@app.command()\ndef main(kind: str, path: str):\n"
        + "".join(f"    {line}\n" for line in code[body:].splitlines())
        + "console.run(app)\n"
    )
    final = tmp_path / "result"
    with subprocess.Popen([sys.executable, "-c", program, "file", str(final)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"writing"
        process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 20
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert process.returncode == 143
    assert names(tmp_path) == []


def test_an_embedded_run_is_known_by_any_path_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = artifacts.RUNS / embedded.TUNED
    assert artifacts.is_embedded_run(own) and artifacts.is_embedded_run(tmp_path / own)
    assert not artifacts.is_embedded_run(tmp_path / "elsewhere" / embedded.TUNED)


def test_what_lies_beside_models_is_no_model(tmp_path: Path):
    names = ("a.q8_0.gguf", "a.imatrix.gguf", "a.adapter.gguf", ".a.q4_k_m.gguf")
    for place, name in enumerate(names):
        (tmp_path / "runs" / "a").mkdir(parents=True, exist_ok=True)
        file = tmp_path / "runs" / "a" / name
        file.write_bytes(b"GGUF")
        os.utime(file, (place + 1, place + 1))  # the only model is the oldest
    assert artifacts.newest_model(tmp_path / "runs").name == "a.q8_0.gguf"
    assert [path.name for path in artifacts.models_in(tmp_path / "runs" / "a", "q8_0")] == ["a.q8_0.gguf"]


@pytest.mark.parametrize(
    "field", ["base", "adapter", "data", "config", "name", "context", "data.source", "base.digest"]
)
@pytest.mark.parametrize("wrong", [[1], 1.5, True, -1])
def test_a_manifest_with_a_field_of_another_kind_is_refused_by_name(tmp_path: Path, field: str, wrong: object) -> None:
    manifest: dict[str, object] = {"format": artifacts.RUN_FORMAT, "name": "a", "context": 512, "base": {}, "data": {}}
    name, _, inner = field.partition(".")
    manifest[name] = {inner: wrong} if inner else wrong
    (tmp_path / artifacts.MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(MedmindError, match=rf"medmind.json: {field} is "):
        artifacts.read_run(tmp_path)
