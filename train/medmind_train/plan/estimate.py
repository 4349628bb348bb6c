"""The plan of a run: peak memory and where it comes from, host memory, disk, time. Knows settings and sizes; no torch.

Memory of the fused step is a list of its tensors (`fused.budget`); that of the reference path, and all times, are
estimates.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medmind.console import human_bytes
from medmind.errors import MedmindError
from medmind_train.data.sources import SAMPLE, SAMPLE_PATH
from medmind_train.fused import budget, fit
from medmind_train.fused.budget import Budget
from medmind_train.fused.lifetimes import Step
from medmind_train.fused.placement import Keep, Placement
from medmind_train.fused.shape import Shape
from medmind_train.plan import reference
from medmind_train.plan.base_config import Sizes
from medmind_train.plan.cards import SIZES, Card, of_size
from medmind_train.qlora_config import QloraConfig

UTILISATION = 0.5
"""Share of a card's matrix rate that a step is taken to reach, until it has been measured on consumer cards."""
SUPERVISED = 0.94
"""Share of MedQuAD's tokens that are answers: only these go through the head."""
MEDQUAD_TOKENS = {512: 3_570_000, 1024: 4_070_000, 2048: 4_300_000, 4096: 4_400_000}
"""Tokens of MedQuAD's training side by context, counted with Mistral's tokenizer (v3): 13,712 rows, answers cut."""
GGUF_BITS = {"q4_k_m": 4.83, "q8_0": 8.5, "f16": 16.0}
"""Bits a weight at a 7B's shape, as medmind_convert.quants has them."""
RUN_BYTES_PER_TRAINED = 4 * 3 * 4
"""Disk of a run while it trains: weight and two moments in fp32, in adapter, checkpoints and the one being written."""
BEST_BYTES_PER_TRAINED = 4 * 3
"""And where the best checkpoint so far is kept as well."""
_BYTES_PER_TOKEN = 4.5  # of question/answer text in JSON lines
_TEXTS = (".jsonl", ".json", ".csv")
_ESTIMATE_MARGIN = 0.9  # the reference path is refused only when an estimate that is 10 % too high would not fit either


@dataclass(frozen=True)
class Fit:
    """What a card of some size gives.

    Attributes:
        card: the card.
        limit: bytes that torch may allocate on it.
        budget: None where nothing fits.
        placement: of the fused step; None on the reference path, or where nothing fits.
        refusal: why nothing fits, else empty.
    """

    card: Card
    limit: int
    budget: Budget | None
    placement: Placement | None
    refusal: str = ""


@dataclass(frozen=True)
class Time:
    """An estimate of seconds.

    Attributes:
        tokens: that are trained on.
        per_second: tokens a second.
        floating: FLOP a token, what is computed again included.
    """

    tokens: int
    per_second: float
    floating: float

    @property
    def seconds(self) -> float:
        """For all tokens."""
        return self.tokens / self.per_second


@dataclass(frozen=True)
class Plan:
    """Everything that `medmind-train plan` says.

    Attributes:
        fused: the fused step does it; else the reference path, and `why` says why.
        listed: the peak is a list of the step's tensors; else an estimate (also of the fused step in fp32, whose
            attention is another).
        chosen: on the card asked about, or on the smallest that will do.
        cards: on cards of the usual sizes.
        full: bytes of full fine-tuning at the same batch, an estimate.
        disk: bytes by what they are for.
        time: None where the card's speed or the amount of data is not known.
    """

    sizes: Sizes
    config: QloraConfig
    step: Step
    fused: bool
    listed: bool
    why: str
    chosen: Fit
    cards: Sequence[Fit]
    full: int
    disk: dict[str, int]
    time: Time | None


def make(config: QloraConfig, sizes: Sizes, card: Card | None = None, tokens: int | None = None) -> Plan:
    """Plan a run.

    Args:
        config: `base` and `data` are set.
        card: to train on; None: the smallest of the usual sizes that holds the base, or that will do at all.
        tokens: to train on in all; None: from the data, where that is known.

    Raises:
        MedmindError: settings that the base does not allow, or a card that is too small for any way of doing it.
    """
    if sizes.positions is not None and config.context > sizes.positions:
        raise MedmindError(
            f"--context {config.context} is longer than the {sizes.positions} positions of {sizes.name}",
            f"give at most --context {sizes.positions}",
        )
    step = _work(config, sizes.shape, hopper=card is not None and card.hopper)
    why = refusal(config, sizes)
    if config.kernels == "fused" and why:
        raise MedmindError(f"--kernels fused cannot train this: {why}", "give --kernels reference, or auto")
    cards = [_fit(config, step, of_size(size), fused=not why) for size in SIZES]
    # Cards on which --vram, where it is a size, is what limits, and not the card.
    roomy = [one for one in cards if one.limit == fit.limit(config, sys.maxsize)]
    if card is not None:
        chosen = _fit(config, step, card, fused=not why)
    else:
        able = [one for one in roomy or cards if one.budget]
        resident = (one for one in able if not (one.placement and one.placement.streamed))
        chosen = next(resident, next(iter(able), (roomy or cards)[-1]))
    if chosen.budget is None:
        where = f"in --vram {config.vram}" if chosen in roomy else f"on {chosen.card.name}"
        raise MedmindError(f"{sizes.name} does not fit {where}: {chosen.refusal}")
    total = tokens if tokens is not None else _tokens(config)
    return Plan(
        sizes=sizes,
        config=config,
        step=step,
        fused=not why,
        listed=not why and config.dtype != "float32",
        why=why,
        chosen=chosen,
        cards=cards,
        full=reference.full(step).peak,
        disk=_disk(sizes, step),
        time=_time(step, chosen, _limited(config, total)) if total else None,
    )


