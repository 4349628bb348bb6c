"""What a GGUF says about itself before it is loaded: precision, size, parameters, vocabulary, whether it is whole.

Read with ggml's own reader (ggml/include/gguf.h), so that every type llama.cpp knows is known here, once the runtime's
check has passed the file; loads no weight.
"""

import ctypes
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from medmind import gguf_header, llama
from medmind.console import require
from medmind.errors import MedmindError
from medmind_runtime.engine.loading import KV_TYPES

_STRING, _ARRAY, _BOOL = 8, 9, 7
_SCALARS: dict[int, Any] = {
    0: ctypes.c_uint8,
    1: ctypes.c_int8,
    2: ctypes.c_uint16,
    3: ctypes.c_int16,
    4: ctypes.c_uint32,
    5: ctypes.c_int32,
    6: ctypes.c_float,
    _BOOL: ctypes.c_bool,
    10: ctypes.c_uint64,
    11: ctypes.c_int64,
    12: ctypes.c_double,
}
"""enum gguf_type → the C type of its values."""
_UNQUANTIZED = {0: "f32", 32: "bf16", 1: "f16"}
_PRECISION = (0, 32, 1, 7)
"""general.file_type from the largest precision down (llama.h, enum llama_ftype): f32, bf16, f16, q8_0."""


