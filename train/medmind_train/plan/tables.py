"""A plan for people and as JSON. Knows its words; computes nothing."""

from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from medmind.console import human_bytes
from medmind_train.fused.lifetimes import OUTSIDE_TORCH
from medmind_train.fused.placement import Keep, Placement
from medmind_train.plan.cards import DESKTOP
from medmind_train.plan.estimate import Fit, Plan

_GROUPS = {
    "base": ("base in NF4", "base", "streaming slots", "norms and biases", "embedding, head and norms"),
    "head": ("head", "head for this pass"),
    "adapter and its gradients": ("adapter", "adapter gradients"),
    "optimizer state": ("optimizer state",),
    "kept activations": ("kept activations", "attention statistics"),
    "copies in flight": ("copies in flight",),
    "dequantized weight": ("dequantized weight", "matrix being quantized"),
    "logits": ("logits", "logits of a chunk"),
    "cuBLAS workspace": ("cuBLAS workspace",),
}
"""Components by the names that tensors have; whatever else lives is the activations of the moment."""
_ACTIVATIONS = "activations of the moment"


def components(fit: Fit) -> dict[str, int]:
    """Bytes on the card at the peak by component."""
    assert fit.budget
    live = fit.budget.phases[fit.budget.peak_phase]
    found = {group: sum(live.get(name, 0) for name in names) for group, names in _GROUPS.items()}
    found[_ACTIVATIONS] = sum(live.values()) - sum(found.values())
    return {name: size for name, size in found.items() if size}


def document(plan: Plan) -> dict[str, Any]:
    """Everything, as JSON holds it; sizes in bytes."""
    chosen, sizes, time = plan.chosen, plan.sizes, plan.time
    assert chosen.budget
    return {
        "base": {"name": sizes.name, "parameters": sizes.shape.parameters, "layers": sizes.shape.layers},
        "step": {
            "batch": plan.step.batch,
            "context": plan.step.length,
            "trained": plan.step.trained,
            "optimizer": plan.step.optimizer,
        },
        "path": "fused" if plan.fused else "reference",
        "why_reference": plan.why or None,
        "memory_is_estimate": not plan.listed,
        "card": {"name": chosen.card.name, "memory": chosen.card.memory, "usable": chosen.limit},
        "outside_torch": OUTSIDE_TORCH,
        "peak": chosen.budget.peak,
        "peak_phase": chosen.budget.peak_phase,
        "components": components(chosen),
        "phases": {phase: sum(live.values()) for phase, live in chosen.budget.phases.items()},
        "tensors": dict(chosen.budget.phases[chosen.budget.peak_phase]),
        "placement": _placement(chosen.placement),
        "host": dict(chosen.budget.host),
        "cards": [
            {
                "memory": fit.card.memory,
                "usable": fit.limit,
                "fits": fit.budget is not None,
                "peak": fit.budget.peak if fit.budget else None,
                "placement": _placement(fit.placement),
                "refusal": fit.refusal or None,
            }
            for fit in plan.cards
        ],
        "full_fine_tuning": plan.full,
        "disk": plan.disk,
        "time": None
        if time is None
        else {
            "estimate": True,
            "tokens": time.tokens,
            "tokens_per_s": round(time.per_second, 1),
            "seconds": round(time.seconds, 1),
            "flop_per_token": round(time.floating),
        },
    }


