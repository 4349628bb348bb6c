"""Each field read from a model's JSON files, of every wrong type: a conversion or one line, never a traceback."""

import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from tiny_bases import json_only

from medmind.errors import MedmindError
from medmind_convert import plan, quants
from medmind_convert.conversion import Conversion
from medmind_convert.options import MergeOnto, onto
from medmind_convert.source import find

VALUES: tuple[Any, ...] = (None, 5, "x", [], {}, True, float("nan"))
FILES = ("config.json", "tokenizer_config.json", "generation_config.json", "special_tokens_map.json", "tokenizer.json")
EXTRA: dict[str, dict[str, Any]] = {
    "config.json": {"head_dim": 16, "rope_scaling": None, "rope_parameters": None, "quantization_config": None},
    "tokenizer_config.json": {
        "clean_up_tokenization_spaces": False,
        "model_max_length": 512,
        "added_tokens_decoder": {},
    },
    "generation_config.json": {"eos_token_id": 2, "bos_token_id": 1},
    "special_tokens_map.json": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"},
}


def places(document: Any, depth: int, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of the fields of a document, of a list its first item only."""
    if depth and at != ("model", "vocab"):
        items = document.items() if isinstance(document, dict) else enumerate(document[:1])
        for key, value in items:
            yield (*at, key)
            if isinstance(value, dict | list):
                yield from places(value, depth - 1, (*at, key))


def replaced(document: Any, place: tuple[Any, ...], value: Any) -> str:
    copy = json.loads(json.dumps(document))
    inner = copy
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return json.dumps(copy)


def outcome(run: Path, *, whole: bool) -> str:
    """What a conversion up to its header, and a plan, make of the run; anything but a MedmindError comes out."""
    try:
        for kind in (plan.Outlined, Conversion)[: 1 + whole]:
            source = find(str(run), weigh=False)
            conversion = kind(source, onto(MergeOnto.base, source))
            quant = quants.find("q8_0")
            conversion.layouts(quant.ftype, conversion.types(quant, imatrix=False))
            if whole and kind is Conversion:
                conversion.expected  # noqa: B018 - renders the held-out rows
    except MedmindError as error:
        return str(error)
    return "made"


def wrong(run: Path, folder: Path) -> Iterator[tuple[Path, tuple[Any, ...], Any, str]]:
    """Every file, place and value, and the file's text with it."""
    for file in (*(folder / name for name in FILES), run / "adapter" / "adapter_config.json"):
        document = json.loads(file.read_text()) if file.exists() else {}
        document = {**EXTRA.get(file.name, {}), **document}
        file.write_text(json.dumps(document))
        for place in places(document, 3):
            for value in VALUES:
                yield file, place, value, replaced(document, place, value)


@pytest.mark.parametrize("every", [41, pytest.param(1, marks=pytest.mark.slow)])
def test_no_wrong_type_is_a_traceback(every: int, make_run: Callable[..., Path], tmp_path: Path):
    run = make_run(layers=1, heldout=[])
    failed, told = [], []
    for file, place, value, text in islice(wrong(run, json_only(tmp_path / "base")), 0, None, every):
        before = file.read_text()
        file.write_text(text)
        try:
            told.append(outcome(run, whole=file.name != "adapter_config.json"))
        except BaseException as error:  # a panic of the Rust tokenizer is no Exception
            failed.append((file.name, place, value, repr(error)[:200]))
        file.write_text(before)
    assert not failed, "\n".join(map(str, failed))
    refused = [one for one in told if one != "made"]
    assert len(refused) > 10 and len(told) > len(refused)
    assert [one for one in refused if len(one.splitlines()) != 1] == []
