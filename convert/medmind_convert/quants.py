"""llama.cpp's file types by their usual names. Knows numbers and names only; imports neither llama_cpp nor gguf.

The table is pinned against the installed llama_cpp, and against its dry run at Mistral-7B's shape, by
tests/convert/test_quants.py.
"""

from dataclasses import dataclass
from difflib import get_close_matches

from medmind.errors import MedmindError


@dataclass(frozen=True)
class Quant:
    """One of llama.cpp's file types: a mixture of tensor types under one name.

    Attributes:
        name: lower case, as in a file name (`q4_k_m`).
        ftype: the number of llama.h's `LLAMA_FTYPE_*` constant.
        bits: bits per weight of the whole file at Mistral-7B-v0.3's shape, as llama.cpp's dry run gives them. Small
            models come out higher: their embeddings, kept at 6 bits or more, are a larger part.
        needs_imatrix: llama.cpp refuses it without an importance matrix (`tensor_requires_imatrix` in llama-quant.cpp,
            for a model of 256-multiple rows).
        about: a few words for a person.
    """

    name: str
    ftype: int
    bits: float
    needs_imatrix: bool = False
    about: str = ""

    @property
    def is_float(self) -> bool:
        """Whether the weights are kept as floating-point numbers, unquantized."""
        return self.name in FLOATS


FLOATS = ("f32", "bf16", "f16")

_TABLE = (
    Quant("f32", 0, 32.0, about="full precision, twice the size of bf16 for no gain from 16-bit weights"),
    Quant("bf16", 32, 16.0, about="the usual training type, unquantized"),
    Quant("f16", 1, 16.0, about="unquantized, runs on every backend"),
    Quant("q8_0", 7, 8.5, about="nearly lossless"),
    Quant("q6_k", 18, 6.56, about="very small loss"),
    Quant("q5_k_m", 17, 5.67, about="small loss"),
    Quant("q5_k_s", 16, 5.52, about="small loss"),
    Quant("q5_1", 9, 6.01, about="older type"),
    Quant("q5_0", 8, 5.52, about="older type"),
    Quant("q4_k_m", 15, 4.83, about="the usual balance of size and quality"),
    Quant("q4_k_s", 14, 4.57, about="a little smaller than q4_k_m"),
    Quant("q4_1", 3, 5.03, about="older type"),
    Quant("q4_0", 2, 4.54, about="older type, fast on ARM"),
    Quant("iq4_nl", 25, 4.59, about="non-linear 4 bits"),
    Quant("iq4_xs", 30, 4.36, about="smallest good 4 bits"),
    Quant("q3_k_l", 13, 4.22, about="noticeable loss"),
    Quant("q3_k_m", 12, 3.89, about="noticeable loss"),
    Quant("q3_k_s", 11, 3.5, about="large loss"),
    Quant("iq3_m", 27, 3.63, about="3 bits, better than q3_k_s"),
    Quant("iq3_s", 26, 3.52, about="3 bits"),
    Quant("iq3_xs", 22, 3.34, needs_imatrix=True, about="3 bits"),
    Quant("iq3_xxs", 23, 3.26, needs_imatrix=True, about="3 bits"),
    Quant("q2_k", 10, 3.0, about="very large loss"),
    Quant("q2_k_s", 21, 2.79, needs_imatrix=True, about="very large loss"),
    Quant("iq2_m", 29, 2.76, needs_imatrix=True, about="2 bits"),
    Quant("iq2_s", 28, 2.55, needs_imatrix=True, about="2 bits"),
    Quant("iq2_xs", 20, 2.43, needs_imatrix=True, about="2 bits"),
    Quant("iq2_xxs", 19, 2.2, needs_imatrix=True, about="2 bits"),
    Quant("iq1_m", 31, 1.94, needs_imatrix=True, about="barely usable"),
    Quant("iq1_s", 24, 1.78, needs_imatrix=True, about="barely usable"),
    Quant("tq2_0", 37, 2.19, about="for models trained ternary"),
    Quant("tq1_0", 36, 1.83, about="for models trained ternary"),
    Quant("q2_0", 41, 2.37, about="for models trained at 2 bits"),
    Quant("q1_0", 40, 1.23, about="for models trained at 1 bit"),
    Quant(
        "mxfp4_moe", 38, 8.5, about="4 bits for the experts of a mixture, 8 for the rest: a dense model ends as q8_0"
    ),
)

QUANTS: dict[str, Quant] = {quant.name: quant for quant in _TABLE}
"""Every file type llama.cpp can write, by name, from large to small within a family."""

ALIASES = {"q3_k": "q3_k_m", "q4_k": "q4_k_m", "q5_k": "q5_k_m", "fp32": "f32", "fp16": "f16"}
"""Other spellings; the first three are llama-quantize's own."""


def _normal(name: str) -> str:
    return name.strip().lower().replace("-", "_")


def is_quant(name: str) -> bool:
    """Whether `name` is a file type, in any case."""
    return _normal(name) in QUANTS or _normal(name) in ALIASES


def find(name: str) -> Quant:
    """The file type called `name`, in any case.

    Raises:
        MedmindError: there is none; the nearest name is suggested, or the way to write several.
    """
    key = _normal(name)
    key = ALIASES.get(key, key)
    if key in QUANTS:
        return QUANTS[key]
    parts = name.split(",")
    if len(parts) > 1 and all(map(is_quant, parts)):
        raise MedmindError(f"'{name}' are several quantizations in one word", f"write {' '.join(parts)}")
    nearest = near(name, cutoff=0.0)
    raise MedmindError(f"there is no quantization '{name}'", f"did you mean {nearest}? All: {', '.join(QUANTS)}")


def near(name: str, *, cutoff: float = 0.6) -> str | None:
    """The file type or other spelling that is written most like `name`; None where none is as near as `cutoff`."""
    return next(iter(get_close_matches(_normal(name), [*QUANTS, *ALIASES], n=1, cutoff=cutoff)), None)


def parse(names: list[str]) -> list[Quant]:
    """The file types of a command line, each once, in the order given.

    Raises:
        MedmindError: none given, or an unknown one.
    """
    if not names:
        raise MedmindError("no quantization named", "for example: medmind-convert gguf q4_k_m")
    return list(dict.fromkeys(find(name) for name in names))


def smallest_without_imatrix(quant: Quant) -> Quant:
    """The smallest ordinary type at or above `quant`'s size that needs no importance matrix."""
    ordinary = [q for q in _TABLE if not q.needs_imatrix and q.name[:2] not in ("tq", "q1") and q.name != "q2_0"]
    return min((q for q in ordinary if q.bits >= quant.bits), key=lambda q: q.bits)