def render(plan: Plan) -> Group:
    """The plan for a person."""
    chosen = plan.chosen
    assert chosen.budget
    about = "" if plan.listed else ", an estimate"
    peak = Table(f"on the card, peak in {chosen.budget.peak_phase}{about}", "", box=None, pad_edge=False)
    peak.columns[1].justify = "right"
    for name, size in components(chosen).items():
        peak.add_row(name, human_bytes(size))
    peak.add_row(Text("peak of torch", style="bold"), Text(human_bytes(chosen.budget.peak), style="bold"))
    peak.add_row("beside it, CUDA's context and kernels (estimate)", human_bytes(OUTSIDE_TORCH))

    elsewhere = Table("elsewhere", "", box=None, pad_edge=False)
    elsewhere.columns[1].justify = "right"
    for name, size in chosen.budget.host.items():
        elsewhere.add_row(f"host memory, page-locked: {name}", human_bytes(size))
    for name, size in plan.disk.items():
        if size:
            elsewhere.add_row(f"disk: {name}", human_bytes(size))

    kept = ("streamed", "keep all", "keep inputs", "park inputs")
    cards = Table("card", "for torch", "peak", *(kept if plan.fused else ()), box=None, pad_edge=False)
    for column in cards.columns[1:]:
        column.justify = "right"
    for fit in plan.cards:
        if fit.budget is None:
            cards.add_row(fit.card.name, human_bytes(fit.limit), "does not fit")
            continue
        cells = []
        if fit.placement:
            kinds = (fit.placement.kept.count(keep) for keep in (Keep.ALL, Keep.CARD, Keep.HOST))
            cells = [str(count) for count in (fit.placement.streamed, *kinds)]
        cards.add_row(fit.card.name, human_bytes(fit.limit), human_bytes(fit.budget.peak), *cells)
    return Group(_opening(plan), Text(), peak, Text(), elsewhere, Text(), cards, Text(), *_closing(plan))


def _opening(plan: Plan) -> Text:
    step, sizes = plan.step, plan.sizes
    path = "fused kernels" if plan.fused else f"the reference path ({plan.why})"
    return Text.assemble(
        (f"{sizes.name}", "bold"),
        f", {_count(sizes.shape.parameters)} parameters, {_count(step.trained)} trained; "
        f"{step.batch} × {step.length:,} tokens a pass, {path}\n",
        f"{plan.chosen.card.name}: {human_bytes(plan.chosen.limit)} for torch; {_how(plan.chosen)}",
    )


def _closing(plan: Plan) -> list[Text]:
    assert plan.chosen.budget
    lines = [
        Text(
            f"for torch: what a card has, less {human_bytes(OUTSIDE_TORCH)} for CUDA and {human_bytes(DESKTOP)} for a "
            "desktop; beside it: how many layers are streamed, and what layers leave for the backward pass\n"
            f"full fine-tuning in bf16 would take about {human_bytes(plan.full)} of the card"
        )
    ]
    if plan.time:
        lines.append(
            Text(
                f"time, an estimate: {plan.time.tokens:,} tokens at {plan.time.per_second:,.0f} a second, "
                f"{_duration(plan.time.seconds)}"
            )
        )
    elif plan.chosen.card.tflops is None:
        lines.append(Text("time: name a card (--card rtx4060) for an estimate", style="dim"))
    else:
        lines.append(Text("time: give --tokens for an estimate", style="dim"))
    return lines


def _placement(placement: Placement | None) -> dict[str, Any] | None:
    if placement is None:
        return None
    return {
        "keep_all": placement.kept.count(Keep.ALL),
        "keep_inputs": placement.kept.count(Keep.CARD),
        "park_on_host": placement.kept.count(Keep.HOST),
        "streamed": placement.streamed,
        "head_on_card": placement.head_on_card,
    }


def _how(fit: Fit) -> str:
    """What is kept, computed again, parked and streamed, in words."""
    placement = fit.placement
    if placement is None:
        return "layers computed again"
    layers = len(placement.kept)
    counts = {keep: placement.kept.count(keep) for keep in Keep}
    parts = [f"{placement.streamed} of {layers} layers streamed from the host"] if placement.streamed else []
    parts += ["head on the host"] if not placement.head_on_card else []
    words = {
        Keep.ALL: "keep everything",
        Keep.CARD: "keep inputs and are computed again",
        Keep.HOST: "park inputs on the host and are computed again",
    }
    parts += [f"{counts[keep]} {words[keep]}" for keep in words if counts[keep]]
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"


def _count(weights: int) -> str:
    return f"{weights / 1e9:.2f} billion" if weights >= 10**9 else f"{weights / 1e6:.1f} million"
