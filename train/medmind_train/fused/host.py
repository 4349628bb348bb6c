"""Parts of a model that stay in host memory, page-locked where a card is used: the embedding and the head.

With them a transformers or PEFT model still runs as any other. Knows torch and CUDA's page-locking; no file, no layer.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from medmind.console import human_bytes
from medmind.errors import MedmindError

CHUNK_BYTES = 64 << 20
"""The most of a head's weights that are on the card at once."""


class Pages:
    """`size` bytes of host memory, page-locked if `device` is a card: copies from and to them overlap with computing.

    They come from torch's own allocator, which rounds up to a power of two: kernels read what it gives directly, which
    memory registered by hand (`cudaHostRegister`) did not reliably allow.

    Attributes:
        bytes: `[size]` uint8 on the host.

    Raises:
        MedmindError: the system does not let so much memory be locked.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        try:
            self.bytes = torch.empty(size, dtype=torch.uint8, device="cpu", pin_memory=device.type == "cuda")
        except RuntimeError as error:
            raise MedmindError(
                f"{human_bytes(size)} of host memory cannot be page-locked for the card",
                "close other programs, raise the machine's limit of locked memory, or give --kernels reference",
            ) from error

    def matrix(self, rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
        """All of it as `[rows, columns]`."""
        return self.bytes.view(dtype).view(rows, columns)


class _HostWeight(nn.Module):
    """A module whose frozen matrix lies on the host.

    The matrix is no parameter: `model.device`, `model.to()` and `parameters()` are about what is on the card. It is in
    the state dict all the same.

    Attributes:
        weight: `[rows, columns]`.
        memory: what it lies in.
        device: where the results go; follows the model's `.to(device)`.
    """

    def __init__(self, weight: torch.Tensor, memory: Pages, device: torch.device) -> None:
        super().__init__()
        self.weight = weight
        self.memory = memory
        self.device = device

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> "_HostWeight":
        self.device = fn(torch.empty(0, device=self.device)).device
        return self

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}weight"] = self.weight

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        name = f"{prefix}weight"
        if name not in state_dict:
            missing_keys.append(name)
        elif state_dict[name].shape != self.weight.shape:
            error_msgs.append(f"{name} is {tuple(state_dict[name].shape)}, not {tuple(self.weight.shape)}")
        else:
            self.weight.copy_(state_dict[name])


class HostEmbedding(_HostWeight):
    """An embedding that is looked up on the host; only the rows found travel to `device`."""

    def __init__(self, rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> None:
        memory = Pages(rows * columns * dtype.itemsize, device)
        super().__init__(memory.matrix(rows, columns, dtype), memory, device)
        self.num_embeddings = rows
        self.embedding_dim = columns

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """`[...]` ids on any device to `[..., columns]` on `device`; waits for the ids if they are on the card."""
        return nn.functional.embedding(ids.cpu(), self.weight).to(self.device)

    def extra_repr(self) -> str:
        """As torch's own embedding."""
        return f"{self.num_embeddings}, {self.embedding_dim}, {self.weight.dtype}"


class HostHead(_HostWeight):
    """A linear layer without bias whose weights come to the card piece by piece, `CHUNK_BYTES` at a time."""

    def __init__(self, weight: torch.Tensor, memory: Pages, device: torch.device) -> None:
        super().__init__(weight, memory, device)
        self.out_features, self.in_features = weight.shape
        self.bias = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[..., columns]` to logits `[..., rows]`, on the device of `x`."""
        rows = max(1, CHUNK_BYTES // (self.in_features * self.weight.itemsize))
        parts = (self.weight[start : start + rows] for start in range(0, self.out_features, rows))
        return torch.cat([nn.functional.linear(x, part.to(x.device, non_blocking=True)) for part in parts], dim=-1)

    def extra_repr(self) -> str:
        """As torch's own linear layer."""
        return f"{self.in_features}, {self.out_features}, {self.weight.dtype}"
