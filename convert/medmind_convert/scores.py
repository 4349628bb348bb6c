"""Scores of a SentencePiece-BPE vocabulary: which of two possible merges llama.cpp's tokenizer does first.

Knows tokenizer.model and the merge list of a tokenizer.json; knows no GGUF.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from medmind import console
from medmind.errors import MedmindError


def find(path: Path, ids: Mapping[str, int], merges: Sequence[Sequence[str] | str]) -> dict[str, float]:
    """A score for every piece: SentencePiece's own where tokenizer.model lies in `path` and agrees, else rebuilt.

    The two disagree more often than one would think: Mistral v3's runs of spaces all score −1e9, which transformers'
    conversion of tokenizer.model ranks first, by their low ids. What the model was trained with is the merge list.

    Args:
        path: tokenizer directory.
        ids: piece -> token id, as transformers uses them.
        merges: the merge list, first merge first, as pairs or as `left right`.

    Raises:
        MedmindError: tokenizer.model is there and cannot be read.
    """
    file = path / "tokenizer.model"
    if file.is_file():
        own = _from_model(file)
        if all(own.get(piece, (None, 0.0))[0] == i for piece, i in ids.items()):
            found = {piece: own[piece][1] for piece in ids}
            ordered = [found[piece] for piece in dict.fromkeys(map(_joined, merges)) if piece in found]
            if all(first > second for first, second in pairwise(ordered)):
                return found
    return from_merges(ids, merges)


def _joined(merge: Sequence[str] | str) -> str:
    left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
    return left + right


def _from_model(file: Path) -> dict[str, tuple[int, float]]:
    """Piece -> (id, score) of a SentencePiece model."""
    sentencepiece = console.require("sentencepiece", "convert")
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(file.read_bytes())
    except Exception as error:  # sentencepiece raises RuntimeError or OSError, as its version likes
        raise MedmindError(f"{file} is not a SentencePiece model", "download it again") from error
    return {processor.IdToPiece(i): (i, processor.GetScore(i)) for i in range(processor.GetPieceSize())}


def from_merges(ids: Mapping[str, int], merges: Sequence[Sequence[str] | str]) -> dict[str, float]:
    """Scores that make llama.cpp merge in the order of a merge list.

    llama.cpp joins the neighbours whose joined piece has the highest score; tokenizers joins the pair that stands first
    in the list. A merged piece therefore scores minus the place of its first pair. Equal scores for all, as llama.cpp's
    own converter writes them, would join from left to right instead. Pieces that no merge makes (characters, bytes,
    control tokens) are never compared and score 0.
    """
    found = dict.fromkeys(ids, 0.0)
    rank = 0
    for merge in merges:
        piece = _joined(merge)
        if found.get(piece) == 0.0:
            rank += 1
            found[piece] = -float(rank)
    return found
