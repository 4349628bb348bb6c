"""Fields of a tokenizer's JSON files that must be of a type, or are refused with file and field. Loads no tokenizer."""

from pathlib import Path

from medmind_convert.config_fields import Fields

_FLAGS = ("add_bos_token", "add_eos_token", "add_prefix_space", "legacy", "clean_up_tokenization_spaces")
_TOKENS = tuple(f"{role}_token" for role in ("bos", "eos", "unk", "pad", "sep", "cls", "mask"))


def require_types(path: Path) -> None:
    """Refuse a field that is not what it must be: transformers takes some as they are, and fails anywhere for others.

    Raises:
        MedmindError: file, field, what it is and what it must be.
    """
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if not (path / name).is_file():
            continue
        fields = Fields.read(path / name)
        for key in _FLAGS:
            fields.flag(key)
        for key in _TOKENS:
            token = fields.values.get(key)
            if not isinstance(token, str | None) and not (
                isinstance(token, dict) and isinstance(token.get("content"), str)
            ):
                fields.refuse(key, "a text, or an object with its content")
        for key in ("additional_special_tokens", "extra_special_tokens"):
            if not isinstance(fields.values.get(key), list | dict | None):
                fields.refuse(key, "a list or an object of tokens")
        fields.text("tokenizer_class")
        if not isinstance(fields.values.get("model_max_length"), int | float | None):
            fields.refuse("model_max_length", "a number")
        for place in fields.object("added_tokens_decoder").values:
            token = fields.object("added_tokens_decoder").object(place)
            if not place.isdecimal() or not isinstance(token.values.get("content"), str):
                fields.refuse("added_tokens_decoder", "an object of token ids, and for each an object with its content")
        _require_template(fields)


def _require_template(fields: Fields) -> None:
    template = fields.values.get("chat_template")
    listed = isinstance(template, list) and all(
        isinstance(each, dict) and isinstance(each.get("name"), str) and isinstance(each.get("template"), str)
        for each in template
    )
    named = isinstance(template, dict) and all(isinstance(each, str) for each in template.values())
    if not (listed or named or isinstance(template, str | None)):
        fields.refuse("chat_template", "a text, or a list of objects with name and template")


def require_vocabulary(path: Path) -> None:
    """The same of tokenizer.json, as far as it is read here.

    Raises:
        MedmindError: file, field, what it is and what it must be.
    """
    if not (path / "tokenizer.json").is_file():
        return
    fields = Fields.read(path / "tokenizer.json")
    model = fields.object("model")
    model.text("type")
    vocab = model.object("vocab")
    wrong = next((piece for piece, i in vocab.values.items() if type(i) is not int or i < 0), None)
    if wrong is not None:
        vocab.refuse(wrong, "a token id")
    if not vocab.values:
        model.refuse("vocab", "an object of token ids")
    added = fields.values.get("added_tokens")
    if added is not None and not (isinstance(added, list) and all(map(_is_token, added))):
        fields.refuse("added_tokens", "a list of objects with id and content")
    for key, many in (("pre_tokenizer", "pretokenizers"), ("normalizer", "normalizers")):
        part = fields.object(key)
        parts = part.values.get(many, [])
        if not isinstance(parts, list) or not all(isinstance(each, dict) and "type" in each for each in parts):
            part.refuse(many, "a list of objects with a type")
        if fields.values.get(key) is not None and not isinstance(part.values.get("type"), str):
            part.refuse("type", "a text")


def _is_token(token: object) -> bool:
    return isinstance(token, dict) and isinstance(token.get("content"), str) and type(token.get("id")) is int
