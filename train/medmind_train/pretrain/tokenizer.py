"""A SentencePiece-BPE tokenizer trained on text and saved as transformers and llama.cpp read it.

Knows pieces, scores and the chat template; not what the text is about.
"""

import json
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from medmind.console import require
from medmind.errors import MedmindError

CONTROL_TOKENS = ("[INST]", "[/INST]")
BOS, EOS, UNK, PAD = "<s>", "</s>", "<unk>", "<pad>"
_FIXED_PIECES = 4 + len(CONTROL_TOKENS) + 256
_SPACE = "▁"
_LONGEST_LINE = 1 << 14

CHAT_TEMPLATE = """\
{%- if messages[0]['role'] == 'system' -%}
  {%- set system = messages[0]['content'] -%}
  {%- set turns = messages[1:] -%}
{%- else -%}
  {%- set system = '' -%}
  {%- set turns = messages -%}
{%- endif -%}
{{- bos_token -}}
{%- for turn in turns -%}
  {%- if (turn['role'] == 'user') != (loop.index0 % 2 == 0) -%}
    {{- raise_exception('after an optional system message, user and assistant must take turns') -}}
  {%- endif -%}
  {%- if turn['role'] == 'user' -%}
    {%- if system and (loop.last or loop.index0 == turns | length - 2 and turns[-1]['role'] == 'assistant') -%}
      {{- '[INST] ' + system + '\\n\\n' + turn['content'] + '[/INST]' -}}
    {%- else -%}
      {{- '[INST] ' + turn['content'] + '[/INST]' -}}
    {%- endif -%}
  {%- elif turn['role'] == 'assistant' -%}
    {{- ' ' + turn['content'] + eos_token -}}
  {%- else -%}
    {{- raise_exception('roles are user and assistant, with an optional first system message') -}}
  {%- endif -%}
{%- endfor -%}
"""
"""Mistral v0.3's: `<s>[INST] q1[/INST] a1</s>[INST] system\\n\\nq2[/INST]`: the system text in the last question.

Unlike the original, the system text stays with the last question when the answer to it is appended, so that a prompt
is a prefix of prompt and answer.
"""


def train_tokenizer(documents: Iterable[str], vocab_size: int, out: Path) -> None:
    """Train SentencePiece-BPE with byte fallback on `documents` and save it in the transformers format.

    Spaces are kept as they are (no dummy prefix, no squeezing), digits are split singly and nothing is normalised:
    every text survives encoding and decoding unchanged.

    Args:
        documents: training text; the caller decides how much of it.
        vocab_size: pieces in all, at least 300 (256 bytes, the special tokens, and some text).
        out: an existing directory; gets tokenizer.model, tokenizer.json, tokenizer_config.json.

    Raises:
        MedmindError: a vocabulary too small, or larger than the text can fill.
    """
    sentencepiece = require("sentencepiece", "train")
    if vocab_size < _FIXED_PIECES + 32:
        raise MedmindError(f"a vocabulary of {vocab_size} is too small", f"give at least {_FIXED_PIECES + 32}")
    with tempfile.TemporaryDirectory() as scratch:
        prefix = Path(scratch) / "tokenizer"
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=_lines(documents),
                model_prefix=str(prefix),
                model_type="bpe",
                vocab_size=vocab_size,
                byte_fallback=True,
                add_dummy_prefix=False,
                remove_extra_whitespaces=False,
                normalization_rule_name="identity",
                split_digits=True,
                character_coverage=0.9999,
                unk_id=0,
                bos_id=1,
                eos_id=2,
                pad_id=3,
                control_symbols=list(CONTROL_TOKENS),
                max_sentence_length=_LONGEST_LINE * 4,
                minloglevel=2,
            )
        except (RuntimeError, OSError) as error:
            raise MedmindError(
                f"no tokenizer of {vocab_size} pieces can be trained on this text: {str(error).splitlines()[-1]}",
                "give more text or a smaller --vocab-size",
            ) from error
        (out / "tokenizer.model").write_bytes(prefix.with_suffix(".model").read_bytes())
    write_transformers_files(out)


def _lines(documents: Iterable[str]) -> Iterator[str]:
    for document in documents:
        for line in document.split("\n"):
            if line:
                yield line[:_LONGEST_LINE]


def write_transformers_files(directory: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json that encode exactly as `directory`/tokenizer.model does."""
    from sentencepiece import SentencePieceProcessor
    from tokenizers import AddedToken, Tokenizer, decoders, normalizers
    from tokenizers.models import BPE

    model = SentencePieceProcessor(model_file=str(directory / "tokenizer.model"))
    pieces = [model.id_to_piece(i) for i in range(model.get_piece_size())]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(
        BPE(vocab=vocab, merges=_merges(model, vocab), unk_token=UNK, fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Replace(" ", _SPACE)
    tokenizer.decoder = decoders.Sequence([decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in (UNK, BOS, EOS, PAD, *CONTROL_TOKENS)]
    )
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "unk_token": UNK,
        "pad_token": PAD,
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1 << 20,
        "chat_template": CHAT_TEMPLATE,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _merges(model: object, vocab: dict[str, int]) -> list[tuple[str, str]]:
    """Every way to build a piece from two pieces, best piece first.

    SentencePiece joins the pair whose result has the best score; the `tokenizers` library the pair listed first.
    Pieces of one score do not occur in a trained BPE model: the score is minus the rank.
    """
    merges = []
    for piece, index in vocab.items():
        if not model.is_control(index) and not model.is_byte(index):  # type: ignore[attr-defined]
            pairs = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
            known = sorted(
                (p for p in pairs if p[0] in vocab and p[1] in vocab), key=lambda p: (vocab[p[0]], vocab[p[1]])
            )
            merges += [(model.get_score(index), pair) for pair in known]  # type: ignore[attr-defined]
    merges.sort(key=lambda entry: -entry[0])
    return [pair for _, pair in merges]
