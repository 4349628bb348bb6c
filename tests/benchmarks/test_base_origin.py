"""A file of log-probabilities knows which model wrote it, or its tokens tell whether its vocabulary is ours."""

import json
import shutil
from pathlib import Path

import bench_model
import pytest
from bench_command import medmind_bench
from bench_rows import heldout_rows

from medmind.artifacts import HELDOUT
from medmind.errors import MedmindError
from medmind_benchmarks import base_origin, plan, row_codec, sources
from medmind_benchmarks.config import QuantsConfig

OTHER = [bench_model.WORDS[0], *bench_model.WORDS[:0:-1]]
"""The same pieces in another order: a vocabulary of the same size."""


@pytest.fixture(scope="module")
def written(family: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of log-probabilities, as medmind writes it."""
    folder = tmp_path_factory.mktemp("kl-base")
    text = folder / "text.txt"
    answers = [message["content"] for row in heldout_rows() for message in row["messages"]]  # type: ignore[attr-defined]
    text.write_text(" ".join(answers).lower(), encoding="utf-8")
    settings = ("--measure", "raw", "--chunk", "64", "--chunks", "3", "--threads", "1", "--text", text)
    files = (family / "family.f16.gguf", "--out", folder / "out", "--save-kl-base", folder / "base.kld")
    ended = medmind_bench("quants", *files, *settings, pages=False)
    assert ended.returncode == 0, ended.stderr
    return folder / "base.kld"


@pytest.fixture
def copy(written: Path, tmp_path: Path) -> Path:
    for path in (written, base_origin.beside(written)):
        shutil.copy(path, tmp_path / path.name)
    return tmp_path / written.name


def doubt(model: Path, file: Path) -> str:
    found = sources.find([model], None, file.parent / "out", kl_base=file, needs_heldout=False)
    made = plan.make(found, QuantsConfig(measure=("raw",), threads=1))
    return made.texts.kl_doubt


def test_the_model_that_wrote_it_lies_beside_it(family: Path, written: Path) -> None:
    document = json.loads(base_origin.beside(written).read_text(encoding="utf-8"))
    assert document["model"]["file"] == "family.f16.gguf" and document["model"]["digest"].startswith("sha256:")
    assert row_codec.read_base(written).tokens.shape == (3, 64)
    for name in ("family.f16.gguf", "family.q2_k.gguf"):
        assert doubt(family / name, written) == "", "every file of the model has its vocabulary"


def test_a_file_of_another_vocabulary_of_the_same_size_is_refused(copy: Path) -> None:
    other = bench_model.write(copy.parent / "other.gguf", words=OTHER)
    with pytest.raises(MedmindError, match=r"base\.kld was written by family\.f16\.gguf, whose vocabulary is another"):
        doubt(other, copy)


def test_a_file_alone_is_read_and_its_tokens_tell_another_vocabulary(family: Path, copy: Path) -> None:
    base_origin.beside(copy).unlink()
    assert doubt(family / "family.q8_0.gguf", copy) == ""
    other = bench_model.write(copy.parent / "other.gguf", words=OTHER)
    assert "base.kld may be of another vocabulary of the same size" in doubt(other, copy)


def test_a_model_of_another_adapter_is_said(family: Path, copy: Path) -> None:
    place = base_origin.beside(copy)
    document = json.loads(place.read_text(encoding="utf-8"))
    document["model"] |= {"base": "sha256:b", "adapter": "sha256:a"}
    place.write_text(json.dumps(document), encoding="utf-8")
    facts = {"medmind.base.digest": "sha256:b", "medmind.adapter.digest": "sha256:c"}
    mine = bench_model.write(copy.parent / "mine.gguf", facts=facts)
    assert doubt(mine, copy) == "base.kld was written by family.f16.gguf, of another adapter"
    assert doubt(family / "family.f16.gguf", copy) == "", "one that says nothing of itself is not accused"


def test_what_lies_beside_another_file_is_refused(family: Path, copy: Path) -> None:
    place = base_origin.beside(copy)
    document = json.loads(place.read_text(encoding="utf-8"))
    place.write_text(json.dumps({**document, "digest": "sha256:0"}), encoding="utf-8")
    with pytest.raises(MedmindError, match=r"base\.kld\.json is of another file than base\.kld"):
        doubt(family / "family.f16.gguf", copy)
    for content in ("[]", "{}", "no json"):
        place.write_text(content, encoding="utf-8")
        with pytest.raises(MedmindError, match=r"base\.kld\.json"):
            doubt(family / "family.f16.gguf", copy)


def test_neither_file_is_overwritten_unasked(family: Path, copy: Path) -> None:
    copy.unlink()
    ended = medmind_bench(
        "quants", family / "family.f16.gguf", "--heldout", family / HELDOUT, "--out", copy.parent / "out",
        "--measure", "raw", "--save-kl-base", copy,
    )  # fmt: skip
    assert ended.returncode == 1 and "base.kld.json exists already" in ended.stderr
