"""Why a cell gave nothing, of the kinds that a user can do something about, and what that is. Knows no cell."""

from typing import Literal

Cause = Literal["memory", "cell memory", "cell time", "other"]
"""The machine's memory, one of the two limits that a user sets, or anything else; `other` too where nobody said."""

REMEDIES: dict[Cause, str] = {
    "memory": "give smaller files, a smaller --context, or a machine with more memory",
    "cell memory": "allow more with --cell-memory",
    "cell time": "allow more with --cell-time",
    "other": "see what medmind-chat says to the file",
}
