"""A conversation as a file: what is damaged is told in one line of medmind's own words."""

import json
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medmind.errors import MedmindError
from medmind_runtime import saved
from medmind_runtime.turn import Passage, Turn

TURNS = [Turn("q", "a", (Passage("text", "a leaflet", "https://example.org"),)), Turn("é 😀", "")]


def test_what_was_saved_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "talk.json"
    turns = [replace(TURNS[0], passages=(replace(TURNS[0].passages[0], neighbours="not shown"),)), TURNS[1]]
    saved.write(path, model="m", system="be calm", turns=turns)
    assert saved.read(path) == ("be calm", TURNS)
    assert "not shown" not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def document(**changed: Any) -> bytes:
    sources = [{"text": "t", "source": "s", "url": ""}]
    turn = {"question": "q", "answer": "a", "sources": sources}
    return json.dumps({"format": saved.FORMAT, "system": "", "turns": [turn], **changed}).encode()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is no JSON: what stands in line 1, column 1 does not belong there"),
        (document()[:-3], "is no JSON: what stands in line 1"),
        (b'{"format":\n tru}', "line 2, column 2 "),
        (b"\xff\xfe\x00", "holds no text that is JSON"),
        (b"[" * 100_000, "holds no text that is JSON"),
        (b"9" * 10_000, "holds no text that is JSON"),
        (b"[1]", "is not of the format"),
        (b"{}", "is not of the format"),
        (document(system=3), "is damaged: it has no text called system"),
        (document(turns={}), "is damaged: it has no list called turns"),
        (document(turns=["q"]), "is damaged: turn 1 has no list called sources"),
        (document(turns=[{"question": "q", "sources": []}]), "is damaged: turn 1 has no text called answer"),
        (document(turns=[{"sources": [{"text": ""}]}]), "source 1 of turn 1 has no text called source"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_what_is_damaged_is_told_by_place_and_with_what_to_do(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "talk.json"
    path.write_bytes(content)
    with pytest.raises(MedmindError) as refused:
        saved.read(path)
    assert str(refused.value).startswith(f"{path} ") and says in refused.value.message
    assert refused.value.hint and "\n" not in str(refused.value)


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(MedmindError, match="does not exist"):
        saved.read(tmp_path / "none.json")
    with pytest.raises(MedmindError, match="is no regular file"):
        saved.read(tmp_path)


def test_a_file_that_is_far_too_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "talk.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # no more of it than of any other is read
    with pytest.raises(MedmindError, match="larger than any conversation"):
        saved.read(path)
