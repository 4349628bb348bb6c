import json
import math
import threading
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import gguf
import pytest
import repository_scripts

from medmind import llama
from medmind.errors import MedmindError
from medmind_runtime.safety.classifier import FILE, KINDS, Classifier, Encoder, alarm_odds, classifier
from medmind_runtime.safety.context import Cues
from medmind_runtime.safety.leaning import BOUNDS, heard
from medmind_runtime.safety.triage import Triage, lexicon_and_rules
from medmind_runtime.safety.words import plain, split

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def fit() -> ModuleType:
    """scripts/fit_classifier.py."""
    return repository_scripts.load("fit_classifier")


def said(**chances: float) -> list[float]:
    """Log-probabilities of kinds; what is not named is next to nothing."""
    return [math.log(chances.get(kind, 1e-9)) for kind in KINDS]


def test_the_classifier_is_fitted_to_the_texts_of_today(fit: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    made_with = gguf.GGUFReader(FILE).fields["medmind.fitted_to"].contents()
    assert made_with == fit.fitted_to(), "run scripts/fit_classifier.py"


def test_its_file_names_what_it_was_made_from_and_under_which_licence() -> None:
    fields = gguf.GGUFReader(FILE).fields
    assert fields["general.license"].contents() == "apache-2.0"
    assert "all-MiniLM-L6-v2" in fields["general.source.url"].contents()
    assert tuple(fields["bert.classifier.output_labels"].contents()) == KINDS


def test_it_tells_what_is_meant_in_words_that_no_rule_has() -> None:
    for text, kind in {
        "i have sorted the pills by colour and tonight i'll finally sleep for good": "self_harm",
        "grandad's face slid down on one side at breakfast and now his words are soup": "emergency",
        "my son says maths will be the death of him, he has a test on friday": "none",
    }.items():
        chances = classifier().log_probabilities(text)
        assert KINDS[chances.index(max(chances))] == kind
        assert math.isclose(sum(map(math.exp, chances)), 1)


def test_the_same_text_is_judged_alike_from_many_threads_at_once() -> None:
    fresh = Classifier(FILE)
    texts = [f"i have had a cough for {days} days and no fever" for days in range(12)]
    alone = [fresh.log_probabilities(text) for text in texts]
    crowd = Classifier(FILE)
    found: dict[str, Sequence[float]] = {}

    def judge(first: int) -> None:
        for text in texts[first:] + texts[:first]:
            found[text] = crowd.log_probabilities(text)

    threads = [threading.Thread(target=judge, args=[first]) for first in range(0, 12, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[text] for text in texts] == alone


def test_of_a_text_longer_than_the_encoder_reads_every_part_is_judged() -> None:
    calm = "which foods are high in iron and does tea with a meal take some of it away " * 60
    parts = Encoder(FILE, head=True).outputs(calm)
    assert len(parts) > 1 and {len(part) for part in parts} == {len(KINDS)}
    cry = f"{calm} i swallowed all my pills and want to die"
    assert alarm_odds(classifier().log_probabilities(cry)) > alarm_odds(classifier().log_probabilities(calm)) + 2


def test_special_tokens_typed_as_text_are_text() -> None:
    encoder = Encoder(FILE, head=False)
    for text in ("[SEP] [CLS]", "is [MASK] a drug?"):
        read, parsed = (encoder._vocabulary.tokenize(text, special=special, ends=True) for special in (False, True))
        assert len(read) > len(parsed), "the brackets are signs of their own"
        assert encoder.outputs(text) == [encoder._computed(read)] != [encoder._computed(parsed)]
    assert len(encoder.outputs("")) == len(encoder.outputs("\udcff")) == 1


class Library:
    """llama.cpp with some functions replaced."""

    def __init__(self, **functions: Any) -> None:
        vars(self).update(functions)

    def __getattr__(self, name: str) -> Any:
        return getattr(LIBRARY, name)


LIBRARY = llama.load()


def test_a_text_of_more_tokens_than_there_was_room_for_is_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    rooms: list[int] = []

    def tokenize(vocabulary: object, raw: bytes, size: int, ids: object, room: int, *how: bool) -> int:
        rooms.append(room)
        little = 1 if len(rooms) == 1 else room
        return int(LIBRARY.llama_tokenize(vocabulary, raw, size, ids, little, *how))

    monkeypatch.setattr(llama, "load", lambda: Library(llama_tokenize=tokenize))
    text = "i have a cough and no fever"
    assert Encoder(FILE, head=True).outputs(text) == classifier()._encoder.outputs(text)
    assert rooms[1] == len(text.split()) + 2  # with the tokens at both ends
    monkeypatch.setattr(llama, "load", lambda: Library(llama_tokenize=lambda *_: -(2**31)))
    with pytest.raises(MedmindError, match="too long"):
        Encoder(FILE, head=True).outputs(text)


@pytest.mark.parametrize(
    ("functions", "says"),
    [
        ({"llama_init_from_model": lambda *_: None}, "no memory"),
        ({"llama_model_n_cls_out": lambda _: 5}, "it tells 5 kinds and not 4"),
    ],
)
def test_a_model_that_cannot_be_used_is_freed(
    functions: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    freed: list[object] = []

    def free(model: object) -> None:
        freed.append(model)
        LIBRARY.llama_model_free(model)

    without = Library(**functions, llama_model_free=free)
    monkeypatch.setattr(llama, "load", lambda: without)
    with pytest.raises(MedmindError, match=says):
        Classifier(FILE)
    assert len(freed) == 1


def test_a_file_that_is_no_classifier_of_these_kinds_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cut.gguf").write_bytes(FILE.read_bytes()[:100_000])
    with pytest.raises(MedmindError, match="cannot be used"):
        Classifier(tmp_path / "cut.gguf")
    with pytest.raises(MedmindError, match="cannot be used"):
        Classifier(tmp_path / "none.gguf")


def test_what_a_text_tells_is_heard_by_its_bounds() -> None:
    harm, urgent = said(self_harm=0.95, emergency=0.01, none=0.04), said(emergency=0.9, none=0.1)
    assert heard(harm, set(), set()) == {"self_harm"}
    assert heard(urgent, set(), set()) == {"urgent"}
    assert heard(urgent, {"chest"}, set()) == {"chest"}
    assert heard(harm, {"overdose"}, set()) == {"overdose", "self_harm"}
    both = said(emergency=0.8, self_harm=0.2)
    assert heard(both, set(), set()) == {"self_harm", "urgent"}
    assert heard(both, {"chest"}, set()) == {"chest", "self_harm"}
    assert heard(harm, {"urgent"}, set()) == {"self_harm"}
    calm = said(everyday=1.0)
    assert heard(calm, {"chest", "bleeding"}, {"bleeding"}) == {"bleeding"}
    between = said(emergency=0.05, none=0.95)
    assert BOUNDS.confirmed < alarm_odds(between) < BOUNDS.alarm
    assert heard(between, {"chest"}, set()) == {"chest"} and heard(between, set(), set()) == set()
    assert heard(urgent, set(), set(), more=alarm_odds(urgent) - BOUNDS.alarm) == set()


def test_sentences_of_a_calm_text_are_not_looked_at_one_by_one() -> None:
    asked: list[str] = []

    def listening(odds: Sequence[float]) -> Triage:
        return Triage(*lexicon_and_rules(), lambda text: asked.append(text) or odds)

    text = "I sleep badly. My knee is old. I like tea."
    assert listening(said(everyday=1.0)).alarms(text) == []
    assert asked == [plain(text)]
    asked.clear()
    chance = 1 / (1 + math.exp(-(BOUNDS.calm + BOUNDS.alarm) / 2))  # neither calm nor an alarm
    assert listening(said(emergency=chance, none=1 - chance)).alarms(text) == []
    assert asked == [plain(text), "i sleep badly.", "my knee is old.", "i like tea."]


def test_every_list_of_the_lexicon_is_read() -> None:
    lexicon, rules = lexicon_and_rules()
    phrases = json.dumps([lexicon["lists"], lexicon["plainly"], rules["topic"]])
    by_name = {"small", "negations", "figurative", *Cues.__dataclass_fields__}
    assert [name for name in lexicon["lists"] if f"<{name}>" not in phrases and name not in by_name] == []


def test_words_know_where_they_stand() -> None:
    text = plain("She CAN\u2019T walk\u2026 35, thirty five steps")
    words = split(text, {})
    assert [(word.text, text[word.start : word.end]) for word in words] == [
        ("she", "she"),
        ("can", "can't"),
        ("not", "can't"),
        ("walk", "walk"),
        (".", "..."),
        ("35", "35"),
        (",", ","),
        ("thirty five", "thirty five"),
        ("steps", "steps"),
    ]


def test_a_head_is_the_best_one_for_its_features(fit: ModuleType) -> None:
    numpy = pytest.importorskip("numpy")
    chance = numpy.random.default_rng(3)
    kinds = numpy.arange(400) % len(KINDS)
    features = chance.normal(size=(400, 6)) * [1, 1, 1, 1, 5, 0.1] + numpy.eye(len(KINDS), 6)[kinds]

    def loss(weights: object, start: object) -> float:
        odds = features @ numpy.asarray(weights).T + start
        odds = odds - numpy.log(numpy.exp(odds).sum(1, keepdims=True))
        scaled = numpy.asarray(weights) * features.std(0)
        return float(-odds[numpy.arange(400), kinds].mean() + fit.PENALTY / 2 * (scaled**2).sum())

    weights, start = fit.solved(features, kinds)
    best = loss(weights, start)
    for _ in range(20):
        other = weights + chance.normal(size=weights.shape) * 0.02
        assert loss(other, start + chance.normal(size=start.shape) * 0.02) > best


def test_a_text_among_harmless_ones_keeps_its_kind(fit: ModuleType) -> None:
    import random

    quiet = [{"text": f"calm {at}", "kind": "everyday", "label": "none"} for at in range(9)]
    cry = {"text": "i cannot breathe", "kind": "emergency", "label": "emergency"}
    question = {"text": "what is gout?", "kind": "none", "label": "none"}
    text, kind = fit.among(cry, quiet, random.Random(1))
    assert kind == "emergency" and "i cannot breathe." in text and "calm" in text
    assert fit.among(question, quiet, random.Random(1))[1] == "none"
    assert fit.among(quiet[0], quiet[1:], random.Random(1))[1] == "everyday"
