"""The peak of a fused training step on the card, by phase and tensor, and the fastest placement within a limit.

Knows how the lists of `lifetimes` add up and in which order room is spent. Knows no torch, and measures nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate

from medmind.console import human_bytes
from medmind.errors import MedmindError
from medmind_train.fused import lifetimes
from medmind_train.fused.lifetimes import Live, Moments, Step
from medmind_train.fused.placement import Keep, Placement


@dataclass(frozen=True)
class Budget:
    """Where the bytes of a step lie.

    Attributes:
        phases: by phase, the bytes on the card by tensor at its fullest moment, what stands throughout included.
        host: bytes of pinned host memory, by what they are for.
    """

    phases: Mapping[str, Live]
    host: Live

    @property
    def peak_phase(self) -> str:
        """The phase that needs the most of the card."""
        return max(self.phases, key=lambda phase: _total(self.phases[phase]))

    @property
    def peak(self) -> int:
        """Bytes that torch has allocated on the card at most."""
        return _total(self.phases[self.peak_phase])

    @property
    def host_total(self) -> int:
        """Bytes of pinned host memory."""
        return _total(self.host)


def measure(step: Step, placement: Placement) -> Budget:
    """The bytes of `step` with `placement`, by phase and tensor."""
    if len(placement.kept) != step.shape.layers:
        raise ValueError(f"a placement of {len(placement.kept)} layers for {step.shape.layers}")
    base = lifetimes.base(step, placement)
    always = base | lifetimes.standing(step)
    # Going forward, layers leave more and more on the card; going backward, they take it away again.
    kept = list(accumulate(step.kept(keep) for keep in placement.kept))
    everything = {"kept activations": kept[-1]}
    layers = list(zip(placement.kept, (None, *placement.kept[:-1]), kept, strict=True))

    def fullest(lists: Callable[[Step, Keep, Keep | None], Moments]) -> Live:
        # Layers of one kind differ in what has been kept up to them alone: the last one of each kind counts.
        kinds = {(keep, before): so_far for keep, before, so_far in layers}
        return max(
            (
                {"kept activations": so_far}
                | {name: size for name, size in moment.items() if name not in lifetimes.KEPT[keep]}
                for (keep, before), so_far in kinds.items()
                for moment in lists(step, keep, before)
            ),
            key=_total,
        )

    phases = {
        "loading": base | max(lifetimes.loading(step), key=_total),
        **{phase: always | fullest(lists) for phase, lists in lifetimes.FORWARD.items()},
        "head": always | everything | max(lifetimes.head(step, placement), key=_total),
        **{phase: always | fullest(lists) for phase, lists in lifetimes.BACKWARD.items()},
        "update": always,
    }
    present = {phase: {name: size for name, size in live.items() if size} for phase, live in phases.items()}
    return Budget(present, {name: size for name, size in lifetimes.host(step, placement).items() if size})


def choose(step: Step, limit_bytes: int) -> Placement:
    """The fastest placement whose peak is at most `limit_bytes` of the card.

    Room is spent in this order: the base's layers, the head, everything of as many layers as possible from the last
    one down, the inputs of as many as possible of those before them.

    Raises:
        MedmindError: nothing fits; says the least that is possible, and what to change.
    """

    def fits(placement: Placement) -> bool:
        return measure(step, placement).peak <= limit_bytes

    layers = step.shape.layers
    lean = Placement.lean(layers)
    # Two layers' slots are needed to stream any: less than three streamed gain nothing.
    candidates = (lean, *(replace(lean, streamed=count) for count in range(3, layers + 1)))
    found = next(filter(fits, candidates), None)
    if found is None:
        raise _too_large(step, limit_bytes)
    with_head = replace(found, head_on_card=True)
    found = with_head if fits(with_head) else found
    for keep in (Keep.ALL, Keep.CARD):
        offloaded = found.kept.count(Keep.HOST)
        tail = found.kept[offloaded:]
        for count in range(offloaded, 0, -1):
            more = replace(found, kept=(Keep.HOST,) * (offloaded - count) + (keep,) * count + tail)
            if fits(more):
                found = more
                break
    return found


def least(step: Step) -> int:
    """Bytes of the card without which there is no way to do `step`."""
    layers = step.shape.layers
    return min(measure(step, Placement.lean(layers, stream=stream)).peak for stream in (False, True))


def _too_large(step: Step, limit: int) -> MedmindError:
    changes: list[tuple[str, Step]] = []
    batch = step.batch
    while batch > 1:
        batch //= 2
        changes.append((f"--batch {batch}", replace(step, batch=batch)))
    lengths = [length for length in (4096, 2048, 1024, 512, 256, 128) if length < step.length]
    changes += [
        (
            f"--batch 1 --context {length}" if step.batch > 1 else f"--context {length}",
            replace(step, batch=1, length=length),
        )
        for length in lengths
    ]
    small = replace(step, batch=1, length=min(step.length, 128))
    changes += [
        (
            f"--rank {rank} with --batch 1 --context {small.length}",
            replace(small, ranks=[{name: min(old, rank) for name, old in ranks.items()} for ranks in step.layer_ranks]),
        )
        for rank in (8, 4, 1)
    ]
    hint = next(
        (f"{words} would fit" for words, other in changes if least(other) <= limit),
        "take a smaller base or a larger card",
    )
    return MedmindError(
        f"{step.batch} × {step.length:,} tokens need at least {human_bytes(least(step))} of the card's memory, and "
        f"{human_bytes(limit)} may be used",
        hint,
    )


def _total(live: Live) -> int:
    return sum(live.values())
