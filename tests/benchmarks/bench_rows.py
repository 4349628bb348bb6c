"""Held-out rows of our own words, some with two turns."""

import json
from pathlib import Path

SUBJECTS = ("a cough", "a fever", "a rash", "hay fever", "a sprain", "heartburn", "a burn", "anemia", "gout", "asthma")


def heldout_rows(count: int = 12) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for index in range(count):
        subject = SUBJECTS[index % len(SUBJECTS)]
        messages = [
            {"role": "user", "content": f"What helps with {subject}?"},
            {
                "role": "assistant",
                "content": f"Rest and water help. See a doctor when {subject} lasts {index + 2} days.",
            },
        ]
        if index % 4 == 3:
            messages += [
                {"role": "user", "content": "Is it catching?"},
                {"role": "assistant", "content": "Not as a rule." * (index % 3 + 1)},
            ]
        rows.append({"id": f"row-{index}", "messages": messages, "focus": subject, "question_type": "x", "source": "y"})
    return rows


def write_heldout(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
