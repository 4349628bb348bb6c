"""What an engine is put together from: weights, a context over them, how many tokens may go together.

Knows what is refused before the slow work, and that nothing stays behind where a part cannot be made.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, TypedDict, Unpack

from medmind import gguf_header, llama
from medmind.errors import MedmindError
from medmind.gguf_header import Header
from medmind_runtime.engine import attention, hyperparameters
from medmind_runtime.engine.decoder import Decoder
from medmind_runtime.engine.fatal import demand_usable
from medmind_runtime.engine.forecast import demand_room
from medmind_runtime.engine.loading import DEFAULT_CONTEXT, KV_TYPES, GpuLayers, KvType, LoadMode
from medmind_runtime.engine.speculation import Exact, cache_type
from medmind_runtime.engine.threads import physical_cores
from medmind_runtime.engine.weights import Weights

MOST_THREADS = 512
"""Source: GGML_MAX_N_THREADS of ggml.h."""


@dataclass(frozen=True)
class Parts:
    """A loaded model.

    Attributes:
        lib: llama.cpp.
        weights, decoder: the model and its one context.
        exact: how many tokens may be evaluated together.
        threads: compute threads.
        kv_type: how keys and values are kept.
        flash: whether llama.cpp may use flash attention.
        own: whether that is scripts/llama_attention.cpp.
    """

    lib: ModuleType
    weights: Weights
    decoder: Decoder
    exact: Exact
    threads: int
    kv_type: KvType
    flash: bool
    own: bool

    def close(self) -> None:
        """Free everything; harmless when done twice."""
        self.decoder.close()
        self.weights.close()


class Settings(TypedDict, total=False):
    """How a model is loaded; what is not given is as in `DEFAULTS`.

    Attributes:
        context: KV cache size in tokens; None takes the model's own length, at most 4096. llama.cpp rounds up.
        threads: None takes the physical cores.
        batch: prompt tokens evaluated in one step; None takes `attention.prompt_step`.
        kv_type: how keys and values are kept; q8_0 takes 53 %, q4_0 28 % of f16; None takes
            `speculation.cache_type`, and f16 on a GPU and with an adapter, where nothing is guessed.
        flash: whether llama.cpp may use flash attention; None takes `attention.flash`.
        load_mode: how weights come into memory; see `loading.LoadMode`.
        adapter: a LoRA GGUF put on the model.
        gpu_layers: layers on the GPU; see `loading.GpuLayers`.
        progress: called with 0 to 1 while the weights load; False ends it.
        check_memory: refuse a model that `forecast` says will not fit; not asked where layers go to a GPU.
        lookup: guess tokens from prompt, answer and the text given with the prompt for it, and evaluate them together,
            where that gives the very bits of single tokens: the same answers, sooner.
    """

    context: int | None
    threads: int | None
    batch: int | None
    kv_type: KvType | None
    flash: bool | None
    load_mode: LoadMode
    adapter: Path | None
    gpu_layers: GpuLayers
    progress: Callable[[float], bool] | None
    check_memory: bool
    lookup: bool


DEFAULTS: Settings = {
    "context": None,
    "threads": None,
    "batch": None,
    "kv_type": "f16",
    "flash": None,
    "load_mode": "auto",
    "adapter": None,
    "gpu_layers": "auto",
    "progress": None,
    "check_memory": True,
    "lookup": False,
}


def assemble(path: Path, **settings: Unpack[Settings]) -> Parts:
    """See `engine.Engine.load`."""
    if unknown := settings.keys() - DEFAULTS.keys():
        raise TypeError(f"there is no {', '.join(sorted(unknown))} among the settings of an engine")
    given: Settings = {**DEFAULTS, **settings}
    header = gguf_header.read(path)
    demand_usable(header)
    _demand_counts(given)
    lib = llama.load()
    llama.log.mark()
    chosen = _chosen(lib, header, given)
    kv_type, flash = chosen.kv_type, chosen.flash
    if given["check_memory"] and kv_type in KV_TYPES and not chosen.on_gpu:
        mapped = given["load_mode"] != "copy"
        demand_room(header, context=chosen.context, batch=chosen.batch, kv_type=kv_type, flash=flash, mapped=mapped)
    weights = Weights(
        lib,
        header,
        load_mode=given["load_mode"],
        gpu_layers=given["gpu_layers"],
        adapter=given["adapter"],
        progress=given["progress"],
    )
    try:
        context = _context(path, _trained(lib, weights), given["context"])
        exact = Exact(hopeless=True)
        if given["lookup"] and given["adapter"] is None and not weights.gpu_layers:
            same_bits = attention.same_bits(kv_type, own=chosen.own)
            exact = Exact.of(weights.metadata, same_bits=same_bits, built=llama.own_products())
        decoder = Decoder(
            lib, weights, context=context, threads=chosen.threads, batch=chosen.batch, kv_type=kv_type, flash=flash
        )
    except BaseException:
        weights.close()
        raise
    return Parts(lib, weights, decoder, exact, chosen.threads, kv_type, flash, chosen.own)


def _demand_counts(given: Settings) -> None:
    if any(value is not None and value < 1 for value in (given["batch"], given["threads"], given["context"])):
        raise MedmindError("context, threads and batch must be 1 or more")
    if given["threads"] is not None and given["threads"] > MOST_THREADS:
        raise MedmindError(f"{given['threads']} threads are more than llama.cpp takes", f"give at most {MOST_THREADS}")


class _Chosen(NamedTuple):
    """Settings as given, and what was not given chosen for the model and this machine."""

    context: int
    threads: int
    batch: int
    kv_type: KvType
    flash: bool
    own: bool
    on_gpu: bool


def _chosen(lib: ModuleType, header: Header, given: Settings) -> _Chosen:
    known = header.scalars
    threads = given["threads"] or physical_cores()
    on_gpu = bool(given["gpu_layers"] and lib.llama_supports_gpu_offload())
    # Not by `lookup`: an answer is the same with and without it.
    built = llama.own_attention() and given["flash"] is not False
    kv_type = given["kv_type"] or ("f16" if on_gpu or given["adapter"] else cache_type(known, built=built))
    own = built and attention.own(known, kv_type)
    flash = given["flash"]
    if flash is None:
        flash = attention.flash(kv_type, threads, on_gpu=on_gpu, own=own)
    trained = hyperparameters.size(known, "context_length", given["context"] or DEFAULT_CONTEXT)
    context = _context(header.path, trained, given["context"])
    batch = given["batch"] or attention.prompt_step(known, threads, context=context, flash=flash)
    return _Chosen(context, threads, batch, kv_type, flash, own, on_gpu)


def _trained(lib: ModuleType, weights: Weights) -> int:
    """Tokens that the model was trained on: llama.cpp holds 32 bits without a sign and gives them with one."""
    return int(lib.llama_model_n_ctx_train(weights.handle)) % 2**32


def _context(path: Path, trained: int, wanted: int | None) -> int:
    """Tokens of the KV cache, of a model trained on so many at most."""
    if trained < 1:
        raise MedmindError(f"{path} is damaged: its context length is {trained}", "copy or convert it again")
    if wanted is not None and wanted > trained:
        raise MedmindError(
            f"a context of {wanted} tokens is longer than this model's {trained}", f"use --context {trained} or less"
        )
    return wanted or min(trained, DEFAULT_CONTEXT)
