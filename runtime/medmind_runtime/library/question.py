"""What is asked, by its words alone: of which subject, and which side of it. Knows no library and no model."""

import re
from dataclasses import dataclass

_WORDS = 40
"""Words of a question that are looked at, at most."""
# little words, and who is ill
# fmt: off
_SMALL = frozenset([
    "a", "an", "and", "are", "as", "at", "be", "by", "can", "could", "do", "does", "for", "from", "have", "has",
    "how", "i", "if", "in", "is", "it", "its", "me", "my", "of", "on", "or", "should", "that", "the", "their",
    "them", "there", "these", "they", "this", "to", "was", "what", "when", "where", "which", "who", "why", "will",
    "with", "would", "you", "your", "about", "tell", "please", "any", "much", "many", "get", "need", "know",
    "help", "were", "am", "been", "being", "done", "s", "t", "explain", "describe", "give", "more", "information",
    "happen", "happens", "mean", "means", "he", "she", "his", "her", "him", "we", "us", "our", "father", "mother",
    "son", "daughter", "wife", "husband", "friend", "brother", "sister", "uncle", "aunt", "grandmother",
    "grandfather", "doctor", "says", "said", "had", "having", "got", "also", "not", "helps", "against", "good",
    "best"
])
# fmt: on
_VAGUE = frozenset(["disease", "diseases", "condition", "conditions", "disorder", "illness", "sickness", "problem"])
"""Words that stand for a subject and name none when they are alone ("symptoms of the disease")."""
_JOINING = frozenset({"and", "of"})
"""Little words that stand in names."""
_ASPECTS: tuple[tuple[str, str], ...] = (
    (r"symptoms?|signs?|feels?", "symptom sign"),
    (r"treat\w*|therap\w+|cured?|cures|medicines?|medications?|manag\w+", "treatment therapy management"),
    (r"caus\w+", "cause"),
    (r"inherit\w*|hereditary(?=\W*$)|runs? in (?:the |my )?famil\w+|passed on|passed down", "inheritance inherit"),
    (r"prevent\w*|avoid\w*|protect\w*", "prevention prevent"),
    (r"diagnos\w+|tests?|tested|exams?|detect\w*", "exam test diagnosis"),
    (r"outlook|prognosis|survival|life expectancy|long term", "outlook prognosis"),
    (r"complications?", "complication"),
    (r"who is at risk|who gets|risk factors?|at risk|likely to get", "susceptibility risk"),
    (r"how many people|how common|how often|frequency|affected by|prevalence|people", "frequency prevalence"),
    (r"genetic changes?|genes?|mutations?|(?:are )?related to", "genetic gene"),
    (r"stages?|staging", "stage"),
    (r"research|clinical trials?|studies|stud(?:y|ied)", "research trial"),
    (r"what (?:to|can i|should i|should be) (?:do|done)|eat|diet|nutrition", "consideration diet"),
    (r"side effects?|adverse", "side effect adverse"),
    (r"dos(?:e|es|age)|how (?:should|is) .* (?:used|taken)", "dose usage"),
    (r"interact\w*", "interaction"),
)
"""Words of asking (a pattern), and the beginnings of words by which a source names that side of a subject."""
_GENERAL = "information overview definition description about general"


@dataclass(frozen=True)
class Asked:
    """A question taken apart.

    Attributes:
        subject: words that carry meaning and do not ask for a side, in order, each once; where every word asks, all.
        runs: the same words as they stand beside each other, little words and words of asking between.
        sides: beginnings of words by which a source names the sides that are asked for.
        unnamed: every word asks ("symptoms?", "what is it?"): only a subject of that very name can be meant.
    """

    subject: tuple[str, ...]
    runs: tuple[tuple[str, ...], ...]
    sides: tuple[str, ...]
    unnamed: bool

    def fits(self, kind: str) -> bool:
        """Whether an answer of this type is of a side that is asked for."""
        named = re.findall(r"\w+", kind.lower())
        return any(word.startswith(side) for word in named for side in self.sides)


def take_apart(question: str) -> Asked:
    """The question's words, told apart."""
    sides: list[str] = []
    rest = question.lower()
    for cue, names in _ASPECTS:
        rest, often = re.subn(rf"\b(?:{cue})\b", " | ", rest)
        sides += names.split() if often else []
    runs = _runs(rest)
    unnamed = all(word in _VAGUE for run in runs for word in run)
    runs = runs or _runs(question.lower())
    subject = tuple(dict.fromkeys(word for run in runs for word in run))[:_WORDS]
    return Asked(subject, runs, tuple(sides or _GENERAL.split()), unnamed)


def _runs(text: str) -> tuple[tuple[str, ...], ...]:
    runs: list[list[str]] = [[]]
    for word in re.findall(r"\w+|\|", text):
        if word == "|" or word in _SMALL:
            runs += [] if word in _JOINING else [[]]
        else:
            runs[-1].append(word)
    return tuple(tuple(run) for run in runs if run)
