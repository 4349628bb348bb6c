import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

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


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one model at f16, q8_0 and q2_k, and held-out rows."""
    import bench_model

    folder = tmp_path_factory.mktemp("family")
    whole = bench_model.write(folder / "family.f16.gguf")
    bench_model.quantize(whole, folder / "family.q8_0.gguf", 7)
    bench_model.quantize(whole, folder / "family.q2_k.gguf", 10)
    write_heldout(folder / "heldout.jsonl", heldout_rows())
    return folder
