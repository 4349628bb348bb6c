"""A model's sizes in its metadata, which are named after its architecture: `llama.block_count`. Knows no file."""

from collections.abc import Mapping


def key(metadata: Mapping[str, str | int], name: str) -> str:
    """The whole name of a size; source: ggml's docs/gguf.md."""
    return f"{metadata.get('general.architecture')}.{name}"


def size(metadata: Mapping[str, str | int], name: str, default: int = 0) -> int:
    """A size; the default where the metadata give no whole number (but perhaps one for each layer)."""
    value = metadata.get(key(metadata, name))
    return value if isinstance(value, int) else default
