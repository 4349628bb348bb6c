"""A GGUF's metadata and tensor table for a person or a script. Knows GGUF only; loads no tensor."""

from collections import Counter
from pathlib import Path
from typing import Any

from medmind import console
from medmind.console import human_bytes
from medmind.errors import MedmindError

MAGIC = b"GGUF"
_LONG = 16
"""Elements of an array shown in full."""


def read(path: Path) -> dict[str, Any]:
    """Metadata and tensors of a GGUF.

    Returns:
        `file`, `bytes`, `metadata` (key -> value; long arrays as their length and first elements), `tensors` (`name`,
        `type`, `shape` with rows first, `bytes`), `parameters`, `bits_per_weight`.

    Raises:
        MedmindError: no such file, no GGUF, or one that is cut off.
    """
    if not path.is_file():
        raise MedmindError(f"{path} is no file", "give a .gguf file")
    with path.open("rb") as stream:
        if stream.read(4) != MAGIC:
            raise MedmindError(f"{path} is not a GGUF file", "make one with: medmind-convert gguf q4_k_m")
    gguf = console.require("gguf", "convert")
    size = path.stat().st_size
    try:
        reader = gguf.GGUFReader(path)
        metadata = {key: _value(field) for key, field in reader.fields.items() if not key.startswith("GGUF.")}
        tensors = [
            {
                "name": tensor.name,
                "type": tensor.tensor_type.name,
                "shape": [int(n) for n in reversed(tensor.shape.tolist())],
                "bytes": int(tensor.n_bytes),
            }
            for tensor in reader.tensors
        ]
    except ValueError as error:
        if "GGMLQuantizationType" in str(error):
            raise MedmindError(
                f"{path} holds a tensor type that this version of the gguf package does not know: {error}",
                "run: pip install --upgrade gguf",
            ) from error
        raise MedmindError(f"{path} is cut off or damaged ({size} bytes)", "convert or copy it again") from error
    except Exception as error:  # numpy, struct or unicode, wherever the file happens to end
        raise MedmindError(f"{path} is cut off or damaged ({size} bytes)", "convert or copy it again") from error
    count = sum(int(tensor.n_elements) for tensor in reader.tensors)
    total = sum(tensor["bytes"] for tensor in tensors)
    return {
        "file": str(path),
        "bytes": size,
        "parameters": count,
        "bits_per_weight": total * 8 / count if count else 0.0,
        "metadata": metadata,
        "tensors": tensors,
    }


def _value(field: Any) -> Any:
    value = field.contents()
    if isinstance(value, list) and len(value) > _LONG:
        return {"length": len(value), "first": value[:_LONG]}
    return value


def show(document: dict[str, Any]) -> None:
    """Print `read`'s document on stdout, a line for each key and tensor; nothing is cut to the terminal's width."""
    from rich.text import Text

    lines = []
    for key, value in document["metadata"].items():
        text = str(value)
        if isinstance(value, dict):
            text = f"[{value['length']} values] {', '.join(map(repr, value['first'][:6]))}, …"
        lines.append(f"{key} = " + text.replace("\n", "\n    "))
    lines.append("")
    width = max((len(tensor["name"]) for tensor in document["tensors"]), default=0)
    for tensor in document["tensors"]:
        shape = " x ".join(map(str, tensor["shape"]))
        lines.append(f"{tensor['name']:<{width}}  {tensor['type']:<5} {shape:<15} {human_bytes(tensor['bytes'])}")
    kinds = Counter(tensor["type"] for tensor in document["tensors"])
    lines.append(
        f"\n{document['parameters']:,} weights, {document['bits_per_weight']:.2f} bits each, "
        f"{human_bytes(document['bytes'])}: " + ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    )
    console.out.print(Text("\n".join(lines)))
