import io

import pytest
from rich.console import Console

from medmind_runtime.terminal.markdown import AsWritten, Blocks, Rendered

TEXT = """# Fever

Rest, **drink** and `sleep`.
Call if worse:

1. first
2. second

   - nested

3. third

```python
a = 1

b = 2
```
| a | b |
|---|---|
| 1 | 2 |

last line"""
PARTS = ["# Fever", "Rest, **drink** and `sleep`.\nCall if worse:", "1. first\n2. second\n\n   - nested", "3. third"]


def shown(text: str, *, size: int = 1, width: int = 60, terminal: bool = False) -> str:
    out = io.StringIO()
    rendered = Rendered(Console(file=out, width=width, height=12, force_terminal=terminal, highlight=False))
    for at in range(0, len(text), size):
        rendered.feed(text[at : at + size])
    rendered.finish()
    return out.getvalue()


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_blocks_end_where_nothing_later_can_change_them(size: int) -> None:
    blocks = Blocks()
    done = [block for at in range(0, len(TEXT), size) for block in blocks.feed(TEXT[at : at + size])]
    done += blocks.finish()
    assert done[:4] == PARTS
    assert done[4] == "```python\na = 1\n\nb = 2\n```"
    assert done[-1] == "last line"


def test_the_pieces_that_a_text_comes_in_make_no_difference() -> None:
    whole = shown(TEXT, size=10_000)
    assert all(shown(TEXT, size=size) == whole for size in (1, 2, 5, 11))
    assert "**" not in whole
    assert whole.startswith(
        "Fever\n\nRest, drink and sleep.\nCall if worse:\n\n 1 first\n 2 second\n    • nested\n\n 3 third"
    )
    assert not any(line.endswith(" ") for line in whole.splitlines())


@pytest.mark.parametrize(
    "text",
    [
        "take 5*3*2 mg",
        "> 120 mmHg is high",
        ">= 38.5 °C",
        "if <b>x</b> and a <y and z> 3",
        "[1]: NHS, https://nhs.uk",
        "&lt;5 &amp; more",
        "<https://example.org>",
        "Aspirin [1] and [2]",
        "100 mg ~5 times~ a_day_is_it",
    ],
)
def test_no_sign_of_a_medical_text_is_hidden(text: str) -> None:
    assert shown(text) == text + "\n"


def test_a_bullet_may_begin_with_above() -> None:
    assert shown("- > 140 is high") == " • > 140 is high\n"


def test_the_address_of_a_link_or_an_image_is_seen() -> None:
    assert shown("![scan](file.png)") == "!scan (file.png)\n"
    assert shown("[leaflet](https://example.org/a)") == "leaflet (https://example.org/a)\n"


def test_code_is_as_written() -> None:
    assert "a*b*c > 3" in shown("`a*b*c > 3`")
    assert "x = 2*3*4" in shown("```\nx = 2*3*4\n```")


def test_a_block_longer_than_the_screen_is_whole_in_the_end() -> None:
    text = " ".join(f"word{number}" for number in range(300))
    output = shown(text, size=50, terminal=True)
    final = output[output.rindex("word0") :]
    assert all(f"word{number}" in final for number in range(300))


@pytest.mark.parametrize(
    "text", ["", "\n\n", "```", "```\nx", "*", "**", "- ", "|", "# ", "\t", "    code", "1.", "a\n\n\n\nb"]
)
def test_odd_pieces_of_markdown_do_not_fail(text: str) -> None:
    shown(text)
    shown(text, width=3)
    assert AsWritten(text).markup == text
