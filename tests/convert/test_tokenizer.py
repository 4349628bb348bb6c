"""Tokenizers: llama.cpp's ids against transformers', from each form a tokenizer comes in."""

import json
import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tiny_bases import edit_json, json_only

from medmind.errors import MedmindError
from medmind_convert import quants, scores
from medmind_convert.check import TEXTS, Expected
from medmind_convert.convert import Conversion, Options, convert
from medmind_convert.gguf_vocabulary import GgufVocabulary
from medmind_convert.source import find
from medmind_convert.token_agreement import compare
from medmind_convert.tokenizer import Tokenizer, TokenType

SHARED = Path(__file__).parents[2].parent / "shared"


def write_f16(base: Path) -> Path:
    results, _ = convert(find(str(base), out=base.parent / "out"), quants.parse(["f16"]), Options(force=True))
    return results[0].file


@pytest.fixture(scope="module")
def mistral_tokenizer(mistral_v3: Path) -> Tokenizer:
    """Of Mistral's own tokenizer.model, which takes seconds to read."""
    return Tokenizer(mistral_v3)


@pytest.fixture(scope="module")
def mistral_f16(mistral_v3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The GGUF of the same."""
    return write_f16(Path(shutil.copytree(mistral_v3, tmp_path_factory.mktemp("form") / "base")))


@pytest.fixture(scope="module", params=["tokenizer.model", "tokenizer.json", "tokenizer.json as on the hub"])
def mistral_gguf(
    request: pytest.FixtureRequest,
    mistral_v3: Path,
    mistral_tokenizer: Tokenizer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Any:
    """(tokenizer, vocabulary of the GGUF) for each form."""
    if request.param == "tokenizer.model":
        with GgufVocabulary(request.getfixturevalue("mistral_f16")) as vocabulary:
            yield mistral_tokenizer, vocabulary
        return
    base = tmp_path_factory.mktemp("form") / "base"
    shutil.copytree(mistral_v3, base)
    if request.param == "tokenizer.json":
        json_only(base, mistral_tokenizer)
    else:

        def as_on_the_hub(document: dict[str, Any]) -> None:
            """Merges by SentencePiece's scores and a Metaspace, as in Mistral-7B-Instruct-v0.3's tokenizer.json."""
            import sentencepiece

            processor = sentencepiece.SentencePieceProcessor(model_file=str(mistral_v3 / "tokenizer.model"))
            vocab = document["model"]["vocab"]
            merges = [
                (processor.GetScore(vocab[piece]), piece[:cut], piece[cut:])
                for piece in vocab
                if processor.IsControl(vocab[piece]) is False
                for cut in range(1, len(piece))
                if piece[:cut] in vocab and piece[cut:] in vocab
            ]
            merges.sort(key=lambda merge: -merge[0])
            document["model"]["merges"] = [[left, right] for _, left, right in merges]
            document["normalizer"] = None
            document["pre_tokenizer"] = {
                "type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False,
            }  # fmt: skip

        edit_json(base, as_on_the_hub, mistral_tokenizer)
    tokenizer = Tokenizer(base)
    with GgufVocabulary(write_f16(base)) as vocabulary:
        yield tokenizer, vocabulary


def test_mistral_v3_renders_the_same_ids_in_every_form(mistral_gguf: Any):
    tokenizer, vocabulary = mistral_gguf
    text = "<s>[INST] Hi[/INST]"
    assert vocabulary.tokenize(text) == tokenizer.encode(text) == [1, 3, 16127, 4]
    for text in TEXTS:
        prompt = f"<s>[INST] {text}[/INST] {text}</s>[INST]{text}[/INST]"
        assert vocabulary.tokenize(prompt) == tokenizer.encode(prompt)


def corpus_lines(count: int) -> Iterator[str]:
    import lzma

    file = SHARED / "corpus" / "corpus.jsonl.xz"
    if not file.exists():
        pytest.skip("no ../shared/corpus")
    with lzma.open(file, "rt", encoding="utf-8") as stream:
        for line in stream:
            row = json.loads(line)
            for text in str(row.get("text") or next(iter(row.values()))).splitlines():
                if text.strip():
                    yield text[:2000]
                    count -= 1
                    if count == 0:
                        return


def test_mistral_v3_agrees_on_thousands_of_lines_of_real_text(mistral_gguf: Any):
    tokenizer, vocabulary = mistral_gguf
    different = [
        line for line in corpus_lines(1500) if vocabulary.tokenize(f"<s>{line}") != tokenizer.encode(f"<s>{line}")
    ]
    assert different == []


@pytest.mark.parametrize("count", [2000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_mistral_v3_agrees_on_lines_made_to_find_differences(
    count: int, mistral_tokenizer: Tokenizer, mistral_f16: Path
):
    assert compare(mistral_tokenizer, mistral_f16, count=count).generated == count


def test_tokenizer_models_own_scores_are_kept_where_they_order_the_merges(spm: Path):
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_file=str(spm / "tokenizer.model"))
    backend = json.loads(Tokenizer(spm)._hf.backend_tokenizer.to_str())
    ids, merges = backend["model"]["vocab"], backend["model"]["merges"]
    found = scores.find(spm, ids, merges)
    assert found == {piece: processor.GetScore(i) for piece, i in ids.items()}
    rebuilt = scores.from_merges(ids, merges)
    joined = list(dict.fromkeys("".join(merge) for merge in merges))
    assert len(joined) > 50
    assert sorted(joined, key=lambda piece: -found[piece]) == sorted(joined, key=lambda piece: -rebuilt[piece])


def test_scores_follow_the_merges_where_tokenizer_model_orders_them_otherwise(
    mistral_v3: Path, mistral_tokenizer: Tokenizer
):
    """Mistral v3's runs of spaces: last in tokenizer.model, first in what transformers makes of it."""
    backend = json.loads(mistral_tokenizer._hf.backend_tokenizer.to_str())
    merges = backend["model"]["merges"]
    found = scores.find(mistral_v3, backend["model"]["vocab"], merges)
    ordered = [found[piece] for piece in dict.fromkeys("".join(merge) for merge in merges)]
    assert len(ordered) > 25_000
    assert all(first > second for first, second in pairwise(ordered))


def test_the_check_catches_llama_cpps_own_way_of_scoring(
    mistral_v3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """−1000 for every piece: "glaucoma" comes out in other pieces, and the command must fail and leave nothing."""
    base = tmp_path / "base"
    shutil.copytree(mistral_v3, base)
    monkeypatch.setattr(scores, "find", lambda path, ids, merges: dict.fromkeys(ids, -1000.0))
    with pytest.raises(MedmindError, match=r"tokenizes .* otherwise than transformers"):
        write_f16(base)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["tokenizer.model", "tokenizer.json"])
def test_types_and_ids_of_special_tokens(form: str, make_base: Callable[..., Path]):
    base = make_base(vocab=400)
    if form == "tokenizer.json":
        json_only(base)
    vocabulary = Tokenizer(base).vocabulary(400)
    assert vocabulary.tokens[:6] == ["<unk>", "<s>", "</s>", "<pad>", "[INST]", "[/INST]"]
    assert vocabulary.types[:6] == [TokenType.UNKNOWN, *[TokenType.CONTROL] * 5]
    assert vocabulary.types.count(TokenType.BYTE) == 256
    assert vocabulary.types[380:] == [TokenType.UNUSED] * 20
    assert len(vocabulary.tokens) == len(set(vocabulary.tokens)) == 400
    assert (vocabulary.bos, vocabulary.eos, vocabulary.unk, vocabulary.pad) == (1, 2, 0, 3)


@pytest.mark.parametrize(("add_bos", "add_eos"), [(True, False), (False, False), (True, True)])
def test_bos_and_eos_are_added_as_transformers_adds_them(add_bos: bool, add_eos: bool, make_base: Callable[..., Path]):
    base = make_base()
    config = json.loads((base / "tokenizer_config.json").read_text())
    config |= {"add_bos_token": add_bos, "add_eos_token": add_eos}
    (base / "tokenizer_config.json").write_text(json.dumps(config))
    vocabulary = Tokenizer(base).vocabulary(384)
    assert (vocabulary.add_bos, vocabulary.add_eos) == (add_bos, add_eos)


@pytest.mark.parametrize("prefix", [True, False])
def test_the_space_after_a_control_token_is_probed(prefix: bool, make_base: Callable[..., Path]):
    """Llama 2's normalizer puts a space after every control token, Mistral v3's does not; llama.cpp follows each."""

    def change(document: dict[str, Any]) -> None:
        space = [{"type": "Prepend", "prepend": "▁"}] if prefix else []
        document["normalizer"] = {
            "type": "Sequence",
            "normalizers": [*space, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}],
        }
        document["pre_tokenizer"] = None

    base = edit_json(make_base(), change)
    tokenizer = Tokenizer(base)
    assert tokenizer.vocabulary(384).add_space_prefix is prefix
    with GgufVocabulary(write_f16(base)) as vocabulary:
        text = "<s>[INST] the heart[/INST]pumps</s>blood"
        assert vocabulary.tokenize(text) == tokenizer.encode(text)


