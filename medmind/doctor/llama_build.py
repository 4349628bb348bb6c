"""Judging the installed llama.cpp: does its build fit this CPU, and can it use a card."""

import platform
import re
from collections.abc import Sequence

from medmind.doctor import installing
from medmind.doctor.machine import Card
from medmind.doctor.probes import Answer
from medmind.doctor.report import Check, Status

_FLAG_OF = {
    "SSE3": "pni",
    "SSSE3": "ssse3",
    "AVX": "avx",
    "AVX2": "avx2",
    "FMA": "fma",
    "F16C": "f16c",
    "BMI2": "bmi2",
    "AVX_VNNI": "avx_vnni",
    "AVX512": "avx512f",
    "AVX512_VBMI": "avx512vbmi",
    "AVX512_VNNI": "avx512_vnni",
    "AVX512_BF16": "avx512_bf16",
    "AMX_INT8": "amx_int8",
    "NEON": "asimd",
    "FP16_VA": "asimdhp",
    "DOTPROD": "asimddp",
    "MATMUL_INT8": "i8mm",
    "SVE": "sve",
}
"""llama.cpp's name of a feature (ggml-cpu's feature list) → Linux' name of it in /proc/cpuinfo."""
_MATTERS = {"x86": ("AVX", "AVX2", "FMA", "F16C"), "arm": ("NEON", "DOTPROD")}
_HELPS = ("AVX512", "AVX512_VNNI", "MATMUL_INT8", "SVE")
"""What makes prompts faster; AVX-VNNI and bf16 units hardly do (see scripts/llama_build.cmake)."""
_OWN = frozenset(["avx2", "fma", "f16c"])
"""What medmind's own kernels need (scripts/llama_attention.cpp, scripts/llama_few_rows.cpp), by Linux' names."""


def build(answer: Answer, flags: frozenset[str]) -> Check:
    """The version, and whether the build needs more than the CPU has or leaves much of it unused."""
    name = "llama.cpp"
    version = answer.facts.get("llama_cpp")
    if "system" not in answer.facts:
        if answer.missing:
            return Check(name, "missing", f"not installed ({answer.missing})", installing.extra("runtime"))
        if answer.failure.startswith("no answer"):
            return Check(name, "warning", answer.failure, "a slow disk or a busy machine; run the doctor again")
        finding = f"{version or ''} does not work: {answer.failure}".strip()
        return Check(name, "broken", finding, installing.llama(version))
    return _fit(features(str(answer.facts["system"])), version, flags, own=bool(answer.facts.get("own")))


def _fit(built: frozenset[str], version: object, flags: frozenset[str], *, own: bool) -> Check:
    """The features of the build against those of the CPU; without `flags` there is nothing to compare."""
    status: Status = "ok"
    kernels = ", with medmind's own kernels" if own else ""
    finding = f"llama-cpp-python {version}, built for {', '.join(sorted(built & set(_FLAG_OF))) or 'any CPU'}{kernels}"
    mend = ""
    rebuild = installing.llama(version, own=own)
    family = "arm" if platform.machine().lower() in ("aarch64", "arm64") else "x86"
    unused = [feature for feature, flag in _FLAG_OF.items() if flag in flags and feature not in built]
    if flags and (lacking := [feature for feature in sorted(built) if _FLAG_OF.get(feature, "") not in {"", *flags}]):
        status, finding, mend = "broken", f"{finding}; this CPU has no {', '.join(lacking)}", rebuild
    elif slow := [feature for feature in _MATTERS[family] if feature in unused]:
        status = "warning"
        finding, mend = f"{finding}; this CPU also has {', '.join(slow)}: several times faster", rebuild
    elif installing.in_checkout() and not own and flags >= _OWN:
        finding += "; without medmind's own kernels, which this checkout builds"
        mend = f"faster answers: {installing.llama(version, '')}"
    elif spare := [feature for feature in _HELPS if feature in unused]:
        finding, mend = f"{finding}; unused here: {', '.join(spare)}", f"faster prompts: {rebuild}"
    return Check("llama.cpp", status, finding, mend)


def offload(answer: Answer, known: Sequence[Card] | None) -> Check:
    """Whether llama.cpp can put layers on a card."""
    if "offload" not in answer.facts:
        return Check("GPU offload", "missing", "not looked at, as llama.cpp does not run")
    if answer.facts["offload"]:
        return Check("GPU offload", "ok", "this build can put layers on a card")
    if known:
        return Check(
            "GPU offload",
            "warning",
            f"this build runs on the CPU alone, and there is a {known[0].name}",
            installing.llama(answer.facts.get("llama_cpp"), "-DGGML_CUDA=ON", own=bool(answer.facts.get("own"))),
        )
    return Check("GPU offload", "ok", "none in this build, and no card to use")


def features(system: str) -> frozenset[str]:
    """The features that are on in the text of `llama_print_system_info` (`AVX2 = 1 | …`)."""
    return frozenset(re.findall(r"(\w+) = 1\b", system))
