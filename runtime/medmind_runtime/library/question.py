"""What is asked, by its words alone: of which subject, and which side of it. Knows no library and no model.

What counts as naming a subject is decided here: at least one word that neither asks, nor greets, nor could be said of
any illness whatever.
"""

import re
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, replace

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
_VAGUE = frozenset([
    # that stand for a subject
    "disease", "diseases", "condition", "conditions", "disorder", "disorders", "illness", "sickness", "problem",
    "problems", "thing", "things", "something", "anything", "everything", "nothing", "matter", "case", "subject",
    # whom it concerns
    "child", "children", "kid", "kids", "baby", "babies", "infant", "infants", "toddler", "toddlers", "teen", "teens",
    "teenager", "teenagers", "boy", "boys", "girl", "girls", "man", "men", "woman", "women", "adult", "adults",
    "elderly", "senior", "seniors", "older", "old", "young", "younger", "person", "persons", "patient", "patients",
    "everyone", "everybody", "anyone", "anybody", "someone", "somebody", "others", "other", "family", "parents",
    "pregnancy", "pregnant", "breastfeeding", "age", "ages",
    # what may be said of any
    "serious", "severe", "dangerous", "danger", "harmful", "safe", "bad", "worse", "worst", "better", "infectious",
    "spread", "spreads", "spreading", "curable", "incurable", "fatal", "deadly",
    "lethal", "kill", "kills", "die", "dies", "dying", "death", "life", "live", "living", "common", "rare", "normal",
    "usual", "usually", "permanent", "temporary", "chronic", "forever", "mild", "painful", "hurt", "hurts", "urgent",
    "emergency", "important", "possible", "likely", "certain", "worry", "worried", "worrying", "afraid", "scared",
    "wrong", "true", "false", "different", "difference", "same", "recover", "recovers", "recovery", "heal", "heals",
    "healing", "return", "returns", "expect", "affect", "affects", "affected", "start", "starts", "begin", "begins",
    "stop", "stops", "last", "lasts", "end", "ends", "change", "changes", "grow", "develop", "develops", "occur",
    "occurs", "appear", "appears", "come", "comes", "go", "goes", "going", "gone", "away", "back", "work", "works",
    # when, how much, in which way
    "long", "longer", "short", "soon", "sooner", "time", "times", "often", "ever", "never", "always", "again", "now",
    "today", "hour", "hours", "day", "days", "week", "weeks", "month", "months", "year", "years", "first", "next",
    "then", "after", "before", "during", "since", "until", "while", "once", "early", "late", "some", "all", "every",
    "each", "few", "most", "less", "least", "another", "else", "only", "also", "still", "yet", "even", "just",
    "so", "too", "very", "really", "quite", "but", "because", "than", "into", "out", "up", "down", "off", "over",
    "here", "through", "without", "between", "both", "either", "way", "ways", "kind", "kinds", "type", "types", "sort",
    "part", "step", "steps", "number", "chance", "chances", "reason", "reasons", "example", "examples", "detail",
    "details", "summary", "source", "sources", "simple", "simpler", "simply", "shorter", "exactly",
    # what people do with any
    "want", "wants", "gets", "getting", "own", "try", "take", "takes", "taking", "make", "makes", "use", "using",
    "used", "look", "looks", "like",
    "keep", "let", "put", "find", "found", "think", "believe", "understand", "remember", "say", "ask", "talk", "call",
    "show", "tells", "told", "repeat", "continue", "summarize", "summarise", "list", "may", "might", "must", "shall",
    "did", "didn", "don", "doesn", "isn", "aren", "won", "can", "cannot", "ll", "m", "re", "ve", "d",
])
"""Words that name no subject when there are no others ("symptoms of the disease", "is it serious in children")."""
_CHATTER = frozenset([
    "yes", "yeah", "yep", "no", "nope", "ok", "okay", "sure", "right", "well", "oh", "ah", "hm", "hmm", "um",
    "thanks", "thank", "thankyou", "thx", "ty", "cheers", "welcome", "sorry", "pardon", "hello", "hi", "hey", "bye",
    "goodbye", "later", "see", "morning", "afternoon", "evening", "night", "fine", "great", "nice", "cool", "wow",
    "perfect", "excellent", "wonderful", "amazing", "interesting", "lol", "haha", "nevermind", "maybe",
    "perhaps", "probably", "agree", "agreed", "alright", "joke", "test", "testing", "plus", "minus", "name", "weather",
    "robot", "human", "bot", "computer", "lot", "love", "awesome", "understood", "alrighty", "sir", "madam", "mind",
])
"""Words of talk that is about no illness at all."""
_POINTING = frozenset([
    "it", "its", "this", "that", "these", "those", "they", "them", "their", "he", "she", "his", "her", "him", "why",
    "more", "explain", "describe", "information", "mean", "means", "happen", "happens",
])
"""Little words of a question that goes on with what was spoken of."""
# fmt: on
_JOINING = frozenset({"and", "of"})
"""Little words that stand in names."""
_ASPECTS: tuple[tuple[str, str], ...] = (
    (r"symptoms?|signs?|feels?", "symptom sign"),
    (r"treat\w*|therap\w+|cured?|cures|medicines?|medications?|manag\w+", "treatment therapy management"),
    (r"caus\w+", "cause"),
    (r"contagious|catch(?:es|ing)?", "transmission cause"),
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
        unnamed: no word names a subject ("symptoms?", "what is it?"): only one of that very name can be meant.
        refers: it is unnamed and asks something, of what was spoken of before; without that it is a remark ("thanks").
        around: words beside those that ask, as they stand beside each other.
        held: words that a passage must hold, wherever they stand.
    """

    subject: tuple[str, ...]
    runs: tuple[tuple[str, ...], ...]
    sides: tuple[str, ...]
    unnamed: bool
    refers: bool = False
    around: tuple[tuple[str, ...], ...] = ()
    held: tuple[str, ...] = ()

    def fits(self, kind: str) -> bool:
        """Whether an answer of this type is of a side that is asked for."""
        named = re.findall(r"\w+", kind.lower())
        return any(word.startswith(side) for word in named for side in self.sides)

    def incidental(self, name: Container[str]) -> set[str]:
        """Vague words that make no other subject of a name: apart from it, or the last behind it ("is gout chronic?").

        Those before it may ("chronic gout"), and those that tell of which kind ("gout type 3").
        """
        telling: set[str] = set()
        for run in self.runs:
            if any(word in name for word in run):
                last = max(place for place, word in enumerate(run) if word in name or word not in _VAGUE)
                telling.update(run[: last + 1])
        return {word for word in self.subject if word in _VAGUE and word not in telling}

    def after(self, earlier: "Asked") -> Iterator["Asked"]:
        """The same asked of an earlier question's subject, the closest reading first.

        Vague words may be a part of the name ("what about children?" after asthma: asthma in children) or tell nothing;
        words of its own must stand in what answers it ("may I drink beer?" after gout).
        """
        if not self.unnamed:
            yield replace(earlier, sides=self.sides, held=self.subject)
            return
        if self.around:
            runs = earlier.runs + self.around
            yield Asked(_each_once(runs), runs, self.sides, earlier.unnamed)
        yield replace(earlier, sides=self.sides)


def take_apart(question: str) -> Asked:
    """The question's words, told apart."""
    sides: list[str] = []
    rest = question.lower()
    for cue, names in _ASPECTS:
        rest, often = re.subn(rf"\b(?:{cue})\b", " | ", rest)
        sides += names.split() if often else []
    around = _runs(rest)
    left = {word for run in around for word in run}
    unnamed = all(word in _VAGUE or word in _CHATTER or word.isdecimal() for word in left)
    little = set(re.findall(r"\w+", rest))
    goes_on = (
        bool(sides) or not left.isdisjoint(_VAGUE) or (not little.isdisjoint(_POINTING) and left.isdisjoint(_CHATTER))
    )
    runs = around or _runs(question.lower())
    return Asked(_each_once(runs), runs, tuple(sides or _GENERAL.split()), unnamed, unnamed and goes_on, around)


def _each_once(runs: Iterable[Iterable[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for run in runs for word in run))[:_WORDS]


def _runs(text: str) -> tuple[tuple[str, ...], ...]:
    runs: list[list[str]] = [[]]
    for word in re.findall(r"\w+|\|", text):
        if word == "|" or word in _SMALL:
            runs += [] if word in _JOINING else [[]]
        else:
            runs[-1].append(word)
    return tuple(tuple(run) for run in runs if run)