def test_an_added_token_of_the_users_is_one_token_in_llama_cpp_too(make_base: Callable[..., Path]):
    def change(document: dict[str, Any]) -> None:
        document["added_tokens"].append(
            {"id": 380, "content": "<dose>", "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": False}
        )  # fmt: skip

    base = edit_json(make_base(), change)
    tokenizer = Tokenizer(base)
    assert tokenizer.vocabulary(384).types[380] == TokenType.USER_DEFINED
    with GgufVocabulary(write_f16(base)) as vocabulary:
        ids = vocabulary.tokenize("<s>the<dose>heart")
        assert ids == tokenizer.encode("<s>the<dose>heart")
        assert 380 in ids


def byte_level(document: dict[str, Any]) -> None:
    document["pre_tokenizer"] = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }


def nfkc(document: dict[str, Any]) -> None:
    document["normalizer"] = {"type": "NFKC"}


def no_bytes(document: dict[str, Any]) -> None:
    document["model"]["byte_fallback"] = False


def unigram(document: dict[str, Any]) -> None:
    pieces = [[piece, -1.0] for piece in document["model"]["vocab"]]
    document["model"] = {"type": "Unigram", "unk_id": 0, "vocab": pieces, "byte_fallback": True}


@pytest.mark.parametrize(
    ("change", "words"),
    [(byte_level, "byte-level BPE"), (nfkc, "NFKC"), (no_bytes, "without byte fallback"), (unigram, "Unigram")],
)
def test_tokenizers_that_gguf_cannot_express_are_refused_by_name(
    change: Callable[[dict[str, Any]], None], words: str, make_base: Callable[..., Path]
):
    base = edit_json(make_base(), change)
    with pytest.raises(MedmindError, match=words):
        _ = Conversion(find(str(base))).vocabulary


def test_more_tokens_than_embedding_rows_is_refused(make_base: Callable[..., Path]):
    with pytest.raises(MedmindError, match="has 380 tokens, the embedding 300 rows"):
        _ = Conversion(find(str(make_base(vocab=300)))).vocabulary


def test_a_template_that_renders_otherwise_outside_transformers_is_caught(make_base: Callable[..., Path]):
    """transformers passes more than a GGUF's reader knows (here: the pad token): the difference is found."""
    base = make_base()
    config = json.loads((base / "tokenizer_config.json").read_text())
    config["chat_template"] = "{{ bos_token }}{{ pad_token }}{{ messages[0]['content'] }}"
    (base / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(MedmindError, match="renders differently"):
        write_f16(base)


def test_a_stop_token_that_llama_cpp_would_run_past_is_caught(make_base: Callable[..., Path]):
    base = make_base()
    file = write_f16(base)
    expected = Expected(Tokenizer(base), (), "")
    assert expected.compare(file, [2]).texts > 10
    with pytest.raises(MedmindError, match="would not stop at token 5"):
        expected.compare(file, [2, 5])
