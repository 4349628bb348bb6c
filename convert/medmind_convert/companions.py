"""Writes what goes with the GGUFs: the model card, and the Modelfile by which Ollama takes the newest of them."""

import math
from collections.abc import Sequence
from pathlib import Path

from medmind import artifacts, console, gguf_header
from medmind_convert import model_card, modelfile
from medmind_convert.conversion import Conversion
from medmind_convert.convert import Result


def write(conversion: Conversion, results: Sequence[Result]) -> list[Path]:
    """Write `NAME.md` and `NAME.Modelfile` beside the results, over those of an earlier conversion.

    The card lists every GGUF of that name in the folder, the Modelfile takes the type named last, which is the one
    `medmind-chat` takes. Ollama reads no split model: then there is no Modelfile.

    Returns:
        The files.
    """
    source = conversion.source
    card = source.out / f"{source.name}.md"
    perplexities = model_card.perplexities(source.out)
    written = [(card, model_card.text(source, _rows(conversion, results), perplexities, onto=conversion.onto))]
    if results[-1].shards == 1:
        made = modelfile.text(
            results[-1].file.name,
            go_template=_template(conversion),
            system_prompt=source.system_prompt,
            stops=[conversion.vocabulary.tokens[stop] for stop in conversion.stops],
            context=source.manifest.get("context"),
        )
        written.append((source.out / f"{source.name}.Modelfile", made))
    else:
        console.note("no Modelfile is written: Ollama imports no split GGUF (llama-gguf-split --merge makes one file)")
    for path, text in written:
        with artifacts.atomic_file(path, force=True) as partial:
            partial.write_text(text, encoding="utf-8")
    return [path for path, _ in written]


def _rows(conversion: Conversion, results: Sequence[Result]) -> list[model_card.Row]:
    """This conversion's files, and those that earlier ones left under the same name."""
    source = conversion.source
    rows = {result.file: model_card.Row(result.file, result.quant.name, result.bits) for result in results}
    for file in artifacts.models_in(source.out, "q4_k_m"):
        quant = file.name.removeprefix(f"{source.name}.").removesuffix(".gguf")
        if file not in rows and file.name.startswith(f"{source.name}.") and "-of-" not in quant:
            rows[file] = model_card.Row(file, quant, _bits(file))
    return sorted(rows.values(), key=lambda row: -row.bits)


def _bits(file: Path) -> float:
    """Bits per weight. The gguf package, which `info` reads with, takes 30 MiB for a vocabulary of 12,288 tokens."""
    tensors = gguf_header.read(file).tensors
    return sum(tensor.size for tensor in tensors) * 8 / max(1, sum(math.prod(tensor.shape) for tensor in tensors))


def _template(conversion: Conversion) -> str | None:
    tokenizer = conversion.tokenizer
    if tokenizer.chat_template is None:
        return None
    return modelfile.template(
        lambda messages, reply: tokenizer.render(messages, add_generation_prompt=reply), tokenizer.bos_text
    )
