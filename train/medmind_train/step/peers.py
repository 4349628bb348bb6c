"""The ways to compute a step that others offer, and our plain path: each loaded and driven as its users do.

Knows which library makes what of a base; measures nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from medmind.base import Base
from medmind.errors import one_line
from medmind_train import lora, model, optimizer
from medmind_train.batches import Batch
from medmind_train.hardware import Device, Dtype
from medmind_train.passes import ReferencePasses
from medmind_train.step.config import StepConfig
from medmind_train.step.document import Status
from medmind_train.step.stepper import CLIP

_PACKAGES = {"liger": "liger_kernel", "unsloth": "unsloth"}
_LR = 1e-4
_FULL_LR = 1e-5
_CHECKPOINTING = {"use_reentrant": False}


def absent(mode: str, device: Device) -> tuple[Status, str] | None:
    """Why a peer cannot be measured here; None: it can. Imports it where it wants to be the first."""
    package = _PACKAGES.get(mode)
    if package is None:
        return None
    if find_spec(package) is None:
        return "not installed", f"the Python package '{package}' is not installed"
    if device != "cuda":
        return "unsupported", f"{package} needs a CUDA card"
    if mode == "unsloth":
        try:
            import_module("unsloth")  # it replaces parts of transformers, and must come before it
        except Exception as error:
            why = one_line(f"{type(error).__name__}: {error}")
            return "failed", f"the Python package '{package}' cannot be imported: {why}"
    return None


def is_foreign(mode: str) -> bool:
    """Whether what goes wrong in this mode may be the fault of a library that medmind does not depend on."""
    return mode in _PACKAGES


@dataclass
class Autograd:
    """A step by torch's autograd over a transformers model.

    Attributes:
        add_gradient: batch in host memory -> its mean loss on the device, when its gradient is on its way.
        clip: largest gradient norm; None: not clipped.
    """

    model: Any
    optimizer: Any
    add_gradient: Callable[[Batch], torch.Tensor]
    clip: float | None = None
    flags: Mapping[str, str] = field(default_factory=dict)
    pinned: int | None = None

    @property
    def trainable(self) -> Sequence[torch.Tensor]:
        """The trained tensors."""
        return model.trainable(self.model)

    def step(self, batch: Batch) -> torch.Tensor:
        """Forward, backward, update; see `Stepper.step`."""
        loss = self.add_gradient(batch)
        if self.clip:
            torch.nn.utils.clip_grad_norm_(self.trainable, self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss


def build(base: Base, config: StepConfig, *, device: Device, dtype: Dtype) -> Autograd:
    """Load `base` for any mode but the fused one; `absent` said that it can be.

    Raises:
        MedmindError: a base or targets that do not serve.
    """
    made = _BUILDERS[config.mode](base, config, device, dtype)
    made.model.train()
    return made


def _reference(base: Base, config: StepConfig, device: Device, dtype: Dtype) -> Autograd:
    """As `medmind-train qlora` trains on this device."""
    checkpointing = device == "cuda"
    tuned = model.add_adapter(
        model.load_base(base, device, dtype),
        base,
        targets=config.targets,
        rank=config.rank,
        alpha=config.alpha,
        dropout=0.0,
        checkpointing=checkpointing,
        seed=config.seed,
    )
    name = optimizer.choose("auto", device)

    passes = ReferencePasses(tuned, device=device, dtype=dtype)
    return Autograd(
        tuned,
        optimizer.make(name, model.trainable(tuned), lr=_LR, weight_decay=0.0),
        lambda batch: passes.add_gradient(batch, float(batch.supervised[:, 1:].sum())),
        clip=CLIP,
        flags={"optimizer": name, "checkpointing": str(checkpointing).lower(), "gradient clipping": f"{CLIP:g}"},
    )


def _usual(base: Base, config: StepConfig, device: Device, dtype: Dtype) -> Autograd:
    """`prepare_model_for_kbit_training`, PEFT, a paged 8-bit AdamW: the recipe of most tutorials."""
    from peft import prepare_model_for_kbit_training

    loaded = prepare_model_for_kbit_training(model.load_base(base, device, dtype), use_gradient_checkpointing=True)
    return _with_lora(loaded, base, config, device)


def _liger(base: Base, config: StepConfig, device: Device, dtype: Dtype) -> Autograd:
    """NF4 without the fp32 upcast, with Liger's norms, rotation, MLP and fused linear cross-entropy."""
    kind = str(_config_of(base).model_type)
    getattr(import_module("liger_kernel.transformers"), f"apply_liger_kernel_to_{kind}")()
    return _with_lora(model.load_base(base, device, dtype), base, config, device)


