"""An answer's text as the bytes of its tokens come. Knows no engine."""

import codecs


class Characters:
    """Whole characters only, and no white space before the first word, which is an artefact of tokenizing."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._begun = False

    def take(self, part: bytes) -> str:
        """What the bytes complete; a character of which some are to come is held back."""
        return self._fresh(self._decoder.decode(part))

    def finish(self) -> str:
        """What was held back, with U+FFFD for a character that stays in pieces."""
        return self._fresh(self._decoder.decode(b"", final=True))

    def _fresh(self, text: str) -> str:
        text = text if self._begun else text.lstrip()
        self._begun = self._begun or bool(text)
        return text
