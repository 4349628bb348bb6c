"""MedMCQA, MedQA, PubMedQA and MMLU as they are published: one record → one question. Knows fields, opens no file.

Fields as in medmcqa/medmcqa, jind11/MedQA, pubmedqa/pubmedqa and hendrycks/test on GitHub, and in the hub's copies of
them (openlifescienceai/medmcqa, GBaker/MedQA-USMLE-4-options, qiaojin/PubMedQA, cais/mmlu).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from medmind.errors import MedmindError
from medmind_benchmarks.answers.questions import LETTERS, Question, QuestionSet

MMLU_MEDICAL = (
    "anatomy",
    "clinical_knowledge",
    "college_biology",
    "college_medicine",
    "medical_genetics",
    "professional_medicine",
)
"""The subjects of MMLU that count as medical (Singhal et al., arXiv:2212.13138, section 3.1)."""
_UNANSWERED = "the source does not say which option is right"
_NOT_MEDICAL = "not one of MMLU's medical subjects"
_PUBMEDQA_ANSWERS = ("yes", "no", "maybe")


class Unanswered(MedmindError):
    """Records that do not say which option is right, as those of a test split that is kept secret."""


class _Left(Exception):
    """A record that makes no question; its text says why."""


def recognize(record: Mapping[str, Any]) -> str:
    """The data set that a record is of, by its fields; empty where none fits."""
    fields = record.keys()
    if {"opa", "opb", "opc", "opd"} <= fields:
        return "MedMCQA"
    if {"question", "options"} <= fields and ("answer_idx" in fields or "answer" in fields):
        return "MedQA"
    if {"sent1", "ending0", "label"} <= fields:
        return "MedQA"
    if {"QUESTION", "CONTEXTS"} <= fields or {"question", "context", "final_decision"} <= fields:
        return "PubMedQA"
    if {"question", "choices", "answer"} <= fields:
        return "MMLU"
    return ""


def build(records: Sequence[tuple[Mapping[str, Any], str]], where: str) -> QuestionSet:
    """Questions out of records.

    Args:
        records: with the place of each, `file, row 3`; all of one data set.
        where: names the source in errors.

    Raises:
        MedmindError: an unknown or a broken record, or not one question that can be scored.
    """
    if not records:
        raise MedmindError(f"{where} holds no records", "give a file of MedMCQA, MedQA, PubMedQA or MMLU")
    kind = recognize(records[0][0])
    if not kind:
        known = ", ".join(sorted(map(str, records[0][0]))[:8])
        raise MedmindError(
            f"{records[0][1]}: fields of none of MedMCQA, MedQA, PubMedQA and MMLU ({known})",
            "give a file of one of them, as it is published",
        )
    first = _first_option([record for record, _ in records], where) if kind == "MedMCQA" else 0
    found: list[Question] = []
    dropped: Counter[str] = Counter()
    taken: Counter[str] = Counter()
    for number, (record, place) in enumerate(records):
        try:
            one = _question(kind, record, number, first)
        except _Left as reason:
            dropped[str(reason)] += 1
            continue
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise MedmindError(
                f"{place}: a broken {kind} record ({type(error).__name__}: {error})", "download it again"
            ) from error
        taken[one.id] += 1
        unique = one.id if taken[one.id] == 1 else f"{one.id}#{taken[one.id]}"
        found.append(Question(unique, one.text, one.options, one.answer, one.group, one.style))
    if not found:
        why = max(dropped, key=lambda reason: dropped[reason])
        hint = "take the validation split" if why == _UNANSWERED else "give another file"
        refusal = Unanswered if why == _UNANSWERED else MedmindError
        raise refusal(f"{where}: none of its {len(records)} {kind} records can be scored: {why}", hint)
    return QuestionSet("MMLU medical" if kind == "MMLU" else kind, tuple(found), dict(dropped))


def _question(kind: str, record: Mapping[str, Any], number: int, first: int) -> Question:
    if kind == "MedMCQA":
        options = [str(record[name]).strip() for name in ("opa", "opb", "opc", "opd")]
        if record.get("cop") in (None, "", -1, "-1"):
            raise _Left(_UNANSWERED)
        return _make(
            str(record.get("id") or number),
            str(record["question"]),
            options,
            int(record["cop"]) - first,
            str(record.get("subject_name") or ""),
        )
    if kind == "MedQA":
        return _medqa(record, number)
    if kind == "PubMedQA":
        return _pubmedqa(record, number)
    subject = str(record.get("subject") or "")
    if subject and subject not in MMLU_MEDICAL:
        raise _Left(_NOT_MEDICAL)
    answer = record["answer"]
    place = LETTERS.index(answer.strip()) if isinstance(answer, str) and not answer.isdigit() else int(answer)
    options = [str(choice) for choice in record["choices"]]
    return _make(f"{subject or 'mmlu'}-{number}", str(record["question"]), options, place, subject)


def _medqa(record: Mapping[str, Any], number: int) -> Question:
    group = str(record.get("meta_info") or "")
    if "sent1" in record:  # the hub's copies in SWAG's form
        stem = " ".join(str(record.get(part) or "").strip() for part in ("sent1", "sent2")).strip()
        endings = [str(record[f"ending{place}"]) for place in range(4)]
        return _make(str(record.get("id") or number), stem, endings, int(record["label"]), group)
    options = record["options"]
    if isinstance(options, Mapping):
        pairs = [(str(key), str(options[key])) for key in sorted(options) if options[key] is not None]
    else:
        pairs = [(str(option["key"]), str(option["value"])) for option in options]
    letter = str(record.get("answer_idx") or "").strip()
    texts = [text for _, text in pairs]
    place = [key for key, _ in pairs].index(letter) if letter else texts.index(str(record["answer"]))
    return _make(str(record.get("id") or number), str(record["question"]), texts, place, group)


def _pubmedqa(record: Mapping[str, Any], number: int) -> Question:
    decision = str(record.get("final_decision") or "").strip().lower()
    if not decision:
        raise _Left(_UNANSWERED)
    context = record.get("CONTEXTS", record.get("context"))
    if isinstance(context, Mapping):
        context = context["contexts"]
    paragraphs = [context] if isinstance(context, str) else list(context or [])
    text = "\n".join([*map(str, paragraphs), str(record.get("QUESTION") or record["question"])])
    name = str(record.get("pubid") or record.get("pmid") or number)
    return _make(name, text, list(_PUBMEDQA_ANSWERS), _PUBMEDQA_ANSWERS.index(decision), "")


def _make(name: str, text: str, options: Sequence[str], answer: int, group: str) -> Question:
    if not 0 <= answer < len(options) <= len(LETTERS) or len(options) < 2:
        raise ValueError(f"option {answer + 1} of {len(options)}")
    return Question(name, text.strip(), tuple(option.strip() for option in options), answer, group, "letters")


def _first_option(records: Sequence[Mapping[str, Any]], where: str) -> int:
    """Whether MedMCQA's `cop` counts options from 0, as on the hub, or from 1, as in the original files.

    Raises:
        MedmindError: the file has neither a 0 nor a 4, so that it may be either, or it has both.
    """
    given = {int(record["cop"]) for record in records if str(record.get("cop", "")).isdigit()}
    if {0, 4} <= given:
        raise MedmindError(f"{where}: cop is both 0 and 4 in it, so that no counting fits", "download it again")
    if given and not {0, 4} & given:
        raise MedmindError(
            f"{where}: cop is neither 0 nor 4 anywhere in it, so that it may count from 0 or from 1",
            "give a larger part of the data set",
        )
    return 1 if 4 in given else 0
