"""Every flipped bit is found and its tensor named; tokens and renderings are compared with the source's."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bases import Shape, base_tensors, write_run, write_safetensors
from typer.testing import CliRunner

from medmind import gguf_header
from medmind.errors import MedmindError
from medmind_convert import integrity, quants
from medmind_convert.cli import app
from medmind_convert.convert import Options, convert
from medmind_convert.source import find
from medmind_convert.tokenizer import Tokenizer


def written(source: Path, quant: str = "q4_0", **options: Any) -> Path:
    results, _ = convert(find(str(source)), quants.parse([quant]), Options(force=True, threads=1, **options))
    return results[0].file


def verify(*arguments: object) -> dict[str, Any]:
    """The command's JSON document and, where it failed, its error line."""
    done = CliRunner().invoke(app, ["verify", *map(str, arguments), "--json"])
    document: dict[str, Any] = json.loads(done.stdout)
    assert (done.exception is None) == document["verified"]
    assert done.exception is None or isinstance(done.exception, MedmindError)
    return {**document, "error": "" if done.exception is None else str(done.exception)}


def damage(file: Path, bit: int) -> tuple[str, ...]:
    """What is found after a bit was flipped; the bit is put back."""
    with file.open("r+b") as stream:

        def flip() -> None:
            stream.seek(bit // 8)
            (byte,) = stream.read(1)
            stream.seek(bit // 8)
            stream.write(bytes([byte ^ 1 << bit % 8]))
            stream.flush()

        flip()
        try:
            return integrity.check(file, threads=1).damaged
        except MedmindError as error:  # the header does not even hold together
            assert "damaged" in str(error) or "cut off" in str(error) or "GGUF" in str(error)
            return (integrity.HEADER,)
        finally:
            flip()


def change_merges(base: Path) -> None:
    """Let the tokenizer join pieces in another order."""
    document = json.loads(Tokenizer(base)._hf.backend_tokenizer.to_str())
    document["model"]["merges"].reverse()
    (base / "tokenizer.json").write_text(json.dumps(document))
    (base / "tokenizer.model").unlink()


def test_every_flipped_bit_is_found_and_its_tensor_named(make_run: Callable[..., Path]):
    chance = random.Random(7)
    file = written(make_run(hidden=36, ffn=60, heads=3, heads_kv=3), "f16")  # of a width that leaves padding
    header, size = gguf_header.read(file), file.stat().st_size
    assert integrity.check(file).damaged == ()
    paddings = 0
    for number, tensor in enumerate(header.tensors):
        end = header.tensors[number + 1].offset if number + 1 < len(header.tensors) else size
        data_end = tensor.offset + tensor.size
        places = [tensor.offset, end - 1, *(chance.randrange(tensor.offset, data_end) for _ in range(2))]
        paddings += end - data_end
        for place in places:
            assert damage(file, 8 * place + chance.randrange(8)) == (tensor.name,)
    assert paddings > 0
    assert integrity.check(file).damaged == ()


def test_every_flipped_bit_of_the_header_is_found(make_run: Callable[..., Path]):
    chance = random.Random(8)
    file = written(make_run())
    header = gguf_header.read(file)
    of_tensors = header.places["medmind.digest.tensors"] + 12
    of_header = header.places["medmind.digest.header"]
    places = [*range(24), *range(header.start - 32, header.start), *range(of_header - 40, of_header + 80)]
    places += [chance.randrange(header.start) for _ in range(100)]
    places += [at + chance.randrange(-4, 8) for at in header.places.values()]
    for place in places:
        found = damage(file, 8 * place + chance.randrange(8))
        assert integrity.HEADER in found, place
    first = damage(file, 8 * (of_tensors + 8 + 20))  # within the first digest's text
    assert first == (integrity.HEADER, header.tensors[0].name)


def test_a_file_that_is_cut_or_longer_or_out_of_order_is_refused(make_run: Callable[..., Path], tmp_path: Path):
    file = written(make_run())
    whole = file.read_bytes()
    other = tmp_path / "other.gguf"
    for data in (whole[:-1], whole[:-5000], whole[:3000], whole + b"\0", whole + b"\0" * 64):
        other.write_bytes(data)
        try:
            assert integrity.check(other).damaged, len(data)
        except MedmindError as error:
            assert "cut off" in str(error) or "damaged" in str(error)


def test_a_split_model_is_verified_by_any_of_its_files(make_run: Callable[..., Path]):
    file = written(make_run(), split_max=30_000)
    parts = integrity.shards(file)
    assert len(parts) > 2
    good = verify(parts[1], file, "--lines", "50")
    assert good["verified"]
    (model,) = good["models"]
    assert model["file"] == str(file)
    assert [part["file"] for part in model["parts"]] == list(map(str, parts))
    assert (model["lines"]["compared"], model["renderings"]) == (50, 6 + 4 * 100)
    tensor = gguf_header.read(parts[2]).tensors[0]
    data = bytearray(parts[2].read_bytes())
    data[tensor.offset] ^= 4
    parts[2].write_bytes(data)
    assert f"{parts[2]} is damaged: {tensor.name} differs from the digest" in verify(file)["error"]
    shutil.copy(parts[0], parts[2])
    assert f"{parts[2]} is not part 3 of its model" in verify(file)["error"]
    parts[2].unlink()
    with pytest.raises(MedmindError, match="is missing: the model has"):
        integrity.shards(file)


def test_a_file_without_digests_says_what_could_be_checked(make_run: Callable[..., Path]):
    file = written(make_run(), provenance=False)
    found = verify(file, "--lines", "50")
    assert "carries no digests: its 21 tensors lie where they must" in found["error"]
    (model,) = found["models"]
    assert (model["parts"][0]["digests"], model["lines"]["compared"]) == (
        False,
        50,
    )  # tokens were compared all the same


def test_an_importance_matrix_is_called_one(tmp_path: Path):
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(tmp_path / "i.gguf", "")
    writer.add_type("imatrix")
    writer.add_tensor("output.weight.in_sum2", np.ones((1, 8), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    error = verify(tmp_path / "i.gguf")["error"]
    assert "is an importance matrix in llama.cpp's format, which has no digests: its 1 tensors" in error
    assert "--no-provenance" not in error


def test_the_source_is_the_run_it_lies_in_or_the_one_named(make_run: Callable[..., Path], tmp_path: Path):
    run = make_run()
    file = written(run)
    (inside,) = verify(file, "--lines", "20")["models"]
    assert inside["source"] == str(run)
    moved = Path(shutil.copy(file, tmp_path / "moved.gguf"))
    (alone,) = verify(moved)["models"]
    assert (alone["source"], alone["lines"]) == (None, None)
    (named,) = verify(moved, "--source", run, "--lines", "20")["models"]
    assert named["lines"]["compared"] == 20
    other = write_run(tmp_path / "runs" / "other", tmp_path / "base", Shape())
    write_safetensors(tmp_path / "base" / "model.safetensors", base_tensors(Shape(), seed=3), "BF16")
    assert "is not the one" in verify(moved, "--source", other)["error"]
    assert "was not made from the base of" in verify(moved, "--source", tmp_path / "base")["error"]


def test_tokens_and_renderings_that_differ_are_found(make_run: Callable[..., Path], tmp_path: Path):
    run = make_run()
    file = written(run)
    config = tmp_path / "base" / "tokenizer_config.json"
    text = config.read_text()
    config.write_text(text.replace("[INST] {%", "[INST]\\n {%"))
    error = verify(file, "--lines", "20")["error"]
    assert "renders differently from the GGUF: line 1 is '<s>[INST] " in error
    config.write_text(text)
    plain = written(tmp_path / "base", provenance=False)
    change_merges(tmp_path / "base")
    assert "otherwise than transformers" in verify(plain, "--source", tmp_path / "base", "--lines", "20")["error"]


def test_many_texts_at_once_are_what_single_ones_are(spm: Path):
    tokenizer = Tokenizer(spm)
    texts = ["<s>the heart", "", "  [INST] 🩺\n", "糖尿病"]
    assert tokenizer.encode_all(texts) == [tokenizer.encode(text) for text in texts]


def test_for_a_person_it_is_a_line_each(make_run: Callable[..., Path]):
    file = written(make_run())
    done = CliRunner().invoke(app, ["verify", str(file), "--lines", "100"], catch_exceptions=False)
    assert done.exit_code == 0
    assert done.stdout.splitlines()[0].startswith(f"{file}  whole: 21 tensors, ")
    assert "100 lines" in done.stdout and "406 chat renderings, 0 differences" in done.stdout
