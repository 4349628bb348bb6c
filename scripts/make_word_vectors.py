"""Make the word vectors of the safety layer, word_vectors.bin, from the published model all-MiniLM-L6-v2.

    python scripts/make_word_vectors.py FOLDER

FOLDER holds its model.safetensors, config.json and tokenizer files (huggingface.co/sentence-transformers/
all-MiniLM-L6-v2, Apache-2.0); the digest of the weights is checked. Every word of the model's own vocabulary, of the
lexicon and of the vignettes is encoded alone; of the 384 dimensions the 112 principal ones are kept, each divided by
the fourth root of its variance, and rounded to 8 bits. The same machine gives the same file again; another may round a
few of its three million numbers the other way. Needs the extra `train`; run it from the root of the repository, before
scripts/fit_leaning.py, when words have been added that matter.
"""

import hashlib
import json
import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from fit_leaning import EVERYDAY, SAFETY, VIGNETTE, read
from transformers import AutoModel, AutoTokenizer

from medmind_runtime.safety.words import split

SOURCE = "sentence-transformers/all-MiniLM-L6-v2"
DIGEST = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""sha256 of its model.safetensors."""
SIZE, BATCH = 112, 128
LARGEST = 0.9999
"""Share of the numbers that 8 bits hold unclipped."""


def own_words() -> set[str]:
    """The words of the lexicon and of the vignettes that may be read."""
    lexicon = tomllib.loads((SAFETY / "lexicon.toml").read_text(encoding="utf-8"))
    listed = {word for phrases in lexicon["lists"].values() for word in re.findall("[a-z]+", " ".join(phrases))}
    texts = [row["text"] for row in read(VIGNETTE) + read(EVERYDAY)]
    said = {word.text for text in texts for word in split(text, lexicon["spellings"]) if word.value is None}
    return listed | {word for word in said if word.isalpha()}


def encoded(folder: Path, words: list[str]) -> npt.NDArray[np.float64]:
    """Of each word the mean of the model's last hidden states, of length 1: (words, 384)."""
    torch.set_num_threads(1)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder, dtype=torch.float32)
    model.eval()
    vectors = np.zeros((len(words), model.config.hidden_size))
    order = sorted(range(len(words)), key=lambda place: (len(words[place]), place))
    with torch.inference_mode():
        for at in range(0, len(order), BATCH):
            places = order[at : at + BATCH]
            batch = tokenizer([words[place] for place in places], padding=True, return_tensors="pt")
            states, mask = model(**batch).last_hidden_state.double(), batch["attention_mask"][..., None]
            vectors[places] = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1)).numpy()
    return vectors


def reduced(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.int8]:
    """The principal directions, the wide ones narrowed: (words, SIZE)."""
    centred = vectors - vectors.mean(0)
    variances, directions = np.linalg.eigh(centred.T @ centred)  # times the number of words, which the scale takes away
    variances, directions = variances[::-1][:SIZE], directions[:, ::-1][:, :SIZE]
    directions = directions * np.sign(directions[np.abs(directions).argmax(0), np.arange(SIZE)])
    narrowed = centred @ directions * variances**-0.25
    return np.rint(narrowed * 127 / np.quantile(np.abs(narrowed), LARGEST)).clip(-127, 127).astype(np.int8)


def main() -> None:
    """Write word_vectors.bin."""
    folder = Path(sys.argv[1])
    if hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest() != DIGEST:
        sys.exit(f"{folder}/model.safetensors is not that of {SOURCE}")
    known = AutoTokenizer.from_pretrained(folder).get_vocab()
    whole = {word for word in known if re.fullmatch("[a-z]{2,}|[ai]", word)}
    words = sorted(whole | own_words())
    vectors = reduced(encoded(folder, words))
    header = {
        "about": "Written by scripts/make_word_vectors.py: this line, the words, 8-bit vectors. See WORD_VECTORS.txt.",
        "source": SOURCE,
        "sha256": DIGEST,
        "size": SIZE,
    }
    document = f"{json.dumps(header)}\n{' '.join(words)}\n".encode() + vectors.tobytes()
    (SAFETY / "word_vectors.bin").write_bytes(document)
    sys.stdout.write(f"{len(words)} words, {len(document)} bytes\n")


if __name__ == "__main__":
    main()