@dataclass(frozen=True)
class ModelFile:
    """A whole GGUF, as its header describes it.

    Attributes:
        path: where it lies.
        metadata: scalar and string metadata; arrays are left out.
        file_type: `general.file_type` (enum llama_ftype), −1 when the file does not say.
        size: bytes of the file.
        tensor_bytes: bytes of the weights alone.
        parameters: number of weights.
        read_bytes: bytes of weights read to generate one token: not the input embedding, of which one row is read,
            unless it is the output matrix as well; of experts, those that are used.
        vocabulary: digest over tokens, scores, types, merges and special ids.
        template: the chat template, empty when there is none.
    """

    path: Path
    metadata: dict[str, Any]
    file_type: int
    size: int
    tensor_bytes: int
    parameters: int
    read_bytes: int
    vocabulary: str
    template: str

    @property
    def quant(self) -> str:
        """The usual name of the quantization, in lower case, such as `q4_k_m`."""
        return _UNQUANTIZED.get(self.file_type) or _quant_name(self.file_type)

    @property
    def unquantized(self) -> bool:
        """Whether the weights are in a 16- or 32-bit type."""
        return self.file_type in _UNQUANTIZED

    @property
    def bits_per_weight(self) -> float:
        """Bits of tensor data per parameter, as llama.cpp counts them."""
        return 8 * self.tensor_bytes / self.parameters

    @property
    def system_prompt(self) -> str:
        """What `medmind-convert` wrote as the model's system prompt; empty when there is none."""
        return str(self.metadata.get("medmind.system_prompt", ""))

    @property
    def precision(self) -> tuple[int, float]:
        """Sort key: the larger, the more precise."""
        rank = _PRECISION[::-1].index(self.file_type) if self.file_type in _PRECISION else -1
        return rank, self.bits_per_weight

    def kv_cache_bytes(self, context: int, kv_type: str = "f16") -> int:
        """Bytes of a KV cache of `context` tokens: 2 · layers · context · KV heads · head size · bits ÷ 8."""
        name = self.metadata.get("general.architecture", "")

        def value(key: str, default: int) -> int:
            return int(self.metadata.get(f"{name}.{key}", default))

        heads = value("attention.head_count", 1) or 1
        head_size = value("attention.key_length", value("embedding_length", 0) // heads)
        numbers = 2 * value("block_count", 0) * context * value("attention.head_count_kv", heads) * head_size
        return round(numbers * KV_TYPES[kv_type].bits / 8)

    @property
    def trained_context(self) -> int:
        """The longest context the model takes; 0 when the file does not say."""
        return int(self.metadata.get(f"{self.metadata.get('general.architecture', '')}.context_length", 0))


def read(path: Path) -> ModelFile:
    """Read the header of the GGUF at `path` and check that all its tensors are there.

    Raises:
        MedmindError: missing, unreadable, no GGUF, cut off or damaged, or without weights.
    """
    gguf_header.check(path)
    size = path.stat().st_size
    ggml = _ggml()
    context = ggml.gguf_init_from_file(str(path).encode(), _InitParams(True, None))
    if not context:
        raise MedmindError(f"{path} is a damaged GGUF file", "convert or copy it again")
    try:
        return _describe(ggml, context, path, size)
    finally:
        ggml.gguf_free(context)


def _describe(ggml: Any, context: int, path: Path, size: int) -> ModelFile:
    start = ggml.gguf_get_data_offset(context)
    end, tensor_bytes, parameters = start, 0, 0
    sizes: dict[str, int] = {}
    for index in range(ggml.gguf_get_n_tensors(context)):
        length = ggml.gguf_get_tensor_size(context, index)
        kind = ggml.gguf_get_tensor_type(context, index)
        tensor_bytes += length
        sizes[ggml.gguf_get_tensor_name(context, index).decode("utf-8", "replace")] = length
        parameters += length // ggml.ggml_type_size(kind) * ggml.ggml_blck_size(kind)
        end = max(end, start + ggml.gguf_get_tensor_offset(context, index) + length)
    if end > size:
        raise MedmindError(f"{path} is cut off: {size} bytes of {end}", "convert or copy it again")
    if parameters == 0:
        raise MedmindError(f"{path} holds no weights", "give a GGUF model")
    metadata: dict[str, Any] = {}
    vocabulary: list[bytes] = []
    for index in range(ggml.gguf_get_n_kv(context)):
        key = ggml.gguf_get_key(context, index).decode("utf-8", "replace")
        kind = ggml.gguf_get_kv_type(context, index)
        content: bytes = b""
        if kind == _ARRAY:
            content = _array_bytes(ggml, context, index)
        elif kind == _STRING:
            content = ggml.gguf_get_val_str(context, index)
            metadata[key] = content.decode("utf-8", "replace")
        else:
            pointer = ggml.gguf_get_val_data(context, index)
            metadata[key] = _SCALARS[kind].from_address(pointer).value
            content = repr(metadata[key]).encode()
        if key.startswith("tokenizer.ggml."):
            vocabulary.append(f"{key} {hashlib.sha256(content).hexdigest()}".encode())
    return ModelFile(
        path=path,
        metadata=metadata,
        file_type=int(metadata.get("general.file_type", -1)),
        size=size,
        tensor_bytes=tensor_bytes,
        parameters=parameters,
        read_bytes=_read_bytes(sizes, metadata),
        vocabulary=f"sha256:{hashlib.sha256(b' '.join(sorted(vocabulary))).hexdigest()}",
        template=str(metadata.get("tokenizer.chat_template", "")),
    )


def _read_bytes(sizes: dict[str, int], metadata: dict[str, Any]) -> int:
    name = metadata.get("general.architecture", "")
    experts, used = (int(metadata.get(f"{name}.{key}", 0)) for key in ("expert_count", "expert_used_count"))
    share = used / experts if experts and used else 1
    tied = "output.weight" not in sizes
    return round(
        sum(
            size * (share if "_exps." in tensor else 1)
            for tensor, size in sizes.items()
            if tied or tensor != "token_embd.weight"
        )
    )


def _array_bytes(ggml: Any, context: int, index: int) -> bytes:
    count, kind = ggml.gguf_get_arr_n(context, index), ggml.gguf_get_arr_type(context, index)
    if kind == _STRING:
        return b"\0".join(ggml.gguf_get_arr_str(context, index, item) for item in range(count))
    if kind == _ARRAY or count == 0:
        return b""
    return ctypes.string_at(ggml.gguf_get_arr_data(context, index), count * ctypes.sizeof(_SCALARS[kind]))


@cache
def _quant_names() -> dict[int, str]:
    llama_cpp = llama.package("bench")
    prefix = "LLAMA_FTYPE_MOSTLY_"
    return {value: name[len(prefix) :].lower() for name, value in vars(llama_cpp).items() if name.startswith(prefix)}


def _quant_name(file_type: int) -> str:
    return _quant_names().get(file_type, "unknown" if file_type < 0 else f"type{file_type}")


class _InitParams(ctypes.Structure):
    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


@cache
def _ggml() -> Any:
    """libggml-base with the prototypes used here."""
    llama.load()  # keeps ggml's log off the terminal
    package = Path(str(llama.package("bench").__file__)).parent
    ggml: Any = require("llama_cpp._ctypes_extensions", "bench").load_shared_library("ggml-base", package / "lib")
    pointer, number, size, text = ctypes.c_void_p, ctypes.c_int64, ctypes.c_size_t, ctypes.c_char_p
    prototypes: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "ggml_type_size": (size, (ctypes.c_int,)),
        "ggml_blck_size": (number, (ctypes.c_int,)),
        "gguf_init_from_file": (pointer, (text, _InitParams)),
        "gguf_free": (None, (pointer,)),
        "gguf_get_data_offset": (size, (pointer,)),
        "gguf_get_n_kv": (number, (pointer,)),
        "gguf_get_key": (text, (pointer, number)),
        "gguf_get_kv_type": (ctypes.c_int, (pointer, number)),
        "gguf_get_arr_type": (ctypes.c_int, (pointer, number)),
        "gguf_get_arr_n": (size, (pointer, number)),
        "gguf_get_arr_data": (pointer, (pointer, number)),
        "gguf_get_arr_str": (text, (pointer, number, size)),
        "gguf_get_val_str": (text, (pointer, number)),
        "gguf_get_val_data": (pointer, (pointer, number)),
        "gguf_get_n_tensors": (number, (pointer,)),
        "gguf_get_tensor_name": (text, (pointer, number)),
        "gguf_get_tensor_offset": (size, (pointer, number)),
        "gguf_get_tensor_type": (ctypes.c_int, (pointer, number)),
        "gguf_get_tensor_size": (size, (pointer, number)),
    }
    for name, (result, arguments) in prototypes.items():
        function = getattr(ggml, name)
        function.restype, function.argtypes = result, arguments
    return ggml
