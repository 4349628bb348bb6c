"""A model's weights in memory: which way they come from the file, on which device they lie, which adapter is on them.

Knows llama.cpp's loader. Knows no KV cache, no tokens and no text.
"""

import ctypes
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from medmind import gguf_header, llama
from medmind.errors import MedmindError
from medmind.gguf_header import Header
from medmind.signals import held
from medmind_runtime.engine import hyperparameters
from medmind_runtime.engine.loading import GpuLayers, LoadMode

_MODES: Mapping[str, str] = {
    "auto": "LLAMA_LOAD_MODE_AUTO",
    "mmap": "LLAMA_LOAD_MODE_MMAP",
    "copy": "LLAMA_LOAD_MODE_NONE",
}
_RELEASE_EVERY = 0.02
"""Part of the weights that may lie in memory twice while loading."""
_DONTNEED = 4
"""MADV_DONTNEED of Linux: for a shared mapping of a file, the pages leave the process and stay in the file cache."""
_PART = re.compile(r"-(?P<place>\d{5})-of-(?P<count>\d{5})[.]gguf$")
_FIRST = "00001"
"""How llama.cpp names the files of a split model (`llama_split_path`)."""
_MOST_LAYERS = 512
"""llama.cpp ends the process at more, or at none (LLAMA_MAX_LAYERS)."""


class Weights:
    """The weights of one GGUF. Everything made from `handle` must be freed before `close`.

    Attributes:
        handle: llama.cpp's model.
        metadata: the file's scalar metadata as text.
        adapter: llama.cpp's LoRA adapter, or None.
        gpu_layers: how many layers llama.cpp was asked to put on the GPU; -1 is all.
    """

    def __init__(
        self,
        lib: ModuleType,
        header: Header,
        *,
        load_mode: LoadMode = "auto",
        gpu_layers: GpuLayers = "auto",
        adapter: Path | None = None,
        progress: Callable[[float], bool] | None = None,
    ) -> None:
        """Load the weights.

        Args:
            lib: llama.cpp.
            header: of the file.
            load_mode: see `LoadMode`.
            gpu_layers: see `GpuLayers`.
            adapter: a LoRA GGUF for this model.
            progress: called with 0 to 1 while loading; False ends it.

        Raises:
            MedmindError: llama.cpp refuses the file or the adapter; a GPU is asked for and there is none; loading was
                ended by `progress`.
        """
        _demand_loadable(header, load_mode)
        self._lib = lib
        self._path = header.path
        self.handle: Any = None
        self.adapter: Any = None
        self.gpu_layers = _layers(lib, header, gpu_layers)
        try:
            self._load(load_mode, progress)
            if lib.llama_model_has_encoder(self.handle) or not lib.llama_model_has_decoder(self.handle):
                raise MedmindError(f"{self._path} is no decoder-only language model", "use another model file")
            self.metadata = self._read_metadata()
            if adapter is not None:
                self.adapter = self._load_adapter(adapter)
        except BaseException:  # also a signal's, which `held` raises when the weights are there
            self.close()
            raise

    def _load(self, load_mode: LoadMode, progress: Callable[[float], bool] | None) -> None:
        lib, path = self._lib, self._path
        params = lib.llama_model_default_params()
        params.load_mode = getattr(lib, _MODES[load_mode])
        params.n_gpu_layers = self.gpu_layers
        release = _Release(path) if load_mode == "auto" and sys.platform == "linux" else None
        ended = False

        def on_progress(done: float, _data: object) -> bool:
            nonlocal ended
            if release is not None:
                release.at(done)
            ended = bool(noted) or (progress is not None and not progress(done))
            return not ended

        params.progress_callback = lib.llama_progress_callback(on_progress)
        name = str(path).encode("utf-8") if os.name == "nt" else os.fsencode(path)
        with held() as noted:
            self.handle = lib.llama_model_load_from_file(name, params)
        if not self.handle:
            if ended:
                raise MedmindError("loading was stopped")
            reason = llama.log.first_error() or "llama.cpp gives no reason"
            raise MedmindError(f"{path} cannot be loaded: {reason}", "convert it again, or use another model file")

    def _load_adapter(self, path: Path) -> Any:
        known = gguf_header.read(path).scalars
        if known.get("general.type") != "adapter":
            raise MedmindError(f"{path} is no LoRA adapter", "make one with: medmind-convert adapter")
        wanted, base = known.get("medmind.base.digest"), self.metadata.get("medmind.base.digest")
        if wanted and base and wanted != base:
            name = known.get("medmind.base.name") or wanted
            raise MedmindError(
                f"the adapter {path} was trained on another base than {self._path} was made of: {name}, {wanted}",
                "use a GGUF of that base: medmind-convert gguf q8_0 BASE",
            )
        if wanted and self.metadata.get("medmind.adapter.digest"):
            raise MedmindError(
                f"an adapter is merged into {self._path} already, so that {path} does not fit it",
                "leave --adapter out, or use a GGUF of the bare base",
            )
        llama.log.mark()
        adapter = self._lib.llama_adapter_lora_init(self.handle, os.fsencode(path))
        if not adapter:
            reason = llama.log.first_error() or "llama.cpp gives no reason"
            raise MedmindError(f"the adapter {path} does not fit {self._path}: {reason}", "use the base it was made on")
        return adapter

    def _read_metadata(self) -> dict[str, str]:
        lib, model = self._lib, self.handle

        def text(read: Callable[..., int], index: int) -> str:
            buffer = ctypes.create_string_buffer(max(0, read(model, index, None, 0)) + 1)
            read(model, index, buffer, len(buffer))
            return buffer.value.decode("utf-8", "replace")

        return {
            text(lib.llama_model_meta_key_by_index, index): text(lib.llama_model_meta_val_str_by_index, index)
            for index in range(lib.llama_model_meta_count(model))
        }

    def close(self) -> None:
        """Free the weights and the adapter; harmless when done twice."""
        if self.handle:
            self._lib.llama_model_free(self.handle)  # frees its adapters with it
        self.handle = self.adapter = None