def check(config: QloraConfig, sizes: Sizes, free: int, *, fused: bool, hopper: bool = False) -> None:
    """Refuse at the start of a run what its card cannot hold.

    Args:
        free: bytes that torch may still allocate, CUDA's context being there already; `--vram` may lower it.
        fused: the fused step will do it; else the reference path.
        hopper: the card is a Hopper.

    Raises:
        MedmindError: nothing fits.
    """
    _placed(config, _work(config, sizes.shape, hopper=hopper), free, fused=fused)


def refusal(config: QloraConfig, sizes: Sizes) -> str:
    """Why the fused step does not do this on any card and the reference path does; empty: it does."""
    if config.kernels == "reference":
        return "--kernels reference was asked for"
    return sizes.refusal or fit.refusal(config, config.dtype)


def _work(config: QloraConfig, shape: Shape, *, hopper: bool) -> Step:
    return fit.work(config, shape, element=4 if config.dtype == "float32" else 2, hopper=hopper)


def _reference(config: QloraConfig, step: Step) -> Budget:
    checkpointing = config.gradient_checkpointing is not False
    return reference.lora(step, reference.Recipe(checkpointing=checkpointing, accumulates=config.accumulate > 1))


def _fit(config: QloraConfig, step: Step, card: Card, *, fused: bool) -> Fit:
    limit = fit.limit(config, card.usable)
    try:
        found, placement = _placed(config, step, card.usable, fused=fused)
        return Fit(card, limit, found, placement)
    except MedmindError as error:
        return Fit(card, limit, None, None, str(error))


def _placed(config: QloraConfig, step: Step, free: int, *, fused: bool) -> tuple[Budget, Placement | None]:
    """What fits, and how the fused step does it."""
    if fused:
        placement = fit.placement(config, step, free)
        return budget.measure(step, placement), placement
    estimate, limit = _reference(config, step), fit.limit(config, free)
    if estimate.peak * _ESTIMATE_MARGIN > limit:
        raise MedmindError(
            f"the reference path needs about {human_bytes(estimate.peak)} of the card's memory, and "
            f"{human_bytes(limit)} may be used",
            "give a smaller --batch or --context, or what --kernels fused can do",
        )
    return estimate, None


def _tokens(config: QloraConfig) -> int | None:
    """Tokens of all epochs; None where only reading the data would tell."""
    if config.data == "medquad":
        longest = max(MEDQUAD_TOKENS)
        once = MEDQUAD_TOKENS[min((size for size in MEDQUAD_TOKENS if size >= config.context), default=longest)]
    elif (file := SAMPLE_PATH if config.data == SAMPLE else Path(str(config.data))).suffix in _TEXTS and file.is_file():
        once = round(file.stat().st_size / _BYTES_PER_TOKEN * (1 - config.heldout_share))
    else:
        return None
    return round(once * config.epochs)


def _limited(config: QloraConfig, tokens: int) -> int:
    most = (config.max_steps or 0) * config.batch * config.accumulate * config.context
    return min(tokens, most) if most else tokens


def _disk(sizes: Sizes, step: Step) -> dict[str, int]:
    merged = {f"merged, {name}": round(sizes.shape.parameters * bits / 8) for name, bits in GGUF_BITS.items()}
    return {
        "download of the base": 0 if sizes.local else sizes.stored,
        "run, while it trains": RUN_BYTES_PER_TRAINED * step.trained,
        "adapter": 4 * step.trained,
        **merged,
    }


def _time(step: Step, fit: Fit, tokens: int) -> Time | None:
    """Matrix products at a share of the card's rate, unpacking of the weights at its memory's, or copies if slower."""
    card, shape = fit.card, step.shape
    if not card.tflops or not card.bandwidth or not card.pcie:
        return None
    layers, recomputed, copied = shape.layers, float(shape.layers), 0
    if fit.placement:
        sizes = shape.linears
        again = sum(sizes[name][0] * sizes[name][1] for name in ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"))
        recomputed = (layers - fit.placement.kept.count(Keep.ALL)) * again / shape.layer_weights
        parked = fit.placement.kept.count(Keep.HOST) * step.offloaded
        copied = 2 * (parked + fit.placement.streamed * step.nf4_layer)
        copied += 0 if fit.placement.head_on_card else shape.vocabulary * shape.hidden * step.element
    # Weights get no gradient: 2 FLOP a weight forward, 2 for the gradient of the input, 2 where it is computed again.
    floating = (4 * layers + 2 * recomputed) * shape.layer_weights + 6 * step.trained
    floating += 4 * SUPERVISED * shape.vocabulary * shape.hidden
    unpacked = (2 * layers + recomputed) * shape.layer_weights * (0.5 + 2 * step.element)  # read, written, read again
    computing = step.tokens * floating / (card.tflops * 1e12 * UTILISATION) + unpacked / (card.bandwidth * 1e9)
    copying = copied / 2 / (card.pcie * 1e9) / UTILISATION  # half of it each way at once, but for streamed weights
    return Time(tokens, step.tokens / max(computing, copying), floating)
