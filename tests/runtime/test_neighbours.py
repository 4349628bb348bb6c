import json
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest
import repository_scripts

from medmind_runtime.safety import neighbours as module
from medmind_runtime.safety.leaning import REACH, WEIGHED, Leaning
from medmind_runtime.safety.neighbours import KINDS, NEAREST, Neighbours, neighbours
from medmind_runtime.safety.vectors import PLAIN, Vectors

ROOT = Path(__file__).parents[2]
SAFETY = Path(module.__file__).parent


@pytest.fixture(scope="module")
def fit() -> ModuleType:
    """scripts/fit_leaning.py."""
    return repository_scripts.load("fit_leaning")


def test_weights_and_neighbours_are_fitted_to_the_rules_and_texts_of_today(
    fit: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    fitted = json.loads((SAFETY / "leaning.json").read_text(encoding="utf-8"))["fitted_to"]
    made_with = json.loads((SAFETY / "neighbours.bin").read_bytes().partition(b"\n")[0])["fitted_to"]
    assert fitted == made_with == fit.fitted_to(), "run scripts/fit_leaning.py"


def vectors(folder: Path, words: dict[str, Sequence[int]]) -> Vectors:
    """Of a few words."""
    head = json.dumps({"size": len(next(iter(words.values())))})
    numbers = b"".join(number.to_bytes(1, "little", signed=True) for vector in words.values() for number in vector)
    (folder / "words.bin").write_bytes(f"{head}\n{' '.join(words)}\n".encode() + numbers)
    return Vectors(folder / "words.bin")


def test_a_text_is_the_weighted_mean_of_its_words(tmp_path: Path) -> None:
    known = vectors(tmp_path, {"stroke": (100, 0), "the": (0, 50)})
    assert known.text(["stroke"], {}) == (4096, 0)
    assert known.text(["stroke", "the", "unknown", "the"], {}) == (2896, 2896)
    assert known.text(["the", "stroke"], {"the": 0}) == (4096, 0)
    assert known.text(["stroke"], {}, centre=(4096, 2000)) == (0, -127)
    assert known.text(["unknown"], {}) == known.text([], {}) == known.text(["stroke"], {}, centre=(4096, 0)) == ()
    assert PLAIN == 127


def test_products_with_all_texts_at_once_are_those_with_each(tmp_path: Path) -> None:
    chance = random.Random(5)
    size, counts = 112, {"everyday": 50, "emergency": 3, "self_harm": 40, "none": 7}
    texts = [[chance.choice([-127, 127, chance.randint(-127, 127)]) for _ in range(size)] for _ in range(100)]
    head = json.dumps({"texts": counts, "centre": [0] * size, "weights": {}})
    numbers = bytes(text[at] + 128 for at in range(size) for text in texts)
    near = Neighbours(vectors(tmp_path, {"a": [1] * size}), f"{head}\n".encode() + numbers)
    for asked in (texts[0], [-127] * size, [127] * size, [0] * size):
        first = 0
        for kind, found in zip(KINDS, near.nearest(asked), strict=True):
            own = texts[first : first + counts[kind]]
            products = [sum(one * other for one, other in zip(asked, text, strict=True)) for text in own]
            assert found == sorted(products, reverse=True)[:NEAREST]
            first += counts[kind]


def test_what_is_asked_of_neighbours_is_what_they_are_fitted_as(fit: ModuleType) -> None:
    numpy = pytest.importorskip("numpy")
    products = numpy.array([[9000 - 150 * place for place in range(40)]], dtype=float)
    target = numpy.array([1.0, 0.0, 0.0, 1.0] * 10)
    ranked = [
        [int(value) for value, one in zip(products[0], target, strict=True) if one == wanted] for wanted in (0, 1)
    ]
    assert module.share(ranked, ("none", "self_harm"), ("self_harm",)) == pytest.approx(fit.told(products, target)[0])


def test_a_text_is_heard_by_texts_that_mean_the_same_and_unknown_words_say_nothing() -> None:
    def harm(text: str) -> float:
        return neighbours().odds(text.split())[WEIGHED.index("self_harm")]

    assert harm("i do not want to live any longer") > 1 > 0 > -1 > harm("how long does a cold last")
    assert neighbours().odds(["qzxv", "17"]) == (0.0, 0.0, 0.0)
    assert all(abs(one) <= REACH for one in neighbours().odds(["suicide"]))


@pytest.mark.parametrize("start", [(-9.0, -9.0, -9.0), (9.0, 9.0, 9.0), (-9.0, 0.0, 0.0)])
def test_neighbours_are_not_asked_where_they_can_change_nothing(start: tuple[float, ...]) -> None:
    def never() -> Sequence[float]:
        raise AssertionError

    leaning = Leaning({"weights": {}, "start": start, "bounds": dict.fromkeys([*WEIGHED, "quiet"], -0.5)})
    assert leaning.judged(set(), set(), set(), alike=never) == ({"self_harm"} if start[0] > 0 else set())


@pytest.mark.parametrize("say", [REACH, -REACH])
def test_neighbours_decide_where_the_words_leave_it_open(say: float) -> None:
    leaning = Leaning({"weights": {}, "start": [0.0] * 3, "bounds": dict.fromkeys([*WEIGHED, "quiet"], 0.0)})
    assert leaning.judged(set(), {"chest"}, set(), alike=lambda: (say,) * 3) == (
        {"chest", "self_harm"} if say > 0 else set()
    )


def test_nothing_is_read_before_it_is_asked() -> None:
    program = (
        "import sys; from medmind_runtime.safety.triage import triage; known = triage()\n"
        "assert 'medmind_runtime.safety.neighbours' not in sys.modules\n"
        "known.alarms('i sat by the river again and thought that it would be over'); "
        "assert 'medmind_runtime.safety.neighbours' in sys.modules and 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