def _lora(base: Base, config: StepConfig, device: Device, dtype: Dtype) -> Autograd:
    """LoRA on the base in 16 bits."""
    return _with_lora(_unquantized(base, device, dtype).requires_grad_(False), base, config, device)


def _full(base: Base, config: StepConfig, device: Device, dtype: Dtype) -> Autograd:
    """Every weight is trained, in the compute type, by torch's fused AdamW."""
    loaded = _unquantized(base, device, dtype)
    loaded.gradient_checkpointing_enable(gradient_checkpointing_kwargs=_CHECKPOINTING)
    steps = torch.optim.AdamW(loaded.parameters(), lr=_FULL_LR, fused=True)
    return Autograd(loaded, steps, _by_labels(loaded, device), flags={"optimizer": "AdamW", "checkpointing": "true"})


def _unsloth(base: Base, config: StepConfig, device: Device, dtype: Dtype) -> Autograd:
    fast: Any = import_module("unsloth").FastLanguageModel
    loaded, _ = fast.from_pretrained(
        str(base.path), max_seq_length=config.length, dtype=getattr(torch, dtype), load_in_4bit=True
    )
    tuned = fast.get_peft_model(
        loaded,
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=0,
        target_modules=_named_targets(base, config.targets),
        use_gradient_checkpointing="unsloth",
        random_state=config.seed,
    )
    return Autograd(
        tuned,
        _paged(model.trainable(tuned)),
        _by_labels(tuned, device),
        flags={"optimizer": "PagedAdamW8bit", "checkpointing": "unsloth"},
    )


_BUILDERS: Mapping[str, Callable[[Base, StepConfig, Device, Dtype], Autograd]] = {
    "reference": _reference,
    "usual": _usual,
    "liger": _liger,
    "lora": _lora,
    "full": _full,
    "unsloth": _unsloth,
}


def _with_lora(loaded: Any, base: Base, config: StepConfig, device: Device) -> Autograd:
    """A PEFT adapter, checkpointing and a paged 8-bit AdamW on a loaded model."""
    from peft import LoraConfig, get_peft_model

    lora.check(base, config.targets)
    torch.manual_seed(config.seed)
    loaded.gradient_checkpointing_enable(gradient_checkpointing_kwargs=_CHECKPOINTING)
    loaded.enable_input_require_grads()
    adapter = LoraConfig(
        r=config.rank,
        lora_alpha=int(config.alpha) if config.alpha.is_integer() else config.alpha,
        lora_dropout=0.0,
        target_modules=lora.target_modules(config.targets),
        task_type="CAUSAL_LM",
    )
    tuned = get_peft_model(loaded, adapter)
    name = "PagedAdamW8bit" if device == "cuda" else "PagedAdamW8bit, on a CPU not paged"
    flags = {"optimizer": name, "checkpointing": "true"}
    return Autograd(tuned, _paged(model.trainable(tuned)), _by_labels(tuned, device), flags=flags)


def _paged(parameters: Sequence[torch.nn.Parameter]) -> Any:
    import bitsandbytes

    return bitsandbytes.optim.PagedAdamW8bit(parameters, lr=_LR)


def _unquantized(base: Base, device: Device, dtype: Dtype) -> Any:
    from transformers import AutoModelForCausalLM

    model.check_weights(base)
    load: Any = AutoModelForCausalLM.from_pretrained
    loaded = load(
        base.path,
        dtype=getattr(torch, dtype),
        device_map={"": 0 if device == "cuda" else "cpu"},
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
    )
    loaded.config.use_cache = False
    return loaded


def _by_labels(tuned: Any, device: Device) -> Callable[[Batch], torch.Tensor]:
    """Forward and backward with the loss that a transformers model makes of labels, as the usual trainers ask for it.

    A padded batch comes with its attention mask, a packed one with positions that start again in each document, a
    batch that is neither with its ids alone.
    """

    def add_gradient(batch: Batch) -> torch.Tensor:
        given: dict[str, torch.Tensor] = {}
        if bool((batch.positions[:, 1:] == 0).any()):
            given["position_ids"] = batch.positions.to(device)
        elif bool((batch.owners < 0).any()):
            given["attention_mask"] = (batch.owners >= 0).long().to(device)
        labels = batch.ids.masked_fill(~batch.supervised, -100).to(device)
        loss: torch.Tensor = tuned(input_ids=batch.ids.to(device), labels=labels, **given).loss
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    return add_gradient


def _config_of(base: Base) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(base.path, local_files_only=True, trust_remote_code=False)


def _named_targets(base: Base, targets: str) -> list[str]:
    """Names of the layers, also for `all-linear`, a word of PEFT's that other libraries do not know."""
    found = lora.target_modules(targets)
    if isinstance(found, str):
        return list(dict.fromkeys(layer.rpartition(".")[2] for layer in lora.linear_layers(base.path)))
    return found