def _demand_loadable(header: Header, load_mode: LoadMode) -> None:
    if load_mode not in _MODES:
        raise MedmindError(f"there is no load mode {load_mode}", f"use one of {', '.join(_MODES)}")
    path = header.path
    part = _PART.search(path.name)
    if part and part["place"] != _FIRST:
        first = f"{path.name[: part.start('place')]}{_FIRST}{path.name[part.end('place') :]}"
        raise MedmindError(
            f"{path} is a later file of a model in {int(part['count'])} files", f"give the first: {first}"
        )
    name = hyperparameters.key(header.scalars, "block_count")
    layers = header.scalars.get(name, 1)
    if layers not in range(1, _MOST_LAYERS + 1):
        raise MedmindError(f"{path} is damaged: it has {layers} layers ({name})", "copy or convert it again")


class _Release:
    """Gives back the pages of a mapped file as its tensors are copied into a layout for this CPU."""

    def __init__(self, path: Path) -> None:
        self._path = os.path.realpath(path)
        self._next = 0.0
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

    def at(self, done: float) -> None:
        """Called as loading goes on; a model of which nothing is repacked keeps its pages."""
        if done < self._next and done < 1:
            return
        self._next = done + _RELEASE_EVERY
        if not any(name.endswith("REPACK") for name in llama.log.buffer_bytes("model")):
            return
        for line in Path("/proc/self/maps").read_text("utf-8", "replace").splitlines():
            if line.endswith(self._path):  # not by device and inode: overlayfs tells other ones here than stat does
                begin, end = (int(part, 16) for part in line.split(maxsplit=1)[0].split("-"))
                self._libc.madvise(begin, end - begin, _DONTNEED)


def _layers(lib: ModuleType, header: Header, wanted: GpuLayers) -> int:
    """What `n_gpu_layers` shall be."""
    supported = bool(lib.llama_supports_gpu_offload())
    if wanted == "auto":
        return _fitting_layers(header, _gpu_memory()) if supported else 0
    if wanted and not supported:
        raise MedmindError(
            "this llama.cpp was built without a GPU", "leave --gpu-layers out, or: make install LLAMA_CMAKE_ARGS=…"
        )
    return wanted


def _fitting_layers(header: Header, free: int | None) -> int:
    """How many of a model's layers go into `free` bytes of a GPU; -1 for all, also where that is not known.

    A quarter of it, at most 1.5 GiB, is left for the KV cache and scratch.
    """
    layers = hyperparameters.size(header.scalars, "block_count")
    if free is None or not layers:
        return -1
    room = free - min(free // 4, 3 << 29)
    fitting = room * (layers + 1) // max(1, header.path.stat().st_size)  # the output layer counts as one
    return -1 if fitting > layers else int(fitting)


def _gpu_memory() -> int | None:
    """Free bytes on the GPUs that llama.cpp sees; None if it does not tell."""
    from llama_cpp import _ggml

    ggml = _ggml.libggml
    try:
        ggml.ggml_backend_dev_count.restype = ctypes.c_size_t
        ggml.ggml_backend_dev_get.restype = ctypes.c_void_p
        ggml.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
        ggml.ggml_backend_dev_type.argtypes = [ctypes.c_void_p]
        ggml.ggml_backend_dev_memory.argtypes = [ctypes.c_void_p, *[ctypes.POINTER(ctypes.c_size_t)] * 2]
        ggml.ggml_backend_dev_memory.restype = None
    except AttributeError:
        return None
    free_bytes = 0
    for index in range(ggml.ggml_backend_dev_count()):
        device = ggml.ggml_backend_dev_get(index)
        if ggml.ggml_backend_dev_type(device) in (1, 2):  # GPU, integrated GPU; source: ggml-backend.h
            free, total = ctypes.c_size_t(), ctypes.c_size_t()
            ggml.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
            free_bytes += free.value
    return free_bytes or None
