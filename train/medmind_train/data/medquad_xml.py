"""How MedQuAD's own XML files are read: both tag spellings, any root. Knows one file, not the tree around it."""

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from medmind_train.data.files import open_bytes
from medmind_train.data.rows import Row

_PAIRS = {"qapair", "pair"}
_FOCUS = {"focus", "doctitle-focus"}


class UnusableXml(Exception):
    """One XML file that has to be skipped; the text says why."""


def read_xml(path: Path) -> list[Row]:
    """The pairs of one file, unanswered ones with an empty answer.

    The usual form is `Document/QAPairs/QAPair/{Question,Answer}` with `Focus` beside `QAPairs`; one CDC file has the
    root `DiseaseFile`, four NINDS files say `doc/qaPairs/pair/{question,answer}` and `doctitle-focus`.

    Raises:
        UnusableXml: not well-formed, or without question-answer pairs.
        MedmindError: the file cannot be read.
    """
    try:
        with open_bytes(path) as file:
            root = ElementTree.parse(file).getroot()
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # Lookup, Value: an encoding expat cannot take
        raise UnusableXml(f"not well-formed XML: {error}") from error
    attributes = {name.lower(): value for name, value in root.attrib.items()}
    focus = next((_text(element) for element in root.iter() if _tag(element) in _FOCUS), "")
    source = attributes.get("source") or attributes.get("corpus") or path.parent.name
    rows = []
    for position, pair in enumerate(_elements(root, _PAIRS), 1):
        question = next(_elements(pair, {"question"}), None)
        answer = next(_elements(pair, {"answer"}), None)
        kind = "" if question is None else next((v for k, v in question.attrib.items() if k.lower() == "qtype"), "")
        number = next((value for name, value in pair.attrib.items() if name.lower() == "pid"), str(position))
        rows.append(
            Row(
                id=f"{path.parent.name}/{path.name}#{number}",
                messages=(
                    {"role": "user", "content": _text(question)},
                    {"role": "assistant", "content": _text(answer)},
                ),
                focus=" ".join(focus.split()),
                question_type=kind.strip(),
                source=source,
            )
        )
    if not rows:
        raise UnusableXml("no question-answer pairs in it")
    return rows


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2].lower() if isinstance(element.tag, str) else ""


def _elements(root: ElementTree.Element, tags: set[str]) -> Iterator[ElementTree.Element]:
    return (element for element in root.iter() if _tag(element) in tags)


def _text(element: ElementTree.Element | None) -> str:
    return "" if element is None else "".join(element.itertext())
