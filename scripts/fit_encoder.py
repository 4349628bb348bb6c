"""Fine-tune the encoder of the safety layer's classifier on the vignettes that may be read.

    python scripts/fit_encoder.py FOLDER OUTPUT.gguf [--device cuda] [--without FOLD]

FOLDER holds the published sentence encoder all-MiniLM-L6-v2 (huggingface.co/sentence-transformers/all-MiniLM-L6-v2,
Apache-2.0): model.safetensors, config.json and the tokenizer's files. Its weights are taken with 16 bits, so that a
copy of half the size does as well, and all are fine-tuned beneath a classification head; of several runs, each averaged
over its last half, the mean of the weights is taken (Wortsman et al. 2022), without the heads, which began apart;
rounded to 4 bits (Q4_0) and written as GGUF. scripts/fit_classifier.py puts a head on it. `--without` leaves every
fifth file out, for cross-validation.

Needs the extra `train`; run it from the root of the repository when many vignettes have been added: for a few, a new
head does. Hours on two cores, minutes on a GPU; another machine gives weights that differ in their last bits.
"""

import argparse
import copy
import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from fit_classifier import FOLDS, among, read
from transformers import AutoTokenizer, BertForSequenceClassification, PreTrainedTokenizerBase

from medmind_runtime.safety.classifier import KINDS

SOURCE = "https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2"
EPOCHS, BATCH, RATE, HEAD_RATE, WARM = 8, 64, 2e-4, 1e-3, 0.06
SMOOTHING, SEEDS, LONGEST = 0.05, (0, 1, 2), 256
"""Of the labels; of the runs that are averaged; tokens of a text while fitting."""
POOL = 16
"""Batches whose texts are sorted by length together, so that few tokens are padding."""
AMONG = 0.5
"""Share of the texts that are put among harmless ones: a cry among other talk stays a cry."""

Net = BertForSequenceClassification


def batches(rows: Sequence[dict[str, str]], chance: random.Random) -> Iterator[tuple[Sequence[str], Sequence[str]]]:
    """All texts once, in any order, some among harmless ones: of each batch the texts and their kinds."""
    quiet = [row for row in rows if row["label"] == "none"]
    drawn = [
        among(row, quiet, chance) if chance.random() < AMONG else (row["text"], row["kind"])
        for row in chance.sample(rows, len(rows))
    ]
    for at in range(0, len(drawn), BATCH * POOL):
        pool = sorted(drawn[at : at + BATCH * POOL], key=lambda one: len(one[0]))
        alike = [pool[first : first + BATCH] for first in range(0, len(pool), BATCH)]
        for batch in chance.sample(alike, len(alike)):
            texts, kinds = zip(*batch, strict=True)
            yield texts, kinds


def fitted(folder: Path, rows: Sequence[dict[str, str]], seed: int, device: str) -> Net:
    """One run: the mean of the weights over its last half."""
    torch.manual_seed(seed)
    chance = random.Random(seed)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    net: Any = Net.from_pretrained(folder, num_labels=len(KINDS), dtype=torch.float16)  # its methods have no types
    net = net.float().to(device)
    mean: Net = copy.deepcopy(net)
    head = list(net.classifier.parameters())
    optimizer = torch.optim.AdamW(
        [{"params": list(net.bert.parameters()), "lr": RATE}, {"params": head, "lr": HEAD_RATE}],
        weight_decay=0.01,
    )
    steps = EPOCHS * math.ceil(len(rows) / BATCH)
    rising = max(1, WARM * steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda at: min(1, (at + 1) / rising) * (1 - at / steps))
    loss_of = torch.nn.CrossEntropyLoss(label_smoothing=SMOOTHING)
    taken = 0
    net.train()
    for _ in range(EPOCHS):
        for texts, kinds in batches(rows, chance):
            batch = tokenizer(list(texts), padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
            target = torch.tensor([KINDS.index(kind) for kind in kinds], device=device)
            loss = loss_of(net(**batch.to(device)).logits, target)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            taken += 1
            if taken > steps // 2:
                with torch.no_grad():
                    torch._foreach_lerp_(list(mean.parameters()), list(net.parameters()), 1 / (taken - steps // 2))
    mean.train(False)
    return mean


def tensors(net: Net) -> dict[str, str]:
    """The name in the GGUF of every weight of the encoder."""
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, net.config.num_hidden_layers)
    found = {}
    for name in net.state_dict():
        stem, _, part = name.removeprefix("bert.").rpartition(".")
        if stem not in ("pooler.dense", "classifier"):
            found[name] = f"{names.get_name(stem)}.{part}"
    return found


def write(path: Path, tokenizer: PreTrainedTokenizerBase, net: Net) -> None:
    """Write the GGUF, as llama.cpp reads `bert`; source of names and of the vocabulary's form: its conversion/bert.py.

    Matrices are rounded to Q4_0; the embeddings of places stay as they are.
    """
    config = net.config
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name("medmind's safety encoder")
    writer.add_description("Written by scripts/fit_encoder.py; a changed version of the model named as its source.")
    writer.add_license("apache-2.0")
    writer.add_source_url(SOURCE)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_layer_norm_eps(config.layer_norm_eps)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.CLS)
    writer.add_token_type_count(config.type_vocab_size)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    special = set(tokenizer.all_special_ids)
    pieces = sorted(tokenizer.get_vocab().items(), key=lambda piece: piece[1])
    writer.add_token_list(
        [
            piece if token in special else piece[2:] if piece.startswith("##") else f"\u2581{piece}"
            for piece, token in pieces
        ]
    )
    kinds = gguf.TokenType
    writer.add_token_types([kinds.CONTROL if token in special else kinds.NORMAL for _, token in pieces])
    writer.add_bos_token_id(tokenizer.cls_token_id)
    writer.add_eos_token_id(tokenizer.sep_token_id)
    writer.add_sep_token_id(tokenizer.sep_token_id)
    writer.add_unk_token_id(tokenizer.unk_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_mask_token_id(tokenizer.mask_token_id)
    for name, named in tensors(net).items():
        numbers = net.state_dict()[name].numpy().astype(np.float32)
        if numbers.ndim == 2 and not named.startswith(("position_embd", "token_types")):
            packed = gguf.GGMLQuantizationType.Q4_0
            writer.add_tensor(named, gguf.quants.quantize(numbers, packed), raw_dtype=packed)
        else:
            writer.add_tensor(named, numbers)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    """Write the encoder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("output", type=Path, metavar="OUTPUT")
    parser.add_argument("--device", default="cpu", help="as PyTorch names it")
    parser.add_argument("--without", type=int, choices=range(FOLDS), help="the fold of files that is left out")
    asked = parser.parse_args()
    torch.set_float32_matmul_precision("high")  # on a GPU some times as fast; 4 bits are left in the end
    rows = [row for row in read() if row["fold"] != str(asked.without)]
    runs = [fitted(asked.folder, rows, seed, asked.device).cpu() for seed in SEEDS]
    states = [net.state_dict() for net in runs]
    runs[0].load_state_dict({name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]})
    write(asked.output, AutoTokenizer.from_pretrained(asked.folder), runs[0])


if __name__ == "__main__":
    main()
