"""The one exception meant for the user's eyes. Everything else that escapes is a defect and shows a traceback."""


class MedmindError(Exception):
    """Something the user can mend.

    Args:
        message: what is wrong and where, one sentence without a final full stop.
        hint: what to do about it; may be empty.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        """One line: control characters and line breaks in file names or library messages must not break it."""
        text = f"{self.message} — {self.hint}" if self.hint else self.message
        return one_line(text)


def one_line(text: str) -> str:
    """`text` on one line, with what could steer a terminal made visible as �."""
    return "".join(c if c.isprintable() else "�" for c in " ".join(text.split()))
